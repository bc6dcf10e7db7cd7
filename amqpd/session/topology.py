"""Exchanges, queues and bindings as one channel declares, binds and deletes them.

Remembers which queue this channel declared last. The vhost has the rules; here are only the details of the protocol:
passive and nowait, default names, and the answers.

Spec: exchange class, queue class; RabbitMQ docs/queues, docs/e2e.
"""

from __future__ import annotations

from typing import Any

from pamqp.commands import Exchange, Queue

from amqpd.broker.definitions import BindingDefinition, ExchangeDefinition, QueueDefinition
from amqpd.broker.queue.pager import MessageNotLoaded
from amqpd.broker.queue.purge import Purge
from amqpd.broker.vhost import REPLY_TO
from amqpd.errors import ChannelException, ReplyCode
from amqpd.session.channel_state import ChannelState
from amqpd.session.table import Handlers
from amqpd.wire.methods import pack_declare_ok


class Topology:
    """The declaring side of one channel."""

    def __init__(self, channel: ChannelState) -> None:
        self._channel = channel
        self._purge: Purge | None = None      # one in progress
        self._deleted: int | None = None      # messages of the deleted queue whose bindings are being removed

    def handlers(self) -> Handlers:
        """Return the methods that this part of a channel handles."""
        return {
            Exchange.Declare: self.on_exchange_declare,
            Exchange.Delete: self.on_exchange_delete,
            Exchange.Bind: self.on_exchange_bind,
            Exchange.Unbind: self.on_exchange_unbind,
            Queue.Declare: self.on_queue_declare,
            Queue.Delete: self.on_queue_delete,
            Queue.Bind: self.on_queue_bind,
            Queue.Unbind: self.on_queue_unbind,
            Queue.Purge: self.on_queue_purge,
        }

    # Exchanges

    def on_exchange_declare(self, method: Exchange.Declare) -> Exchange.DeclareOk | None:
        """Declare an exchange. Spec: exchange.declare."""
        vhost = self._channel.vhost
        name = without_line_breaks(method.exchange)
        if method.passive:
            vhost.find_exchange(self._channel.user, name)
        else:
            vhost.declare_exchange(self._channel.user, ExchangeDefinition(
                vhost.name, name, method.exchange_type, durable=method.durable, auto_delete=method.auto_delete,
                internal=method.internal, arguments=method.arguments))
        return None if method.nowait else Exchange.DeclareOk()

    def on_exchange_delete(self, method: Exchange.Delete) -> Exchange.DeleteOk | None:
        """Delete an exchange. Spec: exchange.delete."""
        name = without_line_breaks(method.exchange)
        self._channel.vhost.delete_exchange(self._channel.user, name, if_unused=method.if_unused)
        return None if method.nowait else Exchange.DeleteOk()

    def on_exchange_bind(self, method: Exchange.Bind) -> Exchange.BindOk | None:
        """Bind an exchange to an exchange. RabbitMQ docs/e2e."""
        self._bind("exchange", method.destination, method)
        return None if method.nowait else Exchange.BindOk()

    def on_exchange_unbind(self, method: Exchange.Unbind) -> Exchange.UnbindOk | None:
        """Unbind an exchange from an exchange. RabbitMQ docs/e2e."""
        self._unbind("exchange", method.destination, method)
        return None if method.nowait else Exchange.UnbindOk()

    # Queues

    def on_queue_declare(self, method: Queue.Declare) -> bytes | None:
        """Declare a queue; the answer counts ready messages and all consumers. Spec: queue.declare."""
        name = without_line_breaks(method.queue)
        if name.startswith(REPLY_TO):
            messages, consumers = 0, self._reply_consumers(name)
        else:
            channel = self._channel
            if method.passive:
                queue = channel.vhost.find_queue(channel.user, name, channel.owner)
            else:
                queue = channel.vhost.declare_queue(channel.user, QueueDefinition(
                    0, channel.vhost.name, name, durable=method.durable, exclusive=method.exclusive,
                    auto_delete=method.auto_delete, arguments=method.arguments), channel.owner)
            name = self._channel.last_queue = queue.name
            messages, consumers = len(queue.ready), len(queue.consumers)
        return None if method.nowait else pack_declare_ok(self._channel.number, name, messages, consumers)

    def _reply_consumers(self, name: str) -> int:
        """Return the number of consumers of a direct reply-to name. Raises ChannelException if there is none."""
        if name == REPLY_TO:
            return 1
        if name not in self._channel.vhost.reply_subscribers:
            raise ChannelException(
                ReplyCode.NOT_FOUND, f"no queue '{name}' in vhost '{self._channel.vhost.name}'")
        return 1

    def on_queue_delete(self, method: Queue.Delete) -> Queue.DeleteOk | None:
        """Delete a queue; the answer counts ready messages. Raises MessageNotLoaded until then. Spec: queue.delete."""
        channel = self._channel
        name = without_line_breaks(self._channel.queue_name(method.queue))
        count = self._deleted
        if count is None:
            count = channel.vhost.delete_queue(
                channel.user, name, channel.owner, if_unused=method.if_unused, if_empty=method.if_empty)
        leaving = channel.vhost.leaving.queues.get(name)
        self._deleted = None if leaving is None else count
        if leaving is not None:
            raise MessageNotLoaded(channel.vhost.leaving.call_after(leaving))
        return None if method.nowait else Queue.DeleteOk(count)

    def on_queue_purge(self, method: Queue.Purge) -> Queue.PurgeOk | None:
        """Purge a queue, and answer when it is done. Spec: queue.purge.

        Raises MessageNotLoaded until then; the method must be carried out again.
        """
        channel = self._channel
        purge = self._purge or channel.vhost.purge_queue(
            channel.user, self._channel.queue_name(method.queue), channel.owner)
        self._purge = None if purge.is_done else purge
        if not purge.is_done:
            raise MessageNotLoaded(purge.call)
        channel.vhost.changes.note(purge.batch)
        return None if method.nowait else Queue.PurgeOk(purge.count)

    def on_queue_bind(self, method: Queue.Bind) -> Queue.BindOk | None:
        """Bind a queue; without queue and key, the key is the name of the queue declared last. Spec: queue.bind."""
        self._bind("queue", self._channel.queue_name(method.queue), method, default_key=not method.queue)
        return None if method.nowait else Queue.BindOk()

    def on_queue_unbind(self, method: Queue.Unbind) -> Queue.UnbindOk:
        """Unbind a queue. Spec: queue.unbind."""
        self._unbind("queue", self._channel.queue_name(method.queue), method, default_key=not method.queue)
        return Queue.UnbindOk()

    # Bindings

    def _bind(self, kind: Any, destination: str, method: Any, *, default_key: bool = False) -> None:
        self._channel.vhost.bind(
            self._channel.user, self._binding(kind, destination, method, default_key), self._channel.owner)

    def _unbind(self, kind: Any, destination: str, method: Any, *, default_key: bool = False) -> None:
        self._channel.vhost.unbind(
            self._channel.user, self._binding(kind, destination, method, default_key), self._channel.owner)

    def _binding(self, kind: Any, destination: str, method: Any, default_key: bool) -> BindingDefinition:
        source = without_line_breaks(method.exchange if kind == "queue" else method.source)
        destination = without_line_breaks(destination)
        key = destination if default_key and not method.routing_key else method.routing_key
        return BindingDefinition(self._channel.vhost.name, source, kind, destination, key, method.arguments)


def without_line_breaks(name: str) -> str:
    """Return a name as RabbitMQ keeps it: without carriage returns and line feeds."""
    return name.replace("\r", "").replace("\n", "")
