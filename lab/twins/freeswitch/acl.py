"""Network lists: who may call without a password."""

import ipaddress
import xml.etree.ElementTree as ET

_BUILT_IN = {
    "loopback.auto": ["127.0.0.0/8"],
    "rfc1918.auto": ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"],
    "any_v4.auto": ["0.0.0.0/0"],
}


class AccessLists:
    """The lists of acl.conf; `reloadacl` replaces the whole object."""

    def __init__(self, configuration: ET.Element | None) -> None:
        self._lists: dict[str, tuple[bool, list[tuple[ipaddress.IPv4Network, bool]]]] = {}
        for name, networks in _BUILT_IN.items():
            self._lists[name] = (False, [(ipaddress.IPv4Network(n), True) for n in networks])
        for entry in configuration.iter("list") if configuration is not None else ():
            nodes = []
            for node in entry.findall("node"):
                try:
                    network = ipaddress.IPv4Network(node.get("cidr", ""), strict=False)
                except ValueError:
                    continue
                nodes.append((network, node.get("type") == "allow"))
            self._lists[entry.get("name", "")] = (entry.get("default") == "allow", nodes)

    def allows(self, address: str, name: str) -> bool:
        """Whether the list lets `address` in; the narrowest network decides; no list denies."""
        try:
            host = ipaddress.IPv4Address(address)
        except ValueError:
            return False
        default, nodes = self._lists.get(name, (False, []))
        matching = [(net.prefixlen, allow) for net, allow in nodes if host in net]
        return max(matching)[1] if matching else default
