"""Outputs of stacks, published and read back: in a directory, and as parameters set by set."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from guardian.config import ParameterOutputs
from guardian.errors import GuardianError
from guardian.stacks import outputs, parameters
from guardian.stacks.outputs import Directory, Output
from guardian.stacks.parameters import ParameterStore

BASE = "/guardian/outputs/prod-euw2/databases"
SECRET = "/guardian/outputs-sensitive/prod-euw2/databases"
BEFORE = {
    "endpoint": Output("db-1.example"),
    "gone": Output({"left": [1, 2]}),
    "port": Output(5432),
    "password": Output("first-not-a-secret", sensitive=True),
}
AFTER = {
    "endpoint": Output("db-2.example"),
    "port": Output(5432),
    "zones": Output(["a", "b"]),
    "password": Output("second-not-a-secret", sensitive=True),
    "token": Output("third-not-a-secret", sensitive=True),
}


def open_values(found: dict[str, Output]) -> dict[str, Any]:
    return {name: one.value for name, one in found.items() if not one.sensitive}


class Client:
    """A boto3 client that counts calls and breaks at the nth one of a kind."""

    def __init__(self, real: Any) -> None:
        self.real, self.calls = real, []
        self.broken: dict[str, tuple[int, str]] = {}

    def __getattr__(self, operation: str) -> Any:
        def call(**arguments: Any) -> Any:
            at, code = self.broken.get(operation, (0, ""))
            if at:
                if at == 1:
                    said = {"Error": {"Code": code, "Message": f"no: {arguments}"}}
                    raise ClientError(said, operation)
                self.broken[operation] = (at - 1, code)
            self.calls.append((operation, arguments))
            return getattr(self.real, operation)(**arguments)

        return call

    def written(self) -> list[str]:
        return [one["Name"] for operation, one in self.calls if operation == "put_parameter"]


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    with mock_aws():
        yield Client(boto3.client("ssm", region_name="eu-west-2"))


@pytest.fixture
def store(client: Client) -> ParameterStore:
    return ParameterStore("/guardian/outputs", "prod-euw2", client, pace=lambda: None)


def told(error: pytest.ExceptionInfo[GuardianError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert "not-a-secret" not in text
    return text


@pytest.mark.parametrize("kind", ["directory", "parameters"])
def test_what_was_published_is_read_back(kind: str, tmp_path: Path, store: ParameterStore) -> None:
    place: outputs.Place = Directory(tmp_path, "prod-euw2") if kind == "directory" else store
    assert place.read("databases") is None
    assert place.publish("databases", BEFORE)
    assert place.read("databases") == BEFORE
    assert not place.publish("databases", BEFORE)
    assert place.publish("databases", AFTER)
    assert place.read("databases") == AFTER
    assert place.read("network") is None
    assert place.publish("network", {})
    assert place.read("network") == {}


def test_pillar_is_given_no_sensitive_output(tmp_path: Path, store: ParameterStore) -> None:
    place = Directory(tmp_path, "prod-euw2")
    place.publish("databases", BEFORE)
    store.publish("databases", BEFORE)
    in_files = outputs.published({"path": str(tmp_path)}, "prod-euw2")
    assert in_files == {"databases": open_values(BEFORE)}
    assert parameters.plain(store, "/guardian/outputs", "prod-euw2") == in_files
    assert outputs.published({"path": str(tmp_path)}, "prod-use2") == {}
    assert parameters.plain(store, "/guardian/outputs", "prod-use2") == {}


def test_a_file_is_its_owners_and_one_object_to_pick_a_secret_from(tmp_path: Path) -> None:
    Directory(tmp_path, "prod-euw2").publish("databases", BEFORE)
    file = tmp_path / "prod-euw2" / "databases.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert json.loads(file.read_text())["password"] == "first-not-a-secret"
    assert [one.name for one in file.parent.iterdir()] == ["databases.json"]


@pytest.mark.parametrize("source", [{}, {"path": "/x", "parameters": "/y"}])
def test_one_source_is_named(source: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="exactly one of path, parameters"):
        outputs.published(source, "prod-euw2")


def test_sensitive_ones_are_encrypted_and_apart(client: Client, store: ParameterStore) -> None:
    store.publish("databases", BEFORE)
    given = {one["Name"]: one for operation, one in client.calls if operation == "put_parameter"}
    assert given[f"{SECRET}/password"]["Type"] == "SecureString"
    assert {one["Type"] for name, one in given.items() if name.startswith(BASE)} == {"String"}
    assert "KeyId" not in given[f"{SECRET}/password"]
    client.calls.clear()
    keyed = ParameterStore("/guardian/outputs", "prod-euw2", client, "alias/voice", lambda: None)
    keyed.publish("other", BEFORE)
    keys = {one["Name"]: one.get("KeyId") for what, one in client.calls if what == "put_parameter"}
    assert {name.rpartition("/")[2] for name, key in keys.items() if key} == {"password"}


def test_only_what_changed_is_written_and_what_vanished_is_deleted(
    client: Client, store: ParameterStore
) -> None:
    store.publish("databases", BEFORE)
    client.calls.clear()
    store.publish("databases", BEFORE)
    assert client.written() == []
    store.publish("databases", AFTER)
    assert client.written() == [
        f"{BASE}/endpoint", f"{SECRET}/password", f"{SECRET}/token", f"{BASE}/zones",
        f"{BASE}/manifest.json",
    ]  # fmt: skip
    deleted = [one["Names"] for operation, one in client.calls if operation == "delete_parameters"]
    assert deleted == [[f"{BASE}/gone"]]


def test_an_output_that_turned_sensitive_leaves_nothing_in_the_open(
    client: Client, store: ParameterStore
) -> None:
    store.publish("databases", {"password": Output("first-not-a-secret")})
    store.publish("databases", {"password": Output("first-not-a-secret", sensitive=True)})
    assert parameters.plain(store, "/guardian/outputs", "prod-euw2") == {"databases": {}}
    names = {one["Name"] for one in client.real.describe_parameters()["Parameters"]}
    assert names == {f"{BASE}/manifest.json", f"{SECRET}/password"}


@pytest.mark.parametrize("number", range(1, 6))
def test_a_publish_that_breaks_leaves_the_set_before_and_names_the_rest(
    client: Client, store: ParameterStore, number: int
) -> None:
    store.publish("databases", BEFORE)
    client.broken = {"put_parameter": (number, "ThrottlingException")}
    with pytest.raises(GuardianError) as error:
        store.publish("databases", AFTER)
    missing = [
        "endpoint, password, port, token, zones", "password, port, token, zones", "token, zones",
        "zones", "manifest.json",
    ][number - 1]  # fmt: skip
    assert "PutParameter: ThrottlingException" in told(error)
    assert f"not published: {missing}; readers keep the outputs before; deploy it" in told(error)
    client.broken = {}
    assert store.read("databases") == BEFORE
    assert parameters.plain(store, "/guardian/outputs", "prod-euw2")["databases"] == open_values(
        BEFORE
    )
    assert store.publish("databases", AFTER)
    assert store.read("databases") == AFTER


def test_a_first_publish_that_breaks_was_none(client: Client, store: ParameterStore) -> None:
    client.broken = {"put_parameter": (3, "InternalServerError")}
    with pytest.raises(GuardianError):
        store.publish("databases", BEFORE)
    assert store.read("databases") is None
    assert parameters.plain(store, "/guardian/outputs", "prod-euw2") == {}


def test_a_set_that_is_published_stays_so_when_old_outputs_cannot_be_deleted(
    client: Client, store: ParameterStore
) -> None:
    store.publish("databases", BEFORE)
    client.broken = {"delete_parameters": (1, "AccessDeniedException")}
    with pytest.raises(GuardianError) as error:
        store.publish("databases", AFTER)
    assert "its outputs are published, but gone, no longer among them" in told(error)
    assert "DeleteParameters: AccessDeniedException; grant it" in told(error)
    assert store.read("databases") == AFTER
    client.broken = {}
    assert not store.publish("databases", AFTER)
    assert f"{BASE}/gone" not in {one.name for one in store.tree(BASE)}


class Torn:
    """A reader whose first reading has old rows up to some page and new ones from there."""

    def __init__(self, rows: list[list[parameters.Parameter]], store: ParameterStore) -> None:
        self.rows, self.store = rows, store

    def tree(self, path: str) -> list[parameters.Parameter]:
        return self.rows.pop(0) if self.rows else self.store.tree(path)

    def pinned(self, selectors: list[str]) -> dict[str, parameters.Parameter]:
        return self.store.pinned(selectors)

    def forget(self, sources: list[str]) -> None:
        assert sources == ["/guardian/outputs/prod-euw2"]


def test_pages_of_two_moments_give_one_set_or_the_other(store: ParameterStore) -> None:
    base = "/guardian/outputs/prod-euw2"
    store.publish("databases", BEFORE)
    before = {one.name: one for one in store.tree(base)}
    store.publish("databases", AFTER)
    after = {one.name: one for one in store.tree(base)}
    names = sorted(set(before) | set(after))
    for cut in range(len(names) + 1):
        for first, second in ((before, after), (after, before)):
            rows = [first[name] for name in names[:cut] if name in first]
            rows += [second[name] for name in names[cut:] if name in second]
            found = parameters.plain(Torn([rows], store), "/guardian/outputs", "prod-euw2")
            assert found["databases"] in (open_values(BEFORE), open_values(AFTER)), (cut, rows)


def test_a_version_that_is_gone_for_good_is_told(client: Client, store: ParameterStore) -> None:
    store.publish("databases", BEFORE)
    client.real.delete_parameter(Name=f"{BASE}/port")
    with pytest.raises(GuardianError) as error:
        store.read("databases")
    assert f"{BASE}/port: version 1 is gone" in told(error)
    client.real.put_parameter(Name=f"{BASE}/port", Value="1", Type="String")
    client.real.put_parameter(Name=f"{BASE}/port", Value="2", Type="String", Overwrite=True)
    assert store.read("databases") == {**BEFORE, "port": Output(1)}, "made again by hand"
    client.real.delete_parameter(Name=f"{BASE}/port")
    client.real.put_parameter(Name=f"{BASE}/port", Value="[not-a-secret", Type="String")
    with pytest.raises(GuardianError) as error:
        store.read("databases")
    assert f"{BASE}/port: no JSON" in told(error)


def test_a_value_changed_by_hand_is_not_taken_and_mended(
    client: Client, store: ParameterStore
) -> None:
    store.publish("databases", BEFORE)
    client.real.put_parameter(Name=f"{BASE}/port", Value="1", Type="String", Overwrite=True)
    assert store.read("databases") == BEFORE
    assert store.publish("databases", BEFORE)
    assert store.read("databases") == BEFORE


@pytest.mark.parametrize("text", ["", "[]", "{", '{"outputs": {"port": "x"}}', '{"outputs": 1}'])
def test_a_damaged_manifest_is_told(client: Client, store: ParameterStore, text: str) -> None:
    store.publish("databases", BEFORE)
    client.real.put_parameter(
        Name=f"{BASE}/manifest.json", Value=text or " ", Type="String", Overwrite=True
    )
    for read in (
        lambda: store.read("databases"),
        lambda: parameters.plain(store, "/guardian/outputs", "prod-euw2"),
    ):
        with pytest.raises(GuardianError, match=r"manifest.json: not a list of outputs; run") as e:
            read()
        told(e)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"big": Output("x" * 9000)}, "output 'big' takes 9002 bytes and a parameter holds 8192"),
        ({"é": Output(1)}, "'é' cannot be part of a parameter's name; use letters"),
        ({f"o{n}": Output(n) for n in range(700)}, "the list of its outputs takes"),
    ],
)
def test_what_a_parameter_cannot_hold_is_refused_before_anything_is_written(
    client: Client, store: ParameterStore, found: dict[str, Output], message: str
) -> None:
    with pytest.raises(GuardianError) as error:
        store.publish("databases", {"a": Output("not-a-secret"), **found})
    assert told(error).startswith("stack databases: ")
    assert message in told(error)
    assert client.calls == []


@pytest.mark.parametrize(
    "value",
    ["", 0, False, [], {}, {"a": {"b": {}}}, "{{x}}", "{{{", "ö\n\t\x00", 1.5, [None], "x" * 8190],
)
def test_every_value_comes_back_and_none_looks_like_a_reference(
    client: Client, store: ParameterStore, value: Any
) -> None:
    store.publish("odd", {"value": Output(value), "also": Output(value, sensitive=True)})
    assert store.read("odd") == {"value": Output(value), "also": Output(value, sensitive=True)}
    put = [one for operation, one in client.calls if operation == "put_parameter"]
    assert not any("{{" in one["Value"] for one in put)
    assert {one["Tier"] for one in put} == {"Intelligent-Tiering"}


def test_more_outputs_than_a_page_holds(client: Client, store: ParameterStore) -> None:
    many = {f"o{number:02}": Output(number) for number in range(37)}
    store.publish("wide", many)
    client.broken = {"put_parameter": (30, "InternalServerError")}
    with pytest.raises(GuardianError):
        store.publish("wide", {name: Output(-one.value - 1) for name, one in many.items()})
    client.broken = {}
    assert store.read("wide") == many
    assert parameters.plain(store, "/guardian/outputs", "prod-euw2") == {"wide": open_values(many)}
    store.publish("wide", {})
    assert store.read("wide") == {}


def test_writes_are_paced_below_the_quota() -> None:
    slept: list[float] = []
    pace = parameters._Pace(3.0, slept.append)
    for _ in range(4):
        pace()
    assert slept[0] == 0
    assert [round(one, 1) for one in slept[1:]] == [0.3, 0.7, 1.0]


def test_no_credentials_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    where = ParameterOutputs("/guardian/outputs", "eu-west-2")
    with pytest.raises(GuardianError, match="NoCredentialsError; log in to AWS"):
        ParameterStore.of(where, "prod-euw2").read("databases")


def test_a_profile_that_does_not_exist_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    with pytest.raises(GuardianError, match=r"AWS: The config profile \(nobody\) could not be"):
        ParameterStore.of(ParameterOutputs("/guardian/outputs", "eu-west-2"), "prod-euw2")
