"""Draw values for methods and contents: mostly common ones from small pools, some extreme ones."""

from __future__ import annotations

import struct
from random import Random
from typing import Any

from conformance.fields import (
    Array, Boolean, ByteArray, Decimal, Double, Float, Long, LongString, Properties, SignedByte, SignedInt, SignedShort,
    Table, Timestamp, Typed, UnsignedByte, UnsignedInt, UnsignedShort, UpperLong, Void, encode_table)

QUEUES = ["q0", "q1", "q2", "q3", "q4", "q5"]
EXCHANGES = ["x0", "x1", "x2", "x3"]
BUILT_IN = ["", "amq.direct", "amq.topic", "amq.fanout", "amq.headers", "amq.match"]
KEYS = ["k", "a", "a.b", "a.b.c", "", *QUEUES]
PATTERNS = ["#", "*", "a.*", "#.b", "a.#.c", "*.*", "#.#", *KEYS]
ODD_NAMES = [
    "amq.own", "x" * 255, "\u00e9\u4e16", "with space", "nul\0inside", "amq.rabbitmq.reply-to", "line\r\nbreak",
    "amq.rabbitmq.reply-to.g1h2AA9yZXBseUAxMjM.x", b"\xff\xfe", b"\xed\xa0\x80"]
TAGS = ["c0", "c1", "c2", ""]
EDGES = [0, 1, 2, 127, 128, 255, 256, 2 ** 15, 2 ** 16 - 1, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1]
LARGE_EDGES = [0, 1, 2, 3, 2 ** 31, 2 ** 32, 2 ** 53, 2 ** 63 - 1, 2 ** 63, 2 ** 64 - 1]

