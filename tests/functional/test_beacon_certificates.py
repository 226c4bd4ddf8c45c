"""The certificate beacon, run by Salt's own beacon machinery with the pillar's configuration."""

import datetime

import pytest
import salt.beacons
import salt.config
import salt.loader
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.functional.test_pillar import Compiler
from tests.support.loading import REPOSITORY

NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "voice.lab.invalid")])


def deploy(directory, name, days):
    """A bundle as the certificate state leaves it, that ends in so many days."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    leaf = (
        x509.CertificateBuilder()
        .subject_name(NAME)
        .issuer_name(NAME)
        .public_key(key.public_key())
        .serial_number(4711)
        .not_valid_before(now - datetime.timedelta(days=90))
        .not_valid_after(now + datetime.timedelta(days=days, hours=1))
        .sign(key, hashes.SHA256())
    )
    version = directory / name / "0123456789abcdef"
    version.mkdir(parents=True)
    (version / "chain.pem").write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    (directory / name / "current").symlink_to(version.name)


@pytest.fixture
def look(tmp_path):
    """Look once, with these settings."""

    def run(*settings):
        opts = salt.config.DEFAULT_MINION_OPTS.copy()
        opts.update(
            id="sip-01.lab-local",
            cachedir=str(tmp_path / "cache"),
            extension_modules=str(tmp_path / "extmods"),
            module_dirs=[str(REPOSITORY)],
            grains={},
            conf_file=str(tmp_path / "minion"),
        )
        functions = salt.loader.minion_mods(opts)
        config = {"certificate_expiry": list(settings)}
        return salt.beacons.Beacon(opts, functions).process(config, {})

    return run


def test_only_what_ends_soon_is_told(look, tmp_path):
    for name, days in (("soon", 5), ("later", 60), ("ended", -3)):
        deploy(tmp_path / "tls", name, days)
    events = {
        e["data"]["name"]: e for e in look({"directory": str(tmp_path / "tls")}, {"days": 21})
    }
    assert set(events) == {"soon", "ended"}
    assert events["soon"]["tag"] == "salt/beacon/sip-01.lab-local/certificate_expiry/soon"
    assert events["soon"]["data"]["days_left"] == 5
    assert events["soon"]["data"]["serial"] == "1267"
    assert events["ended"]["data"]["days_left"] < 0


def test_damaged_bundle_is_told_and_hides_no_other(look, tmp_path):
    deploy(tmp_path / "tls", "good", 5)
    deploy(tmp_path / "tls", "bad", 5)
    (tmp_path / "tls" / "bad" / "current" / "chain.pem").write_text("damaged")
    told = {e["data"]["name"]: e["data"] for e in look({"directory": str(tmp_path / "tls")})}
    assert told["bad"]["problem"].endswith("cannot be read; apply its state again")
    assert told["good"]["days_left"] == 5


def test_nothing_deployed_is_nothing_to_say(look, tmp_path):
    assert look({"directory": str(tmp_path / "none")}) == []


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ({"days": 0}, "whole number"),
        ({"days": True}, "whole number"),
        ({"directory": "x"}, "absolute"),
    ],
)
def test_bad_settings_are_refused(look, tmp_path, setting, why, caplog):
    assert look(setting) == []
    assert why in caplog.text


def test_every_node_is_told_to_look(tmp_path):
    settings = Compiler(tmp_path)("pbx-01.lab-local")["beacons"]["certificate_expiry"]
    assert {"directory": "/etc/voice/tls"} in settings
