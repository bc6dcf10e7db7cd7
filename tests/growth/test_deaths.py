"""A message with very many deaths in its headers, as a client may publish it: the steps of one more death."""

from __future__ import annotations

import importlib

from amqpd.message import Route
from tests.growth.counting import COUNTER, rewritten_broker
from tests.support.samples import short_string

DEATHS = 2_000
MOST_STEPS = 35, 10, 10       # for each of them, when the message dies for the first time and later


def test_a_message_of_very_many_deaths_costs_little_for_each() -> None:
    with rewritten_broker():
        dead_letter = importlib.import_module("amqpd.broker.dead_letter")
        fields = importlib.import_module("amqpd.fields")
        properties = importlib.import_module("amqpd.properties")
        message = importlib.import_module("amqpd.message")
    header = fields.encode_table({"x-death": [{"queue": f"{number:04}"} for number in range(DEATHS)]})
    flags = b"\x20\x00" + len(header).to_bytes(4, "big") + header
    dead = message.Message(
        1, Route("", "q", short_string("") + short_string("q"), 1, 131_072), properties.read_properties(flags),
        message.pack_content(1, 131_072, flags, b"body"), 4)
    for number, most in enumerate(MOST_STEPS):
        before = COUNTER.steps
        copies = dead_letter.DeadCopies(dead_letter.DeadLetterRoute(f"q{number}", "expired", "", f"q{number + 1}"), 1)
        dead = copies.copy(dead, number)
        assert not dead_letter.cycling_queues(dead, [f"q{number + 1}"])
        assert COUNTER.steps - before < most * DEATHS
    deaths = fields.decode_table(dead.facts.headers)["x-death"]
    assert [death["queue"] for death in deaths[:4]] == ["q2", "q1", "q0", "0000"]
    assert len(deaths) == DEATHS + 3
