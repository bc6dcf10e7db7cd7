"""The cost of an operation grows only with what it touches, and with nothing else that can be numerous.

Each operation of tests/growth/worlds.py is run in worlds with n, 2n and 4n of one thing. `COSTS` names all pairs whose
steps may grow, and how; all others take the same number of steps in each world.
"""

from __future__ import annotations

from enum import Enum
from fnmatch import fnmatchcase

import pytest

from tests.growth import worlds
from tests.growth.counting import rewritten_broker, steps_of

SIZES = 20, 40, 80


class Growth(Enum):
    """How steps may grow, where there is n, 2n and 4n of something."""

    CONSTANT = "constant"
    LOGARITHMIC = "log n"
    LINEAR = "linear"
    LINEARITHMIC = "n log n"


# By patterns of worlds and operations. The first that fits holds.
COSTS: list[tuple[str, str, Growth]] = [
    # A message goes to all queues of a fanout, once, and a match is looked for among all headers bindings.
    ("bindings_of_a_fanout_exchange", "publish to a fanout exchange", Growth.LINEAR),
    ("bindings_of_a_headers_exchange", "* publish to a headers exchange", Growth.LINEAR),
    ("bindings_of_a_headers_exchange", "publish to a headers exchange", Growth.LINEAR),
    # A new policy is held against all queues and exchanges, and a new queue or exchange against all policies.
    ("queues_and_policies", "* a policy", Growth.LINEARITHMIC),
    ("queues_and_policies", "declare a*", Growth.LINEAR),
    ("*queues*", "* a policy", Growth.LINEAR),
    ("exchanges", "* a policy", Growth.LINEAR),
    ("*bindings_of_a_fanout_exchange", "* a policy", Growth.LINEAR),
    ("consumers_of_a_channel*", "* a policy", Growth.LINEAR),
    ("policies", "* a policy", Growth.LINEARITHMIC),
    ("policies", "declare a*", Growth.LINEAR),
    # An operator's rare commands ask each connection, or each user, whether it is concerned.
    ("connections", "delete a user", Growth.LINEAR),
    ("connections", "delete a vhost", Growth.LINEAR),
    ("users", "delete a vhost", Growth.LINEAR),
    # What is held is what is undone or done; a rollback puts the deliveries back among the unacked ones in order.
    ("held_acks_of_a_transaction", "rollback", Growth.LINEARITHMIC),
    ("held_*_of_a_transaction", "rollback", Growth.LINEAR),
    # What is paged out is a page at the least, and these are less than one.
    ("pending_confirms", "page out a little", Growth.LINEAR),
    ("waiting_on_disk_with_gaps_that_were_filled", "nack of all that goes between pages", Growth.LINEARITHMIC),
    ("refused_publishes", "publish of all that is refused", Growth.LINEAR),
    # A heap.
    ("queues_that_expire", "*", Growth.LOGARITHMIC),
    ("waiting_that_expire", "*", Growth.LOGARITHMIC),
]


def allowed(world: str, operation: str) -> Growth:
    """Return how these steps may grow."""
    for world_pattern, operation_pattern, growth in COSTS:
        if fnmatchcase(world, world_pattern) and fnmatchcase(operation, operation_pattern):
            return growth
    return Growth.CONSTANT


def holds(growth: Growth, at_n: int, at_2n: int, at_4n: int) -> bool:
    """Return whether steps grow no faster than this."""
    if growth is Growth.CONSTANT:
        return max(at_2n, at_4n) <= at_n + 6        # as the first of something may cost more than the next
    if growth is Growth.LOGARITHMIC:
        return max(at_2n, at_4n) <= at_n + 24       # a dozen heap operations, of two levels more
    doubling = 2.1 if growth is Growth.LINEAR else 2.6
    return at_4n - at_2n <= doubling * max(at_2n - at_n, 0) + 24


@pytest.mark.parametrize("world", worlds.WORLDS)
def test_an_operation_costs_what_it_touches(world: str) -> None:
    with rewritten_broker() as rewritten:
        steps = [rewritten.steps(world, n) for n in SIZES]
    assert len(steps[0]) > 40
    grown = [
        f"{operation}: {', '.join(str(at.get(operation)) for at in steps)} is not {allowed(world, operation).value}"
        for operation in steps[0]
        if not holds(allowed(world, operation), *[at.get(operation, 0) for at in steps])]
    assert not grown, "\n".join([f"steps with n, 2n and 4n {world.replace('_', ' ')}:", *grown])


@pytest.mark.parametrize("code, steps", [
    ("x.remove(99)", 100), ("sorted(x)", 100), ("sum(x)", 100), ("x + x", 200), ("99 in x", 100), ("[*x]", 100),
    ("x[1:]", 99), ("{**dict.fromkeys(x)}", 200), ("[1 for _ in x]", 100), ("sum(map(int, x))", 100),
    ("x.append(1)", 1), ("x.insert(0, 1)", 100), ("x.pop(0)", 100), ("x.pop()", 1), ("5 in set(x)", 100), ("len(x)", 1),
    ("max((1 for _ in x))", 100), ("(1 << 100_000) | 1", 195)])
def test_loops_in_c_are_counted(code: str, steps: int) -> None:
    assert steps <= steps_of(code, x=[*range(100)]) <= 2 * steps + 4
