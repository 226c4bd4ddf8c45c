"""All minions refresh their pillar at once: a region's worth of them, compiled as a master does it.

A master's workers are processes forked from one that has imported Salt; each takes the next request
and compiles with `salt.pillar.Pillar`. So do these. `World` is what they compile from: a pillar
tree with references, the same tree with the values written out, outputs of stacks, and parameters.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import queue
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from guardian.stacks.outputs import Directory, Output
from guardian.stacks.parameters import ParameterStore
from tests.support.aws import REGION, Aws
from tests.support.loading import REPOSITORY

HERE = Path(__file__).resolve().parent
WORKSPACES = ("prod-euw2", "stage-euw2", "qa01-euw2", "dev01-euw2")
ROLES = {"sip": 0.2, "pbx": 0.6, "fsx": 0.2}  # of a workspace's nodes
STACKS = {"sip": "rt-sip", "pbx": "rt-pbx", "fsx": "fsx8"}
PREFIX = "/guardian/outputs"
_FLEET = 100  # nodes in one output, of which a parameter holds 8 KB
_PEM = "-----BEGIN {0}-----\nbm90IGEgc2VjcmV0\n-----END {0}-----\n"

# Where a role's pillar wants a secret, and what it is called.
_FREESWITCH = {
    "freeswitch:esl_password": "esl-password",
    "freeswitch:esl_users:monitor:password": "esl-monitor-password",
    "freeswitch:repository:auth": "repository-auth",
    "freeswitch:gateways:carrier-a:params:password": "carrier-a-password",
    "freeswitch:gateways:carrier-b:params:password": "carrier-b-password",
    "freeswitch:json_cdr:credentials": "cdr-credentials",
}
SECRETS = {
    "pbx": _FREESWITCH,
    "fsx": _FREESWITCH,
    "sip": {
        "opensips:repository:auth": "repository-auth",
        "opensips:database:remote:password": "database-password",
    },
}
SENSITIVE = {"database-password": ("databases", "password")}  # an output of a stack
SHARED = {
    "certificates:default:key": ("certificate-key", "rt.certificate.default.key"),
    "certificates:default:chain": ("certificate-chain", "rt.certificate.default.chain"),
}
_REPOSITORY = {"uri": "https://apt.example/voice", "suite": "bookworm", "components": ["main"],
               "key": "/usr/share/keyrings/voice.gpg"}  # fmt: skip
_DATABASE = {"driver": "mysql", "host": "db.example", "name": "opensips", "user": "opensips"}
_PBX = {
    "repository": _REPOSITORY,
    "esl_users": {"monitor": {"commands": ["status"]}},
    "gateways": {
        name: {"profile": "external", "params": {"username": name, "proxy": f"{name}.example"}}
        for name in ("carrier-a", "carrier-b")
    },
    "json_cdr": {"urls": ["https://cdr.example/"]},
}
ROLE_PILLAR: dict[str, dict[str, Any]] = {
    "pbx": {"freeswitch": _PBX},
    "fsx": {"freeswitch": _PBX, "fsx": {"ports": [9001, 9002]}},
    "sip": {
        "opensips": {
            "repository": _REPOSITORY,
            "sets": {"1": "pbx", "2": "fsx"},
            "database": {"remote": _DATABASE},
        }
    },
}


class World:
    """A region's minions and all that their pillar is made of."""

    def __init__(self, directory: Path, aws: Aws, minions: int, cache: str) -> None:
        self.directory, self.aws, self.cache = directory, aws, cache
        self.minions = [
            f"{role}-{number:04}.{workspace}"
            for workspace in WORKSPACES
            for role, share in ROLES.items()
            for number in range(1, round(minions / len(WORKSPACES) * share) + 1)
        ]
        self._tree("with", secret=True)
        self._tree("without", secret=False)
        self._keys()
        self._grants()
        self._schema()
        self.parameters = self._parameters()
        self.trees = {workspace: self._outputs(workspace) for workspace in WORKSPACES}

    # what there is to ask for

    def distinct(self) -> int:
        """All parameters that these minions are made of: secrets, and outputs with manifests."""
        return len(self.parameters) + sum(self.trees.values())

    def pages(self) -> int:
        """Pages of ten that a reading by path takes: each workspace's outputs, each role's path."""
        ours = [len(names) for names in SECRETS.values()] * len(WORKSPACES)
        return sum(math.floor(count / 10) + 1 for count in [*self.trees.values(), *ours])

    # how it is compiled

    def options(self, kind: str) -> dict[str, Any]:
        """Master options of a kind: ours, without (secrets), single or batched (plain boto3)."""
        import salt.config

        schema = {"path": str(self.directory / "schema")}
        tree, chain = "without", [
            {"stack_outputs": {"path": str(self.directory / "outputs")}},
            {"fleet_node": True},
            {"pillar_schema": {"path": f"{schema['path']}-without"}},
        ]  # fmt: skip
        if kind == "ours":
            broker = {"cache": self.cache, "ttl": 600, "stale": 900, "rate": 30}
            grants = str(self.directory / "grants.yaml")
            tree, chain = "with", [
                {"stack_outputs": {"parameters": PREFIX, "region": REGION, **broker}},
                {"fleet_node": True},
                {"aws_secrets": {"grants": grants, "region": REGION, **broker}},
                {"pillar_schema": schema},
                {"secrets_sealed": {"plain": ["lab"]}},
            ]  # fmt: skip
        elif kind != "without":
            shared = [source for _, source in SHARED.values()]
            names = {
                role: shared + [_path(one) for one in SECRETS[role].values()] for role in ROLES
            }
            chain = [
                {"plain_boto3": {"names": names, "tree": PREFIX, "batched": kind == "batched"}}
            ]
        options: dict[str, Any] = salt.config.DEFAULT_MASTER_OPTS.copy()
        options.update(
            cachedir=str(self.directory / "cache"),
            extension_modules=str(self.directory / "extmods"),
            sock_dir=str(self.directory),
            pki_dir=str(self.directory / "pki"),
            file_roots={"base": [str(REPOSITORY / "salt")]},
            pillar_roots={"base": [str(self.directory / tree)]},
            pillar_dirs=[str(REPOSITORY / "_pillar"), str(HERE / "plain_pillar")],
            utils_dirs=[str(REPOSITORY / "_utils")],
            ext_pillar=chain,
            __role="master",
            file_client="local",
        )
        return options

    # how it is made

    def _tree(self, name: str, *, secret: bool) -> None:
        root = self.directory / name
        fleet = [
            f"{stack}:nodes_{part}" for stack in STACKS.values() for part in range(1, 4)
        ]  # the outputs there are; one that is not is skipped
        common: dict[str, Any] = {
            "base": {"timezone": "Etc/UTC"},
            "certificates": {"default": {"dns_names": ["voice.example"]}},
        }
        if secret:
            common["secrets"] = {one: {"parameter": source} for one, source in SHARED.values()}
        for path, (one, source) in SHARED.items():
            _put(common, path, {"secret": one} if secret else _value(source))
        files: dict[str, Any] = {"common": common}
        top = {"*": ["common"]}
        for workspace in WORKSPACES:
            files[f"workspaces/{workspace}"] = {"from_stacks": {"fleet": fleet}}
            top[f"*.{workspace}"] = [f"workspaces.{workspace}"]
        for role, pillar in ROLE_PILLAR.items():
            held = json.loads(json.dumps(pillar))
            for path, one in SECRETS[role].items():
                _put(held, path, {"secret": one} if secret else _value(one))
            if secret:
                held["secrets"] = {one: _declared(one) for one in SECRETS[role].values()}
            files[role] = held
            top[f"{role}-*"] = [role]
        files["top"] = {"base": top}
        (root / "workspaces").mkdir(parents=True)
        (root / "fleet.yaml").write_text(yaml.safe_dump(_catalogue()))
        for file, content in files.items():
            (root / f"{file}.sls").write_text(yaml.safe_dump(content))

    def _keys(self) -> None:
        """All minions have one key, which the master has accepted of each."""
        import salt.crypt

        self.keys, accepted = self.directory / "keys", self.directory / "pki" / "minions"
        self.keys.mkdir()
        accepted.mkdir(parents=True)
        salt.crypt.write_keys(str(self.keys), "minion", 2048)
        for minion in self.minions:
            shutil.copy(self.keys / "minion.pub", accepted / minion)

    def _grants(self) -> None:
        """The repository's, and one for what a stack keeps to itself."""
        grants = yaml.safe_load((REPOSITORY / "pillar" / "grants.yaml").read_bytes())
        grants.append(
            {
                "names": [f"parameter:{PREFIX}-sensitive/{{workspace}}/databases/*"],
                "roles": ["sip"],
            }
        )
        (self.directory / "grants.yaml").write_text(yaml.safe_dump(grants))

    def _schema(self) -> None:
        for name, marked in (("schema", True), ("schema-without", False)):
            (self.directory / name).mkdir()
            for file in (REPOSITORY / "pillar" / "schema").glob("*.json"):
                schema = json.loads(file.read_text())
                text = json.dumps(schema if marked else _unmarked(schema))
                (self.directory / name / file.name).write_text(text)

    def _parameters(self) -> set[str]:
        names = {source for _, source in SHARED.values()} | {
            _path(one).format(workspace=workspace, role=role)
            for workspace in WORKSPACES
            for role, secrets in SECRETS.items()
            for one in secrets.values()
        }
        sensitive = {name for name in names if name.startswith(f"{PREFIX}-sensitive/")}
        self.aws.parameters({name: _value(name) for name in names - sensitive})
        return names

    def _outputs(self, workspace: str) -> int:
        """Publish in both ways; how many parameters there are now."""
        client = self.aws.client("ssm")
        store = ParameterStore(PREFIX, workspace, client, pace=lambda: None)
        directory = Directory(self.directory / "outputs", workspace)
        for role, stack in STACKS.items():
            ids = [
                minion.partition(".")[0]
                for minion in self.minions
                if minion.startswith(f"{role}-") and minion.endswith(f".{workspace}")
            ]
            outputs = {
                f"nodes_{first // _FLEET + 1}": Output(
                    {
                        name: {"role": role, "zone": "abc"[number % 3],
                               "address": f"10.{len(stack)}.{number // 250}.{number % 250 + 1}"}
                        for number, name in enumerate(ids[first : first + _FLEET], first)
                    }
                )
                for first in range(0, len(ids), _FLEET)
            }  # fmt: skip
            outputs |= {f"subnet_{zone}": Output(f"subnet-0{zone}") for zone in "abc"}
            store.publish(stack, outputs)
            directory.publish(stack, outputs)
        for name, (stack, output) in SENSITIVE.items():
            store.publish(stack, {output: Output(_value(name), sensitive=True)})
        return len(store.tree(f"{PREFIX}/{workspace}"))


