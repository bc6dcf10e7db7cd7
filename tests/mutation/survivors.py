"""Why no test need notice some mutants: what they change cannot be observed, or not by what the broker promises."""

from __future__ import annotations

from tests.mutation.mutants import Mutant

# By file and function, then by the statement after the change, or by the deleted one after a hyphen.
REASONS: dict[tuple[str, str], dict[str, str]] = {
    ("amqpd/session/direct_replies.py", "DirectReplies.begin"): {
        "pass": "an address is made by chance: nobody can have published to it before, and no cache knows it"},
    ("amqpd/session/consumer_timeouts.py", "OverdueChannels.__init__"): {
        "self._now_ms = 1": "it is set before it is read", "pass": "it is set before it is read"},
    ("amqpd/store/sqlite/shrinking.py", "_spare_pages"): {
        "return free - max(kept, pages - free) if mode == _INCREMENTAL else 1":
            "a file that cannot shrink gives nothing back, whatever it is told"},
    ("amqpd/broker/queue/dead_letters.py", "_references_to"): {
        "total_bytes = 1": "how much is read at once, about",
        "numbers, total_bytes = ([], 1)": "how much is read at once, about"},
    ("amqpd/broker/queue/dispatcher.py", "Dispatcher.has_idle"): {"return None": "only an assertion asks"},
    ("amqpd/broker/queue/purge.py", "Purge.settle_in_pieces"): {
        "missing, done = (missing - done, 1)": "how long a slice is, about"},
    ("amqpd/session/unacked.py", "UnackedDeliveries.put_back"): {"count = 1": "how long a slice is, about"},
    ("amqpd/broker/queue/segment.py", "Segment.first_number"): {
        "if back and (not messages or back[0][0] <= messages[0].number):": "no number is there twice"},
    ("amqpd/broker/exchange.py", "DefaultExchange.routes"): {
        "yield {self._queues[key]: 2 for key in self._queues.keys() & routing_keys}": "only the keys are read"},
    ("amqpd/broker/routing.py", "Walk.__init__"): {
        "self._reached: dict[Destination, int] = {start: 2}": "only the keys are read",
        "- self._is_routed = False": "it is set before it is read",
        "self._is_routed = True": "it is set before it is read"},
    ("amqpd/broker/routing.py", "Walk._turn_to_alternate"): {
        "return self._reach({alternate: 2})": "only the keys are read"},
    ("amqpd/broker/dead_letter_router.py", "_Deaths.__init__"): {
        "self._time_s = 1": "it is set before it is read", "- self._time_s = 0": "it is set before it is read"},
    ("amqpd/session/channel_state.py", "ChannelState.__init__"): {
        "- self._is_answering = False": "it is set before it is read, with the first method"},
    ("amqpd/wire/contents.py", "Content.__init__"): {"- self.body_size = 0": "it is set before it is read"},
    ("amqpd/store/sqlite/errors.py", "from_sqlite"): {
        "code = getattr(error, 'sqlite_errorcode', 1) & _PRIMARY_CODE": "neither number has a text of its own"},
    ("amqpd/store/rows/waiting.py", "_in_order"): {
        "return None": "its caller asks only whether there is something",
        "stop = bisect_left(numbers, min(parts[1:4])[0], start + 1, end) if len(parts) > 1 else end":
            "in a heap the second least is the second or the third"},
    ("amqpd/store/tools/copies.py", "expect_sound"): {
        "found = list(islice(findings(connection, progress), _TOLD + 2))": "as many are told"},
    ("amqpd/store/tools/stopped.py", "_connect"): {
        "return sqlite3.connect(f'{connecting.uri_of(path)}?{mode}', isolation_level=None, "
        "timeout=connecting.BUSY_WAIT_S)": "some builds of SQLite take URIs without being told, Debian's is one"},
    ("amqpd/store/sqlite/wal.py", "WriteAheadLog.is_due"): {
        "return size >= self._limits.largest_wal": "at which size there is a checkpoint, about",
        "pass": "whether a small batch goes before a long checkpoint, which only takes time"},
    ("amqpd/broker/queue/records.py", "QueueRecords.batch_of"): {
        "return self._journal.batch if self.kept(run) else 1":
            "to wait for batch 1 is to wait for nothing, once anything was committed"},
    ("amqpd/store/sqlite/copying.py", "copy_pages"): {
        "connection.backup(copy, pages=pages, progress=between and (lambda _, left, total: between(left, total)))":
            "SQLite waits only where another process locks the file"},
    ("amqpd/broker/queue/queue.py", "Queue._take_in"): {
        "taker = self.delivery.sole_taker(run) if not ready or not self.jobs.has_work else None":
            "while messages are ready no consumer has credit, as every change ends in dispatch"},
    ("amqpd/wire/publish_runs.py", "PublishRuns.clear"): {"pass": "a cache of what clients repeat"},
    ("amqpd/broker/exchange_types/headers.py", "HeadersExchange._opened"): {
        "yield (destinations if criteria < met else NOWHERE, _steps_to_hold(criteria))":
            "what is met of a header is its value and that it is there: more than any binding asks of it"},
    ("amqpd/broker/exchange_types/topic.py", "TopicExchange._search_below_any"): {
        "looks += 2": "an estimate of effort", "if len(children) >= len(marks):": "both ways take as long then",
        "yield (len(to_visit) - visited + NODES_A_PIECE + (tries >> 4) + (looks >> 2))": "an estimate of effort",
        "tries = looks = 1": "an estimate of effort"},
    ("amqpd/session/receiver.py", "_ids"): {
        "return (int.from_bytes(payload[:2], 'big'), int.from_bytes(payload[3:4], 'big'))":
            "no method has an id over 255"},
    ("amqpd/broker/queue/deadlines.py", "Deadlines._push"): {
        "if 4 * len(more) >= len(self._waiting):": "both ways lead to a heap"},
    ("amqpd/broker/queue/segment.py", "Segment.put_back"): {
        "if not messages or in_order[0].number >= messages[-1].number:": "no number is there twice"},
    ("amqpd/store/sqlite/rows.py", "_rows_of"): {"is_in_one = None": "the other way makes the same row"},
    ("amqpd/store/sqlite/body_parts.py", "PartReader.end_part"): {"pass": "a blob that nobody has is closed"},
    ("amqpd/store/sqlite/body_parts.py", "PartReader._open_next"): {
        "self._blob = self._connection.blobopen('body_parts', 'data', next(self._numbers), readonly=False)":
            "it is only read"},
    ("amqpd/broker/routing.py", "Routing.__init__"): {"self._gone = 1": "only when a cache is tidied"},
    ("amqpd/session/channel_contents.py", "ChannelContents.__init__"): {
        "self._unreported = 1": "after how many bytes a channel reports, about"},
    ("amqpd/broker/dead_letter_router.py", "DeadLetterRouter._targets"): {
        "- known[keys] = walk.queues":
            "a cache for the messages of one call: without it, each is routed for itself, to the same queues"},
    ("amqpd/session/channel.py", "Channel.check"): {"- self.publishing.confirms.check()": "only assertions are in it"},
    ("amqpd/broker/queue/priority_fifo.py", "PriorityFifo.page_out"): {
        "- break": "a level of which nothing is wanted pages nothing out"},
    ("amqpd/broker/queue/priority_fifo.py", "PriorityFifo._drop"): {
        "- self._levels.clear()": "it is empty, and only keeps some memory"},
    ("amqpd/broker/queue/priority_fifo.py", "PriorityFifo.take"): {
        "while self._levels and len(run) < limit and (room >= 0):": "a level gives nothing where there is no room"},
    ("amqpd/broker/queue/pages.py", "Page.let_go"): {
        "if spill_file is not None and self.count <= len(self._numbers):":
            "where none was removed there is none to forget"},
    ("amqpd/wire/reader.py", "Reader.direct_commands"): {
        "- del data": "while there is a view of it, a content that grows is copied, which only takes time"},
    ("amqpd/wire/reader.py", "Reader._commands"): {
        "kind = method = 1": "method 1 is none of those that are read in runs, so both ways go on to read a frame"},
    ("amqpd/store/pending_confirms.py", "_Unwritten.first_from"): {
        "bits = None": "the union of all queues is then made anew, not taken from a cache"},
    ("amqpd/store/pending_confirms.py", "_Unwritten.add"): {
        "if first <= self._base:": "to lower the base by 0 changes nothing"},
    ("amqpd/store/sqlite/reading.py", "fetch"): {
        "if numbers[-1] - numbers[0] == len(numbers) - 2:": "both statements find the same rows, one of them faster"},
    ("amqpd/store/rows/reading.py", "MessageReader.read_rows"): {"last_size = -2": "no body has either size"},
    ("amqpd/store/sqlite/store.py", "Store.__init__"): {
        "self.first_number = 1": "opening the store sets it, before anybody has the store"},
    ("amqpd/store/bits.py", "bits_of"): {
        "if numbers[-1] + numbers[0] == len(numbers) - 1:": "both ways make the same set, one of them faster"},
    ("amqpd/session/uncommitted.py", "Uncommitted.discard_publishes"): {
        "if not len(publishes) > PIECE:": "in what pieces memory is freed"},
    ("amqpd/session/answers.py", "Answers._reject"): {
        "batch = 1": "to wait for batch 1 is to wait for nothing, once anything was committed"},
    ("amqpd/session/publishing.py", "Publishing._place"): {
        "self._channel.owner.published_runs += 2": "the server asks only whether it has risen"},
    ("amqpd/broker/queue/delivery.py", "Delivery.__init__"): {"self.is_paused = True": "it is set before it is read"},
    ("amqpd/broker/queue/delivery.py", "Delivery.dispatch"): {
        "self._deal(takers, 2 if self._is_rewritten else rounds)": "how much is delivered in one step, about"},
    ("amqpd/broker/queue/segment.py", "Segment._take_pieces"): {
        "while not (messages and len(run) < limit):": "a fast path: without it, each message is taken by itself"},
    ("amqpd/broker/queue/expiry.py", "Expiry.expiries_of"): {
        "if ttl is not None and ttl <= own:": "both are the same number then"},
    ("amqpd/broker/queue/deadlines.py", "Deadlines._drop"): {
        "if len(self._waiting) <= min(self._fewest_entries, 2 * len(ends)):":
            "when a heap is replaced, which only takes time"},
    ("amqpd/broker/routing.py", "Routing.remember"): {
        "if self._known_size + walk.size >= self.most_known:": "how much is cached, about"},
    ("amqpd/broker/routing.py", "Walk.let_go"): {
        "- self._reached = {}": "it is not read any more, and only keeps some memory"},
    ("amqpd/broker/unacked_contents.py", "UnackedContents._release_in_pieces"): {
        "- self._worklist.effort.total += CHANNEL_STEPS": "an estimate of effort"},
    ("amqpd/session/channel_confirms.py", "ChannelConfirms.write_confirms"): {
        "if self._ready >= self._confirmed:": "nothing is left to be confirmed or refused then"},
    ("amqpd/wire/publish_runs.py", "PublishRuns.cut"): {"misses += 2": "when a cache is given up, about"},
    ("amqpd/wire/writer.py", "content_pieces"): {
        "if len(content) < SHARED or (frames - message.body_size // frame_max) * LEAST_PIECE > message.body_size:":
            "whether receivers share the memory of a body; the frames are the same"},
    ("amqpd/store/sqlite/schema.py", "create"): {
        "with closing(sqlite3.connect(making)) as connection:":
            "Python begins no transaction where one was begun by hand"},
    ("amqpd/store/rows/waiting.py", "WaitingMessages.add_block"): {
        "if waiting.bit_count() <= len(found):": "all of them are chosen then, one by one"},
}

# Functions that only make what a module has from its import on, before there is a mutant.
AT_IMPORT = {
    ("amqpd/wire/methods.py", "_layout"),
    *[("amqpd/store/sqlite/views.py", name) for name in ("_after_ascii", "_number")],
    *[("amqpd/broker/policy.py", name) for name in ("_number", "_text", "_one_of")]}
# By the statement alone, wherever it stands.
ANYWHERE: dict[str, str] = dict.fromkeys(
    [f"{owner}.version += 2" for owner in ("self._routing", "vhost.routing", "channel.vhost.routing")],
    "any other number tells that something has changed")


def reason_of(path: str, mutant: Mutant) -> str:
    """Return the reason, if there is one."""
    if (path, mutant.function) in AT_IMPORT:
        return "it is called when the module is imported, before there is a mutant"
    reasons = ANYWHERE | REASONS.get((path, mutant.function), {})
    deleted = f"- {mutant.before}" if mutant.after == "pass" else mutant.after
    return reasons.get(mutant.after) or reasons.get(deleted, "")
