"""Kernel settings of a host that shares its kernel: as wished, never touched."""

__virtualname__ = "sysctl"


def __virtual__():  # noqa: N807
    return __virtualname__


def default_config():
    return "/etc/sysctl.d/99-salt.conf"


def show(config_file=None):
    return {}


def get(name):
    return "0"


def persist(name, value, config=None):
    return "Updated"


def assign(name, value):
    return {name: value}
