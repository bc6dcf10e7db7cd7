"""The capabilities that a broker may have, by name, and what each name means.

A test names what it needs: `@pytest.mark.needs("message-ttl")`. A broker has the capabilities that its file in
`brokers/` lists, those that it announces in connection.start, and those that the command line adds. If brokers behave
differently with the same extension, each behaviour has a name of its own, so that no test depends on a product.
"""
from __future__ import annotations

# Of AMQP 0-9-1 itself: every broker has these unless its file takes them away.
STANDARD = {
    "transactions": "The class tx (§15).",
}

# RabbitMQ's extensions that a broker announces in `capabilities` of its server properties, by their names there.
ANNOUNCED = {
    "publisher_confirms": "confirm.select, and an ack or nack for each publish after it (§14).",
    "exchange_exchange_bindings": "exchange.bind and exchange.unbind (§8, §12).",
    "basic.nack": "basic.nack: one or several deliveries are dropped or requeued (§18).",
    "consumer_cancel_notify": "The broker cancels a consumer whose queue is deleted, and tells the client (§17).",
    "connection.blocked": "A publisher is told that an alarm blocks it, and that it ends (§27).",
    "consumer_priorities": "x-priority of consumers (§17).",
    "per_consumer_qos": "basic.qos limits each consumer, and with `global` the channel (§17).",
    "direct_reply_to": "Replies without a queue, through amq.rabbitmq.reply-to (§25).",
}

# RabbitMQ's extensions that nobody announces.
EXTENSIONS = {
    "reply-texts": "Reply texts are RabbitMQ's, word for word; without it only codes and methods are compared (§6).",
    "rabbitmq-choices": "Where AMQP 0-9-1 leaves a choice, or RabbitMQ decides otherwise, the broker does as RabbitMQ "
                        "does. Without it, a test that fails there is counted as `differs`, and fails no run (§37).",
    "argument-checks": "queue.declare knows RabbitMQ's arguments, and refuses their wrong values with 406 (§11).",
    "alternate-exchange": "An exchange has another one for what it cannot route (§12).",
    "cc-and-bcc": "The headers CC and BCC hold further routing keys (§12).",
    "message-ttl": "x-message-ttl and the property expiration (§19).",
    "queue-expiry": "x-expires: an unused queue is deleted (§19).",
    "length-limits": "x-max-length, x-max-length-bytes and x-overflow (§20).",
    "dead-letters": "x-dead-letter-exchange and the headers of a dead letter (§21).",
    "message-priorities": "x-max-priority (§22).",
    "quorum-queues": "x-queue-type quorum, with x-delivery-limit and x-delivery-count (§23).",
    "single-active-consumer": "x-single-active-consumer (§17).",
    "validated-user-id": "The property user-id must be the publisher's (§26).",
    "update-secret": "connection.update-secret (§27).",
    "firehose": "Copies of what is published and delivered, at amq.rabbitmq.trace, after trace_on (§32).",
    "streams": "x-queue-type stream (§11).",
}

