"""Refuse a FreeSWITCH configuration that is well-formed and dangerous.

Each rule names the file and line, what could happen and what to write instead. Sources: the
defaults of the 1.10.12 source, which are open in most of these places and the same in 1.11.2, and
CVE-2019-19492.
"""

from __future__ import annotations

import ipaddress
import re
from re import _parser

WEAK = {"", "cluecon", "1234", "12345678", "password", "changeme", "secret", "freeswitch"}
SHORTEST_PASSWORD = 8  # characters
OLD_TLS = {"sslv2", "sslv3", "sslv23", "tlsv1", "tlsv1.1"}
OPEN_LISTS = {"any_v4.auto", "any_v6.auto"}
WIDEST = {4: 8, 6: 16}  # the shortest prefix an `allow` may have
TRUE = {"yes", "on", "true", "t", "enabled", "active", "allow", "1"}
LIMITED = re.compile(r"^\S+\s+\S+\s+\S+\s+[1-9][0-9]*(/[1-9][0-9]*)?(\s|$)")
OUTSIDE = re.compile(r"sofia/gateway/|sofia/external/")

# Parameter of a profile, value it must not have, what that would mean.
OPEN_FLAGS = (
    ("accept-blind-auth", "anyone may call as any user"),
    ("accept-blind-reg", "anyone may register as any user"),
    ("disable-auth-messages", "anyone may send messages"),
    ("disable-auth-subscriptions", "anyone may watch users"),
    # sofia.c sofia_handle_sip_i_info: a request of type freeswitch/api-request, in no dialog even.
    ("extended-info-parsing", "anyone may run any command of the daemon"),
    ("enable-chat-api-proto", "a message may run any command of the daemon"),
)
# Since then a profile must ask for it before a MESSAGE to `api+command` runs that command.
MESSAGES_RUN_NOTHING = (1, 11, 3)
SHELLS = ("disable_system_api_commands", "disable_system_app_commands")
# mod_event_socket.c auth_api_command looks at the first word alone; these run whatever follows.
RUNS_ANYTHING = {
    "alias", "bg_spawn", "bg_system", "cond", "eval", "expand", "global_setvar", "json", "load",
    "lua", "luarun", "originate", "reload", "sched_api", "spawn", "spawn_stream", "system",
    "uuid_broadcast", "uuid_setvar", "uuid_transfer", "xml_wrap",
}  # fmt: skip
# mod_event_socket.c answers a login out of 512 bytes; a longer list leaves the client waiting.
LONGEST_ALLOWED = 400

# One number for each country code and a premium prefix: what no single customer calls all of.
COUNTRY_CODES = (
    "1", "1876", "20", "212", "213", "216", "218", "220", "221", "222", "223", "224", "225", "226",
    "227", "228", "229", "231", "232", "233", "234", "235", "236", "237", "239", "240", "241",
    "242", "243", "244", "245", "247", "248", "249", "250", "251", "252", "253", "254", "255",
    "256", "257", "258", "260", "261", "263", "265", "266", "267", "268", "269", "27", "30", "31",
    "32", "33", "34", "351", "353", "355", "359", "36", "370", "371", "372", "373", "374", "375",
    "380", "381", "385", "386", "387", "389", "39", "40", "41", "420", "43", "44", "45", "46", "47",
    "48", "49", "501", "502", "503", "504", "505", "506", "507", "509", "51", "52", "53", "54",
    "55", "56", "57", "58", "591", "592", "593", "594", "595", "597", "598", "60", "61", "62", "63",
    "64", "65", "66", "670", "675", "676", "677", "678", "679", "682", "685", "686", "687", "688",
    "7", "81", "82", "84", "852", "853", "855", "856", "86", "870", "881", "882", "886", "90", "91",
    "92", "93", "94", "95", "960", "961", "962", "963", "964", "965", "966", "967", "968", "970",
    "971", "972", "973", "974", "975", "976", "977", "979", "98", "992", "993", "994", "995", "996",
    "998",
)  # fmt: skip
LONGEST_EXPRESSION = 2000
LONGEST_NUMBER = 14  # of those that are tried: 00 and twelve digits
MOST_WAYS = 5000
MOST_COUNTRIES = len(COUNTRY_CODES) // 2


