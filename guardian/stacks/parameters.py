"""Stack outputs as parameters of AWS Systems Manager, a whole set at a time.

    <prefix>/<workspace>/<stack>/<output>              String, a JSON text
    <prefix>-sensitive/<workspace>/<stack>/<output>    SecureString, a JSON text
    <prefix>/<workspace>/<stack>/manifest.json         which version of each makes up the set

Parameter Store has no transactions, but it keeps versions. A publish writes what changed, then the
manifest, then deletes what vanished: the manifest is the commit. A reader takes the versions that
the manifest names, so it sees the set before or the set after and never some of both, however far
a publish came. Sensitive outputs have a tree of their own, since who may read a path may read all
that is below it, and since AWS lets no parameter change its type.
"""

import json
import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from guardian.config import ParameterOutputs
from guardian.errors import GuardianError
from guardian.workspace import REGIONS

if TYPE_CHECKING:
    from guardian.stacks.outputs import Outputs

MANIFEST = "manifest.json"  # no output can have a dot in its name
LIMIT = 8192  # bytes of an advanced parameter
WRITES = 3.0  # a second: PutParameter's default quota in an account and region
_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
_REMEDIES = {
    "AccessDeniedException": "grant it to whom guardian runs as",
    "ExpiredTokenException": "log in to AWS again",
    "NoCredentialsError": "log in to AWS",
    "NoRegionError": "name the region in guardian.yaml",
}


class Parameter(NamedTuple):
    """A version of a parameter."""

    name: str
    value: str
    version: int


class Reader(Protocol):
    """What reads parameters: AWS itself here, the broker on a master."""

    def tree(self, path: str) -> Iterable[Any]:
        """All parameters below a path."""

    def pinned(self, selectors: list[str]) -> dict[str, Any]:
        """Those of some `name:version` that exist."""

    def forget(self, sources: list[str]) -> object:
        """Drop what is remembered of some paths."""


def published(source: dict[str, Any], workspace: str) -> dict[str, dict[str, Any]]:
    """Plain outputs by stack, through the master's broker; GuardianError when a set is broken."""
    return plain(_broker(source, workspace), source["parameters"], workspace)


def forget(source: dict[str, Any], workspace: str) -> None:
    """Have the master's broker read a workspace's outputs anew."""
    _broker(source, workspace).forget([f"{source['parameters']}/{workspace}"])


def plain(reader: Reader, prefix: str, workspace: str) -> dict[str, dict[str, Any]]:
    """Plain outputs of every set that was published whole, by stack."""
    base = f"{prefix}/{workspace}/"
    found: dict[str, dict[str, Any]] = {}
    for name, text in _texts(reader, [base[:-1]], lambda one: _plain_pins(one, workspace)).items():
        stack, _, output = name.removeprefix(base).partition("/")
        outputs = found.setdefault(stack, {})
        if output != MANIFEST:
            outputs[output] = _value(name, text)
    return found


def _broker(source: dict[str, Any], workspace: str) -> Any:
    from guardian.secrets.broker import Broker

    options = {key: value for key, value in source.items() if key != "parameters"}
    options.setdefault("region", REGIONS.get(workspace.partition("-")[2], ""))
    return Broker(**options)


class _Pace:
    """At most so many a second, of all threads together."""

    def __init__(self, rate: float, sleep: Callable[[float], None] = time.sleep) -> None:
        self._every, self._sleep = 1 / rate, sleep
        self._next, self._guard = 0.0, threading.Lock()

    def __call__(self) -> None:
        with self._guard:
            now = time.monotonic()
            wait = max(0.0, self._next - now)
            self._next = now + wait + self._every
        self._sleep(wait)


