"""What watches a node logs in as somebody who may do less, and tells what SIP itself would."""

import re
import shutil
import subprocess
import sys

import pytest

from tests.support.loading import REPOSITORY, load
from tests.support.phone import Phone

esl = load("_utils/esl.py")
PASSWORD = "monitor-not-a-secret"


@pytest.fixture
def watched(node):
    """A running node with a login for monitoring, a registrar besides."""
    node.context["esl_users"] = {
        "monitor": {"password": PASSWORD, "commands": ["status", "show", "sofia"]}
    }
    node.context["profiles"]["internal"]["params"]["disable-register"] = False
    assert node.configured()["result"] is True
    answer = node.running()
    assert answer["result"] is True, answer["comment"]
    return node


RUN = """
import sys, pathlib, voice_metrics as program
program.FS_CLI, program.MARK, target = map(pathlib.Path, sys.argv[1:])
sys.exit(program.main(target))
"""


@pytest.fixture
def metrics(watched, tmp_path):
    """Write the metrics of the node and return them, name{labels} -> value."""
    library = tmp_path / "voice-metrics"
    library.mkdir()
    for file in (
        "_utils/esl.py",
        "_utils/mi.py",
        "_utils/sip.py",
        "salt/monitoring/files/voice_metrics.py",
    ):
        shutil.copy(REPOSITORY / file, library)  # as salt/monitoring/configured.sls does

    def read():
        target = tmp_path / "voice.prom"
        places = ("system/etc/fs_cli.conf", "voice/drained.json")
        arguments = [watched.root / place for place in places]
        command = [sys.executable, "-c", RUN, *map(str, arguments), str(target)]
        subprocess.run(command, cwd=library, check=True, timeout=20)
        lines = [line for line in target.read_text().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    return read


def connect(node, user="monitor@event-socket", password=PASSWORD):
    port = node.context["event_socket"]["port"]
    return esl.connect(port=port, password=password, user=user)


def test_login_may_read_and_no_more(watched):
    with connect(watched) as link:
        assert "session(s)" in link.api("status")
        for command in ("fsctl pause", "json {}", "reloadxml", "xml_locate root", "hupall"):
            with pytest.raises(OSError, match="refused the command: -ERR permission denied"):
                link.api(command)
        with pytest.raises(OSError, match="permission denied"):
            link.subscribe("CHANNEL_CREATE")
    with pytest.raises(OSError, match="password refused"):
        connect(watched, password="another-not-a-secret")


def test_login_is_none_for_calls_and_phones(watched):
    """Without sip-forbid-register its word would be enough, for it has no password of SIP."""
    with Phone(("127.0.0.1", watched.context["profiles"]["internal"]["port"])) as phone:
        for password in ("", PASSWORD):
            assert phone.register("monitor", password, domain="event-socket") == [401, 403]


def test_password_changes_under_a_call(watched):
    with Phone(("127.0.0.1", watched.context["profiles"]["internal"]["port"])) as phone:
        dialog = phone.call()
        context = watched.changed(esl_users__monitor__password="another-not-a-secret")
        answer = watched.configured(context)
        assert answer["result"] is True, answer["comment"]
        assert answer["changes"]["actions"] == ["reloadxml", "xml_flush_cache"]
        connect(watched, password="another-not-a-secret").close()
        assert "not-a-secret" not in str(answer)
        assert phone.hang_up(dialog) == 200


def test_metrics_show_calls_and_who_is_refused(watched, metrics):
    with Phone(("127.0.0.1", watched.context["profiles"]["internal"]["port"])) as phone:
        found = metrics()
        assert found['voice_daemon_up{daemon="freeswitch"}'] == 1
        assert found["voice_refusing_calls"] == found["voice_sessions"] == 0
        assert found["voice_sessions_limit"] == watched.context["max_sessions"]
        assert found["voice_rate_limit"] == watched.context["sessions_per_second"]
        for name in ("internal", "external"):
            assert found[f'voice_profile_up{{profile="{name}"}}'] == 1
            assert found[f'voice_profile_answer{{profile="{name}"}}'] == 200
        dialog = phone.call()
        watched.call("drain", timeout=0)
        found = metrics()
        assert found["voice_sessions"] == found["voice_refusing_calls"] == 1
        assert found["voice_drained"] == 1
        assert found['voice_profile_answer{profile="internal"}'] == 503
        assert phone.hang_up(dialog) == 200


def test_metrics_of_a_daemon_that_is_down_are_metrics_too(watched, metrics):
    watched.close()
    assert metrics()['voice_daemon_up{daemon="freeswitch"}'] == 0


def test_fs_cli_has_a_profile_for_each_login(watched):
    text = (watched.root / "system/etc/fs_cli.conf").read_text()
    assert re.findall(r"^\[(\w+)\]$", text, re.MULTILINE) == ["default", "monitor"]
    assert (watched.root / "system/etc/fs_cli.conf").stat().st_mode & 0o077 == 0
