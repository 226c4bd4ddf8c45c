"""A master and a node of each role, all real, whose every secret is a canary.

Master and minions are Salt's own, logging all they have to say. Each node has files of its own
(``enter.sh``), so that states write where they do in production and nothing stays; its voice daemon
is the twin. Secrets come from AWS's stand-in through the external pillars of the repository.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import salt.client
import salt.config
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa

from guardian.secrets.broker import from_opts
from tests.support import bundles
from tests.support.aws import Aws
from tests.support.canary.pillar import planted
from tests.support.canary.values import Canaries
from tests.support.canary.watch import Programs
from tests.support.ports import free_ports
from tests.support.region import until

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[2]
TWINS = REPOSITORY / "lab" / "twins"
WORKSPACE, REGION = "dev01-use2", "us-east-2"
DAEMONS = {"sip": "opensips", "pbx": "freeswitch", "fsx": "freeswitch"}


def functional(path: str) -> Any:
    return yaml.safe_load((REPOSITORY / "tests/functional" / path).read_text())


class Region:
    """What runs, where its files are, and how to ask it for something."""

    def __init__(self, root: Path, aws: Aws, level: str, roles: tuple[str, ...]) -> None:
        self.root, self.aws, self.level = root, aws, level
        self.canaries = Canaries()
        self.nodes = {role: f"{role}-01.{WORKSPACE}" for role in roles}
        self.observed = root / "observed"
        self.programs = Programs(self.canaries)
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        first = free_ports(2)
        self._ports = (first, first + 1)

    @property
    def switch(self) -> str:
        """Return the role of a node with a FreeSWITCH; a worker's has all that a PBX has."""
        return "pbx" if "pbx" in self.nodes else "fsx"

    @property
    def switches(self) -> str:
        return f"{self.switch}-*"

    # -- its files ------------------------------------------------------------------------------

    def layers(self, role: str) -> Path:
        return self.root / role / "layers"

    def file(self, role: str, path: str) -> Path:
        """Return where a file that a node wrote is seen from here."""
        top, _, rest = path.lstrip("/").partition("/")
        return self.layers(role) / top / "up" / rest

    def prepare(self) -> None:
        for name in ("started", "removed", "returns", "screens"):
            (self.observed / name).mkdir(parents=True)
        (self.observed / "events.0").touch()
        shutil.copytree(HERE / "stubs", self.root / "stubs")
        for name in ("pillar/workspaces", "files", "etc", "secrets", "outputs"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        (self.root / "secrets").chmod(0o700)
        shutil.copy(REPOSITORY / "pillar/fleet.yaml", self.root / "pillar")
        self._config("master", self._master())
        for role, minion_id in self.nodes.items():
            self._config(role, self._minion(role, minion_id))
            self._install(role)
        self.plant()

    def _config(self, name: str, content: dict[str, Any]) -> None:
        file = self.root / "etc" / name / ("master" if name == "master" else "minion")
        file.parent.mkdir(parents=True)
        file.write_text(yaml.safe_dump(content))

    def _common(self, name: str) -> dict[str, Any]:
        return {
            "user": "root",
            "root_dir": str(self.root / name),
            "sock_dir": str(self.root / name / "s"),
            "log_level": self.level,
            "log_level_logfile": self.level,
            "log_file": "log",
        }

    def _master(self) -> dict[str, Any]:
        return {
            **self._common("master"),
            "interface": "127.0.0.1",
            "publish_port": self._ports[0],
            "ret_port": self._ports[1],
            "auto_accept": True,
            "worker_threads": 3,
            "file_roots": {"base": [str(self.root / "files"), str(REPOSITORY / "salt")]},
            "pillar_roots": {"base": [str(self.root / "pillar")]},
            "pillar_dirs": [str(REPOSITORY / "_pillar")],
            "utils_dirs": [str(REPOSITORY / "_utils")],
            "runner_dirs": [str(REPOSITORY / "_runners")],
            "ext_pillar": [
                {"stack_outputs": {"path": str(self.root / "outputs")}},
                {"fleet_node": True},
                {
                    "aws_secrets": {
                        "grants": str(REPOSITORY / "pillar/grants.yaml"),
                        "region": REGION,
                        "cache": str(self.root / "secrets"),
                        "ttl": 1,
                        "stale": 1,
                        "dummies": ["lab"],
                    }
                },
                {"pillar_schema": {"path": str(REPOSITORY / "pillar/schema")}},
                {"secrets_sealed": {"plain": ["lab"]}},
            ],
            "minion_data_cache": False,
            "keep_jobs_seconds": 86400,
            "gather_job_timeout": 10,
            "timeout": 60,
            "fileserver_update_niceness": 0,
            "fileserver_list_cache_time": 0,
        }

    def _minion(self, role: str, minion_id: str) -> dict[str, Any]:
        return {
            **self._common(role),
            "id": minion_id,
            "master": "127.0.0.1",
            "publish_port": self._ports[0],
            "master_port": self._ports[1],
            "acceptance_wait_time": 1,
            "cache_jobs": True,
            "grains_cache": True,
            "enable_fqdns_grains": False,
            "module_dirs": [str(self.root / "stubs")],
            "mine_functions": {"test.ping": [], "pillar.items": []},
            "beacons_before_connect": False,
        }

    def _install(self, role: str) -> None:
        """Put the twin where its package puts it."""
        daemon = DAEMONS[role]
        shutil.copytree(TWINS / daemon / "package/usr", self.file(role, "/usr"))
        library = self.file(role, f"/usr/lib/{daemon}")
        library.mkdir(parents=True, exist_ok=True)
        for source in (*(TWINS / daemon).glob("*.py"), *(TWINS / "common").glob("*.py")):
            shutil.copy(source, library)
        for directory in ("bin", "sbin"):
            for file in self.file(role, f"/usr/{directory}").glob("*"):
                file.chmod(0o755)

    # -- its pillar -----------------------------------------------------------------------------

    def plant(self) -> None:
        """Give every place for a secret a canary, and AWS their values."""
        fleet = {
            f"{role}-01": {"role": role, "zone": "a", "address": "127.0.0.1"} for role in self.nodes
        }
        bundle, values = planted("certificates", {"default": certificate()}, self.canaries)
        self._store({"rt.certificate.default.key": next(iter(values.values()))})
        self.pillar: dict[str, dict[str, Any]] = {
            "all": {
                "certificates": bundle,
                "secrets": self._declarations(values, "rt.certificate.default.key"),
            },
        }
        self._write("workspaces/dev01-use2", {"fleet": fleet})
        for role in self.nodes:
            self.pillar[role] = self._of_role(role)
        self.top: dict[str, list[str]] = {}
        self.publish()

    def _of_role(self, role: str) -> dict[str, Any]:
        component, declared = DAEMONS[role], {}
        held = self._given(role, component, proxy() if role == "sip" else switch(), declared)
        layer: dict[str, Any] = {component: held, "secrets": declared}
        if role == "fsx":
            first = free_ports(2)
            layer["fsx"] = self._given(role, "fsx", {
                "ports": [first, first + 1], "credentials": {"api-token": "CANARY"}
            }, layer["secrets"])  # fmt: skip
        if role == "sip":
            remote = {
                "driver": "mysql",
                "host": "db.invalid",
                "name": "opensips",
                "user": "opensips",
            }
            remote["password"] = "CANARY"
            declared: dict[str, Any] = {}
            given = self._given(role, "opensips", {"database": {"remote": remote}}, declared)
            self.remote = {"opensips": given, "secrets": declared}
        return layer

    def _given(
        self, role: str, component: str, plain: dict[str, Any], declared: dict[str, Any]
    ) -> Any:
        """Return a part of pillar with references, once AWS has what they refer to."""
        held, values = planted(component, plain, self.canaries.named(role))
        self._store({f"/voice/{WORKSPACE}/{role}/{name}": value for name, value in values.items()})
        declared.update(self._declarations(values))
        return held

    @staticmethod
    def _declarations(values: dict[str, str], parameter: str = "") -> dict[str, Any]:
        form = parameter or "/voice/{workspace}/{role}/%s"
        return {name: {"parameter": form.replace("%s", name)} for name in values}

    def _store(self, values: dict[str, str]) -> None:
        self.aws.parameters(values, REGION)

    def publish(self, **layers: Any) -> None:
        """Write pillar as it is, with these layers of a role's on top, ``pbx_some_name``."""
        top = {"*": ["workspaces.dev01-use2", "all"]}
        for role in self.nodes:
            top[f"{role}-*"] = [role]
        for name, content in {**self.pillar, **layers}.items():
            self._write(name, content)
        for name in layers:
            top[f"{name.partition('_')[0]}-*"].append(name)
        self._write("top", {"base": top})

    def _write(self, name: str, content: Any) -> None:
        text = content if isinstance(content, str) else "#!json\n" + json.dumps(content)
        (self.root / "pillar" / f"{name}.sls").write_text(text)

    # -- its processes --------------------------------------------------------------------------

    def start(self) -> None:
        self.programs.start()
        self._run(
            "master", ["salt-master", "-c", str(self.root / "etc/master")], self.aws.environment
        )
        for role in self.nodes:
            daemon = DAEMONS[role]
            ready = f"useradd --system --user-group --no-create-home {daemon}; useradd --system fsx"
            places = f"/etc/{daemon} /var/lib/{daemon} /var/log/{daemon} /run/{daemon}"
            own = f"install -d -o {daemon} -g {daemon} -m 0750 {places}; umask 0022"
            enter = [str(HERE / "enter.sh"), str(self.root), str(self.layers(role))]
            minion = f"{bin_('salt-minion')} -c {self.root}/etc/{role}"
            self._run(
                role,
                ["unshare", "--mount", "--propagation", "private", *enter,
                 "/bin/sh", "-c", f"{ready} >/dev/null 2>&1; {own} && exec {minion}"],
                {},
            )  # fmt: skip
        buses = [f"master:{self.root}/etc/master/master"]
        buses += [f"minion:{self.root}/etc/{role}/minion" for role in self.nodes]
        self._run("listener", [sys.executable, str(HERE / "listen.py"),
                               str(self.observed / "events"), *buses], {})  # fmt: skip
        until(self._answering, "the minions", 40)
        self.ask("*", "saltutil.sync_all")

    def _answering(self) -> bool:
        started = (self.observed / "events.0").read_text()
        if not all(f"salt/minion/{one}/start" in started for one in self.nodes.values()):
            return False
        try:
            # It reads the master's key once.
            self.client = salt.client.LocalClient(str(self.root / "etc/master/master"))
            found = self.client.cmd("*", "test.ping", timeout=5)
        except Exception:  # the master may be starting
            return False
        return set(found) == set(self.nodes.values())

    def _run(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        if command[0].startswith("salt-"):
            command = [bin_(command[0]), *command[1:]]
        hooks = {"PYTHONPATH": str(HERE / "hooks"), "CANARY_OBSERVED": str(self.observed)}
        with (self.observed / f"{name}.console").open("ab") as out:
            self._started[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                env={**os.environ, **hooks, **environment},
            )

    def stop(self) -> None:
        self.programs.stop()
        for process in self._started.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._end_daemons()

    def _end_daemons(self) -> None:
        """End what runs on our nodes: daemons are no children of ours."""
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                mounts = (process / "mountinfo").read_text()
                if f"{self.root}/" in mounts and "canary-etc" in mounts:
                    os.kill(int(process.name), signal.SIGKILL)

    def ask(self, target: str, function: str, *arguments: Any, **keywords: Any) -> dict[str, Any]:
        """Run a function on nodes; what the caller is told is kept as well."""
        told = self.client.cmd(
            target, function, list(arguments), kwarg=keywords or None, full_return=True, timeout=120
        )
        name = f"{time.monotonic_ns()}-{function}"
        (self.observed / "returns" / name).write_text(json.dumps(told, default=repr))
        return {
            node: answer.get("ret") if isinstance(answer, dict) else answer
            for node, answer in told.items()
        }

    def inside(self, role: str, *command: str) -> str:
        """Run a program on a node as its root; what it says is kept, too."""
        pid = str(self._started[role].pid)
        done = subprocess.run(
            ["nsenter", "--mount", "--target", pid, "--wd=/", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
            check=False,
        )
        name = f"{time.monotonic_ns()}-{Path(command[0]).name}"
        (self.observed / "screens" / name).write_bytes(done.stdout)
        return done.stdout.decode(errors="replace")

    def run_master(self, *command: str) -> str:
        """Run one of the master's programs; what it says is kept, too."""
        program, *arguments = command
        done = subprocess.run(
            [bin_(program), "-c", str(self.root / "etc/master"), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
            check=False,
            env={**os.environ, **self.aws.environment},
        )
        (self.observed / "screens" / f"{time.monotonic_ns()}-{program}").write_bytes(done.stdout)
        return done.stdout.decode(errors="replace")

    def guardian(self, command: str, *arguments: str) -> str:
        """Run guardian for this region; its runs, its report and its screen are kept."""
        place = self.root / "guardian"
        place.mkdir(exist_ok=True)
        rollout = {"soak": 0, "poll": 0.3, "drain_deadline": 30, "sole_node": "when_idle"}
        workspace = {
            "stacks": ["lab"],
            "master": {
                "local": True,
                "tree": str(REPOSITORY),
                "salt_config": str(self.root / "etc/master/master"),
            },
            "state": "state",
            "outputs": "outputs",
            "runs": "runs",
            "rollout": rollout,
        }
        stacks = {"lab": {"path": str(REPOSITORY / "terraform" / "lab")}}
        config = place / "guardian.yaml"
        config.write_text(yaml.safe_dump({"stacks": stacks, "workspaces": {WORKSPACE: workspace}}))
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "guardian",
                "--config",
                str(config),
                command,
                WORKSPACE,
                *arguments,
            ],
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=300,
            check=False,
            env={**os.environ, **self.aws.environment},
        )
        (self.observed / "screens" / f"{time.monotonic_ns()}-guardian").write_bytes(done.stdout)
        return done.stdout.decode(errors="replace")

    def parameter(self, name: str) -> str:
        """Return what AWS holds for a role's secret, ``pbx/name``."""
        client = self.aws.client("ssm", REGION)
        found = client.get_parameter(Name=f"/voice/{WORKSPACE}/{name}", WithDecryption=True)
        return str(found["Parameter"]["Value"])

    def rewrite(self, role: str, files: tuple[str, ...], old: str, new: str) -> None:
        """Replace a word in files of a node, without a program that has it as an argument."""
        for name in files:
            file = Path(f"/proc/{self._started[role].pid}/root{name}")
            file.write_text(file.read_text().replace(old, new))

    @contextmanager
    def serving(self, files: dict[str, str]) -> Iterator[None]:
        """Have the fileserver serve these instead of the repository's, or beside them."""
        for name, text in files.items():
            file = self.root / "files" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        try:
            yield
        finally:
            for name in files:
                (self.root / "files" / name).unlink()

    def forget(self) -> None:
        """Have the master ask AWS anew for everything."""
        broker = from_opts(self._master())
        assert broker is not None
        broker.forget(broker.sources())

    @contextmanager
    def spoilt(
        self, values: dict[str, str], prefix: str = f"/voice/{WORKSPACE}/"
    ) -> Iterator[None]:
        """Have AWS hold these for a while."""
        client = self.aws.client("ssm", REGION)
        wrong = {f"{prefix}{name}": value for name, value in values.items()}
        right = {
            name: client.get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"]
            for name in wrong
        }
        self.renew(wrong)
        try:
            yield
        finally:
            self.renew(right)

    def renew(self, values: dict[str, str]) -> None:
        """Give parameters other values, and have the master ask for them anew."""
        self._store(values)
        broker = from_opts(self._master())
        assert broker is not None
        broker.forget([f"parameter:{name}" for name in values])


def bin_(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def proxy() -> dict[str, Any]:
    pillar = functional("opensips/everything.yaml")
    pillar.pop("certificates")
    pillar["repository"] = repository()
    for part in (
        "topology_hiding",
        "cluster",
        "metrics",
        "fraud",
        "accounting",
        "numbers",
        "outbound",
        "carriers",
        "rtpengine",
    ):
        pillar.pop(part, None)  # not of the twin
    for gateway in pillar["gateways"].values():
        gateway.pop("hide_topology", None)
    pillar["sockets"] = [one for one in pillar["sockets"] if one["proto"] not in ("ws", "wss")]
    for socket in pillar["sockets"]:
        socket["port"] = free_ports()
    return pillar


def repository() -> dict[str, Any]:
    return {
        "uri": "https://apt.invalid",
        "suite": "bookworm",
        "components": ["main"],
        "key": "/usr/share/keyrings/debian-archive-keyring.gpg",
        "auth": "machine apt.invalid login voice password CANARY",
    }


def switch() -> dict[str, Any]:
    pillar = functional("freeswitch/everything.yaml")
    pillar.update(
        esl_password="CANARY",
        event_socket={"port": free_ports()},
        rtp={"start_port": 16384, "end_port": 21998},  # below the ports of `free_ports`
        profiles={name: {"port": free_ports()} for name in ("internal", "external")},
    )
    pillar["repository"] = repository()
    pillar["json_cdr"]["credentials"] = "records:CANARY"
    pillar["users"]["100"]["variables"]["vm-password"] = "CANARY"
    pillar["domains"]["second.invalid"]["users"]["200"]["variables"] = {"vm-password": "CANARY"}
    pillar["conference"]["profiles"]["default"].update({"pin": "CANARY", "moderator-pin": "CANARY"})
    pillar["callcenter"]["settings"]["odbc-dsn"] = "dsn:voice:CANARY"
    pillar["xml_curl"]["directory"]["params"] = {"gateway-credentials": "voice:CANARY"}
    pillar["profiles"]["internal"]["params"] = {
        "odbc-dsn": "dsn:voice:CANARY", "tls-passphrase": "CANARY",
    }  # fmt: skip
    return pillar


def certificate() -> dict[str, Any]:
    """Return a bundle of pillar `certificates`, of a key that is used nowhere else."""
    key = rsa.generate_private_key(65537, 2048)
    leaf = bundles.leaf(key=key, names=["voice.invalid"])
    return {
        "dns_names": ["voice.invalid"],
        "chain": bundles.pem(leaf, bundles.CA),
        "key": bundles.pem(key),
    }


@contextmanager
def running(
    root: Path, aws: Aws, level: str = "debug", roles: tuple[str, ...] = tuple(DAEMONS)
) -> Iterator[Region]:
    """A started region on a tmpfs of its own."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0700,size=1g", "canary", root], check=True)
    region = Region(root, aws, level, roles)
    try:
        region.prepare()
        region.start()
        yield region
    finally:
        region.stop()
        subprocess.run(["umount", "--lazy", root], check=True)
