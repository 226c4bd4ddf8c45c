"""A pillar that uses everything: it is of the schema, holds together, and loads without a word."""

import copy
import json
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

import jsonschema
import pytest
import salt.utils.dictupdate
import yaml

from tests.support import real_opensips
from tests.support.loading import REPOSITORY, load
from tests.support.ports import free_ports

HERE = Path(__file__).parent
SOURCE = REPOSITORY / "salt" / "opensips"
RELEASES = ((3, 4, 18), (3, 6, 8), (4, 0, 1))
LOUD = re.compile(r"\b(WARNING|ERROR|CRITICAL|ALERT|BUG|EMERG)\b")
SAID_ANYWAY = (
    # 4.0.1 frees an empty table of db_text twice and says so; its clusterer reads one.
    "db_text:dbt_free_result: unable to free internal structure",
    # 4.0.1 when asked by an old name that is no alias there; `mi.call` then finds the new one.
    "handle_mi_request: Command not found",
    # The machine of the test is busy.
    "timer_ticker: ",
)

mi = load("_utils/mi.py")
tree_render = load("_utils/tree_render.py")
opensips_rows = load("_utils/opensips_rows.py")
opensips_tables = load("_utils/opensips_tables.py")
opensips_db = load("_utils/opensips_db.py")


def defaults():
    return yaml.safe_load((SOURCE / "defaults.yaml").read_text())


def everything():
    return yaml.safe_load((HERE / "everything.yaml").read_text())


def context_of(pillar, release, driver):
    context = defaults()
    salt.utils.dictupdate.update(context, copy.deepcopy(pillar), merge_lists=False)
    node = {"name": "sip-01", "address": "127.0.0.1", "public_address": "198.51.100.7"}
    context.update(node=node, release=list(release), local_driver=driver)
    return context


def rendered(context, cache, read=lambda path: b"PEM"):
    rows = opensips_rows.rows(context, read)
    files = opensips_tables.files(rows, context["release"], driver=context["local_driver"])
    return tree_render.render(str(SOURCE / "files"), context, str(cache), "opensips", files)


def test_it_is_of_the_schema():
    pillar = everything()
    pillar.pop("certificates")  # a state adds them
    jsonschema.validate(
        pillar, json.loads((REPOSITORY / "pillar/schema/opensips.json").read_text())
    )


USERS = {"voice.example.com": {"1001": {"ha1": "0123456789abcdef" * 2}}}

REMOTE = {
    "driver": "mysql",
    "host": "db.example.com",
    "name": "opensips",
    "user": "opensips",
    "password": "not-a-secret",
}
PILLARS = {
    "least": dict,
    "everything": everything,
    "registrar": lambda: {"registrar": {"domains": ["voice.example.com"], "users": USERS}},
    "carriers": lambda: {key: everything()[key] for key in ("gateways", "carriers", "outbound")},
    "fraud": lambda: {"fraud": {"1": [{"prefix": "9"}]}},
    "remote": lambda: {
        "registrar": {"domains": ["voice.example.com"]},
        "database": {"remote": REMOTE},
    },
    "limits": lambda: {"limits": {"calls_per_second": 5}},
    "draining": lambda: {"draining": True},
}


@pytest.fixture(params=PILLARS)
def pillar(request):
    return PILLARS[request.param]()


@pytest.mark.parametrize("release", RELEASES, ids=str)
@pytest.mark.parametrize("driver", ["text", "sqlite"])
def test_the_tree_holds_together(tmp_path, pillar, driver, release):
    tree = rendered(context_of(pillar, release, driver), tmp_path)["tree"]
    included = re.findall(rb'^include_file "(.+)"$', tree["opensips.cfg"], re.MULTILINE)
    files = [path.decode() for path in included]
    assert {*files, "opensips.cfg"} == {path for path in tree if path.endswith(".cfg")}
    loaded = set()
    for line in b"\n".join(tree[path] for path in files).decode().splitlines():
        if found := re.match(r'loadmodule "(\w+)\.so"$', line):
            assert found[1] not in loaded, f"{found[1]} is loaded twice"
            loaded.add(found[1])
        elif found := re.match(r'modparam\("(\w+)", "\w+", (\d+|".*")\)$', line):
            assert found[1] in loaded, f"{line} comes before its module"
        else:
            assert not line.startswith(("loadmodule", "modparam")), line
    assert f"db_{driver}" in loaded
    for table in ("dispatcher", "address", "version"):
        assert f"dbtext/{table}" in tree
    # What is not asked for is not there.
    assert ("tls_mgm" in loaded) == ("tls" in pillar) == ("dbtext/tls_mgm" in tree)
    assert ("clusterer" in loaded) == ("cluster" in pillar)
    assert ("usrloc" in loaded) == ("registrar" in pillar)
    assert ("drouting" in loaded) == ("gateways" in pillar or "fraud" in pillar)
    assert ("httpd" in loaded) == ("metrics" in pillar)


