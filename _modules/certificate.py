"""Verify certificate bundles, deploy them as a whole, and prove what is served.

Nothing reaches the disk before every check has passed, and what is live changes in one step: a
directory a version, one symlink. Chain and key come from pillar, or are references to secrets that
are resolved here, at the last moment. No answer, change or error of this module holds a key;
bundles are told apart by fingerprints.

Minion options, all optional: ``voice.state_dir``, ``certificate.served_seconds`` (how long a daemon
may take until it serves what it was told to reload).
"""

from __future__ import annotations

import contextlib
import datetime
import re
import time
from pathlib import Path

from salt.exceptions import CommandExecutionError

__virtualname__ = "certificate"

DIRECTORY = "/etc/voice/tls"
SOFIA_DIRECTORY = "/etc/voice/sofia"
STATE_DIR = "/var/lib/voice"
MODES = {"dir_mode": 0o700, "file_mode": 0o600}
ATTEMPTS = 2  # reloads before the old one is taken back
SERVED_SECONDS = 5.0
PROBE_SECONDS = 2.0
POLL = 0.1
PLACEHOLDERS = ("host", "role", "workspace", "account", "region", "address", "public_address")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


def __virtual__():  # noqa: N807
    if "certificate_bundle.verify" in __utils__:
        return __virtualname__
    return False, "python3-cryptography is missing from the minion's Python"


def inspect(name, directory=DIRECTORY):
    """
    Return what is deployed under a name, ``{"subject", "issuer", "names", "serial", "not_before",
    "not_after", "fingerprint", "version"}``, or None.

    CLI Example:

    .. code-block:: bash

        salt '*' certificate.inspect default
    """
    home = _home(name, directory)
    chain = home / "current" / "chain.pem"
    if not chain.exists():
        return None
    leaf = _leaf(chain.parent)
    if leaf is None:
        raise CommandExecutionError(
            f"certificate {name}: {chain} is no certificate; apply the state again"
        )
    return {**leaf, "version": _util("certificate_store.live", str(home))}


def facts(chain):
    """
    Return what the first certificate of a PEM text says, without checking it.

    ``{"subject", "issuer", "names", "serial", "not_before", "not_after", "fingerprint"}``; the
    fingerprint is SHA-256.

    CLI Example:

    .. code-block:: bash

        salt-call --local certificate.facts "$(cat chain.pem)"
    """
    return _util("certificate_bundle.facts", chain)


def verify(name, chain, key, dns_names=None, directory=DIRECTORY):
    """
    Check a bundle and return the facts of its leaf; raise with one line if no daemon can serve it.

    chain
        PEM certificates, the leaf first, each followed by its issuer.

    key
        The leaf's private key, PEM, not encrypted.

    dns_names
        Names the leaf must hold.

    directory
        Where the live one is, whose serial the error names.

    What only a pillar can want, such as an issuer for every leaf, is left to ``certificate.check``.
    Never run this by hand with a real key: arguments end up in the job cache.

    CLI Example:

    .. code-block:: bash

        salt-call --local certificate.verify default chain="$(cat chain.pem)" key="$(cat key.pem)"
    """
    lenient = {"self_signed": True, "partial": True, "usage": "any"}
    return _verified(name, {"chain": chain, "key": key}, directory, dns_names, **lenient)


def check(name, pillar_key=None, directory=DIRECTORY):
    """
    Check a bundle of pillar by what pillar asks of it, and return the facts of its leaf.

    name
        Name of the bundle.

    pillar_key
        Where pillar holds it; ``certificates:<name>`` by default.

    CLI Example:

    .. code-block:: bash

        salt '*' certificate.check default
    """
    bundle = _bundle(pillar_key or f"certificates:{_checked(name)}")
    return _verified(name, bundle, directory, **_asked(bundle))


def directories(directory=DIRECTORY, layout="plain"):
    """
    Return name -> directory of each certificate of pillar, as it is or is about to be deployed.

    The directory is named after the leaf's fingerprint, so a configuration that names it changes
    with the certificate. One that may not be served keeps the directory that is live.

    layout
        That of ``certificate.deploy``.

    CLI Example:

    .. code-block:: bash

        salt '*' certificate.directories
    """
    found = {}
    for name in __salt__["pillar.get"]("certificates", {}):
        home = _home(name, directory)
        try:
            bundle = _bundle(f"certificates:{name}")
            new = _verified(name, bundle, directory, **_asked(bundle, home))
            version, _ = _slot(home, new, _files(layout, bundle))
        except CommandExecutionError:
            version = _util("certificate_store.live", str(home)) or "current"
        found[name] = str(home / version)
    return found


