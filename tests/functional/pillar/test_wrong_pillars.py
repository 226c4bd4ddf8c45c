"""Wrong pillars, each an edit of one file of the tree: told by file, key path and remedy."""

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.functional.test_pillar import Compiler
from tests.support import workspaces

PROD = "workspaces/prod-euw2"
REFERENCE = "must be a reference to a secret; declare it under secrets and write {secret: its name}"
USELESS = "a reference to a secret is of no use here"
# file, what is merged into it, the path that is told, the remedy
WRONG: list[tuple[str, dict[str, Any], str, str]] = [
    # names
    ("common", {"bsae": {}}, "bsae", "unknown key (did you mean base?)"),
    ("common", {"base": {"timezon": "Etc/UTC"}}, "base:timezon", "did you mean timezone?"),
    ("aws", {"servces": {}}, "servces", "did you mean services?"),
    ("aws", {"freeswitch": {"codec": ["PCMU"]}}, "freeswitch:codec", "did you mean codecs?"),
    ("aws", {"opensips": {"worker": 8}}, "opensips:worker", "did you mean workers?"),
    ("accounts/prod", {"opensips": {"limits": {"call": 1}}}, "opensips:limits:call",
     "did you mean calls?"),
    ("accounts/prod", {"defence": {"trys": 5}}, "defence:trys", "did you mean tries?"),
    ("roles/pbx", {"freeswitch": {"max_sesions": 5}}, "freeswitch:max_sesions",
     "did you mean max_sessions?"),
    ("roles/pbx", {"freeswitch": {"dialplan": {"public": [{"name": "a", "aktions": []}]}}},
     "freeswitch:dialplan:public:0:aktions", "did you mean actions?"),
    ("roles/sip", {"opensips": {"database": {"remote": {"hots": "x"}}}},
     "opensips:database:remote:hots", "did you mean host?"),
    (PROD, {"opensips": {"gateways": {"primary-1": {"adress": "192.0.2.1"}}}},
     "opensips:gateways:primary-1:adress", "did you mean address?"),
    (PROD, {"opensips": {"gateways": {"a b": {"address": "192.0.2.1"}}}},
     "opensips:gateways:a b", "a name here has the form"),
    ("common", {"features": {"Echo": True}}, "features:Echo", "a name here has the form"),
    ("common", {"certificates": {"default": {"dns_name": ["x"]}}}, "certificates:default:dns_name",
     "did you mean dns_names?"),
    # kinds
    ("common", {"monitoring": {"interval": "15"}}, "monitoring:interval",
     "must be integer, is string"),
    ("common", {"features": {"echo": "no"}}, "features:echo", "must be boolean, is string"),
    ("common", {"monitoring": []}, "monitoring", "must be object, is array"),
    ("aws", {"opensips": {"workers": True}}, "opensips:workers", "must be integer, is boolean"),
    ("aws", {"opensips": {"sockets": {}}}, "opensips:sockets", "must be array, is object"),
    ("aws", {"services": {"omnichannel": 1}}, "services:omnichannel", "must be string, is integer"),
    ("roles/pbx", {"freeswitch": {"modules": "mod_sofia"}}, "freeswitch:modules",
     "must be array, is string"),
    ("roles/pbx", {"freeswitch": None}, "freeswitch", "must be object, is null"),
    # ranges
    ("common", {"monitoring": {"interval": 1}}, "monitoring:interval", "must be at least 5"),
    ("aws", {"freeswitch": {"unit": {"priority": 100}}}, "freeswitch:unit:priority",
     "must be at most 99"),
    ("aws", {"opensips": {"health": {"port": 70000}}}, "opensips:health:port",
     "must be at most 65535"),
    ("aws", {"opensips": {"sockets": []}}, "opensips:sockets", "must have at least 1 entries"),
    ("roles/pbx", {"freeswitch": {"max_sessions": 0}}, "freeswitch:max_sessions",
     "must be at least 1"),
    ("accounts/prod", {"opensips": {"fraud": {"1": []}}}, "opensips:fraud:1",
     "must have at least 1 entries"),
    # forms
    ("aws", {"services": {"omnichannel": "ftp://x"}}, "services:omnichannel", "has not the form"),
    ("aws", {"services": {"service-gateway": "https://me:pw@x"}}, "services:service-gateway",
     "has not the form"),
    ("regions/euw2", {"opensips": {"trusted": ["10.20.0.0/33"]}}, "opensips:trusted:0",
     "has not the form"),
    (PROD, {"opensips": {"gateways": {"primary-1": {"address": "carrier.example"}}}},
     "opensips:gateways:primary-1:address", "has not the form 'Address'"),
    ("accounts/prod", {"opensips": {"package": {"version": "3.4.18; reboot"}}},
     "opensips:package:version", "has not the form"),
    ("accounts/prod", {"opensips": {"outbound": [{"prefix": "44x", "carriers": ["primary"]}]}},
     "opensips:outbound:0:prefix", "has not the form"),
    # choices
    ("aws", {"opensips": {"sockets": [{"proto": "utp", "port": 5060}]}}, "opensips:sockets:0:proto",
     "did you mean udp?"),
    ("roles/sip", {"opensips": {"sets": {"1": "pbz"}}}, "opensips:sets:1", "did you mean pbx?"),
    ("roles/sip", {"opensips": {"database": {"remote": {"driver": "mysq"}}}},
     "opensips:database:remote:driver", "did you mean mysql?"),
    # what is missing
    (PROD, {"opensips": {"gateways": {"third": {}}}}, "opensips:gateways:third:address",
     "missing; set it"),
    ("accounts/prod", {"opensips": {"tls": {"web": {}}}}, "opensips:tls:web:certificate",
     "missing; set it"),
    ("roles/pbx", {"freeswitch": {"dialplan": {"public": [{"name": "a"}]}}},
     "freeswitch:dialplan:public:0", "needs either actions or conditions"),
    # secrets
    ("roles/pbx", {"freeswitch": {"esl_password": "hunter2"}}, "freeswitch:esl_password",
     REFERENCE),
    ("roles/sip", {"opensips": {"database": {"remote": {"password": "hunter2"}}}},
     "opensips:database:remote:password", REFERENCE),
    ("common", {"certificates": {"default": {"key": "hunter2"}}}, "certificates:default:key",
     REFERENCE),
    ("accounts/prod", {"freeswitch": {"loglevel": {"secret": "esl-password"}}},
     "freeswitch:loglevel", USELESS),
]  # fmt: skip
# What is told before the schema is asked: file, edit, what is said.
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("roles/pbx", {"freeswitch": {"esl_password": {"secret": "esl-pasword"}}},
     "secret esl-pasword of freeswitch:esl_password: is not declared (did you mean esl-password?)"),
    ("common", {"secrets": {"esl-password": {"paramter": "/x"}}},
     "secrets:esl-password:paramter: unknown key (did you mean parameter?)"),
    ("common", {"secrets": {"esl-password": {"file": "/x"}}},
     "secrets:esl-password: names parameter and file; it must have exactly one of"),
    ("dummies", {"secrets": {"esl-password": {"dummy": " "}}},
     "secret esl-password of freeswitch:esl_password: is empty"),
    ("aws", {"services": {"service-gateway": "https://x.{regoin}"}},
     "services:service-gateway: placeholder {regoin} is unknown; there are {account}"),
    (PROD, {"fleet": ["pbx-01"]}, "pillar/workspaces/prod-euw2.sls: fleet: must map host names"),
    (PROD, {"fleet": {"pbx-006a1": {"role": "pbx", "zone": "a", "address": "10.0.0.1"}}},
     "pbx-006a1 is in pillar/workspaces/prod-euw2.sls and in a stack's fleet; drop it"),
    (PROD, {"from_stacks": {"fleet": ["rt-core-api:url"]}},
     "rt-core-api:url (pillar/workspaces/prod-euw2.sls: from_stacks:fleet) maps no host to a node"),
]  # fmt: skip


