"""Nodes whose certificate comes from secrets of their pillar, applied by the SLS of their roles."""

import contextlib
import json
import os
import pwd
import re
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from salt.exceptions import CommandExecutionError

from tests.functional.certificates.authority import NAME, Authority, Bundle
from tests.functional.certificates.held_calls import CALLER, Kind
from tests.functional.certificates.held_calls import Phone as HeldPhone
from tests.functional.freeswitch.conftest import Node as FreeswitchNode
from tests.functional.freeswitch.test_fs_faults import connection, globals_of
from tests.functional.minion import Minion
from tests.functional.opensips.conftest import Node as OpensipsNode
from tests.functional.opensips.os_callers import ha1, until
from tests.support.answerer import Answerer
from tests.support.phone import Phone
from tests.support.ports import free_ports
from tests.support.secure_answerer import SecureAnswerer

PROXY, PBX, SECURE_PBX, SHY_PBX = "127.0.0.10", "127.0.0.31", "127.0.0.32", "127.0.0.33"
CHAIN, KEY = "certificate-default-chain", "certificate-default-key"  # secrets
CARRIER = "127.0.0.21"
USER, *_ = USERS = ("100", "tls-user", "wss-user")  # the first calls, the others are called
SECURE_NUMBER, SHY_NUMBER = "2000", "3000"  # of the two that are called over TLS
ROTATED = {"pbx": "1.11.2", "proxy": "3.4.18"}  # twins that take a certificate up under calls
RESTARTED = {"pbx": "1.10.12", "proxy": "4.0.1"}  # and those that do not
_NOT_ARGUMENTS = re.compile(r"__.*__|state|fun|order|require|require_in|name")
_DIRECTORY = "/etc/voice/tls"  # where a state puts certificates unless it is told otherwise


