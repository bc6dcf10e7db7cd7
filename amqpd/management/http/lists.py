"""Pages, sorting, columns and filters of lists, as RabbitMQ has them.

A list is made in slices, since the broker's clients share the event loop: first the objects that the user sees are
filtered by name, then sorted and cut into a page, and only those of the page become JSON. To sort by what only a record
has, the records of all are made one after the other, and made again for the page.

RabbitMQ docs/management (pagination), docs/http-api-reference; `rabbit_mgmt_util`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from amqpd.management.http.answers import Answer, HttpError, bad_request
from amqpd.management.http.request import Request
from amqpd.management.http.routes import Query
from amqpd.patterns import Pattern, PatternError, compile_pattern

SLICE = 100             # records between two turns of the event loop
LOOKED_AT = 2_000       # objects that are only looked at, between two turns
KEPT = 2_000            # entries of an answer, up to which it is made before it is sent
SEARCH_SLICE_S, MOST_SEARCH_S = 0.003, 0.5      # of a regular expression: in one turn, and in all
PART = 128 * 1024       # bytes of a longer answer that are sent at once
PAGE_SIZE, MOST_ON_A_PAGE = 100, 500
MOST_COLUMNS = 200
ANY_CASE = "(?i)"       # as RabbitMQ searches names
QUERY = (
    Query("page", "the number of a page, from 1; without it the whole list is sent"),
    Query("page_size", f"entries on a page, 1 to {MOST_ON_A_PAGE}, {PAGE_SIZE} by default"),
    Query("name", "only entries whose name contains this"),
    Query("use_regex", "true: `name` is a regular expression; the case of letters does not matter"),
    Query("sort", "the column to sort by, such as `messages` or `message_stats.publish`"),
    Query("sort_reverse", "true: the largest first"),
    Query("columns", "only these columns, such as `name,messages`"),
)

Thing = TypeVar("Thing")
Record = dict[str, Any]
encode = msgspec.json.Encoder(enc_hook=str).encode


class Source(NamedTuple, Generic[Thing]):
    """What a list is made of: the objects, the name of each for filters and sorting, and how each becomes a record.

    The objects are read over several turns of the event loop: of what clients add to and remove from, `things` walks
    copies. `quick` has columns that can be had without the record, so that sorting by one needs no other records than
    those of the page. `searched` has the texts that a filter looks at, if the name is not all.
    """

    things: Iterable[Thing]
    name: Callable[[Thing], str]
    record: Callable[[Thing], Record]
    quick: Mapping[str, Callable[[Thing], Any]] = {}
    searched: Callable[[Thing], Iterable[str]] | None = None

    def is_found(self, thing: Thing, wanted: Callable[[str], bool]) -> bool:
        """Whether a filter finds this object."""
        if self.searched is None:
            return wanted(self.name(thing))
        return any(map(wanted, self.searched(thing)))


class Page(NamedTuple):
    """A page that was asked for."""

    number: int
    size: int


async def listed(request: Request, source: Source[Any]) -> Answer:
    """Return a list as the query asks for it: a page of it if there is `page`. Raises HttpError: 400."""
    page = _page(request)
    things = [thing async for thing in _slices(source.things, LOOKED_AT, request)]
    found = things
    if page is not None:
        wanted = _name_filter(request)
        if request.flag("use_regex"):
            found = await searched(
                things, lambda thing: source.is_found(thing, wanted), asyncio.get_running_loop().time,
                request.context.turns.next)
        else:
            found = [thing async for thing in _slices(things, LOOKED_AT, request) if source.is_found(thing, wanted)]
        if (page.number - 1) * page.size >= max(1, len(found)):
            raise HttpError(400, "page_out_of_range", (
                f"Page out of range, page: {page.number} page size: {page.size}, len: {len(found)}"))
    return await _answer(request, source, found, page, len(things))


async def searched(
    things: Iterable[Thing], wanted: Callable[[Thing], bool], now: Callable[[], float],
    next_turn: Callable[[], Awaitable[None]],
) -> list[Thing]:
    """Return those that a regular expression finds, cut into turns by time, since one search may take 10 ms.

    Raises HttpError, 400, if all of it takes more than `MOST_SEARCH_S`.
    """
    found, spent, begun = list[Thing](), 0.0, now()
    for thing in things:
        if wanted(thing):
            found.append(thing)
        passed = now() - begun
        if passed >= SEARCH_SLICE_S:
            spent += passed
            if spent > MOST_SEARCH_S:
                raise bad_request("the regular expression takes too long: change it so that it repeats nothing that "
                                  "itself repeats")
            await next_turn()
            begun = now()
    return found


async def whole_list(request: Request, source: Source[Any]) -> Answer:
    """Return a list that RabbitMQ does not cut into pages: sorted, and with the columns that the query asks for.

    For the web page, it is cut.
    """
    if request.is_of_page:
        return await listed(request, source)
    things = [thing async for thing in _slices(source.things, LOOKED_AT, request)]
    return await _answer(request, source, things, None, len(things))


async def _answer(request: Request, source: Source[Any], found: list[Any], page: Page | None, total: int) -> Answer:
    found = await _in_order(request, source, found)
    rows = _records(request, source, found if page is None else _cut(found, page))
    columns = _columns(request.query.get("columns"))
    if page is None and len(found) > KEPT:
        return Answer(stream=_streamed(rows, columns))      # never all of it in memory
    entries = [encode(_only(record, columns)) async for record in rows]
    items = _array(entries)
    return Answer(pieces=items if page is None else _in_page(page, items, len(found), total, len(entries)))


async def _records(request: Request, source: Source[Any], things: Sequence[Any]) -> AsyncIterator[Record]:
    async for thing in _slices(things, SLICE, request):
        yield source.record(thing)


async def _streamed(rows: AsyncIterator[Record], columns: list[list[str]] | None) -> AsyncIterator[bytes]:
    """Yield a JSON array in parts of about `PART` bytes."""
    part, size, separator = [b"["], 0, b""
    async for record in rows:
        entry = encode(_only(record, columns))
        part += separator, entry
        separator = b","
        size += len(entry)
        if size >= PART:
            yield b"".join(part)
            part, size = [], 0
    yield b"".join([*part, b"]"])


async def _in_order(request: Request, source: Source[Any], found: list[Any]) -> list[Any]:
    """Return the objects in the order that the query asks for. Of their records no more is kept than what is sorted by.
    """
    sort, is_reverse = request.query.get("sort", ""), request.flag("sort_reverse")
    if not sort and not is_reverse:
        return found
    if sort in ("", "name", *source.quick):
        return sorted(found, key=source.quick.get(sort, source.name), reverse=is_reverse)
    path = sort.split(".")
    keys = [_sort_key(_value(record, path)) async for record in _records(request, source, found)]
    return [found[place] for place in sorted(range(len(found)), key=keys.__getitem__, reverse=is_reverse)]


def _cut(found: Sequence[Any], page: Page) -> list[Any]:
    return list(found[(page.number - 1) * page.size:page.number * page.size])


def _array(entries: list[bytes]) -> list[bytes]:
    """Return a JSON array in pieces: a long one is not joined, since that would take a long turn."""
    return [b"[", *(b"," + entry if number else entry for number, entry in enumerate(entries)), b"]"]


def _in_page(page: Page, items: list[bytes], filtered: int, total: int, on_page: int) -> list[bytes]:
    count = -(-filtered // page.size)
    return [b'{"filtered_count":%d,"item_count":%d,"items":' % (filtered, on_page), *items,
            b',"page":%d,"page_count":%d,"page_size":%d,"total_count":%d}' % (page.number, count, page.size, total)]


async def _slices(things: Iterable[Any], size: int, request: Request) -> Any:
    """Yield all, with a turn of the event loop after so many; then the broker is told the time again."""
    for count, thing in enumerate(things):
        if count % size == size - 1:
            await request.context.turns.next()
            request.context.node.begin()
        yield thing


# What the query asks for

def _page(request: Request) -> Page | None:
    """Return the page that is asked for, if any. Raises HttpError: 400."""
    query = request.query
    if "page" not in query:
        return None
    number, size = _integer(query["page"]), _integer(query["page_size"]) if "page_size" in query else None
    if number < 1 or size is not None and not 1 <= size <= MOST_ON_A_PAGE:
        raise HttpError(400, "invalid_pagination_parameters", (
            f"Invalid pagination parameters: page number {number}, page size "
            f"{'undefined' if size is None else size}"))
    return Page(number, PAGE_SIZE if size is None else size)


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise bad_request("Pagination parameters are invalid") from None


def _name_filter(request: Request) -> Callable[[str], bool]:
    name = request.query.get("name", "")
    if not name:
        return lambda found: True
    if not request.flag("use_regex"):
        folded = name.lower()
        return lambda found: folded in found.lower()
    try:
        pattern: Pattern = compile_pattern(ANY_CASE + name)
    except PatternError:
        raise bad_request("Pagination parameters are invalid") from None
    return pattern.matches


def _columns(text: str | None) -> list[list[str]] | None:
    return None if text is None else [column.split(".") for column in text.split(",")[:MOST_COLUMNS]]


def _only(record: Record, columns: list[list[str]] | None) -> Record | list[Any]:
    """Return only these columns of a record; a column may be a path into it. As on RabbitMQ, no column is a list."""
    if columns is None:
        return record
    kept: Record = {}
    for path in columns:
        value = _value(record, path)
        if value is not _NOTHING:
            place = kept
            for key in path[:-1]:
                place = place.setdefault(key, {})
            place[path[-1]] = value
    return kept or []


def pick(record: Record, columns: str | None) -> Record | list[Any]:
    """Return the columns of a single object that a query asks for; None asks for all."""
    return _only(record, _columns(columns))


_NOTHING = object()


def _value(record: Any, path: Sequence[str]) -> Any:
    for key in path:
        if not isinstance(record, dict) or key not in record:
            return _NOTHING
        record = record[key]
    return record


def _sort_key(value: Any) -> tuple[int, Any]:
    """Return a key by which any two values can be compared: nothing, then numbers, then texts."""
    if isinstance(value, (bool, int, float)):
        return 1, value
    if isinstance(value, str):
        return 2, value
    return 0, 0