def test_standing_file_says_only_whether_it_drains(tmp_path):
    for draining in (False, True):
        context = context_of({"draining": draining}, RELEASES[0], "text")
        text = rendered(context, tmp_path)["tree"]["conf.d/15-standing.cfg"].decode()
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        assert lines == [f'modparam("cfgutils", "shvset", "draining=i:{int(draining)}")']


def test_health_socket_is_made_only_where_a_port_is_given(tmp_path):
    for port, wanted in ((None, 2), (5099, 4)):
        context = context_of({"health": {"port": port}}, RELEASES[0], "text")
        assert len(rendered(context, tmp_path)["system"]) == wanted


def test_database_of_others_has_only_what_calls_create(tmp_path):
    tree = rendered(context_of(PILLARS["remote"](), RELEASES[0], "sqlite"), tmp_path)["tree"]
    urls = re.findall(rb'modparam\("(\w+)", "db_url", "(\w+):', tree["conf.d/40-db.cfg"])
    assert {module for module, driver in urls if driver == b"mysql"} == {
        b"dialog", b"usrloc", b"auth_db",
    }  # fmt: skip


@pytest.mark.parametrize(
    "value",
    ['a"; exit; #', "a\nloadmodule", "a'b", "a;b", "a\\", "a\n", "$(rm)", "a b\t"],
)
@pytest.mark.parametrize(
    ("key", "put"),
    [
        ("trusted", lambda value: [value]),
        ("sockets", lambda value: [{"proto": "udp", "port": 5060, "advertised": value}]),
        ("dispatcher", lambda value: {"1": [{"node": "pbx-01", "uri": f"sip:{value}"}]}),
        ("dispatcher", lambda value: {"1": [{"node": value, "uri": "sip:10.0.0.1:5060"}]}),
        ("gateways", lambda value: {value: {"address": "192.0.2.1"}}),
        ("gateways", lambda value: {"a": {"address": "192.0.2.1", "prefix": value}}),
        ("outbound", lambda value: [{"prefix": value, "carriers": ["a"]}]),
        ("registrar", lambda value: {"domains": [value]}),
        ("registrar", lambda value: {"users": {"a.example.com": {value: {"ha1": "0" * 32}}}}),
        ("registrar", lambda value: {"users": {"a.example.com": {"1": {"ha1": value}}}}),
        ("tls", lambda value: {"a": {"certificate": "default", "ciphers": value}}),
        ("tls", lambda value: {value: {"certificate": "default"}}),
        ("cluster", lambda value: {"tags": {value: "sip-01"}}),
        ("cluster", lambda value: {"nodes": {"sip-01": {"id": 1, "address": value}}}),
        ("metrics", lambda value: {"statistics": [value]}),
        ("metrics", lambda value: {"address": value}),
        ("module_path", lambda value: f"/{value}/"),
        ("rtpengine", lambda value: {"0": [value]}),
        *(
            ("database", lambda value, key=key: {"remote": {**REMOTE, key: value}})
            for key in ("driver", "host", "name", "user")
        ),
        ("defence", lambda value: {"scanners": [value]}),
        ("fraud", lambda value: {"1": [{"prefix": value}]}),
        ("package", lambda value: {"modules": [value]}),
    ],
)
def test_value_that_would_leave_its_place_breaks_the_schema(key, put, value):
    schema = json.loads((REPOSITORY / "pillar/schema/opensips.json").read_text())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({key: put(value)}, schema)


