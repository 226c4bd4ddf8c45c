"""Modules loaded, unloaded and reloaded under a call, and what two of them do."""

import http.server
import queue
import threading

import pytest
from fs_daemon import configuration, until

from tests.support.ports import free_ports

XML = "+OK Reloading XML\n"
NO_FILE = "-ERR [module load file routine returned an error]\n"
RELOADED = f"{XML}+OK module unloaded\n+OK module loaded\n"


def test_load_and_unload_under_a_call(daemon, phone):
    dialog = phone.call()
    assert daemon.api("module_exists mod_hash") == "false"
    assert daemon.api("load mod_hash") == f"{XML}+OK\n"
    assert daemon.api("module_exists mod_hash") == "true"
    assert daemon.api("load mod_hash") == f"{XML}-ERR [Module already loaded]\n"
    assert daemon.api("load mod_nobody_has") == XML + NO_FILE
    assert daemon.api("reload mod_hash") == RELOADED
    assert daemon.api("unload mod_hash") == "+OK\n"
    assert daemon.api("unload mod_hash") == "-ERR [No such module!]\n"
    assert daemon.api("unload mod_commands") == "-ERR [Module is not unloadable]\n"
    refused = f"{XML}-ERR unloading module [No such module!]\n+OK module loaded\n"
    assert daemon.api("reload mod_hash") == refused
    assert phone.reinvite(dialog) == 200
    assert phone.hang_up(dialog) == 200


def test_module_of_the_profiles_stays_while_a_call_is_up(daemon, phone):
    dialog = phone.call()
    assert daemon.api("unload mod_sofia") == "-ERR [Module in use.]\n"
    assert daemon.api("reload mod_sofia") == (
        f"{XML}-ERR unloading module [Module in use.]\n"
        "-ERR loading module [Module already loaded]\n"
    )
    assert phone.reinvite(dialog) == 200
    assert phone.invite().status == 200
    assert phone.hang_up(dialog) == 200


def test_module_of_the_profiles_goes_when_no_call_holds_it(daemon, phone):
    assert daemon.api("unload mod_sofia") == "+OK\n"
    assert daemon.api("sofia status") == "-ERR sofia Command not found!\n"
    assert phone.options(0.6) is None
    assert daemon.api("load mod_sofia") == f"{XML}+OK\n"
    until(lambda: (answer := phone.options(0.4)) and answer.status == 200)


class Server(http.server.BaseHTTPRequestHandler):
    """Gives the answer it is told to, and keeps what it was asked."""

    def do_POST(self):
        self.server.asked.put(self.rfile.read(int(self.headers["Content-Length"])).decode())
        status, text = self.server.answer
        self.send_response(status)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        server.asked, server.answer = queue.Queue(), (200, NOT_FOUND)
        server.url = f"http://127.0.0.1:{server.server_port}/dialplan"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def document(section, inner):
    return (
        f'<document type="freeswitch/xml">\n<section name="{section}">\n{inner}\n'
        "</section>\n</document>\n"
    )


NOT_FOUND = document("result", '<result status="not found"/>')
REFUSES = (
    '<context name="{}">\n<extension name="x">\n<condition>\n'
    '<action application="respond" data="486 Busy Here"/>\n'
    "</condition>\n</extension>\n</context>"
)


def bound_to(tree, url):
    binding = (
        f'<binding name="b">\n<param name="gateway-url" value="{url}" bindings="dialplan"/>\n'
        "</binding>\n"
        if url
        else ""
    )
    inner = f"<bindings>\n{binding}</bindings>\n"
    tree.write("xml_curl.conf.xml", configuration("xml_curl.conf", inner))


@pytest.fixture
def curled(stopped):
    """A daemon that asks a web server nobody runs for its dialplan."""
    stopped.tree.modules("mod_xml_curl")
    bound_to(stopped.tree, f"http://127.0.0.1:{free_ports()}/dialplan")
    return stopped.start()


def test_new_binding_needs_the_module_reloaded(curled, server):
    server.answer = 200, document("dialplan", REFUSES.format("public"))
    with curled.phone() as phone:
        dialog = phone.call()  # refused by the server that is not there: the local file holds
        bound_to(curled.tree, server.url)
        assert curled.api("reloadxml") == "+OK [Success]\n"
        assert phone.invite().status == 200
        assert curled.api("reload mod_xml_curl") == RELOADED
        assert phone.invite().status == 486
        asked = server.asked.get(timeout=5)
        assert "section=dialplan&" in asked
        assert "&Caller-Destination-Number=1000&" in asked
        assert phone.reinvite(dialog) == 200
        assert phone.hang_up(dialog) == 200


