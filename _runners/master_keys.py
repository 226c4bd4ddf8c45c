"""Keep what makes a master this master: its own keys, and those of the minions that it accepted.

All else of a master is in the repository. One that is rebuilt with these is the one its minions
know, so nobody accepts a key anew. Who holds a backup can be the master: it is a file of mode 0600,
or an object in S3 under a KMS key.
"""

from __future__ import annotations

import hashlib
import io
import os
import pwd
import re
import tarfile
from pathlib import Path

from salt.exceptions import CommandExecutionError

# Not keys that wait, which anybody can send; but those that were refused stay refused.
_NAME = re.compile(r"(?:master|master_sign)\.(?:pem|pub)|minions(?:_denied|_rejected)?/[^/.][^/]*")
_S3 = re.compile(r"s3://(?P<bucket>[^/]+)/(?P<key>.+)")
_LIMIT = 64 * 1024 * 1024


def backup(where, kms_key="", region=""):
    """
    Write the keys of this master to a path, or to ``s3://bucket/key`` under a KMS key.

    Returns ``{"where", "master", "minions"}``: the SHA-256 of the master's public key, and how many
    minions it has accepted.

    CLI Example:

    .. code-block:: bash

        salt-run master_keys.backup /root/master-keys.tar.gz
        salt-run master_keys.backup s3://keys/euw2.tar.gz kms_key=alias/masters region=eu-west-2
    """
    pki = Path(__opts__["pki_dir"])
    held = {
        name: path.read_bytes()
        for path in sorted(pki.rglob("*"))
        if path.is_file() and _NAME.fullmatch(name := str(path.relative_to(pki)))
    }
    if "master.pem" not in held:
        raise CommandExecutionError(f"{pki}: has no master.pem; has the master ever started?")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in held.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o600
            tar.addfile(entry, io.BytesIO(content))
    if place := _S3.fullmatch(where):
        if not kms_key:
            raise CommandExecutionError("say kms_key=…: whoever reads these keys is the master")
        _s3(region, "put_object", **place.groupdict(), Body=packed.getvalue(),
            ServerSideEncryption="aws:kms", SSEKMSKeyId=kms_key)  # fmt: skip
    else:
        _write(Path(where), packed.getvalue(), 0o600)
    return _told(where, held)


def restore(where, region="", force=False):
    """
    Give a new master the keys of the old one, before it is first started (docs/masters.md).

    Keys that it has already are replaced only with ``force``: its minions would turn away from it.

    CLI Example:

    .. code-block:: bash

        salt-run master_keys.restore /root/master-keys.tar.gz
        salt-run master_keys.restore s3://keys/euw2.tar.gz region=eu-west-2
    """
    pki = Path(__opts__["pki_dir"])
    held = _unpacked(where, _read(where, region))
    own = pki / "master.pem"
    if own.exists() and own.read_bytes() != held["master.pem"] and not force:
        raise CommandExecutionError(
            f"{own}: this master has another key already; stop it, and say force=True to replace it"
        )
    owner = pwd.getpwnam(__opts__["user"])
    for name, content in held.items():
        path = pki / name
        for directory in (pki, path.parent):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.chown(directory, owner.pw_uid, owner.pw_gid)
        _write(path, content, 0o400 if name.endswith(".pem") else 0o644)
        os.chown(path, owner.pw_uid, owner.pw_gid)
    return _told(where, held)


def _told(where, held):
    return {
        "where": where,
        "master": hashlib.sha256(held["master.pub"]).hexdigest(),
        "minions": sum(name.startswith("minions/") for name in held),
    }


def _read(where, region):
    if place := _S3.fullmatch(where):
        return _s3(region, "get_object", **place.groupdict())["Body"].read(_LIMIT)
    try:
        return Path(where).read_bytes()
    except OSError as problem:
        raise CommandExecutionError(f"{where}: {problem.strerror}") from None


def _unpacked(where, packed):
    """Return the keys of a backup by name; nothing else may be in it."""
    held = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as tar:
            for entry in tar:
                if not entry.isfile() or not _NAME.fullmatch(entry.name) or entry.size > 65536:
                    raise CommandExecutionError(
                        f"{where}: {entry.name!r} is none of a master's keys"
                    )
                held[entry.name] = tar.extractfile(entry).read()
    except (tarfile.TarError, EOFError, OSError):
        raise CommandExecutionError(f"{where}: is no backup, or half of one") from None
    if missing := {"master.pem", "master.pub"} - set(held):
        raise CommandExecutionError(f"{where}: lacks {', '.join(sorted(missing))}")
    return held


def _write(path, content, mode):
    fresh = path.with_name(f".{path.name}.new")
    try:
        fresh.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(fresh, flags, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as problem:
        raise CommandExecutionError(f"{path}: {problem.strerror}") from None


def _s3(region, operation, bucket, key, **arguments):
    # Not before: the library takes a second to import, and a path needs none of it.
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        client = boto3.client("s3", region_name=region or None)
        return getattr(client, operation)(Bucket=bucket, Key=key, **arguments)
    except ClientError as problem:
        code = problem.response.get("Error", {}).get("Code", "?")
        raise CommandExecutionError(f"s3://{bucket}/{key}: {operation}: {code}") from None
    except BotoCoreError as problem:
        raise CommandExecutionError(f"s3://{bucket}/{key}: {type(problem).__name__}") from None
