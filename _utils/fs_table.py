"""What each change of a FreeSWITCH configuration costs, and where that was learnt.

Data only; ``_utils/fs_changes.py`` reads it and whatever has no row here needs a restart. Sources:
`lab` measured on 1.10.12 with a call up (tests/contract), otherwise the function of the 1.10.12
source that reads the value. Up to 1.11.2 nothing is read otherwise (the diff of mod_sofia,
mod_event_socket, switch_xml.c and the modules named here touches none of it); where a later version
can do more, the row says since when.
"""

from __future__ import annotations

from typing import NamedTuple

# What applies a change: (verb, disruption). The order is the order in which a plan runs.
ACTIONS = {
    "reloadxml": "reload",
    "load": "reload",
    "reload_module": "reload",
    "reloadacl": "reload",
    "xml_flush_cache": "reload",
    "start": "reload",
    "killgw": "reload",
    "rescan": "reload",
    "reloadcert": "reload",
    "fsctl": "reload",
    "callcenter": "reload",
    "reload_event_socket": "reload",
    "restart": "restart",
}


class Row(NamedTuple):
    """A parameter that an action applies while calls go on; anything else about it is a restart.

    ``reset``: the action also forgets it when it is removed; most keep the last value they saw.
    ``stays``: (old, new) values where something of the old one stays behind.
    ``form``: a pattern that both values must have in full.
    ``then``: what must follow the rescan.
    ``forgets``: parameters that action loses; with one of them set the change is a restart.
    ``since``: the first version that does it; before, the change is a restart.
    """

    name: str
    source: str
    reset: bool = False
    stays: tuple[tuple[str, str], ...] = ()
    form: str = ""
    then: str = ""
    forgets: tuple[str, ...] = ()
    since: tuple[int, ...] = ()


ADDRESSES = r"[0-9a-fA-F]+[.:][0-9a-fA-F.:]+(, [0-9a-fA-F]+[.:][0-9a-fA-F.:]+)*"
FLAG = "sofia.c config_sofia: flag, tested per request"
PER_CALL = "sofia_glue.c sofia_glue_attach_private: copied by each new call"
MEDIA_FLAG = "sofia.c config_sofia: media flag, copied by each new call"

