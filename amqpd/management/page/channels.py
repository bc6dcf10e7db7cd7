"""The pages of channels: the list, and one channel with its consumers."""

from __future__ import annotations

from collections.abc import Sequence

from amqpd.management.http.access import is_administrator
from amqpd.management.http.request import Request
from amqpd.management.page import consumers
from amqpd.management.page.lists import Column, Filter, Listing, Record
from amqpd.management.page.shown import Shown, page, path_of


def _to_channel(record: Record) -> str:
    return path_of("channels", record["name"])


_FACTS: Sequence[Column] = (
    Column("state", "State", "state"),
    Column("confirm", "Mode", "mode", is_sorted=False, hint="Whether publishes are confirmed, or in transactions"),
    Column("consumer_count", "Consumers", "number"),
    Column("prefetch_count", "Prefetch", "limit", hint="How many messages each new consumer may leave unacked"),
    Column("global_prefetch_count", "Shared prefetch", "limit", is_shown=False,
           hint="How many messages all consumers of the channel together may leave unacked"),
    Column("messages_unacknowledged", "Unacked", "number", hint="Delivered, and not acked yet"),
    Column("messages_unconfirmed", "Unconfirmed", "number", hint="Published, and not confirmed yet"),
    Column("messages_uncommitted", "Uncommitted", "number", is_shown=False, hint="Published in an open transaction"),
    Column("message_stats.publish_details.rate", "Published", "rate"),
    Column("message_stats.deliver_get_details.rate", "Delivered", "rate"),
    Column("message_stats.ack_details.rate", "Acked", "rate"),
)
COLUMNS: Sequence[Column] = (
    Column("name", "Name", link=_to_channel, hint="The addresses of the connection, and the number of the channel"),
    Column("user", "User"), Column("vhost", "Vhost"), *_FACTS)
OF_CONNECTION: Sequence[Column] = (Column("number", "Channel", link=_to_channel), *_FACTS)
NEEDS = ("name", "confirm", "transactional")


def vhost_filter(request: Request) -> Filter:
    """Return the choice of a vhost, of those whose connections the API lists for the user."""
    return Filter("vhost", "Vhost", sorted(
        vhost.name for vhost in request.visible_vhosts()
        if is_administrator(request.user) or request.user.may_enter(vhost.name)))


async def list_channels(request: Request) -> Shown:
    """Show the channels of the connections that the user sees."""
    vhost = request.query.get("vhost", "")
    listing = Listing(
        request, "/channels", COLUMNS, noun="channel", filters=[vhost_filter(request)], needs=NEEDS,
        empty="A client opens channels in its connection, to publish and to consume.")
    await listing.load(request, "/api" + (path_of("vhosts", vhost, "channels") if vhost else "/channels"))
    return Shown("channels.html", {"listing": listing}, "channels")


async def show_channel(request: Request) -> Shown:
    """Show one channel with its consumers. Raises HttpError."""
    api = "/api" + path_of("channels", request.names["channel"])
    channel = await request.ask("GET", api)
    found = channel["consumer_details"]
    shown = found[:consumers.MOST_SHOWN]
    for one in shown:
        consumers.complete(one)
    return Shown("channel.html", {
        "channel": channel, "api": api, "consumers": shown, "more": len(found) - len(shown)}, "channels")


ROUTES = [
    page("/channels", list_channels, "The channels"),
    page("/channels/{channel}", show_channel, "A channel with its consumers"),
]