def check(document: object, version: tuple[int, ...] = ()) -> list[str]:
    """Return what is dangerous in a loaded document (``fsxml.load``), a line each; [] is good.

    ``version``, ``(1, 11, 2)`` say, is that of the daemon that will read it; without it the
    document must be safe for every one.
    """
    if document.root is None:
        return []
    return [
        *_event_socket(document),
        *_core(document),
        *_lists(document),
        *_profiles(document, version),
        *_directory(document),
        *_dialplan(document),
        *_xml_curl(document),
    ]


def _event_socket(document: object) -> list[str]:
    """Presence and loopback are the linter's; here is what else opens the event socket."""
    node = document.configuration("event_socket.conf")
    settings = node.all("settings") if node is not None else []
    if not settings:
        return []
    problems = []
    password = settings[0].param("password")
    if password and (password.lower() in WEAK or len(password) < SHORTEST_PASSWORD):
        problems.append(
            f"{_at(node)}: event socket password is a well-known one or shorter than "
            f"{SHORTEST_PASSWORD} characters; set another freeswitch:esl_password"
        )
    if settings[0].param("apply-inbound-acl") in ("", *OPEN_LISTS):
        problems.append(f"{_at(node)}: event socket takes any address; apply loopback.auto")
    return problems


def _core(document: object) -> list[str]:
    node = document.configuration("switch.conf")
    problems = []
    for settings in node.all("settings") if node is not None else []:
        if _true(settings.param("dump-cores")):
            problems.append(f"{_at(node)}: dump-cores writes secrets to disk; set it to no")
    modules = document.configuration("modules.conf")
    for load in modules.all("modules", "load") if modules is not None else []:
        if load.attrib.get("module") == "mod_xml_rpc":
            problems.append(
                f"{_at(load)}: mod_xml_rpc serves every command over plain HTTP; leave it out"
            )
    problems += [
        f"vars.xml: commands and dialplans may run a shell; set variable {name} to true"
        for name in SHELLS
        if not _true(document.variables.get(name, ""))
    ]
    return problems


def _lists(document: object) -> list[str]:
    """A list that lets the world in, as its default or by a network that is nearly all of it."""
    node = document.configuration("acl.conf")
    problems = []
    for entry in node.all("network-lists", "list") if node is not None else []:
        name = entry.attrib.get("name", "")
        if entry.attrib.get("default") != "deny":
            problems.append(f"{_at(entry)}: access list {name} allows by default; use deny")
        for network in entry.all("node"):
            if network.attrib.get("type") == "allow" and _wide(network.attrib.get("cidr", "")):
                problems.append(
                    f"{_at(network)}: access list {name} allows {network.attrib['cidr']}, "
                    "which is nearly everyone; name the networks"
                )
    return problems


def _wide(cidr: str) -> bool:
    for one in cidr.split(","):
        try:
            network = ipaddress.ip_network(one.strip(), strict=False)
        except ValueError:
            continue
        if network.prefixlen < WIDEST[network.version]:
            return True
    return False


def _profiles(document: object, version: tuple[int, ...]) -> list[str]:
    sofia = document.configuration("sofia.conf")
    problems = []
    for profile in sofia.all("profiles", "profile") if sofia is not None else []:
        for settings in profile.all("settings")[:1]:
            name = f"{_at(settings)}: profile {profile.attrib.get('name', '')}"
            problems += [f"{name} {what}" for what in _profile(settings, version)]
    return problems


