"""The page of the fleet is what the data makes of it."""

from guardian import fleet_page
from tests.support.loading import REPOSITORY
from tests.support.workspaces import catalogue

STALE = f"docs/fleet.md is older than pillar/fleet.yaml; run `{fleet_page.COMMAND}`"


def test_page_is_made_of_the_data_as_it_is():
    assert (REPOSITORY / "docs/fleet.md").read_text() == fleet_page.page(catalogue()), STALE


def test_page_names_every_role_account_and_workspace():
    page = fleet_page.page(catalogue())
    for name, account in catalogue()["accounts"].items():
        assert f"| {name} | {account['purpose']} | {account['contact']} |" in page
        for region in account["regions"]:
            assert f"| {name}-{region} |" in page
    for name in catalogue()["roles"]:
        assert f"| {name} | " in page


def test_account_without_voice_nodes_says_so():
    assert "| security | security tooling | security@example.com | none |" in fleet_page.page(
        catalogue()
    )


def test_command_prints_it(capsys):
    fleet_page.main()
    assert capsys.readouterr().out == fleet_page.page(catalogue())
