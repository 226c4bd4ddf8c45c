"""Configurations that are wrong: refused before the exchange, by file, line and cause.

One proxy of each flavour serves through all of them. Every refusal leaves the disk as it was, byte
by byte, and that proxy answering under its old process id.
"""

import dataclasses
import re
import shutil
import subprocess

import pytest
import yaml

from tests.functional.opensips.conftest import Node, flavours
from tests.support.loading import REPOSITORY, load
from tests.support.secrets import UTILS, referring

pillar_schema = load("_pillar/pillar_schema.py", __utils__=UTILS)
sip = load("_utils/sip.py")

# Where a text is added: at the end of the file whose path begins so.
MAIN, CORE, MODULES, DB = "opensips.cfg", "conf.d/10-", "conf.d/20-", "conf.d/40-"
ROUTES = "routes.d/10-"


@dataclasses.dataclass(frozen=True)
class Broken:
    """What is added to a good configuration, and what of the refusal is then said.

    ``by`` tells who finds it: `check` is `opensips -C`, `boot` the start that follows, and `ours`
    are our own eyes, for OpenSIPS starts with it as if nothing were wrong.
    """

    name: str
    where: str
    text: str
    told: str
    by: str


def broken(by, where, **cases):
    return [
        Broken(name.replace("_", " "), where, text, told, by)
        for name, (text, told) in cases.items()
    ]