@dataclass(frozen=True)
class ParameterStore:
    """The place of a workspace's outputs in Parameter Store, for who publishes them."""

    prefix: str
    workspace: str
    client: Any
    key: str = ""
    pace: Callable[[], None] = field(default_factory=lambda: _Pace(WRITES))

    @classmethod
    def of(cls, where: ParameterOutputs, workspace: str) -> "ParameterStore":
        """As guardian.yaml says; GuardianError without boto3."""
        try:
            import boto3
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError
        except ModuleNotFoundError:
            raise GuardianError("boto3: not installed; pip install 'guardian[master]'") from None
        # Jittered, and half a minute in all: a whole region's deploy waits for it.
        retries = {"mode": "standard", "total_max_attempts": 8}
        config = Config(retries=retries, connect_timeout=5, read_timeout=10)
        try:
            client = boto3.session.Session().client("ssm", region_name=where.region, config=config)
        except BotoCoreError as error:  # a profile that does not exist, a region that is none
            raise GuardianError(f"AWS: {error}") from None
        return cls(where.prefix, workspace, client, where.key)

    def read(self, stack: str) -> "Outputs | None":
        """Outputs of a stack, None when it never was published; GuardianError if they are gone."""
        from guardian.stacks.outputs import Output

        open_, secret = self._paths(stack)
        texts = _texts(self, [open_, secret], lambda one: _all_pins(one, self.workspace, secret))
        if texts.pop(f"{open_}/{MANIFEST}", None) is None:
            return None
        return {
            name.rpartition("/")[2]: Output(_value(name, text), name.startswith(f"{secret}/"))
            for name, text in sorted(texts.items())
        }

    def publish(self, stack: str, outputs: "Outputs") -> bool:
        """Publish a set; whether it differs from the one before.

        GuardianError says what is missing when it fails half way: readers keep the set before.
        """
        wanted, paths = self._wanted(stack, outputs), self._paths(stack)
        manifest = f"{paths[0]}/{MANIFEST}"
        before = {one.name: one for path in paths for one in self.tree(path)}
        versions: dict[str, int] = {}
        try:
            for name, text in wanted.items():
                versions[name] = self._put_changed(name, text, before)
            committed = self._put_changed(manifest, _manifest(versions, paths), before)
        except GuardianError as error:
            missing = [name.rpartition("/")[2] for name in wanted if name not in versions]
            raise GuardianError(
                f"stack {stack}: {error}; not published: {', '.join(missing or [MANIFEST])}; "
                "readers keep the outputs before; deploy it again"
            ) from None
        self._delete(stack, sorted(set(before) - set(versions) - {manifest}))
        return manifest not in before or before[manifest].version != committed

    def tree(self, path: str) -> list[Parameter]:
        """All parameters below a path, decrypted."""
        found: list[Parameter] = []
        more: dict[str, str] = {}
        while True:
            page = self._call(
                "get_parameters_by_path", Path=path, Recursive=True, WithDecryption=True, **more
            )
            found += [Parameter(o["Name"], o["Value"], o["Version"]) for o in page["Parameters"]]
            if not page.get("NextToken"):
                return found
            more = {"NextToken": page["NextToken"]}

    def pinned(self, selectors: list[str]) -> dict[str, Parameter]:
        """Those of some `name:version` that exist, decrypted."""
        found = {}
        for first in range(0, len(selectors), 10):
            names = selectors[first : first + 10]
            try:
                page = self._call("get_parameters", Names=names, WithDecryption=True)
            except _RefusedError as error:
                if error.reason != "ParameterVersionNotFound":
                    raise
                continue
            for one in page["Parameters"]:
                selector = f"{one['Name']}:{one['Version']}"
                found[selector] = Parameter(one["Name"], one["Value"], one["Version"])
        return found

    def forget(self, sources: list[str]) -> None:
        """Nothing: nothing is remembered here."""

    def _paths(self, stack: str) -> tuple[str, str]:
        below = f"{self.workspace}/{stack}"
        return f"{self.prefix}/{below}", f"{self.prefix}-sensitive/{below}"

    def _wanted(self, stack: str, outputs: "Outputs") -> dict[str, str]:
        """Texts by parameter name; GuardianError before anything is written if one cannot be."""
        paths = self._paths(stack)
        for name in (stack, *outputs):
            if not _NAME.fullmatch(name):
                raise GuardianError(
                    f"stack {stack}: {name[:60]!r} cannot be part of a parameter's name; "
                    "use letters, digits, _ and -"
                )
        wanted = {
            f"{paths[one.sensitive]}/{name}": _sized(stack, f"output {name!r}", _text(one.value))
            for name, one in sorted(outputs.items())
        }
        _sized(stack, "the list of its outputs", _manifest(dict.fromkeys(wanted, 10**6), paths))
        return wanted

    def _put_changed(self, name: str, text: str, before: dict[str, Parameter]) -> int:
        """The version that holds this text."""
        if name in before and before[name].value == text:
            return before[name].version
        secret = name.startswith(f"{self.prefix}-sensitive/")
        kind = {"Type": "SecureString" if secret else "String"}
        if secret and self.key:
            kind["KeyId"] = self.key
        self.pace()
        # Standard up to 4 KB, advanced above; an advanced one cannot become standard again.
        done = self._call(
            "put_parameter",
            Name=name,
            Value=text,
            Overwrite=True,
            Tier="Intelligent-Tiering",
            **kind,
        )
        return int(done["Version"])

    def _delete(self, stack: str, names: list[str]) -> None:
        for first in range(0, len(names), 10):
            self.pace()
            try:
                self._call("delete_parameters", Names=names[first : first + 10])
            except GuardianError as error:
                left = ", ".join(one.rpartition("/")[2] for one in names[first:])
                raise GuardianError(
                    f"stack {stack}: its outputs are published, but {left}, no longer among them, "
                    f"could not be deleted: {error}; deploy it again"
                ) from None

    def _call(self, operation: str, **arguments: Any) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return getattr(self.client, operation)(**arguments)
        except (ClientError, BotoCoreError) as error:
            # The code alone: what AWS says of a bad request quotes the value.
            code = type(error).__name__
            if isinstance(error, ClientError):
                code = error.response.get("Error", {}).get("Code", code)
            what = operation.title().replace("_", "")
            where = str(arguments.get("Name") or arguments.get("Path") or arguments["Names"][0])
            remedy = f"; {_REMEDIES[code]}" if code in _REMEDIES else ""
            raise _RefusedError(f"{where}: {what}: {code}{remedy}", code) from None


