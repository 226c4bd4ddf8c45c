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
        All the templates may use; they read no pillar. Secrets in it are references, which are
        resolved where files are written.

    The tree is rendered, checked, exchanged in one step and applied by the least action. On a node
    in service, files that need a restart stay as they are and the state fails with the plan.

    .. code-block:: yaml

        FreeSWITCH is configured:
          freeswitch.configured:
            - name: /etc/freeswitch
            - source: salt://freeswitch/files
            - context: {esl_password: {secret: …}, node: {address: 10.77.0.21, name: pbx-01}}
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


def gateway_present(name, profile, params, registered=False, timeout=30):
    """
    Have a gateway on disk and running with these parameters.

    name
        The gateway.

    profile
        The profile that holds it; it is taken out of any other.

    params
        FreeSWITCH's own parameter names; a list repeats the parameter.

    registered
        Wait until it is registered, ``timeout`` seconds at most, and fail naming its state if not.

    For trees that are not made by ``freeswitch.configured``, which would take it away again unless
    pillar names it.

    .. code-block:: yaml

        Carrier is there:
          freeswitch.gateway_present:
            - name: example-carrier
            - profile: external
            - params: {proxy: 192.0.2.7, register: false}
    """
    ret = _state(name, "freeswitch.edit", "with_gateway", name, profile, params)
    if not ret["result"] or not registered:
        return ret
    try:
        found = __salt__["freeswitch.await_gateway"](name, timeout=timeout)
        ret["comment"] += f"; {found['state']} with {found['proxy']}"
    except CommandExecutionError as err:
        ret.update(result=False, comment=str(err))
    return ret


def gateway_absent(name):
    """
    Have no gateway of that name on disk or running; its calls go on.

    .. code-block:: yaml

        Old carrier is gone:
          freeswitch.gateway_absent:
            - name: old-carrier
    """
    return _state(name, "freeswitch.edit", "without_gateway", name)


def profile_running(name, params=None):
    """
    Have a SIP profile running, with these parameters.

    name
        The profile; the configuration on disk must have it.

    params
        FreeSWITCH's own parameter names; those that are not named stay as they are.

    A profile that does not run is started. One that runs is rescanned, or the state fails with the
    plan where a parameter needs a restart.

    .. code-block:: yaml

        internal:
          freeswitch.profile_running:
            - params: {nonce-ttl: 120}
    """
    ret = {"name": name, "result": True, "changes": {}, "comment": f"profile {name} runs"}
    if params:
        ret = _state(name, "freeswitch.edit", "with_profile", name, params)
        if ret["result"] is False:
            return ret
    try:
        before = __salt__["freeswitch.profiles"]().get(name, {}).get("state", "absent")
        if before == "RUNNING":
            return ret
        ret["changes"]["profile"] = {"old": before, "new": "RUNNING"}
        if __opts__["test"]:
            return {**ret, "result": None, "comment": f"profile {name} would be started"}
        __salt__["freeswitch.profile_start"](name)
        ret["comment"] = f"profile {name} started"
    except CommandExecutionError as err:
        ret.update(result=False, comment=str(err))
    return ret


def tls_certificate(name, certificate, dns_names=None, directory="/etc/voice/sofia"):
    """
    Have a profile serve a certificate of pillar ``certificates``, proven by a handshake.

    name
        The profile.

    certificate
        Name of the bundle; it is verified and laid out as FreeSWITCH reads it below ``directory``.

    dns_names
        DNS names the leaf must hold.

    From 1.11.1 on calls over TLS go on; before, and where the profile sets ``tls-ciphers``, the
    certificate is deployed and the state fails with the restart it needs.

    .. code-block:: yaml

        internal:
          freeswitch.tls_certificate:
            - certificate: default
            - dns_names: [voice.example.org]
    """
    try:
        deployed = __salt__["certificate.deploy"](
            certificate,
            dns_names=dns_names,
            directory=directory,
            layout="sofia",
            owner=__opts__.get("freeswitch.user") or "freeswitch",
            test=__opts__["test"],
        )
        where = __salt__["certificate.directories"](directory, "sofia")[certificate]
    except CommandExecutionError as err:
        return {"name": name, "result": False, "changes": {}, "comment": str(err)}
    ret = _state(name, "freeswitch.edit", "with_profile", name, {"tls-cert-dir": where})
    ret["changes"] = {**deployed["changes"], **ret["changes"]}
    return ret


