"""Commands that explain: where a message would go, and why queues stand still."""

from __future__ import annotations

from typing import Any

from amqpd.broker.broker import Broker
from amqpd.errors import AmqpException
from amqpd.exit_codes import EXIT_DATA
from amqpd.fields import FieldError
from amqpd.management.explaining.route import MOST_STEPS, ExplainedRoute, RouteExplanation
from amqpd.management.explaining.survey import StandstillSurvey, Survey
from amqpd.management.node_commands import Alarms
from amqpd.management.refusal import Refusal, queue_of, user_of, vhost_of

WATCHED_S, MOST_WATCHED_S = 1.0, 30


class ExplainCommands:
    """The explanations of one broker."""

    def __init__(self, broker: Broker, alarms: Alarms | None = None) -> None:
        self._broker = broker
        self._alarms = alarms

    async def explain_route(
        self, vhost: str, exchange: str, routing_key: str, headers: dict[str, Any] | None = None,
        user: str | None = None, most_steps: int = MOST_STEPS,
    ) -> ExplainedRoute:
        """Return where a message with these headers would go if this user published it.

        Without a user, no rights are checked.
        """
        home = vhost_of(self._broker, vhost)
        publisher = None if user is None else user_of(self._broker, user)
        if not 1 <= most_steps <= MOST_STEPS:
            raise Refusal(f"the number of steps has to be from 1 to {MOST_STEPS}", EXIT_DATA)
        try:
            return await RouteExplanation(home, most_steps).explain(exchange, routing_key, headers or {}, publisher)
        except (FieldError, ValueError) as error:
            raise Refusal(f"this cannot be published: {error}", EXIT_DATA) from None
        except AmqpException as error:
            raise Refusal(f"this cannot be published: {error.reply_text}", EXIT_DATA) from None

    async def explain_queues(
        self, vhost: str, queue: str | None = None, watched_s: float = WATCHED_S, is_all: bool = False
    ) -> Survey:
        """Return why queues stand still: this one, or those of the vhost that have messages; `is_all` of all queues.

        They are watched for so many seconds, to see which of them move.
        """
        home = vhost_of(self._broker, vhost)
        if queue is not None:
            queue_of(self._broker, vhost, queue)
        if not 0 <= watched_s <= MOST_WATCHED_S:
            raise Refusal(f"queues are watched for 0 to {MOST_WATCHED_S} s", EXIT_DATA)
        survey = StandstillSurvey(self._broker, home, self._alarm(), watched_s)
        return await survey.look(None if queue is None else [queue], is_all=is_all or queue is not None)

    def _alarm(self) -> str:
        raised = self._alarms.statistics()["alarms"] if self._alarms is not None else []
        return " & ".join([f"low on {alarm['resource']}" for alarm in raised])
