"""What each role must show on a host once its highstate is applied."""

import json

import pytest

NODES = ("sip", "pbx", "fsx")
FREESWITCH = ("pbx", "fsx")
STOP = "10min\n"  # freeswitch:unit:drain_seconds of the account


def udp(host, address, port):
    return host.socket(f"udp://{address}:{port}").is_listening


def output(host, command):
    done = host.run(command)
    assert done.rc == 0, f"{command}: {done.stderr or done.stdout}"
    return done.stdout


@pytest.mark.roles("master")
def test_master_serves_its_minions(host):
    assert host.service("salt-master").is_running
    assert host.service("salt-master").is_enabled
    for port in (4505, 4506):
        assert host.socket(f"tcp://0.0.0.0:{port}").is_listening


@pytest.mark.roles("master")
def test_master_knows_exactly_the_fleets_keys(host, fleet):
    keys = json.loads(output(host, "salt-key --list=all --out=json"))
    assert sorted(keys["minions"]) == sorted(f"{name}.lab-local" for name in fleet)
    assert keys["minions_pre"] == keys["minions_rejected"] == keys["minions_denied"] == []


@pytest.mark.roles(*NODES)
def test_minion_runs_and_reaches_its_master(host):
    assert host.service("salt-minion").is_running
    assert json.loads(output(host, "salt-call --out=json test.ping")) == {"local": True}


@pytest.mark.roles(*NODES)
def test_second_state_apply_changes_nothing(host):
    returned = json.loads(output(host, "salt-call --out=json state.apply"))["local"]
    changed = {name: state["changes"] for name, state in returned.items() if state["changes"]}
    assert returned
    assert changed == {}


@pytest.mark.roles(*NODES)
def test_kernel_settings_are_in_force(host):
    assert host.file("/etc/sysctl.d/60-guardian.conf").exists
    assert host.sysctl("net.core.rmem_max") == 16777216
    assert host.sysctl("vm.swappiness") == 1


@pytest.mark.roles(*NODES)
def test_packet_filter_is_in_force_and_trusts_the_fleet(host, fleet):
    assert host.service("guardian-defence").is_enabled
    trusted = output(host, "nft list set inet guardian trusted")
    assert all(node["address"] in trusted for node in fleet.values())
    assert "@banned" in output(host, "nft list chain inet guardian abuse")


@pytest.mark.roles(*FREESWITCH)
def test_failed_logins_are_watched_and_a_ban_reaches_the_filter(host):
    assert host.service("fail2ban").is_running
    assert "guardian-freeswitch" in output(host, "fail2ban-client status")
    output(host, "fail2ban-client set guardian-freeswitch banip 203.0.113.9")
    assert "203.0.113.9" in output(host, "nft list set inet guardian banned")
    output(host, "fail2ban-client set guardian-freeswitch unbanip 203.0.113.9")
    assert "203.0.113.9" not in output(host, "nft list set inet guardian banned")


@pytest.mark.roles(*NODES)
def test_journal_is_bounded(host):
    assert host.file("/etc/systemd/journald.conf.d/guardian.conf").contains("SystemMaxUse=512M")


@pytest.mark.roles(*NODES)
def test_no_unit_has_failed(host):
    assert output(host, "systemctl list-units --failed --no-legend --plain") == ""


@pytest.mark.roles(*NODES)
def test_certificate_is_live_and_its_key_is_roots_alone(host):
    live = "/etc/voice/tls/default/current"
    assert host.file(live).is_symlink
    key = host.file(f"{live}/key.pem")
    assert (key.user, key.mode) == ("root", 0o600)
    of_key = output(host, f"openssl pkey -in {live}/key.pem -pubout")
    of_leaf = output(host, f"openssl x509 -in {live}/chain.pem -noout -pubkey")
    assert of_key == of_leaf


@pytest.mark.roles(*NODES)
def test_metrics_are_shown_by_node_exporter(host):
    assert host.service("prometheus-node-exporter").is_running
    assert host.service("voice-metrics.timer").is_running
    assert host.service("voice-metrics.timer").is_enabled
    output(host, "systemctl start voice-metrics.service")
    told = output(
        host,
        "python3 -c 'import urllib.request as u;"
        ' print(u.urlopen("http://127.0.0.1:9100/metrics", timeout=10).read().decode())\'',
    ).splitlines()
    up = [line for line in told if line.startswith("voice_daemon_up{")]
    assert [line.rpartition(" ")[2] for line in up] == ["1"]
    assert "voice_refusing_calls 0" in told


@pytest.mark.roles(*NODES)
def test_marks_are_kept_from_other_users(host):
    marks = host.file("/var/lib/voice")
    assert (marks.user, marks.group, marks.mode) == ("root", "root", 0o750)