# What brokers with these extensions do in different ways.
WAYS = {
    "bcc-kept-for-dead-letters": "A dead letter is routed by the keys of BCC too, although the header is gone.",
    "blocked-clients-time-out": "A blocked client that falls silent is dropped after two heartbeat intervals.",
    "commands-wait-for-commit": "What is sent while a transaction commits is done after it.",
    "no-commands-during-commit": "What is sent while a transaction commits ends the connection with 504.",
    "consumer-timeout-argument": "x-consumer-timeout of a queue is an integer from 0; another value is refused.",
    "consumer-timeout-argument-unknown": "x-consumer-timeout of a queue is taken and means nothing.",
    "death-counts-stay": "The count in x-death stays at the highest number; otherwise it turns negative.",
    "delivered-replies-return": "A mandatory direct reply is delivered and comes back as well (§37).",
    "delivered-replies-stay": "A mandatory direct reply that was delivered does not come back.",
    "delivery-limit-checked": "x-delivery-limit of another type than an integer is refused.",
    "delivery-limit-on-classic": "x-delivery-limit and x-delivery-count on classic queues too.",
    "delivery-limit-on-quorum-only": "x-delivery-limit on a classic queue is refused.",
    "empty-publishes-block": "An alarm blocks at the publish, also at one without a body.",
    "expiry-at-the-head": "A message expires at the head of its queue: behind one that lives longer it waits.",
    "expiry-in-time": "Every message expires at its own time, wherever it is in the queue.",
    "first-delivery-counts-0": "A quorum queue's first delivery has x-delivery-count 0.",
    "first-delivery-without-count": "A first delivery has no x-delivery-count.",
    "http-4": "The management API has the keys and routes of RabbitMQ 4 too (§36).",
    "http-needs-content-type": "A change over the management API with another Content-Type than JSON is refused.",
    "http-own-answers": "Answers of the management API differ, as http/differences.py tells.",
    "http-json-only": "The management API answers JSON to clients that would rather have application/bert.",
    "http-crashes": "The management API answers 500 to some wrong requests; otherwise it refuses them.",
    "last-death": "x-last-death-queue, -reason and -exchange are in a dead letter.",
    "no-last-death": "x-last-death-… are not in a dead letter: they came with RabbitMQ 3.13.",
    "names-are-utf-8": "A name or key that is not UTF-8 ends the connection.",
    "names-of-any-octets": "Names may hold lone surrogates, and keys any octets.",
    "no-get-beside-single-active": "basic.get on a quorum queue with a single active consumer is refused with 405.",
    "no-streams": "x-queue-type stream is refused with 406.",
    "policy-keys-by-queue-type": "A policy with a key for other types of queues does not hold at all.",
    "passive-needs-any-right": "A passive declare needs any right on the name, before it is looked for (§29; RabbitMQ "
                               "4.3.1).",
    "passive-needs-no-right": "A passive declare needs no right (§29; RabbitMQ before 4.3.1).",
    "pseudo-queue-not-found": "Binding the pseudo-queue of direct reply-to is answered with 404; RabbitMQ 4 says 403.",
    "quick-patterns": "A topic pattern with many `#` is matched quickly; otherwise its channel stalls.",
    "quorum-appends-requeued": "A quorum queue without a delivery limit puts requeued messages at its end.",
    "quorum-keeps-transient": "A quorum queue keeps transient messages over a restart.",
    "quorum-limits-exact": "A quorum queue with reject-publish refuses at its limit, and takes what there is room for.",
    "quorum-limits-late": "A quorum queue with reject-publish takes one more than its limit, then none before a fifth "
                          "of it is free.",
    "quorum-without-global-prefetch": "A channel with a global prefetch cannot consume from a quorum queue.",
    "revoked-consumers-are-closed": "A consumer whose user may not read any more loses its channel (403).",
    "revoked-publishers-are-refused": "A publish is refused as soon as its user may not write any more; other brokers "
                                      "may remember for a while that it might.",
    "single-active-hands-over-at-once": "Waiting messages go to the next single active consumer at once.",
    "size-refused-at-header": "A message over the largest size is refused at its header, before its body comes.",
    "tx-partial-commit": "What a refused transaction had accepted before the refusal stays.",
    "x-death-newest-first": "The entries of x-death are in the order of the deaths, the newest first.",
    "x-death-turned-round": "Of three entries of x-death the newest is first, and the others are turned round.",
    "x-death-of-anything": "A client's x-death of any types does no harm; otherwise the queue crashes.",
}

# What the command line makes possible, and the option that does.
BY_OPTION = {
    "restart": "--restart",
    "ctl": "--ctl",
    "consumer-timeout": "--consumer-timeout",
    "http": "--http",
    "programs": "--programs",
}

MEANINGS = STANDARD | ANNOUNCED | EXTENSIONS | WAYS | {
    "restart": "The broker can be restarted cleanly, on the same data and port (§28).",
    "ctl": "The broker takes rabbitmqctl's words: users, permissions, policies, limits (§27, §29, §30, §31).",
    "consumer-timeout": "The broker was started with this consumer timeout, some seconds (§17).",
    "http": "The broker serves the management API at this url (§33).",
    "programs": "There is a Python with pyrabbit2, flower and celery to be run against the management API (§33).",
}


def reason_to_skip(missing: list[str]) -> str:
    """Return what a test needs and the broker lacks, with the option that would help."""
    return "needs " + ", ".join(f"{name} (by {BY_OPTION[name]})" if name in BY_OPTION else name for name in missing)