def _profile(settings: object, version: tuple[int, ...]) -> list[str]:
    def value(name: str, default: str = "") -> str:
        return settings.param(name, default).lower()

    found = [
        f"has {name}: {meaning}; set it to false"
        for name, meaning in OPEN_FLAGS
        if _true(value(name))
    ]
    # Absent, these two mean yes.
    found += [
        f"takes {what} from anyone; set {name} to true"
        for name, what in (("auth-messages", "messages"), ("auth-subscriptions", "subscriptions"))
        if not _true(value(name, "true"))
    ]
    if version < MESSAGES_RUN_NOTHING and _true(value("enable-chat", "true")):
        found.append(
            "lets a message of any user run any command (<= 1.11.2); set enable-chat to false"
        )
    lists = [value for name, value, _ in settings.params() if name == "apply-inbound-acl"]
    named = [one.split(":")[0] for one in lists if one.split(":")[0] not in ("", "none")]
    if set(named) & OPEN_LISTS:
        listed = ", ".join(sorted(OPEN_LISTS & set(named)))
        found.append(f"applies {listed} to calls; name a list of your own")
    if not named and not _true(value("auth-calls")):
        found.append("takes calls from anyone; set auth-calls to true or apply-inbound-acl")
    if not _true(value("log-auth-failures")):
        found.append("does not log failed logins, so nobody is banned; set log-auth-failures")
    if not _true(value("sip-options-respond-503-on-busy")):
        found.append(
            "answers OPTIONS with 200 while paused (>= 1.11.1), so proxies go on sending calls; "
            "set sip-options-respond-503-on-busy to true"
        )
    if value("max-recv-requests-per-second", "1000") == "0":
        found.append("takes requests at any rate; set max-recv-requests-per-second")
    found += [
        f"asks a STUN server or the router for {name} and does not start without; set the address"
        for name in ("ext-sip-ip", "ext-rtp-ip")
        if value(name).startswith(("stun:", "auto-nat"))
    ]
    if _true(value("tls")) or value("wss-binding"):
        versions = {one.strip() for one in value("tls-version").split(",") if one.strip()}
        if not versions or versions & OLD_TLS:
            found.append("speaks TLS below 1.2; set tls-version to tlsv1.2,tlsv1.3")
    return found


def _directory(document: object) -> list[str]:
    problems = []
    waiting = [(node, False) for node in document.section("directory")]
    while waiting:
        node, inherited = waiting.pop()
        hashed = inherited
        for params in node.all("params"):
            hashed = hashed or any(map(params.param, ("a1-hash", "password")))
            hashed = hashed or _true(params.param("sip-forbid-register"))  # no login by SIP at all
            problems += _directory_params(node, params)
        if node.name == "user" and node.attrib.get("type") != "pointer" and not hashed:
            problems.append(
                f"{_at(node)}: user {node.attrib.get('id', '')} has no a1-hash, and FreeSWITCH "
                "takes a user without a password at his word"
            )
        waiting += [(child, hashed) for child in node.children if child.name != "params"]
    return sorted(problems)


def _directory_params(owner: object, params: object) -> list[str]:
    problems = []
    for name, value, element in params.params():
        if name in ("password", "vm-password"):
            weak = " and a well-known one" if value.lower() in WEAK else ""
            remedy = "write its a1-hash" if name == "password" else "leave it out"
            problems.append(f"{_at(element)}: {name} in the clear{weak}; {remedy}")
        elif name == "esl-password" and owner.name != "user":
            problems.append(
                f"{_at(element)}: lets every user of this {owner.name} control the daemon"
            )
    password = params.param("esl-password")
    if not password or owner.name != "user":
        return problems
    name = f"{_at(params)}: event socket user {owner.attrib.get('id', '')}"
    if password.lower() in WEAK or len(password) < SHORTEST_PASSWORD:
        problems.append(f"{name} has a well-known password or a short one; set another")
    allowed = params.param("esl-allowed-api").split()
    if not allowed:
        problems.append(f"{name} may run every command; name them in esl-allowed-api")
    if set(allowed) & RUNS_ANYTHING:
        listed = ", ".join(sorted(set(allowed) & RUNS_ANYTHING))
        problems.append(f"{name} may run {listed}, and by that anything; leave it out")
    events = params.param("esl-allowed-events")
    if len(" ".join(allowed)) + len(events) > LONGEST_ALLOWED:
        problems.append(f"{name} has lists longer than FreeSWITCH can answer; shorten them")
    return problems


