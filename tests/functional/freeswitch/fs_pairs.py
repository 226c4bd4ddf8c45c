"""Random changes of a PBX's pillar, and what can be told of a daemon from outside.

Two daemons that cannot be told apart by `fingerprint` run the same configuration: the one that
was changed while calls were up must be like the one that was started with the change.
"""

import copy
import json
import random
import re
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.support.loading import load
from tests.support.phone import Phone, sip
from tests.support.ports import free_ports

EVENT_SOCKET = "autoload_configs/event_socket.conf.xml"

BOOL = ("true", "false")
# Values for parameters of a profile; those that are missing here take a plain word.
VALUES: dict[str, tuple[str, ...]] = {
    "apply-inbound-acl": ("proxies", "carriers", "loopback.auto"),
    "apply-nat-acl": ("carriers", "rfc1918.auto"),
    "apply-proxy-acl": ("carriers",),
    "apply-register-acl": ("proxies", "carriers"),
    "caller-id-type": ("rpid", "pid", "none"),
    "challenge-realm": ("auto_from", "auto_to", "realm.invalid"),
    "codec-prefs": ("PCMU", "PCMA", "PCMA,PCMU"),
    "context": ("public", "default"),
    "debug": ("0",),
    "dialplan": ("XML",),
    "dtmf-duration": ("400", "800", "2000"),
    "dtmf-type": ("rfc2833", "info", "none"),
    "ext-rtp-ip": ("192.0.2.7", "192.0.2.8"),
    "hold-music": ("silence", "tone_stream://%(200,0,500)"),
    "inbound-codec-negotiation": ("generous", "greedy", "scrooge"),
    "inbound-codec-prefs": ("PCMU", "PCMA", "PCMA,PCMU"),
    "max-auth-validity": ("0", "5"),
    "max-registrations-per-extension": ("1", "2"),
    "multiple-registrations": ("call-id", "contact", "false"),
    "nat-options-ping": ("true", "udp-only", "false"),
    "nonce-ttl": ("60", "90"),
    "outbound-codec-prefs": ("PCMU", "PCMA"),
    "p-asserted-id-parse": ("default", "user-only", "verbatim"),
    "ping-mean-interval": ("30", "60"),
    "record-path": ("records",),
    "record-template": ("${uuid}.wav",),
    "require-secure-rtp": ("false",),
    "rfc2833-pt": ("101", "96"),
    "rtp-hold-timeout-sec": ("600", "1200"),
    "rtp-ip": ("127.0.0.1", "127.0.0.2"),
    "rtp-timeout-sec": ("600", "1200"),
    "rtp-timer-name": ("soft", "none"),
    "send-message-query-on-register": ("true", "first-only", "false"),
    "sip-expires-late-margin": ("60", "90"),
    "sip-expires-max-deviation": ("0", "30"),
    "sip-force-expires": ("120", "300"),
    "sip-force-expires-max": ("600", "900"),
    "sip-force-expires-min": ("60", "90"),
    "sip-user-ping-max": ("3", "5"),
    "sip-user-ping-min": ("1", "2"),
    "username": ("voice", "media"),
}
WORDS = ("force-register-db-domain", "force-register-domain", "force-subscription-domain")
RESTARTS = {
    "user-agent-string": ("voice", "other"),
    "max-recv-requests-per-second": ("1000", "900"),
    "manage-presence": ("true", "false"),
    "disable-register": ("true", "false"),
    "auth-all-packets": ("true", "false"),
    "enable-timer": ("true", "false"),
}
GATEWAYS = ("carrier-a", "carrier-b", "carrier-c")
NUMBERS = ("1000", "2000", "3000")


def mutate(dice: random.Random, before: dict[str, Any], rows: list[str]) -> dict[str, Any]:
    """Return a context that differs from ``before`` in one to three random ways."""
    context = copy.deepcopy(before)
    while context == before:
        for _ in range(dice.choice((1, 1, 1, 2, 3))):
            dice.choice(_WAYS)(dice, context, rows)
    return context


def _parameter(dice: random.Random, context: dict[str, Any], rows: list[str]) -> None:
    params = context["profiles"][dice.choice(list(context["profiles"]))]["params"]
    name = dice.choice(rows)
    if name in params and dice.random() < 0.25:
        del params[name]
        return
    words = ("one.invalid", "two.invalid") if name in WORDS else BOOL
    params[name] = dice.choice(VALUES.get(name, words))


def _restart_parameter(dice: random.Random, context: dict[str, Any], _: list[str]) -> None:
    name = dice.choice(list(RESTARTS))
    params = context["profiles"][dice.choice(list(context["profiles"]))]["params"]
    params[name] = dice.choice(RESTARTS[name])