class Rotating(Minion):
    """A node that is given one certificate after the other.

    ``tls`` are its sockets that serve it, by protocol.
    """

    tls: dict[str, tuple[str, int]]
    own_secrets: dict[str, str]

    def give(self, bundle: Bundle) -> None:
        """Have pillar hold another certificate, as its external pillars would."""
        self.give_pillar(**self.declared(), secret_values=self.secrets(bundle))

    def declared(self) -> dict[str, Any]:
        """Pillar with references to secrets, and without their values."""
        certificate = {
            "chain": {"secret": CHAIN}, "key": {"secret": KEY}, "dns_names": [NAME]
        }  # fmt: skip
        return {**self._rest(), "certificates": {"default": certificate}}

    def secrets(self, bundle: Bundle) -> dict[str, str]:
        """Every secret that pillar refers to, by name."""
        certificate = {CHAIN: bundle.chain, KEY: bundle.key}
        return {**certificate, **self.own_secrets}

    def _rest(self) -> dict[str, Any]:
        """Pillar without its certificate."""
        context = dict(self.context)
        above = {key: context.pop(key) for key in ("node", "fleet") if key in context}
        return {**above, self.component: context}

    def apply(self, *, test: bool = False, directly: bool = False) -> list[dict[str, Any]]:
        """Apply what the SLS says of certificates and configuration, in order; what each returned.

        It ends at the first that fails, as requisites have it. ``directly`` calls the function
        behind the configuration's state, by a loader whose modules stay the same.
        """
        low = self.caller.cmd("state.show_low_sls", self.component)
        assert all(isinstance(chunk, dict) for chunk in low), low
        done = []
        for chunk in low:
            wanted = (chunk["state"], chunk["fun"])
            if wanted not in (("certificate", "deployed"), (self.component, "configured")):
                continue
            arguments = self._arguments(chunk)
            if directly and chunk["state"] == self.component:
                returned = self._configure(**arguments)
            else:
                (returned,) = self.caller.cmd(
                    "state.single", ".".join(wanted), test=test, **arguments
                ).values()
            done.append(returned)
            if returned["result"] is False:
                break
        return done

    def _configure(self, source: str, context: Any, name: str) -> dict[str, Any]:
        given = json.loads(context) if isinstance(context, str) else context
        try:
            return self.call("configure", source, given, name=name)
        except CommandExecutionError as err:
            return {"result": False, "comment": str(err), "changes": {}}

    def _arguments(self, chunk: dict[str, Any]) -> dict[str, Any]:
        given = {key: chunk[key] for key in chunk if not _NOT_ARGUMENTS.fullmatch(key)}
        if chunk["state"] == "certificate":
            ours = {"name": chunk["name"], "owner": pwd.getpwuid(os.geteuid()).pw_name}
            return {**given, **ours, "directory": given.get("directory", str(self.root / "tls"))}
        text = json.dumps(given["context"]).replace(_DIRECTORY, str(self.root / "tls"))
        return {
            **given,
            "name": str(self.conf),
            "source": str(self.source),
            "context": json.loads(text),
        }

    def rotate(self, bundle: Bundle) -> list[dict[str, Any]]:
        """Give it another certificate and apply it."""
        self.give(bundle)
        return self.apply()

    def begin(self, bundle: Bundle) -> None:
        """Configure and start it with a certificate."""
        for returned in (*self.rotate(bundle), self.running()):
            assert returned["result"] is True, returned["comment"]

    def shown(self) -> dict[str, str]:
        """{protocol: fingerprint that its socket shows to OpenSSL's own client}."""
        return {proto: _shown(server) for proto, server in self.tls.items()}

    def kinds(self) -> list[Kind]:
        """The ways to call it that its certificate is for."""
        raise NotImplementedError

    def outwards(self) -> list[str]:
        """Fingerprints that it shows on connections it opens now; none by default."""
        return []

    def inwards(self) -> list[str]:
        """What is wrong with calls to those registered with it; nobody is by default."""
        return []

    def deaf(self) -> AbstractContextManager[None]:
        """Have its reload of certificates answered as good, and not done."""
        raise NotImplementedError

    def drain(self) -> None:
        """Have it take no new calls, and wait until it has none."""
        assert self.caller.cmd("voice.drain", timeout=20)["drained"]

    def undrain(self) -> None:
        self.caller.cmd("voice.undrain")

    def memory(self) -> int:
        """Bytes that are resident in it and no file of its disk, all its processes together."""
        ours = f"{self.root}/"
        found = 0
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if any(word.startswith(ours) for word in words[1:]):
                    rollup = (process / "smaps_rollup").read_text()
                    found += sum(int(n) for n in re.findall(r"^Pss_Anon:\s+(\d+)", rollup, re.M))
            except OSError:
                continue
        return found * 1024


class Pbx(Rotating, FreeswitchNode):
    """A FreeSWITCH with TLS and WSS."""

    own_secrets: ClassVar = {"esl-password": "functional-not-a-secret"}

    def __init__(self, root: Path, flavour: str) -> None:
        super().__init__(root, flavour)
        tls, wss = free_ports(), free_ports()
        self.tls = {"tls": ("127.0.0.1", tls), "wss": ("127.0.0.1", wss)}
        self.context.update(
            tls_directory=str(root / "sofia"),
            tls_ciphers=None,  # reloadcert would forget them
            fleet={"sip-01": {"role": "sip", "address": CALLER}},
            esl_password={"secret": "esl-password"},
        )
        self.context["profiles"]["internal"].update(
            tls={"port": tls}, wss={"port": wss}, certificate="default"
        )

    @property
    def takes_it_up(self) -> bool:
        """Whether it serves a new certificate without a restart."""
        version = self.call("status")["version"].split("-")[0]
        return tuple(map(int, version.split("."))) >= (1, 11, 1)

    def kinds(self) -> list[Kind]:
        real = self.flavour == "real"
        found = [Kind("tls", self.tls["tls"], "TLS", echoes=real)]
        if real:  # the twin shakes hands there and says no more
            found.append(Kind("wss", self.tls["wss"], "WSS", echoes=real))
        return found

    @contextlib.contextmanager
    def deaf(self) -> Iterator[None]:
        self.caller.sminion.gen_modules(initial_load=True)  # it is to know its pillar
        self.call("status")
        scope = globals_of(self, "freeswitch.status")
        link = connection(self)
        honest = link.api

        def api(link: Any, command: str, timeout: float | None = None) -> str:
            return "+OK" if command == "reloadcert" else honest(link, command, timeout)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(link, "api", api)
            patch.setitem(scope, "CERTIFICATE_SECONDS", 0.3)
            yield


