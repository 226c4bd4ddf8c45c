"""A bridge in a namespace of its own, and one namespace a host on it.

Nothing of the lab is in the machine's own network: the hub's namespace holds the bridge, the
calls and the package mirror's listening socket.
"""

from pathlib import Path

from lab.names import HUB_ADDRESS, PREFIX_LENGTH, Names
from lab.shell import run

NAMESPACES = Path("/run/netns")


def exists(namespace: str) -> bool:
    return (NAMESPACES / namespace).exists()


def create_hub(names: Names) -> None:
    """Make the hub's namespace with the bridge that carries 10.77.0.1."""
    if exists(names.hub):
        return
    run(["ip", "netns", "add", names.hub])
    batch = [
        "link set lo up",
        "link add br0 type bridge forward_delay 0",
        f"addr add {HUB_ADDRESS}/{PREFIX_LENGTH} dev br0",
        "link set br0 up",
    ]
    run(["ip", "-netns", names.hub, "-batch", "-"], stdin="\n".join(batch) + "\n")


def connect(names: Names, host: str, address: str) -> str:
    """Make a host's namespace, wired to the bridge; returns its name."""
    namespace = names.thing(host)
    if exists(namespace):
        return namespace
    run(["ip", "netns", "add", namespace])
    run(
        ["ip", "-netns", names.hub, "-batch", "-"],
        stdin=f"link add name to-{host} type veth peer name host0 netns {namespace}\n"
        f"link set dev to-{host} master br0 up\n",
    )
    run(
        ["ip", "-netns", namespace, "-batch", "-"],
        stdin=f"link set lo up\naddr add {address}/{PREFIX_LENGTH} dev host0\nlink set host0 up\n"
        f"route add default via {HUB_ADDRESS}\n",
    )
    return namespace


def remove(namespace: str) -> None:
    """Remove a namespace; its interfaces go with it."""
    if exists(namespace):
        run(["ip", "netns", "delete", namespace])


def of_lab(names: Names) -> list[str]:
    """Every namespace this lab made, left over or in use."""
    if not NAMESPACES.is_dir():
        return []
    return sorted(path.name for path in NAMESPACES.glob(f"gl-{names.lab}-*"))
