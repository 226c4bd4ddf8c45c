"""Who this machine is to EC2, asked from the instance metadata service (version 2 only).

Grains are the minion's own word: they may be looked at and targeted for reading, and choose
neither a secret nor a role.
"""

from __future__ import annotations

import contextlib
import json
import urllib.request
from pathlib import Path

VENDOR = Path("/sys/class/dmi/id/sys_vendor")
METADATA = "http://169.254.169.254"
SECONDS = 1.0
TAKEN = {
    "instanceId": "instance_id",
    "instanceType": "instance_type",
    "region": "region",
    "availabilityZone": "availability_zone",
    "accountId": "account_id",
    "privateIp": "private_ip",
}


def ec2():
    """Return ``{"ec2": {…}}``, nothing on a machine that is none of EC2's or gets no answer.

    ``public_ip`` is there only where the instance has one. Asks at most three times, a second each.
    """
    try:
        if VENDOR.read_text().strip() != "Amazon EC2":
            return {}
        token = _ask("PUT", "/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds", "60")
        document = json.loads(_get("/latest/dynamic/instance-identity/document", token))
        found = {ours: str(document[theirs]) for theirs, ours in TAKEN.items()}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    with contextlib.suppress(OSError):  # 404: it has none
        found["public_ip"] = _get("/latest/meta-data/public-ipv4", token)
    return {"ec2": found}


def _get(path, token):
    return _ask("GET", path, "X-aws-ec2-metadata-token", token)


def _ask(method, path, header, value):
    # Never by a proxy: who sits on it could tell the minion that it is another.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(METADATA + path, method=method, headers={header: value})
    with opener.open(request, timeout=SECONDS) as answer:
        return answer.read(65536).decode()