@pytest.mark.parametrize(
    "value", ['a"; exit; #', "a\nb", "a'b", "a;b", "a\\", "a\n", "a b", "a@b", "a/b", ""]
)
def test_password_that_would_leave_its_url_breaks_the_schema(value):
    schema = json.loads((REPOSITORY / "pillar/schema/opensips.json").read_text())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"database": {"remote": {**REMOTE, "password": value}}}, schema)


# -- the real one --------------------------------------------------------------------------------


class Daemon:
    """The real daemon with a rendered tree whose paths lie below a directory of ours."""

    def __init__(self, root, pillar, driver):
        self.root = root
        self.binary = shutil.which("opensips")
        said = subprocess.run([self.binary, "-V"], capture_output=True, text=True, check=False)
        release = [
            int(part) for part in re.search(r"opensips (\d+\.\d+\.\d+)", said.stdout)[1].split(".")
        ]
        context = context_of(pillar, release, driver)
        context["module_path"] = real_opensips.modules()
        for name in ("run", "var/dbtext", "tls"):
            (root / name).mkdir(parents=True)
        self._certify(context)
        files = opensips_tables.files(opensips_rows.rows(context), release, driver=driver)
        source = str(SOURCE / "files")
        self.tree = {
            path: self._ours(content)
            for path, content in tree_render.render(
                source, context, str(root / "cache"), "opensips", files
            )["tree"].items()
        }
        for path, content in self.tree.items():
            file = root / "conf" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        owner = {"owner": Path(root).owner(), "group": Path(root).group()}
        if driver == "sqlite":
            opensips_db.sync(str(root / "var/opensips.sqlite"), self.tree, **owner)
        else:
            opensips_db.seed(str(root / "var/dbtext"), self.tree, **owner)
        self.process = None

    def _certify(self, context):
        bundle = self.root / "tls"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
             "/CN=voice.example.com", "-keyout", bundle / "key.pem", "-out", bundle / "chain.pem"],
            check=True, capture_output=True,
        )  # fmt: skip
        context["certificates"] = {"default": str(bundle)}

    def _ours(self, content):
        places = {
            "/etc/opensips": "conf", "/run/opensips": "run", "/var/lib/opensips": "var",
        }  # fmt: skip
        for place, name in places.items():
            content = content.replace(place.encode(), str(self.root / name).encode())
        return content.replace(b"stderror_enabled=no", b"stderror_enabled=yes").replace(
            b"syslog_enabled=yes", b"syslog_enabled=no"
        )

    @property
    def log(self):
        return (self.root / "log").read_text()

    def start(self):
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.binary, "-F", "-f", str(self.root / "conf/opensips.cfg"), "-P",
                 str(self.root / "pid"), "-m", "256", "-M", "16"],
                stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + 15
        while True:
            assert self.process.poll() is None, self.log
            try:
                self.call("version")
            except OSError:
                assert time.monotonic() < deadline, self.log
                time.sleep(0.05)
                continue
            return

    def call(self, command, **params):
        return mi.call(command, params or None, socket=str(self.root / "run/opensips_mi.sock"))

    def loaded(self, command):
        """What a command answers once its module has read its tables."""
        deadline = time.monotonic() + 10
        while True:
            try:
                return self.call(command)
            except mi.MiError:
                assert time.monotonic() < deadline, self.log
                time.sleep(0.05)

    def loud(self):
        lines = [line for line in self.log.splitlines() if LOUD.search(line)]
        return [line for line in lines if not any(said in line for said in SAID_ANYWAY)]

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(15)


@pytest.fixture(params=["text", "sqlite"])
def boot(request, tmp_path):
    """Start the real daemon with a pillar; it is stopped afterwards."""
    if shutil.which("opensips") is None:
        pytest.skip("no opensips on PATH: the twin has not every module")
    made = []

    def start(pillar):
        daemon = Daemon(tmp_path / "os", pillar, request.param)
        made.append(daemon)
        daemon.start()
        return daemon

    yield start
    for daemon in made:
        daemon.stop()