# Settings of a sofia profile that `rescan` applies. config_sofia runs once more over those that
# are there: it keeps what is no longer named, and ignores most empty values.
PROFILE_RESCAN = (
    Row("accept-blind-auth", FLAG),
    Row("accept-blind-reg", FLAG),
    Row("aggressive-nat-detection", FLAG),
    Row("all-reg-options-ping", "sofia_reg.c: flag, tested per ping"),
    Row("apply-inbound-acl", "sofia.c config_sofia: acl_count reset; lab", reset=True),
    Row("apply-nat-acl", "sofia.c config_sofia: nat_acl_count reset", reset=True),
    Row("apply-proxy-acl", "sofia.c config_sofia: proxy_acl_count reset", reset=True),
    Row("apply-register-acl", "sofia.c config_sofia: reg_acl_count reset", reset=True),
    Row("auth-calls", FLAG + "; lab"),
    Row("auth-messages", "sofia.c config_sofia: set again after the loop; lab", reset=True),
    Row("auth-require-user", FLAG),
    Row("auth-subscriptions", "sofia.c config_sofia: set again after the loop", reset=True),
    Row("caller-id-type", "sofia.c sofia_handle_sip_i_invite: read per call"),
    Row("challenge-realm", "sofia_reg.c sofia_reg_auth_challenge: read per request; lab"),
    Row("cid-in-1xx", FLAG),
    Row("codec-prefs", PER_CALL + "; lab"),
    Row("confirm-blind-transfer", FLAG),
    Row("context", "sofia.c sofia_handle_sip_i_invite: read per call; lab"),
    Row("debug", "sofia.c config_sofia: read per event"),
    Row("dialplan", "sofia.c sofia_handle_sip_i_invite: read per call"),
    Row("disable-hold", MEDIA_FLAG),
    Row("disable-rtp-auto-adjust", MEDIA_FLAG),
    Row("disable-transcoding", MEDIA_FLAG),
    Row("dtmf-duration", PER_CALL),
    Row("dtmf-type", PER_CALL),
    Row("enable-chat", "sofia_presence.c sofia_presence_handle_sip_i_message: tested per message"),
    Row("ext-rtp-ip", PER_CALL + "; lab", form=ADDRESSES),
    Row("extended-info-parsing", FLAG),
    Row("fire-message-events", FLAG),
    Row("force-register-db-domain", "sofia_reg.c: read per request"),
    Row("force-register-domain", "sofia_reg.c: read per request"),
    Row("force-subscription-domain", "sofia_presence.c: read per request"),
    Row("forward-unsolicited-mwi-notify", FLAG),
    Row("full-id-in-dialplan", FLAG),
    Row("hold-music", "sofia.c: read when a call is held"),
    Row("ignore-183nosdp", FLAG),
    Row("inbound-bypass-media", "sofia.c: turns inbound-late-negotiation on with it",
        stays=(("true", "false"),)),
    Row("inbound-codec-negotiation", "sofia.c: greedy leaves scrooge's flag",
        stays=(("scrooge", "greedy"),)),
    Row("inbound-codec-prefs", PER_CALL + "; lab"),
    Row("inbound-late-negotiation", "sofia.c: flag copied per call"),
    Row("inbound-proxy-media", "sofia.c: flag copied per call"),
    Row("inbound-reg-force-matching-username", FLAG),
    Row("inbound-use-callid-as-uuid", FLAG),
    Row("liberal-dtmf", PER_CALL),
    Row("log-auth-failures", "sofia_reg.c: flag, tested per request; lab"),
    Row("max-auth-validity", "sofia_reg.c: read per request"),
    Row("max-registrations-per-extension", "sofia_reg.c: read per request"),
    Row("multiple-registrations", "sofia.c: call-id leaves contact's flag",
        stays=(("true", "call-id"), ("contact", "call-id"))),
    Row("nat-options-ping", "sofia.c: two flags, only false clears both",
        stays=(("true", "udp-only"), ("udp-only", "true"))),
    Row("nonce-ttl", "sofia_reg.c: read per challenge; lab"),
    Row("outbound-codec-prefs", PER_CALL + "; lab"),
    Row("outbound-use-uuid-as-callid", FLAG),
    Row("p-asserted-id-parse", "sofia.c sofia_handle_sip_i_invite: read per call"),
    Row("parse-all-invite-headers", FLAG),
    Row("pass-callee-id", "sofia.c config_sofia: set before the loop", reset=True),
    Row("pass-rfc2833", PER_CALL),
    Row("ping-mean-interval", "sofia.c sofia_profile_worker_thread_run: read per round"),
    Row("record-path", "sofia.c: read per recording"),
    Row("record-template", "sofia.c: read per recording"),
    Row("require-secure-rtp", FLAG),
    Row("rfc2833-pt", PER_CALL + "; lab"),
    Row("rtp-autofix-timing", MEDIA_FLAG),
    Row("rtp-hold-timeout-sec", PER_CALL),
    Row("rtp-ip", "sofia_glue.c: chosen by each new call; lab", form=ADDRESSES),
    Row("rtp-rewrite-timestamps", MEDIA_FLAG),
    Row("rtp-timeout-sec", PER_CALL),
    Row("rtp-timer-name", PER_CALL),
    Row("send-message-query-on-register", "sofia.c: first-only's flag stays",
        stays=(("first-only", "true"),)),
    Row("sip-expires-late-margin", "sofia_reg.c: read per request"),
    Row("sip-expires-max-deviation", "sofia_reg.c: read per request"),
    Row("sip-force-expires", "sofia_reg.c: read per request; lab"),
    Row("sip-force-expires-max", "sofia_reg.c: read per request"),
    Row("sip-force-expires-min", "sofia_reg.c: read per request"),
    Row("sip-messages-respond-200-ok", FLAG),
    Row("sip-options-respond-503-on-busy", "sofia.c: flag, tested per OPTIONS"),
    Row("sip-subscribe-respond-200-ok", FLAG),
    Row("sip-user-ping-max", "sofia.c: read per ping"),
    Row("sip-user-ping-min", "sofia.c: read per ping"),
    Row("t38-passthru", FLAG),
    Row("tls-cert-dir", "mod_sofia.c sofia_cert_reload_handler: nua_reload_tls; lab on 1.11.2",
        then="reloadcert", forgets=("tls-ciphers", "tls-passphrase"), since=(1, 11, 1)),
    Row("unregister-on-options-fail", "sofia_reg.c: flag, tested per ping"),
    Row("username", PER_CALL + ": SDP user name; lab"),
)  # fmt: skip

