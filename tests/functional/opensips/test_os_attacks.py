"""Debian's SIP attack tools against the proxy, while a carrier and a user go on calling."""

import json
import select
import shutil
import socket
import subprocess
import sys
import threading
import time

import pytest

from tests.functional.opensips.os_callers import (
    CARRIER,
    DOMAIN,
    OTHER_STRANGER,
    PBX,
    STRANGER,
    USER,
    Tier,
    ha1,
)

REGISTRAR = {
    "domains": [DOMAIN],
    "users": {DOMAIN: {n: {"ha1": ha1(n, "4711")} for n in ("100", "101", "110")}},
}
WIRE = "127.0.0.77"
# A scanner says who it is; one that does not must fare no better.
DISGUISED = {"scanners": []}
SECONDS = 3

pytestmark = pytest.mark.skipif(shutil.which("svwar") is None, reason="no sipvicious on PATH")


class Business:
    """A carrier and a user who call, one call after the other, until told to stop."""

    def __init__(self, tier: Tier) -> None:
        self.failed: list[str] = []
        self.done = 0
        self._stop = threading.Event()
        tier.answerer(PBX)
        user, carrier = tier.phone(USER), tier.phone(CARRIER)
        assert user.login("101", "4711") == 200
        self._threads = [
            threading.Thread(target=self._carrier, args=(carrier,), daemon=True),
            threading.Thread(target=self._user, args=(user,), daemon=True),
        ]

    def __enter__(self) -> "Business":
        for one in self._threads:
            one.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for one in self._threads:
            one.join(30)

    def succeeded(self) -> None:
        """AssertionError unless every call and registration went well."""
        print(json.dumps({"business": self.done, "failed": self.failed}))
        assert self.failed == []
        assert self.done > 10

    def _carrier(self, phone) -> None:
        while not self._stop.wait(0.05):
            final = phone.invite("1000")
            self._note("carrier", final.status if final else 0)

    def _user(self, phone) -> None:
        while not self._stop.wait(0.05):
            told = phone.call_as("101", "1000", "4711")
            self._note("user", told if isinstance(told, int) else phone.hang_up(told))
            self._note("registration", phone.login("101", "4711"))

    def _note(self, who: str, status: int) -> None:
        self.done += 1
        if status != 200:
            self.failed.append(f"{who} {status}")


class Attack:
    """What a tool said, and what went to the proxy and back over a wire that we hold."""

    def __init__(self, tier: Tier, tool: str, *words: str, source: str = STRANGER) -> None:
        self.received = self.answered = 0
        self.last_answer = 0.0
        self._near, self._far = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in "ab")
        self._near.bind((WIRE, tier.port))
        self._far.bind((source, 0))
        self._began, self._done = time.monotonic(), threading.Event()
        wire = threading.Thread(target=self._carry, args=(tier.sip,), daemon=True)
        wire.start()
        # A tool that hears nothing may wait for ever.
        command = ["timeout", "-s", "INT", "12", "nice", tool, "-b", WIRE, "-p", str(tier.port)]
        done = subprocess.run([*command, *words, WIRE], capture_output=True, text=True, check=False)
        self.seconds = time.monotonic() - self._began
        self._done.set()
        wire.join(5)
        self._near.close()
        self._far.close()
        self.said = done.stdout + done.stderr
        print(json.dumps({
            "tool": f"{tool} {' '.join(words)}", "seconds": round(self.seconds, 1),
            "requests": self.received, "answered": self.answered,
            "last_answer_second": round(self.last_answer, 1),
        }))  # fmt: skip

    def _carry(self, proxy: tuple[str, int]) -> None:
        tool = None
        while not self._done.is_set():
            ready, _, _ = select.select([self._near, self._far], [], [], 0.1)
            for one in ready:
                data, source = one.recvfrom(65_535)
                if one is self._near:
                    tool = source
                    self.received += 1
                    self._far.sendto(data, proxy)
                else:
                    self.answered += 1
                    self.last_answer = time.monotonic() - self._began
                    if tool:
                        self._near.sendto(data, tool)


