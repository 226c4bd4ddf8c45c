"""Have files that hold a secret of pillar, without a state, its return or a log showing it."""

from __future__ import annotations

from salt.exceptions import CommandExecutionError

__virtualname__ = "secret_file"


def __virtual__():  # noqa: N807
    if "secret_file.managed" in __salt__:
        return __virtualname__
    return False, "the secret_file execution module is not synced; run saltutil.sync_all"


def managed(name, content, mode="0600"):
    """
    Have a file hold what ``content`` refers to, and nothing else.

    name
        The file.

    content
        ``{secret: name}``, one of pillar ``secrets``; of an optional one that does not exist there
        is no file.

    mode
        Permissions; the owner stays, a new file belongs to root.

    .. code-block:: yaml

        Repository's login is present:
          secret_file.managed:
            - name: /etc/apt/auth.conf.d/example.conf
            - content: {secret: example-repository}
    """
    try:
        done = __salt__["secret_file.managed"](name, content, mode=mode, test=__opts__["test"])
    except CommandExecutionError as err:
        done = {"result": False, "comment": str(err), "changes": {}}
    return {"name": name, **done}
