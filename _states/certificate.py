"""Have certificates deployed from pillar, verified first, as a whole or not at all."""

from __future__ import annotations

from salt.exceptions import CommandExecutionError

__virtualname__ = "certificate"


def __virtual__():  # noqa: N807
    if "certificate.deploy" in __salt__:
        return __virtualname__
    return False, "the certificate execution module did not load"


def deployed(
    name,
    dns_names=None,
    pillar_key=None,
    directory="/etc/voice/tls",
    layout="plain",
    owner="root",
):
    """
    Have a bundle live under ``<directory>/<name>/current`` (``chain.pem``, ``key.pem``).

    name
        Name of the bundle.

    dns_names
        DNS names the leaf must hold.

    pillar_key
        Where pillar holds ``chain`` and ``key``; ``certificates:<name>`` by default. The bundle
        itself never passes through the state, so that no log or job cache can show it.

    directory
        Where bundles live.

    layout
        ``plain``, or ``sofia`` for the files FreeSWITCH reads as well.

    owner
        User, and group of the same name, who may read it.

    .. code-block:: yaml

        Certificate of the proxy:
          certificate.deployed:
            - name: default
            - dns_names: [voice.example.org]
    """
    ret = {"name": name, "result": False, "changes": {}, "comment": ""}
    try:
        ret.update(
            __salt__["certificate.deploy"](
                name,
                pillar_key=pillar_key,
                dns_names=dns_names,
                directory=directory,
                layout=layout,
                owner=owner,
                test=__opts__["test"],
            )
        )
    except CommandExecutionError as err:
        ret["comment"] = str(err)
    return ret
