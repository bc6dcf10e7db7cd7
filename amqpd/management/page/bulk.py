"""Actions on many rows of a list: on those that are marked, or on all that match.

A request acts on a part: on `MOST_MARKED` rows that are named, or on a page of those that match. A script (bulk.js)
sends one request after the other, and shows how many are done and which failed, and why. Pages are taken from the last
to the first, so that rows that are deleted move none that is still to come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec

from amqpd.errors import AmqpException
from amqpd.management.http.answers import Answer, HttpError, bad_request, not_authorised
from amqpd.management.http.request import Request
from amqpd.management.page import client_acts
from amqpd.management.page.forms import Form, sentence_of
from amqpd.management.page.lists import Record
from amqpd.management.page.navigation import Rights, rights_of
from amqpd.management.page.shown import form, path_of
from amqpd.management.refusal import Refusal

MOST_MARKED = 100       # rows that a request names
PART = 200              # rows of a page of all that match
AT_ONCE = 20            # which then join one commit
GONE = "It does not exist any more."

Key = Sequence[str]
Act = Callable[[Request, Form, Key], Awaitable[object]]


class Action(NamedTuple):
    """What can be done to many rows. `verb` is on the button, `past` in the result, `text` says what it means."""

    name: str
    verb: str
    past: str
    icon: str
    text: str
    act: Act
    is_destroying: bool = True
    has_reason: bool = False
    may: Callable[[Rights], bool] = lambda rights: rights.changes


class Family(NamedTuple):
    """A list whose rows can be acted on: where the API has it, the paths of a row's key in a record, its actions."""

    noun: str
    api: Callable[[str], str]       # by the vhost that is chosen, or ""
    key: Sequence[Sequence[str]]
    shown: int                      # which part of a key is its name
    actions: Sequence[Action]


def _queue_path(key: Key, *more: str) -> str:
    return "/api" + path_of("queues", key[0], key[1], *more)


async def _delete(request: Request, form: Form, key: Key) -> None:
    await request.ask("DELETE", _queue_path(key))


async def _purge(request: Request, form: Form, key: Key) -> None:
    await request.ask("DELETE", _queue_path(key, "contents"))


async def _set_paused(is_paused: bool, request: Request, form: Form, key: Key) -> None:
    await request.ask("PUT", _queue_path(key, "paused"), body={"value": is_paused})


async def _close(request: Request, form: Form, key: Key) -> None:
    await client_acts.close(request, key[0], client_acts.reason_of(form))


async def _cancel(request: Request, form: Form, key: Key) -> None:
    await client_acts.cancel(request, key[0], key[1], key[2], key[3])


def _makes_policies(rights: Rights) -> bool:
    return rights.makes_policies


FAMILIES: Mapping[str, Family] = {
    "queues": Family(
        "queue", lambda vhost: "/api/queues" + (path_of(vhost) if vhost else ""), (("vhost",), ("name",)), 1, (
            Action("pause", "Pause", "paused", "pause", "A paused queue takes messages in, and delivers none until "
                   "it is resumed.", partial(_set_paused, True), is_destroying=False, may=_makes_policies),
            Action("resume", "Resume", "resumed", "play", "Queues that are not paused stay as they are.",
                   partial(_set_paused, False), is_destroying=False, may=_makes_policies),
            Action("purge", "Purge", "purged", "purge", "This drops their ready messages, which are not dead-lettered. "
                   "Unacked messages stay.", _purge),
            Action("delete", "Delete", "deleted", "delete", "This deletes them with their messages and bindings, and "
                   "ends their consumers.", _delete))),
    "connections": Family(
        "connection", lambda vhost: "/api" + (path_of("vhosts", vhost, "connections") if vhost else "/connections"),
        (("name",),), 0, (
            Action("close", "Close", "closed", "close", "Their unacked messages go back to the queues. Most clients "
                   "connect again at once.", _close, has_reason=True),)),
    "consumers": Family(
        "consumer", lambda vhost: "/api/consumers" + (path_of(vhost) if vhost else ""),
        (("queue", "vhost"), ("queue", "name"), ("consumer_tag",), ("channel_details", "name")), 2, (
            Action("cancel", "Cancel", "cancelled", "close", "Their clients are told. What they hold unacked stays "
                   "with their channels.", _cancel, may=_makes_policies),)),
}


