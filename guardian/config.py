"""guardian.yaml as frozen dataclasses: the parser is the validator, each refusal has a line."""

import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml

from guardian import hours
from guardian.errors import UsageError
from guardian.hours import Hours
from guardian.workspace import REGIONS
from guardian.workspace import parse as parse_workspace

_T = TypeVar("_T")
_LIMIT = 1_000_000
# AWS keeps names that begin with aws or ssm to itself, and allows 15 levels, three of them ours.
_PREFIX = re.compile(r"(?!(?i:/aws|/ssm))(/[A-Za-z0-9_.-]+){1,12}")
_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_VARIABLE = re.compile(r"\$\{([A-Z_][A-Z0-9_]*)(?::-([^}]*))?\}")


@dataclass(frozen=True)
class Master:
    """How a region's salt-master is reached: a command prefix, an ssh destination, or neither.

    `tree` is where this repository is on the master, `python` the interpreter that has Salt there.
    `releases` is a directory there for commits and a link `current`, which the master serves; with
    `live`, a plain deploy serves `tree` itself.
    """

    prefix: tuple[str, ...]
    tree: str
    python: str
    salt_config: str = "/etc/salt/master"
    releases: str = ""
    live: bool = False

    def agent(self) -> list[str]:
        """The command that starts the agent."""
        return [
            *self.prefix,
            "env",
            f"PYTHONPATH={self.tree}",
            self.python,
            "-m",
            "guardian.fleet.agent",
            "--config",
            self.salt_config,
        ]


@dataclass(frozen=True)
class Stack:
    """A Terraform root module and the stacks whose outputs it reads."""

    name: str
    path: Path
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rollout:
    """How a fleet is rolled: widths in per cent of the nodes, times in seconds.

    A restarted node completes `trial_calls` before it is given real ones. A canary may fail
    `judge_margin` points more of its calls than its peers, once both had `judge_calls`; 0 leaves
    the trial, or the judge, out. Every `sample` seconds the journal keeps what the fleet carries.
    """

    waves: tuple[int, ...] = (5, 25, 100)
    proxies: str = "sip"
    in_flight: int = 100
    headroom: int = 20
    max_out: int = 25
    soak: float = 30.0
    poll: float = 2.0
    sample: float = 30.0
    trial_calls: int = 0
    judge_calls: int = 0
    judge_margin: int = 5
    drain_deadline: float = 3600.0
    on_deadline: str = "wait"
    sole_node: str = "hold"
    capacity_deadline: float = 900.0
    apply_deadline: float = 1800.0
    checks_deadline: float = 120.0
    call_deadline: float = 60.0


@dataclass(frozen=True)
class ParameterOutputs:
    """A prefix of SSM parameters for outputs; `key` is a KMS key for the sensitive ones."""

    prefix: str
    region: str
    key: str = ""


@dataclass(frozen=True)
class Bucket:
    """A prefix in S3, ending in a slash unless it is empty."""

    bucket: str
    prefix: str
    region: str


@dataclass(frozen=True)
class Workspace:
    """One region of one account: its stacks, its master, where its records live.

    `lock` is where deployers of several hosts exclude each other. Deploys run in the `window`, if
    there is one; no node is drained at `peak` hours.
    """

    name: str
    stacks: tuple[str, ...]
    master: Master
    state: Path
    outputs: Path | ParameterOutputs
    runs: Path
    rollout: Rollout
    lock: Bucket | None = None
    window: Hours | None = None
    peak: Hours | None = None


@dataclass(frozen=True)
class Config:
    """The whole of guardian.yaml; `root` is the directory it lies in."""

    path: Path
    root: Path
    workspaces: dict[str, Workspace] = field(default_factory=dict)
    stacks: dict[str, Stack] = field(default_factory=dict)

    def workspace(self, name: str) -> Workspace:
        """The workspace of that name; UsageError names the nearest one."""
        if name in self.workspaces:
            return self.workspaces[name]
        raise UsageError(
            f"{self.path}: workspace {name[:60]!r} unknown{_near(name, self.workspaces)}"
        )


