"""What is done to nodes whose secrets are canaries, and that it had the effect it should have."""

import re
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support import bundles
from tests.support.canary.region import REPOSITORY, WORKSPACE, Region, bin_
from tests.support.region import until

SCENARIOS: dict[str, Callable[[Region], None]] = {}
QUICK: list[str] = []
PROXIES = "sip-*"
FREESWITCH = """
{%- import_yaml "freeswitch/defaults.yaml" as defaults %}
{%- set context = salt["slsutil.merge"](defaults, pillar["freeswitch"]) %}
{%- set directories = salt["certificate.directories"](context.tls_directory, "sofia") %}
{%- do context.update({"node": pillar["node"], "fleet": pillar["fleet"],
                       "public_address": "127.0.0.1", "tls_directories": directories}) %}
"""
OPENSIPS = """
{%- import_yaml "opensips/defaults.yaml" as defaults %}
{%- set context = salt["slsutil.merge"](defaults, pillar["opensips"]) %}
{%- set public = {"public_address": "127.0.0.1"} %}
{%- do context.update({"node": salt["slsutil.merge"](pillar["node"], public),
                       "certificates": salt["certificate.directories"]()}) %}
"""
# What a template may do wrong with a secret `S`, some in ways whose error quotes what it was given.
TEMPLATES = [
    "{{ S.nothing.deeper }}",
    "{{ {}[S] }}",
    "{{ {}[S].more }}",
    "{{ {}.pop(S) }}",
    "{{ [].index(S) }}",
    "{{ [].remove(S) }}",
    "{{ S + 1 }}",
    "{{ range(S) }}",
    "{{ S | nosuchfilter }}",
    "{{ [1] | map(S) | list }}",
    "{{ [1] | select(S) | list }}",
    "{{ '%d' | format(S) }}",
    "{% include S %}",
    "{% import S as other %}",
    "{% extends S %}",
    "{{ nowhere[S] }}",
    "{{ nowhere(S) }}",
    "{{ S() }}",
    "{{ S.encode(S) }}",
    "{{ 1 / (S | length - S | length) }}",
    "{% if %}{{ S }}",
    "{{ S ",
    "{% for one in S.nothing %}{% endfor %}{{ S }}",
]


def scenario(function: Callable[[Region], None]) -> Callable[[Region], None]:
    SCENARIOS[function.__name__.replace("_", " ")] = function
    return function


def quick(function: Callable[[Region], None]) -> Callable[[Region], None]:
    """Mark one that every run has time for."""
    QUICK.append(function.__name__.replace("_", " "))
    return scenario(function)


def failures(told: dict[str, Any]) -> list[str]:
    """Return every state that is not content, of all nodes."""
    found = []
    for node, states in told.items():
        if not isinstance(states, dict):
            found.append(f"{node}: {states}")
            continue
        for name, state in states.items():
            if state["result"] is False:
                found.append(f"{node}: {name}: {state['comment']}")
    return found


def apply(region: Region, target: str = "*", *names: str, **keywords: Any) -> dict[str, Any]:
    return region.ask(target, "state.apply", *names, **keywords)


def recovered(region: Region) -> None:
    """Wait until pillar is whole again: a failure is remembered for a while."""

    def whole() -> bool:
        region.forget()
        region.ask("*", "saltutil.refresh_pillar", wait=True)
        return not any(region.ask("*", "pillar.raw", "_errors").values())

    until(whole, "pillar without errors", 60)


# -- as it should be -----------------------------------------------------------------------------


@quick
def first_highstate(region: Region) -> None:
    told = apply(region)
    assert failures(told) == []
    assert all(any(state["changes"] for state in states.values()) for states in told.values())


@scenario
def second_highstate(region: Region) -> None:
    told = apply(region)
    assert failures(told) == []


@scenario
def test_mode(region: Region) -> None:
    assert failures(apply(region, test=True)) == []


