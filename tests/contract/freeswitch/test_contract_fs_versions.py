"""What one version does otherwise than another; certificates have a file of their own."""

import pytest
from fs_daemon import until

from tests.support.phone import Phone
from tests.support.ports import free_ports

pytestmark = pytest.mark.versions


def test_it_says_which_version_it_is(shared):
    release = ".".join(map(str, shared.version)) + "-release"
    assert shared.api("version short") == f"{release}\n"
    assert shared.api("version").startswith(f"FreeSWITCH Version {release}")
    assert f"(Version {release} " in shared.api("status")


def test_command_that_came_with_1_11(shared):
    said = shared.api("reloadcert")
    if shared.version >= (1, 11, 1):
        assert said == "+OK cert reload event sent\n"
    else:
        assert said == "-ERR reloadcert Command not found!\n"


@pytest.fixture
def plain(stopped):
    """A daemon whose second profile does not set sip-options-respond-503-on-busy."""
    stopped.plain_port = free_ports()
    stopped.tree.profile("plain", stopped.plain_port, sip_options_respond_503_on_busy="false")
    stopped.start()
    until(lambda: stopped.api("sofia status").count("RUNNING") == 2)
    return stopped


def statuses(phone):
    return phone.options().status, phone.invite().status


def test_options_of_a_busy_switch_need_a_setting_to_say_so(plain):
    """The trap: since 1.11.1 a paused switch looks healthy to whoever sends OPTIONS."""
    busy = 200 if plain.version >= (1, 11, 1) else 503
    with Phone(plain.sip) as told, Phone(("127.0.0.1", plain.plain_port)) as untold:
        for command in ("fsctl pause inbound", "fsctl pause"):
            plain.api(command)
            assert statuses(told) == (503, 503)
            assert statuses(untold) == (busy, 503)
            plain.api("fsctl resume")
            assert statuses(told) == statuses(untold) == (200, 200)
        dialog = told.call()
        plain.api("fsctl max_sessions 1")
        assert statuses(told) == (503, 503)
        assert statuses(untold) == (busy, 503)
        assert told.hang_up(dialog) == 200


def test_rescan_applies_the_setting(plain):
    with Phone(("127.0.0.1", plain.plain_port)) as phone:
        plain.tree.profile("plain", plain.plain_port)
        plain.api("sofia profile plain rescan")
        plain.api("fsctl pause inbound")
        assert statuses(phone) == (503, 503)