# By queue, so that most declarations of a queue agree; each value may be replaced by an odd one.
QUEUE_ARGUMENTS: dict[str, dict[str, Any]] = {
    "q0": {},
    "q1": {"x-message-ttl": 0, "x-dead-letter-exchange": "amq.fanout"},
    "q2": {"x-max-length": 2, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "q1"},
    "q3": {"x-max-priority": 5, "x-message-ttl": 300, "x-dead-letter-exchange": "x0"},
    "q4": {"x-max-length": 3, "x-overflow": "reject-publish", "x-single-active-consumer": True},
    "q5": {"x-expires": 2_000, "x-max-length-bytes": 500, "x-delivery-limit": 2, "x-queue-type": "quorum",
           "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "q0"},
}
POLICY_KEYS: list[tuple[str, list[Any]]] = [
    ("max-length", [0, 1, 3]), ("max-length-bytes", [0, 100]), ("message-ttl", [0, 1, 250]), ("expires", [1, 1_000]),
    ("dead-letter-exchange", ["", "amq.fanout", "x1", "nope"]), ("dead-letter-routing-key", ["q0", "q2"]),
    ("overflow", ["drop-head", "reject-publish", "reject-publish-dlx"]), ("delivery-limit", [0, 1, 3]),
    ("alternate-exchange", ["x2", "amq.fanout"])]


class Dice(Random):
    """A random source, and a factor for unusual values: 0 for none, 1 for the probabilities of the callers."""

    wildness = 1.0

    def often(self, chance: float) -> bool:
        """Whether something comes true that does in so many cases."""
        return self.random() < chance

    def oddly(self, chance: float) -> bool:
        """Whether something odd is done that is in so many cases of a session of wildness 1."""
        return self.random() < chance * self.wildness


def queue(random: Dice) -> str | bytes:
    """The name of a queue, existing or not."""
    return random.choice([*ODD_NAMES, *EXCHANGES, ""]) if random.oddly(0.05) else random.choice(QUEUES)


def exchange(random: Dice) -> str | bytes:
    """The name of an exchange."""
    if random.oddly(0.05):
        return random.choice([*ODD_NAMES, "nope"])
    return random.choice(BUILT_IN if random.often(0.5) else EXCHANGES)


def key(random: Dice) -> str | bytes:
    """A routing key or a pattern."""
    return random.choice(ODD_NAMES) if random.oddly(0.03) else random.choice(PATTERNS)


def number(random: Dice, octets: int) -> int:
    """A number that fits so many octets, often one of the edges."""
    values = [edge for edge in (*EDGES, *LARGE_EDGES) if edge < 1 << 8 * octets]
    return random.choice(values) if random.often(0.7) else random.randrange(1 << 8 * octets)


def field(random: Dice, depth: int = 0) -> Typed:
    """A field value of any type, nested at times."""
    makers = [
        lambda: Boolean(random.often(0.5)), lambda: SignedByte(random.randrange(-128, 128)),
        lambda: UnsignedByte(random.randrange(256)), lambda: SignedShort(random.randrange(-2 ** 15, 2 ** 15)),
        lambda: UnsignedShort(random.randrange(2 ** 16)),
        lambda: SignedInt(random.choice([0, -1, 2 ** 31 - 1, -2 ** 31])),
        lambda: UnsignedInt(random.randrange(2 ** 32)), lambda: Long(random.choice([0, -1, 2 ** 63 - 1, -2 ** 63])),
        lambda: UpperLong(random.choice([0, 2 ** 63 - 1])), lambda: Float(random.choice([0.0, float("nan"), 1e30])),
        lambda: Double(random.choice([0.0, float("inf"), float("nan"), -1e300])),
        lambda: Timestamp(random.choice([0, 2 ** 31, 2 ** 63 - 1, 2 ** 64 - 1])), lambda: Void(),
        lambda: Decimal(random.randrange(2 ** 32), random.randrange(256)),
        lambda: LongString(random.choice(["", "text", "\u00e9" * 50, b"\xff\xfe"])),
        lambda: ByteArray(random.randbytes(random.randrange(20)))]
    if depth < random.choice([1, 2, 4, 40]):
        makers += [lambda: Array([field(random, depth + 1) for _ in range(random.choice([0, 1, 3]))]),
                   lambda: Table({f"n{at}": field(random, depth + 1) for at in range(random.choice([0, 1, 2]))})] * 2
    return random.choice(makers)()


def arguments(random: Dice, base: dict[str, Any]) -> bytes:
    """An argument table: the usual one, or with something odd in it, or broken."""
    table: dict[str, Any] = dict(base)
    if random.oddly(0.08):
        name = random.choice([*table, *{name for usual in QUEUE_ARGUMENTS.values() for name in usual}, "x-unknown"])
        table[name] = field(random)
    return broken(random, encode_table(table))


def broken(random: Dice, table: bytes) -> bytes:
    """The octets of a table, seldom with one of them changed or with a length that lies."""
    if random.oddly(0.01) and len(table) > 4:
        at = random.randrange(len(table))
        return table[:at] + bytes([random.randrange(256)]) + table[at + 1:]
    if random.oddly(0.01):
        return struct.pack(">I", number(random, 4)) + table[4:]
    return table


def deaths(random: Dice) -> list[Any]:
    """What pretends to be x-death."""
    def entry() -> dict[str, Any]:
        death: dict[str, Any] = {
            "count": random.choice([1, Long(2 ** 63 - 1), -1, "many"]), "queue": random.choice(QUEUES),
            "reason": random.choice(["expired", "rejected", "maxlen", "delivery_limit", 7]), "exchange": "",
            "routing-keys": random.choice([["k"], [], "k", [1]]), "time": Timestamp(random.choice([0, 2 ** 64 - 1]))}
        for name in random.sample(sorted(death), random.choice([0, 0, 1, 3])):
            del death[name]
        return death
    return random.choice([[entry()], [entry(), entry()], [entry() for _ in range(9)], [1, "x"], [], [[]]])


def headers(random: Dice) -> dict[str, Any]:
    """A header table of a message."""
    table: dict[str, Any] = {}
    if random.often(0.2):
        table["x-death"] = field(random) if random.oddly(0.2) else deaths(random)
    for name in ("CC", "BCC"):
        if random.often(0.1):
            table[name] = [random.choice(KEYS) for _ in range(3)]
            if random.oddly(0.1):
                table[name] = random.choice(["no list", [1], [[]], []])
    if random.often(0.1):
        table["x-delivery-count"] = random.choice([0, 1, -1, Long(2 ** 63 - 1), "x"])
    if random.often(0.3):
        table[random.choice(["a", "b", "", "x" * 255])] = field(random)
    return table


def _expiration(random: Dice) -> str | None:
    if random.oddly(0.03):
        return random.choice(["-1", "x", "", "4294967296", "9" * 200])
    return random.choice([None, None, None, None, "0", "1", "300"])


def properties(random: Dice) -> bytes:
    """The flags and values of a content header."""
    if random.often(0.4):
        return Properties(delivery_mode=random.choice([None, 1, 2])).encode()
    made = Properties(
        headers=headers(random) if random.often(0.7) else None,
        delivery_mode=7 if random.oddly(0.03) else random.choice([None, 1, 2, 2]),
        priority=random.choice([None, None, 0, 3, 9, 255]), expiration=_expiration(random),
        reply_to="amq.rabbitmq.reply-to" if random.oddly(0.05) else random.choice([None, "elsewhere"]),
        user_id="nobody" if random.oddly(0.03) else random.choice([None, None, "guest"]),
        timestamp=random.choice([None, None, 0, 2 ** 64 - 1]), message_id=b"\xff" if random.oddly(0.05) else None)
    octets = made.encode()
    if random.oddly(0.02):
        at = random.randrange(len(octets))
        return octets[:at] + bytes([random.randrange(256)]) + octets[at + 1:]
    return octets