@scenario
def secrets_with_other_values(region: Region) -> None:
    """In test mode, then in earnest: what shows differences shows none of a secret."""
    prefix = f"/voice/{WORKSPACE}"
    switch = f"{prefix}/{region.switch}/freeswitch"
    fresh = region.canaries.named("renewed")
    region.renew({
        f"{switch}-gateways-carrier-a-params-password": fresh.text("gateway"),
        f"{switch}-users-100-a1-hash": fresh.digest("a1"),
        f"{prefix}/sip/opensips-registrar-users-voice-example-com-1001-ha1": fresh.digest("ha1"),
        f"{prefix}/sip/opensips-repository-auth": f"machine x login y password {fresh.text('apt')}",
    })  # fmt: skip
    for test in (True, False):
        for role, state in ((region.switch, "freeswitch"), ("sip", "opensips")):
            (told,) = apply(region, f"{role}-*", f"{state}.configured", test=test).values()
            (done,) = (
                one for name, one in told.items() if f"{state}_|-" in name and "onfigured" in name
            )
            assert done["result"] is (None if test else True), done["comment"]
            assert done["changes"]


# -- looking at it -------------------------------------------------------------------------------


@quick
def views_of_pillar_and_states(region: Region) -> None:
    for function, *arguments in (
        ("pillar.items",), ("pillar.raw",), ("pillar.get", "secret_values"),
        ("pillar.item", "secret_values"), ("config.get", "secret_values"), ("config.items",),
        ("config.option", "secret_values"), ("test.get_opts",), ("grains.items",),
        ("state.show_highstate",), ("state.show_low_sls", "freeswitch"), ("mine.update",),
    ):  # fmt: skip
        told = region.ask(region.switches, function, *arguments)
        assert told, function
    raw = region.ask(region.switches, "pillar.raw", "secret_values")[region.nodes[region.switch]]
    assert raw["freeswitch-esl-password"].startswith("sealed:")


@scenario
def views_of_all_nodes(region: Region) -> None:
    for function, *arguments in (
        ("pillar.items",), ("pillar.raw",), ("test.get_opts",), ("config.items",),
        ("state.show_highstate",), ("state.show_lowstate",), ("mine.get", "*", "pillar.items"),
        ("sys.doc", "freeswitch", "opensips", "certificate", "secret_file", "voice"),
        ("beacons.list",), ("schedule.list",), ("status.all_status",),
    ):  # fmt: skip
        region.ask("*", function, *arguments)


@scenario
def runner_that_shows_pillar(region: Region) -> None:
    told = region.run_master(
        "salt-run", "--out=json", "pillar.show_pillar", region.nodes[region.switch]
    )
    assert "sealed:" in told
    assert "freeswitch-esl-password" in told


@scenario
def jobs_looked_up(region: Region) -> None:
    jids = re.findall(
        r'"(20[0-9]{18})"', region.run_master("salt-run", "--out=json", "jobs.list_jobs")
    )
    assert jids
    for jid in jids[-10:]:
        region.run_master("salt-run", "--out=json", "jobs.print_job", jid)


# -- failures ------------------------------------------------------------------------------------


def _broken(component: str, secret: str, prelude: str) -> dict[str, str]:
    """Return an SLS with a state for each wrong template, and their sources."""
    files = {}
    sls = [prelude]
    for number, text in enumerate(TEMPLATES):
        source = f"canary/{component}/{number}"
        path = "vars.xml" if component == "freeswitch" else "opensips.cfg"
        files[f"{source}/manifest.yaml"] = (
            f"tree: [{{path: {path}, template: broken.jinja}}]\nsystem: []\n"
        )
        files[f"{source}/broken.jinja"] = f"one\n{text.replace('S', secret)}\n"
        sls.append(
            f"Template {number}:\n  {component}.configured:\n    - name: /etc/{component}\n"
            f"    - source: salt://{source}\n    - context: {{{{ context | tojson }}}}\n"
        )
    files[f"canary/{component}/init.sls"] = "\n".join(sls)
    return files