class _RefusedError(GuardianError):
    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


_Rows = dict[str, Any]


def _texts(
    reader: Reader, paths: list[str], pins: Callable[[_Rows], dict[str, int]]
) -> dict[str, str]:
    """Text by parameter name of every pinned version, the manifests' own included."""
    for _ in range(2):
        rows = {one.name: one for path in paths for one in reader.tree(path)}
        pinned = pins(rows)
        older = [
            f"{name}:{version}"
            for name, version in pinned.items()
            if name not in rows or rows[name].version != version
        ]
        again = reader.pinned(older) if older else {}
        missing = [one for one in older if one not in again]
        if not missing:
            chosen = {**rows, **{one.rpartition(":")[0]: row for one, row in again.items()}}
            return {name: chosen[name].value for name in pinned}
        # Pages are not of one moment: a later set may have been published while they were read.
        reader.forget(paths)
    name, _, version = missing[0].rpartition(":")
    raise GuardianError(
        f"{name}: version {version} is gone, though {MANIFEST} beside it names it; "
        "run `guardian deploy` again"
    )


def _plain_pins(rows: _Rows, workspace: str) -> dict[str, int]:
    return _pins(rows, workspace, lambda directory, found: {directory: found["outputs"]})


def _all_pins(rows: _Rows, workspace: str, secret: str) -> dict[str, int]:
    return _pins(
        rows,
        workspace,
        lambda directory, found: {directory: found["outputs"], secret: found["sensitive"]},
    )


def _pins(
    rows: _Rows, workspace: str, chosen: Callable[[str, Any], dict[str, dict[str, int]]]
) -> dict[str, int]:
    """Version by parameter name; what no manifest names belongs to no set."""
    pins: dict[str, int] = {}
    for name, row in rows.items():
        directory, _, leaf = name.rpartition("/")
        if leaf != MANIFEST:
            continue
        pins[name] = row.version
        try:
            for path, versions in chosen(directory, json.loads(row.value)).items():
                pins |= {f"{path}/{output}": int(number) for output, number in versions.items()}
        except (ValueError, TypeError, KeyError, AttributeError):
            raise GuardianError(
                f"{name}: not a list of outputs; run `guardian deploy {workspace}` again"
            ) from None
    return pins


def _manifest(versions: dict[str, int], paths: tuple[str, str]) -> str:
    kinds = zip(("outputs", "sensitive"), paths, strict=True)
    return _text(
        {
            kind: {
                name.rpartition("/")[2]: number
                for name, number in versions.items()
                if name.startswith(f"{path}/")
            }
            for kind, path in kinds
        }
    )


def _text(value: Any) -> str:
    """JSON that Parameter Store takes: it refuses what looks like a reference, `{{name}}`."""
    text = json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    return text.replace("{{", "{\\u007b")  # two in a row are only ever within a string


def _value(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise GuardianError(
            f"{name}: no JSON, as if made by hand; delete it and run `guardian deploy` again"
        ) from None


def _sized(stack: str, what: str, text: str) -> str:
    size = len(text.encode())
    if size > LIMIT:
        raise GuardianError(
            f"stack {stack}: {what} takes {size} bytes and a parameter holds {LIMIT}; "
            "split it into several; nothing was published"
        )
    return text
