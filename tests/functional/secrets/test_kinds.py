"""Every kind of source, read from AWS as it answers; and nothing of it in any log."""

import base64
import datetime
import io
import json
import logging

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from guardian.secrets import aws as ours
from guardian.secrets import readers
from guardian.secrets.broker import Broker
from guardian.secrets.declarations import Source
from guardian.secrets.failures import DENIED, NOT_FOUND, UNFIT, SecretError
from guardian.secrets.wants import Want

REGION = "eu-west-2"
CANARY = "c4nary-value"


@pytest.fixture
def broker(aws, memory):
    return Broker(memory / "secrets", REGION)


def want(kind, name, version="", context=()):
    return Want(Source(kind, name, version, tuple(context)), REGION)


def read(broker, *wants):
    answers = broker.get(list(wants))
    return answers[wants[0]] if len(wants) == 1 else list(answers.values())


def refused(answer, reason):
    assert isinstance(answer, SecretError), "it was given"
    assert answer.reason == reason
    assert CANARY not in str(answer)
    return str(answer)


def test_list_of_strings_is_no_string(aws, broker):
    aws.client("ssm").put_parameter(Name="x", Value=f"{CANARY},b", Type="StringList")
    assert "is a StringList" in refused(read(broker, want("parameter", "x")), UNFIT)


def test_plain_string_is_as_good_as_a_secure_one(aws, broker):
    aws.client("ssm").put_parameter(Name="x", Value="plain", Type="String")
    assert read(broker, want("parameter", "x")) == "plain"


def test_managed_secrets_are_read_in_twenties(aws, broker):
    client = aws.client("secretsmanager")
    for number in range(25):
        client.create_secret(Name=f"voice/{number}", SecretString=f"v{number}")
    aws.forget_calls()
    wants = [want("secretsmanager", f"voice/{number}") for number in range(25)]
    assert read(broker, *wants) == [f"v{number}" for number in range(25)]
    assert aws.calls() == {"secretsmanager:BatchGetSecretValue": 2}


def test_managed_secret_goes_by_name_and_by_arn(aws, broker):
    arn = aws.client("secretsmanager").create_secret(Name="x", SecretString="v")["ARN"]
    assert read(broker, want("secretsmanager", "x"), want("secretsmanager", arn)) == ["v", "v"]


def test_managed_secret_is_pinned_by_version_and_stage(aws, broker):
    client = aws.client("secretsmanager")
    first = client.create_secret(Name="x", SecretString="first")["VersionId"]
    client.put_secret_value(SecretId="x", SecretString="second")
    found = read(broker, *(want("secretsmanager", "x", pin) for pin in (first, "AWSCURRENT")))
    assert found == ["first", "second"]
    gone = read(broker, want("secretsmanager", "x", "NOSUCHSTAGE"))
    assert "gone, or never there, in eu-west-2" in refused(gone, UNFIT)


def test_managed_secrets_that_cannot_be_had_keep_back_no_other(aws, broker):
    client = aws.client("secretsmanager")
    client.create_secret(Name="good", SecretString="v")
    client.create_secret(Name="binary", SecretBinary=CANARY.encode())
    client.create_secret(Name="deleted", SecretString=CANARY)
    client.delete_secret(SecretId="deleted")
    names = ("good", "binary", "deleted", "absent")
    good, binary, deleted, absent = read(broker, *(want("secretsmanager", n) for n in names))
    assert good == "v"
    assert "is binary" in refused(binary, UNFIT)
    assert "marked for deletion" in refused(deleted, UNFIT)
    assert "not found in eu-west-2" in refused(absent, NOT_FOUND)


def test_managed_secrets_are_read_one_by_one_where_batches_are_denied(aws, broker):
    aws.client("secretsmanager").create_secret(Name="x", SecretString="v")
    aws.fault("deny", "secretsmanager:BatchGetSecretValue")
    found, absent = read(broker, want("secretsmanager", "x"), want("secretsmanager", "y"))
    assert found == "v"
    refused(absent, NOT_FOUND)
    aws.fault("deny", "secretsmanager:GetSecretValue")
    assert "denied by AWS" in refused(read(broker, want("secretsmanager", "z")), DENIED)


def encrypted(aws, content, **context):
    client = aws.client("kms")
    key = client.create_key()["KeyMetadata"]["KeyId"]
    blob = client.encrypt(KeyId=key, Plaintext=content, EncryptionContext=context)
    return base64.b64encode(blob["CiphertextBlob"]).decode()


def test_ciphertext_is_decrypted_for_its_own_region_and_role_alone(aws, broker):
    text = encrypted(aws, CANARY, region="euw2", role="pbx")
    own = [("region", "euw2"), ("role", "pbx")]
    assert read(broker, want("ciphertext", text, context=own)) == CANARY
    for other in ([("region", "euw2"), ("role", "sip")], [("region", "use2"), ("role", "pbx")]):
        told = refused(read(broker, want("ciphertext", text, context=other)), UNFIT)
        assert told.startswith("was not encrypted for region ")