def _order(dice: random.Random, context: dict[str, Any], _: list[str]) -> None:
    profile = context["profiles"][dice.choice(list(context["profiles"]))]
    names = list(profile["params"])
    at = dice.randrange(len(names) - 1)
    names[at], names[at + 1] = names[at + 1], names[at]
    profile["params"] = {name: profile["params"][name] for name in names}


def _gateway(dice: random.Random, context: dict[str, Any], _: list[str]) -> None:
    name = dice.choice(GATEWAYS)
    if name in context["gateways"] and dice.random() < 0.4:
        del context["gateways"][name]
        return
    context["gateways"][name] = {
        "profile": dice.choice(list(context["profiles"])),
        "params": {
            "proxy": f"127.0.0.1:{dice.choice((5998, 5999))}",
            "username": dice.choice(("us", "them")),
            "register": False,
            "context": dice.choice(("public", "default")),
        },
    }


def _dialplan(dice: random.Random, context: dict[str, Any], _: list[str]) -> None:
    number = dice.choice(NUMBERS)
    action = dice.choice(
        (
            {"application": "respond", "data": dice.choice(("486 Busy Here", "404 Not Found"))},
            {"application": "answer"},
        )
    )
    extensions = context["dialplan"][dice.choice(("public", "default"))]
    extensions[:] = [one for one in extensions if one["name"] != f"n{number}"]
    if dice.random() < 0.7:
        actions = (
            [action, {"application": "echo"}] if action["application"] == "answer" else [action]
        )
        extension = {"name": f"n{number}", "expression": f"^{number}$", "actions": actions}
        extensions.insert(0, extension)


def _user(dice: random.Random, context: dict[str, Any], _: list[str]) -> None:
    name = dice.choice(("100", "101"))
    if name in context["users"] and dice.random() < 0.4:
        del context["users"][name]
    else:
        context["users"][name] = {
            "a1_hash": f"{dice.randrange(16):032x}",
            "context": dice.choice(("public", "default")),
        }


def _acl(dice: random.Random, context: dict[str, Any], _: list[str]) -> None:
    networks = dice.choice(([], ["127.0.0.0/8"], ["192.0.2.0/24"]))
    context["acl"][dice.choice(list(context["acl"]))][dice.choice(("allow", "deny"))] = networks


def _limits(dice: random.Random, context: dict[str, Any], _: list[str]) -> None:
    key = dice.choice(("max_sessions", "sessions_per_second"))
    context[key] = dice.choice((500, 700, 900))


def _codecs(dice: random.Random, context: dict[str, Any], _: list[str]) -> None:
    context["codecs"] = dice.choice((["PCMU"], ["PCMA"], ["PCMA", "PCMU"]))


def _domain(dice: random.Random, context: dict[str, Any], _: list[str]) -> None:
    context["domain"] = dice.choice(("one.invalid", "two.invalid"))


def _password(dice: random.Random, context: dict[str, Any], _: list[str]) -> None:
    context["esl_password"] = f"functional-not-a-secret-{dice.randrange(9)}"


def _rtp(dice: random.Random, context: dict[str, Any], _: list[str]) -> None:
    context["rtp"]["start_port"] = dice.choice((16384, 20000))


_WAYS = (
    *(_parameter,) * 12, _order, *(_gateway,) * 4, *(_dialplan,) * 2, *(_user,) * 2, *(_acl,) * 2,
    _limits, _codecs, _domain, _password, _rtp, *(_restart_parameter,) * 2,
)  # fmt: skip

# Counters, clocks, and what the daemon names after itself.
_PASSING = {"calls-in", "calls-out", "failed-calls-in", "failed-calls-out", "registrations",
            "uptime-usec", "ping", "pingtime", "pingfreq", "pingcount", "pingmin", "pingmax",
            "pinging", "state", "status", "retry", "db-name", "dbname", "expires",
            "freq"}  # fmt: skip


def fingerprint(conf: Path, lists: Iterable[str]) -> dict[str, Any]:
    """Ask the daemon of a configuration all that shows it; ports and times are left out.

    ``lists`` names its access lists.
    """
    ports = sip_ports(conf)
    with connect(conf) as link:

        def ask(command: str) -> str:
            return str(link.api(command)).strip()

        found: dict[str, Any] = {
            "limits": _limits_of(json.loads(ask('json {"command":"status","data":""}'))),
            "variables": {
                name: ask(f"global_getvar {name}") for name in ("address", "domain", "codecs")
            },
            "acl": {
                f"{name} {address}": ask(f"acl {address} {name}")
                for name in lists
                for address in ("127.0.0.1", "192.0.2.9")
            },
            # One by one: a list still shows for a while what was killed.
            "gateways": {
                name: _gateway_facts(ask(f"sofia xmlstatus gateway {name}")) for name in GATEWAYS
            },
        }
        for name in ports:
            text = ask(f"sofia xmlstatus profile {name}")
            found[f"profile {name}"] = _facts(text, "profile-info")
    for name, port in ports.items():
        with Phone(("127.0.0.1", port)) as phone:
            found[f"sip {name}"] = _sip(phone)
    return _without_ports(found, {str(port): name for name, port in ports.items()})


