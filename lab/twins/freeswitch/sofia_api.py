"""`sofia`: what profiles and gateways say of themselves, rescan, killgw, restart."""

import time
from collections.abc import Awaitable, Callable
from xml.sax.saxutils import escape

from gateways import Gateway
from sofia import MINIMUM_UP_SECONDS, RESTART_SECONDS, Profile
from switch import NORMAL_CLEARING, Switch

_LINE = "=" * 97
_XML = '<?xml version="1.0" encoding="ISO-8859-1"?>\n'
_USAGE = (
    "USAGE: sofia [status|xmlstatus] [profile <name>|gateway [<name>]]\n"
    "       sofia profile <name> [start|stop|restart|rescan|killgw <gateway>]\n"
)
# The profile's facts in the order of `xmlstatus`; `status` has other names for them.
_TEXT_NAMES = {
    "name": "Name", "domain-name": "Domain Name", "auto-nat": "Auto-NAT", "db-name": "DBName",
    "pres-hosts": "Pres Hosts", "dialplan": "Dialplan", "context": "Context",
    "challenge-realm": "Challenge Realm", "rtp-ip": "RTP-IP", "ext-rtp-ip": "Ext-RTP-IP",
    "sip-ip": "SIP-IP", "ext-sip-ip": "Ext-SIP-IP", "url": "URL", "bind-url": "BIND-URL",
    "tls-url": "TLS-URL", "tls-bind-url": "TLS-BIND-URL", "wss-bind-url": "WSS-BIND-URL",
    "hold-music": "HOLD-MUSIC", "outbound-proxy": "OUTBOUND-PROXY",
    "inbound-codecs": "CODECS IN", "outbound-codecs": "CODECS OUT", "tel-event": "TEL-EVENT",
    "dtmf-mode": "DTMF-MODE", "cng": "CNG", "session-to": "SESSION-TO",
    "max-dialog": "MAX-DIALOG", "max-recv-rps": "MAX-RECV-RPS", "nomedia": "NOMEDIA",
    "late-neg": "LATE-NEG", "proxy-media": "PROXY-MEDIA", "aggressive-nat": "AGGRESSIVENAT",
    "calls-in": "CALLS-IN", "failed-calls-in": "FAILED-CALLS-IN", "calls-out": "CALLS-OUT",
    "failed-calls-out": "FAILED-CALLS-OUT", "registrations": "REGISTRATIONS",
}  # fmt: skip
_GATEWAY_TEXT = {
    "name": "Name    ", "profile": "Profile ", "scheme": "Scheme  ", "realm": "Realm   ",
    "username": "Username", "password": "Password", "from": "From    ", "contact": "Contact ",
    "exten": "Exten   ", "to": "To      ", "proxy": "Proxy   ", "context": "Context ",
    "expires": "Expires ", "freq": "Freq    ", "ping": "Ping    ", "pingfreq": "PingFreq",
    "pingtime": "PingTime",
}  # fmt: skip