@pytest.mark.parametrize(
    "answer", [(200, NOT_FOUND), (200, "junk"), (500, ""), (404, "")],
    ids=["not found", "junk", "500", "404"],
)  # fmt: skip
def test_answer_without_a_dialplan_is_the_local_one(curled, server, answer):
    bound_to(curled.tree, server.url)
    curled.api("reload mod_xml_curl")
    server.answer = answer
    with curled.phone() as phone:
        assert phone.invite().status == 200
    assert server.asked.get(timeout=5)


def test_dialplan_without_the_context_is_not_made_up_for(curled, server):
    bound_to(curled.tree, server.url)
    curled.api("reload mod_xml_curl")
    server.answer = 200, document("dialplan", REFUSES.format("another"))
    with curled.phone() as phone:
        assert phone.invite().status == 404


def test_reload_without_a_binding_loses_the_module(curled):
    bound_to(curled.tree, None)
    said = curled.api("reload mod_xml_curl")
    assert said == f"{XML}+OK module unloaded\n-ERR loading module " + NO_FILE.partition(" ")[2]
    assert curled.api("module_exists mod_xml_curl") == "false"
    with curled.phone() as phone:
        assert phone.invite().status == 200


def callcenter(tree, strategy="longest-idle-agent", agents=(), tiers=()):
    told = "".join(
        f'<agent name="{name}" type="callback" contact="user/{name}" status="Available"/>\n'
        for name in agents
    )
    placed = "".join(
        f'<tier queue="q" agent="{name}" level="{level}" position="1"/>\n' for name, level in tiers
    )
    inner = (
        f'<queues>\n<queue name="q">\n<param name="strategy" value="{strategy}"/>\n</queue>\n'
        f"</queues>\n<agents>\n{told}</agents>\n<tiers>\n{placed}</tiers>\n"
    )
    tree.write("callcenter.conf.xml", configuration("callcenter.conf", inner))


@pytest.fixture
def center(stopped):
    stopped.tree.modules("mod_callcenter")
    callcenter(stopped.tree, agents=["one"], tiers=[("one", 1)])
    return stopped.start()


def ask(daemon, command):
    return daemon.api(f"callcenter_config {command}")


def test_queue_agents_and_tiers_follow_one_by_one_under_a_call(center):
    with center.phone() as phone:
        dialog = phone.call()
        tiers = [("one", 2), ("two", 1)]
        callcenter(center.tree, "ring-all", agents=["one", "two"], tiers=tiers)
        center.api("reloadxml")
        assert "\nq|longest-idle-agent" in ask(center, "queue list")  # as it was
        for element in ("queue reload q", "agent reload two", "tier reload q one",
                        "tier reload q two"):  # fmt: skip
            assert ask(center, element) == "+OK\n"
        assert "\nq|ring-all" in ask(center, "queue list")
        assert "\ntwo|single_box||callback|user/two|Available|" in ask(center, "agent list")
        assert {"q|one|Ready|2|1", "q|two|Ready|1|1"} <= set(ask(center, "tier list").split("\n"))
        assert phone.reinvite(dialog) == 200
        assert phone.hang_up(dialog) == 200


ANSWERS = [
    ("agent reload nobody", "+OK\n"),  # the trap: it says so of one it does not have
    ("agent del nobody", "+OK\n"),
    ("tier del q nobody", "+OK\n"),
    ("queue unload nobody", "+OK\n"),
    ("queue load nobody", "-ERR Invalid Queue not found!\n"),
    ("queue reload nobody", "-ERR Invalid Queue not found!\n"),
    ("tier reload q nobody", "-ERR Unknown Error!\n"),
    ("nonsense", "-ERR Invalid!\n"),
]


def test_answers_about_what_is_not_there(center):
    assert [(said, ask(center, said)) for said, _ in ANSWERS] == ANSWERS


def test_queue_that_is_loaded_brings_its_agents_and_tiers(center):
    assert ask(center, "agent del one") == "+OK\n"
    assert ask(center, "agent list") == ask(center, "tier list") == "+OK\n"  # not even columns
    assert ask(center, "queue unload q") == "+OK\n"
    assert ask(center, "queue list").startswith("name|strategy")
    assert ask(center, "queue list").endswith("\n+OK\n")
    assert ask(center, "queue load q") == "+OK\n"
    assert "\none|single_box|" in ask(center, "agent list")
    assert "\nq|one|Ready|1|1\n" in ask(center, "tier list")
