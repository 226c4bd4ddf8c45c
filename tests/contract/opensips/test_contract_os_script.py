"""What OpenSIPS reads, refuses and runs of a script, asserted once for twin and real one."""

import hashlib
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from os_daemon import TWIN, Daemon, real, until

from tests.support import real_opensips
from tests.support.answerer import Answerer
from tests.support.phone import Phone, sip

_REAL = [
    pytest.mark.real,
    pytest.mark.skipif(not shutil.which("opensips"), reason="no opensips on PATH"),
]
ROUTE = "route { exit; }\n"


class Scripted(Daemon):
    """A daemon whose routes are the test's own text."""

    script = ROUTE

    def write_routes(self) -> None:
        (self.conf / "routes.cfg").write_text(self.script)

    def told(self, script: str) -> tuple[int, str]:
        """What -C says of a script: exit code, and the first complaint without the path."""
        self.script = script
        code, text = self.check()
        found = re.search(r"parse error in \S*/routes\.cfg:(.*)", text)
        return code, found[1].strip() if found else text


@pytest.fixture(params=["twin", pytest.param("real", marks=_REAL)])
def daemon(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scripted]:
    made = Scripted(request.param, tmp_path)
    yield made
    made.kill()


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("route{ record_route() exit; }\n", "1:23-27: syntax error"),
        ("route{ rute(); }\n", "1:13-14: unknown command <rute>, missing loadmodule?"),
        ("route{ has_totag(1); }\n", "1:19-20: too many parameters for command <has_totag>"),
        ("route{ is_method(); }\n", "1:18-19: too few parameters for command <is_method>"),
        ("onreply_route[x] { t_relay(); }\n", "1:28-29: Command <t_relay> cannot be used in the"),
        ("route{ if ($rU == 1 { exit; } }\n", "1:22-23: syntax error"),
        ('route{ $si = "x"; }\n', "1:17-18: invalid left operand in assignment"),
        ("route{ $foo = 1; }\n", "1:8-13: unknown script variable"),
        ("route{ $(ru{uri.host}) = 1; }\n", "1:27-28: transformations not accepted in left side"),
        ('route{ xlog("a"; }\n', "1:15-16: syntax error"),
        ("route{ t_relay; }\n", "1:15-16: syntax error"),
        ("route {}\n", "1:8-9: syntax error"),
        ("route{ break; }\n", "1:8-13: syntax error"),
        (f"{ROUTE}{ROUTE}", "2:15-16: overwriting default request routing table"),
        ('loadmodule "nosuch.so"\n', "1:13-14: failed to load module nosuch.so"),
        ('loadmodule "tm.so"\n', "1:13-14: failed to load module tm.so"),
        ('modparam("tm","fr_timeout","5")\n', "1:18-19: Parameter <fr_timeout> not found in"),
        ('modparam("tm","nope",5)\n', "1:17-18: Parameter <nope> not found in module <tm> - can't"),
        ('modparam("maxfwd","max_limit",5)\n', "1:17-18: Parameter <max_limit> not found in"),
        ('modparam("tm", "fr_timeout" 5)\n', "1:17-18: syntax error"),
        ("nonsense=1\n", "1:1-9: syntax error"),
        ('udp_workers="4"\n', "1:14-15: syntax error"),
        ("auto_aliases=maybe\n", "1:14-19: syntax error"),
        ("socket=xyz:127.0.0.1:5998\n", "1:8-11: cannot handle protocol <xyz>"),
        ("socket=udp:127.0.0.1:port\n", "1:22-26: syntax error"),
    ],
)  # fmt: skip
def test_check_names_the_place_and_the_cause(daemon: Scripted, script: str, told: str) -> None:
    code, said = daemon.told(script)
    assert code == 255
    assert said.startswith(told)


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("route{ is_method(1); }\n", "Param [1] expected to be a string or variable"),
        ('route{ record_route("$nope"); }\n', "Failed to parse formatted string in param [1]"),
        ('route{ send_reply("x", "y"); }\n', "Param [1] expected to be an integer or variable"),
        ("socket=tls:127.0.0.1:5061\n", "listeners found for protocol tls, but no module can"),
        ("socket=udp:nosuch.invalid:5060\n", "could not resolve nosuch.invalid"),
        ('loadmodule "registrar.so"\n', "failed to solve module dependencies"),
        ("route[x]{exit;}\nroute[x]{exit;}\n", "Script route <x> is redefined"),
        ('include_file "/nonexistent"\n', "failed to open /nonexistent: 2 (No such file"),
    ],
)
def test_check_refuses_the_whole(daemon: Scripted, script: str, told: str) -> None:
    daemon.script = script
    code, text = daemon.check()
    assert code == 255
    assert told in text


