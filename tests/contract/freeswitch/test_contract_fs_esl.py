"""The event socket: framing, refusals, and the command that fs_cli makes of it."""

import shutil
import socket
import subprocess
import sys

import pytest
from fs_daemon import PASSWORD, TWIN, until
from fs_esl import Connection, EslRefusedError


def test_banner_then_login(shared):
    with Connection("127.0.0.1", shared.tree.esl_port, None) as connection:
        assert connection.banner == ({"Content-Type": "auth/request"}, "")
        headers, _ = connection.ask(f"auth {PASSWORD}")
        assert headers == {"Content-Type": "command/reply", "Reply-Text": "+OK accepted"}


def test_wrong_password_is_refused_and_hung_up(shared):
    with Connection("127.0.0.1", shared.tree.esl_port, None) as connection:
        headers, _ = connection.ask("auth wrong")
        assert headers == {"Content-Type": "command/reply", "Reply-Text": "-ERR invalid"}
        headers, body = connection.read()
        assert headers["Content-Type"] == "text/disconnect-notice"
        assert body.startswith("Disconnected, goodbye.\n")
        with pytest.raises(EOFError):
            connection.read()


def test_command_before_the_password_is_refused(shared):
    with Connection("127.0.0.1", shared.tree.esl_port, None) as connection:
        assert connection.ask("api status")[0]["Reply-Text"] == "-ERR command not found"


def test_api_response_is_framed_by_length(shared):
    with shared.connect() as connection:
        headers, body = connection.ask("api fsctl pause_check")
        assert headers == {"Content-Type": "api/response", "Content-Length": "5"}
        assert body == "false"


def test_unknown_commands(shared):
    with shared.connect() as connection:
        assert connection.ask("nonsense")[0]["Reply-Text"] == "-ERR command not found"
        assert connection.ask("api nonsense")[1] == "-ERR nonsense Command not found!\n"


def test_bgapi_answers_at_once_and_tells_the_result_to_listeners(shared):
    with shared.connect() as connection:
        headers, _ = connection.ask("event plain BACKGROUND_JOB")
        assert headers["Reply-Text"] == "+OK event listener enabled plain"
        headers, _ = connection.ask("bgapi fsctl pause_check")
        job = headers["Job-UUID"]
        assert headers["Reply-Text"] == f"+OK Job-UUID: {job}"
        headers, event = connection.read()
        assert headers["Content-Type"] == "text/event-plain"
        assert f"\nJob-UUID: {job}\n" in event
        assert event.endswith("\n\nfalse")


def test_exit_says_goodbye(shared):
    with shared.connect() as connection:
        assert connection.ask("exit")[0]["Reply-Text"] == "+OK bye"
        headers, body = connection.read()
        assert headers["Content-Type"] == "text/disconnect-notice"
        assert body.startswith("Disconnected, goodbye.\n")


@pytest.mark.parametrize(
    "junk", [b"\n" * 50, b"\0\n\n", b"api\n\n", b"\xff\xfe\n\n", b"x" * 20_000]
)
def test_junk_does_not_end_it(shared, junk):
    with socket.create_connection(("127.0.0.1", shared.tree.esl_port), 5) as connection:
        connection.sendall(junk)
    assert shared.api("fsctl pause_check") == "false"


def test_list_turns_a_stranger_away(stopped):
    daemon = stopped.start()
    stopped.tree.acl(nobody=("192.0.2.0/24",))
    stopped.tree.event_socket(apply_inbound_acl="nobody")
    daemon.api("reloadacl")
    daemon.api("bgapi reload mod_event_socket")

    def turned_away():
        try:
            with Connection("127.0.0.1", daemon.tree.esl_port, None) as connection:
                return connection.banner if "Content-Length" in connection.banner[0] else None
        except OSError:
            return None

    headers, body = until(turned_away)
    assert headers["Content-Type"] == "text/rude-rejection"
    assert body == "Access Denied, go away.\n"


def test_new_password_needs_the_module_reloaded_and_ends_connections(daemon):
    daemon.tree.event_socket(password="another")
    assert daemon.api("reloadxml") == "+OK [Success]\n"
    connection = daemon.connect()  # the old password still opens
    connection.send("bgapi reload mod_event_socket")
    frames = [connection.read(), connection.read()]  # the reply and the notice race
    notices = [body for head, body in frames if head["Content-Type"] == "text/disconnect-notice"]
    assert notices == ["The system is being shut down.\n"]

    def reopened():
        try:
            return daemon.connect("another")
        except EslRefusedError:
            raise
        except (OSError, EOFError):
            return None

    until(reopened).close()
    with pytest.raises(EslRefusedError):
        daemon.connect(PASSWORD)


def test_missing_password_is_the_well_known_one(stopped):
    text = (stopped.tree.conf / "event_socket.conf.xml").read_text()
    kept = [line for line in text.splitlines() if '"password"' not in line]
    stopped.tree.write("event_socket.conf.xml", "\n".join(kept) + "\n")
    stopped.password = "ClueCon"
    assert stopped.start().api("fsctl ready_check") == "true"


def fs_cli(daemon, *arguments):
    command = [shutil.which("fs_cli") or "fs_cli"]
    if daemon.flavour != "real":
        command = [sys.executable, str(TWIN / "fs_cli.py")]
    where = ["-H", "127.0.0.1", "-P", str(daemon.tree.esl_port), "-p", PASSWORD]
    return subprocess.run(
        [*command, *where, *arguments], capture_output=True, text=True, timeout=20, check=False
    )


def test_fs_cli_succeeds_whatever_the_answer(shared):
    ran = fs_cli(shared, "-x", "module_exists mod_sofia")
    assert (ran.returncode, ran.stdout) == (0, "true\n")
    ran = fs_cli(shared, "-x", "uuid_kill nobody")
    assert (ran.returncode, ran.stdout) == (0, "-ERR No such channel!\n\n")


def test_fs_cli_fails_without_a_daemon_or_the_password(shared):
    assert fs_cli(shared, "-p", "wrong", "-x", "status").returncode == 255
    assert fs_cli(shared, "-P", "1", "-x", "status").returncode == 255