def deploy(
    name,
    pillar_key=None,
    dns_names=None,
    directory=DIRECTORY,
    layout="plain",
    owner="root",
    service=None,
    served=None,
    test=False,
):
    """
    Deploy a bundle from pillar if it is not the live one, and have it served.

    name
        Directory under ``directory``; ``<name>/current`` is the live version.

    pillar_key
        Where pillar holds ``chain``, ``key`` and what it asks of them; ``certificates:<name>`` by
        default.

    dns_names
        Names the leaf must hold; those of pillar by default. ``{host}``, ``{role}``,
        ``{workspace}``, ``{account}`` and ``{region}`` stand for the node's own.

    layout
        ``plain`` (``chain.pem``, ``key.pem``); ``sofia``, which has besides what FreeSWITCH's SIP
        stack reads: ``agent.pem`` (leaf and key), ``cafile.pem`` (the intermediates, which it
        sends from there), ``wss.pem`` (chain and key); or ``nginx``, which has ``fullchain.pem``
        and ``privkey.pem`` besides.

    owner
        User, and group of the same name, who may read it.

    service
        What reads ``<name>/current`` and is reloaded when it changes, if it runs.

    served
        Where it is served: ``host:port``, or ``{"address", "port", "server_name"}``. If another
        certificate is found there, the service is reloaded; if it still is after a second reload,
        the old one is made live again.

    Returns ``{"result", "comment", "changes"}`` as a state does; ``test`` only predicts.

    CLI Example:

    .. code-block:: bash

        salt '*' certificate.deploy default test=True
    """
    bundle = _bundle(pillar_key or f"certificates:{_checked(name)}")
    home, served = _home(name, directory), _sockets(served)
    if dns_names is not None:
        bundle["dns_names"] = dns_names
    with _lock("certificate.deploy", needed=not test):
        new = _verified(name, bundle, directory, **_asked(bundle, home))
        plan = _plan(home, new, bundle, layout, owner)
        plan |= _serving(plan, new, service, served)
        old = _leaf(home / "current")
        changes = _util("certificate_store.changes", name, plan, old, new)
        if not changes:
            told = f"certificate {name} is deployed, ends {new['not_after']}"
            return {"result": True, "comment": told, "changes": {}}
        done = "deployed" if plan["flip"] else "reloaded" if plan["stale"] else "repaired"
        if test:
            told = f"certificate {name} would be {done}"
            return {"result": None, "comment": told, "changes": changes}
        _carry_out(name, home, plan, owner)
        if plan["reload"]:
            _reloaded(name, home, plan, new["fingerprint"], service, served)
        _attempt("certificate_store.remove", str(home), plan["surplus"])
    waits = f"; {service} does not run" if service and not plan["reload"] and plan["flip"] else ""
    told = f"certificate {name} {done}{waits}"
    return {"result": True, "comment": told, "changes": changes}


def versions(name, directory=DIRECTORY):
    """
    Return the versions on disk, the one that went live last first.

    Each is ``{"version", "live", "since", "serial", "not_after"}``; ``since`` is None for one that
    never was live.

    CLI Example:

    .. code-block:: bash

        salt '*' certificate.versions default
    """
    home = _home(name, directory)
    found = []
    for one in _util("certificate_store.versions", str(home)):
        leaf = _leaf(home / one["version"]) or {}
        since = one["since"] and time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(one["since"]))
        told = {key: leaf.get(key) for key in ("serial", "not_after")}
        found.append({**one, "since": since, **told})
    return found


def rollback(name, version=None, directory=DIRECTORY, service=None, served=None):
    """
    Make an earlier version live and have it served; pillar should follow.

    version
        One of ``certificate.versions``; by default the one that was live before.

    service, served
        As for ``certificate.deploy``; by default those of pillar.

    The next ``state.apply`` deploys what pillar holds. FreeSWITCH and OpenSIPS do not read what
    ``current`` names but what their configuration does: there, put pillar back.

    CLI Example:

    .. code-block:: bash

        salt 'fsx*' certificate.rollback web
    """
    home = _home(name, directory)
    asked = __salt__["pillar.get"](f"certificates:{name}", {}, unmask=True)
    service = service or asked.get("service")
    served = _sockets(served or asked.get("served"))
    with _lock("certificate.rollback"):
        there = versions(name, directory)
        old = next((one["version"] for one in there if one["live"]), None)
        others = [one["version"] for one in there if not one["live"] and one["since"]]
        new = str(version) if version else next(iter(others), None)
        if new not in others:
            held = ", ".join(others) or "none"
            raise CommandExecutionError(
                f"certificate {name}: no version {new or 'but the live one'}; others: {held}"
            )
        leaf = next(one for one in there if one["version"] == new)
        if leaf["serial"] is None:
            raise CommandExecutionError(f"certificate {name}: version {new} is damaged")
        plan = {"version": new, "old": old, "flip": True, "intact": True}
        _flip(home, new)
        if service and __salt__["service.status"](service):
            _reloaded(name, home, plan, _fingerprint(home / new), service, served)
    return {
        "result": True,
        "action": f"rollback {old} -> {new}",
        "before": old,
        "after": new,
        "evidence": f"serial {leaf['serial']}, ends {leaf['not_after']}",
    }


