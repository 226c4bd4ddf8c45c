"""The voice repository: `freeswitch` and `opensips` packages built from the twins, signed.

A twin's directory holds `package/`, the file tree of the package with its DEBIAN/ folder, and
the Python files that go to /usr/lib/<name>/ with those of twins/common/. A file `modules` names
packages that are empty, for what the real daemon has apart is in the twin itself.
"""

import hashlib
import shutil
import tempfile
from pathlib import Path

from lab.names import CACHE, REPOSITORY
from lab.progress import say
from lab.shell import run

TWINS = REPOSITORY / "lab" / "twins"
SUITE, COMPONENT = "bookworm", "main"
_SIGNER = "Guardian lab <lab@guardian.invalid>"


def repository() -> Path:
    """Return the signed repository's directory, building it when a twin has changed."""
    directory = CACHE / f"voice-{_digest()}"
    if directory.is_dir():
        return directory
    say("building the freeswitch and opensips packages and their signed repository")
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="voice.") as temporary:
        unfinished = Path(temporary) / "repository"
        pool = unfinished / "pool"
        pool.mkdir(parents=True)
        for twin in _twins():
            _build(twin, Path(temporary) / twin.name, pool)
            for module in _modules(twin):
                _build_empty(module, twin, Path(temporary) / module, pool)
        _index(unfinished)
        _sign(unfinished, Path(temporary) / "gnupg")
        unfinished.rename(directory)
    for stale in CACHE.glob("voice-*"):
        if stale != directory:
            shutil.rmtree(stale, ignore_errors=True)
    return directory


def _twins() -> list[Path]:
    return sorted(path.parent for path in TWINS.glob("*/package"))


def _digest() -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in TWINS.rglob("*") if p.is_file() and p.suffix != ".pyc"):
        digest.update(f"{path.relative_to(TWINS)} {path.stat().st_mode}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _build(twin: Path, tree: Path, pool: Path) -> None:
    shutil.copytree(twin / "package", tree, symlinks=True)
    library = tree / "usr" / "lib" / twin.name
    library.mkdir(parents=True, exist_ok=True)
    for source in (*twin.glob("*.py"), *(TWINS / "common").glob("*.py")):
        shutil.copy(source, library)
    for script in (tree / "DEBIAN").iterdir():
        script.chmod(0o755 if script.suffix == "" and script.name in _SCRIPTS else 0o644)
    _pack(tree, pool)


def _modules(twin: Path) -> list[str]:
    named = twin / "modules"
    return named.read_text().split() if named.exists() else []


def _build_empty(name: str, twin: Path, tree: Path, pool: Path) -> None:
    """A package without files, of the twin's own version."""
    (tree / "DEBIAN").mkdir(parents=True)
    control = (twin / "package/DEBIAN/control").read_text()
    depends = f"Depends: {twin.name}"
    lines = [
        line
        for line in control.replace(f"Package: {twin.name}\n", f"Package: {name}\n").splitlines()
        if not line.startswith(" ")
    ]
    lines = [depends if line.startswith("Depends:") else line for line in lines]
    (tree / "DEBIAN/control").write_text("\n".join(lines) + "\n")
    _pack(tree, pool)


def _pack(tree: Path, pool: Path) -> None:
    # A fixed time makes the same twin the same package, byte for byte.
    run(
        ["dpkg-deb", "--root-owner-group", "-Zgzip", "--build", tree, pool],
        environment={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SOURCE_DATE_EPOCH": "1700000000"},
    )


_SCRIPTS = {"preinst", "postinst", "prerm", "postrm"}


def _index(repository: Path) -> None:
    binary = repository / "dists" / SUITE / COMPONENT / "binary-amd64"
    binary.mkdir(parents=True)
    listed = run(["sh", "-c", 'cd "$0" && apt-ftparchive packages pool', repository])
    (binary / "Packages").write_text(listed.stdout)
    release = run(
        [
            "apt-ftparchive",
            "-o", "APT::FTPArchive::Release::Origin=Guardian lab",
            "-o", f"APT::FTPArchive::Release::Suite={SUITE}",
            "-o", f"APT::FTPArchive::Release::Codename={SUITE}",
            "-o", "APT::FTPArchive::Release::Architectures=amd64",
            "-o", f"APT::FTPArchive::Release::Components={COMPONENT}",
            "release", repository / "dists" / SUITE,
        ]
    )  # fmt: skip
    (repository / "dists" / SUITE / "Release").write_text(release.stdout)


def _sign(repository: Path, home: Path) -> None:
    """Sign with a key made for this repository alone; it dies with the build."""
    home.mkdir(mode=0o700)
    gpg: list[str | Path] = [
        "gpg",
        "--homedir",
        home,
        "--batch",
        "--quiet",
        "--pinentry-mode",
        "loopback",
    ]
    run([*gpg, "--passphrase", "", "--quick-generate-key", _SIGNER, "ed25519", "sign", "never"])
    release = repository / "dists" / SUITE / "Release"
    run([*gpg, "--clearsign", "--output", release.with_name("InRelease"), release])
    run([*gpg, "--export", "--output", repository / "voice.gpg"])
    run(["gpgconf", "--homedir", home, "--kill", "all"], check=False)
