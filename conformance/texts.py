"""Complete reply texts of RabbitMQ that name a queue or an exchange, for one vhost."""
from __future__ import annotations

NO_PREVIOUS_QUEUE = "NOT_FOUND - no previously declared queue"
ON_DEFAULT_EXCHANGE = "ACCESS_REFUSED - operation not permitted on the default exchange"
LOCKED = ("RESOURCE_LOCKED - cannot obtain exclusive access to locked {queue}. It could be originally declared on "
          "another connection or the exclusive property value does not match that of the original declaration.")
LONGEST = 255


def cut(text: str) -> str:
    """A text as it fits into a shortstr; texts with characters beyond ASCII must be short."""
    return text if len(text) <= LONGEST else text[:LONGEST - 3] + "..."


class Texts:
    """Texts about the queues and exchanges of a vhost, by their names."""

    def __init__(self, vhost: str) -> None:
        self._vhost = vhost

    def queue(self, name: str) -> str:
        """How a queue is written in all texts."""
        return f"queue '{name}' in vhost '{self._vhost}'"

    def exchange(self, name: str) -> str:
        """How an exchange is written in all texts."""
        return f"exchange '{name}' in vhost '{self._vhost}'"

    def no_queue(self, name: str) -> str:
        """404: it does not exist."""
        return f"NOT_FOUND - no {self.queue(name)}"

    def no_exchange(self, name: str) -> str:
        """404: it does not exist."""
        return f"NOT_FOUND - no {self.exchange(name)}"

    def internal(self, exchange: str) -> str:
        """403: clients cannot publish to it."""
        return f"ACCESS_REFUSED - cannot publish to internal {self.exchange(exchange)}"

    def in_exclusive_use(self, queue: str) -> str:
        """403: one of the consumers is exclusive, or would be."""
        return f"ACCESS_REFUSED - {self.queue(queue)} in exclusive use"

    def locked(self, queue: str) -> str:
        """405: it belongs to another connection, or was declared with another exclusive flag."""
        return cut(LOCKED.format(queue=self.queue(queue)))

    def in_use(self, queue: str) -> str:
        """406: it has consumers."""
        return cut(f"PRECONDITION_FAILED - {self.queue(queue)} in use")

    def not_empty(self, queue: str) -> str:
        """406: it has ready messages."""
        return cut(f"PRECONDITION_FAILED - {self.queue(queue)} not empty")

    def inequivalent(self, name: str, queue: str, difference: str) -> str:
        """406: it was declared otherwise; the difference is `received … but current is …`."""
        return cut(f"PRECONDITION_FAILED - inequivalent arg '{name}' for {self.queue(queue)}: {difference}")

    def invalid_argument(self, name: str, queue: str, detail: str) -> str:
        """406: no queue may have this argument with this value."""
        return cut(f"PRECONDITION_FAILED - invalid arg '{name}' for {self.queue(queue)}: {detail}")

    def foreign_argument(self, name: str, queue: str, type: str) -> str:
        """406: an argument of other types of queue."""
        return cut(f"PRECONDITION_FAILED - invalid arg '{name}' for {self.queue(queue)} "
                   f"of queue type rabbit_{type}_queue")

    def invalid_exchange_argument(self, name: str, queue: str, type: str) -> str:
        """406: the name of an exchange that is not a string."""
        return cut(f"PRECONDITION_FAILED - invalid type '{type}' for arg '{name}' in {self.queue(queue)}")

    def invalid_property(self, name: str, queue: str) -> str:
        """406: a flag that this type of queue cannot have."""
        return cut(f"PRECONDITION_FAILED - invalid property '{name}' for {self.queue(queue)}")