def probe(address, port, server_name=None, timeout=5.0):
    """
    Return the facts of the certificate that a TLS socket serves to who asks for ``server_name``.

    Nobody is trusted or refused.

    CLI Example:

    .. code-block:: bash

        salt '*' certificate.probe 127.0.0.1 443 server_name=www.example.org
    """
    return facts(_util("tls_probe.served", address, port, server_name, timeout))


def sockets():
    """
    Return where this node serves certificates by TLS, as pillar says.

    Each is ``{"certificate", "directory", "address", "port", "server_name", "place"}``: of
    FreeSWITCH's profiles, of OpenSIPS's TLS domains, and ``served`` of each certificate.

    CLI Example:

    .. code-block:: bash

        salt '*' certificate.sockets
    """
    pillar = {
        key: __salt__["pillar.get"](key, {}, unmask=True)
        for key in ("node", "freeswitch", "opensips", "certificates")
    }
    found = _util("certificate_served.named", pillar)
    found += _util("certificate_served.freeswitch", pillar)
    rows, listening = _util("certificate_served.opensips", pillar)
    for one in _util("opensips_tls.expected", rows, listening):
        del one["domain"]
        found.append(_util("certificate_served.parse", one, directory=DIRECTORY))
    return found


def expiry(days=21, directory=DIRECTORY, probe=None, timeout=1.0):
    """
    Return what is about to end or is not as it should be: in pillar, on disk, and served.

    Each is ``{"name", "where", "place"}`` with ``days_left``, ``not_after`` and ``serial``, or with
    ``problem``. ``where`` is pillar, disk or served; ``place`` a pillar key, a file or a socket.

    days
        What ends within so many days is told.

    directory
        Looked at besides the directories that pillar names.

    probe
        Sockets to look at, ``{"address", "port", "server_name", "certificate"}`` or
        ``address:port``; by default ``certificate.sockets``.

    timeout
        Seconds for each socket.

    CLI Example:

    .. code-block:: bash

        salt '*' certificate.expiry days=30
    """
    wanted = sockets() if probe is None else _sockets(probe)
    looked = _looked_at(wanted, float(timeout))
    found = _stored() + _on_disk(directory, wanted)
    found += [_compared(*both) for both in zip(wanted, looked, strict=True)]
    now = datetime.datetime.now(datetime.UTC)
    return _util("certificate_served.worth_telling", found, int(days), now)


# -- what pillar holds ---------------------------------------------------------------------------


def _bundle(key):
    """Read a bundle from pillar, unmasked, with what its references stand for."""
    found = __salt__["pillar.get"](key, {}, unmask=True)
    given = __salt__["pillar.get"]("secret_values", {}, unmask=True)
    values = _util("secret_seal.opened", given)
    found = _util("secret_refs.resolve", found, values, key)
    if not isinstance(found, dict) or not {"chain", "key"} <= set(found):
        raise CommandExecutionError(f"pillar {key} must hold chain and key")
    return found


def _asked(bundle, home=None):
    """Return what pillar asks of a bundle, as keywords of the checks.

    The margin is for what is to become live; what is live stays until there is a better one.
    """
    keys = ("dns_names", "addresses", "minimum_days", "self_signed", "authority", "usage")
    asked = {key: bundle[key] for key in keys if key in bundle}
    for key in {"dns_names", "addresses"} & set(asked):
        asked[key] = [_own(name) for name in asked[key]]
    if home is not None and "minimum_days" in asked:
        with contextlib.suppress(CommandExecutionError):
            if facts(bundle["chain"])["fingerprint"] == _fingerprint(home / "current"):
                del asked["minimum_days"]
    return asked