def find(start: Path | None = None) -> Path:
    """GUARDIAN_CONFIG, or the nearest guardian.yaml upwards, or the one beside the package."""
    if named := os.environ.get("GUARDIAN_CONFIG"):
        return Path(named)
    here = (start or Path.cwd()).resolve()
    for directory in (here, *here.parents, Path(__file__).resolve().parent.parent):
        if (directory / "guardian.yaml").is_file():
            return directory / "guardian.yaml"
    raise UsageError("guardian.yaml: not found here or above; run inside the repository")


def load(path: Path) -> Config:
    """Parse one guardian.yaml; UsageError `file:line: what, remedy`."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or 'unreadable'}") from None
    if len(raw) > _LIMIT:
        raise UsageError(f"{path}: {len(raw)} bytes, more than the {_LIMIT} allowed")
    try:
        text = raw.decode("utf-8")
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                mark = event.start_mark
                where = f":{mark.line + 1}" if mark else ""
                raise UsageError(f"{path}{where}: anchors and aliases are not allowed")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not UTF-8 text") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f":{mark.line + 1}" if mark else ""
        raise UsageError(f"{path}{where}: {error.problem or 'not YAML'}") from None
    except (yaml.YAMLError, RecursionError):
        raise UsageError(f"{path}: not YAML (a control character, or nested too deeply)") from None
    if node is None:
        raise UsageError(f"{path}: empty; it needs workspaces and stacks")
    return _config(path, _Reader(path, node, "guardian.yaml"))


def _config(path: Path, top: "_Reader") -> Config:
    root = path.resolve().parent
    top.only("workspaces", "stacks", "rollout")
    stacks = {name: _stack(root, name, entry) for name, entry in top.need("stacks").entries()}
    for name, entry in top.need("stacks").entries():
        for number, after in enumerate(stacks[name].after):
            if after not in stacks:
                entry.need("after").items()[number].fail(
                    f"stack {after!r} unknown{_near(after, stacks)}"
                )
    base = _rollout(top.get("rollout"), Rollout())
    workspaces = {
        name: _workspace(root, name, entry, stacks, base)
        for name, entry in top.need("workspaces").entries()
    }
    return Config(path, root, workspaces, stacks)


def _stack(root: Path, name: str, entry: "_Reader") -> Stack:
    entry.only("path", "after")
    path = root / entry.need("path").text()
    if not path.is_dir():
        entry.need("path").fail(f"no directory {entry.need('path').text()!r}")
    after = entry.get("after")
    return Stack(name, path, tuple(item.text() for item in after.items()) if after else ())


def _workspace(
    root: Path, name: str, entry: "_Reader", stacks: dict[str, Stack], base: Rollout
) -> Workspace:
    try:
        parse_workspace(name)
    except UsageError as error:
        entry.fail(str(error))
    where = ("state", "outputs", "runs", "lock")
    entry.only("stacks", "master", "rollout", "window", "peak", *where)
    chosen = entry.need("stacks").items()
    for item in chosen:
        if item.text() not in stacks:
            item.fail(f"stack {item.text()!r} unknown{_near(item.text(), stacks)}")

    def place(key: str, default: str) -> Path:
        reader = entry.get(key)
        return root / (reader.text() if reader else default)

    return Workspace(
        name=name,
        stacks=tuple(item.text() for item in chosen),
        master=_master(root, entry.need("master")),
        state=place("state", f".guardian/{name}/state"),
        outputs=_parameters(name, outputs)
        if (outputs := entry.get("outputs")) and outputs.is_map()
        else place("outputs", f".guardian/{name}/outputs"),
        runs=place("runs", f".guardian/{name}/runs"),
        rollout=_rollout(entry.get("rollout"), base),
        lock=_bucket(name, entry.get("lock")),
        window=_hours(entry.get("window")),
        peak=_hours(entry.get("peak")),
    )


def _bucket(workspace: str, entry: "_Reader | None") -> Bucket | None:
    if entry is None:
        return None
    entry.only("bucket", "prefix", "region")
    bucket, prefix = entry.need("bucket"), entry.get("prefix")
    if not _BUCKET.fullmatch(bucket.text()):
        bucket.fail(f"{bucket.text()[:60]!r} is no name of a bucket")
    path = prefix.text().strip("/") if prefix else "guardian"
    return Bucket(bucket.text(), f"{path}/" if path else "", _region(workspace, entry))


def _region(workspace: str, entry: "_Reader") -> str:
    """The region of AWS that an entry names, or else its workspace's."""
    given = entry.get("region")
    region = given.text() if given else REGIONS[parse_workspace(workspace).region]
    if not _REGION.fullmatch(region):
        (given or entry).fail(f"region {region[:30]!r} is none of AWS, such as eu-west-2")
    return region