CASES = [
    *broken(
        "check", ROUTES,
        missing_semicolon=("route[x] {\n  exit\n}", "syntax error"),
        unclosed_string=('route[x] {\n  xlog("no end);\n}', "syntax error"),
        unclosed_parenthesis=('route[x] {\n  if (is_method("ACK") {\n    exit;\n  }\n}', "syntax"),
        stray_word=("hello", "syntax error"),
        route_of_no_kind=("timer_route[x] {\n  exit;\n}", "syntax error"),
        route_twice=("route[twice] {\n  exit;\n}\nroute[twice] {\n  exit;\n}", "twice.*redefined"),
        main_route_twice=("route {\n  exit;\n}", "overwriting default request routing table"),
        unknown_function=("route[x] {\n  frobnicate();\n}", "unknown command <frobnicate>"),
        too_few_arguments=("route[x] {\n  ds_select_dst();\n}", "too few .*ds_select_dst"),
        too_many_arguments=(
            'route[x] {\n  record_route("a", "b", "c", "d");\n}', "too many .*record_route"),
        function_in_the_wrong_route=(
            "failure_route[x] {\n  create_dialog();\n}", "create_dialog.*cannot be used"),
        unknown_variable=("route[x] {\n  $nosuch = 1;\n}", "unknown script var"),
        wrong_type_where_it_is_reached=(
            'failure_route[x] {\n  send_reply("x", "y");\n}', "expected to be an integer"),
        variable_that_is_only_read=("route[x] {\n  $si = 1;\n}", "invalid left operand"),
    ),
    *broken(
        "boot", ROUTES,
        undefined_route=("route[x] {\n  route(nowhere);\n}", "nowhere.*not defined"),
        undefined_failure_route=('route[x] {\n  t_on_failure("nowhere");\n}', "<nowhere> does not"),
        undefined_branch_route=('route[x] {\n  t_on_branch("nowhere");\n}', "<nowhere> does not"),
        undefined_reply_route=('route[x] {\n  t_on_reply("nowhere");\n}', "<nowhere> does not"),
        bad_flags=('route[x] {\n  ds_select_dst(1, 4, "Q");\n}', "Invalid definition"),
        wrong_type_of_argument=(
            'route[x] {\n  ds_select_dst("one", 4, "f");\n}', "expected to be an integer"),
        unknown_variable_in_a_string=('route[x] {\n  xlog("$nosuch(a)");\n}', r"\$nosuch"),
        unreadable_regex=('route[x] {\n  if ($rU =~ "^(8") {\n    exit;\n  }\n}', r"bad re .*\^\("),
        unreadable_range=('route[x] {\n  if ($rU =~ "[9-") {\n    exit;\n  }\n}', r"bad re .*\[9-"),
        unknown_transformation=('route[x] {\n  xlog("$(rU{s.nosuch})");\n}', "nosuch"),
        unreadable_status=('failure_route[x] {\n  if (t_check_status("((4")) exit;\n}', r"bad re"),
        status_that_is_none=('route[x] {\n  send_reply(42, "x");\n}', "wrong code: 42"),
        method_that_is_none=('route[x] {\n  if (is_method("NO SUCH")) exit;\n}', "method|comma"),
        event_route_without_its_module=("event_route[E_X] {\n  exit;\n}", "event_route"),
    ),
    *broken("ours", ROUTES, unclosed_comment=("/* no end", "comment")),
    *broken(
        "check", MAIN,
        missing_include=('include_file "routes.d/99-nowhere.cfg"', "99-nowhere.cfg"),
        include_of_a_directory=('include_file "routes.d"', "routes.d"),
        include_of_itself=('include_file "opensips.cfg"', "included already"),
    ),
    *broken("ours", MAIN, include_of_another_tree=('include_file "{outside}"', "outside")),
    *broken(
        "check", CORE,
        unknown_core_parameter=("no_such_core=1", "syntax error"),
        core_parameter_of_wrong_type=('udp_workers="four"', "syntax error"),
        core_parameter_of_an_old_release=("disable_tcp=yes", "syntax error"),
        socket_of_no_protocol=("socket=pigeon:127.0.0.1:5060", "cannot handle protocol <pigeon>"),
        socket_whose_module_is_not_loaded=("socket=sctp:127.0.0.1:5098", "no module can handle"),
        socket_of_an_unknown_name=("socket=udp:nosuch.invalid:5060", "nosuch.invalid"),
        socket_of_an_unknown_interface=("socket=udp:nosuch0:5060", "could not resolve nosuch0"),
        socket_advertised_as_nothing=("socket=udp:127.0.0.1:5098 AS", "syntax error"),
        modules_nowhere=('mpath="/nonexistent/"', "/nonexistent/|load module"),
    ),
    *broken("boot", CORE, socket_of_another_host=("socket=udp:203.0.113.9:5060", "assign")),
    *broken(
        "ours", CORE,
        socket_twice=("socket=udp:127.0.0.1:{port}", "twice|taken"),
        port_out_of_range=("socket=udp:127.0.0.1:99999", "99999"),
        port_zero=("socket=udp:127.0.0.1:0", "port"),
    ),
    *broken(
        "check", MODULES,
        unknown_module=('loadmodule "nosuch.so"', "nosuch.so"),
        module_twice=('loadmodule "tm.so"', "tm.so"),
        module_that_needs_another=('loadmodule "registrar.so"', "depends on module usrloc"),
        unknown_parameter=('modparam("tm", "nosuch", 1)', "<nosuch> not found in module <tm>"),
        parameter_of_wrong_type=('modparam("tm", "fr_timeout", "x")', "type mismatch.*fr_timeout"),
        parameter_before_its_module=(
            'modparam("benchmark", "enable", 1)\nloadmodule "benchmark.so"', "benchmark"),
        shared_variable_of_no_value=('modparam("cfgutils", "shvset", "draining")', "draining"),
    ),
    *broken(
        "boot", MODULES,
        parameter_that_is_required=('loadmodule "load_balancer.so"', "DB URL is not defined"),
        timer_out_of_range=('modparam("tm", "fr_timeout", 0)', "FR_TIMER must be at least"),
        socket_in_no_directory=(
            'modparam("mi_datagram", "socket_name", "/nonexistent/mi.sock")', "No such file"),
        metrics_on_another_host=(
            'loadmodule "httpd.so"\nloadmodule "prometheus.so"\n'
            'modparam("httpd", "ip", "203.0.113.9")', "http daemon"),
    ),
    *broken(
        "boot", DB,
        mode_that_is_none=('modparam("dialog", "db_mode", 9)', "unsupported db_mode 9"),
        url_that_is_none=('modparam("dispatcher", "db_url", "nonsense")', "nonsense|database"),
        missing_database=(
            'modparam("permissions", "db_url", "{driver}:///nowhere/x")', "open database|exist"),
        missing_table=('modparam("permissions", "address_table", "nosuch")', "nosuch"),
        wrong_table_version=('modparam("dispatcher", "table_name", "address")', "version 5"),
        missing_column=('modparam("dispatcher", "destination_col", "nosuch")', "nosuch"),
        codes_that_are_none=('modparam("dispatcher", "options_reply_codes", "four")', "four"),
    ),
    *broken(
        "ours", DB,
        missing_driver=(
            'modparam("dispatcher", "db_url", "postgres://a:not-a-secret@[::1]/o")', "postgres"),
    ),
    *broken(
        "check", DB,
        database_url_of_wrong_type=('modparam("dispatcher", "db_url", 5)', "type mismatch.*db_url"),
    ),
]  # fmt: skip


