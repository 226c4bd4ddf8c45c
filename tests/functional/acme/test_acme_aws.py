"""ACME with AWS: proofs in Route 53, certificates in Secrets Manager and Parameter Store."""

import json
import logging

import pytest

from guardian.acme import challenges
from guardian.acme.cloud import CloudError
from tests.support.loading import load

bundles = load("_utils/certificate_bundle.py")
SECRET = "voice/certificates/default"
KEY, CHAIN = "rt.certificate.default.key", "rt.certificate.default.chain"


@pytest.fixture
def cloud(aws, monkeypatch):
    aws.reset()
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    return aws


@pytest.fixture
def zones(cloud, texts, monkeypatch):
    """Hosted zones of Route 53, which the CA's lookups are answered from."""
    client = cloud.client("route53")

    def make(name, **config):
        made = client.create_hosted_zone(Name=name, CallerReference=name, HostedZoneConfig=config)
        return made["HostedZone"]["Id"].rpartition("/")[2]

    found = {
        "example.net": make("example.net"),
        "pbx.example.net": make("pbx.example.net"),
        "private": make("deep.pbx.example.net", PrivateZone=True),
    }

    def look(name):
        for zone in found.values():
            answer = client.list_resource_record_sets(HostedZoneId=zone)
            for record in answer["ResourceRecordSets"]:
                if record["Type"] == "TXT" and record["Name"].rstrip(".") == name.lower():
                    yield from (one["Value"].strip('"') for one in record["ResourceRecords"])

    monkeypatch.setitem(texts, "of", look)
    return found


@pytest.fixture
def by_dns(master, zones):
    master.wanted["challenge"] = {"route53": {}}
    return master


def records(cloud, zone, kind="TXT"):
    answer = cloud.client("route53").list_resource_record_sets(HostedZoneId=zone)
    return {
        record["Name"]: [one["Value"] for one in record["ResourceRecords"]]
        for record in answer["ResourceRecordSets"]
        if record["Type"] == kind
    }


def test_name_and_its_wildcard_are_proven_in_the_longest_public_zone(by_dns, cloud, zones):
    by_dns.wanted["names"] = ["pbx.example.net", "*.pbx.example.net", "a.deep.pbx.example.net"]
    told = by_dns.run("issue", "default")["default"]
    assert told["comment"] == "acme default: issued and stored"
    assert set(told["names"]) == set(by_dns.wanted["names"])
    assert all(records(cloud, zone) == {} for zone in zones.values())


def test_values_of_others_stay(by_dns, cloud, zones):
    client = cloud.client("route53")
    theirs = {
        "Name": "_acme-challenge.pbx.example.net",
        "Type": "TXT",
        "TTL": 300,
        "ResourceRecords": [{"Value": '"of another master"'}],
    }
    change = {"Changes": [{"Action": "CREATE", "ResourceRecordSet": theirs}]}
    client.change_resource_record_sets(HostedZoneId=zones["pbx.example.net"], ChangeBatch=change)
    assert by_dns.run("issue", "default")["default"]["result"] is True
    assert records(cloud, zones["pbx.example.net"]) == {
        "_acme-challenge.pbx.example.net.": ['"of another master"']
    }


def test_change_of_another_between_reading_and_writing_is_not_lost():
    """Route 53 itself refuses the change then; Moto does not, so this one is told what happens."""
    name, batches = "_acme-challenge.pbx.example.net.", []
    theirs = {"Name": name, "Type": "TXT", "ResourceRecords": [{"Value": '"theirs"'}]}

    def call(operation, **arguments):
        if operation == "list_resource_record_sets":
            return {"ResourceRecordSets": [theirs] if batches else []}
        batches.append(arguments["ChangeBatch"]["Changes"])
        if len(batches) == 1:
            raise CloudError("Route 53: already exists", "InvalidChangeBatch")
        return {"ChangeInfo": {"Id": "C1"}}

    assert challenges._changed(call, "Z1", name, add={'"ours"'}) == "C1"
    first, second = batches
    assert [one["Action"] for one in first] == ["CREATE"]
    assert [one["Action"] for one in second] == ["DELETE", "CREATE"]
    assert second[0]["ResourceRecordSet"] == theirs
    values = second[1]["ResourceRecordSet"]["ResourceRecords"]
    assert values == [{"Value": '"ours"'}, {"Value": '"theirs"'}]


