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
    service=None,
    served=None,
):
    """
    Have a bundle live under ``<directory>/<name>/current`` (``chain.pem``, ``key.pem``).

    name
        Name of the bundle.

    dns_names
        Names the leaf must hold; those of pillar by default.

    pillar_key
        Where pillar holds ``chain``, ``key`` and what it asks of them; ``certificates:<name>`` by
        default. The bundle itself never passes through the state, so that no log or job cache can
        show it.

    directory
        Where bundles live.

    layout
        ``plain``; ``sofia`` for the files FreeSWITCH reads as well; ``nginx`` for ``fullchain.pem``
        and ``privkey.pem`` as well.

    owner
        User, and group of the same name, who may read it.

    service
        What reads it and is reloaded when it changes, if it runs. FreeSWITCH and OpenSIPS have
        states of their own that do so.

    served
        Where the service serves it, ``host:port`` or ``{"address", "port", "server_name"}``. A
        socket that serves another certificate has the service reloaded, twice at most; if it still
        does, the old certificate is made live again and the state fails.

    .. code-block:: yaml

        Certificate of the web server:
          certificate.deployed:
            - name: web
            - layout: nginx
            - service: nginx
            - served: ["127.0.0.1:443"]
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
                service=service,
                served=served,
                test=__opts__["test"],
            )
        )
    except CommandExecutionError as err:
        ret["comment"] = str(err)
    return ret
