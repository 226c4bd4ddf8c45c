"""Changes applied while a call is up: the next one meets them, the call goes on."""

import hashlib
import itertools

import pytest
from fs_daemon import until

RESCANNED = "Reload XML [Success]\n+OK scan complete\n"
ELSEWHERE = "192.0.2.0/24"


def listed(daemon, address="127.0.0.1", name="proxies"):
    return daemon.api(f"acl {address} {name}") == "true"


def test_reloadacl_applies_a_changed_list_at_once(daemon, phone):
    dialog = phone.call()
    daemon.tree.acl(proxies=(ELSEWHERE,))
    daemon.api("reloadxml")
    assert listed(daemon)  # that is not enough
    assert daemon.api("reloadacl") == "+OK acl reloaded\n"
    assert not listed(daemon)
    assert listed(daemon, "192.0.2.9")
    assert phone.invite().status == 403
    assert phone.reinvite(dialog) == 200
    assert phone.hang_up(dialog) == 200


def test_reloadacl_over_broken_xml_is_an_error_and_keeps_the_list(daemon, phone):
    dialog = phone.call()
    daemon.tree.acl(proxies=(ELSEWHERE,))
    daemon.tree.write("dialplan/broken.xml", "<context>\n")
    said = daemon.api("reloadacl")
    assert said.startswith("-ERR [[error near line ")
    assert said.endswith("]: unexpected closing tag </section>]\n")
    assert listed(daemon)
    assert phone.invite().status == 200
    assert phone.reinvite(dialog) == 200


def test_list_skips_what_is_no_network(shared):
    shared.tree.acl(proxies=("127.0.0.1/32", "junk", "10.0.0.0/8"))
    assert shared.api("reloadacl") == "+OK acl reloaded\n"
    assert listed(shared)
    assert listed(shared, "10.1.1.1")


@pytest.mark.parametrize("asked", ["192.0.2.9 nowhere", "junk proxies", "127.0.0.1"])
def test_acl_of_what_it_does_not_know_is_false(shared, asked):
    assert shared.api(f"acl {asked}") == "false"


def offering(phone, *codecs):
    """Call with these codecs in that order; the answer, acknowledged and hung up."""
    numbers = {"PCMU": "0", "PCMA": "8"}
    lines = "".join(f"a=rtpmap:{numbers[codec]} {codec}/8000\r\n" for codec in codecs)
    payloads = " ".join(numbers[codec] for codec in codecs)
    request = phone.request("INVITE")
    head = request.body.decode().partition("m=audio")[0]
    request.body = f"{head}m=audio 49170 RTP/AVP {payloads}\r\n{lines}".encode()
    answer = phone.transact(request)
    if answer.status == 200:
        phone.hang_up(phone.dialog(request, answer))
    return answer


def codec(answer):
    return answer.body.split(b"a=rtpmap:")[1].split(b"/")[0].split()[1].decode()


def test_rescan_applies_codecs_to_new_calls(daemon, phone):
    dialog = phone.call()
    changed = {"inbound_codec_prefs": "PCMU", "outbound_codec_prefs": "PCMU"}
    daemon.tree.profile("internal", daemon.tree.sip_port, **changed)
    assert daemon.api("sofia profile internal rescan") == RESCANNED
    said = daemon.api("sofia xmlstatus profile internal")
    assert "<inbound-codecs>PCMU</inbound-codecs>" in said
    refused = offering(phone, "PCMA")
    assert (refused.status, refused.reason) == (488, "Not Acceptable Here")
    assert refused.get("Reason") == 'Q.850;cause=88;text="INCOMPATIBLE_DESTINATION"'
    assert codec(offering(phone, "PCMA", "PCMU")) == "PCMU"
    assert codec(dialog.answer) == "PCMA"
    assert phone.reinvite(dialog) == 200  # with PCMA, which no new call gets
    assert phone.hang_up(dialog) == 200


def test_order_of_the_offer_decides_between_codecs_both_have(daemon, phone):
    daemon.tree.profile("internal", daemon.tree.sip_port, inbound_codec_prefs="PCMA,PCMU")
    daemon.api("sofia profile internal rescan")
    assert codec(offering(phone, "PCMU", "PCMA")) == "PCMU"


def test_rescan_applies_the_list_that_a_profile_names(daemon, phone):
    dialog = phone.call()
    daemon.tree.acl(strangers=(ELSEWHERE,))
    daemon.api("reloadacl")
    daemon.tree.profile("internal", daemon.tree.sip_port, apply_inbound_acl="strangers")
    assert daemon.api("sofia profile internal rescan") == RESCANNED
    assert phone.invite().status == 403
    assert phone.reinvite(dialog) == 200
    assert phone.hang_up(dialog) == 200


def test_rescan_applies_that_calls_need_a_password(stopped):
    stopped.tree.acl(proxies=(ELSEWHERE,))
    daemon = stopped.start()
    with daemon.phone() as phone:
        assert phone.invite().status == 403
        daemon.tree.profile("internal", daemon.tree.sip_port, auth_calls="true")
        assert daemon.api("sofia profile internal rescan") == RESCANNED
        assert phone.invite().status == 407


