"""One run of the script over one message, and what its routes leave for each other."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import sip
from errors import TableError

if TYPE_CHECKING:
    from transactions import Transaction

Cell = str | int | None  # what a variable holds


class Peer(NamedTuple):
    """Who sent a message or is to get one, and over what."""

    host: str
    port: int
    protocol: str = "udp"
    local: int = -1  # which of our sockets it came by; -1 for none of them


class StartError(Exception):
    """Why the daemon cannot start although `-C` had nothing against its configuration."""


@contextmanager
def starting(module: str) -> Iterator[None]:
    """Tell whose start a table ends."""
    try:
        yield
    except TableError as err:
        raise StartError(
            f"{err}\nERROR:{module}:mod_init: failed to load data from DB\n"
            f"ERROR:core:init_mod: failed to initialize module {module}"
        ) from None


class ScriptExit(Exception):  # noqa: N818 (not an error)
    """exit, drop, or a route that returned 0."""


@dataclass
class Context:
    """The message at hand and what the script has set on the way."""

    request: sip.Message
    source: Peer
    transaction: "Transaction | None" = None
    status: int = 0  # the failed reply's, in a failure route; the reply's in a reply route
    reply: sip.Message | None = None  # in a reply route
    destination: str = ""  # $du
    failure_route: str = ""
    reply_route: str = ""
    branch_route: str = ""
    is_dialog: bool = False
    record_route: bool = False
    relayed: bool = False
    downstream: bool = True  # which way a request within a dialog goes
    reply_headers: str = ""
    original_uri: str = ""
    user: str = ""  # who has logged in
    realm: str = ""
    flags: set[str] = field(default_factory=set)
    branch_flags: set[str] = field(default_factory=set)
    avps: dict[str, list[Cell]] = field(default_factory=dict)
    profiles: list[tuple[str, str]] = field(default_factory=list)  # dialog profiles to enter
    values: dict[str, str] = field(default_factory=dict)  # of the dialog to be