def esl_password_not_default(name):
    """
    Fail while the event socket that runs takes a password of FreeSWITCH's documentation.

    Changes nothing: ``freeswitch.configured`` sets the one of pillar, under the calls.

    .. code-block:: yaml

        Nobody walks in:
          freeswitch.esl_password_not_default: []
    """
    ret = {"name": name, "result": True, "changes": {}, "comment": "public passwords are refused"}
    try:
        if __salt__["freeswitch.esl_password_is_default"]():
            told = "the event socket takes a public password; set freeswitch:esl_password and apply"
            ret.update(result=False, comment=told)
    except CommandExecutionError as err:
        ret.update(result=False, comment=str(err))
    return ret


def module_loaded(name):
    """
    Have a module loaded now and at the next start.

    .. code-block:: yaml

        Opus is spoken:
          freeswitch.module_loaded:
            - name: mod_opus
    """
    return _state(name, "freeswitch.edit", "with_module", name)


def module_absent(name):
    """
    Have a module loaded no more; that needs a restart, so a node in service refuses it.

    .. code-block:: yaml

        Nothing is served over HTTP:
          freeswitch.module_absent:
            - name: mod_xml_rpc
    """
    return _state(name, "freeswitch.edit", "without_module", name)


def acl_present(name, allow=None, deny=None):
    """
    Have an access list that denies by default and allows these networks.

    .. code-block:: yaml

        carriers:
          freeswitch.acl_present:
            - allow: [192.0.2.0/24]
    """
    return _state(name, "freeswitch.edit", "with_list", name, allow or [], deny or [])


def limit(name, value):
    """
    Have a limit of the core, now and at the next start: ``max-sessions``, ``sessions-per-second``.

    .. code-block:: yaml

        max-sessions:
          freeswitch.limit:
            - value: 2000
    """
    return _state(name, "freeswitch.edit", "with_setting", name, value)


def drained(name, timeout=600):
    """
    Have the node refuse new calls and be empty, ``timeout`` seconds at most.

    Fails with the number of calls that are still up; they are not touched.

    .. code-block:: yaml

        Node is empty:
          freeswitch.drained:
            - timeout: 1800
    """
    ret = {"name": name, "result": True, "changes": {}, "comment": "drained already"}
    state = __salt__["voice.in_service"]()["state"]
    if state == "out_of_service":
        return ret
    ret["changes"] = {"state": {"old": state, "new": "out_of_service"}}
    if __opts__["test"]:
        return {**ret, "result": None, "comment": "would be drained"}
    done = __salt__["voice.drain"](timeout=timeout, by="freeswitch.drained")
    ret["comment"] = "drained"
    if not done["drained"]:
        ret["changes"]["state"]["new"] = "draining"
        ret.update(result=False, comment=f"{done['calls']} calls still up after {timeout} s")
    return ret


def in_service(name):
    """
    Have the node take calls, all its checks passed.

    A node that fails a check is not put into service; the comment names the checks.

    .. code-block:: yaml

        Node takes calls:
          freeswitch.in_service:
            - require:
              - freeswitch: FreeSWITCH is running
    """
    ret = {"name": name, "result": True, "changes": {}, "comment": "in service"}
    failed = [check for check in __salt__["voice.checks"]()["checks"] if not check["ok"]]
    if failed:
        told = "; ".join(f"{check['name']}: {check['detail']}" for check in failed)
        return {**ret, "result": False, "comment": f"checks failed: {told}"}
    state = __salt__["voice.in_service"]()["state"]
    if state == "in_service":
        return ret
    changes = {"state": {"old": state, "new": "in_service"}}
    if __opts__["test"]:
        return {**ret, "result": None, "changes": changes, "comment": "would be put into service"}
    try:
        __salt__["voice.undrain"]()
    except CommandExecutionError as err:
        return {**ret, "result": False, "comment": str(err)}
    return {**ret, "changes": changes}


def _state(name, function, /, *arguments, **keywords):
    ret = {"name": name, "result": False, "changes": {}, "comment": ""}
    try:
        ret.update(__salt__[function](*arguments, test=__opts__["test"], **keywords))
    except CommandExecutionError as err:
        ret["comment"] = str(err)
    return ret