def _hours(entry: "_Reader | None") -> Hours | None:
    if entry is None:
        return None
    entry.only("days", "from", "to", "zone")
    zone, days = entry.need("zone"), entry.get("days")
    if not hours.known(zone.text()):
        zone.fail(f"{zone.text()[:40]!r} is no time zone, such as Europe/London")
    chosen = tuple(item.choice(hours.DAYS) for item in days.items()) if days else hours.DAYS
    if days and not chosen:
        days.fail("no day; leave it out for every day")
    start, end = (_minutes(entry.need(key)) for key in ("from", "to"))
    return Hours(tuple(day for day in hours.DAYS if day in chosen), start, end, zone.text())


def _minutes(entry: "_Reader") -> int:
    found = hours.minutes(entry.text())
    if found is None:
        entry.fail(f'{entry.text()[:20]!r} is no time of day, such as "22:00"')
    return found


def _parameters(workspace: str, entry: "_Reader") -> ParameterOutputs:
    entry.only("parameters", "region", "key")
    prefix, key = entry.need("parameters"), entry.get("key")
    if not _PREFIX.fullmatch(prefix.text()):
        prefix.fail(f"{prefix.text()[:60]!r} is no path of parameters, such as /guardian/outputs")
    region = _region(workspace, entry)
    return ParameterOutputs(prefix.text(), region, key.text() if key else "")


def _master(root: Path, entry: "_Reader") -> Master:
    entry.only("command", "local", "ssh", "tree", "python", "salt_config", "releases", "live")
    ways = [key for key in ("command", "local", "ssh") if entry.get(key)]
    if len(ways) != 1:
        entry.fail("exactly one of command, local, ssh says how the master is reached")
    tree, python = "/srv/guardian", sys.executable
    prefix: tuple[str, ...] = ()
    if ways == ["command"]:
        prefix = tuple(item.text() for item in entry.need("command").items())
        if not prefix:
            entry.need("command").fail("empty command")
    elif ways == ["ssh"]:
        # Batch mode: a password prompt on a pipe would hang for ever.
        host = entry.need("ssh").text()
        prefix = ("ssh", "-T", "-o", "BatchMode=yes", "-o", "ServerAliveInterval=15", "--", host)
        python = "/srv/guardian/.venv/bin/python"
    elif entry.need("local").flag():
        tree = str(root)
    else:
        entry.need("local").fail("local: false reaches nothing; leave it out")
    reader = {key: entry.get(key) for key in ("tree", "python", "salt_config", "releases", "live")}
    if reader["live"] and not reader["releases"]:
        reader["live"].fail("says what a deploy serves from `releases`; name that, too")
    return Master(
        prefix,
        tree=reader["tree"].text() if reader["tree"] else tree,
        python=reader["python"].text() if reader["python"] else python,
        salt_config=reader["salt_config"].text() if reader["salt_config"] else "/etc/salt/master",
        releases=reader["releases"].text() if reader["releases"] else "",
        live=reader["live"].flag() if reader["live"] else False,
    )


def _rollout(entry: "_Reader | None", base: Rollout) -> Rollout:
    if entry is None:
        return base
    steps = ("drain", "capacity", "apply", "checks", "call")
    times = ("soak", "poll", "sample", *(f"{step}_deadline" for step in steps))
    choices = {"on_deadline": ("wait", "skip"), "sole_node": ("hold", "when_idle")}
    numbers = {
        "in_flight": (1, 1000),
        "headroom": (0, 90),
        "max_out": (1, 90),
        "trial_calls": (0, 100),
        "judge_calls": (0, 10_000),
        "judge_margin": (0, 100),
    }
    entry.only("waves", "proxies", *numbers, *choices, *times)
    found: dict[str, Any] = {}
    for key, reader in entry.entries():
        if key in times:
            found[key] = reader.seconds()
        elif key in choices:
            found[key] = reader.choice(choices[key])
        elif key == "proxies":
            found[key] = reader.text()
        elif key == "waves":
            found[key] = tuple(item.number(1, 100) for item in reader.items())
            if not found[key] or found[key] != tuple(sorted({*found[key], 100})):
                reader.fail("waves grow and end at 100, such as [5, 25, 100]")
        else:
            found[key] = reader.number(*numbers[key])
    return replace(base, **found)


