"""The policies of a vhost, and the exchanges and queues that follow them: they are updated one by one, in slices.

An object that is declared meanwhile has the new policies at once. If policies change again before all objects are
updated, the update starts again. An error in one queue does not stop the update of the others; it is logged,
and whoever set the policy is not told of it, as on RabbitMQ (rabbit_policy, update_matched_objects).

RabbitMQ docs/policies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from amqpd.broker.changes import Changes
from amqpd.broker.definitions import Defined, Deleted, PolicyDefinition, QueueDefinition
from amqpd.broker.exchange import Exchange
from amqpd.broker.policy import NoSuchPolicy, Policies, check_policy
from amqpd.broker.queue.queue import Queue
from amqpd.broker.routing import Routing
from amqpd.broker.rules import QueueRules, queue_rules
from amqpd.broker.step_job import Act, StepJob
from amqpd.broker.worklist import Waiters, Worklist
from amqpd.patterns import Pattern

LOOK_STEPS = 9          # the cost of finding the rules of a queue or an exchange, besides a step for each policy


class PolicyFollowers:
    """The policies of one vhost, and their application. `name` is the vhost's."""

    def __init__(
        self, name: str, exchanges: Mapping[str, Exchange], queues: Mapping[str, Queue], routing: Routing,
        changes: Changes, worklist: Worklist,
    ) -> None:
        self.policies = Policies()
        self._name = name
        self._exchanges = exchanges
        self._queues = queues
        self._routing = routing
        self._changes = changes
        self._worklist = worklist
        self._job: StepJob | None = None
        self._waiters = Waiters(worklist)
        self.call = self._waiters.call      # calls back when all objects are updated

    # Policies

    def set_policy(self, policy: PolicyDefinition) -> None:
        """Set a policy or operator policy, in place of one of this name, and update queues and exchanges.

        Raises InvalidPolicy.
        """
        check_policy(policy)
        with self._changes:
            self.policies.set(policy)
            self._changes.record(Defined(policy))
        self._changes.tell("policy.set", policy)
        self._follow()

    def clear_policy(self, name: str, *, is_operator: bool = False) -> None:
        """Delete a policy or operator policy, and update queues and exchanges. Raises NoSuchPolicy."""
        with self._changes:
            policy = self.policies.clear(name, is_operator=is_operator)
            if policy is not None:
                self._changes.record(Deleted(policy))
        if policy is None:
            raise NoSuchPolicy(name, self._name)
        self._changes.tell("operator.policy.cleared" if is_operator else "policy.cleared", policy)
        self._follow()

    def restore(self, policy: PolicyDefinition) -> None:
        """Set a stored policy, at start."""
        self.policies.set(policy)
        self._follow()
        self.finish()

    def rules_of(self, queue: QueueDefinition) -> QueueRules:
        """Return the rules of a queue, by its arguments and the policies that match it."""
        return queue_rules(queue.arguments, *self.policies.of_queue(queue).definitions)

    def apply_to_exchange(self, exchange: Exchange) -> None:
        """Apply the current policies to an exchange."""
        exchange.apply(self.policies.of_exchange(exchange.name).effective)
        self._routing.version += 1

    def apply_to_queue(self, queue: Queue) -> None:
        """Apply the current policies to a queue."""
        if queue.deleted:
            return
        rules = self.rules_of(queue.definition)
        if rules != queue.rules:
            waiting = len(queue.ready)
            queue.apply(rules)
            self._worklist.effort.total += waiting - len(queue.ready)    # messages that were over the new limit

    # Updating

    @property
    def has_work(self) -> bool:
        """Whether some objects are not updated yet."""
        return self._job is not None and self._job.has_work

    def finish(self) -> None:
        """Update all objects now, however long that takes: there are no clients yet."""
        while self._job is not None and self._job.has_work:
            self._job.work()

    def _follow(self) -> None:
        """Update all objects: a slice of them at once, and the others from the worklist."""
        if self._job is not None:
            self._job.end()
        self._job = StepJob(self._acts(), self._worklist, begins_at_once=True)

    def _acts(self) -> Iterator[Act]:
        changed = self.policies.changed_patterns()
        followers: list[Queue | Exchange] = [*self._queues.values(), *self._exchanges.values()]
        while followers:
            yield 1 + len(changed or ()), partial(self._update, followers.pop(), changed)
        yield 0, self._all_updated

    def _update(self, follower: Queue | Exchange, changed: list[Pattern] | None) -> None:
        """Apply the policies to a queue or an exchange if a changed pattern matches it, or if `changed` is None."""
        if changed is not None and not any(pattern.matches(follower.name) for pattern in changed):
            return
        self._worklist.effort.total += LOOK_STEPS + self.policies.count
        if isinstance(follower, Queue):
            self.apply_to_queue(follower)
        else:
            self.apply_to_exchange(follower)

    def _all_updated(self) -> None:
        self.policies.forget_changes()
        self._waiters.release()
