"""All subcommands of `rabbitmqadmin`, the Python program of RabbitMQ's management plugin, as a script in order."""
from __future__ import annotations

from typing import NamedTuple

from conformance.http.scenarios.scenario import VHOST

V = VHOST


class Word(NamedTuple):
    """One call: its words, and texts that its output must have. `fails` is for calls that must be refused.

    A call that `waits` is repeated until the texts are there: statistics come late. `{connection}` is the full name of
    an open connection, `{file}` a file of the test's own.
    """

    words: str
    has: tuple[str, ...] = ()
    fails: bool = False
    waits: bool = False
    stdin: str = ""
    vhost: str | None = V


SCRIPT = (
    Word("show overview", ("rabbitmq_version",), vhost=None),
    Word("show overview management_version cluster_name queue_totals.messages", ("management_version",), vhost=None),
    Word("list nodes", ("name",), vhost=None),
    Word("list nodes name running mem_used", ("running", "True"), vhost=None),
    Word("list vhosts", ("/", V), vhost=None),
    Word("declare vhost name=shapes-other tracing=false", ("vhost declared",), vhost=None),
    Word("list vhosts name tracing", ("shapes-other", "False"), vhost=None),
    Word("declare user name=shapes-user password=recorded tags=management", ("user declared",), vhost=None),
    Word("declare user name=shapes-hashed password_hash=Y9+46hbn3Kct/8fr9B30WSJ8LcFZHvKp1kCMU0eTCKMrOX4D tags= "
         "hashing_algorithm=rabbit_password_hashing_sha256", ("user declared",), vhost=None),
    Word("list users", ("shapes-user", "management", "shapes-hashed"), vhost=None),
    Word("declare permission vhost=shapes-other user=shapes-user configure=.* write=.* read=^a",
         ("permission declared",), vhost=None),
    Word("list permissions", ("shapes-user", "shapes-other", "^a"), vhost=None),
    Word("declare exchange name=events type=topic", ("exchange declared",)),
    Word("declare exchange name=gone type=fanout durable=false auto_delete=true internal=true "
         'arguments={"alternate-exchange":"events"}', ("exchange declared",)),
    Word("declare exchange name=events type=fanout", ("inequivalent arg 'type'",), fails=True),
    Word("list exchanges", ("events", "gone", "amq.topic")),
    Word("-d 2 list exchanges name internal arguments.alternate-exchange", ("arguments.alternate-exchange",)),
    Word("declare queue name=orders", ("queue declared",)),
    Word('declare queue name=short durable=false arguments={"x-max-length":10}', ("queue declared",)),
    Word("declare queue name=jobs queue_type=quorum", ("queue declared",)),
    Word("declare queue name=short durable=true", ("inequivalent arg 'durable'",), fails=True),
    Word("list queues", ("orders", "short", "jobs")),
    Word("-d 2 list queues name durable type arguments.x-max-length", ("arguments.x-max-length", "10", "quorum")),
    Word("-f tsv -S name -R list queues name", ("short\norders\njobs",)),
    Word("-f long list queues name", ("orders",)),
    Word("-f kvp list queues name", ('name="orders"',)),
    Word("-f bash list queues name", ("orders",)),
    Word("-f raw_json list queues name", ('"name":"orders"',)),
    Word("-f pretty_json list queues name", ('"name": "orders"',)),
    Word("-d 3 list queues name", ("orders",)),
    Word("list queues name message_stats.publish messages", ("orders", "0"), waits=True),
    Word("declare binding source=events destination=orders routing_key=order.#", ("binding declared",)),
    Word('declare binding source=events destination=short routing_key=a arguments={"x":1}', ("binding declared",)),
    Word("declare binding source=events destination_type=exchange destination=amq.fanout", ("binding declared",)),
    Word("list bindings", ("order.#", "events")),
    Word("list bindings source destination properties_key", ("order.%23",)),
    Word("delete binding source=events destination_type=queue destination=orders properties_key=order.%23",
         ("binding deleted",)),
    Word("delete binding source=events destination_type=exchange destination=amq.fanout properties_key=~",
         ("binding deleted",)),
    Word('declare policy name=capped pattern=^orders$ definition={"max-length":5} priority=2 apply-to=queues',
         ("policy declared",)),
    Word("list policies", ("capped", "^orders$", "queues")),
    Word('declare policy name=wrong pattern=( definition={"max-length":5}', ("Validation failed",),
         fails=True),
    Word('declare operator_policy name=limited pattern=^orders$ definition={"max-length":3}',
         ("operator_policy declared",)),
    Word("list operator_policies", ("limited",)),
    Word("declare vhost_limit vhost=shapes name=max-queues value=50", ("vhost_limit declared",), vhost=None),
    Word("list vhost_limits", ("max-queues", "50"), vhost=None),
    Word("list parameters", ("vhost-limits", "max-queues"), vhost=None),
    Word('declare parameter component=vhost-limits name=limits value={"max-queues":60}', ("parameter declared",)),
    Word("delete parameter component=vhost-limits name=limits", ("parameter deleted",)),
    Word("publish routing_key=orders payload=hello", ("Message published",)),
    Word("publish routing_key=orders", ("Message published",), stdin="from-stdin"),
    Word('publish exchange=amq.default routing_key=orders payload=aGk= payload_encoding=base64 '
         'properties={"delivery_mode":2,"headers":{"n":1}}', ("Message published",)),
    Word("publish routing_key=nowhere payload=lost", ("NOT routed",)),
    Word("get queue=orders", ("hello",)),
    Word("get queue=orders count=3", ("hello", "from-stdin", "hi")),
    Word("get queue=orders count=1 ackmode=ack_requeue_false encoding=base64", ("aGVsbG8=",)),
    Word("get queue=orders payload_file={file}", ("payload_bytes",)),
    Word("get queue=nothing", ("Not found",), fails=True),
    Word("purge queue name=orders", ("queue purged",)),
    Word("get queue=orders", ("No items",)),
    Word("list connections", ("guest",), waits=True),
    Word("list connections name user state channels", ("running",), waits=True),
    Word("list channels", ("guest",), waits=True),
    Word("list channels name number consumer_count prefetch_count", ("name",), waits=True),
    Word("list consumers", ("admin-tag",), waits=True),
    Word("list consumers consumer_tag queue.name ack_required", ("admin-tag", "short"), waits=True),
    Word("close connection name={connection}", ("connection closed",), vhost=None),
    Word("export {file}", ("Exported definitions",), vhost=None),
    Word("import {file}", ("Uploaded definitions",), vhost=None),
    Word("export {file}", ("Exported definitions",)),
    Word("import {file}", ("Uploaded definitions",)),
    Word("delete operator_policy name=limited", ("operator_policy deleted",)),
    Word("delete policy name=capped", ("policy deleted",)),
    Word("delete policy name=capped", ("Not found",), fails=True),
    Word("declare vhost_limit vhost=shapes name=max-queues value=50", ("vhost_limit declared",), vhost=None),
    Word("delete vhost_limit vhost=shapes name=max-queues", ("vhost_limit deleted",), vhost=None),
    Word("delete queue name=orders", ("queue deleted",)),
    Word("delete queue name=jobs", ("queue deleted",)),
    Word("delete exchange name=events", ("exchange deleted",)),
    Word("delete exchange name=events", ("Not found",), fails=True),
    Word("delete permission vhost=shapes-other user=shapes-user", ("permission deleted",), vhost=None),
    Word("delete user name=shapes-user", ("user deleted",), vhost=None),
    Word("delete user name=shapes-hashed", ("user deleted",), vhost=None),
    Word("delete vhost name=shapes-other", ("vhost deleted",), vhost=None),
    Word("-u shapes-nobody -p wrong list queues", ("Access refused",), fails=True, vhost=None),
)