class SofiaCommands:
    """The commands of mod_sofia; `reparse` reloads the XML and says how that went."""

    def __init__(self, switch: Switch, reparse: Callable[[], str]) -> None:
        self.switch, self.core, self._reparse = switch, switch.core, reparse

    def run(self, text: str) -> str | Awaitable[str]:
        match text.split():
            case [] | ["help", *_]:
                return _USAGE
            case ["status" | "xmlstatus" as how, "profile", name, *_]:
                profile = self.switch.profiles.get(name)
                if profile is None:
                    return "Invalid Profile!\n"
                return self._profile_xml(profile) if how == "xmlstatus" else _text(
                    _TEXT_NAMES, self._facts(profile)
                )  # fmt: skip
            case ["status" | "xmlstatus" as how, "gateway"]:
                return self._gateways_xml() if how == "xmlstatus" else self._gateways_table()
            case ["status" | "xmlstatus" as how, "gateway", name, *_]:
                return self._gateway(name, how)
            case ["status"]:
                return self._table()
            case ["xmlstatus"]:
                return self._xml()
            case ["profile", name, "start", *_]:
                return self._start(name)
            case ["profile", name, action, *rest]:
                found = self.switch.profiles.get(name)
                if found is None:
                    return f"Invalid Profile [{name}]"
                return self._act(found, action, rest)
            case ["profile", *_]:
                return "Invalid Args!\n"
            case [unknown, *_]:
                return f"Unknown Command [{unknown}]\n"
        return _USAGE

    # actions

    def _act(self, profile: Profile, action: str, rest: list[str]) -> str:
        match action, rest:
            case "rescan", _:
                said = self._reparse()
                return f"Reload XML [{said}]\n{self._rescan(profile)}"
            case "killgw", []:
                return "-ERR missing gw name\n"
            case "killgw", ["_all_", *_]:
                for name in profile.gateways.by_name:
                    profile.gateways.kill(name)
                return "+OK every gateway marked for deletion.\n"
            case "killgw", [name, *_]:
                if profile.gateways.kill(name):
                    return "+OK gateway marked for deletion.\n"
                return "-ERR no such gateway.\n"
            case (("restart" | "stop"), _):
                return self._stop(profile, action)
        return "-ERR Unknown command!\n"

    def _rescan(self, profile: Profile) -> str:
        element = self.switch.profile_element(profile.name)
        if element is None:
            return f"-ERR cannot find config for profile {profile.name}\n"
        profile.rescan(element)
        return "+OK scan complete\n"

    def _stop(self, profile: Profile, how: str) -> str:
        left = MINIMUM_UP_SECONDS - profile.seconds_up
        if left > 0:
            return (
                f"Profile {profile.name} must be up for at least {MINIMUM_UP_SECONDS}"
                f" seconds to stop/restart.\nPlease wait {left} second{'s'[: left != 1]}\n"
            )
        said = self._reparse()
        # Over broken XML the profile stays down: measured, it needs a `start`.
        again = RESTART_SECONDS if how == "restart" and said == "Success" else None
        self.switch.spawn(self.switch.stop_profile(profile, NORMAL_CLEARING, again))
        doing = "restarting" if how == "restart" else "stopping"
        return f"Reload XML [{said}]\n{doing}: {profile.name}"

    async def _start(self, name: str) -> str:
        said = self._reparse()
        profile = self.switch.profiles.get(name)
        if profile is not None:  # for one that runs it is a rescan
            started = self._rescan(profile).startswith("+OK")
        else:
            # Whether its sockets open is another matter, which the answer does not wait for.
            started = self.switch.profile_element(name) is not None
            await self.switch.start_profile(name)
        outcome = f"{name} started successfully" if started else f"Failure starting {name}"
        return f"Reload XML [{said}]\n{outcome}\n"

    # profiles

    def _gateways(self) -> list[Gateway]:
        return [g for p in self.switch.profiles.values() for g in p.gateways.by_name.values()]

    def _table(self) -> str:
        lines = [f"{'Name':>25}\t   Type\t{'Data':>42}\tState", _LINE]
        for profile in self.switch.profiles.values():
            state = f"RUNNING ({len(profile.calls())})"
            lines.append(f"{profile.name:>25}\tprofile\t{profile.url:>42}\t{state}")
            if profile.tls_url:
                lines.append(f"{profile.name:>25}\tprofile\t{profile.tls_url:>42}\t{state} (TLS)")
            for gateway in profile.gateways.by_name.values():
                name = f"{profile.name}::{gateway.name}"
                state = gateway.state + _retry(gateway, " (retry: {})")
                lines.append(f"{name:>25}\tgateway\t{gateway.address:>42}\t{state}")
        count = len(self.switch.profiles)
        lines += [_LINE, f"{count} profile{'s'[: count != 1]} 0 aliases"]
        return "\n".join(lines) + "\n"

    def _xml(self) -> str:
        lines = ["<profiles>"]
        for profile in self.switch.profiles.values():
            sockets = ((profile.url, ""), (profile.tls_url, " (TLS)"), (profile.wss_url, " (WSS)"))
            for url, kind in sockets:  # one entry each, all with the profile's name
                if url:
                    lines += _tagged("profile", name=profile.name, type="profile", data=url,
                                     state=f"RUNNING ({len(profile.calls())}){kind}")  # fmt: skip
            for gateway in profile.gateways.by_name.values():
                lines += _tagged("gateway", name=gateway.name, type="gateway",
                                 data=gateway.address, state=gateway.state)  # fmt: skip
        return _XML + "\n".join([*lines, "", "</profiles>"]) + "\n"

    def _facts(self, profile: Profile) -> dict[str, object]:
        s = profile.settings
        outside = {f"ext-{kind}-ip": s.get(f"ext-{kind}-ip") for kind in ("rtp", "sip")}
        facts: dict[str, object] = {
            "name": profile.name,
            "domain-name": "N/A",
            "auto-nat": "false",
            "db-name": s.get("dbname") or f"sofia_reg_{profile.name}",
            "pres-hosts": s.get("presence-hosts", ""),
            "dialplan": s.get("dialplan", "XML"),
            "context": s.get("context", "default"),
            "challenge-realm": s.get("challenge-realm", "auto_to"),
            "rtp-ip": s.get("rtp-ip", "127.0.0.1"),
            "ext-rtp-ip": outside["ext-rtp-ip"],
            "sip-ip": s.get("sip-ip", "127.0.0.1"),
            "ext-sip-ip": outside["ext-sip-ip"],
            "url": profile.url,
            "bind-url": f"{profile.url};transport=udp,tcp",
            "tls-url": profile.tls_url or None,
            "tls-bind-url": _secure(profile.tls_url),
            "wss-bind-url": profile.wss_url or None,
            "hold-music": "N/A",
            "outbound-proxy": s.get("outbound-proxy", "N/A"),
            "inbound-codecs": s.get("inbound-codec-prefs", ""),
            "outbound-codecs": s.get("outbound-codec-prefs", ""),
            "tel-event": 101,
            "dtmf-mode": "rfc2833",
            "cng": 13,
            "session-to": 0,
            "max-dialog": 0,
            "max-recv-rps": s.get("max-recv-requests-per-second", "1000"),
            "nomedia": "false",
            "late-neg": "false",
            "proxy-media": "false",
            "aggressive-nat": "false",
            "calls-in": profile.calls_in,
            "calls-out": 0,
            "failed-calls-in": profile.failed_in,
            "failed-calls-out": 0,
            "registrations": self.core.registrations_now(),
        }
        return {key: value for key, value in facts.items() if value is not None}

    def _profile_xml(self, profile: Profile) -> str:
        facts = self._facts(profile).items()
        lines = [f"    <{key}>{escape(str(value))}</{key}>" for key, value in facts]
        return _XML + "\n".join(
            ["<profile>", "  <profile-info>", *lines, "  </profile-info>", "</profile>\n"]
        )

    # gateways

    def _gateway(self, name: str, how: str) -> str:
        for gateway in self._gateways():
            if gateway.name == name and not gateway.marked:
                if how == "xmlstatus":
                    return _XML + "\n".join(_gateway_xml(gateway)) + "\n"
                return _gateway_text(gateway)
        return "Invalid Gateway!\n"

    def _gateways_xml(self) -> str:
        lines = [line for gateway in self._gateways() for line in _gateway_xml(gateway)]
        return _XML + "\n".join(["<gateways>", *lines, "</gateways>"]) + "\n"

    def _gateways_table(self) -> str:
        lines = [
            f"{'Profile::Gateway-Name':>25}\t{'    Data    ':>32}\tState\tPing Time"
            "\tIB Calls(F/T)\tOB Calls(F/T)",
            _LINE,
        ]
        gateways = self._gateways()
        for gateway in gateways:
            name = f"{gateway.profile}::{gateway.name}"
            lines.append(f"{name:>25}\t{gateway.address:>32}\t{gateway.state}\t  0.00\t0/0\t0/0"
                         + _retry(gateway, " (retry: {})"))  # fmt: skip
        count = f"{len(gateways)} gateway{'s'[: len(gateways) != 1]}"
        lines += [_LINE, f"{count}: Inbound(Failed/Total): 0/0,Outbound(Failed/Total):0/0"]
        return "\n".join(lines) + "\n"


