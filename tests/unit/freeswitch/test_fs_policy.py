"""What is dangerous is refused, with the file, the line, what could happen and what to do."""

import time

import pytest
import yaml

from tests.support.loading import REPOSITORY, load

PROFILE = {
    "auth-calls": "true", "log-auth-failures": "true", "sip-options-respond-503-on-busy": "true",
    "enable-chat": "false",
}  # fmt: skip
SHELLS = ("disable_system_api_commands", "disable_system_app_commands")
PARTS = {
    "vars": "\n".join(f'<X-PRE-PROCESS cmd="set" data="{name}=true"/>' for name in SHELLS),
    "esl": {
        "listen-ip": "127.0.0.1", "password": "a-long-secret", "apply-inbound-acl": "loopback.auto",
    },
    "switch": {"dump-cores": "no"},
    "modules": '<load module="mod_sofia"/>',
    "acl": '<list name="carriers" default="deny"><node type="allow" cidr="192.0.2.0/24"/></list>',
    "profile": PROFILE,
    "users": '<user id="1"><params><param name="a1-hash" value="0"/></params></user>',
    "dialplan": "",
    "curl": "",
}  # fmt: skip
DOCUMENT = """<document>
{vars}
<section name="configuration">
<configuration name="event_socket.conf"><settings>{esl}</settings></configuration>
<configuration name="switch.conf"><settings>{switch}</settings></configuration>
<configuration name="modules.conf"><modules>{modules}</modules></configuration>
<configuration name="acl.conf"><network-lists>{acl}</network-lists></configuration>
<configuration name="sofia.conf"><profiles><profile name="internal">
<settings>{profile}</settings></profile></profiles></configuration>
<configuration name="xml_curl.conf"><bindings>{curl}</bindings></configuration>
</section>
<section name="directory"><domain name="d">{users}</domain></section>
<section name="dialplan"><context name="public">{dialplan}</context></section>
</document>"""


@pytest.fixture(scope="session")
def check(fsxml):
    policy = load("_utils/fs_policy.py")

    def of(version=(), **parts):
        text = {
            name: "".join(f'<param name="{k}" value="{v}"/>\n' for k, v in part.items())
            if isinstance(part, dict)
            else part
            for name, part in {**PARTS, **parts}.items()
        }
        document = fsxml.load({"freeswitch.xml": DOCUMENT.format(**text).encode()})
        return policy.check(document, version)

    return of


def without(part, name):
    return {part: {key: value for key, value in PARTS[part].items() if key != name}}


def with_(part, **more):
    return {part: PARTS[part] | {name.replace("_", "-"): value for name, value in more.items()}}


def named(params):
    return "".join(f'<param name="{n.replace("_", "-")}" value="{v}"/>' for n, v in params.items())


def user(**params):
    inner = named(params)
    return {"users": f'<user id="1"><params>{inner}</params></user>'}


def route(expression, limit='<action application="limit" data="hash out ${account} 5"/>'):
    bridge = '<action application="bridge" data="sofia/gateway/carrier/$1"/>'
    condition = f'<condition field="destination_number" expression="{expression}">'
    return {"dialplan": f'<extension name="out">{condition}{limit}{bridge}</condition></extension>'}


def curl(url, **params):
    inner = f'<param name="gateway-url" value="{url}"/>'
    inner += "".join(
        f'<param name="{n.replace("_", "-")}" value="{v}"/>' for n, v in params.items()
    )
    return {"curl": f'<binding name="b">{inner}</binding>'}


