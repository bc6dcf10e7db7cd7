"""Lines about the answers to publishers, and about permissions."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator

from tests.history.book import NEVER, Book, Channel
from tests.history.events import US, Event
from tests.history.lines import line
from tests.history.lines_messages import told

RIGHTS_HOLD_US = 5 * US         # how long after a change the old rights may be used


@line(12, "confirm tags once each, in range")
def confirm_tags(book: Book) -> Iterator[str]:
    """Each publish has one answer, and nothing else has."""
    for channel in book.channels.values():
        yield from wrong_confirms(channel)


def wrong_confirms(channel: Channel) -> Iterator[str]:
    """Return the invalid confirms of one channel: for no publish, or for too many."""
    waiting = dict.fromkeys(channel.publishes)
    for confirm in channel.confirms:
        publish = channel.publishes.get(confirm.tag)
        if publish is None or publish.event.time > confirm.time:
            yield f"{channel.key[0]} hears of {confirm.tag}, and has published {len(channel.publishes)}"
        elif confirm.tag not in waiting:
            yield f"{channel.key[0]} hears of {confirm.tag} again"
        done = [confirm.tag]
        if confirm.multiple:
            done = []
            for seq in waiting:
                if seq > confirm.tag:
                    break
                done.append(seq)
        for seq in done:
            waiting.pop(seq, None)


@line(13, "return before ack")
def return_before_ack(book: Book) -> Iterator[str]:
    """A mandatory message without a queue comes back first, and no other comes back."""
    for publish in book.publishes.values():
        event = publish.event
        is_due = event.mandatory and not event.to
        if is_due and publish.answered < publish.returned:
            yield f"{event.id} is answered and did not come back before"
        if publish.returned < NEVER and not is_due:
            yield f"{event.id} came back without a reason"


@line(23, "nothing crosses vhosts")
def nothing_crosses_vhosts(book: Book) -> Iterator[str]:
    """What is published in one is delivered there."""
    for (id, _, _), deliveries in book.copies.items():
        home = book.publishes[id].channel.open.vhost
        for delivery in deliveries:
            if delivery.channel.open.vhost != home:
                yield f"{told(delivery)} was published in vhost {home!r}"


@line(24, "nothing without the right")
def nothing_without_the_right(book: Book) -> Iterator[str]:
    """Who has rights given at all has no others, some seconds after each change."""
    grants: dict[tuple[str, str], list[Event]] = defaultdict(list)
    for event in book.events:
        if event.act == "grant":
            grants[event.user, event.vhost].append(event)
    if not grants:
        return
    known = {user for user, _ in grants}
    for event in book.events:
        channel = book.channels.get((event.connection, event.channel))
        used = used_right(book, event)
        if channel and used and channel.open.user in known:
            given = grants[channel.open.user, channel.open.vhost]
            if not any(re.fullmatch(getattr(grant, used[0]), used[1]) for grant in in_force(given, event.time)):
                yield f"{channel.open.user} may not {used[0]} {used[1]!r}, and did: {event.act}"


def used_right(book: Book, event: Event) -> tuple[str, str] | None:
    """The right that was needed for what the broker has done here, and on what."""
    if event.act == "deliver" or (event.act, event.type) == ("get", "ok"):
        return "read", event.queue
    if (event.act, event.type) == ("publish", "ok"):
        publish = book.channels[event.connection, event.channel].publishes.get(event.tag)
        return ("write", publish.event.name or "amq.default") if publish else None
    if event.act in ("declare", "delete") and event.type == "ok":
        return "configure", event.name
    return None


def in_force(grants: list[Event], time: int) -> list[Event]:
    """The last grant, and those that were in force a while ago."""
    past = [grant for grant in grants if grant.time <= time]
    old = [grant for grant in past if grant.time <= time - RIGHTS_HOLD_US]
    return past[max(0, len(old) - 1):]


@line(25, "no number twice")
def no_number_twice(book: Book) -> Iterator[str]:
    """Of those the broker made: of messages, of places, in names."""
    numbers = Counter((event.kind, event.name) for event in book.events if event.act == "number")
    yield from (f"{kind} {name} was given {count} times" for (kind, name), count in numbers.items() if count > 1)