# Settings that a rescan reads but the sockets, the SIP stack or running calls do not follow. They
# need no row to be classed `restart`; they are named so that the plan can say why.
PROFILE_RESTART = {
    "apply-candidate-acl": "counts up on every rescan",
    "auth-all-packets": "challenges requests within the calls that are up",
    "bind-params": "binds the socket",
    "contact-user": "is part of the profile's URLs",
    "dbname": "names the database opened at start",
    "disable-register": "is given to the SIP stack at start",
    "disable-transfer": "is given to the SIP stack at start",
    "enable-100rel": "is given to the SIP stack at start",
    "enable-3pcc": "sets flags that nothing clears",
    "enable-compact-headers": "is given to the SIP stack at start",
    "enable-timer": "is given to the SIP stack at start",
    "ext-sip-ip": "is part of the profile's URLs and of the socket's Via",
    "manage-presence": "is given to the SIP stack at start",
    "max-recv-requests-per-second": "is given to the SIP stack at start",
    "odbc-dsn": "names the database opened at start",
    "outbound-proxy": "is given to the SIP stack at start",
    "session-timeout": "is given to the SIP stack at start",
    "sip-ip": "binds the socket; lab: rescan advertises what is not bound",
    "sip-port": "binds the socket; lab: rescan advertises what is not bound",
    "sip-trace": "is given to the SIP stack at start",
    "tls": "opens the TLS socket",
    "tls-cert-dir": "is given to the TLS context at start before 1.11.1",
    "tls-ciphers": "is given to the TLS context at start",
    "tls-sip-port": "binds the TLS socket",
    "tls-verify-policy": "is given to the TLS context at start",
    "tls-version": "is given to the TLS context at start",
    "track-calls": "sets a flag that nothing clears",
    "user-agent-string": "is given to the SIP stack at start; lab: rescan does not apply it",
    "ws-binding": "binds the socket",
    "wss-binding": "binds the socket",
}

# sofia.conf global_settings that config_sofia applies on the rescan of any profile.
SOFIA_GLOBAL_RESCAN = (
    Row("debug-presence", "sofia.c config_sofia: read per event"),
    Row("debug-sla", "sofia.c config_sofia: read per event"),
    Row("log-level", "sofia.c config_sofia: su_log_set_level"),
    Row("tracelevel", "sofia.c config_sofia: read per message"),
)

# switch.conf settings and the fsctl word that applies them at once: (name, word, since, source).
SWITCH_FSCTL = (
    ("max-sessions", "max_sessions", (), "mod_commands.c ctl_function; lab"),
    ("sessions-per-second", "sps", (), "mod_commands.c ctl_function; lab"),
    ("loglevel", "loglevel", (), "mod_commands.c ctl_function; lab"),
    ("min-idle-cpu", "min_idle_cpu", (), "mod_commands.c ctl_function"),
    ("max-dtmf-duration", "max_dtmf_duration", (), "mod_commands.c ctl_function"),
    ("min-dtmf-duration", "min_dtmf_duration", (), "mod_commands.c ctl_function"),
    ("default-dtmf-duration", "default_dtmf_duration", (), "mod_commands.c ctl_function"),
    ("uuid-version", "uuid_version", (1, 11, 0), "mod_commands.c ctl_function"),
)

