"""Return mandatory messages that reached no queue to the client. Spec: basic.return."""

from __future__ import annotations

from collections.abc import Iterable

from amqpd.message import Message
from amqpd.session.channel_state import ChannelState
from amqpd.wire.writer import pack_return, refit_content


def send_returns(channel: ChannelState, messages: Iterable[Message]) -> None:
    """Return these messages to the client of this channel."""
    for message in messages:
        channel.outbox.write(pack_return(channel.number, message.route))
        channel.outbox.write(refit_content(message, channel.number, channel.frame_max))