@pytest.mark.parametrize(
    "script",
    [
        "",  # no route at all
        ROUTE + "/* nobody closes this",
        "route { exit; ; }\n",
        "route { if (has_totag()) {} else { exit; } }\n",
        'route { if ($si == 10.0.0.0/8 && $rU != NULL and true) exit; $var(x) := "a" + "b"; }\n',
        "route { while ($var(i) < 3) { $var(i) += 1; if ($var(i) == 2) break; } }\n",
        'route { switch ($rU) { case "a": exit; default: drop; } }\n',
        "socket=udp:127.0.0.1:99999\n" + ROUTE,
        "log_level=2 udp_workers=3\n" + ROUTE,
    ],
)
def test_check_accepts(daemon: Scripted, script: str) -> None:
    daemon.script = script
    assert daemon.check()[0] == 0


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("route{ route(x); }\n", "failed to validate a route() statement"),
        ('route{ t_on_failure("x"); }\n', "failure route <x> does not exist"),
        ('route{ t_on_reply("x"); }\n', "onreply route <x> does not exist"),
        ('route{ if ($rU =~ "^(8") { exit; } }\n', 'bad re "^(8"'),
        ('route{ xlog("a$nope"); }\n', "unknown script var $nope"),
    ],
)
def test_start_refuses_what_the_check_passed(daemon: Scripted, script: str, told: str) -> None:
    daemon.script = script
    assert daemon.check()[0] == 0
    assert not daemon.try_start()
    assert told in daemon.log.read_text()


LINES = [
    ('$var(a) = "x$shv(nope)y"; xlog("%s:$var(a)");', "x$shv(nope)y"),  # assigned as it stands
    ('xlog("%s:$var(u)|$avp(u)|$shv(n)");', "<null>|<null>|0"),
    ('if ($var(u) == NULL) xlog("%s:null");', "null"),
    ('if ($avp(u) != "x") xlog("%s:differs");', "differs"),
    ('$avp(s) = "0"; if ($avp(s)) xlog("%s:true");', "true"),
    ('$var(n) = 5; $var(n) += 2; $var(n) = $var(n) * 3 + 1; xlog("%s:$var(n)");', "22"),
    ('$var(t) = "abc" + "def"; xlog("%s:$var(t)");', "abcdef"),
    ('$var(t) = "10"; if ($var(t) == 10) xlog("%s:eq"); else xlog("%s:ne");', "ne"),
    ('$var(i) = 10; if ($var(i) == "10") xlog("%s:eq");', "eq"),
    ('route(three); xlog("%s:$rc $retcode");', "3 3"),
    ('if (!route(minus)) xlog("%s:$rc");', "-1"),
    ('route(shows, "a b", 7); xlog("%s:$var(shown)");', "a b 7"),
    ('$avp(m) = "1"; $avp(m) = "2"; xlog("%s:$avp(m) $(avp(m)[1]) $(avp(m)[*])");', "2 1 2, 1"),
    ('$avp(m) := "3"; xlog("%s:$avp(m) $(avp(m)[1])");', "3 <null>"),
    ('$var(s) = "Friendly-Scanner"; xlog("%s:$(var(s){s.tolower}) $(var(s){s.len})");',
     "friendly-scanner 16"),
    ('if ($var(s) =~ "^friendly") xlog("%s:whatever the case");', "whatever the case"),
    ('$var(s) = "pbx-01;calls=30"; xlog("%s:$(var(s){param.value,calls}{s.int})'
     ' $(var(s){s.select,0,;})");', "30 pbx-01"),
    ('$var(s) = "sip:joe@a.b:5070;transport=tcp"; xlog("%s:$(var(s){uri.user})'
     ' $(var(s){uri.host}) $(var(s){uri.port})");', "joe a.b 5070"),
    ('cache_store("local", "k", "v", 60); cache_fetch("local", "k", $var(f));'
     ' xlog("%s:$var(f)");', "v"),
    ('if (!cache_fetch("local", "none", $var(g))) xlog("%s:$rc");', "-2"),
    ('cache_add("local", "c", 1, 60, $var(c)); cache_add("local", "c", 1, 60, $var(c));'
     ' xlog("%s:$var(c)");', "2"),
    ('switch ($var(i)) { case 1: xlog("%s:1"); case 10: xlog("%s:10"); break;'
     ' default: xlog("%s:d"); }', "10"),
    ("route(zero); xlog(\"%s:never\");", None),  # a route that returns 0 ends the script
]  # fmt: skip