def connect(conf: Path) -> Any:
    """Return a connection to the event socket of a configuration, with every command allowed."""
    tree = {EVENT_SOCKET: (conf / EVENT_SOCKET).read_bytes()}
    return load("_utils/esl.py").connect(**load("_utils/fsxml.py").event_socket(tree))


def sip_ports(conf: Path) -> dict[str, int]:
    """Return {profile: its SIP port}."""
    return {
        file.stem: int(re.findall(r'"sip-port" value="(\d+)"', file.read_text())[-1])
        for file in sorted((conf / "sip_profiles").glob("*.xml"))
    }


def copy_elsewhere(conf: Path, target: Path) -> None:
    """Copy a configuration and give its sockets other ports, those for media included."""
    shutil.copytree(conf, target)
    switch = target / "autoload_configs/switch.conf.xml"
    for end, port in (("start", 45000), ("end", 46000)):
        pattern = rf'("rtp-{end}-port" value=)"\d+"'
        switch.write_text(re.sub(pattern, rf'\1"{port}"', switch.read_text()))
    for file in (target / EVENT_SOCKET, *(target / "sip_profiles").glob("*.xml")):
        pattern = r'("(?:listen|sip)-port" value=)"\d+"'
        file.write_text(re.sub(pattern, rf'\1"{free_ports()}"', file.read_text()))


def _limits_of(status: dict[str, Any]) -> tuple[int, int]:
    sessions = status["response"]["sessions"]
    return sessions["count"]["limit"], sessions["rate"]["max"]


def _gateway_facts(text: str) -> Any:
    return text if text.startswith("Invalid") else _facts(text, "gateway")


def _facts(text: str, element: str) -> list[dict[str, str]]:
    text = re.sub(r"&(?!\w+;)", "&amp;", text)
    found = ET.fromstring(text)
    rows = [
        {child.tag: child.text or "" for child in row if child.tag not in _PASSING}
        for row in found.iter(element)
    ]
    return sorted(rows, key=lambda row: row.get("name", ""))


def _sip(phone: Phone) -> dict[str, Any]:
    """What a stranger is answered: OPTIONS, REGISTER, MESSAGE, SUBSCRIBE and calls."""
    said: dict[str, Any] = {}
    for method in ("OPTIONS", "REGISTER", "MESSAGE", "SUBSCRIBE"):
        request = phone.request(method, "100")
        if method == "REGISTER":
            request.uri = f"sip:{phone.server[0]}:{phone.server[1]}"
        said[method] = _answer(phone.transact(request, 3.0))
    for number in NUMBERS:
        request = phone.request("INVITE", number)
        request.body = _OFFER
        final = phone.transact(request)
        if final is not None and final.status == 200:
            phone.hang_up(phone.dialog(request, final))
        said[f"INVITE {number}"] = _answer(final)
    return said


_OFFER = (
    b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    b"m=audio 49170 RTP/AVP 0 8 101\r\na=rtpmap:101 telephone-event/8000\r\n"
)
_HEADERS = ("User-Agent", "Server", "Allow", "Supported", "Accept", "Allow-Events", "Contact",
            "WWW-Authenticate", "Proxy-Authenticate", "Content-Type")  # fmt: skip


def _answer(message: sip.Message | None) -> Any:
    if message is None:
        return "silence"
    headers = {name: message.get(name) for name in _HEADERS if message.get(name)}
    body = re.sub(r"(?m)^o=(\S+) \d+ \d+", r"o=\1", message.body.decode(errors="replace"))
    body = re.sub(r"(?m)^m=audio \d+", "m=audio", body)
    body = re.sub(r"(?m)^a=ssrc:.*\n", "", body)
    text = re.sub(r'nonce="[^"]*"', "nonce", str(headers))
    return message.status, text, body.splitlines()


def _without_ports(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {_without_ports(k, names): _without_ports(v, names) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_ports(one, names) for one in value]
    if isinstance(value, str):
        for port, name in names.items():
            value = value.replace(f":{port}", f":<{name}>")
    return value


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Return where two fingerprints differ, a line each."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [
            line
            for key in sorted({*one, *other})
            for line in differences(one.get(key), other.get(key), f"{where}/{key}")
        ]
    return [] if one == other else [f"{where}: {one!r} != {other!r}"]
