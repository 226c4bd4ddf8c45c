"""The event socket with a user of the directory instead of its password: rights, and refusals."""

import pytest
from fs_daemon import Daemon
from fs_esl import Connection

DENIED = {"Content-Type": "command/reply", "Reply-Text": "-ERR permission denied"}
LOGIN = "userauth worker@127.0.0.1:hushed"


@pytest.fixture(scope="module")
def users(flavour, tmp_path_factory):
    daemon = Daemon(flavour, tmp_path_factory.mktemp("users"))
    tree = daemon.tree
    tree.user("worker", esl_password="hushed", esl_allowed_api="show status sofia",
              esl_allowed_events="BACKGROUND_JOB CHANNEL_ANSWER")  # fmt: skip
    tree.user("commas", esl_password="hushed", esl_allowed_api="show,bgapi", esl_allowed_log="no")
    tree.user("free", esl_password="hushed")
    tree.user("caller", password="hushed")
    yield daemon.start()
    daemon.close()


def connected(daemon, login):
    """A connection that is let in."""
    connection = Connection("127.0.0.1", daemon.tree.esl_port, None)
    assert connection.ask(login)[0]["Reply-Text"] == "+OK accepted"
    return connection


@pytest.mark.parametrize("login", [LOGIN, "userauth worker:hushed@127.0.0.1"])
def test_login_tells_the_rights(users, login):
    with Connection("127.0.0.1", users.tree.esl_port, None) as connection:
        assert connection.ask(login)[0] == {
            "Content-Type": "command/reply",
            "Reply-Text": "+OK accepted",
            "Allowed-Events": "BACKGROUND_JOB CHANNEL_ANSWER",
            "Allowed-API": "show status sofia",
            "Allowed-LOG": "true",
        }


@pytest.mark.parametrize(
    "login",
    ["worker@127.0.0.1:wrong", "worker@127.0.0.1:", "worker@127.0.0.1", "worker@elsewhere:hushed",
     "worker:hushed", "nobody@127.0.0.1:hushed", "caller@127.0.0.1:hushed"],
)  # fmt: skip
def test_wrong_login_is_refused_and_hung_up(users, login):
    with Connection("127.0.0.1", users.tree.esl_port, None) as connection:
        headers, _ = connection.ask(f"userauth {login}")
        assert headers == {"Content-Type": "command/reply", "Reply-Text": "-ERR invalid"}
        assert connection.read()[0]["Content-Type"] == "text/disconnect-notice"
        with pytest.raises(EOFError):
            connection.read()


def test_allowed_commands_run_with_any_argument(users):
    with connected(users, LOGIN) as connection:
        assert connection.api("status").startswith("UP ")
        assert connection.api("show calls count") == "\n0 total.\n"
        assert connection.api("sofia status profile nobody") == "Invalid Profile!\n"
        assert connection.ask("bgapi status")[0]["Reply-Text"].startswith("+OK Job-UUID: ")


@pytest.mark.parametrize(
    "command",
    ["api fsctl pause_check", "bgapi fsctl pause_check", "api bgapi status", "api reloadxml"],
)
def test_other_commands_are_denied_and_never_get_an_api_response(users, command):
    """The trap for a client that waits for one: it is a command/reply without a body."""
    with connected(users, LOGIN) as connection:
        assert connection.ask(command) == (DENIED, "")
        assert connection.api("status").startswith("UP ")  # the connection stays


def test_bgapi_inside_api_needs_both_commands(users):
    with connected(users, "userauth commas@127.0.0.1:hushed") as connection:
        assert connection.api("bgapi show calls count").startswith("+OK Job-UUID: ")
        assert connection.ask("api bgapi status") == (DENIED, "")


def test_events_are_allowed_by_name_and_refused_together(users):
    with connected(users, LOGIN) as connection:
        said = connection.ask("event plain BACKGROUND_JOB")[0]["Reply-Text"]
        assert said == "+OK event listener enabled plain"
        for names in ("CHANNEL_CREATE", "BACKGROUND_JOB CHANNEL_CREATE", "ALL"):
            assert connection.ask(f"event plain {names}") == (DENIED, "")


def test_user_without_lists_may_do_everything(users):
    with connected(users, "userauth free@127.0.0.1:hushed") as connection:
        assert connection.api("fsctl pause_check") == "false"
        assert connection.ask("event plain ALL")[0]["Reply-Text"].startswith("+OK")


def test_log_is_denied_by_its_own_setting(users):
    with connected(users, "userauth commas@127.0.0.1:hushed") as connection:
        assert connection.ask("log 7") == (DENIED, "")
    with connected(users, LOGIN) as connection:
        assert connection.ask("log 7")[0]["Reply-Text"].startswith("+OK")


def test_changed_rights_hold_from_the_next_login(users):
    users.tree.user("later", esl_password="hushed", esl_allowed_api="show")
    users.api("reloadxml")
    with connected(users, "userauth later@127.0.0.1:hushed") as before:
        users.tree.user("later", esl_password="hushed", esl_allowed_api="status")
        users.api("reloadxml")
        with connected(users, "userauth later@127.0.0.1:hushed") as after:
            assert after.api("status").startswith("UP ")
        assert before.ask("api status") == (DENIED, "")