def _catalogue() -> dict[str, Any]:
    """Who there may be: the repository's, with all our workspaces in it."""
    found: dict[str, Any] = yaml.safe_load((REPOSITORY / "pillar" / "fleet.yaml").read_bytes())
    for workspace in WORKSPACES:
        account, _, region = workspace.partition("-")
        found["accounts"][account]["regions"].append(region)
    return found


def _path(name: str) -> str:
    if name in SENSITIVE:
        return f"{PREFIX}-sensitive/{{workspace}}/{'/'.join(SENSITIVE[name])}"
    return f"/voice/{{workspace}}/{{role}}/{name}"


def _declared(name: str) -> dict[str, Any]:
    return {"parameter": _path(name), **({"json": True} if name in SENSITIVE else {})}


def _value(source: str) -> str:
    """Something that passes for the value of a source, and is none."""
    if source.endswith((".key", ".chain")):
        return _PEM.format("PRIVATE KEY" if source.endswith(".key") else "CERTIFICATE")
    return f"not-a-secret-{source.rpartition('/')[2]}"


def _put(pillar: dict[str, Any], path: str, value: object) -> None:
    *parents, last = path.split(":")
    for key in parents:
        pillar = pillar.setdefault(key, {})
    pillar[last] = value


def _unmarked(schema: Any) -> Any:
    """A schema that does not know of secrets."""
    if isinstance(schema, dict):
        return {
            key: _unmarked(value)
            for key, value in schema.items()
            if key not in ("x-secret", "x-reference")
        }
    return [_unmarked(one) for one in schema] if isinstance(schema, list) else schema