@quick
def templates_that_break(region: Region) -> None:
    for role, component, secret, prelude in (
        (region.switch, "freeswitch", "esl_password", FREESWITCH),
        ("sip", "opensips", 'registrar.users["voice.example.com"]["1001"].ha1', OPENSIPS),
    ):
        with region.serving(_broken(component, secret, prelude)):
            told = apply(region, f"{role}-*", f"canary.{component}")
        states = told[region.nodes[role]]
        assert len(states) == len(TEMPLATES), states
        assert [state["result"] for state in states.values()] == [False] * len(TEMPLATES)


@scenario
def sls_that_does_not_render(region: Region) -> None:
    """One of its own fault, and one that pours all of pillar into broken YAML."""
    files = {
        "canary/undefined.sls": "{{ pillar.freeswitch.nothing.deeper }}",
        "canary/poured.sls": "a: [\n{{ pillar }}\n{{ pillar | tojson }}: }",
        "canary/wrong.sls": "x:\n  nosuch.state:\n    - context: {{ pillar | tojson }}\n",
    }
    with region.serving(files):
        for name in files:
            told = apply(region, region.switches, name.removesuffix(".sls").replace("/", "."))
            assert failures(told), name


@quick
def secret_of_a_wrong_form(region: Region) -> None:
    """Schema and rules refuse what AWS holds; nothing says what it was."""
    fresh = region.canaries.named("misshapen")
    wrong = {
        f"{region.switch}/freeswitch-users-101-a1-hash": fresh.text("a1"),
        f"{region.switch}/freeswitch-json-cdr-credentials": fresh.text("cdr") + "\n",
        "sip/opensips-registrar-users-voice-example-com-1001-ha1": fresh.text("ha1"),
    }
    with region.spoilt(wrong):
        told = apply(region, region.switches) | apply(region, PROXIES)
    found = failures(told)
    assert len(found) == 2, found
    assert all("refused" in one or "_errors" in one or "Pillar failed" in one for one in found)


@scenario
def certificate_key_of_another(region: Region) -> None:
    other = region.canaries.named("other").pem(
        "key", bundles.pem(rsa.generate_private_key(65537, 2048))
    )
    with region.spoilt({"rt.certificate.default.key": other}, prefix=""):
        found = failures(apply(region, region.switches, "certificates"))
    assert len(found) == 1, found
    with region.spoilt({"rt.certificate.default.key": other[:400]}, prefix=""):
        assert failures(apply(region, region.switches, "certificates"))


@scenario
def aws_refuses(region: Region) -> None:
    for kind, action in (("deny", "ssm:*"), ("fail", "ssm:*"), ("drop", "ssm:*")):
        region.aws.fault(kind, action, **({"times": 2} if kind != "deny" else {}))
        region.forget()
        region.ask(region.switches, "saltutil.refresh_pillar", wait=True)
        if kind == "deny":
            assert failures(apply(region, region.switches, "freeswitch.configured"))
        region.aws.heal()
    recovered(region)


@scenario
def aws_throttles(region: Region) -> None:
    region.aws.fault("throttle", "ssm:*")
    region.forget()
    assert failures(apply(region, region.switches, "freeswitch.configured"))
    region.aws.heal()
    recovered(region)


@scenario
def secret_that_is_a_placeholder(region: Region) -> None:
    for value in ("False", " ", "**********"):
        with region.spoilt({f"{region.switch}/freeswitch-esl-password": value}):
            found = failures(apply(region, region.switches, "freeswitch.configured"))
            assert found, value
            assert "freeswitch-esl-password" in str(found), found


@scenario
def event_socket_that_refuses_us(region: Region) -> None:
    """The password we have is not the one that the daemon runs with; the metrics ask as well."""
    right = region.parameter(f"{region.switch}/freeswitch-esl-password")
    wrong = region.canaries.named("wrong").text("esl")
    files = ("/etc/freeswitch/autoload_configs/event_socket.conf.xml", "/etc/fs_cli.conf",
             "/var/lib/voice/freeswitch.running.json")  # fmt: skip
    region.rewrite(region.switch, files, right, wrong)
    told = region.ask(region.switches, "freeswitch.status")[region.nodes[region.switch]]
    assert told["responding"] is False, told
    for function in ("freeswitch.config_diff", "voice.in_service", "freeswitch.ensure_running"):
        region.ask(region.switches, function)
    metrics(region)
    region.rewrite(region.switch, files, wrong, right)
    assert region.ask(region.switches, "freeswitch.status")[region.nodes[region.switch]][
        "responding"
    ]