def test_script_counts_compares_and_remembers(daemon: Scripted) -> None:
    daemon.module("cachedb_local")
    numbered = ((line, f"L{number}") for number, (line, _) in enumerate(LINES))
    body = "".join(f" {line.replace('%s', label)}\n" for line, label in numbered)
    body = re.sub(r'(xlog\("[^"]*)"', r'\1\\n"', body)
    daemon.script = (
        "route[three] { return(3); }\nroute[minus] { return(-1); }\nroute[zero] { return(0); }\n"
        'route[shows] { $var(shown) = $param(1) + " " + "7"; }\n'
        f"startup_route {{\n{body}}}\n{ROUTE}"
    )
    daemon.start()
    until(lambda: f"L{len(LINES) - 2}:" in daemon.log.read_text())
    shown = dict(re.findall(r"L(\d+):(.*)", daemon.log.read_text()))
    wanted = {str(n): text for n, (_, text) in enumerate(LINES) if text is not None}
    assert shown == wanted


RELAY = """
route {
    record_route();
    $du = $hdr(X-To);
    t_relay();
}
"""


class TcpPhone(Phone):
    """Calls over one TCP connection."""

    transport = "TCP"

    def __init__(self, server: tuple[str, int]) -> None:
        self.server, self._through_proxy = server, False
        self._socket = socket.create_connection(server, 5)
        self.port = self._socket.getsockname()[1]
        self.inbox: list[sip.Message] = []
        self._stream = self._socket.makefile("rb")

    def close(self) -> None:
        self._stream.close()
        super().close()

    def send(self, message: sip.Message) -> None:
        self._socket.sendall(message.build())

    def receive(self, seconds: float) -> sip.Message | None:
        self._socket.settimeout(max(seconds, 0.001))
        try:
            head = b"".join(iter(self._stream.readline, b"\r\n")) + b"\r\n"
        except TimeoutError:
            return None
        length = re.search(rb"Content-Length: *(\d+)", head)
        message = sip.parse(head + self._stream.read(int(length[1]) if length else 0))
        if message.is_request:
            self.send(sip.respond(message, 200, "OK"))
        return message


@pytest.fixture
def relaying(daemon: Scripted) -> Scripted:
    daemon.module("proto_tcp")
    daemon.core.append(f"socket=tcp:127.0.0.1:{daemon.port}")
    daemon.script = RELAY
    daemon.start()
    return daemon


def test_what_came_by_tcp_goes_on_by_udp_and_back(relaying: Scripted) -> None:
    answerer = Answerer(relaying.port + 1)
    with TcpPhone(relaying.sip) as phone:
        request = phone.request("MESSAGE", X_To=f"sip:127.0.0.1:{relaying.port + 1}")
        assert phone.transact(request).status == 200
    answerer.close()
    (came,) = [one for one in answerer.requests if one.method == "MESSAGE"]
    assert [via.split()[0] for via in came.get_all("Via")] == ["SIP/2.0/UDP", "SIP/2.0/TCP"]
    outer, inner = came.get_all("Record-Route")
    assert (";r2=on" in outer, "transport=tcp" in outer) == (True, False)
    assert (";r2=on" in inner, "transport=tcp" in inner) == (True, True)


def test_who_holds_a_connection_is_reached_over_it(relaying: Scripted) -> None:
    with TcpPhone(relaying.sip) as callee, Phone(relaying.sip) as caller:
        assert callee.transact(callee.request("MESSAGE", X_To="sip:127.0.0.1:1;transport=tls"))
        to = f"sip:127.0.0.1:{callee.port};transport=tcp"
        request = caller.request("MESSAGE", X_To=to)
        caller.send(request)
        came = callee.wait(lambda m: m.method == "MESSAGE")
        assert came is not None
        assert came.get_all("Via")[0].startswith("SIP/2.0/TCP")
        assert caller._final(request, 5.0).status == 200


@pytest.mark.parametrize(
    ("uri", "status", "reason"),
    [
        ("sip:127.0.0.1:1;transport=tcp", 477, "Send failed (477/TM)"),
        ("sip:127.0.0.1:1;transport=tls", 500, "Server error occurred (7/TM)"),
    ],
)
def test_who_cannot_be_connected_to(relaying: Scripted, uri: str, status: int, reason: str) -> None:
    with Phone(relaying.sip) as phone:
        answer = phone.transact(phone.request("MESSAGE", X_To=uri))
    assert (answer.status, answer.reason) == (status, reason)


def test_ping_over_tcp_is_answered_and_nonsense_ends_the_connection(relaying: Scripted) -> None:
    with socket.create_connection(relaying.sip, 5) as link:
        link.sendall(b"\r\n\r\n")
        assert link.recv(10) == b"\r\n"
        link.sendall(b"nonsense\r\n\r\n")
        assert link.recv(10) == b""


