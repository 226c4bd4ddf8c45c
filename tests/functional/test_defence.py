"""The packet filter on a wire of our own, and the jail's filter on lines FreeSWITCH wrote."""

import configparser
import os
import re
import shutil
import subprocess
import sys
import textwrap

import jinja2
import pytest
import yaml

from tests.support.loading import REPOSITORY

SOURCE = REPOSITORY / "salt/defence"
needs_nft = pytest.mark.skipif(
    shutil.which("nft") is None or os.geteuid() != 0, reason="needs root and nft"
)
NODE, TRUSTED, STRANGER = "192.0.2.1", "192.0.2.10", "192.0.2.66"


@pytest.fixture
def rules(tmp_path):
    """The filter as a node gets it, in a file."""

    def render(**changes):
        defaults = yaml.safe_load((SOURCE / "defaults.yaml").read_text())
        template = jinja2.Template(
            (SOURCE / "files/defence.nft.jinja").read_text(), undefined=jinja2.StrictUndefined
        )
        file = tmp_path / "defence.nft"
        file.write_text(
            template.render(
                defence={**defaults, **changes},
                rtp={"start_port": 16384, "end_port": 32768},
                trusted=[TRUSTED, "198.51.100.0/24", "198.51.100.7"],
            )
        )
        return file

    return render


def run(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def wire():
    """Two network namespaces and a cable: a node and the world, which has two addresses."""
    names = [f"guardian-defence-{os.getpid()}-{side}" for side in ("node", "world")]
    for name in names:
        run("ip", "netns", "add", name)
    try:
        node, world = names
        run("ip", "link", "add", "eth0", "netns", node, "type", "veth", "peer", "eth0",
            "netns", world)  # fmt: skip
        for name, addresses in ((node, [NODE]), (world, [TRUSTED, STRANGER])):
            for address in addresses:
                run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            for link in ("lo", "eth0"):
                run("ip", "-n", name, "link", "set", link, "up")
        yield node, world
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False)


def inside(namespace, code, *arguments):
    """Run Python in a namespace; return the process."""
    return subprocess.Popen(
        ["ip", "netns", "exec", namespace, sys.executable, "-c", textwrap.dedent(code), *arguments],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
    )


# Counts datagrams until one that says "end", which comes from an address that is trusted.
COUNT = """
    import socket, sys
    found = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    found.bind((sys.argv[1], 5060))
    found.settimeout(20)
    print("bound", flush=True)
    seen = {}
    while True:
        data, (source, _) = found.recvfrom(100)
        if data == b"end":
            break
        seen[source] = seen.get(source, 0) + 1
    print(seen)
"""
SEND = """
    import socket, sys
    for source in sys.argv[2:]:
        link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        link.bind((source, 0))
        for _ in range(400):
            link.sendto(b"x", (sys.argv[1], 5060))
        if source == sys.argv[-1]:
            link.sendto(b"end", (sys.argv[1], 5060))
"""


# Prints the DSCP of the first datagram.
HEAR = """
    import socket, sys
    link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    link.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
    link.bind((sys.argv[1], 20000))
    link.settimeout(10)
    print("bound", flush=True)
    _, extra, _, _ = link.recvmsg(100, 100)
    print(extra[0][2][0] >> 2)
"""
SAY = """
    import socket, sys
    link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    link.bind((sys.argv[1], 20000))
    link.sendto(b"x", (sys.argv[2], 20000))
"""


def received(wire, *sources):
    """Send 400 datagrams from each source at once; return how many came through."""
    node, world = wire
    with inside(node, COUNT, NODE) as counter:
        assert counter.stdout.readline() == "bound\n"
        with inside(world, SEND, NODE, *sources):
            pass
        return yaml.safe_load(counter.stdout.readline().replace("'", '"'))


@needs_nft
def test_stranger_is_limited_and_the_fleet_is_not(wire, rules):
    run("ip", "netns", "exec", wire[0], "nft", "--file", rules(packets_per_second=50))
    found = received(wire, STRANGER, TRUSTED)
    assert found[TRUSTED] == 400
    assert 100 <= found[STRANGER] <= 200, "twice as many at once, then 50 a second"