@pytest.fixture
def rtpengine():
    """A control socket that answers pings."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        control.bind(("127.0.0.1", 0))

        def answer():
            while True:
                try:
                    packet, peer = control.recvfrom(4096)
                except OSError:
                    return
                if not packet:
                    return
                control.sendto(packet.split(b" ")[0] + b" d6:result4:ponge", peer)

        threading.Thread(target=answer, daemon=True).start()
        port = control.getsockname()[1]
        yield f"udp:127.0.0.1:{port}"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.sendto(b"", ("127.0.0.1", port))


@pytest.fixture
def full(rtpengine):
    """Everything, with ports of this machine."""
    pillar = everything()
    first = free_ports(8)
    for number, one in enumerate(pillar["sockets"]):
        one["port"] = first + number
    tls, wss = (one["port"] for one in pillar["sockets"] if one["proto"] in ("tls", "wss"))
    pillar["tls"]["inside"]["addresses"] = [f"127.0.0.1:{tls}"]
    pillar["tls"]["web"]["addresses"] = [f"127.0.0.1:{wss}"]
    pillar["cluster"]["nodes"]["sip-01"]["port"] = first + 6
    pillar["metrics"]["port"] = first + 7
    pillar["rtpengine"] = {"0": [rtpengine]}
    return pillar


def fetched(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return answer.read().decode()


@pytest.mark.real
def test_it_loads_without_a_word_and_holds_what_pillar_says(boot, full):
    daemon = boot(full)
    gateways = daemon.loaded("dr_gw_status")["Gateways"]
    assert {row["ID"] for row in gateways} == set(full["gateways"])
    assert {row["name"] for row in daemon.call("tls_list")["Domains"]} == set(full["tls"])
    tags = {row["Tag"]: row["State"] for row in daemon.call("clusterer_list_shtags")}
    assert tags == {"vip": "active", "spare": "backup"}
    (partition,) = daemon.call("ds_list")["PARTITIONS"]
    assert {one["id"] for one in partition["SETS"]} == {1, 2, 1001}
    (rtp,) = daemon.call("rtpengine_show")
    assert rtp["Nodes"][0]["disabled"] == 0
    assert "opensips_" in fetched(full["metrics"]["port"])
    assert str(daemon.call("get_statistics", statistics=["usrloc:"]))
    daemon.stop()
    assert not daemon.loud(), "\n".join(daemon.loud())


@pytest.mark.real
def test_least_pillar_loads_without_a_word(boot):
    daemon = boot({"dispatcher": {"1": [{"node": "pbx-01", "uri": "sip:127.0.0.1:9"}]},
                   "sockets": [{"proto": "udp", "port": free_ports(1)}]})  # fmt: skip
    daemon.stop()
    assert not daemon.loud(), "\n".join(daemon.loud())


@pytest.mark.real
def test_destination_that_was_withdrawn_begins_inactive(boot):
    uris = ["sip:127.0.0.1:9", "sip:127.0.0.1:10"]
    rows = [{"node": f"pbx-0{number}", "uri": uri} for number, uri in enumerate(uris)]
    daemon = boot({"dispatcher": {"1": rows}, "withdrawn": uris[:1], "draining": True,
                   "sockets": [{"proto": "udp", "port": free_ports(1)}]})  # fmt: skip
    (partition,) = daemon.call("ds_list")["PARTITIONS"]
    states = {row["URI"]: row["state"] for row in partition["SETS"][0]["Destinations"]}
    assert states[uris[0]] == "Inactive"
    assert states[uris[1]] != "Inactive"
    assert daemon.call("shv_get", name="draining")["VAR"]["value"] == 1


@pytest.mark.real
def test_db_text_reads_what_is_escaped(tmp_path):
    if shutil.which("opensips") is None:
        pytest.skip("no opensips on PATH")
    daemon = Daemon(tmp_path / "os", {"sockets": [{"proto": "udp", "port": free_ports(1)}]}, "text")
    told = 'a:b\\c\n"d\te:'
    row = {"grp": 7, "ip": "192.0.2.1", "context_info": told}
    (tmp_path / "os/conf/dbtext/address").write_bytes(opensips_tables.encode("address", [row]))
    daemon.start()
    try:
        (partition,) = daemon.call("address_dump")["Partitions"]
        (found,) = partition["Destinations"]
        assert (int(found["grp"]), found["context_info"]) == (7, told)
    finally:
        daemon.stop()
