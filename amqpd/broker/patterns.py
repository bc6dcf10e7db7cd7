"""Regular expressions of users, to be searched in names of at most 255 bytes, with a limit on the time.

Python's `re` tries every way in which a pattern could match, and there may be 2^255 of them. So before a pattern is
used, the most steps that a search in any name can take are counted, and a pattern with too many is refused. Each part
of a pattern has two counts: the ways in which it can match from one position, since the rest may have to be tried after
each of them, and the steps of trying all of them.

Some patterns are refused that would be fast, such as `([a-z]+-)*`: the count does not see that a hyphen ends each run
of letters. `([a-z]++-)*` says so explicitly.

Always true: a search in a name, with any pattern that `compile_pattern` returns, ends within about 50 ms.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise, repeat, takewhile
from math import comb
from re import _constants as ops, _parser  # type: ignore[attr-defined]  # no public module has the parser
from typing import Any

LONGEST_NAME = 255          # bytes, so that many characters at most
LONGEST_PATTERN = 1_024     # bytes
MOST_STEPS = 20_000_000     # of 2 to 20 ns; slower ones are counted several times

_MOST_COUNTED = 16          # more repetitions count as any number of them
_SINGLE = (ops.LITERAL, ops.NOT_LITERAL, ops.ANY, ops.IN)
_BEGINNINGS = ((ops.AT, ops.AT_BEGINNING), (ops.AT, ops.AT_BEGINNING_STRING))

# The factor for each degree: k repetitions in a row can divide a name in C(255 + k, k) ways.
_Count = Counter[int]
_ONE = _Count({0: 1})
_ANY_NUMBER = _Count({1: 1})


class PatternError(ValueError):
    """A pattern that cannot be used; the text is the reason, in a few words."""


def compile_pattern(text: str) -> re.Pattern[str]:
    """Compile a pattern that may be searched in names. Raises PatternError."""
    if len(text.encode()) > LONGEST_PATTERN:
        raise PatternError(f"longer than {LONGEST_PATTERN} bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")      # on syntax that other engines understand otherwise, such as [[:alpha:]]
            compiled = re.compile(text)
            parsed = _parser.parse(text)
        _check_steps(list(parsed), is_multiline=bool(compiled.flags & re.MULTILINE))
    except (re.error, Warning, OverflowError) as error:
        raise PatternError(str(error)) from None
    except RecursionError:
        raise PatternError("too many nested groups") from None
    return compiled


def _check_steps(nodes: list[Any], *, is_multiline: bool) -> None:
    starts = _ONE if nodes[:1] in ([begin] for begin in _BEGINNINGS) and not is_multiline else _ANY_NUMBER
    while nodes and _is_idle_at_the_end(nodes[-1]):
        nodes.pop()
    _, steps = _count(nodes)
    _times(starts, steps)


def _is_idle_at_the_end(node: Any) -> bool:
    """Return whether a node matches at once in any text, as `.*` does, so that nothing before it is tried again."""
    operator, operand = node
    if operator not in (ops.MAX_REPEAT, ops.MIN_REPEAT):
        return False
    least, _, repeated = operand
    return least == 0 and len(repeated) == 1 and repeated[0][0] in _SINGLE


def _count(nodes: Iterable[Any]) -> tuple[_Count, _Count]:
    """Return the ways in which nodes in a row can match, and the steps of trying them all. Raises PatternError."""
    ways, steps = _ONE, _Count()
    run: set[str] = set()       # the characters of the current literal text
    for operator, operand in nodes:
        if operator is ops.LITERAL:
            character = _folded(operand)
            # If its characters differ, a text that matches far at one position does not match at the next ones.
            if not run or character in run:
                steps = steps + ways
            run.add(character)
            continue
        run.clear()
        its_ways, its_steps = _count_node(operator, operand)
        steps = steps + _times(ways, its_steps)
        ways = _times(ways, its_ways)
    return ways, steps


def _count_node(operator: Any, operand: Any) -> tuple[_Count, _Count]:
    if operator is ops.SUBPATTERN:
        return _count(operand[-1])
    if operator is ops.BRANCH:
        return _count_branches(operand[1])
    if operator is ops.GROUPREF_EXISTS:
        return _count_branches([branch or () for branch in operand[1:]])
    if operator in (ops.MAX_REPEAT, ops.MIN_REPEAT):
        return _count_repeat(*operand)
    # What follows is never tried after another way of these.
    if operator is ops.POSSESSIVE_REPEAT:
        return _ONE, _count_repeat(*operand)[1]
    if operator is ops.ATOMIC_GROUP:
        return _ONE, _count(operand)[1]
    if operator in (ops.ASSERT, ops.ASSERT_NOT):
        return _ONE, _count(operand[1])[1]
    return _ONE, _ONE


def _count_branches(branches: Sequence[Any]) -> tuple[_Count, _Count]:
    ways, steps = _Count(), _Count()
    is_one_at_most = _exclude_each_other(branches)
    for its_ways, its_steps in map(_count, branches):
        ways = ways | its_ways if is_one_at_most else ways + its_ways
        steps = steps + its_steps + _ONE
    return ways, steps


def _exclude_each_other(branches: Sequence[Any]) -> bool:
    """Return whether at most one branch can match at any position, since they begin with different texts."""
    beginnings = sorted(map(_beginning, branches))
    return not any(after.startswith(before) for before, after in pairwise(beginnings))


def _beginning(nodes: Sequence[Any]) -> str:
    """Return the text with which every match begins, in any case. Beyond ASCII, cases are not that simple."""
    literals = takewhile(lambda node: node[0] is ops.LITERAL and node[1] < 128, nodes)
    return "".join([_folded(character) for _, character in literals])


def _folded(character: int) -> str:
    return chr(character).lower()


def _count_repeat(least: int, most: int, nodes: Sequence[Any]) -> tuple[_Count, _Count]:
    ways, steps = _count(nodes)
    if ways == _ONE:
        if most > _MOST_COUNTED:
            return _ONE if least == most else _ANY_NUMBER, _times(_ANY_NUMBER, steps)
        return _Count({0: most - least + 1}), _times(_Count({0: most}), steps)
    if most > _MOST_COUNTED:
        raise PatternError(
            "what it repeats can match in several ways, so it could take for ever; repeat with '++' or '*+' inside")
    powers = list(accumulate(repeat(ways, most), _times, initial=_ONE))
    return sum(powers[least:], _Count()), _times(sum(powers, _Count()), steps)


def _times(some: _Count, others: _Count) -> _Count:
    """Return the product. Raises PatternError if it is over the limit."""
    product = _Count()
    for degree, factor in some.items():
        for other_degree, other_factor in others.items():
            product[degree + other_degree] += factor * other_factor
    if sum(factor * comb(LONGEST_NAME + degree, degree) for degree, factor in product.items()) > MOST_STEPS:
        raise PatternError("it repeats so often that it could take too long; leave out '.*' at its ends")
    return product