@pytest.fixture
def proxy(flavour, tmp_path):
    """Make proxies that run."""
    made: list[Tier] = []

    def start(**pillar) -> Tier:
        tier = Tier(tmp_path / str(len(made)), flavour, {"registrar": REGISTRAR, **pillar})
        made.append(tier)
        return tier.start()

    yield start
    for tier in made:
        tier.close()


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        ("svmap", ()),
        ("svwar", ("-e", "100-199", "-m", "REGISTER", "--force", f"--maximumtime={SECONDS}")),
        ("svcrack", ("-u", "100", "-r", "4700-4799", f"--maximumtime={SECONDS}")),
    ],
)
def test_tool_that_says_its_name_finds_nothing(proxy, tool, words):
    tier = proxy()
    attack = Attack(tier, tool, *words)
    assert attack.answered == 0
    assert "100 " not in attack.said
    assert "4711" not in attack.said.replace("4700-4799", "")
    assert tier.said(f"refused scanner over udp from {STRANGER}")


@pytest.mark.parametrize("method", ["REGISTER", "INVITE", "OPTIONS"])
def test_enumeration_learns_nothing(proxy, method):
    """Users and extensions that nobody has are answered alike, as long as any are."""
    tier = proxy(defence=DISGUISED)
    with Business(tier) as business:
        attack = Attack(
            tier, "svwar", "-e", "100-999", "-m", method, "--force", f"--maximumtime={SECONDS}",
            f"--domain={DOMAIN}",
        )  # fmt: skip
    assert "found nothing" in attack.said
    assert attack.answered <= 100
    business.succeeded()


def test_who_asks_for_many_names_is_throttled(proxy):
    """Two hundred names a second, which no tool of the above kept up."""
    tier = proxy(defence=DISGUISED)
    stranger, asked = tier.phone(STRANGER), 0
    with Business(tier) as business:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            stranger.send(stranger.registration(str(100 + asked)))
            asked += 1
            time.sleep(0.005)
    answered = 0
    while stranger.receive(0.3) is not None:
        answered += 1
    print(json.dumps({"tool": "names", "requests": asked, "answered": answered}))
    assert 1 <= answered <= 5 * (SECONDS + 2)
    business.succeeded()


@pytest.mark.parametrize("defence", [{}, {"registers_per_second": 1000}], ids=["slow", "banned"])
def test_cracking_stops_within_a_few_passwords(proxy, defence):
    tier = proxy(defence={**DISGUISED, **defence})
    with Business(tier) as business:
        attack = Attack(
            tier, "svcrack", "-u", "100", "-r", "4700-4799", "-m", "REGISTER",
            f"--domain={DOMAIN}", f"--maximumtime={SECONDS}", source=OTHER_STRANGER,
        )  # fmt: skip
    assert "4711" not in attack.said
    assert tier.said(f"refused login over udp from {OTHER_STRANGER}") <= 10, "those on their way"
    if defence:
        assert tier.said(f"banned for 600 s: {OTHER_STRANGER}")
    assert attack.answered <= 30
    assert attack.last_answer < SECONDS
    business.succeeded()


# Sends one packet again and again, four thousand times a second as far as it can.
FLOOD = """
import socket, sys, time
link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
link.bind((sys.argv[1], 0))
link.setblocking(False)
packet, sent, heard, end = sys.stdin.buffer.read(), 0, 0, time.monotonic() + 3
while time.monotonic() < end:
    for _ in range(20):
        try:
            link.sendto(packet, (sys.argv[2], int(sys.argv[3])))
            sent += 1
        except BlockingIOError:
            break
    try:
        while link.recv(65535):
            heard += 1
    except BlockingIOError:
        time.sleep(0.005)
print(sent, heard)
"""


def test_flood_stops_nobody(proxy):
    tier = proxy()
    packet = tier.phone(STRANGER).request("OPTIONS").build()
    with Business(tier) as business:
        done = subprocess.run(
            ["nice", sys.executable, "-c", FLOOD, STRANGER, tier.sip[0], str(tier.port)],
            input=packet, capture_output=True, check=True, timeout=30,
        )  # fmt: skip
    sent, answered = map(int, done.stdout.split())
    print(json.dumps({"tool": "flood", "seconds": 3, "requests": sent, "answered": answered}))
    assert answered < sent / 4
    business.succeeded()
    assert tier.said(f"refused flood over udp from {STRANGER}")
