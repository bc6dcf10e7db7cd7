"""Why no test need notice some mutants: what they change cannot be observed, or not by what the broker promises."""

from __future__ import annotations

from tests.mutation.mutants import Mutant

# By file and function, then by the statement after the change.
REASONS: dict[tuple[str, str], dict[str, str]] = {
    ("amqpd/session/direct_replies.py", "DirectReplies.begin"): {
        "pass": "an address is made by chance: nobody can have published to it before, and no cache knows it"},
    ("amqpd/broker/queue/delivery.py", "Delivery.sole_taker"): {
        "size = body_octets(run) - DELIVERY_OVERHEAD * len(run)": "the overhead of a delivery is an estimate"},
    ("amqpd/session/closing.py", "Closing.end"): {"pass": "a line in the log"},
    ("amqpd/session/consumer_timeouts.py", "OverdueChannels.__init__"): {
        "self._now_ms = 1": "it is set before it is read"},
    ("amqpd/store/sqlite/shrinking.py", "shrink"): {
        "if not spare > limits.shrink_pages:":
            "tests/store/test_store_space.py notices, and takes too long for the table"},
    ("amqpd/store/sqlite/wal.py", "WriteAheadLog.is_due"): {
        "pass": "whether a small batch goes before a long checkpoint, which only takes time"},
    ("amqpd/session/outbox.py", "Outbox.clear"): {"pass": "the session goes, and with it what it had to say"},
    ("amqpd/session/outbox.py", "Outbox.has_unread_answers"): {
        "return min(pending, self._answered - self._read) >= most": "the bound is known to 64 KiB only"},
    ("amqpd/broker/queue/records.py", "QueueRecords.batch_of"): {
        "return self._journal.batch if self.kept(run) else 1":
            "to wait for batch 1 is to wait for nothing, once anything was committed"},
    ("amqpd/store/sqlite/copying.py", "copy_pages"): {
        "connection.backup(copy, pages=pages, progress=between and (lambda _, left, total: between(left, total)))":
            "SQLite waits only where another process locks the file"},
    ("amqpd/broker/queue/queue.py", "Queue._take_in"): {
        "taker = self.delivery.sole_taker(run) if not ready or not self.jobs.has_work else None":
            "while messages are ready no consumer has credit, as every change ends in dispatch"},
    ("amqpd/broker/exchange_types/topic.py", "TopicExchange._search_below_any"): {
        "looks += 2": "an estimate of effort"},
    ("amqpd/session/consuming.py", "Consuming.give_back_all"): {
        "yield (GO_BACK_STEPS - min(len(run), PIECE), partial(_go_back, queue, run))": "an estimate of effort"},
    ("amqpd/wire/publish_runs.py", "PublishRuns.clear"): {"pass": "a cache of what clients repeat"},
    ("amqpd/broker/routing.py", "Routing.__init__"): {"self._gone = 1": "only when a cache is tidied"},
}


def reason_of(path: str, mutant: Mutant) -> str:
    """Return the reason, if there is one."""
    return REASONS.get((path, mutant.function), {}).get(mutant.after, "")
