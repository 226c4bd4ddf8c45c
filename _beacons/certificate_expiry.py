"""Say in time that a certificate is about to end, or is not the one it should be.

Looked at are what pillar holds, what is on disk, and what is served.

.. code-block:: yaml

    beacons:
      certificate_expiry:
        - days: 21                      # say so from then on
        - interval: 3600
        - directory: /etc/voice/tls     # looked at besides those that pillar names
        - probe:                        # by default the sockets that pillar names
            - 127.0.0.1:443
            - {port: 8443, server_name: www.example.org, certificate: web}

Each event names the certificate: ``salt/beacon/<minion id>/certificate_expiry/<name>``. It holds
what ``certificate.expiry`` returns of it: ``where`` (pillar, disk or served), ``place``, and
``days_left`` or a ``problem``.
"""

from __future__ import annotations

__virtualname__ = "certificate_expiry"

DEFAULTS = {"directory": "/etc/voice/tls", "days": 21, "probe": None}


def __virtual__():  # noqa: N807
    if "certificate.expiry" in __salt__:
        return __virtualname__
    return False, "the certificate execution module did not load"


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
    if not isinstance(settings["probe"], list | None):
        return False, "certificate_expiry: probe must be a list of sockets"
    return True, "certificate_expiry is configured well"


def beacon(config):
    """Return an event for each certificate that ends within ``days`` or has a problem."""
    settings = _settings(config)
    found = __salt__["certificate.expiry"](**{key: settings[key] for key in DEFAULTS})
    return [{"tag": one["name"], **one} for one in found]


def _settings(config):
    given = {}
    for setting in config:
        if isinstance(setting, dict):
            given.update(setting)
    return {**DEFAULTS, **given}
