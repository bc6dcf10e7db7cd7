"""What channels and exchanges count of publishes."""

from __future__ import annotations

import pytest

from amqpd.broker.counts import ChannelCounts, ExchangeCounts


@pytest.mark.parametrize(("queues", "copies"), [(0, 0), (1, 3), (2, 6), (5, 15)])
def test_copies_in_queues_are_counted_for_channel_and_exchange(queues: int, copies: int) -> None:
    channel, exchange = ChannelCounts(), ExchangeCounts()
    channel.add_published(exchange, 3, queues, mandatory=False)
    assert exchange.values() == (3, copies)
    assert channel.published_values() == (3, 0, 0, 0 if queues else 3, 0, copies)
