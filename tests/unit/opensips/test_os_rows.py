"""Pillar as rows of OpenSIPS's tables."""

import random

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.support.loading import REPOSITORY, load

opensips_rows = load("_utils/opensips_rows.py")
opensips_tables = load("_utils/opensips_tables.py")
EVERYTHING = REPOSITORY / "tests/functional/opensips/everything.yaml"


PBX = {"node": "pbx-01", "uri": "sip:10.77.0.21:5060"}


def everything():
    return {"node": {"name": "sip-01"}, **yaml.safe_load(EVERYTHING.read_text())}


def read(path):
    return f"-----{path}-----\n".encode()


def by(rows, column):
    return {row[column]: row for row in rows}


def test_empty_pillar_has_the_tables_every_proxy_reads():
    assert opensips_rows.rows({}) == {"dispatcher": [], "address": []}


def test_everything_fits_its_tables():
    rows = opensips_rows.rows(everything(), read)
    assert set(rows) == {
        *("address", "clusterer", "clusterer_bridge", "dispatcher", "domain", "dr_carriers"),
        *("dr_gateways", "dr_groups", "dr_rules", "fraud_detection", "rtpengine", "subscriber"),
        "tls_mgm",
    }
    assert opensips_tables.files(rows, driver="text")


def test_order_of_a_mapping_changes_nothing():
    context = everything()

    def shuffled(value):
        if isinstance(value, dict):
            items = list(value.items())
            random.Random(4).shuffle(items)
            return {key: shuffled(child) for key, child in items}
        return [shuffled(child) for child in value] if isinstance(value, list) else value

    wanted = opensips_tables.files(opensips_rows.rows(context, read))
    assert opensips_tables.files(opensips_rows.rows(shuffled(context), read)) == wanted


def test_destinations():
    context = {**everything(), "withdrawn": ["sip:10.77.0.22:5060"]}
    rows = opensips_rows.rows(context, read)["dispatcher"]
    assert [(row["setid"], row["attrs"], row["weight"], row["state"]) for row in rows] == [
        (1, "pbx-01;calls=500", "3", 0),
        (1, "pbx-02", "1", 1),
        (1001, "pbx-03", "1", 0),
        (2, "fsx-01", "1", 0),
    ]


def test_sets_are_in_order_of_number():
    one = [{"node": "pbx-01", "uri": "sip:10.77.0.21:5060"}]
    rows = opensips_rows.rows({"dispatcher": {"10": one, "9": one, "1": one}})["dispatcher"]
    assert [row["setid"] for row in rows] == [1, 9, 10]


def test_addresses_are_carriers_fleet_and_banned():
    rows = opensips_rows.rows(everything(), read)["address"]
    found = {}
    for row in rows:
        where = f"{row['ip']}/{row['mask']}"
        found.setdefault(row["grp"], {})[where] = row["context_info"]
    assert found == {
        1: {
            "198.51.100.20/32": "carrier-a-1",
            "198.51.100.21/32": "carrier-a-2",
            "198.51.100.128/28": "carrier-a-2",
            "198.51.100.30/32": "carrier-b",
            "192.0.2.10/32": None,
            "192.0.2.128/25": None,
            "2001:db8::/64": None,
        },
        2: {f"10.77.0.{host}/32": node for host, node in
            [(21, "pbx-01"), (22, "pbx-02"), (23, "pbx-03"), (31, "fsx-01")]},
        3: {"203.0.113.0/24": None},
    }  # fmt: skip


def test_address_in_two_places_is_one_row():
    rows = opensips_rows.rows({"trusted": ["192.0.2.1", "192.0.2.1/32"]})["address"]
    assert len(rows) == 1


def test_carriers():
    rows = opensips_rows.rows(everything(), read)
    gateways = by(rows["dr_gateways"], "gwid")
    assert gateways["carrier-a-1"]["address"] == "sip:198.51.100.20:5060"
    assert gateways["carrier-a-1"]["attrs"] == "calls=30;hide=1"
    assert gateways["carrier-a-2"]["pri_prefix"] == "77"
    assert gateways["carrier-b"]["address"] == "sip:198.51.100.30:5061;transport=tls"
    assert [gateways[name]["probe_mode"] for name in sorted(gateways)] == [2, 2, 0]
    carriers = by(rows["dr_carriers"], "carrierid")
    assert (carriers["a"]["gwlist"], carriers["a"]["sort_alg"]) == ("carrier-a-1,carrier-a-2", "N")
    assert carriers["b"]["gwlist"] == "carrier-a-1=30,carrier-b=70"
    assert carriers["b"]["sort_alg"] == "W"
    assert [(row["prefix"], row["gwlist"]) for row in rows["dr_rules"]] == [
        ("44", "#a,#b"),
        (None, "#b"),
    ]


def test_withdrawn_gateway_begins_inactive():
    context = {"gateways": {"a": {"address": "192.0.2.1"}}, "withdrawn": ["sip:192.0.2.1:5060"]}
    assert opensips_rows.rows(context)["dr_gateways"][0]["state"] == 1


def test_tls_domains_say_what_they_verify():
    """The table's own defaults, 1 and 1, would lock every client without a certificate out."""
    rows = by(opensips_rows.rows(everything(), read)["tls_mgm"], "domain")
    server, client = rows["inside"], rows["out"]
    assert (server["type"], server["verify_cert"], server["require_cert"]) == (2, 0, 0)
    assert (client["type"], client["verify_cert"], client["require_cert"]) == (1, 1, 0)
    assert (server["method"], client["method"]) == ("TLSv1_2-", "TLSv1_3-")
    assert server["match_ip_address"] == "127.0.0.1:5061"
    assert client["match_ip_address"] == client["match_sip_domain"] == "*"
    assert server["certificate"] == "-----/etc/voice/tls/default/chain.pem-----\n"
    assert server["private_key"] == "-----/etc/voice/tls/default/key.pem-----\n"
    assert (server["ca_dir"], client["ca_dir"]) == (None, "/etc/ssl/certs")


