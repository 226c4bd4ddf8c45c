"""What becomes of an application on its way to a release; every fault leaves the old one live."""

import contextlib
import io
import json
import os
import shutil
import signal
import stat
import subprocess
import tarfile

import jinja2
import jsonschema
import pytest
import yaml
from fsx_node import UNIT, application

from tests.functional.test_pillar import Compiler
from tests.functional.test_sls import lowstate  # noqa: F401
from tests.support.loading import REPOSITORY

SCHEMA = json.loads((REPOSITORY / "pillar/schema/fsx.json").read_text())


@pytest.fixture
def one(node):
    """A node with an application live; its name."""
    assert node.deployed(node.application(application("one")))["result"] is True
    return node.live()


def test_release_is_named_by_its_content_and_only_read_by_its_worker(node):
    ret = node.deployed(node.application(application("one")))
    assert ret["result"] is True, ret["comment"]
    name = node.live()
    assert ret["comment"] == f"release {name} is live"
    assert ret["changes"] == {
        "release": {"old": None, "new": name},
        "disruption": "none",
        "why": [f"release none -> {name}"],
        "actions": ["write 2 files", f"switch current to {name}"],
    }
    assert node.on_disk() == {name}
    assert "Farewell::words" in (node.directory / "current/worker.php").read_text()
    for path in (node.releases / name).rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o750 if path.is_dir() else 0o640), path
        assert path.stat().st_uid == 0


def test_shipped_worker_is_an_application_like_any_other(node):
    assert node.deployed("salt://fsx/files/worker")["result"] is True
    assert (node.directory / "current/worker.php").is_file()


def test_second_run_changes_nothing(node, one):
    before = {path: path.lstat().st_ctime_ns for path in node.directory.rglob("*")}
    for test in (False, True):
        ret = node.deployed("salt://app", test=test)
        assert (ret["result"], ret["changes"]) == (True, {})
    assert {path: path.lstat().st_ctime_ns for path in node.directory.rglob("*")} == before


def test_test_mode_foretells_what_happens_and_leaves_no_trace(node, one):
    source = node.application(application("two"))
    told = node.deployed(source, test=True)
    assert told["result"] is None
    assert node.on_disk() == {one}
    done = node.deployed(source)
    assert done["result"] is True
    assert done["changes"] == told["changes"]


def test_first_test_run_on_a_bare_host_says_what_it_could_not_check(node):
    node.caller.sminion.opts["fsx.php"] = "/nowhere/php"
    source = node.application(application("one"))
    ret = node.deployed(source, test=True)
    assert ret["result"] is None
    assert "not checked yet, php is not installed" in ret["comment"]
    ret = node.deployed(source)
    assert ret["result"] is False
    assert "/nowhere/php is missing; apply fsx.installed first" in ret["comment"]
    assert not node.directory.exists()


@pytest.mark.parametrize("test", [False, True])
@pytest.mark.parametrize(
    ("path", "text", "told"),
    [
        (
            "src/Broken.php",
            "<?php\n\nfunction (\n",
            "src/Broken.php line 4: Unclosed '(' on line 3",
        ),
        ("worker.php", "<?php exit(;", "worker.php line 1: syntax error"),
        ("a/b.phtml", "<p>\n<?php if (1): ?>", "a/b.phtml line 2: syntax error"),
        (
            "t.php",
            "<?php\nfunction a() {}\nfunction a() {}\n",
            "t.php line 3: Cannot redeclare a()",
        ),
        ("p.php", '<?php\n$x = "a" "hunter2";', "p.php line 2: syntax error, unexpected double"),
    ],
)
def test_php_that_does_not_compile_never_goes_live(node, one, path, text, told, test):
    source = node.application(application("two", **{path: text}))
    ret = node.deployed(source, test=test)
    assert ret["result"] is False
    assert ret["changes"] == {}
    assert ret["comment"].startswith(f"fsx release refused: {told}")
    assert ret["comment"].endswith(f"; release {one} stays live")
    assert "hunter2" not in ret["comment"]
    assert (node.live(), node.on_disk()) == (one, {one})


def test_file_that_is_no_php_is_nobodys_business(node):
    source = node.application(application("one", **{"README.md": "<?php (", "a.json": "{"}))
    assert node.deployed(source)["result"] is True


def test_entry_may_lie_deeper(node):
    source = node.application(application("one", entry="bin/calls.php"))
    ret = node.deployed(source)
    assert ret["comment"] == "salt://app has no worker.php; name its entry in pillar fsx:entry"
    assert node.deployed(source, entry="bin/calls.php")["result"] is True


