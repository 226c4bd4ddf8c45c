"""OpenSIPS's tables as db_text files, and back.

A file is a line of columns, then a row a line, its fields between colons; a backslash escapes
(``modules/db_text/dbt_file.c``). An empty field is NULL to db_text, which has no empty text; it is
empty text here where the column may not be NULL, for sqlite's sake.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# What a column may hold: NULL, and what a row gets that does not name it.
NULL = None
# Columns as (name, kind, default); kind "int?" or "string?" may be NULL. Source:
# scripts/sqlite/*-create.sql of 3.4.18, 3.6.8 and 4.0.1, the union of their columns: a module asks
# for columns by name and sees no others. `subscriber` is without email_address and rpid (3.4 only).
TABLES: dict[str, tuple[tuple[str, str, object], ...]] = {
    "address": (
        ("id", "auto", NULL),
        ("grp", "int", 0),
        ("ip", "string", NULL),
        ("mask", "int", 32),
        ("port", "int", 0),
        ("proto", "string", "any"),
        ("pattern", "string?", NULL),
        ("context_info", "string?", NULL),
    ),
    "clusterer": (
        ("id", "auto", NULL),
        ("cluster_id", "int", NULL),
        ("node_id", "int", NULL),
        ("url", "string", NULL),
        ("state", "int", 1),
        ("no_ping_retries", "int", 3),
        ("priority", "int", 50),
        ("sip_addr", "string?", NULL),
        ("flags", "string?", NULL),
        ("description", "string?", NULL),
    ),
    "clusterer_bridge": (  # from 4.0 on
        ("id", "auto", NULL),
        ("cluster_a", "int", NULL),
        ("cluster_b", "int", NULL),
        ("send_shtag", "string", NULL),
        ("dst_node_csv", "string", NULL),
    ),
    "dialplan": (
        ("id", "auto", NULL),
        ("dpid", "int", NULL),
        ("pr", "int", 0),
        ("match_op", "int", NULL),
        ("match_exp", "string", NULL),
        ("match_flags", "int", 0),
        ("subst_exp", "string?", NULL),
        ("repl_exp", "string?", NULL),
        ("timerec", "string?", NULL),
        ("disabled", "int", 0),
        ("attrs", "string?", NULL),
    ),
    "dispatcher": (
        ("id", "auto", NULL),
        ("setid", "int", 0),
        ("destination", "string", NULL),
        ("socket", "string?", NULL),
        ("state", "int", 0),
        ("probe_mode", "int", 0),
        ("weight", "string", "1"),
        ("priority", "int", 0),
        ("attrs", "string?", NULL),
        ("description", "string?", NULL),
    ),
    "domain": (
        ("id", "auto", NULL),
        ("domain", "string", NULL),
        ("attrs", "string?", NULL),
        ("accept_subdomain", "int", 0),
        ("last_modified", "time", 0),
    ),
    "dr_carriers": (
        ("id", "auto", NULL),
        ("carrierid", "string", NULL),
        ("gwlist", "string", NULL),
        ("flags", "int", 0),
        ("sort_alg", "string", "N"),
        ("state", "int", 0),
        ("attrs", "string?", NULL),
        ("description", "string?", NULL),
    ),
    "dr_gateways": (
        ("id", "auto", NULL),
        ("gwid", "string", NULL),
        ("type", "int", 0),
        ("address", "string", NULL),
        ("strip", "int", 0),
        ("pri_prefix", "string?", NULL),
        ("attrs", "string?", NULL),
        ("probe_mode", "int", 0),
        ("state", "int", 0),
        ("socket", "string?", NULL),
        ("description", "string?", NULL),
    ),
    "dr_groups": (
        ("id", "auto", NULL),
        ("username", "string", NULL),
        ("domain", "string?", NULL),
        ("groupid", "int", 0),
        ("description", "string?", NULL),
    ),
    "dr_rules": (
        ("ruleid", "auto", NULL),
        ("groupid", "string", NULL),
        ("prefix", "string?", NULL),
        ("timerec", "string?", NULL),
        ("priority", "int", 0),
        ("routeid", "string?", NULL),
        ("gwlist", "string?", NULL),
        ("sort_alg", "string", "N"),
        ("sort_profile", "int?", NULL),
        ("attrs", "string?", NULL),
        ("description", "string?", NULL),
    ),
    "fraud_detection": (
        ("ruleid", "auto", NULL),
        ("profileid", "int", NULL),
        ("prefix", "string", ""),
        ("start_hour", "string", "00:00"),
        ("end_hour", "string", "23:59"),
        ("daysoftheweek", "string", "Mon-Sun"),
        ("cpm_warning", "int", 0),
        ("cpm_critical", "int", 0),
        ("call_duration_warning", "int", 0),
        ("call_duration_critical", "int", 0),
        ("total_calls_warning", "int", 0),
        ("total_calls_critical", "int", 0),
        ("concurrent_calls_warning", "int", 0),
        ("concurrent_calls_critical", "int", 0),
        ("sequential_calls_warning", "int", 0),
        ("sequential_calls_critical", "int", 0),
    ),
    "load_balancer": (
        ("id", "auto", NULL),
        ("group_id", "int", 0),
        ("dst_uri", "string", NULL),
        ("resources", "string", NULL),
        ("probe_mode", "int", 0),
        ("attrs", "string?", NULL),
        ("description", "string?", NULL),
    ),
    "registrant": (
        ("id", "auto", NULL),
        ("registrar", "string", NULL),
        ("proxy", "string?", NULL),
        ("aor", "string", NULL),
        ("third_party_registrant", "string?", NULL),
        ("username", "string?", NULL),
        ("password", "string?", NULL),
        ("binding_URI", "string", NULL),
        ("binding_params", "string?", NULL),
        ("expiry", "int?", NULL),
        ("forced_socket", "string?", NULL),
        ("cluster_shtag", "string?", NULL),
        ("state", "int", 0),
    ),
    "rtpengine": (
        ("id", "auto", NULL),
        ("socket", "string", NULL),
        ("set_id", "int", NULL),
    ),
    "subscriber": (
        ("id", "auto", NULL),
        ("username", "string", NULL),
        ("domain", "string", NULL),
        ("password", "string?", NULL),
        ("ha1", "string?", NULL),
        ("ha1_sha256", "string?", NULL),
        ("ha1_sha512t256", "string?", NULL),
    ),
    "tcp_mgm": (
        ("id", "auto", NULL),
        ("proto", "string", "any"),
        ("remote_addr", "string?", NULL),
        ("remote_port", "int", 0),
        ("local_addr", "string?", NULL),
        ("local_port", "int", 0),
        ("priority", "int", 0),
        ("attrs", "string?", NULL),
        ("connect_timeout", "int", 100),
        ("con_lifetime", "int", 120),
        ("msg_read_timeout", "int", 4),
        ("send_threshold", "int", 0),
        ("no_new_conn", "int", 0),
        ("alias_mode", "int", 0),
        ("parallel_read", "int", 0),
        ("keepalive", "int", 1),
        ("keepcount", "int", 9),
        ("keepidle", "int", 7200),
        ("keepinterval", "int", 75),
    ),
    "tls_mgm": (
        ("id", "auto", NULL),
        ("domain", "string", NULL),
        ("match_ip_address", "string?", NULL),
        ("match_sip_domain", "string?", NULL),
        ("type", "int", 1),
        ("method", "string?", "SSLv23"),
        ("verify_cert", "int", 1),
        ("require_cert", "int", 1),
        ("certificate", "blob?", NULL),
        ("private_key", "blob?", NULL),
        ("crl_check_all", "int", 0),
        ("crl_dir", "string?", NULL),
        ("ca_list", "blob?", NULL),
        ("ca_dir", "string?", NULL),
        ("cipher_list", "string?", NULL),
        ("dh_params", "blob?", NULL),
        ("ec_curve", "string?", NULL),
    ),
    "version": (("table_name", "string", NULL), ("table_version", "int", NULL)),
    # What calls and registrations create; only ever empty when Salt makes them.
    "acc": (
        ("id", "auto", NULL),
        ("method", "string?", NULL),
        ("from_tag", "string?", NULL),
        ("to_tag", "string?", NULL),
        ("callid", "string?", NULL),
        ("sip_code", "string?", NULL),
        ("sip_reason", "string?", NULL),
        ("time", "time", 0),
        ("duration", "int", 0),
        ("ms_duration", "int", 0),
        ("setuptime", "int", 0),
        ("created", "time?", NULL),
    ),
    "dialog": (
        ("dlg_id", "long", NULL),
        ("callid", "string", NULL),
        ("from_uri", "string", NULL),
        ("from_tag", "string", NULL),
        ("to_uri", "string", NULL),
        ("to_tag", "string", NULL),
        ("mangled_from_uri", "string?", NULL),
        ("mangled_to_uri", "string?", NULL),
        ("caller_cseq", "string", NULL),
        ("callee_cseq", "string", NULL),
        ("caller_ping_cseq", "int", NULL),
        ("callee_ping_cseq", "int", NULL),
        ("caller_route_set", "string?", NULL),
        ("callee_route_set", "string?", NULL),
        ("caller_contact", "string?", NULL),
        ("callee_contact", "string?", NULL),
        ("caller_sock", "string", NULL),
        ("callee_sock", "string", NULL),
        ("state", "int", NULL),
        ("start_time", "int", NULL),
        ("timeout", "int", NULL),
        ("vars", "blob?", NULL),
        ("profiles", "string?", NULL),
        ("script_flags", "string?", NULL),
        ("module_flags", "int", 0),
        ("flags", "int", 0),
        ("rt_on_answer", "string?", NULL),
        ("rt_on_timeout", "string?", NULL),
        ("rt_on_hangup", "string?", NULL),
    ),
    "location": (
        ("contact_id", "long", NULL),
        ("username", "string?", NULL),
        ("domain", "string?", NULL),
        ("contact", "string", NULL),
        ("received", "string?", NULL),
        ("path", "string?", NULL),
        ("expires", "int", NULL),
        ("q", "double", 1.0),
        ("callid", "string", "Default-Call-ID"),
        ("cseq", "int", 13),
        ("last_modified", "time", 0),
        ("flags", "int", 0),
        ("cflags", "string?", NULL),
        ("user_agent", "string?", NULL),
        ("socket", "string?", NULL),
        ("methods", "int?", NULL),
        ("sip_instance", "string?", NULL),
        ("kv_store", "string?", NULL),
        ("attr", "string?", NULL),
    ),
    "missed_calls": (
        ("id", "auto", NULL),
        ("method", "string?", NULL),
        ("from_tag", "string?", NULL),
        ("to_tag", "string?", NULL),
        ("callid", "string?", NULL),
        ("sip_code", "string?", NULL),
        ("sip_reason", "string?", NULL),
        ("time", "time", 0),
        ("setuptime", "int", 0),
        ("created", "time?", NULL),
    ),
}
# Those that calls and registrations write.
RUNTIME = ("acc", "dialog", "location", "missed_calls")
# What the module asks of the `version` table, where releases differ from the first one on.
VERSIONS: dict[str, tuple[tuple[tuple[int, int], int], ...]] = {
    "acc": (((3, 4), 7),),
    "address": (((3, 4), 5),),
    "clusterer": (((3, 4), 4),),
    "clusterer_bridge": (((4, 0), 1),),
    "dialog": (((3, 4), 12),),
    "dialplan": (((3, 4), 5),),
    "dispatcher": (((3, 4), 9),),
    "domain": (((3, 4), 3), ((3, 6), 4)),
    "dr_carriers": (((3, 4), 3),),
    "dr_gateways": (((3, 4), 6),),
    "dr_groups": (((3, 4), 2),),
    "dr_rules": (((3, 4), 4),),
    "fraud_detection": (((3, 4), 1),),
    "load_balancer": (((3, 4), 3),),
    "location": (((3, 4), 1013),),
    "missed_calls": (((3, 4), 5),),
    "registrant": (((3, 4), 3),),
    "rtpengine": (((3, 4), 1),),
    "subscriber": (((3, 4), 8),),
    "tcp_mgm": (((3, 4), 1), ((4, 0), 2)),
    "tls_mgm": (((3, 4), 3),),
}
# db_text reads a field into a buffer of 4096 bytes and turns down the file that has a longer one
# (dbt_load_file). A chain of certificates may be longer; sqlite takes it.
LONGEST_FIELD = 4095
FOLDER, RUNTIME_FOLDER = "dbtext/", "runtime/"
_KINDS = {"auto": "int,auto"}
_ESCAPES = {"\\": "\\\\", ":": "\\:", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\\0"}
_ESCAPE = re.compile(r"[\\:\n\r\t\0]")
_PLAIN = {"n": "\n", "r": "\r", "t": "\t", "0": "\0"}


def version(table: str, release: tuple[int, ...] | list[int] = (3, 4)) -> int:
    """Return the version that OpenSIPS ``release`` wants a table to have."""
    found = [number for since, number in VERSIONS[table] if tuple(release[:2]) >= since]
    return found[-1] if found else VERSIONS[table][0][1]


def complete(table: str, rows: list[dict]) -> list[list]:
    """Return the rows as lists of values in the table's order, numbered, defaults filled in.

    Raises ``ValueError`` for a column that the table does not have or a value that is missing.
    """
    columns = TABLES[table]
    names = {name for name, _, _ in columns}
    needed = [at for at, (_, kind, _) in enumerate(columns) if not kind.endswith("?")]
    asked = [(name, kind == "auto", default) for name, kind, default in columns]
    made = []
    for number, row in enumerate(rows, start=1):
        if not row.keys() <= names:
            raise ValueError(f"table {table} has no column {min(row.keys() - names)}")
        values = [row.get(name, number if auto else default) for name, auto, default in asked]
        if "" in values:
            values = [
                NULL if value == "" and at not in needed else value
                for at, value in enumerate(values)
            ]
        lacking = [at for at in needed if values[at] is NULL]
        if lacking:
            raise ValueError(f"table {table}: row {number} lacks {columns[lacking[0]][0]}")
        made.append(values)
    return made


def encode(table: str, rows: list[dict]) -> bytes:
    """Return the db_text file of a table; the same rows make the same bytes."""
    columns = " ".join(f"{name}({_declared(kind)})" for name, kind, _ in TABLES[table])
    lines = [":".join(map(_field, values)) for values in complete(table, rows)]
    return "".join(f"{line}\n" for line in [columns, *lines]).encode()


def decode(table: str, content: bytes) -> list[dict]:
    """Return the rows of a db_text file; ``ValueError`` names the line that is none."""
    lines = content.decode("utf-8", "surrogateescape").split("\n")
    kinds = {name: kind for name, kind, _ in TABLES[table]}
    names = [word.partition("(")[0] for word in lines[0].split(" ") if word]
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        if not line:
            continue
        fields = _split(line)
        if len(fields) != len(names):
            raise ValueError(f"{FOLDER}{table}:{number}: {len(fields)} fields, not {len(names)}")
        try:
            rows.append(
                {name: _value(kinds.get(name, "string?"), field)
                 for name, field in zip(names, fields, strict=True)}
            )  # fmt: skip
        except ValueError:
            raise ValueError(f"{FOLDER}{table}:{number}: text where a number is wanted") from None
    return rows


def files(
    rows: dict[str, list[dict]],
    release: tuple[int, ...] | list[int] = (3, 4),
    elsewhere: tuple[str, ...] | list[str] = (),
    driver: str | None = None,
) -> dict[str, bytes]:
    """Return the files of the tree: ``dbtext/<table>`` of ``rows``, ``runtime/<table>``, empty.

    The latter say what calls and registrations write into, and what is filled ``elsewhere``; each
    folder tells its versions. Raises ``ValueError`` for what ``driver``, "text" or "sqlite",
    cannot hold.
    """
    unfit = unfit_for_text(rows) if driver == "text" else []
    if unfit:
        raise ValueError(
            f"table {unfit[0]}: empty, or longer than the {LONGEST_FIELD} bytes that db_text holds;"
            " install the sqlite module of opensips"
        )
    found = {f"{FOLDER}{table}": encode(table, rows[table]) for table in rows}
    found[f"{FOLDER}version"] = versions(rows, release)
    runtime = (*RUNTIME, *elsewhere)
    found.update({f"{RUNTIME_FOLDER}{table}": encode(table, []) for table in runtime})
    found[f"{RUNTIME_FOLDER}version"] = versions(runtime, release)
    return dict(sorted(found.items()))


def versions(tables: Iterable[str], release: tuple[int, ...] | list[int] = (3, 4)) -> bytes:
    """Return the ``version`` table for ``tables``."""
    return encode(
        "version",
        [{"table_name": name, "table_version": version(name, release)} for name in sorted(tables)],
    )


def unfit_for_text(rows: dict[str, list[dict]]) -> list[str]:
    """Return ``table, column`` of values that db_text cannot hold."""
    return sorted(
        {
            f"{table}, {name}"
            for table, entries in rows.items()
            for needed in [{name for name, kind, _ in TABLES[table] if not kind.endswith("?")}]
            for row in entries
            for name, value in row.items()
            # Most are short: only a long one is measured.
            if isinstance(value, str)
            and ((not value and name in needed)
                 or (4 * len(value) > LONGEST_FIELD and len(value.encode()) > LONGEST_FIELD))
        }
    )  # fmt: skip


def _declared(kind: str) -> str:
    bare = kind.removesuffix("?")
    return _KINDS.get(bare, bare) + (",null" if kind.endswith("?") else "")


def _field(value: object) -> str:
    if value is NULL:
        return ""
    return _ESCAPE.sub(lambda match: _ESCAPES[match[0]], str(value))


def _split(line: str) -> list[str]:
    """Return the fields of a line, still escaped."""
    fields, current, characters = [], "", iter(line)
    for character in characters:
        if character == "\\":
            current += character + next(characters, "")
        elif character == ":":
            fields.append(current)
            current = ""
        else:
            current += character
    return [*fields, current]


def _value(kind: str, field: str) -> object:
    if field == "" and kind == "string":
        return ""
    if field == "":
        return NULL
    match kind.removesuffix("?"):
        case "auto" | "int" | "long" | "time":
            return int(field)
        case "double":
            return float(field)
    return re.sub(r"\\(.)", lambda match: _PLAIN.get(match[1], match[1]), field, flags=re.DOTALL)