def test_users_are_salts_only_where_pillar_has_them():
    assert opensips_rows.rows(everything(), read)["subscriber"] == [
        {"username": "1001", "domain": "voice.example.com", "ha1": "0123456789abcdef" * 2}
    ]
    elsewhere = {
        "registrar": {"domains": ["a.example.com"]},
        "database": {"remote": {"driver": "x"}},
    }
    assert "subscriber" not in opensips_rows.rows(elsewhere)
    assert "subscriber" in opensips_rows.filled_elsewhere(elsewhere)
    assert "subscriber" not in opensips_rows.filled_elsewhere(everything())


def test_cluster_and_fraud():
    rows = opensips_rows.rows(everything(), read)
    assert [(row["node_id"], row["url"], row["flags"]) for row in rows["clusterer"]] == [
        (1, "bin:127.0.0.1:5555", "seed"),
        (2, "bin:127.0.0.2:5555", None),
    ]
    first, second = rows["fraud_detection"]
    assert (first["cpm_warning"], first["cpm_critical"]) == (10, 20)
    assert first["concurrent_calls_critical"] == 5
    assert (second["start_hour"], second["daysoftheweek"]) == ("08:00", "Mon-Fri")
    assert opensips_rows.rows({"fraud": {"1": [{}]}})["dr_gateways"] == [], "its module wants them"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"carriers": {"a": {"gateways": ["nobody"]}}}, "carriers:a: nobody is in no gateways"),
        ({"outbound": [{"prefix": "", "carriers": ["x"]}]}, "outbound:0: x is in no carriers"),
        ({"trusted": ["carrier.example.com"]}, "trusted holds what is no address"),
        ({"tls": {"a": {"certificate": "x"}}}, "tls:a:certificate is none of pillar certificates"),
        ({"tls": {}}, "sockets: tls and wss need a domain of opensips:tls"),
        ({"node": {"name": "sip-03"}}, "cluster:nodes lacks this node"),
        ({"gateways": {"a": {}}}, "has not the form"),
        ({"dispatcher": {"one": []}, "numbers": []}, "has not the form"),
        ({"dispatcher": [1]}, "has not the form"),
        ({"dispatcher": {"1": [PBX, PBX]}}, "dispatcher:1 holds a destination twice"),
        ({"numbers": [{"set": 77}]}, "numbers:0: there is no such dispatcher set"),
        ({"numbers": [{"set": 1, "expression": "^(8"}]}, "numbers:0:expression does not compile"),
        ({"numbers": [{"set": 1, "expression": "x; exit; #"}]}, "numbers:0:expression holds a bl"),
        ({"numbers": [{"set": 1, "expression": r"^8\d+$"}]}, "numbers:0:expression is Perl's"),
        ({"numbers": [{"set": 1, "expression": "^(?:8|9)"}]}, "numbers:0:expression is Perl's"),
        ({"cluster": {"nodes": {"a": {"id": 1}, "b": {"id": 1}}}}, "two nodes have one id"),
        ({"cluster": {"nodes": {}, "tags": {"vip": "b"}}}, "cluster:tags:vip: no such node"),
        ({"registrar": {"users": {"b.example": {}}}}, "registrar:users:b.example: not in"),
        ({"registrar": {"domains": ["a.example"]}}, "registrar: nobody can log in"),
        ({"banned": ["nonsense"]}, "banned holds what is no address"),
    ],
)
def test_what_leads_nowhere_is_told_by_its_key(changes, told):
    with pytest.raises(ValueError, match=told) as caught:
        opensips_rows.rows({**everything(), **changes}, read)
    assert str(caught.value).startswith("pillar opensips")


@pytest.mark.parametrize("expression", [r"^8[0-9]{3}$", r"^\+49", r"^(8|9)", r"\\d", r"^\(?8"])
def test_expression_of_posix_is_taken(expression):
    numbers = [{"set": 1, "expression": expression}]
    assert opensips_rows.rows({**everything(), "numbers": numbers}, read)["dispatcher"]


def test_certificate_is_read_from_its_directory(tmp_path):
    for name in ("chain", "key"):
        (tmp_path / f"{name}.pem").write_text(f"a {name}\n")
    context = {"certificates": {"c": str(tmp_path)}, "tls": {"d": {"certificate": "c"}}}
    (row,) = opensips_rows.rows(context)["tls_mgm"]
    assert (row["certificate"], row["private_key"]) == ("a chain\n", "a key\n")
    (tmp_path / "key.pem").write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"tls:d: .*/key\.pem is not there or not PEM"):
        opensips_rows.rows(context)


def test_certificate_that_is_not_there_is_told_without_a_traceback():
    def missing(path):
        raise FileNotFoundError(path)

    with pytest.raises(ValueError, match=r"tls:inside: .*/chain\.pem is not there"):
        opensips_rows.rows(everything(), missing)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    ),
    st.sampled_from(
        ["dispatcher", "trusted", "gateways", "carriers", "outbound", "tls", "registrar", "cluster",
         "fraud", "rtpengine", "banned", "sockets"]
    ),
)  # fmt: skip
def test_any_pillar_is_rows_or_one_sentence(value, key):
    try:
        rows = opensips_rows.rows({key: value}, read)
    except ValueError as err:
        assert "\n" not in str(err)
    else:
        assert set(rows) <= set(opensips_tables.TABLES)