def test_record_that_cannot_be_is_not_tried_for_ever(monkeypatch):
    monkeypatch.setattr(challenges.time, "sleep", lambda seconds: None)

    def call(operation, **arguments):
        if operation == "list_resource_record_sets":
            return {"ResourceRecordSets": []}
        raise CloudError("Route 53: refused", "InvalidChangeBatch")

    with pytest.raises(challenges.AcmeError, match="there is a CNAME, or somebody else"):
        challenges._changed(call, "Z1", "_acme-challenge.pbx.example.net.", add={'"ours"'})


def test_zone_of_its_own_for_proofs():
    zones = {"example.net.": "Z1", "_acme-challenge.pbx.example.net.": "Z2"}
    assert challenges._longest(zones, "_acme-challenge.pbx.example.net.") == "Z2"
    assert challenges._longest(zones, "_acme-challenge.sip.example.net.") == "Z1"


def test_zone_that_is_named(by_dns, cloud, zones):
    by_dns.wanted["challenge"] = {"route53": {"zone": zones["example.net"]}}
    assert by_dns.run("issue", "default")["default"]["result"] is True
    by_dns.wanted["challenge"] = {"route53": {"zone": "Z0000000000000"}}
    comment = by_dns.run("issue", "default")["default"]["comment"]
    assert comment == "acme default: Route 53: GetHostedZone: NoSuchHostedZone"


def test_name_of_no_zone(by_dns):
    by_dns.wanted["names"] = ["pbx.example.org"]
    comment = by_dns.run("issue", "default")["default"]["comment"]
    assert comment.endswith(
        "Route 53 has no public zone that holds _acme-challenge.pbx.example.org"
    )


def test_records_that_the_ca_cannot_see(by_dns, cloud, zones, texts, monkeypatch):
    monkeypatch.setitem(texts, "of", lambda name: ["something else"])
    comment = by_dns.run("issue", "default")["default"]["comment"]
    assert comment.startswith("acme default: not proven: pbx.example.net by dns-01: ")
    assert all(records(cloud, zone) == {} for zone in zones.values())
    assert not by_dns.file.exists()


def test_records_that_do_not_reach_the_servers():
    def pending(operation, **arguments):
        return {"ChangeInfo": {"Status": "PENDING"}}

    with pytest.raises(challenges.AcmeError, match="did not carry the TXT records"):
        challenges._wait(pending, "change", deadline=0.0)


def test_role_that_may_not_be_assumed(by_dns, cloud):
    by_dns.wanted["challenge"] = {"route53": {"role": "arn:aws:iam::123456789012:role/acme-dns"}}
    cloud.fault("deny", "sts:AssumeRole")
    comment = by_dns.run("issue", "default")["default"]["comment"]
    assert comment == "acme default: Route 53: AssumeRole: AccessDenied"
    cloud.heal()
    assert by_dns.run("issue", "default")["default"]["result"] is True


@pytest.fixture
def in_secret(master, cloud):
    cloud.client("secretsmanager").create_secret(Name=SECRET)
    master.wanted["store"] = {"secretsmanager": SECRET, "region": "eu-west-2"}
    return master


@pytest.fixture
def in_pair(master, cloud):
    pair = {"key": KEY, "chain": CHAIN}
    master.wanted["store"] = {"parameters": pair, "region": "eu-west-2"}
    return master