def _own(name):
    """Fill the node's own words into a name."""
    node = dict(__salt__["pillar.get"]("node", {}))
    node["host"] = node.get("name")
    node.setdefault("public_address", __grains__.get("ec2", {}).get("public_ip"))

    def filled(match):
        if match[1] not in PLACEHOLDERS or not node.get(match[1]):
            known = ", ".join(f"{{{word}}}" for word in PLACEHOLDERS)
            raise CommandExecutionError(f"certificate name {name}: this node fills in {known} only")
        return str(node[match[1]])

    return re.sub(r"\{(\w*)\}", filled, str(name))


def _verified(name, bundle, directory, dns_names=None, **asked):
    try:
        return __utils__["certificate_bundle.verify"](
            bundle["chain"], bundle["key"], dns_names, **asked
        )
    except ValueError as err:
        raise CommandExecutionError(
            f"certificate {_checked(name)}: {err}{_kept(name, directory)}"
        ) from None


def _kept(name, directory):
    try:
        old = inspect(name, directory)
    except CommandExecutionError:
        return ""
    return f"; kept serial {old['serial']}" if old else ""


def _checked(name):
    if not _NAME.fullmatch(str(name)):
        raise CommandExecutionError("a certificate's name may hold only a-z, 0-9, - and _")
    return name


# -- on disk -------------------------------------------------------------------------------------


def _home(name, directory):
    return Path(directory) / _checked(name)


def _files(layout, bundle):
    certificates = _util("certificate_bundle.parts", bundle["chain"])
    return _util("certificate_store.files", layout, certificates, bundle["key"])


def _slot(home, new, files):
    return _util("certificate_store.slot", str(home), new["fingerprint"], files)


def _plan(home, new, bundle, layout, owner):
    """Return what leads to this bundle being live."""
    files = _files(layout, bundle)
    plan = _util("certificate_store.plan", str(home), new["fingerprint"], files)
    path = str(home / plan["version"])
    intact = plan["intact"]
    plan["wrong"] = _util("staged.wrong_attributes", path, **_ownership(owner)) if intact else []
    return {**plan, "files": files}


def _ownership(owner):
    return {"owner": owner, "group": owner, **MODES}


def _carry_out(name, home, plan, owner):
    """Write and flip; a failure leaves no trace of it."""
    try:
        _util("certificate_store.remove", str(home), plan["left"])
        if plan["wrong"]:
            path = str(home / plan["version"])
            _util("staged.set_attributes", path, plan["wrong"], **_ownership(owner))
        if not plan["intact"]:
            _write(home, plan, owner)
        if plan["flip"] or plan["unmarked"]:
            _flip(home, plan["version"])
    except CommandExecutionError as err:
        if not plan["intact"]:
            _util("certificate_store.forget", str(home), plan["version"])
        stays = "; the old one is live" if plan["old"] else "; none is live"
        raise CommandExecutionError(f"certificate {name}: {err}{stays}") from None


def _write(home, plan, owner):
    """Have a version beside the live one, whole and synced, noted as one that never was live."""
    path = str(home / plan["version"])
    _util("certificate_store.make", str(home))
    _util("staged.sync_directory", str(home.parent))
    staged = _util("staged.stage", path, plan["files"], **_ownership(owner))
    _util("certificate_store.mark", staged, False)
    _util("staged.swap", path, staged)


def _flip(home, version):
    _util("staged.point", str(home / "current"), version)
    _attempt("certificate_store.mark", str(home / version), True)


def _fingerprint(directory):
    return (_leaf(directory) or {}).get("fingerprint")


def _leaf(directory):
    """Return the facts of the leaf in a directory, None if there is none that can be read."""
    try:
        return facts((directory / "chain.pem").read_text())
    except (OSError, UnicodeDecodeError, CommandExecutionError):
        return None


# -- served --------------------------------------------------------------------------------------


def _serving(plan, new, service, served):
    """Return which sockets serve something else, and whether to reload who serves them."""
    if served and not service:
        raise CommandExecutionError("served needs the service that is to be reloaded")
    if not service or not __salt__["service.status"](service):
        return {"stale": {}, "reload": False}
    stale = {} if plan["flip"] else _stale(served, new["fingerprint"])
    return {"stale": stale, "reload": bool(plan["flip"] or stale)}