def _near(name: str, known: Any) -> str:
    close = get_close_matches(name, list(known), n=1)
    if close:
        return f" (did you mean {close[0]!r}?)"
    return f"; one of: {', '.join(sorted(known)) or 'none yet'}"


def _expand(text: str) -> str:
    return _VARIABLE.sub(lambda found: os.environ.get(found[1]) or found[2] or "", text)


class _Reader:
    """One YAML node with its line and its path of keys, read by type or refused."""

    def __init__(self, path: Path, node: yaml.Node, name: str) -> None:
        self._path, self._node, self._name = path, node, name
        self._children: dict[str, _Reader] | None = None

    def fail(self, why: str) -> NoReturn:
        raise UsageError(f"{self._path}:{self._node.start_mark.line + 1}: {self._name}: {why}")

    def _map(self) -> "dict[str, _Reader]":
        if self._children is None:
            if not isinstance(self._node, yaml.MappingNode):
                self.fail(f"expected a mapping, found {_kind(self._node)}")
            children: dict[str, _Reader] = {}
            for key, value in self._node.value:
                child = _Reader(self._path, value, str(key.value))
                # The key's own line, so that an empty value is not reported further down.
                if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                    _Reader(self._path, key, self._name).fail("a key must be plain text")
                if key.value in children:
                    _Reader(self._path, key, self._name).fail(f"duplicate key {key.value!r}")
                children[key.value] = child
            self._children = children
        return self._children

    def is_map(self) -> bool:
        return isinstance(self._node, yaml.MappingNode)

    def only(self, *known: str) -> None:
        for (key, _), (node, _) in zip(self._map().items(), self._node.value, strict=True):
            if key not in known:
                _Reader(self._path, node, self._name).fail(
                    f"key {key!r} unknown{_near(key, known)}"
                )

    def get(self, key: str) -> "_Reader | None":
        return self._map().get(key)

    def need(self, key: str) -> "_Reader":
        return self._map().get(key) or self.fail(f"key {key!r} is missing")

    def entries(self) -> "Iterator[tuple[str, _Reader]]":
        yield from self._map().items()

    def items(self) -> "list[_Reader]":
        if not isinstance(self._node, yaml.SequenceNode):
            self.fail(f"expected a list, found {_kind(self._node)}")
        return [_Reader(self._path, node, self._name) for node in self._node.value]

    def text(self) -> str:
        return self._typed(("str",), "text", _expand)

    def flag(self) -> bool:
        return self._typed(("bool",), "true or false", lambda text: text.lower() in ("true", "yes"))

    def number(self, low: int, high: int) -> int:
        value = self._typed(("int",), "a whole number", lambda text: int(yaml.safe_load(text)))
        if not low <= value <= high:
            self.fail(f"{value} is not between {low} and {high}")
        return value

    def seconds(self) -> float:
        value = self._typed(("int", "float"), "seconds", lambda text: float(yaml.safe_load(text)))
        if not 0 <= value <= 86400:
            self.fail(f"{value:g} is not between 0 and 86400 seconds")
        return value

    def choice(self, known: tuple[str, ...]) -> str:
        if self.text() not in known:
            self.fail(f"{self.text()!r} unknown{_near(self.text(), known)}")
        return self.text()

    def _typed(self, tags: tuple[str, ...], wanted: str, read: "Callable[[str], _T]") -> _T:
        short = self._node.tag.rpartition(":")[2]
        if not isinstance(self._node, yaml.ScalarNode) or short not in tags:
            self.fail(f"expected {wanted}, found {_kind(self._node)}")
        return read(self._node.value)


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    return {"str": "text", "int": "a number", "float": "a number", "null": "nothing"}.get(
        node.tag.rpartition(":")[2], "something else"
    )