@needs_nft
def test_banned_is_silent_and_stays_banned_when_rules_change(wire, rules):
    nft = ("ip", "netns", "exec", wire[0], "nft")
    run(*nft, "--file", rules())
    ban = ("add", "element", "inet", "guardian", "banned", f"{{ {STRANGER} timeout 300s }}")
    run(*nft, *ban)
    run(*nft, "--file", rules(packets_per_second=10_000))
    assert received(wire, STRANGER, TRUSTED) == {TRUSTED: 400}
    run(*nft, "delete", "element", "inet", "guardian", "banned", f"{{ {STRANGER} }}")
    assert received(wire, STRANGER, TRUSTED) == {STRANGER: 400, TRUSTED: 400}


@needs_nft
def test_who_is_trusted_cannot_be_banned(wire, rules):
    """An address in a log may be forged; the fleet and the carriers pass all the same."""
    nft = ("ip", "netns", "exec", wire[0], "nft")
    run(*nft, "--file", rules())
    run(*nft, "add", "element", "inet", "guardian", "banned", f"{{ {TRUSTED} timeout 300s }}")
    assert received(wire, TRUSTED) == {TRUSTED: 400}


@needs_nft
def test_media_is_marked_and_not_tracked(wire, rules):
    node, world = wire
    nft = ("ip", "netns", "exec", node, "nft")
    run(*nft, "--file", rules())
    # Tracking begins with a rule that asks for it, as any firewall has one.
    run(*nft, "add table inet probe")
    run(*nft, "add chain inet probe in { type filter hook input priority 0; }")
    run(*nft, "add rule inet probe in udp dport 20000 ct state untracked counter")
    with inside(world, HEAR, TRUSTED) as ear:
        assert ear.stdout.readline() == "bound\n"
        with inside(node, SAY, NODE, TRUSTED):
            pass
        assert ear.stdout.readline() == "46\n", "expedited forwarding"
    with inside(world, SEND.replace("5060", "20000"), NODE, TRUSTED):
        pass
    told = run(*nft, "list", "chain", "inet", "probe", "in")
    assert re.search(r"untracked counter packets [1-9]", told)


@needs_nft
@pytest.mark.parametrize("changes", [{}, {"untracked_media": False}, {"sip_ports": [5060]}])
def test_rules_load_as_one(rules, changes):
    subprocess.run(["unshare", "-n", "nft", "--check", "--file", rules(**changes)], check=True)


PREFIX = "2026-11-24 05:39:51.656555 0.00% [WARNING] sofia_reg.c"
UUID = "61cfa513-1c02-4048-a5fb-2029f246a782 "
FAILURE, CHALLENGE = f"{PREFIX}:1787 SIP auth failure", f"{PREFIX}:1842 SIP auth challenge"
UNKNOWN = f"{PREFIX}:3210 Can't find user"
ON = "on sofia profile 'internal' for"
FROM = "from ip 203.0.113.9"
FAILURES = (
    f"{FAILURE} (REGISTER) {ON} [100@x] {FROM}",
    f"{UUID}{FAILURE} (INVITE) {ON} [+44@x] {FROM}",
    f"{UNKNOWN} [admin@192.0.2.1] from 203.0.113.9",
    # A name that tries to get somebody else banned.
    f"{FAILURE} (REGISTER) {ON} [x] from ip 192.0.2.10@y] {FROM}",
    f"{UNKNOWN} [a] from 192.0.2.10@b] from 203.0.113.9",
)
HONEST = (
    f"{CHALLENGE} (REGISTER) {ON} [100@x] {FROM}",
    f"{CHALLENGE} (INVITE) {ON} [SIP auth failure (REGISTER) {ON} [y] {FROM}@x] {FROM}",
    f"{FAILURE} (REGISTER) due to reaching max allowed registrations.  Count: 3",
    "You must define a domain called 'x' in your directory and add a user with the id=\"admin\"",
    f"{FAILURE} (REGISTER) {ON} [100@x] {FROM}".replace("WARNING", "NOTICE"),
    f"{UNKNOWN} [admin@192.0.2.1] from 203.0.113.9 and more",
)


