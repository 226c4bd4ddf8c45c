"""`show`: the tables of the core. They are filled through a queue and lag behind the calls."""

import json
import socket
import time
from xml.sax.saxutils import escape

from calls import Call
from core import Core

_CALL = (
    "uuid direction created created_epoch name state cid_name cid_num ip_addr dest presence_id "
    "presence_data accountcode callstate callee_name callee_num callee_direction"
)
_SENT = "sent_callee_name sent_callee_num"
_OTHER_LEG = " ".join(f"b_{column}" for column in f"{_CALL} {_SENT}".split())
_COLUMNS = {
    "calls": f"{_CALL} call_uuid hostname {_SENT} {_OTHER_LEG} call_created_epoch",
    "channels": (
        "uuid direction created created_epoch name state cid_name cid_num ip_addr dest "
        "application application_data dialplan context read_codec read_rate read_bit_rate "
        "write_codec write_rate write_bit_rate secure hostname presence_id presence_data "
        "accountcode callstate callee_name callee_num callee_direction call_uuid "
        f"{_SENT} initial_cid_name initial_cid_num initial_ip_addr initial_dest "
        "initial_dialplan initial_context"
    ),
    "modules": "type name ikey filename",
    "registrations": (
        "reg_user realm token url expires network_ip network_port network_proto hostname metadata"
    ),
}


class Tables:
    """What `show` shows: calls, channels, modules, registrations."""

    def __init__(self, core: Core) -> None:
        self.core = core

    def run(self, text: str) -> str:
        kind, *rest = text.split() or [""]
        if kind not in _COLUMNS:
            return f"-USAGE: {'|'.join(_COLUMNS)} [count] [as json|xml|delim <delimiter>]\n"
        columns = _COLUMNS[kind].split()
        if kind == "registrations":
            known = self._registrations()
        elif kind == "modules":  # the real one has a row an interface, as many as a module has
            known = [{"type": "generic", "name": m, "ikey": m} for m in sorted(self.core.modules)]
        else:
            known = [_call(call) for call in self.core.shown.values()]
        rows = [{column: row.get(column, "") for column in columns} for row in known]
        match rest:
            case ["count", *_]:
                return f"\n{len(rows)} total.\n"
            case ["as", "json", *_]:
                if not rows:
                    return '{"row_count": 0}\n'  # with the space that a table with rows lacks
                table = {"row_count": len(rows), "rows": rows}
                return json.dumps(table, separators=(",", ":")) + "\n"
            case ["as", "xml", *_]:
                return _xml(rows)
            case ["as", "delim", delimiter, *_]:
                return _text(rows, delimiter)
        return _text(rows, ",")

    def _registrations(self) -> list[dict[str, str]]:
        self.core.registrations_now()
        return [
            {"reg_user": user, "url": contact, "expires": str(int(expires)),
             "network_proto": "udp", "hostname": socket.gethostname()}
            for user, (contact, expires) in self.core.registrations.items()
        ]  # fmt: skip


def _call(call: Call) -> dict[str, str]:
    initial = {"cid_name": call.caller, "cid_num": call.caller, "ip_addr": call.source[0],
               "dest": call.destination, "dialplan": "XML", "context": call.context}  # fmt: skip
    codec = {"codec": call.stream.codec.split("/")[0], "rate": "8000", "bit_rate": "64000"}
    return {
        **initial,
        **{f"initial_{name}": value for name, value in initial.items()},
        **{f"{way}_{name}": value for way in ("read", "write") for name, value in codec.items()},
        "uuid": call.uuid,
        "direction": "inbound",
        "created": time.strftime("%F %T", time.localtime(call.created)),
        "created_epoch": str(int(call.created)),
        "name": f"sofia/{call.profile}/{call.caller_address}",
        "state": "CS_EXECUTE",
        "application": call.application,
        "callstate": "ACTIVE" if call.answered else "RINGING",
        "hostname": socket.gethostname(),
    }


def _text(rows: list[dict[str, str]], delimiter: str) -> str:
    if not rows:
        return "\n0 total.\n"
    lines = [delimiter.join(rows[0]), *(delimiter.join(row.values()) for row in rows)]
    return "\n".join(lines) + f"\n\n{len(rows)} total.\n"


def _xml(rows: list[dict[str, str]]) -> str:
    lines = [f'<result row_count="{len(rows)}">']
    for number, row in enumerate(rows, 1):
        lines.append(f'  <row row_id="{number}">')
        lines += [f"    <{column}>{escape(value)}</{column}>" for column, value in row.items()]
        lines.append("  </row>")
    return "\n".join([*lines, "</result>"]) + "\n"