# Good from 3.6 on: event routes are the core's there, and a second mpath is one more.
ONLY_34 = {"event route without its module", "modules nowhere"}


@pytest.fixture(scope="module", params=flavours())
def standing(request, tmp_path_factory):
    """A proxy that runs through all cases."""
    root = tmp_path_factory.mktemp("standing")
    with pytest.MonkeyPatch.context() as patch:
        node = Node(root, request.param)
        node.flavour = request.param
        patch.setenv("PATH", str(root / "bin"), prepend=":")
        try:
            for answer in (node.configured(), node.running()):
                assert answer["result"] is True, answer["comment"]
            yield node
        finally:
            node.close()


@pytest.fixture
def node(standing):
    """Hold that the refusal of a test cost nothing at all."""
    before, pid = tree(standing), standing.pid()
    yield standing
    assert tree(standing) == before
    assert not standing.conf.with_name(f".{standing.conf.name}.staged").exists()
    assert standing.pid() == pid
    assert sip.options("127.0.0.1", standing.context["sockets"][0]["port"], 4.0) == 200


def tree(node):
    return {
        str(path.relative_to(node.conf)): path.read_bytes()
        for path in sorted(node.conf.rglob("*"))
        if path.is_file()
    }


def file_of(node, where):
    return min(path for path in tree(node) if path.startswith(where))


def template_of(node, path):
    manifest = yaml.safe_load((node.source / "manifest.yaml").read_text())
    return node.source / next(e["template"] for e in manifest["tree"] if e["path"] == path)


def comment_of(answer):
    """What a refused apply says, held to be one line about nothing but the live tree."""
    assert answer["result"] is False
    told = answer["comment"]
    assert "\n" not in told
    assert ".staged" not in told
    assert "not-a-secret" not in told
    return told


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.by}: {case.name}")
def test_configuration_is_refused(node, case):
    if case.name in ONLY_34 and not release(node).startswith("3.4"):
        pytest.skip("this release takes it")
    path = file_of(node, case.where)
    text = filled(node, case.text)
    before = (node.conf / path).read_text().rstrip("\n")
    first = before.count("\n") + 2
    last = first + text.count("\n")
    template = template_of(node, path)
    good = template.read_text()
    template.write_text(f"{good.rstrip()}\n{text}\n")
    try:
        if case.by == "boot":
            assert passes_the_check(node, path, text)
        told = comment_of(node.configured())
    finally:
        template.write_text(good)
    assert told.startswith("refused, nothing changed: ")
    assert re.search(case.told, told), told
    places = re.findall(r"([a-z.]+/?[0-9a-z.-]+\.cfg|dbtext/\w+):(\d+): ", told)
    assert places, told
    lines = f"{before}\n{text}".split("\n")
    # A parser that misses something tells where it noticed, a line early or late; a module that
    # cannot start is told by where it is loaded.
    assert any(
        place.startswith("dbtext/")
        or (place == path and first - 1 <= int(line) <= last + 1)
        or (place == path and modules_of(lines[int(line) - 1]) & modules_of(text))
        or (case.where == CORE and "mpath" in text)
        for place, line in places
    ), (first, last, told)


def release(node):
    said = subprocess.run(
        [str(node.root / "bin" / "opensips"), "-V"], capture_output=True, text=True, check=True
    )
    return re.search(r"opensips ([0-9.]+)", said.stdout)[1]


def filled(node, text):
    """A case's text with what only this node knows."""
    outside = node.root / "outside.cfg"
    outside.write_text("route[outside] {\n  exit;\n}\n")
    sqlite = any("sqlite:" in file.read_text() for file in (node.conf / "conf.d").iterdir())
    known = {
        "{port}": str(node.context["sockets"][0]["port"]),
        "{outside}": str(outside),
        "{driver}": "sqlite" if sqlite else "text",
    }
    for word, value in known.items():
        text = text.replace(word, value)
    return text


def modules_of(text):
    return set(re.findall(r'(?:modparam\(|loadmodule )"(\w+)', text))


def passes_the_check(node, path, text):
    """Tell whether `opensips -C` alone is content, which is why there is a trial boot."""
    copy = node.root / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(node.conf, copy)
    with (copy / path).open("a") as file:
        file.write(f"\n{text}\n")
    return node.call("config_check", str(copy), boot=False)["result"]


