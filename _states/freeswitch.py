"""Keep FreeSWITCH installed, configured and running, without costing a call.

On a node in service nothing above a reload ever happens: the state fails and says what it would
take. ``changes`` holds ``disruption`` (none, reload, restart), ``why`` and ``actions``.
"""

from __future__ import annotations

from salt.exceptions import CommandExecutionError

__virtualname__ = "freeswitch"


def __virtual__():  # noqa: N807
    if "freeswitch.configure" in __salt__:
        return __virtualname__
    return False, "the freeswitch execution module is not synced; run saltutil.sync_all"


def installed(name, version=None, hold=True):
    """
    Have the package installed and held.

    name
        The package.

    version
        The exact version to have; without it any installed version is left alone. Another version
        than the one installed needs a node that is out of service.

    hold
        Hold the package, so that no routine upgrade restarts the daemon.

    .. code-block:: yaml

        FreeSWITCH is installed:
          freeswitch.installed:
            - name: freeswitch
            - version: 1.10.12~release~1
    """
    return _state(
        name, "voice.install_package", name, service="freeswitch", version=version, hold=hold
    )


def configured(name="/etc/freeswitch", source="salt://freeswitch/files", context=None):
    """
    Have the whole configuration as ``source`` and ``context`` make it.

    name
        The directory FreeSWITCH reads.

    source
        A directory of templates with its ``manifest.yaml``.

    context
        All the templates may use; they read no pillar.

    The tree is rendered, checked, exchanged in one step and applied by the least action. On a node
    in service, files that need a restart stay as they are and the state fails with the plan.

    .. code-block:: yaml

        FreeSWITCH is configured:
          freeswitch.configured:
            - name: /etc/freeswitch
            - source: salt://freeswitch/files
            - context: {esl_password: …, node: {address: 10.77.0.21, name: pbx-01}}
    """
    return _state(name, "freeswitch.configure", source, context or {}, name=name)


def running(name="freeswitch"):
    """
    Have the daemon running what is on disk.

    Starts it if it is down. Restarts it if what runs is not what is on disk, on a node that is out
    of service only. Keeps a drained node paused across the restart.

    .. code-block:: yaml

        FreeSWITCH is running:
          freeswitch.running:
            - require:
              - freeswitch: FreeSWITCH is configured
    """
    return _state(name, "freeswitch.ensure_running")


def _state(name, function, /, *arguments, **keywords):
    ret = {"name": name, "result": False, "changes": {}, "comment": ""}
    try:
        ret.update(__salt__[function](*arguments, test=__opts__["test"], **keywords))
    except CommandExecutionError as err:
        ret["comment"] = str(err)
    return ret
