"""What was rotated is never served old again, whatever dies and however AWS throttles meanwhile.

SECRETS_SOAK_SECONDS has it go on for longer.
"""

import multiprocessing
import os
import random
import time

from guardian.secrets.broker import Broker
from guardian.secrets.declarations import Source
from guardian.secrets.failures import SecretError
from guardian.secrets.wants import Want
from tests.support.region import until

REGION = "eu-west-2"
SECONDS = float(os.environ.get("SECRETS_SOAK_SECONDS", "3"))
FORK = multiprocessing.get_context("fork")
WANTS = [Want(Source("parameter", f"rt.p{number}"), REGION) for number in range(30)]


class Readers:
    """Processes that compile as a master's workers do, and check what they are given."""

    def __init__(self, cache, count):
        # What must be seen at least, by number. No locks: who is killed would keep one.
        self.newest, self.rounds = FORK.RawArray("i", len(WANTS)), FORK.RawValue("i", 0)
        self.faults, self.stop = FORK.SimpleQueue(), FORK.RawValue("i", 0)
        self._cache = cache
        self._processes = [self._started() for _ in range(count)]

    def _started(self):
        process = FORK.Process(target=self._read)
        process.start()
        return process

    def _read(self):
        chance = random.Random(os.getpid())
        while not self.stop.value:
            numbers = chance.sample(range(len(WANTS)), 10)
            least = {WANTS[number]: self.newest[number] for number in numbers}
            answers = Broker(self._cache, REGION, ttl=1, rate=32).get(list(least))
            for want, answer in answers.items():
                if isinstance(answer, SecretError):
                    self.faults.put(f"{want.source}: {answer}")
                elif int(answer) < least[want]:
                    self.faults.put(f"{want.source}: {answer} after {least[want]}")
            self.rounds.value += 1

    def kill_one(self):
        victim = self._processes.pop(0)
        victim.kill()
        victim.join()
        self._processes.append(self._started())

    def end(self):
        self.stop.value = 1
        for process in self._processes:
            process.join(30)
        found = []
        while not self.faults.empty():
            found.append(self.faults.get())
        return found


def test_what_was_rotated_is_never_served_old(aws, memory):
    aws.parameters({want.source.name: "0" for want in WANTS})
    readers, broker = Readers(memory / "secrets", 4), Broker(memory / "secrets", REGION)
    until(lambda: readers.rounds.value > 5, "the readers to read")
    aws.fault("throttle", "ssm:GetParameters", share=0.2)
    end, version = time.monotonic() + SECONDS, 0
    while time.monotonic() < end:
        version += 1
        number = version % len(WANTS)
        aws.parameters({WANTS[number].source.name: str(version)})
        broker.forget([WANTS[number].source.key])
        readers.newest[number] = version
        if version % 10 == 0:
            readers.kill_one()
    assert readers.end() == []
    assert version > 10