# -- pillar --------------------------------------------------------------------------------------

CARRIER = {
    "gateways": {"carrier-a": {"address": "192.0.2.9"}},
    "carriers": {"main": {"gateways": ["carrier-a"]}},
    "outbound": [{"prefix": "44", "carriers": ["main"]}],
}
PBX = {"node": "pbx-01", "uri": "sip:127.0.0.1:1"}
UDP = {"proto": "udp", "address": "127.0.0.1", "port": 5098}
TCP = {"proto": "tcp", "address": "127.0.0.1", "port": 5097}
TLS = {"proto": "tls", "address": "127.0.0.1", "port": 5096}
HA1 = "0123456789abcdef0123456789abcdef"


def cluster(*ids, tags=None):
    nodes = {f"sip-0{n}": {"id": i, "address": "127.0.0.1"} for n, i in enumerate(ids, 1)}
    return {"cluster": {"id": 1, "nodes": nodes, "tags": tags or {}}}


def users(user="alice", domain="example.org", ha1=HA1):
    domains = ["example.org"]
    return {"registrar": {"domains": domains, "users": {domain: {user: {"ha1": ha1}}}}}


def remote(**changes):
    login = {"host": "db.example.org", "name": "voice", "user": "voice", "password": "not-a-secret"}
    return {"database": {"remote": {"driver": "mysql", **login, **changes}}}


def tls(certificate="web", **more):
    return {"sockets": [UDP, TLS], "tls": {"main": {"certificate": certificate, **more}}}