REGISTRAR = """
route {
    if (is_method("OPTIONS")) {
        if (lookup("location")) { send_reply(200, "$ru $du"); } else { send_reply(404, "Nobody"); }
        exit;
    }
    if (!www_authorize("", "subscriber")) {
        www_challenge("", "auth");
        exit;
    }
    consume_credentials();
    if (nat_uac_test("private-contact")) { fix_nated_register(); setbflag("NAT"); }
    save("location");
}
"""


@pytest.fixture
def registrar(daemon: Scripted) -> Scripted:
    for name in ("auth", "auth_db", "usrloc", "registrar", "nathelper"):
        daemon.module(name)
    daemon.module("auth_db", db_url=daemon.db_url, password_column="ha1", calculate_ha1=0)
    daemon.module("auth_db", use_domain=1)
    daemon.module("usrloc", working_mode_preset="single-instance-no-db", use_domain=1)
    daemon.module("usrloc", nat_bflag="NAT")
    daemon.module("registrar", min_expires=60, default_expires=600, max_expires=3600)
    daemon.module("registrar", max_contacts=2, received_avp="$avp(received)")
    daemon.module("nathelper", received_avp="$avp(received)")
    (daemon.conf / "dbtext" / "version").write_text(
        "table_name(string) table_version(int)\nsubscriber:8\n"
    )
    password = hashlib.md5(b"joe:127.0.0.1:secret", usedforsecurity=False).hexdigest()
    (daemon.conf / "dbtext" / "subscriber").write_text(
        "id(int,auto) username(string) domain(string) password(string,null) ha1(string,null)"
        f" rpid(string,null)\n1:joe:127.0.0.1::{password}:\n"
    )
    daemon.script = REGISTRAR
    daemon.start()
    return daemon


def test_user_registers_and_is_found_where_its_packets_come_from(registrar: Scripted) -> None:
    with Phone(registrar.sip) as phone:
        assert phone.transact(phone.request("OPTIONS", "joe")).status == 404
        assert phone.register("joe", "secret") == [401, 200]
        found = phone.transact(phone.request("OPTIONS", "joe"))
        here = f"127.0.0.1:{phone.port}"
    assert (found.status, found.reason) == (200, f"sip:caller@{here} sip:{here}")


@pytest.mark.parametrize(("user", "password"), [("joe", "wrong"), ("eve", "secret")])
def test_no_answer_tells_who_is_known(registrar: Scripted, user: str, password: str) -> None:
    with Phone(registrar.sip) as phone:
        assert phone.register(user, password) == [401, 401]


def test_twin_refuses_to_run_what_it_cannot_do(tmp_path: Path) -> None:
    daemon = Scripted("twin", tmp_path)
    daemon.script = 'route { force_send_socket("udp:127.0.0.1:5060"); exit; }\n'
    assert daemon.check()[0] == 0
    assert not daemon.try_start()
    assert "this twin has no force_send_socket" in daemon.log.read_text()


@pytest.mark.real
@pytest.mark.skipif(not shutil.which("opensips"), reason="no opensips on PATH")
def test_catalogue_has_the_real_one_s_parameters(tmp_path: Path) -> None:
    """Given a value of the wrong type, the real one names every parameter the twin knows."""
    listed = subprocess.run(
        [sys.executable, "-c",
         "from catalogue import MODULES\n"
         "for name, module in MODULES.items():\n"
         "    for parameter, kind in module.parameters.items(): print(name, parameter, kind)"],
        cwd=TWIN, capture_output=True, text=True, check=True,
    ).stdout.split("\n")  # fmt: skip
    rows = [tuple(line.split()) for line in listed if line and not line.endswith("both")]
    built = [row for row in rows if (Path(real_opensips.modules()) / f"{row[0]}.so").is_file()]
    modules = dict.fromkeys(row[0] for row in built)
    lines = [f'mpath="{real_opensips.modules()}"', "stderror_enabled=yes", "syslog_enabled=no"]
    lines += [f'loadmodule "{name}.so"' for name in modules]
    lines += [f'modparam("{m}", "{p}", {1 if kind == "str" else chr(34) * 2})'
              for m, p, kind in built]  # fmt: skip
    file = tmp_path / "all.cfg"
    file.write_text("\n".join(lines) + "\n")
    said = subprocess.run([real(), "-C", "-f", str(file)], capture_output=True, text=True).stderr
    found = set(re.findall(r"type mismatch for parameter <(\w+)> in module <(\w+)>", said))
    assert {(p, m) for m, p, _ in built} - found == set()