OPENSIPS = "Nov 24 05:39:51 sip-01 /usr/sbin/opensips[812]: "
REFUSALS = (
    f"{OPENSIPS}NOTICE:refused login over udp from 203.0.113.9",
    f"{OPENSIPS}refused login over tls from 203.0.113.9",
    f"{OPENSIPS}NOTICE:refused scanner over tcp from 203.0.113.9",
    f"{OPENSIPS}NOTICE:refused call over wss from 203.0.113.9",
)
TOLERATED = (
    f"{OPENSIPS}NOTICE:refused relay over tls from 203.0.113.9",
    f"{OPENSIPS}NOTICE:refused registrations over tls from 203.0.113.9",
    f"{OPENSIPS}NOTICE:refused scanner over udp from 203.0.113.9",
    f"{OPENSIPS}NOTICE:refused flood over udp from 203.0.113.9",
    f"{OPENSIPS}NOTICE:wrong login over udp from an address of users, 203.0.113.9",
    f"{OPENSIPS}NOTICE:banned for 600 s: 203.0.113.9",
    f"{OPENSIPS}WARNING:fraud suspected of refused login over udp from 203.0.113.9@x, call refused",
    f"{OPENSIPS}ERROR:core:parse_msg: refused login over udp from 203.0.113.9",
)


def test_jail_takes_failures_for_what_they_are():
    parsed = configparser.ConfigParser()
    parsed.read(SOURCE / "files/filter-freeswitch.conf")
    wanted = parsed["Definition"]["failregex"].replace("<ADDR>", r"(?P<ip>[\d.]+)").splitlines()
    # fail2ban takes the date away before it looks.
    date = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)? ")

    def found(line):
        return {m["ip"] for one in wanted if (m := re.search(one, date.sub("", line, count=1)))}

    for line in FAILURES:
        assert found(line) == {"203.0.113.9"}, line
    for line in HONEST:
        assert found(line) == set(), line


@pytest.mark.parametrize(
    ("jail", "failures", "honest"),
    [("freeswitch", FAILURES, HONEST), ("opensips", REFUSALS, TOLERATED)],
)
@pytest.mark.skipif(shutil.which("fail2ban-regex") is None, reason="fail2ban is not installed")
def test_fail2ban_agrees(tmp_path, jail, failures, honest):
    log = tmp_path / "daemon.log"
    # A filter stands beside those it includes.
    filters = shutil.copytree("/etc/fail2ban/filter.d", tmp_path / "filter.d")
    shutil.copy(SOURCE / f"files/filter-{jail}.conf", filters)
    for lines, count in ((failures, len(failures)), (honest, 0)):
        log.write_text("\n".join(lines) + "\n")
        said = run("fail2ban-regex", "--out=ip", log, filters / f"filter-{jail}.conf")
        assert said.split() == ["203.0.113.9"] * count


def test_every_refusal_of_the_routes_is_one_the_jail_knows():
    """A line that the routes write and the filter has never heard of would ban nobody, silently."""
    routes = (REPOSITORY / "salt/opensips/files/routes.d").glob("*.jinja")
    told = {m for one in routes for m in re.findall(r'"refused (\w+) over', one.read_text())}
    known = (SOURCE / "files/filter-opensips.conf").read_text()
    assert told
    assert {one for one in told if one not in known} == set()


def test_jails_read_what_their_daemons_write():
    template = jinja2.Template((SOURCE / "files/jails.conf.jinja").read_text())
    defence = yaml.safe_load((SOURCE / "defaults.yaml").read_text())
    defence["jails"] = ["freeswitch", "opensips"]
    parsed = configparser.ConfigParser()
    parsed.read_string(template.render(defence=defence, trusted=[TRUSTED]))
    assert parsed["guardian-freeswitch"]["logpath"].endswith("freeswitch.log")
    assert parsed["guardian-opensips"]["backend"] == "systemd"
    assert "logpath" not in parsed["guardian-opensips"]
    assert TRUSTED in parsed["DEFAULT"]["ignoreip"]