def _gateway_facts(gateway: Gateway) -> dict[str, object]:
    own, settings = gateway.contact, gateway.settings
    return {
        "name": gateway.name,
        "profile": gateway.profile,
        "scheme": "Digest",
        "realm": gateway.realm,
        "username": gateway.user,
        "password": "yes" if settings.get("password") else "no",
        "from": f"<{gateway.address}>",
        "contact": f"<sip:gw+{gateway.name}@{own.host}:{own.port};transport=udp;gw={gateway.name}>",
        "exten": settings.get("extension", gateway.user),
        "to": gateway.address,
        "proxy": f"sip:{gateway.proxy.removeprefix('sip:')}",
        "context": settings.get("context") or gateway.context,
        "expires": settings.get("expire-seconds", "3600"),
        "freq": settings.get("expire-seconds", "3600"),
        "ping": 0,
        "pingfreq": settings.get("ping", "0"),
        "pingmin": 0,
        "pingcount": 0,
        "pingmax": 0,
        "pingtime": "0.00",
        "pinging": 0,
    }


def _gateway_xml(gateway: Gateway) -> list[str]:
    up = gateway.status == "UP"
    facts = {
        **_gateway_facts(gateway),
        "state": gateway.state,
        "status": gateway.status,
        "uptime-usec": int((time.time() - gateway.created) * 1_000_000) if up else 0,
        **dict.fromkeys(("calls-in", "calls-out", "failed-calls-in", "failed-calls-out"), 0),
    }
    body = [f"    <{key}>{escape(str(value))}</{key}>" for key, value in facts.items()]
    retry = _retry(gateway, "    <retry>{}</retry>")
    return ["  <gateway>", *body, *([retry] if retry else []), "  </gateway>"]


