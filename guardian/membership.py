"""Whether a minion is of the fleet, decided by its id and by what the master alone holds.

That is `pillar/fleet.yaml` (which roles an account has, and where), the workspace's file
`pillar/workspaces/<workspace>.sls` and the published outputs of its stacks. Nothing that a minion
sends is looked at: no grain, no pillar override, no on-demand pillar.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from guardian.secrets import node
from guardian.stacks import outputs

CATALOGUE = "fleet.yaml"
_REMEDY = "see pillar/fleet.yaml"


@dataclass(frozen=True)
class Member(node.Node):
    """A node of the fleet: who it is, what the fleet says of it, and who else there is."""

    entry: dict[str, Any]
    fleet: dict[str, dict[str, Any]]
    stacks: dict[str, dict[str, Any]]  # published outputs


def member(minion_id: str, opts: Mapping[str, Any]) -> Member:
    """Return a minion's membership from a master's options; ValueError says why it has none."""
    who, place = _identified(minion_id, opts["pillar_roots"]["base"])
    stacks = _published(opts.get("ext_pillar") or [], who.workspace)
    return _of_fleet(who, place, stacks)


def entry(
    minion_id: str, pillar_roots: Iterable[str | Path], source: dict[str, Any] | None
) -> dict[str, Any]:
    """Return what the fleet says of a minion; ValueError says why it is none of ours.

    `source` is what `stack_outputs` is configured with, None without stacks.
    """
    who, place = _identified(minion_id, pillar_roots)
    stacks = outputs.published(source, who.workspace) if source else {}
    return _of_fleet(who, place, stacks).entry


def fleet(
    workspace: str, pillar_roots: Iterable[str | Path], source: dict[str, Any] | None
) -> dict[str, dict[str, Any]]:
    """Return a workspace's nodes by host name, for who has no minion id; see `entry`."""
    stacks = outputs.published(source, workspace) if source else {}
    return _Tree(tuple(map(Path, pillar_roots))).fleet(workspace, stacks)


def of_master(workspace: str, opts: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return a workspace's nodes by host name from a master's options; see `fleet`."""
    stacks = _published(opts.get("ext_pillar") or [], workspace)
    return _Tree(tuple(map(Path, opts["pillar_roots"]["base"]))).fleet(workspace, stacks)


def _identified(minion_id: str, roots: Iterable[str | Path]) -> tuple[node.Node, "_Tree"]:
    """Take an id apart, and refuse what no node of any workspace can be called."""
    who = node.parse(minion_id)
    tree = _Tree(tuple(Path(root) for root in roots))
    tree.admit(who)
    return who, tree


def _of_fleet(who: node.Node, tree: "_Tree", stacks: dict[str, dict[str, Any]]) -> Member:
    fleet = tree.fleet(who.workspace, stacks)
    found = fleet.get(who.host)
    if not isinstance(found, dict) or found.get("role") != who.role:
        raise ValueError(
            f"{who.host} is not in the fleet of {who.workspace} with role {who.role}: add it to"
            f" pillar/workspaces/{who.workspace}.sls, or deploy the stack that makes it"
        )
    zones = tree.zones(who.region)
    if found.get("zone") not in zones:
        raise ValueError(
            f"fleet:{who.host}:zone: region {who.region} has the zones {', '.join(zones)};"
            f" mend it in pillar/workspaces/{who.workspace}.sls, or {_REMEDY}"
        )
    return Member(**vars(who), entry=found, fleet=fleet, stacks=stacks)


def _published(ext_pillars: Iterable[Any], workspace: str) -> dict[str, dict[str, Any]]:
    for one in ext_pillars:
        if isinstance(one, dict) and "stack_outputs" in one:
            return outputs.published(one["stack_outputs"], workspace)
    return {}


class _Tree:
    """The files of the pillar roots that say who there is."""

    def __init__(self, roots: tuple[Path, ...]) -> None:
        self._roots = roots

    @cached_property
    def catalogue(self) -> dict[str, Any]:
        found = self._read(CATALOGUE)
        if found is None:
            raise ValueError(f"{CATALOGUE} is in none of {', '.join(map(str, self._roots))}")
        return found

    def admit(self, who: node.Node) -> None:
        """ValueError unless an account has nodes of this role in this region."""
        accounts, roles = self.catalogue["accounts"], self.catalogue["roles"]
        account = accounts.get(who.account)
        if account is None:
            raise ValueError(
                f"{who.id}: account {who.account} is unknown{_near(who.account, accounts)};"
                f" {_REMEDY}"
            )
        if who.region not in account["regions"]:
            raise ValueError(
                f"{who.id}: account {who.account} has the regions"
                f" {', '.join(account['regions'])}; {_REMEDY}"
            )
        if not account["roles"]:
            raise ValueError(
                f"{who.id}: account {who.account} ({account['purpose']}) holds no voice nodes;"
                f" {_REMEDY}"
            )
        if who.role not in account["roles"]:
            raise ValueError(
                f"{who.id}: account {who.account} has no role {who.role}{_near(who.role, roles)};"
                f" {_REMEDY}"
            )

    def zones(self, region: str) -> list[str]:
        return [str(zone) for zone in self.catalogue["regions"][region]["zones"]]

    def fleet(
        self, workspace: str, stacks: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, dict[str, Any]]:
        """Return a workspace's nodes, its file's and those that stacks made, by host name."""
        file = f"workspaces/{workspace}.sls"
        held = self._read(file)
        if held is None:
            raise ValueError(f"workspace {workspace} is unknown: there is no pillar/{file}")
        own = held.get("fleet") or {}
        made = dict(_made((held.get("from_stacks") or {}).get("fleet", []), stacks, file))
        if not isinstance(own, dict):
            raise ValueError(f"pillar/{file}: fleet: must map host names to nodes")
        if twice := sorted(set(own) & set(made)):
            raise ValueError(
                f"{twice[0]} is in pillar/{file} and in a stack's fleet; drop it from the file"
            )
        return {**own, **dict(sorted(made.items()))}

    def _read(self, name: str) -> dict[str, Any] | None:
        """Return a file of the first root that has it; ValueError when it is no YAML mapping."""
        for root in self._roots:
            if (root / name).is_file():
                return _loaded(root / name, f"pillar/{name}")
        return None


_known: dict[Path, tuple[tuple[int, int, int], dict[str, Any]]] = {}


def _loaded(file: Path, name: str) -> dict[str, Any]:
    """Read a file, once as long as it stays the same: a master compiles for thousands."""
    status = file.stat()
    stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
    known = _known.get(file)
    if known is not None and known[0] == stamp:
        return known[1]
    try:
        held = yaml.safe_load(file.read_bytes()) or {}
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ValueError(f"{name}{line}: is not plain YAML, which says who is trusted") from None
    if not isinstance(held, dict):
        raise ValueError(f"{name}: must be a mapping")
    _known[file] = (stamp, held)
    return held


def _made(
    sources: object, stacks: Mapping[str, Mapping[str, Any]], file: str
) -> Iterator[tuple[str, Any]]:
    """Yield the nodes of the outputs that a workspace's file names, ``stack:output`` each."""
    for source in sources if isinstance(sources, list) else [sources]:
        stack, _, output = str(source).partition(":")
        nodes = stacks.get(stack, {}).get(output)
        if nodes is None:
            continue  # not deployed yet
        if not isinstance(nodes, dict):
            raise ValueError(f"{source} (pillar/{file}: from_stacks:fleet) maps no host to a node")
        yield from nodes.items()


def _near(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close and close[0] != word else ""
