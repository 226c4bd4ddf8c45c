"""A FreeSWITCH of our own on loopback, the twin or the real one, with the least configuration."""

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from fs_esl import Connection, EslRefusedError

from tests.support.phone import Phone
from tests.support.ports import free_ports

TWIN = Path(__file__).parents[3] / "lab" / "twins" / "freeswitch"
# What each twin has in its environment.
TWINS = {"twin": [], "twin-1.11": ["FREESWITCH_TWIN_VERSION=1.11.2"]}
PASSWORD = "contract-not-a-secret"
_DIRECTORIES = ("log", "db", "run", "storage", "cache", "temp", "certs", "scripts", "recordings",
                "sounds", "grammar", "htdocs")  # fmt: skip
MODULES = ("mod_logfile", "mod_event_socket", "mod_commands", "mod_dptools", "mod_dialplan_xml",
           "mod_sofia", "mod_loopback")  # fmt: skip


def until(condition, seconds=10.0, every=0.02):
    """Return the condition's first true value; AssertionError when the deadline passes."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{condition} was not true within {seconds} s"
        time.sleep(every)


class Tree:
    """The configuration on disk: plain files under `conf`, written anew by each setter."""

    def __init__(self, conf: Path) -> None:
        self.conf = conf
        self.esl_port = free_ports()
        self.sip_port = free_ports()
        for name in ("profiles", "gateways", "dialplan", "directory"):
            (conf / name).mkdir(parents=True)
        self.write("freeswitch.xml", _DOCUMENT)
        self.switch()
        self.event_socket()
        self.acl()
        self.modules()
        self.write("logfile.conf.xml", _LOGFILE)
        self.profile("internal", self.sip_port)
        self.dialplan()

    def write(self, name: str, text: str) -> None:
        (self.conf / name).write_text(text)

    def modules(self, *more: str) -> None:
        modules = "\n".join(f'<load module="{name}"/>' for name in (*MODULES, *more))
        self.write("modules.conf.xml", _configuration("modules.conf", "modules", modules))

    def switch(self, **settings: object) -> None:
        known = {"max-sessions": 500, "sessions-per-second": 500, "rtp-start-port": 20000,
                 "rtp-end-port": 20998, "loglevel": "debug"}  # fmt: skip
        known |= {key.replace("_", "-"): value for key, value in settings.items()}
        self.write("switch.conf.xml", _configuration("switch.conf", "settings", params(known)))

    def event_socket(self, **settings: object) -> None:
        known = {"listen-ip": "127.0.0.1", "listen-port": self.esl_port, "password": PASSWORD}
        known |= {key.replace("_", "-"): value for key, value in settings.items()}
        text = _configuration("event_socket.conf", "settings", params(known))
        self.write("event_socket.conf.xml", text)

    def acl(self, **lists: tuple[str, ...]) -> None:
        inner = "".join(
            f'<list name="{name}" default="deny">\n'
            + "".join(f'<node type="allow" cidr="{cidr}"/>\n' for cidr in cidrs)
            + "</list>\n"
            for name, cidrs in {"proxies": ("127.0.0.1/32",), **lists}.items()
        )
        self.write("acl.conf.xml", _configuration("acl.conf", "network-lists", inner))

    def profile(self, name: str, port: int, **settings: object) -> None:
        known = {
            "sip-ip": "127.0.0.1", "rtp-ip": "127.0.0.1", "sip-port": port, "context": "public",
            "dialplan": "XML", "auth-calls": "false", "inbound-codec-prefs": "PCMA",
            "outbound-codec-prefs": "PCMA", "apply-inbound-acl": "proxies", "manage-presence":
            "false", "rtp-timer-name": "soft",
            "user-agent-string": "contract", "sip-options-respond-503-on-busy": "true",
        }  # fmt: skip
        known |= {key.replace("_", "-"): value for key, value in settings.items()}
        self.write(f"profiles/{name}.xml", (
            f'<include>\n<profile name="{name}">\n<gateways>\n'
            f'<X-PRE-PROCESS cmd="include" data="$${{conf_dir}}/gateways/{name}-*.xml"/>\n'
            "</gateways>\n"
            f"<settings>\n{params(known)}</settings>\n</profile>\n</include>\n"
        ))  # fmt: skip

    def gateway(self, name: str, profile: str = "internal", **settings: object) -> Path:
        known = {"proxy": "127.0.0.1:9", "register": "false"}
        known |= {key.replace("_", "-"): value for key, value in settings.items()}
        text = f'<include>\n<gateway name="{name}">\n{params(known)}</gateway>\n</include>\n'
        self.write(f"gateways/{profile}-{name}.xml", text)
        return self.conf / f"gateways/{profile}-{name}.xml"

    def dialplan(self, extra: str = "") -> None:
        self.write(
            "dialplan/public.xml",
            f"""<include>