def _gateway_text(gateway: Gateway) -> str:
    facts = _gateway_facts(gateway)
    up = int(time.time() - gateway.created) if gateway.status == "UP" else 0
    return "\n".join([
        _LINE, *(f"{name}\t{facts[key]}" for key, name in _GATEWAY_TEXT.items()),
        "PingState\t0/0/0", f"State   \t{gateway.state}", f"Status  \t{gateway.status}",
        f"Uptime  \t{up}s", "CallsIN \t0", "CallsOUT\t0", "FailedCallsIN\t0",
        "FailedCallsOUT\t0", _LINE,
    ]) + "\n"  # fmt: skip


def _retry(gateway: Gateway, form: str) -> str:
    """When a gateway that failed tries again, empty for one that did not."""
    if gateway.state not in ("FAILED", "FAIL_WAIT", "TRYING"):
        return ""
    left = int(gateway.retry_at - time.time())
    return form.format(f"{left}s" if left >= 0 else "NEVER")


def _secure(url: str) -> str | None:
    return f"sips:{url.removeprefix('sip:')};transport=tls" if url else None


def _text(names: dict[str, str], facts: dict[str, object]) -> str:
    rows = [f"{name:<17}\t{facts[key]}" for key, name in names.items() if key in facts]
    return "\n".join([_LINE, *rows]) + "\n"


def _tagged(tag: str, **values: str) -> list[str]:
    inner = [f"<{key}>{escape(value)}</{key}>" for key, value in values.items()]
    return [f"<{tag}>", *inner, f"</{tag}>"]
