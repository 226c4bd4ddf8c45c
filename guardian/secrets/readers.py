"""How each kind of source is read, in as few calls as AWS allows.

A reader yields ``(want, answer)`` as answers come, so that what one call brought is kept even when
the next fails. It may yield what nobody wanted and came along; it raises SecretError (busy) alone.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import json
import math
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from botocore.exceptions import ClientError
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from guardian.secrets.aws import Caller, code, refusal
from guardian.secrets.declarations import ACM, CIPHERTEXT, PARAMETER, SECRET, Source
from guardian.secrets.failures import NOT_FOUND, UNFIT, SecretError
from guardian.secrets.wants import Answer, Want

TREE, PLAIN = "tree", "plain"  # all of a path, and one parameter, neither decrypted
_TEN, _TWENTY = 10, 20  # what AWS takes in one call: names of parameters, ids of secrets


Answers = Iterator[tuple[Want, Answer]]


def parameters(call: Caller, wants: Sequence[Want]) -> Answers:
    """Read parameters: a path at once where a grant opens it and that is worth it, else in tens."""
    left = dict.fromkeys(wants)
    groups: dict[str, list[Want]] = defaultdict(list)
    for want in wants:
        if want.prefix and not want.source.version:
            groups[want.prefix].append(want)
    for prefix, group in groups.items():
        if len(group) > _TEN:
            for want, answer in _below(call, prefix, group[0], 2 * math.ceil(len(group) / _TEN)):
                left.pop(want, None)
                yield want, answer
    for batch in _batches(list(left)):
        yield from _halving(call, batch, _ten_parameters)


def plain(call: Caller, wants: Sequence[Want]) -> Answers:
    """Read parameters that are no secrets, by version, with all that is said of them."""
    for batch in _batches(wants):
        yield from _halving(call, batch, _ten_plain)


def trees(call: Caller, wants: Sequence[Want]) -> Answers:
    """Read all that is below a path and is no secret."""
    for want in wants:
        found: list[object] = []
        try:
            for page in _pages(call, want.source.name, decrypted=False):
                found += [row(one) for one in page if one["Type"] != "SecureString"]
        except ClientError as problem:
            yield want, refusal(problem)
        else:
            empty = SecretError(NOT_FOUND, f"nothing below it in {want.region}")
            yield want, json.dumps(found) if found else empty


def managed(call: Caller, wants: Sequence[Want]) -> Answers:
    """Read secrets of Secrets Manager: in twenties, and one by one those pinned to a version."""
    newest = [want for want in wants if not want.source.version]
    for want in wants:
        if want.source.version:
            yield want, _managed(call, want)
    for batch in _chunks(newest, _TWENTY):
        if len(batch) == 1:
            yield batch[0], _managed(call, batch[0])
        else:
            yield from _twenty_managed(call, batch)


def ciphertexts(call: Caller, wants: Sequence[Want]) -> Answers:
    """Decrypt with KMS, for the region and role that it was encrypted for and no other."""
    for want in wants:
        yield want, _decrypted(call, want)


def certificates(call: Caller, wants: Sequence[Want]) -> Answers:
    """Export certificates of ACM; the key is decrypted in memory, its passphrase is never kept."""
    for want in wants:
        yield want, _exported(call, want)


READERS: dict[str, tuple[str, Callable[[Caller, Sequence[Want]], Answers]]] = {
    PARAMETER: ("ssm", parameters),
    PLAIN: ("ssm", plain),
    TREE: ("ssm", trees),
    SECRET: ("secretsmanager", managed),
    CIPHERTEXT: ("kms", ciphertexts),
    ACM: ("acm", certificates),
}


def row(parameter: dict[str, Any]) -> list[object]:
    """Return what is kept of a parameter that is no secret: name, value, version, type."""
    return [parameter[key] for key in ("Name", "Value", "Version", "Type")]


def _below(call: Caller, prefix: str, like: Want, pages: int) -> Answers:
    """Yield what lies below a path, up to so many pages; nothing where that is denied."""
    try:
        for page in itertools.islice(_pages(call, prefix, decrypted=True), pages):
            for one in page:
                source = Source(PARAMETER, one["Name"])
                yield replace(like, source=source), _text(one)
    except ClientError:  # they may still be read by name; that says what is denied
        return


def _pages(call: Caller, path: str, decrypted: bool) -> Iterator[list[dict[str, Any]]]:
    more: dict[str, str] = {}
    while True:
        page = call(
            "get_parameters_by_path",
            Path=path.rstrip("/"),
            Recursive=True,
            WithDecryption=decrypted,
            MaxResults=_TEN,
            **more,
        )
        yield page["Parameters"]
        if not page.get("NextToken"):
            return
        more = {"NextToken": page["NextToken"]}


def _halving(
    call: Caller, batch: Sequence[Want], read: Callable[[Caller, Sequence[Want]], Answers]
) -> Answers:
    """Read a batch; AWS refuses all of it for one name, so halve it until that one is alone."""
    try:
        answers = list(read(call, batch))
    except ClientError as problem:
        if len(batch) == 1:
            yield batch[0], refusal(problem)
            return
        middle = len(batch) // 2
        yield from _halving(call, batch[:middle], read)
        yield from _halving(call, batch[middle:], read)
    else:
        yield from answers


def _ten_parameters(call: Caller, batch: Sequence[Want]) -> Answers:
    return _ten(call, batch, True, _text)


def _ten_plain(call: Caller, batch: Sequence[Want]) -> Answers:
    return _ten(call, batch, False, lambda one: json.dumps(row(one)))


def _ten(
    call: Caller, batch: Sequence[Want], decrypted: bool, text: Callable[[dict[str, Any]], Answer]
) -> Answers:
    names = [":".join(filter(None, (one.source.name, one.source.version))) for one in batch]
    page = call("get_parameters", Names=names, WithDecryption=decrypted)
    found = {one["Name"]: one for one in page["Parameters"]}
    for want in batch:
        one = found.get(want.source.name)
        yield want, _missing(want) if one is None else text(one)


def _missing(want: Want) -> SecretError:
    if want.source.version:  # of a pin that names nothing, somebody must know
        return SecretError(UNFIT, f"gone, or never there, in {want.region}")
    return SecretError(NOT_FOUND, f"not found in {want.region}")


def _text(parameter: dict[str, Any]) -> Answer:
    if parameter["Type"] == "StringList":
        return SecretError(UNFIT, "is a StringList; store it as a SecureString")
    return str(parameter["Value"])


def _batches(wants: Sequence[Want]) -> Iterator[list[Want]]:
    """Cut wants into tens, with no name twice in one: AWS tells versions apart by nothing else."""
    rows: dict[str, list[Want]] = defaultdict(list)
    for want in wants:
        rows[want.source.name].append(want)
    for turn in itertools.zip_longest(*rows.values()):
        yield from _chunks([want for want in turn if want is not None], _TEN)


def _chunks(wants: Sequence[Want], size: int) -> Iterator[list[Want]]:
    for first in range(0, len(wants), size):
        yield list(wants[first : first + size])


def _managed(call: Caller, want: Want) -> Answer:
    pin: dict[str, str] = {}
    if want.source.version:  # a version's id has 32 to 64 characters, a stage's name fewer
        kind = "VersionId" if len(want.source.version) >= 32 else "VersionStage"
        pin = {kind: want.source.version}
    try:
        return _string(call("get_secret_value", SecretId=want.source.name, **pin))
    except ClientError as problem:
        return _managed_refusal(want, code(problem)) or refusal(problem)


def _managed_refusal(want: Want, word: str) -> SecretError | None:
    if word == "ResourceNotFoundException":
        return _missing(want)
    if word == "InvalidRequestException":
        return SecretError(UNFIT, f"is marked for deletion, or has no value, in {want.region}")
    return None


def _twenty_managed(call: Caller, batch: Sequence[Want]) -> Answers:
    try:
        page = call("batch_get_secret_value", SecretIdList=[one.source.name for one in batch])
    except ClientError:
        # Denied in a batch, or no batch at all: one by one each says for itself.
        for want in batch:
            yield want, _managed(call, want)
        return
    found = {one["Name"]: one for one in page["SecretValues"]}
    found |= {one["ARN"]: one for one in page["SecretValues"]}
    told = {one["SecretId"]: one.get("ErrorCode", "?") for one in page.get("Errors", [])}
    for want in batch:
        name = want.source.name
        if name in found:
            yield want, _string(found[name])
        elif (refused := _managed_refusal(want, told.get(name, ""))) is not None:
            yield want, refused
        else:
            yield want, _managed(call, want)


def _string(answer: dict[str, Any]) -> Answer:
    if "SecretString" not in answer:
        return SecretError(UNFIT, "is binary; store it as text")
    return str(answer["SecretString"])


def _decrypted(call: Caller, want: Want) -> Answer:
    try:
        blob = base64.b64decode(want.source.name, validate=True)
        content = call("decrypt", CiphertextBlob=blob, EncryptionContext=dict(want.source.context))
        return str(content["Plaintext"], "utf-8")
    except UnicodeDecodeError:
        return SecretError(UNFIT, "is binary")
    except binascii.Error:
        return SecretError(UNFIT, "is not base64")
    except ClientError as problem:
        if code(problem) == "InvalidCiphertextException":
            said = " and ".join(f"{key} {value}" for key, value in want.source.context)
            return SecretError(UNFIT, f"was not encrypted for {said}, or is damaged")
        return refusal(problem)


def _exported(call: Caller, want: Want) -> Answer:
    passphrase = secrets.token_hex(32).encode()
    try:
        found = call("export_certificate", CertificateArn=want.source.name, Passphrase=passphrase)
    except ClientError as problem:
        if code(problem) == "ResourceNotFoundException":
            return _missing(want)
        return refusal(problem)
    try:
        key = serialization.load_pem_private_key(found["PrivateKey"].encode(), passphrase)
        chain = x509.load_pem_x509_certificates(
            "\n".join([found["Certificate"], found.get("CertificateChain", "")]).encode()
        )
    except (ValueError, TypeError):
        return SecretError(UNFIT, "was exported damaged")
    pem = serialization.Encoding.PEM
    # ACM appends the root of its authority, which no client needs to be sent.
    sent = [one for number, one in enumerate(chain) if not number or one.issuer != one.subject]
    return json.dumps(
        {
            "chain": "".join(one.public_bytes(pem).decode() for one in sent),
            "key": key.private_bytes(
                pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ).decode(),
        }
    )
