"""Fixtures of an fsx node."""

import shutil
import subprocess
from pathlib import Path

import pytest
from fsx_node import Https, Node, application


@pytest.fixture
def node(tmp_path):
    if shutil.which("php") is None:
        pytest.skip("php is not on PATH")
    made = Node(tmp_path)
    yield made
    made.stop_workers(*made.ports)


@pytest.fixture
def up(node):
    """A node whose two workers take calls with the application `one`."""
    assert node.deployed(node.application(application("one")))["result"] is True
    node.start_workers()
    return node


@pytest.fixture
def archive(node):
    """Pack a tree as `app.tar.gz` on the fileserver; return how to deploy it."""

    def pack(*arguments, name="app.tar.gz", directory=None):
        file = node.files / name
        command = ["tar", "--auto-compress", "--create", "--file", file, *arguments]
        subprocess.run(command, cwd=directory, check=True, capture_output=True)
        return described(file)

    def described(file):
        told = subprocess.run(["sha256sum", file], check=True, capture_output=True, text=True)
        return {"source": f"salt://{file.name}", "source_hash": f"sha256={told.stdout.split()[0]}"}

    pack.described = described
    return pack


@pytest.fixture
def https(node):
    certificate = node.root / "server.pem"
    command = "openssl req -x509 -nodes -days 1 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1"
    subprocess.run(
        [*command.split(), "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", certificate, "-out", f"{certificate}.crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    with certificate.open("a") as file:
        file.write(Path(f"{certificate}.crt").read_text())
    node.trust(f"{certificate}.crt")
    server = Https(node.files, certificate)
    yield server
    server.close()
