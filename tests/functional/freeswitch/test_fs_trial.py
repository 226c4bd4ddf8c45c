"""What would not start is not written: the trial boot before every start and restart."""

import os
import subprocess

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a network of its own needs root")


def test_what_does_not_come_up_is_refused_before_the_swap(up):
    """An address that no socket can have: well-formed, and the profile never runs."""
    before = {path: path.read_bytes() for path in up.conf.rglob("*.xml")}
    uuid = up.call("status")["core_uuid"]
    up.call("pause")  # out of service: a restart is allowed
    context = up.changed()
    context["modules"] = [*context["modules"], "mod_that_is_not_there"]
    context["rtp"]["start_port"] = 20000
    answer = up.configured(context)
    assert answer["result"] is False
    assert "refused, nothing changed: trial boot: " in answer["comment"]
    assert "without mod_that_is_not_there" in answer["comment"]
    assert {path: path.read_bytes() for path in up.conf.rglob("*.xml")} == before
    assert up.call("status")["core_uuid"] == uuid
    assert not list(up.root.glob(".conf.staged*"))


def test_trial_reaches_nobody_and_leaves_nothing(up):
    """Its sockets are the same as those of the daemon that runs, in another network."""
    mounts = subprocess.run(["mount"], capture_output=True, text=True).stdout
    assert up.call("config_check") == {"result": True, "problems": []}
    assert subprocess.run(["mount"], capture_output=True, text=True).stdout == mounts
    assert up.call("ready") is True
    assert len(up.service_log()) == 2, "reloaded units and started once"


def test_first_start_is_rehearsed_too(node):
    context = node.changed()
    context["modules"] = [*context["modules"], "mod_that_is_not_there"]
    answer = node.configured(context)
    assert answer["result"] is False
    assert "mod_that_is_not_there" in answer["comment"]
    assert not node.conf.exists()


def test_reload_is_not_rehearsed(up):
    """A gateway edit takes no boot; its reload is verified against what runs."""
    (up.root / "freeswitch-binary").write_text("#!/bin/sh\nexit 1\n")
    answer = up.configured(up.changed(max_sessions=2000))
    assert answer["result"] is True, answer["comment"]
