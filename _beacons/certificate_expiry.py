"""Say in time that a deployed certificate is about to end.

.. code-block:: yaml

    beacons:
      certificate_expiry:
        - directory: /etc/voice/tls     # bundles are <directory>/<name>/current
        - days: 21                      # say so from then on
        - interval: 3600

Each event names the bundle: ``salt/beacon/<minion id>/certificate_expiry/<name>``.
"""

from __future__ import annotations

import datetime
from pathlib import Path

try:
    from cryptography import x509

    HAS_CRYPTOGRAPHY = True
except ImportError:
    HAS_CRYPTOGRAPHY = False

__virtualname__ = "certificate_expiry"

DEFAULTS = {"directory": "/etc/voice/tls", "days": 21}


def __virtual__():  # noqa: N807
    if HAS_CRYPTOGRAPHY:
        return __virtualname__
    return False, "python3-cryptography is missing from the minion's Python"


def validate(config):
    """Return whether the beacon can work with its configuration, and why not."""
    if not isinstance(config, list):
        return False, "certificate_expiry: must be a list of single settings"
    settings = _settings(config)
    days = settings["days"]
    if isinstance(days, bool) or not isinstance(days, int) or days < 1:
        return False, "certificate_expiry: days must be a whole number of at least 1"
    if not str(settings["directory"]).startswith("/"):
        return False, "certificate_expiry: directory must be an absolute path"
    return True, "certificate_expiry is configured well"


def beacon(config):
    """Return an event for each bundle that ends within ``days`` or cannot be read."""
    settings = _settings(config)
    now = datetime.datetime.now(datetime.UTC)
    events = []
    for chain in sorted(Path(settings["directory"]).glob("*/current/chain.pem")):
        event = {"tag": chain.parents[1].name, "name": chain.parents[1].name}
        try:
            leaf = x509.load_pem_x509_certificate(chain.read_bytes())
        except (OSError, ValueError):
            events.append({**event, "problem": f"{chain}: cannot be read; apply its state again"})
            continue
        left = leaf.not_valid_after_utc - now
        if left < datetime.timedelta(days=settings["days"]):
            event["days_left"] = left.days
            event["not_after"] = f"{leaf.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"
            event["serial"] = f"{leaf.serial_number:x}"
            events.append(event)
    return events


def _settings(config):
    given = {}
    for setting in config:
        if isinstance(setting, dict):
            given.update(setting)
    return {**DEFAULTS, **given}