# What a person wrote -> what the refusal says; it names the key and no value.
GIVEN = {
    "unknown key": ({"dispatchr": {}}, "opensips:dispatchr: unknown key .did you mean dispatcher"),
    "secret that is masked": (users(ha1="**********"), "opensips:registrar:users"),
    "carrier of an unknown gateway": (
        {**CARRIER, "carriers": {"main": {"gateways": ["carrier-b"]}}}, "carriers:main.*gateway"),
    "rule of an unknown carrier": (
        {**CARRIER, "outbound": [{"prefix": "44", "carriers": ["spare"]}]}, "outbound:0.*carrier"),
    "gateway without an address": ({"gateways": {"carrier-a": {}}}, "carrier-a:address: missing"),
    "gateway of no protocol": (
        {"gateways": {"carrier-a": {"address": "10.0.0.9", "proto": "pigeon"}}}, "carrier-a:proto"),
    "prefix that is no number": (
        {**CARRIER, "outbound": [{"prefix": "uk", "carriers": ["main"]}]}, "outbound:0:prefix"),
    "destination twice": ({"dispatcher": {"1": [PBX, PBX]}}, "opensips:dispatcher:1"),
    "destination that is no URI": (
        {"dispatcher": {"1": [{**PBX, "uri": "pbx"}]}}, "opensips:dispatcher:1:0:uri"),
    "destination of weight nothing": (
        {"dispatcher": {"1": [{**PBX, "weight": 0}]}}, "opensips:dispatcher:1:0:weight"),
    "set that is no number": ({"dispatcher": {"one": [PBX]}}, "opensips:dispatcher"),
    "numbers of an unknown set": (
        {"numbers": [{"expression": "^8", "set": 7}]}, "opensips:numbers:0"),
    "numbers of an unreadable expression": (
        {"numbers": [{"expression": "^(8", "set": 1}]}, "numbers:0:expression does not"),
    "numbers of an expression of Perl": (
        {"numbers": [{"expression": r"^8\d", "set": 1}]}, "numbers:0:expression is Perl's"),
    "algorithm that is none": ({"algorithm": 99}, "opensips:algorithm: must be at most"),
    "trusted that is no address": ({"trusted": ["300.1.1.1"]}, "opensips:trusted"),
    "trusted of no length": ({"trusted": ["10.0.0.0/77"]}, "opensips:trusted"),
    "banned that is no address": ({"banned": ["everybody"]}, "opensips:banned"),
    "registrar nobody can log in to": (
        {"registrar": {"domains": ["example.org"]}}, "opensips:registrar: nobody can log in"),
    "pillar socket of no protocol": (
        {"sockets": [{**UDP, "proto": "pigeon"}]}, "opensips:sockets:0:proto: must be one of"),
    "socket without a port": ({"sockets": [{"proto": "udp"}]}, "opensips:sockets:0:port: missing"),
    "port that is none": (
        {"sockets": [{**UDP, "port": 70000}]}, "opensips:sockets:0:port: must be at most 65535"),
    "two sockets alike": ({"sockets": [UDP, UDP]}, "opensips:sockets|conf.d/10-.*twice"),
    "pillar socket of another host": (
        {"sockets": [{**UDP, "address": "203.0.113.9"}]}, "conf.d/10-[a-z.]+:[0-9]+.*assign"),
    "no worker": ({"workers": 0}, "opensips:workers: must be at least 1"),
    "timer too short": ({"timers": {"final_reply": 0}}, "opensips:timers:final_reply: must be"),
    "log level that is none": ({"log_level": "loud"}, "opensips:log_level: must be integer"),
    "metrics where a socket is": (
        {"sockets": [UDP, TCP], "metrics": {"address": "127.0.0.1", "port": 5097}},
        "opensips:metrics|conf.d"),
    "health where a socket is": (
        {"sockets": [UDP, TCP], "health": {"port": 5097}}, "opensips:health|conf.d"),
    "health where metrics are": (
        {"metrics": {"address": "127.0.0.1", "port": 5097}, "health": {"port": 5097}},
        "opensips:(health|metrics)|conf.d"),
    "TLS socket without a domain": ({"sockets": [UDP, TLS]}, "opensips:(tls|sockets)|conf.d"),
    "TLS domain of an unknown certificate": (tls("other"), "opensips:tls:main:certificate"),
    "TLS domain of an old version": (tls(least_version="TLSv1.0"), "opensips:tls:main:least_ver"),
    "TLS domain of no side": (tls(side="middle"), "opensips:tls:main:side"),
    "TLS ciphers that are none": (tls(ciphers="NOSUCH"), "opensips:tls:main"),
    "certificate that is none": (tls("junk"), "certificate domain-main: chain is not PEM"),
    "certificate of another key": (tls("mismatched"), "domain-main: key does not match"),
    "certificate that is not there": (tls("absent"), "opensips:tls:main.*not there"),
    "two nodes of one id": (cluster(1, 1), "opensips:cluster"),
    "cluster without this node": (
        {"cluster": {"id": 1, "nodes": {"sip-09": {"id": 9, "address": "192.0.2.9"}}}},
        "opensips:cluster"),
    "tag of an unknown node": (cluster(1, 2, tags={"vip": "sip-09"}), "opensips:cluster:tags"),
    "users of an unknown domain": (users(domain="example.net"), "opensips:registrar:users"),
    "password that is no hash": (users(ha1="not-a-secret"), "users:.*ha1: .*secret .* has not the"),
    "driver that is none": (remote(driver="oracle"), "database:remote:driver: must be one"),
    "database nowhere": ({"database": {"remote": {"driver": "mysql"}}}, "remote:host: missing"),
    "rtpengine that is none": ({"rtpengine": {"1": ["smoke:192.0.2.1:5"]}}, "opensips:rtpengine:1"),
    "limit below nothing": ({"limits": {"calls": -1}}, "opensips:limits:calls: must be at least"),
    "threshold that is none": (
        {"fraud": {"1": [{"calls_per_minute": {"loud": 5}}]}}, "opensips:fraud:1:0"),
    "statistic that is none": (
        {"metrics": {"address": "127.0.0.1", "port": 5097, "statistics": [7]}},
        "metrics:statistics"),
}  # fmt: skip

