"""What is known already: sealed entries on tmpfs, shared by all processes of a master."""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from guardian.secrets import keyring, place

_NONCE = 12
_MISS = ".miss"
_keys: dict[tuple[int, int], bytes] = {}


@dataclass(frozen=True)
class Entry:
    """An answer of AWS: a value, or (with a ``reason``) why there is none.

    Times are of the monotonic clock, which all processes share and no clock step moves; ``at`` is
    when it was asked, so that what was forgotten meanwhile counts as old.
    """

    name: str
    at: float
    wanted: float
    value: str = ""
    reason: str = ""
    until: float = 0.0


class Store:
    """Entries by name, what was forgotten, and which minion was given what."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self._id = place.prepare(self.directory)
        self._key = _keys.get(self._id) or self._load_key()

    def value(self, name: str) -> Entry | None:
        """Return the newest value of a name, however old."""
        return self._read(self._file(name))

    def miss(self, name: str) -> Entry | None:
        """Return why there was no value, as long as that is remembered."""
        entry = self._read(self._file(name, _MISS))
        return entry if entry and entry.until > time.monotonic() else None

    def put(self, entry: Entry) -> None:
        """Remember an answer in place of the one before."""
        file, miss = self._file(entry.name), self._file(entry.name, _MISS)
        if entry.reason:
            self._write(miss, entry)
            file.unlink(missing_ok=True)
        else:
            self._write(file, entry)
            miss.unlink(missing_ok=True)

    def older(self, seconds: float) -> Iterator[Entry]:
        """Yield values that were asked for so long ago or longer, the oldest first."""
        now = time.time()
        for moment, file in sorted(self._items()):
            if moment > now - seconds:
                return
            if not file.name.endswith(_MISS) and (entry := self._read(file)):
                yield entry

    def purge(self, seconds: float) -> None:
        """Remove whatever is that old."""
        before = time.time() - seconds
        for moment, file in self._items():
            if moment < before:
                file.unlink(missing_ok=True)
        for file in (self.directory / "forgotten").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if file.stat().st_mtime < before:
                    file.unlink()

    def forget(self, key: str) -> None:
        """Let nothing asked for before now count any more, of what goes by ``key``."""
        place.write(self._forgotten(key), repr(time.monotonic()).encode())

    def forgotten(self, key: str) -> float:
        """Return when ``key`` was last forgotten, 0 for never."""
        try:
            return float(self._forgotten(key).read_bytes())
        except FileNotFoundError:
            return 0.0

    def note(self, minion_id: str, keys: Iterable[str]) -> None:
        """Remember what a minion has a use for; written only when that changed."""
        file = self.directory / "users" / minion_id
        content = json.dumps(sorted(set(keys))).encode()
        with contextlib.suppress(FileNotFoundError):
            if file.read_bytes() == content:
                return
        place.write(file, content)

    def users(self) -> dict[str, list[str]]:
        """Return what each minion had a use for when its pillar was last compiled."""
        found = {}
        for file in (self.directory / "users").iterdir():
            if not file.name.startswith("."):
                with contextlib.suppress(FileNotFoundError):
                    found[file.name] = json.loads(file.read_bytes())
        return found

    def _items(self) -> Iterator[tuple[float, Path]]:
        for file in (self.directory / "items").iterdir():
            with contextlib.suppress(FileNotFoundError):
                yield file.stat().st_mtime, file

    def _file(self, name: str, ending: str = "") -> Path:
        return self.directory / "items" / (self.digest(name) + ending)

    def _forgotten(self, key: str) -> Path:
        return self.directory / "forgotten" / self.digest(key)

    def digest(self, name: str) -> str:
        """Return what a name is filed under."""
        # Names tell something too: without the key nobody can try one out.
        names = hmac.digest(self._key, b"names", "sha256")
        return hmac.digest(names, name.encode(), "sha256").hex()

    def _write(self, file: Path, entry: Entry) -> None:
        content = json.dumps(vars(entry)).encode()
        nonce = os.urandom(_NONCE)
        place.write(file, nonce + AESGCM(self._key).encrypt(nonce, content, file.name.encode()))

    def _read(self, file: Path) -> Entry | None:
        """Return an entry; None when there is none, or one that was not sealed with our key."""
        try:
            sealed = file.read_bytes()
            content = AESGCM(self._key).decrypt(
                sealed[:_NONCE], sealed[_NONCE:], file.name.encode()
            )
        except FileNotFoundError:
            return None
        except (InvalidTag, ValueError):
            # Tampered with or cut short; or the key is another by now. Asking anew is safe.
            self._key = self._load_key()
            return None
        return Entry(**json.loads(content))

    def _load_key(self) -> bytes:
        with place.locked(self.directory / "key.lock", time.monotonic() + 5):
            key = keyring.load(self.directory, f"{self._id[0]}:{self._id[1]}")
        _keys[self._id] = key
        return key
