"""mod_xml_curl: the dialplan is asked of a web server first. The twin asks it of nothing else."""

import asyncio
import logging
import socket
import urllib.parse
import urllib.request
import xml.etree.ElementTree as ET

import xmlparse
from xmltree import Tree

_SECONDS = 5.0
_MAX_BYTES = 1024 * 1024
log = logging.getLogger("xml_curl")


def bindings(tree: Tree) -> list[tuple[str, str]]:
    """(url, sections) of each binding; with none of them the module does not load."""
    found = tree.configuration("xml_curl.conf")
    entries = found.iter("param") if found is not None else ()
    return [
        (entry.get("value", ""), entry.get("bindings", ""))
        for entry in entries
        if entry.get("name") == "gateway-url" and entry.get("value")
    ]


async def dialplan(bound: list[tuple[str, str]], fields: dict[str, str]) -> ET.Element | None:
    """The dialplan section of the first server that answers with one; None: use the local one."""
    for url, sections in bound:
        if not sections or "dialplan" in sections.split("|"):
            section = await asyncio.to_thread(_ask, url, fields)
            if section is not None:
                return section
    return None


def _ask(url: str, fields: dict[str, str]) -> ET.Element | None:
    asked = {"hostname": socket.gethostname(), "section": "dialplan", "tag_name": "",
             "key_name": "", "key_value": "", **fields}  # fmt: skip
    try:
        body = urllib.parse.urlencode(asked).encode()
        with urllib.request.urlopen(url, body, _SECONDS) as answer:
            document = xmlparse.parse(answer.read(_MAX_BYTES).decode("utf-8", "replace"))
    except (OSError, ValueError) as err:
        log.error("Error [%s] trying to fetch %s", err, url)
        return None
    return next((s for s in document.iter("section") if s.get("name") == "dialplan"), None)
