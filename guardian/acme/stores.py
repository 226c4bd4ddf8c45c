"""Where certificates are kept for pillar: one write each, but for a pair of parameters."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from guardian.acme.bundle import AcmeError, Bundle, from_json
from guardian.acme.cloud import Cloud, CloudError

_ABSENT = "ResourceNotFoundException"


class Store(Protocol):
    """What keeps one certificate."""

    def read(self) -> Bundle | None:
        """Return what is kept; AcmeError when it cannot be said, or never could be written."""

    def write(self, bundle: Bundle) -> None:
        """Keep a bundle instead; AcmeError when it is not, and the old one stays."""

    def sources(self) -> list[str]:
        """Return the names by which pillar's secrets are declared to come from here."""


@dataclass(frozen=True)
class SecretsManager:
    """A secret ``{"key": …, "chain": …}``, whose versions change as a whole."""

    secret: str
    region: str

    def read(self) -> Bundle | None:
        call = self._call()
        try:
            call("describe_secret", SecretId=self.secret)
        except CloudError as err:
            if err.reason != _ABSENT:
                raise
            # Whoever makes it says which KMS key and policy it has; that is no work of ours.
            raise AcmeError(
                f"secret {self.secret} does not exist in {self.region}; create it empty"
            ) from None
        try:
            value = call("get_secret_value", SecretId=self.secret)
        except CloudError as err:
            if err.reason == _ABSENT:  # it has no version yet
                return None
            raise
        return from_json(value.get("SecretString", ""))

    def write(self, bundle: Bundle) -> None:
        self._call()("put_secret_value", SecretId=self.secret, SecretString=bundle.to_json())

    def _call(self) -> Cloud:
        return Cloud("secretsmanager", self.region, f"secret {self.secret} in {self.region}")

    def sources(self) -> list[str]:
        return [f"secretsmanager:{self.secret}"]


@dataclass(frozen=True)
class Parameters:
    """Two SecureString parameters, for pillar that reads a pair.

    Parameter Store has no write of two: between them the key is new and the chain is old. A node
    that reads the pair then refuses it, for the key is not the leaf's, and keeps what it serves.
    """

    key: str
    chain: str
    region: str

    def read(self) -> Bundle | None:
        call = Cloud("ssm", self.region, f"parameters {self.key}, {self.chain} in {self.region}")
        answer = call("get_parameters", Names=[self.key, self.chain], WithDecryption=True)
        found = {one["Name"]: one["Value"] for one in answer["Parameters"]}
        if found.keys() != {self.key, self.chain}:
            return None
        return Bundle(key=found[self.key], chain=found[self.chain])

    def write(self, bundle: Bundle) -> None:
        for name, value in ((self.key, bundle.key), (self.chain, bundle.chain)):
            Cloud("ssm", self.region, f"parameter {name} in {self.region}")(
                "put_parameter",
                Name=name,
                Value=value,
                Type="SecureString",
                Tier="Intelligent-Tiering",  # a chain may have more than the 4 KB of Standard
                Overwrite=True,
            )

    def sources(self) -> list[str]:
        return [f"parameter:{self.key}", f"parameter:{self.chain}"]


@dataclass(frozen=True)
class File:
    """A file of the master, 0600, ``{"key": …, "chain": …}``: replaced as a whole by one rename."""

    path: Path

    def read(self) -> Bundle | None:
        text = read_private(self.path)
        return None if text is None else from_json(text)

    def write(self, bundle: Bundle) -> None:
        write_private(self.path, bundle.to_json())

    def sources(self) -> list[str]:
        return [f"file:{self.path}"]


def read_private(path: Path) -> str | None:
    """Return a file's text, None when there is none; AcmeError when others may read it too."""
    try:
        with path.open(errors="replace") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise AcmeError(f"{path} may be read by others; chmod 600 it")
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as err:
        raise AcmeError(f"{path}: {err.strerror}") from None


def write_private(path: Path, text: str) -> None:
    """Replace a file that only its owner may read, at once and durably; AcmeError if it is not."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary.unlink(missing_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as err:
        temporary.unlink(missing_ok=True)
        raise AcmeError(f"{path}: {err.strerror}") from None