<context name="public">
{extra}
<extension name="busy">
<condition field="destination_number" expression="^busy$">
<action application="respond" data="486 Busy Here"/>
</condition>
</extension>
<extension name="ring">
<condition field="destination_number" expression="^ring$">
<action application="ring_ready"/>
<action application="sleep" data="20000"/>
</condition>
</extension>
<extension name="brief">
<condition field="destination_number" expression="^brief$">
<action application="answer"/>
<action application="sleep" data="200"/>
<action application="hangup"/>
</condition>
</extension>
<extension name="echo">
<condition field="destination_number" expression="^[0-9]+$">
<action application="answer"/>
<action application="echo"/>
</condition>
</extension>
</context>
</include>
""",
        )

    def user(self, name: str, *, cacheable: bool = False, **settings: object) -> None:
        kept = ' cacheable="true"' if cacheable else ""
        known = {key.replace("_", "-"): value for key, value in settings.items()}
        self.write(f"directory/{name}.xml", (
            f'<include>\n<user id="{name}"{kept}>\n<params>\n{params(known)}</params>\n'
            "</user>\n</include>\n"
        ))  # fmt: skip


def params(settings: dict[str, object]) -> str:
    return "".join(f'<param name="{name}" value="{value}"/>\n' for name, value in settings.items())


def configuration(name: str, inner: str) -> str:
    return f'<configuration name="{name}">\n{inner}</configuration>\n'


def _configuration(name: str, child: str, inner: str) -> str:
    return f'<configuration name="{name}">\n<{child}>\n{inner}\n</{child}>\n</configuration>\n'


_LOGFILE = """<configuration name="logfile.conf">
<settings>
<param name="rotate-on-hup" value="true"/>
</settings>
<profiles>
<profile name="default">
<mappings>
<map name="all" value="debug,info,notice,warning,err,crit,alert"/>
</mappings>
</profile>
</profiles>
</configuration>
"""

_DOCUMENT = """<?xml version="1.0"?>
<document type="freeswitch/xml">
<section name="configuration">
<X-PRE-PROCESS cmd="include" data="*.conf.xml"/>
<configuration name="sofia.conf">
<profiles>
<X-PRE-PROCESS cmd="include" data="profiles/*.xml"/>
</profiles>
</configuration>
</section>
<section name="dialplan">
<X-PRE-PROCESS cmd="include" data="dialplan/*.xml"/>
</section>
<section name="directory">
<domain name="127.0.0.1">
<groups>
<group name="all">
<users>
<X-PRE-PROCESS cmd="include" data="directory/*.xml"/>
</users>
</group>
</groups>
</domain>
</section>
</document>
"""


def binary(flavour: str) -> list[str]:
    if flavour in TWINS:
        told = [f"PYTHONPATH={TWIN.parent / 'common'}", *TWINS[flavour]]
        return ["env", *told, sys.executable, str(TWIN / "daemon.py")]
    return [shutil.which("freeswitch") or "freeswitch"]


@functools.cache
def premade_certificate() -> str:
    """One for all daemons: the real one needs seconds to make those it does not find."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
               "-nodes", "-days", "2", "-subj", "/CN=premade", "-keyout", "-"]  # fmt: skip
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class Daemon:
    """A running daemon; `api` asks it over the event socket. Close it to leave nothing behind."""

    def __init__(self, flavour: str, root: Path) -> None:
        self.flavour, self.root, self.password = flavour, root, PASSWORD
        self.tree = Tree(root / "conf")
        self.process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._running = "RUNNING"
        self.premade = True  # whether it finds the certificates that it would make

    @property
    def sip(self) -> tuple[str, int]:
        return "127.0.0.1", self.tree.sip_port

    def start(self, *flags: str) -> "Daemon":
        where = ["-conf", str(self.tree.conf)]
        for name in _DIRECTORIES:
            (self.root / name).mkdir(exist_ok=True)
            where += [f"-{name}", str(self.root / name)]
        for name in ("dtls-srtp.pem", "wss.pem") if self.premade else ():
            (self.root / "certs" / name).write_text(premade_certificate())
        with (self.root / "console").open("ab") as console:
            self.process = subprocess.Popen(
                [*binary(self.flavour), "-nonat", "-nc", "-nf", *where, *flags],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True,
            )  # fmt: skip
        until(self._ready, 20)
        return self

    def start_without_profile(self) -> "Daemon":
        """Start where the profile is not expected to run."""
        self._running = ""
        return self.start()

    def _ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.root / "console").read_text()[-2000:]
        with contextlib.suppress(OSError):
            return self._running in self.api("sofia status")
        return False

    @property
    def version(self) -> tuple[int, ...]:
        release = self.api("version short").partition("-")[0]
        return tuple(int(part) for part in release.split("."))

    def phone(self) -> Phone:
        return Phone(self.sip)

    def connect(self, password: str | None = None) -> Connection:
        return Connection("127.0.0.1", self.tree.esl_port, password or self.password)

    def api(self, command: str, seconds: float = 10.0) -> str:
        for attempt in (1, 2):
            try:
                if self._connection is None:
                    self._connection = self.connect()
                return self._connection.api(command, seconds)
            except (OSError, EslRefusedError):
                self._connection = None
                if attempt == 2:
                    raise
        raise AssertionError

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def terminate(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    def log(self) -> str:
        return (self.root / "log" / "freeswitch.log").read_text(errors="replace")

    def close(self) -> None:
        """SIGKILL: nothing of it is needed any more, and the real one takes seconds to end."""
        if self._connection:
            self._connection.close()
        if self.process and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)