def test_ciphertext_that_is_none_is_refused(aws, broker):
    own = [("region", "euw2"), ("role", "pbx")]
    binary = encrypted(aws, b"\xff\xfe", region="euw2", role="pbx")
    assert "is binary" in refused(read(broker, want("ciphertext", binary, context=own)), UNFIT)
    assert "base64" in refused(read(broker, want("ciphertext", "AAA", context=own)), UNFIT)
    aws.fault("deny", "kms:Decrypt")
    refused(read(broker, want("ciphertext", "AAAA", context=own)), DENIED)


def certificate(subject, issuer, key, signer):
    def name(word):
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, word)])

    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder(name(issuer), name(subject), key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=90))
        .sign(signer, hashes.SHA256())
    )


def pem(*certificates):
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)


@pytest.fixture
def exportable(aws):
    """An exportable certificate in ACM; ARN, and what was put in."""
    root, authority, leaf = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    own = certificate("voice.invalid", "authority", leaf, authority)
    between = certificate("authority", "root", authority, root)
    above = certificate("root", "root", root, root)
    key = leaf.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return own, between, above, key


class _Exports:
    """Answers as ACM does: moto exports only certificates that it has made itself."""

    region = REGION

    def __init__(self, own, between, above, key, spoil=False):
        self._found = {"Certificate": pem(own).decode()}
        self._found["CertificateChain"] = pem(between, above).decode()
        self._key, self._spoil = serialization.load_pem_private_key(key, None), spoil

    def __call__(self, operation, CertificateArn, Passphrase):  # noqa: N803
        assert operation == "export_certificate"
        self.passphrase = Passphrase
        key = self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"other" if self._spoil else Passphrase),
        )
        return {**self._found, "PrivateKey": key.decode()}


def test_certificate_is_exported_with_its_chain_less_the_root_and_its_key_in_the_clear(exportable):
    own, between, _, key = exportable
    exports = _Exports(*exportable)
    arn = "arn:aws:acm:eu-west-2:123456789012:certificate/x"
    ((_, answer),) = readers.certificates(exports, [want("acm", arn)])
    found = json.loads(answer)
    assert found == {"chain": pem(own, between).decode(), "key": key.decode()}
    assert exports.passphrase.decode() not in answer
    ((_, answer),) = readers.certificates(_Exports(*exportable, spoil=True), [want("acm", arn)])
    assert "was exported damaged" in refused(answer, UNFIT)


def test_certificate_of_acm_comes_by_the_same_way(aws, broker):
    client = aws.client("acm")
    arn = client.request_certificate(DomainName="voice.invalid", Options={"Export": "ENABLED"})[
        "CertificateArn"
    ]
    found = json.loads(read(broker, want("acm", arn)))
    assert found["chain"].startswith("-----BEGIN CERTIFICATE-----")
    assert found["key"].startswith("-----BEGIN PRIVATE KEY-----")
    absent = arn[:-4] + "ffff"
    refused(read(broker, want("acm", absent)), NOT_FOUND)
    aws.fault("deny", "acm:*")
    refused(read(broker, want("acm", arn[:-4] + "eeee")), DENIED)


def test_no_log_holds_a_value_whatever_levels_are_set(aws, broker):
    for name in ("", "botocore", "botocore.parsers", "botocore.endpoint", "urllib3", "boto3"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    logging.getLogger().addHandler(handler)
    try:
        aws.parameters({"x": CANARY})
        aws.client("ssm").get_parameter(Name="x", WithDecryption=True)
        assert CANARY in said.getvalue(), "botocore logs answers, or this test shows nothing"
        for name in ("botocore.parsers", "botocore.endpoint"):  # somebody insists
            logging.getLogger(name).setLevel(logging.DEBUG)
        said.truncate(0)
        ours._clients.clear()
        aws.client("secretsmanager").create_secret(Name="x", SecretString="managed-c4nary-value")
        text = encrypted(aws, CANARY, region="euw2")
        arn = aws.client("acm").request_certificate(
            DomainName="voice.invalid", Options={"Export": "ENABLED"}
        )["CertificateArn"]
        said.seek(0)
        said.truncate(0)
        assert read(broker, want("parameter", "x")) == CANARY
        assert CANARY in read(broker, want("secretsmanager", "x"))
        assert read(broker, want("ciphertext", text, context=[("region", "euw2")])) == CANARY
        key = json.loads(read(broker, want("acm", arn)))["key"]
        logging.getLogger("botocore.parsers").setLevel(logging.DEBUG)
        broker.forget(["parameter:x"])
        assert read(broker, want("parameter", "x")) == CANARY
        assert CANARY not in said.getvalue()
        assert base64.b64encode(CANARY.encode()).decode() not in said.getvalue()
        assert key.splitlines()[1] not in said.getvalue()
    finally:
        logging.getLogger().removeHandler(handler)
        for name in ("", "botocore", "botocore.parsers", "botocore.endpoint", "urllib3", "boto3"):
            logging.getLogger(name).setLevel(logging.WARNING if not name else logging.NOTSET)