@dataclass
class Compiled:
    """One compilation: of what kind, how long it took, and what was wrong."""

    kind: str
    minion: str
    seconds: float
    cpu: float
    errors: list[str]


def compile_all(world: World, kinds: list[str], workers: int) -> list[Compiled]:
    """Compile every minion's pillar in as many processes, of all kinds in turn.

    Kinds alternate within a process, each minion's in the other order than the last one's, so that
    whatever else the machine does falls on all of them alike.
    """
    import salt.pillar  # noqa: F401  # before the fork, as a master has it

    forked = multiprocessing.get_context("fork")
    wanted, done = forked.Queue(), forked.Queue()
    start = forked.Event()
    order = sorted(world.minions, key=lambda minion: minion[::-1])
    for number, minion in enumerate(order):
        wanted.put((number, minion))
    for _ in range(workers):
        wanted.put(None)
    processes = [
        forked.Process(target=_work, args=(world, kinds, start, wanted, done))
        for _ in range(workers)
    ]
    for process in processes:
        process.start()
    start.set()
    return collected(done, len(order) * len(kinds), processes)


def collected(done: Any, count: int, processes: list[Any]) -> list[Any]:
    """What processes put in a queue, until it is so many; an error if one of them dies."""
    found: list[Any] = []
    try:
        while len(found) < count:
            try:
                found.append(done.get(timeout=1))
            except queue.Empty:
                assert not any(process.exitcode for process in processes), "a worker died"
    finally:
        for process in processes:
            if len(found) < count:
                process.kill()  # it would wait for ever to be read
            process.join()
    return found


def _work(world: World, kinds: list[str], start: Any, wanted: Any, done: Any) -> None:
    import salt.pillar

    os.environ.update(world.aws.environment)
    options = {kind: world.options(kind) for kind in kinds}
    start.wait()
    while (item := wanted.get()) is not None:
        number, minion = item
        for kind in kinds if number % 2 else kinds[::-1]:
            began, cpu = time.perf_counter(), time.process_time()
            compiler = salt.pillar.Pillar(options[kind], {}, minion, "base")
            pillar = compiler.compile_pillar()
            took, used = time.perf_counter() - began, time.process_time() - cpu
            done.put(Compiled(kind, minion, took, used, list(pillar.get("_errors", []))))


def percentile(values: list[float], share: float) -> float:
    """The value that this share of them does not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * share) - 1)]