def test_a_careful_configuration_passes(check):
    assert check() == []


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        (with_("esl", password="1234"), "well-known"),
        (with_("esl", password="ClueCon"), "well-known"),
        (with_("esl", password="short"), "shorter than 8"),
        (with_("esl", apply_inbound_acl="any_v4.auto"), "takes any address"),
        (without("esl", "apply-inbound-acl"), "takes any address"),
        (with_("switch", dump_cores="yes"), "dump-cores"),
        ({"modules": '<load module="mod_xml_rpc"/>'}, "plain HTTP"),
        ({"acl": '<list name="x" default="allow"/>'}, "allows by default"),
        ({"acl": '<list name="x"/>'}, "allows by default"),
        ({"acl": '<list name="x" default="deny"><node type="allow" cidr="0.0.0.0/0"/></list>'},
         "nearly everyone"),
        ({"acl": '<list name="x" default="deny"><node type="allow" cidr="128.0.0.0/1"/></list>'},
         "nearly everyone"),
        ({"acl": '<list name="x" default="deny"><node type="allow" cidr="::/0"/></list>'},
         "nearly everyone"),
        ({"acl": '<list name="x" default="deny"><node type="allow" cidr="x, ::/1"/></list>'},
         "nearly everyone"),
        (with_("profile", accept_blind_auth="true"), "call as any user"),
        (with_("profile", accept_blind_reg="yes"), "register as any user"),
        (with_("profile", disable_auth_messages="1"), "send messages"),
        (with_("profile", extended_info_parsing="true"), "run any command"),
        (with_("profile", enable_chat_api_proto="true"), "run any command"),
        (with_("profile", enable_chat="true"), "lets a message of any user run any command"),
        (without("profile", "enable-chat"), "lets a message of any user run any command"),
        (with_("profile", auth_messages="false"), "takes messages from anyone"),
        (with_("profile", auth_subscriptions="no"), "takes subscriptions from anyone"),
        (without("profile", "auth-calls"), "takes calls from anyone"),
        (with_("profile", auth_calls="false", apply_inbound_acl="none"), "takes calls from anyone"),
        (with_("profile", apply_inbound_acl="any_v4.auto"), "name a list of your own"),
        (without("profile", "log-auth-failures"), "nobody is banned"),
        (without("profile", "sip-options-respond-503-on-busy"), "answers OPTIONS with 200"),
        (with_("profile", max_recv_requests_per_second="0"), "at any rate"),
        (with_("profile", ext_sip_ip="stun:stun.example.net"), "STUN"),
        (with_("profile", ext_rtp_ip="auto-nat"), "STUN"),
        (with_("profile", tls="true"), "TLS below 1.2"),
        (with_("profile", tls="true", tls_version="tlsv1,tlsv1.2"), "TLS below 1.2"),
        (with_("profile", wss_binding=":7443"), "TLS below 1.2"),
        (user(password="sesame-open-1"), "in the clear"),
        (user(password="1234"), "well-known"),
        (user(a1_hash="0", vm_password="1000"), "in the clear"),
        ({"users": '<user id="7"/>'}, "user 7 has no a1-hash"),
        (user(a1_hash="0", esl_allowed_api="status", esl_password="short"), "a short one"),
        (user(a1_hash="0", esl_password="sesame-open-1"), "may run every command"),
        (user(a1_hash="0", esl_password="sesame-open-1", esl_allowed_api=" "), "every command"),
        (user(a1_hash="0", esl_password="sesame-open-1", esl_allowed_api="status json"),
         "may run json, and by that anything"),
        (user(a1_hash="0", esl_password="sesame-open-1", esl_allowed_api="x" * 401), "shorten"),
        ({"users": '<params><param name="esl-password" value="sesame-open-1"/></params>'
                   + PARTS["users"]}, "lets every user of this domain control the daemon"),
        (route("^(.+)$"), "countries"),
        (route("^(\\+?[0-9]{6,15})$"), "countries"),
        (route("^00([0-9]+)$"), "countries"),
        (route("44"), "cannot be judged"),
        (route("^\\+(44[0-9]{10})$", limit=""), "without a limit"),
        (route("^\\+(44[0-9]{10})$", '<action application="limit" data="hash out x 0"/>'),
         "without a limit"),
        (route("^(44[0-9]{10}$"), "cannot be judged"),
        (route("^44" + "0" * 2000 + "$"), "cannot be judged"),
        (route("^" + "(" * 900 + ")" * 900 + "$"), "cannot be judged"),
        # Python would try these for hours before it says no.
        (route("^(((([0-9]+)+)+)+)+x$"), "cannot be judged"),
        (route("^([0-9]|[0-9]|[0-9])*x$"), "cannot be judged"),
        (route("^" + "[0-9]*" * 12 + "x$"), "cannot be judged"),
        (route("^(1?){50}x$"), "cannot be judged"),
        (route("^(?=([0-9]+)+)+x$"), "cannot be judged"),
        (route("^(?>44)[0-9]+$"), "cannot be judged"),
        (route("^(?!44)[0-9]{6,15}$"), "countries"),
        (curl("http://config.example.net/"), "plain HTTP"),
        (curl("https://config.example.net/"), "any server may answer"),
    ],
    ids=str,
)  # fmt: skip
def test_danger_is_told_in_one_line(check, parts, told):
    before = time.monotonic()
    (problem,) = check(**parts)
    assert time.monotonic() - before < 2
    assert told in problem
    assert problem.startswith("freeswitch.xml:")
    assert "\n" not in problem
    for secret in ("sesame", "a-long-secret"):
        assert secret not in problem


@pytest.mark.parametrize(
    "parts",
    [
        with_("profile", auth_calls="false", apply_inbound_acl="carriers"),
        with_("profile", tls="true", tls_version="tlsv1.2,tlsv1.3"),
        {"users": '<user id="x" type="pointer"/>'},
        user(sip_forbid_register="true", esl_password="sesame-open-1", esl_allowed_api="status"),
        {"users": "<group><users>" + PARTS["users"] + "</users></group>"},
        route("^\\+(44[0-9]{10}|353[0-9]{7,9})$"),
        route("^(?:\\+|00)?(44[0-9]{9,10}|353[0-9]{7,9}|49[0-9]{5,11}|33[0-9]+|39[0-9]{6,11})$"),
        route("^\\+(?!4490)(44|49)[0-9]+?$"),
        {"acl": '<list name="x" default="deny"><node type="allow" cidr="x"/></list>'},
        curl("http://127.0.0.1:8080/"),
        curl("https://c.example.net/", enable_cacert_check="true", enable_ssl_verifyhost="true"),
        {"dialplan": '<extension><condition><action application="bridge" data="user/1"/>'
                     "</condition></extension>"},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_not_dangerous_passes(check, parts):
    assert check(**parts) == []


@pytest.mark.parametrize("name", SHELLS)
def test_shells_stay_shut(check, name):
    (problem,) = check(vars=PARTS["vars"].replace(f"{name}=true", f"{name}=false"))
    assert problem == (
        f"vars.xml: commands and dialplans may run a shell; set variable {name} to true"
    )


def test_messages_may_pass_where_they_run_nothing(check):
    """1.11.3 asks for enable-chat-api-proto before a MESSAGE runs a command."""
    open_ = with_("profile", enable_chat="true")
    assert check((1, 11, 2), **open_) != []
    assert check((1, 11, 3), **open_) == []


def test_our_own_defaults_pass(tree_render, fsxml, tmp_path):
    source = REPOSITORY / "salt/freeswitch"
    context = yaml.safe_load((source / "defaults.yaml").read_text())
    context.update(
        node={"id": "pbx-01.x", "name": "pbx-01", "address": "127.0.0.1", "zone": "a"},
        fleet={},
        esl_password="a-long-secret",
    )
    tree = tree_render.render(str(source / "files"), context, str(tmp_path), "freeswitch")["tree"]
    document = fsxml.load(tree)
    assert fsxml.check(document) == []
    assert load("_utils/fs_policy.py").check(document) == []
