"""EC2's metadata service, played on loopback: only version 2, only on EC2, never for long."""

import http.server
import json
import threading
import time
from typing import ClassVar

import pytest

from tests.support.loading import load

DOCUMENT = {
    "instanceId": "i-0a1b2c3d4e5f67890", "instanceType": "c7g.large", "region": "eu-west-2",
    "availabilityZone": "eu-west-2a", "accountId": "123456789012", "privateIp": "10.0.0.5",
    "imageId": "ami-1",
}  # fmt: skip


class Service(http.server.BaseHTTPRequestHandler):
    """Answers as IMDSv2 does: nothing without a token."""

    pages: ClassVar[dict[str, str]] = {}
    delay = 0.0

    def do_PUT(self):
        time.sleep(self.delay)
        good = self.headers["X-aws-ec2-metadata-token-ttl-seconds"] == "60"
        self._answer(200 if good and self.path == "/latest/api/token" else 400, "a-token")

    def do_GET(self):
        if self.headers["X-aws-ec2-metadata-token"] != "a-token":
            self._answer(401, "")
        elif self.path in self.pages:
            self._answer(200, self.pages[self.path])
        else:
            self._answer(404, "")

    def _answer(self, status, text):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *arguments):
        """Say nothing."""


@pytest.fixture
def ec2(tmp_path):
    """The grain on an EC2 machine whose service tells `pages`."""
    server = http.server.HTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    module = load("_grains/ec2.py")
    module.METADATA = f"http://127.0.0.1:{server.server_port}"
    module.VENDOR = tmp_path / "sys_vendor"
    module.VENDOR.write_text("Amazon EC2\n")
    Service.delay = 0.0
    Service.pages = {
        "/latest/dynamic/instance-identity/document": json.dumps(DOCUMENT),
        "/latest/meta-data/public-ipv4": "203.0.113.7",
    }
    yield module
    server.shutdown()
    server.server_close()


def test_identity_of_an_instance(ec2, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert ec2.ec2() == {
        "ec2": {
            "instance_id": "i-0a1b2c3d4e5f67890",
            "instance_type": "c7g.large",
            "region": "eu-west-2",
            "availability_zone": "eu-west-2a",
            "account_id": "123456789012",
            "private_ip": "10.0.0.5",
            "public_ip": "203.0.113.7",
        }
    }


def test_instance_without_a_public_address(ec2):
    del Service.pages["/latest/meta-data/public-ipv4"]
    assert "public_ip" not in ec2.ec2()["ec2"]


@pytest.mark.parametrize("document", ["", "[]", "null", "{", json.dumps({"region": "x"}), "\udcff"])
def test_answer_that_is_none_gives_no_grain(ec2, document):
    Service.pages["/latest/dynamic/instance-identity/document"] = document.encode(
        "utf-8", "surrogateescape"
    ).decode("latin-1")
    assert ec2.ec2() == {}


@pytest.mark.parametrize("vendor", ["QEMU\n", "", "Amazon EC2 or so\n"])
def test_other_machines_are_not_asked(ec2, vendor):
    ec2.VENDOR.write_text(vendor)
    assert ec2.ec2() == {}


def test_machine_without_a_vendor_is_not_asked(ec2):
    ec2.VENDOR.unlink()
    assert ec2.ec2() == {}


def test_silent_service_holds_nobody_up(ec2):
    Service.delay = 3.0
    ec2.SECONDS = 0.2
    began = time.monotonic()
    assert ec2.ec2() == {}
    assert time.monotonic() - began < 2.0