# -- archives ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tar.gz", "tgz", "tar.xz"])
@pytest.mark.parametrize("around", [".", "app"])
def test_archive_and_directory_of_the_same_files_are_the_same_release(
    node, archive, one, kind, around
):
    place = node.files if around == "app" else node.files / "app"
    given = archive(around, name=f"calls.{kind}", directory=place)
    ret = node.deployed(**given)
    assert (ret["result"], ret["changes"]) == (True, {}), ret["comment"]
    assert node.live() == one


def test_archive_with_another_hash_is_refused(node, archive, one):
    node.application(application("two"))
    given = archive(".", directory=node.files / "app")
    true = given["source_hash"].removeprefix("sha256=")
    ret = node.deployed(given["source"], source_hash=f"sha256={'0' * 64}")
    assert ret["result"] is False
    assert f"its SHA-256 is {true}" in ret["comment"]
    assert (node.live(), node.on_disk()) == (one, {one})


def test_archive_comes_over_https_once(node, archive, one, https):
    node.application(application("two"))
    file = archive(".", name="two.tgz", directory=node.files / "app")
    url = https.url(node.files / "two.tgz")
    for _ in range(2):
        ret = node.deployed(url, source_hash=file["source_hash"])
        assert ret["result"] is True, ret["comment"]
    assert node.live() != one
    assert https.asked == ["/two.tgz"], "what is at hand and has the hash is not fetched again"
    ret = node.deployed(https.url(node.files / "none.tgz"), source_hash=file["source_hash"])
    assert ret["result"] is False
    assert ret["comment"].endswith("none.tgz: cannot be fetched; is it there, and may this node?")


def test_archive_of_a_stranger_is_not_fetched(node, archive, one, https):
    node.trust(None)
    file = archive(".", name="two.tgz", directory=node.files / "app")
    ret = node.deployed(https.url(node.files / "two.tgz"), source_hash=file["source_hash"])
    assert ret["result"] is False
    assert "cannot be fetched" in ret["comment"]


@pytest.mark.parametrize("given", [None, "", "md5=abc", "0" * 64, "sha256=xyz"])
def test_archive_needs_its_hash(node, archive, one, given):
    source = archive(".", directory=node.files / "app")["source"]
    ret = node.deployed(source, source_hash=given)
    assert ret["result"] is False
    assert "source_hash must be sha256=" in ret["comment"]


