"""Patterns of permissions and policies: compiled, and searched in names that make them work hard."""

from __future__ import annotations

import logging

from amqpd.patterns import PatternError, compile_pattern
from tests.fuzz.targets.target import Target

NAMES = ("a" * 255, "ab" * 127, "amq.gen-x", "orders.eu.retry", "\u00e9" * 127)
PATTERNS = (
    "", "^q", r"^amq\.", r"^(?!amq\.).*", r"^([^.]+\.)*retry$", "^((?!ha).)*$", "(?i)^celery", "^[[:alpha:]]+$",
    "(a)?b(?(1)c|d)", "(?<=x)y", r"^\x61$", r"^\Aq\z", "^(?>a+)b", "^a{e}$", "a{2,3}?", r"\p{Lu}{2}", "^[]a]{2}$",
    "(a{99}){100}", "(?:a{0,65535}){0,65535}", "(a+)+$", "(?P<n>a)(?P=n)", r"(a)\1", "(?R)?", "a++b", "(?|a|b)",
    r"\Ka", r"\X", r"\R", r"\h", "(?:a|b|)*", r"\N{DIGIT ONE}", r"(?<!a)b", "(?s:.)", "(?m)^a$", "[^]]", r"[\d-a]",
    r"\g<1>(a)", "(?&n)(?P<n>a)", "(?r)a", "(?V1)[a--b]", "(?b)a", "(?e)a", "(?p)a|ab", r"\L<x>", r"\m\M", r"\G",
    "(?(DEFINE)(?P<d>a))(?&d)", "(*SKIP)", r"\X{999999}", r"\N{D{9999}IT ONE}", r"\p{Script=Greek}")


def run(data: bytes) -> None:
    """Compile a pattern and search it, as often as names are checked with it."""
    text = data.decode(errors="ignore")
    try:
        pattern = compile_pattern(text)
    except PatternError as error:
        assert str(error)
        return
    logger = logging.getLogger("amqpd.patterns")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        for name in NAMES:
            assert pattern.matches(name) in (True, False)
    finally:
        logger.setLevel(level)


TARGET = Target(
    run, lambda: [pattern.encode() for pattern in PATTERNS],
    [b"(", b")", b"(?:", b"(?=", b"(?!", b"(?<=", b"(?<!", b"(?>", b"(?i)", b"(?P<n>", b"(?P=n)", b"(?R)", b"(?1)",
     b"(?&n)", b"(?(1)", b"{2,3}", b"{9999}", b"{0,65535}", b"*", b"+", b"?", b"++", b"*?", b"|", b"[^", b"[[:alpha:]]",
     b"]", rb"\p{L}", rb"\N{", rb"\x{41}", rb"\g<1>", rb"\L<", rb"\X", rb"\K", rb"\G", b"(?r)", b"(?V1)", b"(?if)",
     b"(?|", b"(?(DEFINE)", b"(*PRUNE)", b"||", b"--", b"&&", "\u00df".encode(), b"^", b"$", b"."],
    longest=200, steps=400, memory=60_000, lengths=(), share=10)
