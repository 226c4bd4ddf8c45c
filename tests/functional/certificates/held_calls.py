"""Calls over TLS and WSS that are up while certificates come and go, and the proof of it."""

import hashlib
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple

from tests.functional.opensips.os_callers import StreamCaller
from tests.support.answerer import Answerer
from tests.support.phone import Dialog

CALLER = "127.0.0.41"
GENERATIONS = 3  # how many rotations a call lasts that was made between them
_MEDIA_SECONDS = 3.0
_PACKET_SECONDS = 0.02
_PCMA = 8


class Phone(StreamCaller):
    """One connection, one call, and the media that the call was offered."""

    def __init__(self, server: tuple[str, int], transport: str, address: str = CALLER) -> None:
        self._media = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._media.bind((address, 0))
        self._sequence = 0
        super().__init__(server, address, transport)
        self.fingerprint = hashlib.sha256(self.peer or b"").hexdigest()
        self.held: Dialog

    def close(self) -> None:
        super().close()
        self._media.close()

    def _offer(self) -> bytes:
        port = self._media.getsockname()[1]
        return (
            f"v=0\r\no=- 1 1 IN IP4 {self.address}\r\ns=-\r\nc=IN IP4 {self.address}\r\nt=0 0\r\n"
            f"m=audio {port} RTP/AVP {_PCMA}\r\na=rtpmap:{_PCMA} PCMA/8000\r\n"
        ).encode()

    def hears_itself(self) -> bool:
        """Whether what is said into the call comes back from who echoes it."""
        answer = self.held.answer.body.decode()
        port = int(answer.partition("m=audio ")[2].split()[0])
        host = answer.partition("c=IN IP4 ")[2].split()[0]
        said = struct.pack(">I", self._sequence + 1) * 40
        deadline = time.monotonic() + _MEDIA_SECONDS
        self._media.settimeout(_PACKET_SECONDS)
        while time.monotonic() < deadline:
            self._sequence += 1
            head = struct.pack(
                ">BBHII", 0x80, _PCMA, self._sequence % 65536, self._sequence * 160, self.port
            )
            self._media.sendto(head + said, (host, port))
            try:
                if said in self._media.recv(2048):
                    return True
            except TimeoutError:
                continue
        return False


class Kind(NamedTuple):
    """A way to call: where to, over what, as whom; and whether what is said is echoed."""

    name: str
    server: tuple[str, int]
    transport: str
    number: str = "1000"
    user: str = ""  # who logs in
    echoes: bool = False
    behind: Answerer | None = None  # who answers, where there is a proxy between
    address: str = CALLER
    inside: Callable[[], AbstractContextManager[None]] = nullcontext  # the network to call from


class HeldCalls:
    """Some calls of each kind that last from the first to the last rotation, and some in between.

    ``lost`` holds a line for each call that did not stand a proof, ``wrong`` one for each handshake
    that brought another certificate than it had to.
    """

    def __init__(self, kinds: list[Kind], each: int) -> None:
        self._kinds = kinds
        self._between: list[list[tuple[Kind, Phone]]] = []
        self.made = 0
        self.lost: list[str] = []
        self.wrong: list[str] = []
        self._lasting = [(kind, self._call(kind)) for kind in kinds for _ in range(each)]

    def __len__(self) -> int:
        return len(self._up())

    def _up(self) -> list[tuple[Kind, Phone]]:
        return self._lasting + [held for made in self._between for held in made]

    def _call(self, kind: Kind) -> Phone:
        with kind.inside():
            phone = Phone(kind.server, kind.transport, kind.address)
        if kind.user:
            dialog = phone.call_as(kind.user, kind.number)
            assert isinstance(dialog, Dialog), f"{kind.name}: answered {dialog}"
            phone.held = dialog
        else:
            phone.held = phone.call(kind.number)
        self.made += 1
        return phone

    def prove(self, when: str) -> None:
        """Renew each call and ask within it, on the connection it was made over; hear its media."""
        for kind, phone in self._up():
            self._note(f"{kind.name}, {when}", lambda: _alive(kind, phone))  # noqa: B023

    def renew(self, fingerprint: str, when: str) -> None:
        """Make a call of each kind, which must be shown this certificate; end the oldest such."""
        made = []
        for kind in self._kinds:
            try:
                phone = self._call(kind)
            except (AssertionError, OSError) as err:
                self.lost.append(f"{kind.name}, {when}, new: {err}")
                continue
            made.append((kind, phone))
            if phone.fingerprint != fingerprint:
                self.wrong.append(f"{kind.name}, {when}: {phone.fingerprint[:16]}")
        self._between.append(made)
        if len(self._between) > GENERATIONS:
            self._end(self._between.pop(0), when)

    def hang_up(self) -> None:
        """End all that is left, each over its own connection."""
        ending, self._between = self._up(), []
        self._lasting = []
        self._end(ending, "at the end")

    def _end(self, calls: list[tuple[Kind, Phone]], when: str) -> None:
        for kind, phone in calls:
            self._note(f"{kind.name}, {when}", lambda: _ended(phone))  # noqa: B023
            phone.close()

    def _note(self, name: str, wrong: Callable[[], str]) -> None:
        try:
            told = wrong()
        except OSError as err:
            told = f"its connection: {err}"
        if told:
            self.lost.append(f"{name}: {told}")

    def close(self) -> None:
        for _, phone in self._up():
            phone.close()


def _alive(kind: Kind, phone: Phone) -> str:
    """What is wrong with a call, "" when nothing is."""
    status = phone.reinvite(phone.held)
    if status != 200:
        return f"re-INVITE answered {status}"
    options = phone.transact(phone.within(phone.held, "OPTIONS"))
    if options is None or options.status != 200:
        return f"OPTIONS answered {options.status if options else 0}"
    if kind.behind and (status := _asked(kind.behind, phone)) != 200:
        return f"OPTIONS of the other side answered {status}"
    if kind.echoes and not phone.hears_itself():
        return "no media"
    return _bye(phone)


def _asked(behind: Answerer, phone: Phone) -> int:
    """What the other side is answered that asks within the call."""
    request = behind.ask(phone.held.call_id, "OPTIONS")
    phone.wait(lambda m: m.method == "OPTIONS" and m.call_id == request.call_id)
    return behind.answered(request)


def _ended(phone: Phone) -> str:
    told = _bye(phone)
    status = phone.hang_up(phone.held)
    return told or ("" if status == 200 else f"BYE answered {status}")


def _bye(phone: Phone) -> str:
    return "the daemon ended it" if any(m.method == "BYE" for m in phone.inbox) else ""


@contextmanager
def holding(kinds: list[Kind], each: int = 2) -> Iterator[HeldCalls]:
    """Have calls up for the time of a block."""
    held = HeldCalls(kinds, each)
    try:
        yield held
    finally:
        held.close()
