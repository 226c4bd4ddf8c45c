"""Package manager of a host where all that is asked for is installed and held."""

__virtualname__ = "pkg"


class _Everything(dict):
    def __missing__(self, name):
        return "1.0"

    def get(self, name, default=None):
        return "1.0"

    def __contains__(self, name):
        return True


def __virtual__():  # noqa: N807
    return __virtualname__


def list_pkgs(**_):
    return _Everything()


def version(*names, **_):
    return "1.0" if len(names) == 1 else dict.fromkeys(names, "1.0")


def latest_version(*names, **_):
    return "" if len(names) == 1 else dict.fromkeys(names, "")


def check_extra_requirements(*_):
    return True


def get_selections(pattern=None, state=None):
    return {"hold": [pattern]}


def hold(*_, **__):
    return {}


def refresh_db(**_):
    return {}
