"""Patterns that users write: PCRE as RabbitMQ takes it, and none can hold the broker up."""

from __future__ import annotations

import logging
from itertools import count

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from amqpd import patterns
from amqpd.patterns import MOST_TIMEOUTS, PatternError, compile_pattern, compile_stored

SLOW = "(a+)+$"         # takes for ever in a name of many a and a b
SLOW_NAME = "a" * 254 + "b"


def fault(pattern: str) -> str:
    with pytest.raises(PatternError) as refused:
        compile_pattern(pattern)
    return str(refused.value)


@pytest.mark.parametrize(("pattern", "found", "not_found"), [
    ("", "anything", None), (".*", "", None), ("^q", "q1", "a.q"), (r"^amq\.", "amq.topic", "amqp"),
    ("ord", "my.orders", "o"),
    (r"^(?!amq\.).*", "orders", "amq.gen-x"), (r"^([^.]+\.)*retry$", "a.b.retry", "a.b.retry.x"),
    (r"^(?!amq\.)(?!.*\.dlq$)(?!.*retry).*", "a", "a.dlq"), ("^((?!ha).)*$", "abc", "aha"),
    ("(?i)^celery", "CeLery", "x"),
    ("^[a-z]+(-[a-z0-9]+)*$", "orders-eu-2", "orders-"), ("^[[:alpha:]]+$", "abc", "ab1"), (r"^\w+$", "a_1", "é"),
    ("^(a+)+$", "aaa", "b"), (".*a.*b.*c", "a-b-c", "c-b-a"), ("^.{1,10}$", "abc", "abcdefghijk"),
    ("(a)?b(?(1)c|d)", "bd", "x"),
    ("^(a|b)(?1)$", "ab", "ac"), ("^(?:(?1)x)?(?P<n>a)$", "axa", "xa"), (r"^[(?R)]$", "R", "a"),
    (r"^\(?R\)$", "(R)", "()"),
    ("(?<=x)y", "xy", "y"), (r"^\x61$", "a", "b"), (r"^\Aq\z", "q", "q1"), ("^(?>a+)b", "aab", "b"),
    ("^a{e}$", "a{e}", "a"), ("^(?:foo){e<=2}$", "foo{e<=2}", "fo"), ("^a{2}$", "aa", "a"), ("^[{}]{2}$", "{}", "{"),
    (r"^\{{3}$", "{{{", "{{"), (r"^\p{Lu}{2}$", "AB", "ab"), ("^[]a]{2}$", "]a", "a"), (r"^[\]{]{2}$", "]{", "{"),
])
def test_a_pattern_is_searched_for_as_in_rabbitmq(pattern: str, found: str, not_found: str | None) -> None:
    compiled = compile_pattern(pattern)
    assert compiled.text == pattern and compiled.matches(found)
    assert not_found is None or not compiled.matches(not_found)


@pytest.mark.parametrize(("pattern", "text"), [
    ("(", "missing ) at position 1"), ("*", "nothing to repeat at position 0"), ("[a", "unterminated character set"),
    ("(" * 500 + ")" * 500, "too many nested groups"), ("a" * 1_025, "longer than 1024 bytes"),
    (r"\L<x>", "undefined named"),
    ("é" * 513, "longer than 1024 bytes"), ("(?x)a", "comments and the flag x"), ("(?ix:a)", "comments and the flag x"),
    ("(aaaa(?#()){5000}", "comments and the flag x"),
    ("a{99999999999}", "its repetitions make more than 10,000 copies"),
    ("(((a{1000}){1000}){1000}){1000}", "its repetitions make more than 10,000 copies"),
    ("(a{99}){102}", "its repetitions make more than 10,000 copies"), ("(?:aaa){9999,}", "its repetitions make more"),
    (r"\X{999999}", "its repetitions make"), (r"\N{999999}", "its repetitions make"),
    (r"\p{999999}", "its repetitions"),
    (r"\N{D{999999}IT ONE}", "its repetitions"), (r"\p{L{999999}}", "its repetitions"), (r"\x{999999}", "its repet"),
    (r"(a)\g{999999}", "its repetitions"), (r"\k{999999}", "its repetitions"), (r"\P{^9{999999}}", "its repetitions"),
    ("(?R)?", "recursion is not supported"), ("a(?0)", "recursion"), ("(x?(?1)?)", "recursion"),
    ("(?P<n>a(?&n)?)", "recursion"), ("(?<n>a(?P>n)?)", "recursion"), ("((?2))((?1))", "recursion"),
    ("(a(?:b(?-1)))", "recursion"),
    ("([(]a{99}){102}", "its repetitions make more than"), (r"(\(a{99}){102}", "its repetitions make more than"),
])
def test_what_cannot_be_used_is_refused_with_the_reason(pattern: str, text: str) -> None:
    assert fault(pattern).startswith(text)