PAYLOADS = {
    "quote": 'x"); exec("id',
    "newline": "x\nroute{}",
    "backslash": "x\\",
    "semicolon": "x; exit; #",
}
# Every place of the pillar where a word goes into a file or a row.
INJECTED = {
    "sockets:0:address": lambda word: {"sockets": [{**UDP, "address": word}]},
    "sockets:0:advertised": lambda word: {"sockets": [{**UDP, "advertised": word}]},
    "module_path": lambda word: {"module_path": word},
    "database:remote:host": lambda word: remote(host=word),
    "database:remote:name": lambda word: remote(name=word),
    "database:remote:user": lambda word: remote(user=word),
    "database:remote:password": lambda word: remote(password=word),
    "dispatcher:1:0:node": lambda word: {"dispatcher": {"1": [{**PBX, "node": word}]}},
    "dispatcher:1:0:uri": lambda word: {"dispatcher": {"1": [{**PBX, "uri": f"sip:{word}"}]}},
    "numbers:0:expression": lambda word: {"numbers": [{"expression": word, "set": 1}]},
    "trusted": lambda word: {"trusted": [word]},
    "banned": lambda word: {"banned": [word]},
    "gateways": lambda word: {"gateways": {word: {"address": "192.0.2.9"}}},
    "gateways:a:address": lambda word: {"gateways": {"a": {"address": word}}},
    "gateways:a:prefix": lambda word: {"gateways": {"a": {"address": "10.0.0.9", "prefix": word}}},
    "carriers": lambda word: {**CARRIER, "carriers": {word: {"gateways": ["carrier-a"]}}},
    "carriers:main": lambda word: {**CARRIER, "carriers": {"main": {"gateways": [word]}}},
    "outbound:0:prefix": lambda word: {
        **CARRIER, "outbound": [{"prefix": word, "carriers": ["main"]}]},
    "registrar:domains": lambda word: {"registrar": {"domains": [word]}},
    "registrar:users": lambda word: users(user=word),
    "registrar:users:example.org": lambda word: users(ha1=word),
    "rtpengine:1": lambda word: {"rtpengine": {"1": [f"udp:{word}"]}},
    "tls": lambda word: {"sockets": [UDP, TLS], "tls": {word: {"certificate": "web"}}},
    "tls:main:names": lambda word: tls(names=[word]),
    "tls:main:ciphers": lambda word: tls(ciphers=word),
    "defence:scanners": lambda word: {"defence": {"scanners": [word]}},
    "fraud:1:0:prefix": lambda word: {"fraud": {"1": [{"prefix": word}]}},
    "cluster": lambda word: {
        "cluster": {"id": 1, "nodes": {word: {"id": 1, "address": "127.0.0.1"}}}},
    "cluster:nodes:sip-01:address": lambda word: {
        "cluster": {"id": 1, "nodes": {"sip-01": {"id": 1, "address": word}}}},
    "cluster:tags": lambda word: cluster(1, tags={word: "sip-01"}),
    "metrics:address": lambda word: {"metrics": {"address": word, "port": 5097}},
    "metrics:statistics": lambda word: {
        "metrics": {"address": "127.0.0.1", "port": 5097, "statistics": [word]}},
}  # fmt: skip


def refusal(node, given):
    """What the first layer says that a person meets: the pillar's schema, else the state."""
    pillar = {"node": dict(node.context["node"]), **referring("opensips", given)}
    faults = [
        told
        for (component, *_), told in pillar_schema.faults(pillar, REPOSITORY / "pillar" / "schema")
        if component == "opensips"
    ]
    if faults:
        assert not any("\n" in fault or "not-a-secret" in fault for fault in faults)
        return "; ".join(faults)
    context = node.caller.cmd("slsutil.merge", node.context, given)
    return comment_of(node.configured({**context, "certificates": certificates(node.root)}))


def certificates(root):
    """{name: directory}: one that is good and three that are not."""
    directory = root / "certificates"
    if not directory.exists():
        for name in ("web", "other"):
            (directory / name).mkdir(parents=True)
            made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                    "-subj", "/CN=example.org", "-addext", "basicConstraints=critical,CA:FALSE",
                    "-keyout", directory / name / "key.pem",
                    "-out", directory / name / "chain.pem"]  # fmt: skip
            subprocess.run(made, check=True, capture_output=True)
        shutil.copytree(directory / "web", directory / "junk")
        (directory / "junk" / "chain.pem").write_text("not a certificate\n")
        shutil.copytree(directory / "web", directory / "mismatched")
        shutil.copy(directory / "other" / "key.pem", directory / "mismatched" / "key.pem")
    return {name: str(directory / name) for name in ("web", "junk", "mismatched", "absent")}


@pytest.mark.parametrize("name", GIVEN)
def test_pillar_is_refused(node, name):
    given, told = GIVEN[name]
    said = refusal(node, given)
    assert re.search(told, said), said


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("key", INJECTED)
def test_what_would_leave_its_place_is_refused(node, key, payload):
    said = refusal(node, INJECTED[key](PAYLOADS[payload]))
    assert f"opensips:{key}" in said


def test_there_are_more_than_sixty():
    names = [*(case.name for case in CASES), *GIVEN]
    assert len(set(names)) == len(names)
    assert len(CASES) >= 60
