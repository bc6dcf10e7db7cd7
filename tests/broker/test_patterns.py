"""Regular expressions of users: common ones are accepted, those that could stall the broker are refused."""

from __future__ import annotations

import re
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpd.broker.patterns import PatternError, compile_pattern


def fault(pattern: str) -> str:
    with pytest.raises(PatternError) as refused:
        compile_pattern(pattern)
    return str(refused.value)


@pytest.mark.parametrize("pattern", [
    "", ".*", "^", "^q", r"^amq\.", r"^orders\.[a-z]{2}\.\d{4}-\d{2}$", r"^(amq\.gen.*|amq\.default|foo)$",
    "(?i)^celery", r"^[^.]+\.[^.]+\.[^.]+$", "^.{1,10}$", "(one|two|three)+", "^(a|b)+$", "(ab?){0,3}",
    "(a)?b(?(1)c|d)", "(a)?(?(1)b+|c)$",
    "^(a|ab){16}$", "a{0,16}a{0,16}a{0,16}b",
    "foo.*bar.*notifications", ".*foo.*bar.*", r"^(.*\.)?dlq$", r".*\.(high|low)$", "(foo|foobar)baz",
])
def test_patterns_as_people_write_them_are_fine(pattern: str) -> None:
    assert compile_pattern(pattern).pattern == pattern


@pytest.mark.parametrize("pattern", [
    r"^(?!amq\.).*", r"^(?!(amq\.)|(.*mirror)).*", r"^(?!amq\.)(?!.*\.dlq$)(?!.*retry).*", "^((?!ha).)*$",
])
def test_what_a_name_must_not_hold_can_be_said(pattern: str) -> None:
    compile_pattern(pattern)


@pytest.mark.parametrize("pattern", [
    r"(a+)+$", "(a|a)*b", "(a|ab)*c", "(.*)*", "(x+x+)+y", r"^(\w+\s?)*$", r"^(([a-z])+.)+[A-Z]([a-z])+$",
    "(?!(a+)+$)b", "(a)?(?(1)(b+)+|c)$", "((a+)+b)*", "(?>(a+)+b)", "(one|on)*x", "(?i:ſa|sb)*x",
])
def test_what_can_match_in_two_ways_is_not_repeated_for_ever(pattern: str) -> None:
    assert fault(pattern).startswith("what it repeats can match in several ways")


@pytest.mark.parametrize("pattern", [
    ".*a.*b.*c", "(.*a.*b.*c|z)y", "a{0,17}a{0,17}a{0,17}b",
    "^.*a.*b.*c.*d", "(a|ab){16}(a|ab){16}$", "(.*a){5}b", "(?=.*.*.*.*a)",
])
def test_too_many_repetitions_in_a_row_are_refused(pattern: str) -> None:
    assert fault(pattern).startswith("it repeats so often that it could take too long")


def test_a_possessive_repetition_can_be_repeated() -> None:
    fault("^[a-z]+(-[a-z0-9]+)*$")
    assert compile_pattern("^[a-z]+(-[a-z0-9]++)*$").search("orders-eu-2")


def test_counting_ends_however_deep_a_pattern_repeats() -> None:
    assert fault("(" * 50 + "a?" + "){16}" * 50).startswith("it repeats so often")


@pytest.mark.parametrize("pattern, text", [
    ("(", "missing ), unterminated subpattern at position 0"),
    ("*", "nothing to repeat at position 0"),
    ("a{99999999999}", "the repetition number is too large"),
    ("(" * 500 + ")" * 500, "too many nested groups"),
    ("a" * 1_025, "longer than 1024 bytes"),
    ("é" * 513, "longer than 1024 bytes"),
])
def test_what_is_no_pattern_is_refused(pattern: str, text: str) -> None:
    assert fault(pattern) == text


def test_what_means_something_else_in_rabbitmqs_patterns_is_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")     # as a broker that is started in the usual way does
        assert fault("[[:alpha:]]").startswith("Possible nested set")


PARTS = st.recursive(
    st.sampled_from(["a", "b", ".", "[ab]", "[^b]", "ab", "aa", "$", ""]),
    lambda inner: st.one_of(
        st.builds("{}{}".format, inner, inner),
        st.builds("(?:{}|{})".format, inner, inner),
        st.builds("(?:{}){}".format, inner, st.sampled_from(["*", "+", "?", "{0,3}", "{2,20}", "*?", "*+"])),
        st.builds("{}{})".format, st.sampled_from(["(?=", "(?!", "(?>"]), inner)),
    max_leaves=6)


@given(PARTS)
def test_what_is_let_pass_ends(pattern: str) -> None:
    """The timeout of the tests would tell of one that does not."""
    try:
        compiled = compile_pattern(pattern + "z")
    except PatternError:
        return
    for name in ("a" * 255, "ab" * 127, "a" * 254 + "b"):
        assert compiled.search(name) is None or not re.fullmatch("[ab]*", name)
