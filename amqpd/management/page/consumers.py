"""The pages of consumers: the list, and what operators do to one: cancel it, or change its prefetch."""

from __future__ import annotations

from collections.abc import Sequence

from amqpd.management.http.answers import Answer, bad_request
from amqpd.management.http.request import Request
from amqpd.management.page import bulk
from amqpd.management.page.client_acts import cancel
from amqpd.management.page.forms import Form, done, wrong
from amqpd.management.page.lists import Column, Listing, Record, vhost_filter
from amqpd.management.page.shown import Shown, form, page, path_of

MOST_PREFETCH = 65_535      # as in basic.qos
MOST_SHOWN = 500            # consumers of one channel


def _to_queue(record: Record) -> str:
    return path_of("queues", record["queue"]["vhost"], record["queue"]["name"])


def _to_channel(record: Record) -> str:
    return path_of("channels", record["channel_details"]["name"])


COLUMNS: Sequence[Column] = (
    Column("consumer_tag", "Tag"),
    Column("queue.name", "Queue", link=_to_queue),
    Column("queue.vhost", "Vhost", is_shown=False),
    Column("channel_details.name", "Channel", link=_to_channel),
    Column("channel_details.user", "User"),
    Column("activity_status", "Activity", "activity", hint="Whether the queue delivers to the consumer"),
    Column("ack_required", "Acks", "yes", hint="Whether the consumer acks what it gets"),
    Column("prefetch_count", "Prefetch", "limit", hint="How many messages it may leave unacked"),
    Column("messages_unacknowledged", "Unacked", "number", hint="Messages that it holds and has not acked"),
    Column("exclusive", "Exclusive", "yes", is_shown=False),
    Column("arguments", "Arguments", "json", is_shown=False, is_sorted=False),
)
NEEDS = ("consumer_tag", "queue", "channel_details", "ack_required", "prefetch_count")


def complete(record: Record) -> None:
    """Add to a consumer what names it in forms: its queue, its vhost, and its channel."""
    record["queue_name"], record["queue_vhost"] = record["queue"]["name"], record["queue"]["vhost"]
    record["channel"] = record["channel_details"].get("name", "")


async def list_consumers(request: Request) -> Shown:
    """Show the consumers of the vhosts that the user sees."""
    vhost = request.query.get("vhost", "")
    listing = Listing(
        request, "/consumers", COLUMNS, noun="consumer", filters=[vhost_filter(request)], needs=NEEDS,
        sort="consumer_tag", searched="Tag", empty="A client consumes from a queue to get its messages as they come.")
    await listing.load(request, "/api/consumers" + (path_of(vhost) if vhost else ""))
    for row in listing.rows:
        complete(row)
    return Shown("consumers.html", {
        "listing": listing, "offered": bulk.actions_for(request, "consumers")}, "consumers")


async def cancel_consumer(request: Request) -> Answer:
    """Cancel a consumer, which a form names by its queue, tag and channel. Raises HttpError."""
    form = Form(request)
    await cancel(request, *_named(form))
    return done(f"Consumer {form.text('tag')} is cancelled.")


def _named(form: Form) -> tuple[str, str, str, str]:
    """Return vhost, queue, tag and channel of a consumer. Raises HttpError: 400."""
    vhost, queue, tag, channel = (form.text(name) for name in ("vhost", "queue", "tag", "channel"))
    if not tag:
        raise bad_request("a consumer has a tag")
    return vhost, queue, tag, channel


async def change_prefetch(request: Request) -> Answer:
    """Change how many messages a consumer may leave unacked. Raises HttpError."""
    form = Form(request)
    vhost, queue, tag, channel = _named(form)
    prefetch = form.whole("prefetch", most=MOST_PREFETCH)
    if prefetch is None:
        raise wrong(f"Enter a whole number from 0 to {MOST_PREFETCH:,}; 0 is no limit.")
    await request.ask("PUT", "/api" + path_of("queues", vhost, queue, "consumers", tag, "prefetch"),
                      body={"value": prefetch, "channel": channel or None})
    now = f"may leave {prefetch:,} messages unacked" if prefetch else "has no prefetch limit"
    return done(f"Consumer {tag} {now} from now on.")


ROUTES = [
    page("/consumers", list_consumers, "The consumers"),
    form("/consumers/cancel", cancel_consumer, "Cancel a consumer"),
    form("/consumers/prefetch", change_prefetch, "Change the prefetch of a consumer"),
]