def actions_for(request: Request, family: str) -> dict[str, Any]:
    """Return what the bar of a list needs: the noun, and the actions that are offered to the user."""
    rights, found = rights_of(request.user), FAMILIES[family]
    return {"family": family, "noun": found.noun, "actions": [one for one in found.actions if one.may(rights)]}


async def act(request: Request) -> Answer:
    """Act on a part of the rows, and return how many are done, which failed, and which page is next (0: none).

    Raises HttpError: 404 for an action that there is not, 401 for one that is not offered to the user, 400 for rows
    that cannot be read, and what the API answers to a list that it refuses.
    """
    family = FAMILIES.get(request.names["family"])
    action = next((one for one in family.actions if one.name == request.names["action"]), None) if family else None
    if family is None or action is None:
        raise HttpError(404, "not_found", "There is no such action.")
    if not action.may(rights_of(request.user)):
        raise not_authorised("Your tags do not allow this.")
    form = Form(request)
    if action.has_reason:
        client_acts.reason_of(form)     # refused before anything is done
    keys, following = await _all_of_page(request, family, form) if form.flag("all") else (_marked(family, form), 0)
    reasons: list[str] = []
    for place in range(0, len(keys), AT_ONCE):
        reasons += await asyncio.gather(*(
            _attempt(action, request, form, key) for key in keys[place:place + AT_ONCE]))
        await request.context.turns.next()
    failed = [{"name": key[family.shown], "reason": reason} for key, reason in zip(keys, reasons) if reason]
    return Answer(body={"done": len(keys) - len(failed), "failed": failed, "next": following})


async def _attempt(action: Action, request: Request, form: Form, key: Key) -> str:
    """Act on one row, and return why that failed, or nothing."""
    try:
        await action.act(request, form, key)
    except HttpError as error:
        return GONE if error.status == 404 else sentence_of(error)
    except (AmqpException, Refusal) as error:
        return sentence_of(bad_request(str(error)))
    return ""


def _marked(family: Family, form: Form) -> Sequence[Key]:
    """Return the keys of the rows that a form names. Raises HttpError: 400."""
    rows = form.every("row")
    if not 1 <= len(rows) <= MOST_MARKED:
        raise bad_request(f"mark at least one row, and at most {MOST_MARKED} in one request")
    try:
        keys = [msgspec.json.decode(row, type=list[str]) for row in rows]
    except (ValueError, RecursionError):
        keys = []
    if not keys or any(len(key) != len(family.key) for key in keys):
        raise bad_request("a row is not named as the list names it")
    return keys


async def _all_of_page(request: Request, family: Family, form: Form) -> tuple[Sequence[Key], int]:
    """Return the keys of a page of all that match, by default the last one, and the number of the page before it."""
    asked = {
        "name": form.text("name"), "use_regex": "true" if form.text("regex") == "1" else "false",
        "sort": "consumer_tag" if family.noun == "consumer" else "name", "page_size": str(PART),
        "columns": ",".join(".".join(path) for path in family.key)}
    api, number = family.api(form.text("vhost")), form.whole("page", least=1)
    if not form.is_valid:
        raise bad_request("the number of a page is wrong")
    if number is None:
        first = await request.ask("GET", api, {**asked, "page": "1", "page_size": "1", "columns": "name"})
        number = max(1, -(-first["filtered_count"] // PART))
    try:
        answer = await request.ask("GET", api, {**asked, "page": str(number)})
    except HttpError as error:
        if error.error != "page_out_of_range" or number == 1:
            raise
        return [], number - 1       # others have deleted rows meanwhile
    return [_key(family, row) for row in answer["items"]], number - 1


def _key(family: Family, record: Record) -> list[str]:
    found = []
    for path in family.key:
        value: Any = record
        for part in path:
            value = value.get(part, "") if isinstance(value, Mapping) else ""
        found.append(str(value))
    return found


ROUTES = [form("/bulk/{family}/{action}", act, "Act on many rows of a list")]
