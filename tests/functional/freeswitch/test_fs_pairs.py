"""A change that is said to spare the calls spares them and leaves a restart nothing to do."""

import contextlib
import os
import random
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests.functional.freeswitch.conftest import daemon_command
from tests.functional.freeswitch.fs_pairs import (
    connect,
    copy_elsewhere,
    differences,
    fingerprint,
    mutate,
    sip_ports,
)
from tests.support.loading import load
from tests.support.phone import Phone

PAIRS = 25
ROWS = sorted(load("_utils/fs_table.py").rules()["profile"])


def start(node, context):
    assert node.configured(context)["result"] is True
    answer = node.running()
    assert answer["result"] is True, answer["comment"]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("walk", range(int(os.environ.get("GUARDIAN_WALKS", "8"))))
def test_held_call_survives_and_nothing_is_owed(node, walk):
    dice, context, told = random.Random(walk), node.context, []
    every_pair = node.flavour == "real"  # the twin proves itself once a walk
    phone = None
    for number in range(PAIRS):
        wanted = mutate(dice, context, ROWS)
        if phone is None:
            start(node, context)
            phone = Phone(("127.0.0.1", context["profiles"]["internal"]["port"]))
            dialog = phone.call("hold")
        answer = node.call("configure", node.source, wanted, name=str(node.conf))
        told.append(answer["result"])
        assert phone.reinvite(dialog) == 200, answer
        assert not [m for m in phone.inbox if m.method == "BYE"], answer
        if answer["result"] is False:
            assert "restart needed" in answer["comment"] or "refused, " in answer["comment"], answer
            if "applied meanwhile" in answer["comment"]:  # what runs is a mixture: start over
                phone.close()
                node.close()
                context, phone = node.context, None
            continue
        assert answer["changes"].get("disruption", "none") != "restart"
        context = wanted
        if every_pair or number == PAIRS - 1:
            again = node.call("configure", node.source, context, name=str(node.conf))
            assert again["changes"] == {}
            compare(node, context, answer)
    if phone is not None:
        assert phone.hang_up(dialog) == 200
        phone.close()
    assert told.count(True) > PAIRS / 3, "most changes spare the calls, or the table knows too few"


def compare(node, context, answer):
    """Hold what runs against a daemon that is started with what is on disk."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        copy_elsewhere(node.conf, root / "conf")
        command = daemon_command(node.flavour, root)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT) as new:
            try:
                until(lambda: answers(root / "conf"), 60, lambda: complaints(root))
                found = differences(
                    fingerprint(node.conf, context["acl"]),
                    fingerprint(root / "conf", context["acl"]),
                )
            finally:
                new.kill()
    assert not found, (answer["changes"], found)


def answers(conf):
    with contextlib.suppress(OSError), connect(conf) as link:
        told = link.api("sofia status")
        return all(f"{name}\tprofile" in told for name in sip_ports(conf))
    return False


def complaints(root):
    text = (root / "log" / "freeswitch.log").read_text(errors="replace")
    return [line for line in text.splitlines() if "[ERR]" in line or "[WARNING]" in line][:10]


def until(condition, seconds, why=lambda: ""):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not so within {seconds} s {why()}"
        time.sleep(0.05)