def members(*entries):
    """An archive with entries that tar itself would not pack; each (name, type, content)."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, kind, content in [("worker.php", tarfile.REGTYPE, "<?php"), *entries]:
            member = tarfile.TarInfo(name)
            member.type = kind
            if kind == tarfile.REGTYPE:
                member.size = len(content)
            else:
                member.linkname = content
            archive.addfile(member, io.BytesIO(content.encode()))
    return packed.getvalue()


@pytest.mark.parametrize(
    ("packed", "told"),
    [
        (members(("../evil.php", tarfile.REGTYPE, "<?php")), "'../evil.php' leads out"),
        (members(("a/../../evil.php", tarfile.REGTYPE, "<?php")), "leads out"),
        (members(("/etc/evil", tarfile.REGTYPE, "x")), "'/etc/evil' leads out"),
        (members(("../../evil", tarfile.DIRTYPE, "")), "leads out"),
        (members(("a\nb.php", tarfile.REGTYPE, "<?php")), "leads out"),
        (members(("lib", tarfile.SYMTYPE, "/etc")), "lib is no plain file; pack it with"),
        (members(("shadow", tarfile.LNKTYPE, "/etc/shadow")), "shadow is no plain file"),
        (members(("pipe", tarfile.FIFOTYPE, "")), "pipe is no plain file"),
        (members()[:-20], "not a tar archive that can be read"),
        (b"nonsense", "not a tar archive that can be read"),
        (b"", "not a tar archive that can be read"),
    ],
    # An archive holds the second it was packed in: no name that workers side by side agree on.
    ids=lambda value: f"{len(value)} bytes" if isinstance(value, bytes) else None,
)
def test_archive_that_is_not_plain_files_in_their_place_is_refused(
    node, archive, one, packed, told
):
    file = node.files / "bad.tar.gz"
    file.write_bytes(packed)
    before = sorted(node.root.parent.rglob("evil*"))
    ret = node.deployed(**archive.described(file))
    assert ret["result"] is False
    assert ret["comment"].startswith("salt://bad.tar.gz: ")
    assert told in ret["comment"]
    assert (node.live(), node.on_disk()) == (one, {one})
    assert sorted(node.root.parent.rglob("evil*")) == before


def test_archive_that_would_fill_the_node_is_refused(node, archive, one):
    huge = node.files / "huge"
    huge.mkdir()
    with (huge / "worker.php").open("wb") as file:
        file.truncate(300 << 20)
    ret = node.deployed(**archive(".", directory=huge))
    assert ret["result"] is False
    assert "256 MiB; leave out what no call needs" in ret["comment"]


def test_what_is_not_there_is_named(node, one):
    for source, given in [("salt://none", None), ("salt://none.tgz", f"sha256={'0' * 64}")]:
        ret = node.deployed(source, source_hash=given)
        assert ret["result"] is False
        assert ret["comment"].startswith(f"{source}: ")
    assert node.live() == one


# -- what a person may ask for -------------------------------------------------------------------

HASH = f"sha256={'a' * 64}"
GOOD = [
    ("salt://fsx/files/worker", "worker.php", None),
    ("salt://calls/1.4.2", "bin/worker.php", None),
    ("salt://calls-1.4.2.tar.gz", "worker.php", HASH),
    ("https://artifacts.example.org:8443/calls/1.4.2.tgz", "worker.php", HASH),
    ("s3://example-artifacts/calls+1.tar.xz", "a.b/c-d.php", HASH),
]
BAD = [
    ("http://artifacts.example.org/calls.tar.gz", "worker.php", HASH),
    ("https://user:hunter2@example.org/calls.tar.gz", "worker.php", HASH),
    ("https://example.org/calls.tar.gz?signature=hunter2", "worker.php", HASH),
    ("https://example.org/calls.zip", "worker.php", HASH),
    ("https://example.org/calls", "worker.php", None),
    ("file:///etc", "worker.php", None),
    ("/srv/calls", "worker.php", None),
    ("salt://../pillar", "worker.php", None),
    ("salt://calls/../../etc", "worker.php", None),
    ("salt:///etc", "worker.php", None),
    ("salt://calls\nx", "worker.php", None),
    ("salt://calls.tar.gz", "worker.php", None),
    ("salt://calls", "/etc/worker.php", None),
    ("salt://calls", "../worker.php", None),
    ("salt://calls", "a/../../worker.php", None),
    ("salt://calls", "worker", None),
    ("salt://calls", "a b.php", None),
    ("salt://calls", 'a";id;".php', None),
    ("salt://calls", "$(id).php", None),
    ("salt://calls", "", None),
]


def pillar(source, entry, given):
    made = {"ports": [9001], "source": source, "entry": entry}
    return {**made, "source_hash": given} if given else made


@pytest.mark.parametrize(("source", "entry", "given"), GOOD)
def test_schema_takes_what_can_be_deployed(source, entry, given):
    jsonschema.Draft202012Validator(SCHEMA).validate(pillar(source, entry, given))


@pytest.mark.parametrize(("source", "entry", "given"), BAD)
def test_schema_and_state_refuse_the_same(node, source, entry, given):
    assert not jsonschema.Draft202012Validator(SCHEMA).is_valid(pillar(source, entry, given))
    ret = node.deployed(source, entry=entry, source_hash=given)
    assert ret["result"] is False
    assert "hunter2" not in ret["comment"]
    assert not node.directory.exists()


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ({"sorce": "x"}, "fsx:sorce: unknown key (did you mean source?)"),
        ({"source": "https://a.example/x.tgz"}, "fsx:source_hash: missing"),
        ({"source": "http://a.example/x.tgz", "source_hash": HASH}, "fsx:source: has not the form"),
        ({"entry": "../x.php"}, "fsx:entry: has not the form"),
        ({"keep": 0}, "fsx:keep: must be at least 1"),
        ({"extensions": ["curl; id"]}, "fsx:extensions:0: has not the form"),
    ],
)
def test_pillar_is_refused_by_its_key(tmp_path, override, told):
    assert told in Compiler(tmp_path).errors("fsx-01.lab-local", fsx=override)


def test_states_are_given_what_pillar_says(lowstate):  # noqa: F811
    said = {"source": "s3://example/calls.tgz", "source_hash": HASH, "entry": "bin/calls.php"}
    chunks, _ = lowstate("fsx-01.lab-local", fsx={**said, "extensions": ["curl"], "keep": 2})
    by_id = {chunk["__id__"]: chunk for chunk in chunks}
    release = by_id["Worker release live"]
    assert {key: release[key] for key in said} == said
    assert (release["keep"], release["ports"]) == (2, [9001, 9002])
    assert by_id["PHP installed"]["pkgs"] == ["php8.2-cli", "php8.2-curl"]
    assert by_id["Worker unit present"]["context"]["entry"] == "bin/calls.php"
    order = [chunk["__id__"] for chunk in sorted(chunks, key=lambda chunk: chunk["order"])]
    steps = ["PHP installed", "Worker unit known to systemd", "Worker release live",
             "Worker on port 9001 running"]  # fmt: skip
    assert [name for name in order if name in steps] == steps


def test_defaults_pass_the_schema_that_pillar_must_pass():
    defaults = yaml.safe_load((REPOSITORY / "salt/fsx/defaults.yaml").read_text())
    jsonschema.Draft202012Validator(SCHEMA).validate({"ports": [9001], **defaults})
    assert set(defaults) == set(SCHEMA["properties"]) - {"ports"}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_has_nothing_against_the_unit(tmp_path):
    unit = tmp_path / "fsx-worker@9001.service"
    text = jinja2.Template(UNIT.read_text()).render(
        directory="/srv/fsx", entry="bin/worker.php", drain_seconds=3600
    )
    unit.write_text(text.replace("User=fsx\nGroup=fsx\n", ""))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    complaints = [line for line in done.stderr.splitlines() if "fsx-worker" in line]
    assert complaints == []


# -- the shelf -----------------------------------------------------------------------------------


def test_only_so_many_are_kept_and_the_newest(node):
    names = []
    for number in range(5):
        ret = node.deployed(node.application(application(f"number {number}")), keep=2)
        assert ret["result"] is True
        names.append(node.live())
    assert node.on_disk() == set(names[-2:])
    assert f"prune {names[2]}" in ret["changes"]["actions"]


def test_going_back_to_what_is_kept_writes_nothing(node, one):
    node.deployed(node.application(application("two")))
    ret = node.deployed(node.application(application("one")))
    assert ret["changes"]["actions"] == [f"switch current to {one}"]
    assert node.live() == one
    found = node.call("releases")
    assert [release["live"] for release in found] == [True, False]


def test_altered_release_is_replaced_beside_itself(node, one):
    """A worker may run from the altered one, which must not change under it."""
    (node.releases / one / "worker.php").write_text("<?php // edited in place\n")
    (node.releases / one / "extra.php").write_text("<?php\n")
    ret = node.deployed("salt://app")
    assert ret["changes"]["release"] == {"old": one, "new": f"{one}-2"}
    assert node.on_disk() == {one, f"{one}-2"}
    assert node.deployed("salt://app")["changes"] == {}


def test_code_that_others_may_alter_is_taken_from_them(node, one):
    (node.releases / one / "worker.php").chmod(0o666)
    told = node.deployed("salt://app", test=True)["changes"]
    ret = node.deployed("salt://app")
    assert ret["changes"] == told
    assert ret["changes"]["actions"] == ["set owner and mode of 1 files"]
    assert node.deployed("salt://app")["changes"] == {}


def test_directory_in_place_of_the_link_is_not_touched(node):
    (node.directory / "current").mkdir(parents=True)
    ret = node.deployed(node.application(application("one")))
    assert ret["result"] is False
    assert ret["comment"].endswith("current is no symlink; move it away and run again")


def test_old_layout_is_taken_over(node):
    """As laid out before releases were whole directories of an application."""
    (node.releases / "0123456789ab").mkdir(parents=True)
    (node.directory / "current").symlink_to(node.releases / "0123456789ab")
    ret = node.deployed(node.application(application("one")))
    assert ret["changes"]["release"]["old"] == "0123456789ab"


def test_killed_at_any_moment_it_is_whole_and_the_next_run_completes_it(node, one):
    """Each write to disk is followed by an fsync: die at the first, at the second, …"""
    source = node.application(application("two"))
    seen = set()
    for moment in range(1, 40):
        child = os.fork()
        if child == 0:
            left, fsync = [moment], os.fsync

            def dying(descriptor, left=left, fsync=fsync):
                fsync(descriptor)
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

            os.fsync = dying
            with contextlib.suppress(BaseException):
                node.deployed(source)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        live = node.live()
        code = (node.directory / "current/src/Farewell.php").read_text()
        assert ("'one '" in code) == (live == one), "what is live is whole"
        seen.add((live == one, len(node.on_disk())))
        told = node.deployed(source, test=True)
        ret = node.deployed(source)
        assert ret["result"] is True, ret["comment"]
        assert ret["changes"] == told["changes"]
        assert len(node.on_disk()) == 2
        assert sorted(path.name for path in node.directory.iterdir()) == ["current", "releases"]
        if not os.WIFSIGNALED(status):
            break
        two = node.live()
        node.deployed(node.application(application("one")))
        shutil.rmtree(node.releases / two)
        node.application(application("two"))
    else:
        pytest.fail("it never came to its end")
    assert {(True, 1), (True, 2), (False, 2)} <= seen, "before, between and after the switch"


def test_full_disk_is_told_and_costs_nothing(node, one, monkeypatch):
    source = node.application(application("two"))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    ret = node.deployed(source)
    assert ret["result"] is False
    assert "no space left" in ret["comment"]
    assert (node.live(), node.on_disk()) == (one, {one})