def test_rescan_without_a_list_lets_everyone_in(stopped):
    """It is one of the few settings that a rescan forgets when its line is gone."""
    stopped.tree.acl(proxies=(ELSEWHERE,))
    daemon = stopped.start()
    with daemon.phone() as phone:
        assert phone.invite().status == 403
        file = daemon.tree.conf / "profiles/internal.xml"
        kept = [line for line in file.read_text().splitlines() if "inbound-acl" not in line]
        file.write_text("\n".join(kept) + "\n")
        assert daemon.api("sofia profile internal rescan") == RESCANNED
        assert phone.invite().status == 200


def hashed(user, password):
    text = f"{user}:127.0.0.1:{password}"
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def written(tree, password):
    tree.user("plain", password=password)
    tree.user("hashed", a1_hash=hashed("hashed", password))
    tree.user("kept", cacheable=True, password=password)


def accepted(phone, password):
    """Of the three users, those whom the password registers."""
    users = ("plain", "hashed", "kept")
    return [user for user in users if phone.register(user, password) == [401, 200]]


def test_new_password_needs_reloadxml_and_a_flush_where_users_are_cached(stopped):
    """reloadxml alone leaves users marked cacheable with the password they had."""
    written(stopped.tree, "old")
    daemon = stopped.start()
    with daemon.phone() as phone:
        dialog = phone.call()
        assert accepted(phone, "old") == ["plain", "hashed", "kept"]
        written(daemon.tree, "new")
        assert accepted(phone, "new") == []
        assert daemon.api("reloadxml") == "+OK [Success]\n"
        assert accepted(phone, "new") == ["plain", "hashed"]
        assert accepted(phone, "old") == ["kept"]
        assert daemon.api("xml_flush_cache id kept 127.0.0.1") == "+OK cleared 1 entry\n"
        assert accepted(phone, "new") == ["plain", "hashed", "kept"]
        assert accepted(phone, "old") == []
        assert phone.reinvite(dialog) == 200
        assert phone.hang_up(dialog) == 200


def test_flush_takes_a_whole_name_or_everyone(stopped):
    for user in ("a", "b", "c"):
        stopped.tree.user(user, cacheable=True, password="hushed")
    daemon = stopped.start()
    with daemon.phone() as phone:
        for user in ("a", "b", "c"):
            assert phone.register(user, "hushed") == [401, 200]
    assert daemon.api("xml_flush_cache id a elsewhere") == "+OK cleared 0 entries\n"
    assert daemon.api("xml_flush_cache id a 127.0.0.1") == "+OK cleared 1 entry\n"
    assert daemon.api("xml_flush_cache id nobody") == "+OK cleared 2 entries\n"  # without a domain
    assert daemon.api("xml_flush_cache") == "+OK cleared 0 entries\n"


def test_removed_user_is_refused_after_reloadxml(stopped):
    stopped.tree.user("alice", password="hushed")
    daemon = stopped.start()
    with daemon.phone() as phone:
        assert phone.register("alice", "hushed") == [401, 200]
        (daemon.tree.conf / "directory/alice.xml").unlink()
        assert daemon.api("reloadxml") == "+OK [Success]\n"
        assert phone.register("alice", "hushed") == [401, 403]


numbers = itertools.count()


def let_through(daemon):
    """Which of these levels reach the log, which keeps their order; it is at debug afterwards."""
    number = next(numbers)
    marks = {level: f"mark-{number}-{level}" for level in ("debug", "warning", "err")}
    for level, mark in marks.items():
        daemon.api(f"log {level} {mark}")
    daemon.api("fsctl loglevel debug")
    fence = f"fence-{number}"
    daemon.api(f"log debug {fence}")
    until(lambda: fence in daemon.log(), 5)
    return [level for level, mark in marks.items() if mark in daemon.log()]


def test_log_level_follows_fsctl_and_not_reloadxml(stopped):
    stopped.tree.switch(loglevel="err")
    daemon = stopped.start()
    with daemon.phone() as phone:
        dialog = phone.call()
        daemon.tree.switch(loglevel="debug")
        assert daemon.api("reloadxml") == "+OK [Success]\n"
        assert let_through(daemon) == ["err"]
        assert daemon.api("fsctl loglevel warning") == "+OK log level: WARNING [4]\n"
        assert let_through(daemon) == ["warning", "err"]
        assert daemon.api("fsctl loglevel 7") == "+OK log level: DEBUG [7]\n"
        assert let_through(daemon) == ["debug", "warning", "err"]
        said = daemon.api("fsctl loglevel nonsense")
        assert said == "-ERR syntax error, log level not set!\n"
        assert phone.reinvite(dialog) == 200


def test_asking_for_the_log_level_turns_the_log_off(daemon):
    """The trap: there is no way to ask."""
    assert daemon.api("fsctl loglevel") == "+OK log level: DISABLE [-1]\n"
    assert let_through(daemon) == []


def test_least_idle_cpu(daemon):
    assert daemon.api("fsctl min_idle_cpu") == "+OK min idle cpu: DISABLED\n"
    assert daemon.api("fsctl min_idle_cpu 0.5") == "+OK min idle cpu: 0.50"  # no end of line
    assert daemon.api("fsctl min_idle_cpu 0") == "+OK min idle cpu: DISABLED\n"