def merged(into: Any, edit: Any) -> Any:
    if not isinstance(into, dict) or not isinstance(edit, dict):
        return edit
    return {**into, **{key: merged(into.get(key), value) for key, value in edit.items()}}


class Editor:
    """Compiles this tree with one file edited; the others are those of the repository."""

    def __init__(self, directory: Path) -> None:
        self._tree = directory / "pillar"
        keep = shutil.ignore_patterns("schema")
        shutil.copytree(workspaces.PILLAR, self._tree, ignore=keep)
        self._compiled = Compiler(directory, self._tree, dummies=workspaces.accounts())
        workspaces.publish(self._compiled.outputs)
        fleet = workspaces.fleet("prod-euw2", self._compiled.outputs)
        self._nodes = {
            entry["role"]: f"{name}.prod-euw2" for name, entry in list(fleet.items())[::-1]
        }

    def told(self, name: str, edit: dict[str, Any], role: str) -> str:
        """Return what a node of a role is refused with."""
        file = self._tree / f"{name}.sls"
        before = file.read_text()
        try:
            file.write_text(yaml.safe_dump(merged(yaml.safe_load(before), copy.deepcopy(edit))))
            return self._compiled.errors(self._nodes[role])
        finally:
            file.write_text(before)


@pytest.fixture(scope="module")
def editor(tmp_path_factory: pytest.TempPathFactory) -> Editor:
    return Editor(tmp_path_factory.mktemp("wrong"))


@pytest.mark.parametrize(
    ("name", "edit", "path", "remedy"), WRONG, ids=[f"{one[0]}:{one[2]}" for one in WRONG]
)
def test_wrong_pillar_is_told_by_file_path_and_remedy(editor, name, edit, path, remedy):
    said = editor.told(name, edit, "sip" if name == "roles/sip" else "pbx")
    assert f"pillar/{name}.sls: {path}: " in said
    assert remedy in said.partition(f"pillar/{name}.sls: {path}: ")[2]
    assert "hunter2" not in said, "values are never told"
    assert "me:pw" not in said


@pytest.mark.parametrize(("name", "edit", "told"), REFUSED, ids=[one[2][:40] for one in REFUSED])
def test_wrong_reference_or_fleet_is_told_by_what_holds_it(editor, name, edit, told):
    assert told in editor.told(name, edit, "pbx")


def test_tree_as_it_is_compiles(editor):
    """What the tests above change; else they would prove nothing."""
    with pytest.raises(AssertionError, match="it compiled"):
        editor.told("common", {}, "pbx")
