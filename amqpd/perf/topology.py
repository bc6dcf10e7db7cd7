"""The queues and the exchange of a run: what is missing is declared before the run and deleted after it.

What exists already is used and never deleted.
"""

from __future__ import annotations

import msgspec
from pamqp.commands import Exchange, Queue

from amqpd.exit_codes import EXIT_USAGE
from amqpd.perf.client import Client, Ended, Refused, method_of
from amqpd.perf.failure import RunFailure
from amqpd.perf.plan import Plan


class Topology(msgspec.Struct):
    """What a run needs on the broker. `exchange_type` is "" if the exchange must exist.

    `made_queues` and `made_exchanges` are the names of what the run has declared and has to delete.
    """

    plan: Plan
    exchange_type: str
    binding_key: str | None
    is_predeclared: bool
    made_queues: list[str] = []
    made_exchanges: list[str] = []

    @property
    def copies(self) -> int | None:
        """How many queues each message goes to; None if that is not known."""
        plan = self.plan
        if len(self.made_queues) < len(plan.queues):
            return None
        if not plan.exchange:
            return 1
        return len(plan.queues) if self.made_exchanges and self.exchange_type == "fanout" else None

    def declare(self, client: Client) -> None:
        """Make what is missing, bind the queues to the exchange, or check that all is there. Raises RunFailure."""
        plan, exchange = self.plan, self.plan.exchange
        try:
            for queue in plan.queues if not plan.is_churn else ():
                self._declare_queue(client, queue)
            if not exchange:
                return
            self._declare_exchange(client, exchange)
            is_new = bool(self.made_exchanges)
            for queue in plan.queues if is_new else self.made_queues:     # no binding is made that nothing deletes
                key = queue if self.binding_key is None else self.binding_key
                client.call(method_of(Queue.Bind, queue=queue, exchange=exchange, routing_key=key), Queue.BindOk)
        except Refused as refused:
            raise refused.failure(plan.address) from None

    def delete(self, client: Client) -> list[str]:
        """Delete what the run made; return the names of what could not be deleted."""
        left = [*self.made_queues, *self.made_exchanges]
        try:
            for queue in self.made_queues:
                client.call(method_of(Queue.Delete, queue=queue), Queue.DeleteOk)
                left.remove(queue)
            for exchange in self.made_exchanges:
                client.call(method_of(Exchange.Delete, exchange=exchange), Exchange.DeleteOk)
                left.remove(exchange)
        except (Refused, Ended, RunFailure):
            pass        # the caller tells what is left
        return left

    def _declare_queue(self, client: Client, queue: str) -> None:
        plan = self.plan
        if plan.run_id not in queue and client.queue_exists(queue):       # a new name needs no look
            return
        if self.is_predeclared:
            raise RunFailure(
                f"{plan.address.place} has no queue '{queue}' in vhost '{plan.address.vhost}'; declare it, or leave "
                "out --predeclared", EXIT_USAGE)
        client.call(method_of(
            Queue.Declare, queue=queue, durable=plan.is_durable, arguments=plan.queue_arguments), Queue.DeclareOk)
        self.made_queues.append(queue)

    def _declare_exchange(self, client: Client, exchange: str) -> None:
        plan = self.plan
        if plan.run_id not in exchange and client.exchange_exists(exchange):
            return
        if self.is_predeclared or not self.exchange_type:
            raise RunFailure(
                f"{plan.address.place} has no exchange '{exchange}' in vhost '{plan.address.vhost}'; declare it, or "
                "let --type TYPE declare it for the run", EXIT_USAGE)
        client.call(method_of(
            Exchange.Declare, exchange=exchange, exchange_type=self.exchange_type, durable=plan.is_durable,
        ), Exchange.DeclareOk)
        self.made_exchanges.append(exchange)