@scenario
def metrics(region: Region) -> None:
    region.inside(region.switch, "mkdir", "-p", "/var/lib/prometheus/node-exporter")
    program = "/usr/local/lib/voice-metrics/voice_metrics.py"
    region.inside(region.switch, "python3", program, "/var/lib/prometheus/node-exporter/voice.prom")


HA1 = '{{ registrar.users["voice.example.com"]["1001"].ha1 }}'
REFUSED_BY_OPENSIPS = [
    f'modparam("tm", {HA1}, 1)',
    f'loadmodule "{HA1}.so"',
    f"{HA1} = {HA1}",
    f'modparam("tm", "fr_timeout", "{HA1}")',
    f"socket=udp:{HA1}:5060",
]
REFUSED_BY_FREESWITCH = [
    '<param name="listen-port" value="{{ esl_password }}"/>',
    "<{{ esl_password }}/>",
    "<a b='{{ esl_password }}>",
    "&{{ esl_password }};",
    '<X-PRE-PROCESS cmd="include" data="{{ esl_password }}"/>',
]


def _refused(region: Region, count: int) -> None:
    file = "opensips/files/conf.d/20-modules.cfg.jinja"
    right = (REPOSITORY / "salt" / file).read_text()
    for line in REFUSED_BY_OPENSIPS[:count]:
        with region.serving({file: f"{right}\n{line}\n"}):
            told = region.ask(PROXIES, "state.sls_id", "OpenSIPS configured", "opensips.configured")
        assert failures(told), line
    file = "freeswitch/files/autoload_configs/event_socket.conf.xml.jinja"
    right = (REPOSITORY / "salt" / file).read_text()
    assert "</settings>" in right
    only = ("FreeSWITCH configured", "freeswitch.configured")
    for line in REFUSED_BY_FREESWITCH[:count]:
        with region.serving({file: right.replace("</settings>", f"{line}\n</settings>")}):
            told = region.ask(region.switches, "state.sls_id", *only)
        assert failures(told), line
    # What a check lets through is on disk until it is put back.
    assert failures(apply(region, PROXIES, "opensips.configured")) == []
    assert failures(apply(region, region.switches, "freeswitch.configured")) == []


@quick
def configuration_the_daemon_refuses(region: Region) -> None:
    """What refuses it shows the line, and in the line is a password."""
    _refused(region, 2)


@scenario
def more_configurations_that_are_refused(region: Region) -> None:
    _refused(region, 5)


@scenario
def daemon_that_does_not_start(region: Region) -> None:
    region.inside("sip", "touch", "/run/unstartable")
    (pid,) = region.inside("sip", "cat", "/run/opensips/opensips.pid").split()
    region.inside("sip", "kill", pid)
    found = failures(apply(region, PROXIES, "opensips"))
    region.inside("sip", "rm", "/run/unstartable")
    assert found
    found = failures(apply(region, PROXIES, "opensips"))
    assert found == [], found


@quick
def module_that_crashes(region: Region) -> None:
    """The traceback of an exception whose frames hold every secret."""
    for name in ("tree_render", "staged"):
        text = (REPOSITORY / f"_utils/{name}.py").read_text()
        end = {
            "tree_render": "\ndef render(*arguments):\n    given = repr(arguments)\n"
            "    raise RuntimeError('crash') from KeyError(len(given))\n",
            "staged": "\ndef compare(path, files, *_, **__):\n    mine = dict(files)\n"
            "    return mine[None]\n",
        }[name]
        with region.serving({f"_utils/{name}.py": text + end}):
            region.ask(region.switches, "saltutil.sync_utils")
            told = apply(region, region.switches, "freeswitch.configured")
        assert "Traceback" in "".join(failures(told)), name
    region.ask(region.switches, "saltutil.sync_utils")