def _dialplan(document: object) -> list[str]:
    """Toll fraud: whatever dials out says which countries and how many calls at once."""
    problems = []
    for context in document.section("dialplan"):
        for extension in context.all("extension"):
            actions = [a for c in extension.all("condition") for a in c.all("action")]
            outside = [
                action
                for action in actions
                if action.attrib.get("application") == "bridge"
                and OUTSIDE.search(action.attrib.get("data", ""))
            ]
            if not outside:
                continue
            name = f"{_at(outside[0])}: extension {extension.attrib.get('name', '')} dials out"
            if not _limited(actions[: actions.index(outside[0])]):
                problems.append(f"{name} without a limit before it; add application limit")
            reach = _countries(extension)
            if reach is None:
                problems.append(
                    f"{name} by an expression that cannot be judged; write ^, prefix, digits"
                )
            elif reach > MOST_COUNTRIES:
                problems.append(
                    f"{name} to {reach} of {len(COUNTRY_CODES)} countries; "
                    "name the prefixes it may dial"
                )
    return problems


def _limited(actions: list) -> bool:
    return any(
        action.attrib.get("application") in ("limit", "limit_execute")
        and LIMITED.search(action.attrib.get("data", ""))
        for action in actions
    )


def _countries(extension: object) -> int | None:
    """Return to how many countries an extension may dial, None if it cannot be told.

    An expression that is not anchored finds its digits anywhere, so it is not judged either.
    """
    expressions = [
        condition.attrib.get("expression", "")
        for condition in extension.all("condition")
        if condition.attrib.get("field") == "destination_number"
    ]
    if any(len(expression) > LONGEST_EXPRESSION for expression in expressions):
        return None
    try:
        if any(_ways(_parser.parse(expression)) > MOST_WAYS for expression in expressions):
            return None
        patterns = [re.compile(expression) for expression in expressions]
    except (re.error, RecursionError, OverflowError):
        return None
    if expressions and not any(expression.startswith("^") for expression in expressions):
        return None
    reached = 0
    for code in COUNTRY_CODES:
        numbers = [f"{lead}{code}{'5550123456'[: 12 - len(code)]}" for lead in ("", "+", "00")]
        if any(all(pattern.search(number) for pattern in patterns) for number in numbers):
            reached += 1
    return reached


def _ways(expression: object) -> int:
    """Return at most how many ways a parsed expression has to go through one number.

    Python tries them all before it says no: `(([0-9]+)+)+x` would not end.
    """
    ways = 1
    for kind, given in expression:
        if kind is _parser.BRANCH:
            ways *= sum(map(_ways, given[1]))
        elif kind is _parser.SUBPATTERN:
            ways *= _ways(given[-1])
        elif kind in (_parser.ASSERT, _parser.ASSERT_NOT):
            ways *= _ways(given[1])
        elif kind in (_parser.MAX_REPEAT, _parser.MIN_REPEAT):
            least, most, inner = given
            each = _ways(inner)
            counts = range(min(least, LONGEST_NUMBER), min(most, LONGEST_NUMBER) + 1)
            ways *= sum(each**count for count in counts)
        elif isinstance(given, tuple | _parser.SubPattern):
            return MOST_WAYS + 1  # nothing that a dialplan is written with
        if ways > MOST_WAYS:
            return MOST_WAYS + 1
    return ways


def _xml_curl(document: object) -> list[str]:
    node = document.configuration("xml_curl.conf")
    problems = []
    for binding in node.all("bindings", "binding") if node is not None else []:
        url = binding.param("gateway-url")
        if not re.match(r"https://|http://(127\.0\.0\.1|localhost|\[::1\])[:/]", url):
            problems.append(f"{_at(binding)}: users' secrets over plain HTTP; use https")
        elif url.startswith("https://") and not (
            _true(binding.param("enable-cacert-check"))
            and _true(binding.param("enable-ssl-verifyhost"))
        ):
            problems.append(
                f"{_at(binding)}: any server may answer in its place; set "
                "enable-cacert-check and enable-ssl-verifyhost to true"
            )
    return problems


def _true(value: str) -> bool:
    return value.strip().lower() in TRUE


def _at(node: object) -> str:
    return f"{node.file}:{node.line}"