@pytest.mark.parametrize("pattern", [
    "(a{99}){100}", "(?:a{0,65535}){0,65535}", "(" * 90 + "a" + ")?" * 90, r"\(?x", r"\(?#"])
def test_repetitions_that_make_few_copies_are_compiled(pattern: str) -> None:
    compile_pattern(pattern)


PARTS = st.recursive(
    st.sampled_from([
        "a", "b", ".", "[ab]", "[^b(]", r"\(", "ab", "$", "", "{", "}", "(?=", "{2}", "(", ")", "[", "?", " "]),
    lambda inner: st.one_of(
        st.builds("{}{}".format, inner, inner),
        st.builds("(?:{}|{})".format, inner, inner),
        st.builds("(?:{}){}".format, inner, st.sampled_from([
            "*", "+", "{0,3}", "{2,20}", "{200}", "{3000,}", "*?", "*+"])),
        st.builds("{}{})".format, st.sampled_from(["(?=", "(?!", "(?>", "(?<=", "(?i:"]), inner)),
    max_leaves=8)


@given(PARTS)
def test_a_pattern_is_compiled_to_few_copies_and_searched_in_little_time(pattern: str) -> None:
    """The timeout and the memory of the tests would tell of one that is not."""
    try:
        compiled = compile_pattern(pattern)
    except PatternError:
        return
    for name in ("a" * 255, "ab" * 127, SLOW_NAME):
        compiled.matches(name)


class Searched:
    """A compiled pattern whose search always runs out of time."""

    def __init__(self) -> None:
        self.searches = count()

    def search(self, name: str, timeout: float) -> None:
        next(self.searches)
        raise TimeoutError("regex timed out")


def test_a_search_has_a_time_limit() -> None:
    with pytest.raises(TimeoutError):
        regex.compile(SLOW).search(SLOW_NAME, timeout=patterns.SEARCH_S)
    assert not compile_pattern(SLOW).matches(SLOW_NAME)


def test_a_pattern_that_runs_out_of_time_does_not_match_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    searched = Searched()
    slow = patterns.Pattern("(a+)+$", searched)      # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING, "amqpd.patterns"):
        for _ in range(MOST_TIMEOUTS + 5):
            assert not slow.matches("orders")
    assert next(searched.searches) == MOST_TIMEOUTS, "it is not searched for ever"
    assert "takes more than 10 ms for the name 'orders'" in caplog.messages[0]
    assert "has run out of time 10 times and matches nothing from now on" in caplog.messages[-1]
    assert len(caplog.messages) == MOST_TIMEOUTS


def test_a_stored_pattern_that_cannot_be_used_matches_nothing_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "amqpd.patterns"):
        assert not compile_stored("(", "policy 'p' in vhost '/'").matches("(")
    assert caplog.messages == [
        "the pattern '(' of policy 'p' in vhost '/' matches nothing, as it cannot be used: missing ) at position 1; "
        "set another one"]


class Finds:
    """A compiled pattern that is found in one name, and notes the names in which it is searched."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.searched: list[str] = []

    def search(self, name: str, timeout: float) -> object:
        self.searched.append(name)
        return object() if name == self.name else None


@pytest.mark.parametrize("text", [".*", "^.*", ".*$"])
def test_a_pattern_that_is_found_anywhere_is_not_searched(text: str) -> None:
    compiled = Finds("")
    pattern = patterns.Pattern(text, compiled)      # type: ignore[arg-type]
    assert all(pattern.matches(name) for name in ("", "a", "a\nb", "\n")) and not compiled.searched
    real = patterns.compile_pattern(text)._compiled
    assert all(real.search(name) for name in ("", "a", "a\nb", "\n", "a\n\n"))
    assert not patterns.Pattern(text, None).matches("a"), "it could not be compiled"


def test_a_pattern_is_searched_once_in_a_name_that_is_asked_for_again_and_again() -> None:
    compiled = Finds("a")
    pattern = patterns.Pattern("a", compiled)       # type: ignore[arg-type]
    assert [pattern.matches(name) for name in "aabbba"] == [True, True, False, False, False, True]
    assert compiled.searched == ["a", "b", "a"]
