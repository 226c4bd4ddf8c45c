"""Session descriptions: which codec a call gets, and the answer that says so. No media flows."""

import re
from dataclasses import dataclass
from pathlib import Path

import certificates

_STATIC = {"0": "PCMU/8000", "3": "GSM/8000", "8": "PCMA/8000", "9": "G722/8000",
           "18": "G729/8000"}  # fmt: skip
_AUDIO = re.compile(r"^m=audio \d+ (\S+) ([\d ]+)", re.MULTILINE)
_CODEC = re.compile(r"^a=rtpmap:(\d+) (\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Stream:
    """The audio both sides agreed on; a call keeps it whatever its profile prefers later."""

    protocol: str = "RTP/AVP"
    payload: str = "8"
    codec: str = "PCMA/8000"
    events: str = ""  # the payload of telephone-event

    def described(self, address: str, port: int, stamp: int, certs: Path) -> bytes:
        """The answer; under DTLS with the fingerprint of the file as it is at this moment."""
        payloads = f"{self.payload} {self.events}".strip()
        lines = ["v=0", f"o=FreeSWITCH {stamp} {stamp + 1} IN IP4 {address}", "s=FreeSWITCH",
                 f"c=IN IP4 {address}", "t=0 0", f"m=audio {port} {self.protocol} {payloads}",
                 f"a=rtpmap:{self.payload} {self.codec}"]  # fmt: skip
        if self.events:
            lines.append(f"a=rtpmap:{self.events} telephone-event/8000")
        if "TLS" in self.protocol:
            fingerprint = certificates.fingerprint(certs / "dtls-srtp.pem")
            lines += [f"a=fingerprint:sha-256 {fingerprint}", "a=setup:active", "a=rtcp-mux"]
        return "\r\n".join([*lines, "a=sendrecv", ""]).encode()


def negotiated(offer: bytes, preferences: str) -> Stream | None:
    """The first codec of the offer that the profile has, too; None when they share none.

    An offer without audio is taken for one of PCMA.
    """
    text = offer.decode("utf-8", "replace").replace("\r\n", "\n")
    audio = _AUDIO.search(text)
    if audio is None:
        return Stream()
    names = _STATIC | dict(_CODEC.findall(text[audio.start() :]))
    own = {entry.split("@")[0].strip().upper() for entry in preferences.split(",")} - {""}
    offered = [(payload, names[payload]) for payload in audio[2].split() if payload in names]
    events = next((p for p, name in offered if name.startswith("telephone-event/")), "")
    for payload, name in offered:
        if payload != events and (not own or name.split("/")[0].upper() in own):
            return Stream(audio[1], payload, name, events)
    return None
