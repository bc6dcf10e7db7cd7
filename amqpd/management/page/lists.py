"""Lists on pages: columns, and what the address says of sort, filter, page and columns.

The API sorts, filters and cuts. A list has no other state than its address, so it can be kept as a bookmark.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from amqpd.management.http.answers import HttpError, bad_request
from amqpd.management.http.lists import MOST_ON_A_PAGE
from amqpd.management.http.request import Request
from amqpd.management.page.shown import path_of

SIZES = (25, 50, 100, 250, MOST_ON_A_PAGE)
SIZE = 50
LONGEST_PAGE = 9        # digits of the number of a page
OUT_OF_RANGE = "page_out_of_range"

Record = dict[str, Any]
Kind = Literal[
    "text", "number", "rate", "size", "ago", "yes", "state", "tags", "json", "code", "flow", "limit", "mode",
    "activity", "quota", "exchange"]


class Column(NamedTuple):
    """A column of a list. `key` is its path in a record of the API, and what the API sorts by.

    `kind` says how a value is written: the macro of that name in `templates/parts/cell.html`. `link` returns the path
    that a value leads to. A column that is not `is_shown` has to be chosen.
    """

    key: str
    title: str
    kind: Kind = "text"
    link: Callable[[Record], str] | None = None
    is_shown: bool = True
    is_sorted: bool = True
    hint: str = ""

    @property
    def is_number(self) -> bool:
        """Whether values stand at the right, and the largest is wanted first."""
        return self.kind in ("number", "rate", "size", "flow", "limit", "quota")

    def value(self, record: Any) -> Any:
        """Return the value of a record, None if it has none."""
        for part in self.key.split("."):
            record = record.get(part) if isinstance(record, Mapping) else None
        return record


class Filter(NamedTuple):
    """A choice above a list, besides the name: a parameter of the address, and the values to choose from."""

    name: str
    title: str
    choices: Sequence[str]


class Listing:
    """One list as a page shows it.

    `path` is that of the page. `filters` are choices above it. `needs` are columns that rows need though none shows
    them. `noun` is what a row is called, `searched` what the API finds rows by. `empty` says what
    to do if there is nothing at all.
    """

    def __init__(
        self, request: Request, path: str, columns: Sequence[Column], *, noun: str, empty: str, plural: str = "",
        searched: str = "Name",
        filters: Sequence[Filter] = (), needs: Sequence[str] = ("name", "vhost"), sort: str = "name",
        fixed: Mapping[str, str] | None = None,
    ) -> None:
        query = request.query
        self.path = path
        self.all_columns = columns
        self.noun, self.plural, self.empty, self.searched = noun, plural or noun + "s", empty, searched
        self.filters = [one for one in filters if len(one.choices) > 1 or query.get(one.name)]
        self.name = query.get("name", "")
        self.is_regex = query.get("regex") == "1"
        self.chosen = {one.name: query.get(one.name, "") for one in filters}
        wanted = query.get("columns", "")
        names = wanted.split(",") if wanted else [one.key for one in columns if one.is_shown]
        self.columns = [one for one in columns if one.key in names] or [columns[0]]
        self.columns_given = wanted
        self.sort = next((one.key for one in columns if one.key == query.get("sort") and one.is_sorted), sort)
        self.is_default_sort = not query.get("sort")
        self.is_reverse = query.get("reverse") == "1"
        self.size = _whole(query.get("size"), SIZE, MOST_ON_A_PAGE)
        self.page = _whole(query.get("page"), 1, 10 ** LONGEST_PAGE)
        self.rows: list[Record] = []
        self.total = self.found = self.pages = 0
        self.error = ""
        self._needs = needs
        self._fixed = dict(fixed or {})

    @property
    def is_filtered(self) -> bool:
        """Whether some rows may be left out."""
        return bool(self.name or any(self.chosen.values()))

    @property
    def first(self) -> int:
        """The number of the first row that is shown."""
        return (self.page - 1) * self.size + 1 if self.rows else 0

    def query(self) -> dict[str, str]:
        """Return what the API is asked."""
        columns = dict.fromkeys([*self._needs, *(one.key for one in self.columns)])
        return {
            "page": str(self.page), "page_size": str(self.size), "name": self.name, "sort": self.sort,
            "use_regex": "true" if self.is_regex else "false",
            "sort_reverse": "true" if self.is_reverse else "false", "columns": ",".join(columns)} | self._fixed

    async def load(self, request: Request, api_path: str) -> Listing:
        """Ask the API for the rows, and return the list. An expression that cannot be searched for becomes its error.

        Raises HttpError.
        """
        try:
            answer = await request.ask("GET", api_path, self.query())
        except HttpError as error:
            if error.error == OUT_OF_RANGE and self.page > 1:       # rows have gone: show the first ones
                self.page = 1
                return await self.load(request, api_path)
            if not self.is_regex or error.status != 400:
                raise
            self.error = "This is not a regular expression that can be searched for."
            return self
        self.rows = answer["items"]
        self.total, self.found = answer["total_count"], answer["filtered_count"]
        self.pages = answer["page_count"]
        return self

    def address(self, **changed: object) -> str:
        """Return the path of this list with something changed; what is the default is left out."""
        state: dict[str, object] = {
            **self.chosen, "name": self.name, "regex": "1" if self.is_regex else "",
            "sort": "" if self.is_default_sort else self.sort, "reverse": "1" if self.is_reverse else "",
            "columns": self.columns_given, "size": "" if self.size == SIZE else self.size,
            "page": "" if self.page == 1 else self.page}
        return self.path + path_of(**{**state, **changed})[1:]      # path_of() without segments is "/"

    def sorted_by(self, column: Column) -> str:
        """Return the path of this list sorted by a column: the other way round if it is sorted by it already."""
        is_reverse = not self.is_reverse if column.key == self.sort else column.is_number
        return self.address(sort=column.key, reverse="1" if is_reverse else "", page="")

    def direction(self, column: Column) -> str:
        """Return how the list is sorted by a column, as ARIA has it."""
        if column.key != self.sort:
            return "none"
        return "descending" if self.is_reverse else "ascending"


def _whole(text: str | None, default: int, most: int) -> int:
    if text is None or not text:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > LONGEST_PAGE or not 1 <= int(text) <= most:
        raise bad_request(f"{text[:20]!r} is not a number from 1 to {most:,}")
    return int(text)


def vhost_filter(request: Request) -> Filter:
    """Return the choice of a vhost, of those that the user sees."""
    return Filter("vhost", "Vhost", sorted(vhost.name for vhost in request.visible_vhosts()))
