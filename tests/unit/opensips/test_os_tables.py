"""Tables as db_text files: what is written is read again, whatever a value holds."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.loading import load

opensips_tables = load("_utils/opensips_tables.py")
TABLES = opensips_tables.TABLES
# What db_text can hold; surrogates are no text.
TEXT = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from(":\\\n\r\t\0"), max_size=20
)
KINDS = {
    "auto": st.integers(1, 2**31 - 1),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "time": st.integers(0, 2**31 - 1),
    "double": st.integers(0, 1000).map(lambda number: number / 4),
    "string": TEXT,
    "blob": TEXT,
}


def rows_of(table):
    columns = {}
    for name, kind, _ in TABLES[table]:
        values = KINDS[kind.removesuffix("?")]
        # Empty text is NULL where there is a NULL; db_text knows no difference.
        columns[name] = st.none() | values.filter(bool) if kind.endswith("?") else values
    return st.lists(st.fixed_dictionaries(columns), max_size=4)


@pytest.mark.parametrize("table", sorted(TABLES))
def test_what_is_written_is_read_again(table):
    @given(rows_of(table))
    def check(rows):
        content = opensips_tables.encode(table, rows)
        assert content.count(b"\n") == len(rows) + 1, "a row is a line"
        read = opensips_tables.decode(table, content)
        zero = {"string?": None, "blob?": None}
        for row in rows:
            row.update({n: zero[k] for n, k, _ in TABLES[table] if k in zero and row[n] == ""})
        assert read == rows
        assert opensips_tables.encode(table, read) == content

    check()


def test_file_is_as_db_text_reads_it():
    rows = [{"setid": 1, "destination": "sip:a:5060\\", "attrs": "x\ny"}, {"destination": "sip:b"}]
    columns, *lines = opensips_tables.encode("dispatcher", rows).decode().splitlines()
    assert columns.startswith("id(int,auto) setid(int) destination(string) socket(string,null)")
    assert lines == [
        r"1:1:sip\:a\:5060\\::0:0:1:0:x\ny:",
        r"2:0:sip\:b::0:0:1:0::",
    ]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"destination": "sip:a", "colour": "red"}], "dispatcher has no column colour"),
        ([{"destination": "sip:a"}, {"setid": 1}], "dispatcher: row 2 lacks destination"),
    ],
)
def test_row_that_does_not_fit_is_refused(rows, told):
    with pytest.raises(ValueError, match=told):
        opensips_tables.encode("dispatcher", rows)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["dispatcher:nine"], "dbtext/version:2: text where a number is wanted"),
        (["dispatcher:9", "address"], "dbtext/version:3: 1 fields, not 2"),
    ],
)
def test_line_that_is_no_row_is_named(lines, told):
    content = "\n".join(["table_name(string) table_version(int)", *lines, ""]).encode()
    with pytest.raises(ValueError, match=re.escape(told)):
        opensips_tables.decode("version", content)


def test_files_of_the_tree():
    files = opensips_tables.files({"dispatcher": [], "address": []}, (3, 4, 18))
    assert list(files) == sorted(files)
    assert {"dbtext/address", "dbtext/dispatcher", "dbtext/version"} <= set(files)
    assert {"runtime/location", "runtime/dialog", "runtime/version"} <= set(files)
    versions = opensips_tables.decode("version", files["dbtext/version"])
    assert {row["table_name"]: row["table_version"] for row in versions} == {
        "address": 5,
        "dispatcher": 9,
    }
    elsewhere = opensips_tables.files({}, elsewhere=["subscriber"])
    assert elsewhere.keys() - files.keys() == {"runtime/subscriber"}


@pytest.mark.parametrize(
    ("release", "domain", "tcp"), [((3, 4, 18), 3, 1), ((3, 6, 8), 4, 1), ([4, 0, 1], 4, 2)]
)
def test_version_is_that_of_the_release(release, domain, tcp):
    assert opensips_tables.version("domain", release) == domain
    assert opensips_tables.version("tcp_mgm", release) == tcp
    assert opensips_tables.version("dispatcher", release) == 9


@pytest.mark.parametrize("length", [4095, 4096])
def test_field_longer_than_db_text_reads_is_refused_there(length):
    """A chain of three certificates is; sqlite holds it."""
    rows = {"tls_mgm": [{"domain": "a", "certificate": "x" * length}]}
    assert opensips_tables.files(rows, driver="sqlite")
    if length <= opensips_tables.LONGEST_FIELD:
        assert opensips_tables.files(rows, driver="text")
        return
    with pytest.raises(ValueError, match=r"tls_mgm, certificate: .* install the sqlite"):
        opensips_tables.files(rows, driver="text")


def test_empty_text_where_db_text_would_read_null_is_refused_there():
    rows = {"fraud_detection": [{"profileid": 1, "prefix": ""}]}
    assert opensips_tables.files(rows, driver="sqlite")
    with pytest.raises(ValueError, match="fraud_detection, prefix"):
        opensips_tables.files(rows, driver="text")