def test_secret_changes_as_a_whole(in_secret, cloud):
    assert in_secret.run("renew")["default"]["result"] is True
    client = cloud.client("secretsmanager")
    first = json.loads(client.get_secret_value(SecretId=SECRET)["SecretString"])
    assert bundles.verify(first["chain"], first["key"], ["pbx.example.net"])
    assert in_secret.run("renew")["default"]["comment"] == "acme default: in order"
    assert in_secret.run("issue", "default")["default"]["result"] is True
    assert cloud.calls()["secretsmanager:PutSecretValue"] == 2
    assert client.get_secret_value(SecretId=SECRET)["SecretString"] != json.dumps(first)


def test_secret_that_does_not_exist(in_secret, cloud):
    cloud.reset()
    comment = in_secret.run("renew")["default"]["comment"]
    assert comment == (
        f"acme default: secret {SECRET} does not exist in eu-west-2; create it empty"
    )


@pytest.mark.parametrize(
    "value", ["{}", "nonsense", '{"key": 1, "chain": 2}', '{"key": "x", "chain": "y"}']
)
def test_secret_that_holds_something_else_is_replaced(in_secret, cloud, value):
    cloud.client("secretsmanager").put_secret_value(SecretId=SECRET, SecretString=value)
    assert in_secret.run("status")["default"]["comment"].startswith("acme default: due: ")
    assert in_secret.run("renew")["default"]["result"] is True


def test_secret_that_may_not_be_written_is_written_later(in_secret, cloud, ca):
    cloud.fault("deny", "secretsmanager:PutSecretValue")
    comment = in_secret.run("renew")["default"]["comment"]
    assert comment == (
        f"acme default: secret {SECRET} in eu-west-2: PutSecretValue: AccessDeniedException"
    )
    cloud.heal()
    asked = len(ca.log())
    assert "an earlier run could not" in in_secret.run("renew")["default"]["comment"]
    assert len(ca.log()) == asked


def test_pair_of_parameters(in_pair, cloud):
    assert in_pair.run("renew")["default"]["result"] is True
    client = cloud.client("ssm")
    found = {
        one["Name"]: (one["Type"], one["Value"])
        for one in client.get_parameters(Names=[KEY, CHAIN], WithDecryption=True)["Parameters"]
    }
    assert {kind for kind, _ in found.values()} == {"SecureString"}
    assert bundles.verify(found[CHAIN][1], found[KEY][1], ["pbx.example.net"])


def test_pair_that_was_written_by_half_is_told_and_completed(in_pair, cloud):
    in_pair.run("renew")
    cloud.fault("deny", "ssm:PutParameter", contains=CHAIN)
    assert (
        f"parameter {CHAIN} in eu-west-2: " in in_pair.run("issue", "default")["default"]["comment"]
    )
    # What nodes make of it until then: the new key is not the old leaf's.
    comment = in_pair.run("status")["default"]["comment"]
    assert "key does not match leaf" in comment
    cloud.heal()
    assert "an earlier run could not" in in_pair.run("renew")["default"]["comment"]
    assert in_pair.run("status")["default"]["comment"] == "acme default: in order"


@pytest.mark.parametrize("store", ["in_secret", "in_pair"])
def test_aws_that_is_not_there_is_told(request, store, cloud):
    master = request.getfixturevalue(store)
    cloud.fault("deny")
    assert "AccessDenied" in master.run("renew")["default"]["comment"]
    assert master.run("status")["retcode"] == 1


def test_no_key_goes_to_the_log(in_secret, in_pair, cloud, caplog):
    caplog.set_level(logging.DEBUG)
    in_pair.run("issue", "default")
    in_secret.wanted["store"] = {"secretsmanager": SECRET, "region": "eu-west-2"}
    in_secret.run("issue", "default")
    in_secret.run("status")
    client = cloud.client("secretsmanager")
    held = json.loads(client.get_secret_value(SecretId=SECRET)["SecretString"])["key"]
    for line in held.splitlines()[1:-1]:
        assert line not in caplog.text
