"""Users: looked up in the tree each time, but one that is `cacheable` stays as it was."""

import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator

from xmltree import params

Section = Callable[[], ET.Element]


class Directory:
    """The users of the tree in force, and those a look-up has put aside."""

    def __init__(self, section: Section) -> None:
        self._section = section
        self._cached: dict[tuple[str, str], dict[str, str]] = {}

    def find(self, name: str, domain: str = "") -> dict[str, str] | None:
        """A user's params, the domain's and group's with them; any domain's if none is named."""
        for place in self._section().findall("domain"):
            own = place.get("name", "")
            if domain in ("", own):
                if (name, own) in self._cached:
                    return self._cached[name, own]
                for user, settings in _users(place):
                    if user.get("id") == name:
                        if user.get("cacheable") == "true":
                            self._cached[name, own] = settings
                        return settings
        return None

    def flush(self, text: str) -> str:
        """`id NAME DOMAIN` forgets one user; anything less, or else, forgets all."""
        match text.split():
            case ["id", name, domain, *_]:
                gone = int(self._cached.pop((name, domain), None) is not None)
            case _:
                gone = len(self._cached)
                self._cached.clear()
        return f"+OK cleared {gone} {'entry' if gone == 1 else 'entries'}\n"


def _users(domain: ET.Element) -> Iterator[tuple[ET.Element, dict[str, str]]]:
    shared = params(domain.find("params"))
    grouped = set()
    for group in domain.iter("group"):
        for user in group.iter("user"):
            grouped.add(user)
            yield user, shared | params(group.find("params")) | params(user.find("params"))
    for user in domain.iter("user"):
        if user not in grouped:
            yield user, shared | params(user.find("params"))