@pytest.mark.roles(*NODES)
def test_node_is_in_service_and_passes_its_own_checks(host):
    state = json.loads(output(host, "salt-call --out=json voice.in_service"))["local"]
    assert state["state"] == "in_service", state["why"]
    checks = json.loads(output(host, "salt-call --out=json voice.checks"))["local"]
    assert [check for check in checks["checks"] if not check["ok"]] == []
    assert checks["checks"]


@pytest.mark.roles(*FREESWITCH)
def test_freeswitch_runs_held_at_its_version(host):
    assert host.package("freeswitch").version.startswith("1.10.12")
    assert output(host, "apt-mark showhold").split() == ["freeswitch"]
    assert host.service("freeswitch").is_running
    assert host.service("freeswitch").is_enabled


@pytest.mark.roles(*FREESWITCH)
def test_freeswitch_stops_only_when_its_calls_have_ended(host):
    pid = output(host, "systemctl show --property=MainPID --value freeswitch").strip()
    assert "-elegant-term" in host.file(f"/proc/{pid}/cmdline").content_string.split("\0")
    # The stock 45 s would cut the calls that are left.
    assert output(host, "systemctl show --property=TimeoutStopUSec --value freeswitch") == STOP


@pytest.mark.roles(*FREESWITCH)
def test_freeswitch_listens_for_proxies_and_carriers(host, node):
    assert udp(host, node["address"], 5060)
    assert udp(host, node["address"], 5080)


@pytest.mark.roles(*FREESWITCH)
def test_event_socket_is_on_loopback_only(host):
    assert host.socket("tcp://127.0.0.1:8021").is_listening
    listening = host.socket.get_listening_sockets()
    assert [name for name in listening if name.endswith(":8021")] == ["tcp://127.0.0.1:8021"]


@pytest.mark.roles(*FREESWITCH)
def test_freeswitch_configuration_is_for_its_user_alone(host):
    tree = host.file("/etc/freeswitch")
    assert (tree.user, tree.mode) == ("freeswitch", 0o750)
    # With the event socket's password in it.
    file = host.file("/etc/freeswitch/autoload_configs/event_socket.conf.xml")
    assert (file.user, file.mode) == ("freeswitch", 0o640)
    assert output(host, "find /etc/freeswitch -perm /o=rwx") == ""


@pytest.mark.roles("fsx")
def test_php_workers_take_calls(host):
    for port in (9001, 9002):
        assert host.service(f"fsx-worker@{port}").is_running
        assert host.service(f"fsx-worker@{port}").is_enabled
        assert host.socket(f"tcp://127.0.0.1:{port}").is_listening
    assert host.file("/srv/fsx/current").is_symlink
    assert host.file("/srv/fsx/current").linked_to.startswith("/srv/fsx/releases/")


@pytest.mark.roles("fsx")
def test_php_workers_run_the_live_release_and_cannot_alter_it(host):
    live = host.file("/srv/fsx/current").linked_to
    release = host.file(live)
    assert (release.user, release.group, release.mode) == ("root", "fsx", 0o750)
    assert output(host, f"find {live} -type f -not -perm 640") == ""
    workers = json.loads(output(host, "salt-call --out=json fsx.workers"))["local"]
    assert [worker["port"] for worker in workers] == [9001, 9002]
    for worker in workers:
        assert live.endswith(f"/{worker['release']}")
        assert worker["listening"]
        assert output(host, f"stat --format=%U /proc/{worker['pid']}").strip() == "fsx"


@pytest.mark.roles("sip")
def test_opensips_runs_held_at_its_version(host):
    assert host.package("opensips").version.startswith("3.4.18")
    assert output(host, "apt-mark showhold").split() == ["opensips"]
    assert host.service("opensips").is_running
    assert host.service("opensips").is_enabled


@pytest.mark.roles("sip")
def test_opensips_listens_for_calls(host, node):
    assert udp(host, node["address"], 5060)


@pytest.mark.roles("sip")
def test_opensips_accepts_its_own_configuration(host):
    assert host.run("opensips -C -f /etc/opensips/opensips.cfg").rc == 0
    tree = host.file("/etc/opensips")
    assert (tree.user, tree.group, tree.mode) == ("root", "opensips", 0o750)
    assert output(host, "find /etc/opensips -perm /o=rwx") == ""


@pytest.mark.roles("sip")
def test_management_interface_is_for_its_group_alone(host):
    socket = host.file("/run/opensips/opensips_mi.sock")
    assert socket.is_socket
    assert (socket.user, socket.group, socket.mode) == ("opensips", "opensips", 0o660)


@pytest.mark.roles("sip")
def test_dispatcher_sends_calls_to_every_freeswitch_of_the_fleet(host, fleet):
    listed = output(host, "salt-call --out=json opensips.dispatcher_list")
    for name, one in fleet.items():
        assert (f"sip:{one['address']}:5060" in listed) == (one["role"] in FREESWITCH), name
