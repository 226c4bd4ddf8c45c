"""What is missing for a lab is one line, said before anything starts."""

import os
import shutil
import socket
from collections import namedtuple
from pathlib import Path

import pytest

from lab import cgroup, prerequisites
from lab.names import LabError

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine that has everything; the test takes one thing away."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda tool, path=None: f"/usr/bin/{tool}")
    monkeypatch.setattr(cgroup, "hierarchies", lambda: [Path("/sys/fs/cgroup")])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 10 * 1024**3))
    (tmp_path / "base-1").mkdir()
    monkeypatch.setattr(prerequisites, "CACHE", tmp_path)
    monkeypatch.delenv("http_proxy", raising=False)
    return monkeypatch


def told():
    with pytest.raises(LabError) as caught:
        prerequisites.check()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_machine_that_has_everything_passes(machine):
    prerequisites.check()


def test_not_root(machine):
    machine.setattr(os, "geteuid", lambda: 1000)
    assert told() == "needs root: namespaces and mounts are made here; use sudo"


@pytest.mark.parametrize(
    ("tool", "remedy"),
    [
        ("systemd-nspawn", "apt-get install systemd-container"),
        ("sipp", "apt-get install sip-tester"),
        ("terraform", "install 1.6 or later and put it on PATH"),
    ],
)
def test_tool_is_missing(machine, tool, remedy):
    machine.setattr(shutil, "which", lambda name, path=None: None if name == tool else name)
    assert told().startswith(f"{tool} is missing: ")
    assert remedy in told()


def test_no_cgroup_hierarchy(machine):
    machine.setattr(cgroup, "hierarchies", list)
    assert "no cgroup v2 hierarchy" in told()


def test_no_space(machine):
    machine.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 5 * 1024**2))
    assert told().endswith("has 5 MiB free, 3072 are needed")


def test_no_registry_for_a_first_build(machine, tmp_path):
    def refuse(address, timeout):
        raise OSError(101, "Network is unreachable")

    machine.setattr(socket, "create_connection", refuse)
    prerequisites.check()
    (tmp_path / "base-1").rmdir()
    assert "deb.debian.org cannot be reached (Network is unreachable)" in told()