@scenario
def wrong_arguments(region: Region) -> None:
    secret = {"secret": "freeswitch-esl-password"}
    tree = {"name": "/etc/freeswitch", "source": "salt://freeswitch/files"}
    stored = "secret_values:freeswitch-esl-password"
    for name, arguments in (
        ("freeswitch.configured", {"name": "/etc/freeswitch", "context": secret}),
        ("freeswitch.configured", {**tree, "source": secret, "context": {"a": secret}}),
        ("freeswitch.configured", {**tree, "context": {"esl_password": secret}, "bogus": secret}),
        ("freeswitch.nosuch", {"name": "x", "password": secret}),
        ("secret_file.managed", {"name": "/etc/x", "content": secret, "mode": "no"}),
        ("secret_file.managed", {"name": "/nowhere/x/y", "content": {"secret": "other"}}),
        ("secret_file.managed", {"name": "/proc/x", "content": secret}),
        ("file.managed", {"name": "/run/plain", "contents_pillar": stored}),
    ):
        region.ask(region.switches, "state.single", name, **arguments)
    seen = region.inside(region.switch, "cat", "/run/plain")
    assert seen.startswith("sealed:"), "what bypasses our modules gets what nobody can read"


READING = [
    "freeswitch.status",
    "freeswitch.config_diff",
    "freeswitch.gateways",
    "freeswitch.profiles",
    "freeswitch.registrations",
    "certificate.expiry",
    "certificate.list_",
    "voice.in_service",
    "voice.checks",
    "voice.load",
    "voice.capacity",
    "opensips.status",
    "opensips.config_diff",
    "opensips.dispatcher_list",
    "opensips.tls_list",
    "opensips.registrations",
]


@scenario
def modules_called_by_hand(region: Region) -> None:
    for function in READING:
        target = PROXIES if function.startswith("opensips") else region.switches
        region.ask(target, function)
    source, secret = "salt://freeswitch/files", {"secret": "freeswitch-esl-password"}
    region.ask(
        region.switches, "freeswitch.configure", "/etc/freeswitch", source, {"esl_password": secret}
    )
    region.ask(region.switches, "freeswitch.render", source, {"esl_password": secret})
    region.ask(
        region.switches,
        "freeswitch.edit",
        "with_gateway",
        "one",
        "external",
        {"password": secret},
        test=True,
    )
    region.ask(PROXIES, "opensips.rows", "subscriber")
    region.ask(PROXIES, "opensips.rows", "tls_mgm")
    region.ask(region.switches, "certificate.inspect", "default")


@scenario
def minion_that_calls_itself(region: Region) -> None:
    """With all that Salt can say, on the screen."""
    config = str(region.root / "etc" / region.switch)
    for level in ("debug", "all"):
        told = region.inside(
            "pbx", bin_("salt-call"), "-c", config, "-l", level, "state.apply", "test=True"
        )
        assert "FreeSWITCH configured" in told
        region.inside(region.switch, bin_("salt-call"), "-c", config, "-l", level, "pillar.items")


@scenario
def operator_who_listens(region: Region) -> None:
    call = ("salt", "-l", "all", region.switches, "state.apply", "freeswitch", "test=True")
    told = region.run_master(*call)
    assert "FreeSWITCH configured" in told


@scenario
def database_that_is_not_there(region: Region) -> None:
    """The URL of a database, password and all, goes to a daemon that cannot use it."""
    region.publish(sip_remote=region.remote)
    for test in (True, False):
        apply(region, PROXIES, "opensips", test=test)
    region.publish()
    assert failures(apply(region, PROXIES, "opensips.configured")) == []


@scenario
def deployment(region: Region) -> None:
    """What guardian plans and does, on the screen, in its journal and its report."""
    for command in (("plan",), ("deploy", "--yes"), ("deploy", "--yes", "--json")):
        region.guardian(*command)
    assert list((region.root / "guardian").rglob("*.jsonl")), "no journal"
