"""Direct replies: a client that consumes from `amq.rabbitmq.reply-to` gets answers to its requests without a queue.

Owns the reply consumer of one channel and its address, which is used in requests.

RabbitMQ docs/direct-reply-to.
"""

from __future__ import annotations

from amqpd.errors import ChannelException, ReplyCode
from amqpd.message import Message, pack_short_string
from amqpd.session.channel_state import ChannelState
from amqpd.session.delivering import DeliveryWriter
from amqpd.session.reply_address import new_reply_address
from amqpd.session.unacked import UnackedDeliveries
from amqpd.wire.writer import delivery_head, pack_tag


class DirectReplies:
    """The reply consumer of one channel: `tag` is None without one. `dropped` counts replies that were not read."""

    def __init__(self, channel: ChannelState, unacked: UnackedDeliveries, writer: DeliveryWriter) -> None:
        self.tag: str | None = None
        self.dropped = 0
        self._address = ""
        self._channel = channel
        self._unacked = unacked
        self._writer = writer

    @property
    def address(self) -> str:
        """What replaces `amq.rabbitmq.reply-to` in a request, while there is a reply consumer."""
        return self._address

    def check_consumer(self) -> None:
        """Check that there is a reply consumer. Raises ChannelException: PRECONDITION_FAILED."""
        if self.tag is None:
            raise ChannelException(ReplyCode.PRECONDITION_FAILED, "fast reply consumer does not exist")

    def check_no_consumer(self) -> None:
        """Check that there is no reply consumer. Raises ChannelException: PRECONDITION_FAILED."""
        if self.tag is not None:
            raise ChannelException(ReplyCode.PRECONDITION_FAILED, "reply consumer already set")

    def begin(self, tag: str, *, no_ack: bool) -> None:
        """Start the reply consumer. Raises ChannelException if it does not use no-ack."""
        if not no_ack:
            raise ChannelException(ReplyCode.PRECONDITION_FAILED, "reply consumer cannot acknowledge")
        channel = self._channel
        self.tag = tag
        self._address = new_reply_address(channel.owner.number, channel.number)
        channel.vhost.reply_subscribers[self._address] = self
        channel.vhost.routing.version += 1

    def end(self) -> None:
        """Stop the reply consumer, if there is one."""
        if self.tag is not None:
            vhost = self._channel.vhost
            del vhost.reply_subscribers[self._address]
            vhost.routing.version += 1
            self.tag = None

    def deliver_reply(self, message: Message) -> None:
        """Send a direct reply; see broker/ports.py."""
        assert self.tag is not None
        channel = self._channel
        if channel.is_ending:
            return
        if not channel.owner.takes_replies:
            self._drop()
            return
        head = delivery_head(channel.number, channel.frame_max, pack_short_string(self.tag), message.route)
        pieces = (head.front, pack_tag(self._unacked.next_tag), head.back, *self._writer.content(message))
        channel.outbox.extend(pieces, sum(map(len, pieces)))

    def _drop(self) -> None:
        """Drop a reply to a client that does not read, so that it does not fill the broker's memory."""
        if not self.dropped:
            channel = self._channel
            channel.owner.log_channel(
                channel.number, "direct replies are dropped: the client does not read its input")
        self.dropped += 1
