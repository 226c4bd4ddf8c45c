"""A dialplan that would fail under a call is refused, with the line and the reason."""

import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.loading import load

dialplan = load("_utils/fs_dialplan.py")


@pytest.fixture(scope="session")
def check(fsxml):
    def of(inner, more=""):
        text = (
            '<document><section name="dialplan"><context name="public">'
            f'<extension name="e">\n{inner}\n</extension></context>{more}</section></document>'
        )
        return dialplan.check(fsxml.load({"freeswitch.xml": text.encode()}))

    return of


def condition(expression, inner='<action application="answer"/>', **more):
    given_ = {"field": "destination_number", "expression": expression} | more
    return f"<condition {attributes(given_)}>{inner}</condition>"


def attributes(values):
    return " ".join(f'{name}="{value}"' for name, value in values.items() if value is not None)


def action(data, application="bridge"):
    return f"<action {attributes({'application': application, 'data': data})}/>"


@pytest.mark.parametrize(
    ("inner", "told"),
    [
        (condition("^(44"), "never matches: missing ), unterminated subpattern"),
        (condition("^44)$"), "never matches: unbalanced parenthesis"),
        (condition("*"), "never matches: nothing to repeat"),
        (condition("[0-9"), "never matches: unterminated character set"),
        (condition("[9-0]"), "never matches: bad character range 9-0"),
        (condition(r"^\y$"), r"never matches: \y means nothing"),
        (condition(None), "with field and no expression"),
        (condition("^1$", field=None), "with expression and no field"),
        (condition("^1$", **{"break": "on-failure"}), "break 'on-failure'; it is one of on-false"),
        (condition("^1$", "<action/>"), "an action without an application"),
        (condition("^1$", '<anti-action application=""/>'), "an action without an application"),
        (condition("^1$", action("user/${caller_id_number")), "'${' without its '}'"),
        (condition("^(1)(2)$", action("user/$3")), "uses $3 where its expression has 2 groups"),
        (condition("^(?:1)$", action("user/$1")), "uses $1 where its expression has 0 groups"),
        ('<condition regex="any"><regex field="x" expression="("/></condition>',
         "never matches: missing )"),
    ],
    ids=str,
)  # fmt: skip
def test_what_would_fail_is_told_in_one_line(check, inner, told):
    (problem,) = check(inner)
    assert told in problem
    assert problem.startswith("freeswitch.xml:2: extension e ")
    assert "\n" not in problem


@pytest.mark.parametrize(
    "inner",
    [
        condition(r"^\+?(44\d{9,10})$", action("sofia/gateway/a/$1|sofia/gateway/b/$1")),
        condition("^(?<number>1)$", action("user/$1")),
        condition("^${prefix}(", action("user/$2")),
        condition(r"\Qa.b\E", action("$$1 ${x} 5$")),
        condition("a{2}{3}"),
        condition("^1$", action("", "answer"), **{"break": "ON-TRUE"}),
        condition(None, field=None),
        '<condition wday="2-6"/>',
        f'<condition regex="all"><regex field="a" expression="^(1)$"/>{action("$1")}</condition>',
        "<condition field='destination_number'><expression>^(1)$</expression></condition>",
    ],
    ids=str,
)  # fmt: skip
def test_what_freeswitch_understands_passes(check, inner):
    assert check(inner) == []


def test_second_context_of_a_name_is_never_read(check):
    (problem,) = check(condition("^1$"), '\n<context name="public"/>')
    assert "context public again; FreeSWITCH reads only freeswitch.xml:1" in problem


PIECES = st.sampled_from(
    ["(", ")", "(?:", "[", "]", "^", "$", "*", "+", "?", "{2}", "{1,", "a", "-", "9", "0", "|",
     "\\d", "\\", "\\y", "\\Q", "\\E", "\\x41", "(?<n>", "(?=", ".", "[:digit:]", "\\u", "\\8"],
)  # fmt: skip


@pytest.mark.skipif(
    subprocess.run(["grep", "-P", "x"], input="x", text=True, capture_output=True).returncode != 0,
    reason="this grep has no PCRE to compare with",
)
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(PIECES, max_size=10).map("".join))
def test_whatever_is_refused_pcre_refuses_too(expression):
    if dialplan._unfit(expression):
        asked = ["grep", "-P", "-e", expression]
        done = subprocess.run(asked, input="a\n", text=True, capture_output=True)
        assert done.returncode == 2, (expression, done.stderr)
