"""guardian.yaml: every mistake is one line with file, line and remedy."""

from pathlib import Path

import pytest

from guardian import config
from guardian.errors import UsageError

GOOD = """\
stacks:
  lab: {path: terraform/lab}
  upper: {path: terraform/lab, after: [lab]}
rollout:
  waves: [5, 25, 100]
  soak: 30
workspaces:
  lab-local:
    stacks: [lab]
    master: {command: [guardian, lab, exec, master, --]}
    state: .lab/${GUARDIAN_TEST_LAB:-lab}/state
    rollout: {soak: 0.5}
  prod-euw2:
    stacks: [lab, upper]
    master: {ssh: master.prod}
    outputs: {parameters: /guardian/outputs}
"""


def write(tmp_path: Path, text: str | bytes) -> Path:
    (tmp_path / "terraform" / "lab").mkdir(parents=True, exist_ok=True)
    path = tmp_path / "guardian.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_good_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GUARDIAN_TEST_LAB", raising=False)
    loaded = config.load(write(tmp_path, GOOD))
    lab, prod = loaded.workspace("lab-local"), loaded.workspace("prod-euw2")
    assert lab.state == tmp_path / ".lab/lab/state"
    assert (lab.rollout.soak, prod.rollout.soak) == (0.5, 30)
    assert loaded.stacks["upper"].after == ("lab",)
    assert lab.master.agent()[:5] == ["guardian", "lab", "exec", "master", "--"]
    assert lab.master.agent()[-3:] == ["guardian.fleet.agent", "--config", "/etc/salt/master"]
    assert prod.master.prefix[0] == "ssh"
    assert "BatchMode=yes" in prod.master.prefix
    assert lab.outputs == tmp_path / ".guardian/lab-local/outputs"
    assert prod.outputs == config.ParameterOutputs("/guardian/outputs", "eu-west-2")


def test_parameters_have_a_region_and_a_key(tmp_path: Path) -> None:
    there = "{parameters: /a/b.c, region: us-gov-west-1, key: alias/voice}"
    text = GOOD.replace("{parameters: /guardian/outputs}", there)
    found = config.load(write(tmp_path, text)).workspace("prod-euw2").outputs
    assert found == config.ParameterOutputs("/a/b.c", "us-gov-west-1", "alias/voice")


def test_the_environment_chooses_the_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUARDIAN_TEST_LAB", "other")
    assert config.load(write(tmp_path, GOOD)).workspace("lab-local").state.parts[-2] == "other"


MISTAKES = [
    ("soak: 30", "saok: 30", ":6: rollout: key 'saok' unknown (did you mean 'soak'?)"),
    ("soak: 30", "soak: 30\n  soak: 31", ":7: rollout: duplicate key 'soak'"),
    ("soak: 30", "soak: soon", ":6: soak: expected seconds, found text"),
    ("soak: 30", "soak: -1", ":6: soak: -1 is not between 0 and 86400 seconds"),
    ("soak: 30", "soak: .nan", ":6: soak: nan is not between 0 and 86400 seconds"),
    ("soak: 30", "on_deadline: wiat", ":6: on_deadline: 'wiat' unknown (did you mean 'wait'?)"),
    ("soak: 30", "headroom: 95", ":6: headroom: 95 is not between 0 and 90"),
    ("soak: 30", "in_flight: true", ":6: in_flight: expected a whole number, found something else"),
    ("[5, 25, 100]", "[25, 5, 100]", ":5: waves: waves grow and end at 100, such as [5, 25, 100]"),
    ("[5, 25, 100]", "[]", ":5: waves: waves grow and end at 100, such as [5, 25, 100]"),
    ("stacks: [lab]", "stacks: [lba]", ":9: stacks: stack 'lba' unknown (did you mean 'lab'?)"),
    ("stacks: [lab]", "stacks: lab", ":9: stacks: expected a list, found text"),
    ("after: [lab]", "after: [labb]", ":3: after: stack 'labb' unknown (did you mean 'lab'?)"),
    ("path: terraform/lab}", "path: terraform/nope}", ":2: path: no directory 'terraform/nope'"),
    ("lab-local:", "lab_local:", ":9: lab_local: workspace 'lab_local': not ACCOUNT-REGIONSHORT"),
    ("prod-euw2:", "prod-euw9:", ":14: prod-euw9: workspace 'prod-euw9': region 'euw9' unknown"),
    ("{ssh: master.prod}", "{ssh: a, local: true}", ":15: master: exactly one of command, local"),
    ("{ssh: master.prod}", "", ":15: master: expected a mapping, found nothing"),
    ("    stacks: [lab]\n", "", ":9: lab-local: key 'stacks' is missing"),
    ("soak: 30", "soak: &a 30", ":6: anchors and aliases are not allowed"),
    ("soak: 30", "soak: !!python/object:os.system x", ":6: soak: expected seconds, found"),
    ("  soak: 30", "\tsoak: 30", ":6: found character '\\t' that cannot start any token"),
    ("parameters: /g", "parametres: /g", ":16: outputs: key 'parametres' unknown (did you mean"),
    ("/guardian/outputs}", "guardian}", ":16: parameters: 'guardian' is no path of parameters"),
    ("/guardian/outputs}", "/aws/x}", ":16: parameters: '/aws/x' is no path of parameters"),
    ("/guardian/outputs}", "/x, region: euw2}", ":16: region: region 'euw2' is none of AWS"),
    ("rollout: {soak: 0.5}", "outputs: {parameters: /x}", ":12: outputs: region 'local' is none"),
    ("{parameters: /guardian/outputs}", "[x]", ":16: outputs: expected text, found a list"),
    ("soak: 30", "soak: 30\x00", "not YAML (a control character"),
]


@pytest.mark.parametrize(("old", "new", "message"), MISTAKES, ids=[one[2] for one in MISTAKES])
def test_a_mistake_is_one_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(UsageError) as caught:
        config.load(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "empty"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"- a\n", "expected a mapping, found a list"),
        (b"[" * 5000 + b"]" * 5000, "nested too deeply"),
        (b"#" * 1_000_001, "more than"),
        (b"{a: b", "expected ',' or '}'"),
    ],
)
def test_what_is_no_configuration_at_all(tmp_path: Path, raw: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        config.load(write(tmp_path, raw))


def test_an_unknown_workspace_names_the_nearest(tmp_path: Path) -> None:
    loaded = config.load(write(tmp_path, GOOD))
    with pytest.raises(UsageError, match="'lab-locl' unknown \\(did you mean 'lab-local'"):
        loaded.workspace("lab-locl")


def test_the_file_of_the_repository_is_good() -> None:
    repository = Path(__file__).resolve().parents[3]
    loaded = config.load(repository / "guardian.yaml")
    assert loaded.workspace("lab-local").stacks == ("lab",)
