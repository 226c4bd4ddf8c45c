"""The time zone of a host that shares its clock: as wished, never touched."""

__virtualname__ = "timezone"


def __virtual__():  # noqa: N807
    return __virtualname__


def get_zone():
    return "Etc/UTC"


def zone_compare(zone):
    return zone == "Etc/UTC"


def get_hwclock():
    return "UTC"
