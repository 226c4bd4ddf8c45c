"""One certificate after the other under held calls, and what became of both."""

import statistics
import time
from dataclasses import dataclass, field
from typing import Any

from tests.functional.certificates.authority import Authority
from tests.functional.certificates.held_calls import holding
from tests.functional.certificates.rotating import Rotating

HELD = 2  # calls of each kind from the first to the last rotation


@dataclass
class Figures:
    """What is left of a run: lists are of lines, one for each thing that went wrong."""

    rotations: int = 0
    calls: int = 0  # made, all in all
    held: int = 0  # up during a rotation, at most
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)  # fingerprints
    failed: list[str] = field(default_factory=list)  # states
    seconds: list[float] = field(default_factory=list)  # of each rotation
    memory: list[int] = field(default_factory=list)  # bytes of the daemon after each

    def summary(self) -> dict[str, Any]:
        """The figures as one flat object; growth is by rotation, from the first quarter's end."""
        quarter = self.memory[len(self.memory) // 4]
        later = len(self.memory) - 1 - len(self.memory) // 4
        return {
            "rotations": self.rotations,
            "calls": self.calls,
            "held": self.held,
            "lost": len(self.lost),
            "wrong_fingerprints": len(self.wrong),
            "failed_states": len(self.failed),
            "seconds": round(statistics.median(self.seconds), 2),
            "slowest": round(max(self.seconds), 2),
            "mib_first": round(self.memory[0] / 2**20, 1),
            "mib_last": round(self.memory[-1] / 2**20, 1),
            "kib_each": round((self.memory[-1] - quarter) / 2**10 / later, 1) if later else 0.0,
        }


def rotate(node: Rotating, authority: Authority, rotations: int) -> Figures:
    """Rotate the certificate of a node so many times under calls, and end them."""
    got = Figures()
    with holding(node.kinds(), HELD) as held:
        for number in range(1, rotations + 1):
            when, bundle = f"rotation {number}", authority.bundle()
            got.held = max(got.held, len(held))
            began = time.monotonic()
            returned = node.rotate(bundle)
            got.seconds.append(time.monotonic() - began)
            got.failed += [f"{when}: {one['comment']}" for one in returned if not one["result"]]
            seen = {**node.shown(), **dict(enumerate(node.outwards()))}
            got.wrong += [
                f"{name}, {when}: {found[:16]}"
                for name, found in seen.items()
                if found != bundle.fingerprint
            ]
            got.lost += [f"{when}: {line}" for line in node.inwards()]
            held.prove(when)
            held.renew(bundle.fingerprint, when)
            got.memory.append(node.memory())
            got.rotations = number
        held.hang_up()
    got.calls = held.made
    got.lost += held.lost
    got.wrong += held.wrong
    return got
