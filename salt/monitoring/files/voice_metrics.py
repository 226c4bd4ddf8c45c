"""Write what this node's voice daemon carries as a node_exporter textfile, whole or not at all.

Usage: voice_metrics.py FILE. Runs on Debian's python3; esl.py, mi.py and sip.py beside it are
Guardian's own clients, so there is one client for one protocol.
"""

import configparser
import contextlib
import json
import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import esl
import mi
import sip

MARK = Path("/var/lib/voice/drained.json")
CERTIFICATES = Path("/etc/voice/tls")
FS_CLI = Path("/etc/fs_cli.conf")


class Metrics:
    """Collects samples and writes them in the exposition format."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._described: set[str] = set()

    def gauge(self, name: str, description: str, value: float, **labels: str) -> None:
        if name not in self._described:
            self._described.add(name)
            self._lines += [f"# HELP {name} {description}", f"# TYPE {name} gauge"]
        told = ",".join(f"{key}={json.dumps(text)}" for key, text in sorted(labels.items()))
        self._lines.append(
            f"{name}{{{told}}} {float(value)!r}" if told else f"{name} {float(value)!r}"
        )

    def write(self, path: Path) -> None:
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            temporary.write_text("\n".join(self._lines) + "\n")
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def freeswitch(metrics: Metrics) -> None:
    """Calls, limits, profiles and gateways over the event socket; what is refused, over SIP."""
    known = configparser.ConfigParser(delimiters=("=>",))
    known.read(FS_CLI)
    login = known["monitor" if "monitor" in known else "default"]
    with esl.connect(
        login.get("host", "127.0.0.1"),
        login.getint("port", 8021),
        password=login["password"],
        user=login.get("user", ""),
    ) as link:
        core = _core(link.api("status"))
        metrics.gauge("voice_calls", "Calls up.", int(link.api("show calls count").split()[0]))
        metrics.gauge("voice_sessions", "Sessions (call legs) up.", core["up"])
        metrics.gauge("voice_sessions_limit", "Most sessions at once.", core["limit"])
        metrics.gauge("voice_rate_limit", "Most new sessions a second.", core["rate"])
        answers = {}
        for node in ET.fromstring(link.api("sofia xmlstatus")):
            name, state = node.findtext("name", ""), node.findtext("state", "")
            if node.tag == "profile" and name not in answers:  # TLS has an entry of that name too
                up = state.startswith("RUNNING")
                metrics.gauge("voice_profile_up", "1 when the SIP profile runs.", up, profile=name)
                answers[name] = _answer(link.api(f"sofia xmlstatus profile {name}")) if up else 0
            elif node.tag == "gateway":
                up = state in ("NOREG", "REGED")
                metrics.gauge("voice_gateway_up", "1 when the gateway is usable.", up, gateway=name)
    for name, code in answers.items():
        metrics.gauge(
            "voice_profile_answer", "SIP status that OPTIONS gets, 0 for none.", code, profile=name
        )
    refusing = any(code == 503 for code in answers.values())
    metrics.gauge("voice_refusing_calls", "1 while new calls are refused.", refusing)


def _core(status: str) -> dict[str, int]:
    """Return the numbers of FreeSWITCH's `status`."""
    wanted = {
        "up": r"^(\d+) session\(s\) - peak",
        "rate": r"session\(s\) per Sec out of max (\d+)",
        "limit": r"^(\d+) session\(s\) max",
    }
    found = {name: re.search(pattern, status, re.MULTILINE) for name, pattern in wanted.items()}
    return {name: int(match[1]) for name, match in found.items() if match}


def _answer(profile: str) -> int:
    """Return what a profile's UDP socket answers to OPTIONS, 0 for none or without a socket."""
    root = ET.fromstring(profile)
    port = re.search(r":(\d+)", root.findtext("profile-info/bind-url", "").partition("@")[2])
    return sip.options(root.findtext("profile-info/sip-ip", ""), int(port[1])) if port else 0


def opensips(metrics: Metrics) -> None:
    """Dialogs, transactions, draining and dispatcher states over the management interface."""
    names = ["inuse_transactions", "active_dialogs"]
    counts = mi.call("get_statistics", {"statistics": names})
    metrics.gauge("voice_calls", "Calls up.", counts["dialog:active_dialogs"])
    metrics.gauge("voice_transactions", "Requests in hand.", counts["tm:inuse_transactions"])
    draining = mi.call("shv_get", {"name": "draining"})["VAR"]["value"]
    metrics.gauge("voice_refusing_calls", "1 while new calls are refused.", int(draining))
    for partition in mi.call("ds_list")["PARTITIONS"]:
        for one in partition["SETS"]:
            for row in one.get("Destinations", []):
                metrics.gauge(
                    "voice_destination_active",
                    "1 when the dispatcher sends calls there.",
                    row["state"] == "Active",
                    set=str(one["id"]),
                    node=row.get("attr", ""),
                )


def certificates(metrics: Metrics) -> None:
    """When the deployed certificates end."""
    for leaf in sorted(CERTIFICATES.glob("*/current/chain.pem")):
        told = subprocess.run(
            ["openssl", "x509", "-noout", "-enddate", "-in", str(leaf)],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        ).stdout
        end = time.mktime(time.strptime(told.strip(), "notAfter=%b %d %H:%M:%S %Y %Z"))
        metrics.gauge(
            "voice_certificate_not_after_seconds",
            "When the certificate on disk ends, seconds since the epoch.",
            end - time.timezone,
            certificate=leaf.parent.parent.name,
        )


def main(target: Path) -> int:
    """Write the file; a daemon that does not answer is a sample too."""
    metrics = Metrics()
    for daemon, collect, present in (
        ("freeswitch", freeswitch, FS_CLI),
        ("opensips", opensips, Path("/etc/opensips/conf.d")),
    ):
        if present.exists():
            up = False
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, ET.ParseError):
                collect(metrics)
                up = True
            metrics.gauge("voice_daemon_up", "1 when the daemon answers.", up, daemon=daemon)
    metrics.gauge("voice_drained", "1 while the node is marked as drained.", MARK.exists())
    with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
        certificates(metrics)
    metrics.gauge("voice_metrics_written_seconds", "When this file was written.", time.time())
    metrics.write(target)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