def _reloaded(name, home, plan, fingerprint, service, served):
    """Have a service serve what is live, or else what was live before; raise then."""
    for _ in range(ATTEMPTS):
        problem = _reload(service, served, fingerprint)
        if problem is None:
            return
    if not plan["flip"] or not plan["old"]:
        raise CommandExecutionError(
            f"certificate {name}: {problem}; it is on disk, look at the journal of {service}"
        )
    try:
        _util("staged.point", str(home / "current"), plan["old"])
    except CommandExecutionError as err:
        raise CommandExecutionError(f"certificate {name}: {problem}; {err}") from None
    if not plan["intact"]:
        _util("certificate_store.forget", str(home), plan["version"])
    again = _reload(service, served, _fingerprint(home / plan["old"]))
    told = f"with the old one, too, {again}" if again else "the old one is live again"
    raise CommandExecutionError(f"certificate {name}: {problem}; {told}")


def _reload(service, served, fingerprint):
    """Reload a service; return why it does not serve a certificate, None if it does."""
    try:
        done = __salt__["service.reload"](service)
    except CommandExecutionError:  # several lines of systemd's
        done = False
    if not done:
        return f"{service} could not be reloaded"
    patience = float(__opts__.get("certificate.served_seconds") or SERVED_SECONDS)
    deadline = time.monotonic() + patience
    while (stale := _stale(served, fingerprint)) and time.monotonic() < deadline:
        time.sleep(POLL)
    return next((f"{place} still {told}" for place, told in stale.items()), None)


def _stale(served, fingerprint):
    """Return the sockets that do not serve a certificate, with what they do."""
    return {
        one["place"]: found.get("problem") or f"serves serial {found['serial']}"
        for one, found in zip(served, _looked_at(served, PROBE_SECONDS), strict=True)
        if found.get("fingerprint") != fingerprint
    }


def _looked_at(sockets, timeout):
    """Return of each socket the facts of what it serves, or why there are none as ``problem``."""
    found = _util("tls_probe.all_served", sockets, timeout)
    return [facts(one["pem"]) if "pem" in one else one for one in found]


def _sockets(given):
    return [_util("certificate_served.parse", one) for one in given or []]


# -- what is about to end ------------------------------------------------------------------------


def _stored():
    """Look at each bundle of pillar as if it were to be deployed."""
    found = []
    for name in __salt__["pillar.get"]("certificates", {}):
        one = {"name": name, "where": "pillar", "place": f"certificates:{name}"}
        try:
            bundle = _bundle(f"certificates:{name}")
            given = bundle["chain"], bundle["key"]
            found.append({**one, **_util("certificate_bundle.verify", *given, **_asked(bundle))})
        except CommandExecutionError as err:
            found.append({**one, "problem": str(err)})
    return found


def _on_disk(directory, wanted):
    """Read each bundle that is live in the directories that are given or that pillar names."""
    named = [one.get("directory") for one in __salt__["pillar.get"]("certificates", {}).values()]
    sofia = __salt__["pillar.get"]("freeswitch:tls_directory", SOFIA_DIRECTORY)
    directories = {directory, sofia, *named, *(one["directory"] for one in wanted)} - {None}
    found = []
    for path in sorted(path for each in directories for path in Path(each).glob("*/current")):
        one = {"name": path.parent.name, "where": "disk", "place": str(path)}
        problem = {"problem": f"{path}/chain.pem: cannot be read; apply its state again"}
        found.append({**one, **(_leaf(path) or problem)})
    return found


def _compared(one, looked):
    """Say what a socket serves, and whether that is what is on disk."""
    place = one["place"]
    told = {"name": one["certificate"] or place, "where": "served", "place": place, **looked}
    if "problem" in looked:
        return {**told, "problem": f"{place} {looked['problem']}"}
    live = one["directory"] and _fingerprint(Path(one["directory"]) / told["name"] / "current")
    if live and live != looked["fingerprint"]:
        wrong = f"{place} serves serial {looked['serial']}, not what is on disk; reload it"
        return {**told, "problem": wrong}
    return told


# -- small things --------------------------------------------------------------------------------


def _lock(who, needed=True):
    path = Path(__opts__.get("voice.state_dir") or STATE_DIR) / "certificate.lock"
    return __utils__["nodelock.hold"](who, path=str(path), needed=needed)


def _attempt(name, *arguments):
    """Call one of our utils for what the next run does if this one cannot."""
    with contextlib.suppress(CommandExecutionError):
        _util(name, *arguments)


def _util(name, *arguments, **keywords):
    """Call one of our utils; what it raises becomes one line."""
    try:
        return __utils__[name](*arguments, **keywords)
    except OSError as err:
        where = f"{err.filename}: " if err.filename else ""
        told = f"{where}{err.strerror}" if err.strerror else str(err)
        raise CommandExecutionError(told) from None
    except ValueError as err:
        raise CommandExecutionError(str(err)) from None
