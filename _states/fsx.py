"""Have the PHP application of an fsx node live, without costing a call.

``changes`` holds ``release`` (old, new), ``disruption`` (none, reload), ``why`` and ``actions``.
"""

from __future__ import annotations

from salt.exceptions import CommandExecutionError

__virtualname__ = "fsx"


def __virtual__():  # noqa: N807
    if "fsx.deploy" in __salt__:
        return __virtualname__
    return False, "the fsx execution module is not synced; run saltutil.sync_all"


def deployed(name, source, source_hash=None, entry="worker.php", keep=3, ports=None, patience=300):
    """
    Have an application live below ``name``, and every worker that takes calls run it.

    name
        Directory with ``releases`` and the link ``current``.

    source
        A ``salt://`` directory, or a ``.tar.gz``, ``.tgz`` or ``.tar.xz`` at ``https://``,
        ``s3://`` or ``salt://``.

    source_hash
        ``sha256=<64 hexadecimal digits>`` of the archive, which needs it.

    entry
        The PHP file in it that is run with an address and a port.

    keep
        How many releases stay on disk; those that a process runs from stay besides.

    ports
        The workers that are renewed if they run, one after the other, by default those of pillar.

    patience
        Seconds to wait for workers to end their calls. The state fails if one still takes calls
        with another release then; the next run goes on.

    .. code-block:: yaml

        Call application live:
          fsx.deployed:
            - name: /srv/fsx
            - source: s3://example-artifacts/calls-1.4.2.tar.gz
            - source_hash: sha256=0b5e…
            - entry: bin/worker.php
            - ports: [9001, 9002]
    """
    ret = {"name": name, "result": False, "changes": {}, "comment": ""}
    try:
        ret.update(
            __salt__["fsx.deploy"](
                source,
                source_hash=source_hash,
                entry=entry,
                keep=keep,
                ports=ports,
                directory=name,
                patience=patience,
                test=__opts__["test"],
            )
        )
    except CommandExecutionError as err:
        ret["comment"] = str(err)
    return ret
