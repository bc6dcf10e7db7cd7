"""Generate sessions: what several clients send and do, step after step, from a seed and from the answers they get."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.fuzz import values
from tests.fuzz.talker import Talker, mutated
from tests.fuzz.values import Dice


class Step(NamedTuple):
    """One step: a client connects, sends octets, pauses or continues reading, is disconnected, or time passes."""

    act: str                    # connect, say, deaf, hear, cut, time, policy, alarm
    client: int = 0
    octets: bytes = b""
    value: Any = None


class Session:
    """The session of a seed. The player passes the broker's answers to the talkers between two steps."""

    def __init__(self, seed: int, user: str, password: str, vhost: str) -> None:
        self._dice = dice = Dice(seed)
        dice.wildness = dice.choice([0.0, 0.1, 0.1, 0.3, 1.0, 3.0])
        self._mutation = dice.choice([0.0, 0.0, 0.02, 0.1]) if dice.wildness else 0.0
        self.talkers = [Talker(dice, user, password, vhost) for _ in range(dice.choice([1, 2, 2, 3]))]

    def steps(self) -> Iterator[Step]:
        """What happens, one after the other."""
        for number in range(len(self.talkers)):
            yield from self._arrive(number)
        for _ in range(self._dice.choice([5, 15, 40])):
            number = self._dice.randrange(len(self.talkers))
            if self.talkers[number].is_closed:
                yield from self._arrive(number, again=True)
            yield from self._next(number)

    def _arrive(self, number: int, *, again: bool = False) -> Iterator[Step]:
        if again:
            yield Step("cut", number)
        yield Step("connect", number)
        hello = self.talkers[number].hello()
        yield Step("say", number, mutated(self._dice, hello) if self._dice.oddly(0.02) else hello)

    def _next(self, number: int) -> Iterator[Step]:
        """The next step of a client, or of the world."""
        dice = self._dice
        chance = dice.random()
        if chance < 0.90:
            yield self._say(number, dice.choice([1, 1, 2, 5, 10]))
        elif chance < 0.94:
            yield Step("time", value=dice.choice([0.25, 0.5, 3.0]))
        elif chance < 0.96:
            names = dice.sample(values.POLICY_KEYS, dice.choice([1, 2]))
            yield Step("policy", value=(
                dice.choice(["^q[0-2]", "q3", "", "^x"]), {name: dice.choice(choices) for name, choices in names}))
        elif chance < 0.98:
            yield Step("deaf", number)
            yield self._say(number, 10)
            yield Step("hear", number)
        elif chance < 0.99:
            yield Step("alarm", value="memory")
            yield self._say(number, 3)
            yield Step("alarm", value="")
        else:
            yield from self._arrive(number, again=True)

    def _say(self, number: int, count: int) -> Step:
        octets = b"".join(self.talkers[number].words() for _ in range(count))
        return Step("say", number, mutated(self._dice, octets) if self._dice.often(self._mutation) else octets)