class Proxy(Rotating, OpensipsNode):
    """An OpenSIPS with TLS, where it can WSS, and three PBX behind it: one over UDP, two over TLS.

    The third ends its connections after each look, so that the proxy must open new ones.
    """

    own_secrets: ClassVar = {f"ha1-{user}": ha1(user) for user in USERS}

    def __init__(self, root: Path, flavour: str, authority: Authority) -> None:
        super().__init__(root, flavour)
        self.flavour, self.port = flavour, free_ports(3)
        (root / "root.pem").write_text(authority.root)
        sockets = {"udp": self.port, "tls": self.port + 1}
        if flavour == "real":  # the twin has no websockets
            sockets["wss"] = self.port + 2
        self.tls = {
            proto: (PROXY, port) for proto, port in sockets.items() if proto in ("tls", "wss")
        }
        secure = [
            [{"node": f"pbx-0{at}", "uri": f"sip:{address}:{self.port};transport=tls"}]
            for at, address in ((2, SECURE_PBX), (3, SHY_PBX))
        ]
        client = {"certificate": "default", "side": "client", "ca": str(root / "root.pem")}
        self.context.update(
            node={**self.context["node"], "address": PROXY},
            sockets=[
                {"proto": proto, "address": PROXY, "port": port} for proto, port in sockets.items()
            ],
            trusted=[CARRIER],
            registrar={
                **self.context["registrar"],
                "domains": [NAME],
                "users": {NAME: {user: {"ha1": {"secret": f"ha1-{user}"}} for user in USERS}},
            },
            defence={**self.context["defence"], "packets_per_second": 5000},  # all from one
            dispatcher={
                "1": [{"node": "pbx-01", "uri": f"sip:{PBX}:{self.port}"}],
                "2": secure[0],
                "3": secure[1],
            },
            numbers=[
                {"expression": f"^{number}$", "set": at}
                for number, at in ((SECURE_NUMBER, 2), (SHY_NUMBER, 3))
            ],
            tls={"inside": {"certificate": "default"}, "outside": client},
            ping={**self.context["ping"], "interval": 300},  # it would open connections unasked
        )
        self.context.pop("certificates", None)
        self._registered: dict[str, HeldPhone] = {}
        self.plain: Answerer
        self.secure: SecureAnswerer
        self.shy: SecureAnswerer

    @property
    def takes_it_up(self) -> bool:
        """Whether it serves a new certificate without a restart."""
        return self.call("status")["version"].startswith("OpenSIPS (3.")

    def kinds(self) -> list[Kind]:
        return [
            Kind(f"{proto} to {far}", server, proto.upper(), number, user=USER, behind=behind)
            for proto, server in self.tls.items()
            for far, number, behind in (
                ("udp", "1000", self.plain),
                ("tls", SECURE_NUMBER, self.secure),
            )
        ]

    def outwards(self) -> list[str]:
        """Call the third PBX, over a connection that is new."""
        self.shy.forget()
        with Phone((PROXY, self.port), through_proxy=True, address=CARRIER) as phone:
            # Whichever process sends may not know yet that another has seen the end.
            until(lambda: (final := phone.invite(SHY_NUMBER)) and final.status == 200)
        return self.shy.shown[-1:]

    def memory(self) -> int:
        """With what it has taken of the memory that its processes share."""
        if self.flavour != "real":
            return super().memory()
        asked = {"statistics": ["shmem:"]}
        return super().memory() + int(self.mi("get_statistics", asked)["shmem:real_used_size"])

    def inwards(self) -> list[str]:
        """Renew who is registered over the connections there are, and have the PBX call them."""
        if not self._registered:
            self._registered = {
                f"{proto}-user": HeldPhone(server, proto.upper())
                for proto, server in self.tls.items()
            }
        return [
            f"call to {user} answered {status}"
            for user, phone in self._registered.items()
            if (status := self._called(user, phone)) != 200
        ]

    def _called(self, user: str, phone: HeldPhone) -> int:
        status = phone.login(user)
        if status != 200:
            return status
        with Phone((PROXY, self.port), through_proxy=True, address=PBX) as caller:
            request = caller.request("INVITE", user)
            request.uri = f"sip:{user}@{NAME}"
            request.set("To", f"<sip:{user}@{NAME}>")
            caller.send(request)
            phone.wait(lambda m: m.method == "INVITE" and m.call_id == request.call_id)
            final = caller.wait(lambda m: m.status >= 200 and m.call_id == request.call_id)
            if final is None or final.status != 200:
                return final.status if final else 0
            bye = caller.within(caller.dialog(request, final), "BYE")
            caller.send(bye)
            phone.wait(lambda m: m.method == "BYE" and m.call_id == request.call_id)
            ended = caller.wait(lambda m: m.status >= 200 and m.cseq == bye.cseq)
            return ended.status if ended else 0

    @contextlib.contextmanager
    def deaf(self) -> Iterator[None]:
        self.caller.sminion.gen_modules(initial_load=True)
        self.call("status")
        scope = globals_of(self, "mi.call")
        honest = scope["_ask"]

        def ask(command: str, *arguments: Any) -> Any:
            return "OK" if command == "tls_reload" else honest(command, *arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(scope, "_ask", ask)
            yield

    def close(self) -> None:
        for phone in self._registered.values():
            phone.close()
        super().close()


def _shown(server: tuple[str, int]) -> str:
    met = subprocess.run(
        ["openssl", "s_client", "-connect", f"{server[0]}:{server[1]}", "-servername", NAME],
        input=b"", capture_output=True, timeout=10, check=False,
    )  # fmt: skip
    told = subprocess.run(
        ["openssl", "x509", "-noout", "-fingerprint", "-sha256"],
        input=met.stdout, capture_output=True, timeout=10, check=False,
    )  # fmt: skip
    return told.stdout.decode().partition("=")[2].strip().replace(":", "").lower()


@contextlib.contextmanager
def pbx(root: Path, flavour: str, authority: Authority, release: str) -> Iterator[Pbx]:
    """Have a PBX that serves a certificate; ``release`` is the twin's."""
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as around:
        _installed(root, "freeswitch")
        patch.setenv("PATH", f"{os.environ['PATH']}:{root / 'bin'}")
        patch.setenv("FREESWITCH_TWIN_VERSION", release)
        made = Pbx(root, flavour)
        around.callback(made.close)
        made.begin(authority.bundle())
        yield made


@contextlib.contextmanager
def proxy(root: Path, flavour: str, authority: Authority, release: str) -> Iterator[Proxy]:
    """Have a proxy that serves a certificate, and its PBX; ``release`` is the twin's."""
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as around:
        patch.setenv("OPENSIPS_TWIN_VERSION", release)
        made = Proxy(root, flavour, authority)
        patch.setenv("PATH", f"{root / 'bin'}:{os.environ['PATH']}")
        around.callback(made.close)
        own = authority.bundle()
        (root / "answerer.pem").write_text(own.chain + own.key)
        made.plain = Answerer(made.port, address=PBX)
        made.secure, made.shy = (
            SecureAnswerer(root / "answerer.pem", authority.root, made.port, address)
            for address in (SECURE_PBX, SHY_PBX)
        )
        for answerer in (made.plain, made.secure, made.shy):
            around.callback(answerer.close)
        made.begin(authority.bundle())
        yield made


def _installed(root: Path, daemon: str) -> None:
    """What tells `voice` which daemon is here."""
    program = root / "bin" / daemon
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
