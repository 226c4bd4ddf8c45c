"""What a connection of the event socket may do: all with its password, less as a user."""

from dataclasses import dataclass

from directory import Directory

# They run another command, which has to be allowed as well.
_CARRIERS = ("bgapi", "sched_api", "eval", "expand", "xml_wrap")


@dataclass(frozen=True)
class Rights:
    """None stands for everything."""

    commands: frozenset[str] | None = None
    events: frozenset[str] | None = None
    log: bool = True

    def may_run(self, line: str) -> bool:
        words = line.split() if self.commands is not None else []
        for word in words:
            if word not in (self.commands or ()):
                return False
            if word not in _CARRIERS:
                return True
        return True

    def may_hear(self, names: list[str]) -> bool:
        """Events by name: one that is not allowed refuses them all."""
        return self.events is None or self.events.issuperset(names)


def of_user(directory: Directory, login: str) -> tuple[Rights, dict[str, str]] | None:
    """Log in with `user@domain:password` or `user:password@domain`: rights and what to reply."""
    user, _, domain = login.partition("@")
    user, _, password = user.partition(":")
    if not password:
        domain, _, password = domain.partition(":")
    settings = directory.find(user, domain) if user and domain else None
    if settings is None or not password or settings.get("esl-password") != password:
        return None
    commands, events = settings.get("esl-allowed-api"), settings.get("esl-allowed-events")
    log = settings.get("esl-allowed-log", "true") == "true"
    told = {"Allowed-Events": events or "all", "Allowed-API": commands or "all",
            "Allowed-LOG": str(log).lower()}  # fmt: skip
    return Rights(_names(commands), _names(events), log), told


def _names(text: str | None) -> frozenset[str] | None:
    """A list is parted by blanks if it has any, else by commas."""
    return frozenset(text.split() if " " in text else text.split(",")) if text else None
