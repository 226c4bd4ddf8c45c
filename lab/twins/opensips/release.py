"""Which OpenSIPS this twin is."""

import os


def version() -> str:
    """3.4.18, unless the environment says otherwise."""
    return os.environ.get("OPENSIPS_TWIN_VERSION", "3.4.18")


def release() -> int:
    """34, 36 or 40."""
    major, minor = version().split(".")[:2]
    return int(major) * 10 + int(minor)