# Global variables that are looked at once, as the daemon or a module starts: (name, source).
START_VARIABLES = (
    ("api_on_startup", "switch_core.c switch_core_init_and_modload"),
    ("disable_system_api_commands", "mod_commands.c mod_commands_load"),
    ("disable_system_app_commands", "mod_dptools.c mod_dptools_load"),
)

# Sections whose content is looked up for every call or request: (section, action, source).
LOOKED_UP = (
    ("dialplan", ("reloadxml",), "mod_dialplan_xml.c: found per call; lab"),
    ("directory", ("reloadxml", "xml_flush_cache"), "switch_xml.c: found per request, cached; lab"),
    ("chatplan", ("reloadxml",), "mod_sms.c: found per message"),
    ("languages", ("reloadxml",), "switch_ivr_say.c: found per phrase"),
    ("phrases", ("reloadxml",), "switch_ivr_say.c: found per phrase"),
)

# Configurations that are read at each use, or that their module reads when it is reloaded, which no
# call notices: (name, children it holds for, action, source).
# Without what MODULE_NEEDS names below it, a module does not come back from its reload.
CONFIGURATIONS = (
    ("acl.conf", ("network-lists",), ({"do": "reloadxml"}, {"do": "reloadacl"}),
     "switch_core.c switch_load_network_lists; lab"),
    ("timezones.conf", ("timezones",), ({"do": "reloadxml"},),
     "switch_time.c event_handler on RELOADXML"),
    ("conference.conf", ("caller-controls", "chat-permissions", "profiles"), ({"do": "reloadxml"},),
     "mod_conference.c conference_new: opened per conference; lab"),
    ("ivr.conf", ("menus",), ({"do": "reloadxml"},),
     "mod_dptools.c ivr_application_function: opened per call"),
    ("logfile.conf", ("settings", "profiles"),
     ({"do": "reloadxml"}, {"do": "reload_module", "module": "mod_logfile"}),
     "mod_logfile.c mod_logfile_load; lab: calls go on, lines go to the new file"),
    ("xml_curl.conf", ("bindings",),
     ({"do": "reloadxml"}, {"do": "reload_module", "module": "mod_xml_curl"}),
     "mod_xml_curl.c do_config; lab: calls go on"),
)  # fmt: skip

# Configuration -> the path of elements of which its module wants one: mod_xml_curl.c
# mod_xml_curl_load; lab: the module is gone.
MODULE_NEEDS = {"xml_curl.conf": ("bindings", "binding")}

# callcenter.conf: (container, element, what names it, command when it came, changed, went). ""
# needs a restart: a queue that goes takes the callers who wait in it along.
CALLCENTER = (
    ("queues", "queue", ("name",), ("queue load", "queue reload", "")),
    ("agents", "agent", ("name",), ("agent reload", "agent reload", "agent del")),
    ("tiers", "tier", ("queue", "agent"), ("tier reload", "tier reload", "tier del")),
)

SECRET = r"pass(word|wd|phrase)?$|password|secret|token|a1-hash|cred|dsn$|(^|-)pin$"


def rules(version: tuple[int, ...] = ()) -> dict[str, object]:
    """Return the table as it holds for a version, ``(1, 10, 12)`` say, a name for each part.

    Without a version it holds for every one.
    """
    return {
        "actions": ACTIONS,
        "profile": {row.name: row for row in PROFILE_RESCAN if row.since <= version},
        "profile_restart": PROFILE_RESTART,
        "sofia_global": {row.name: row for row in SOFIA_GLOBAL_RESCAN},
        "switch": {name: word for name, word, since, _ in SWITCH_FSCTL if since <= version},
        "start_variables": {name for name, _ in START_VARIABLES},
        "sections": {name: actions for name, actions, _ in LOOKED_UP},
        "configurations": {name: (parts, actions) for name, parts, actions, _ in CONFIGURATIONS},
        "module_needs": MODULE_NEEDS,
        "callcenter": CALLCENTER,
        "secret": SECRET,
    }
