"""The output formats of lists: rabbitmqctl's table, boxes, csv, json and Erlang terms, and columns on a terminal.

Values are those of JSON. Field tables arrive as in rabbitmqctl's JSON, a list of [name, type, value], and are printed
as Erlang terms in all formats but json, as rabbitmqctl does: [{"x-max-length",5}].

Always true: tables contain only printable characters, so that the name of a queue can neither break a line nor send
control codes to a terminal. csv and json are for programs and quote their values.
"""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import click

from amqpd.erlang import field_term, listed_table_term
from amqpd.wording import escape

FIELD_TABLES = ("arguments", "client_properties", "effective_policy_definition")
ATOMS = ("tags", "state", "type", "source_kind", "destination_kind")
GAP = "  "
STATES = ("state", "activity_status", "cluster_state")
HEAD_COLOUR, OTHER_COLOUR = "cyan", "yellow"
COLOURS = {"running": "green", "up": "green", "enabled": "green", "unavailable": "red", "blocked": "red"}

Row = Sequence[Any]
Formatter = Literal["table", "pretty_table", "csv", "json", "erlang"]


def render(columns: Sequence[str], rows: Sequence[Row], formatter: Formatter, *, header: bool) -> Iterator[str]:
    """Yield the lines for programs: values between tabs, csv, json, or an Erlang term.

    `header` is for tables; csv always has one.
    """
    if formatter == "json":
        yield from _json(columns, rows)
    elif formatter == "erlang":
        yield f"[{','.join([_erlang_record(columns, row) for row in rows])}]"
    elif formatter == "csv":
        yield from _csv(columns, rows)
    elif rows:
        lines = [list(columns)] * header + [_texts(columns, row) for row in rows]
        yield from ("\t".join(line) for line in lines)


def render_aligned(columns: Sequence[str], rows: Sequence[Row], *, header: bool, width: int) -> Iterator[str]:
    """Yield the lines for people: aligned columns, or one record below the other if that is wider than `width`."""
    if not rows:
        return
    texts = [_texts(columns, row) for row in rows]
    head = [list(columns)] * header
    widths = [max(map(_width, column)) for column in zip(*head, *texts)]
    if sum(widths) + len(GAP) * (len(widths) - 1) > width:
        yield from _records(columns, texts)
        return
    right = [all(_is_number(row[index]) for row in rows) for index in range(len(columns))]
    for line in head:
        yield click.style(_line(line, widths, right), fg=HEAD_COLOUR, bold=True)
    for line in texts:
        yield _line(line, widths, right, columns)


def render_boxes(columns: Sequence[str], rows: Sequence[Row], *, header: bool) -> Iterator[str]:
    """Yield the lines of rabbitmqctl's pretty_table: every value in a box."""
    if not rows:
        return
    lines = [list(columns)] * header + [_texts(columns, row) for row in rows]
    widths = [max(map(_width, column)) for column in zip(*lines)]
    for number, cells in enumerate(lines):
        yield _border(widths, "├┼┤" if number else "┌┬┐")
        yield f"│{'│'.join([f' {cell}{_blank(cell, width)} ' for cell, width in zip(cells, widths)])}│"
    yield _border(widths, "└┴┘")


def _border(widths: Sequence[int], corners: str) -> str:
    return corners[0] + corners[1].join(["─" * (width + 2) for width in widths]) + corners[2]


def _blank(cell: str, width: int) -> str:
    return " " * (width - _width(cell))


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool], columns: Sequence[str] = ()) -> str:
    """Return aligned cells; the states among them in colour, if the columns are named."""
    filled = []
    for number, (cell, width, is_right) in enumerate(zip(cells, widths, right)):
        is_last = number == len(cells) - 1
        blank = "" if is_last and not is_right else _blank(cell, width)
        shown = _coloured(cell) if columns and columns[number] in STATES else cell
        filled.append(blank + shown if is_right else shown + blank)
    return GAP.join(filled).rstrip()


def _coloured(state: str) -> str:
    return click.style(state, fg=COLOURS.get(state, OTHER_COLOUR)) if state else state


def _records(columns: Sequence[str], texts: Sequence[Sequence[str]]) -> Iterator[str]:
    longest = max(map(len, columns))
    for number, cells in enumerate(texts):
        if number:
            yield ""
        for column, cell in zip(columns, cells):
            yield f"{click.style(column, bold=True)}{' ' * (longest - len(column))}{GAP}{cell}".rstrip()


def _json(columns: Sequence[str], rows: Sequence[Row]) -> Iterator[str]:
    yield "["
    for number, row in enumerate(rows):
        record = dict(zip(columns, row))
        yield ("," if number else "") + json.dumps(record, ensure_ascii=False, separators=(",", ":"))
    yield "]"


def _csv(columns: Sequence[str], rows: Sequence[Row]) -> Iterator[str]:
    if not rows:
        return
    written = io.StringIO()
    writer = csv.writer(written, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([text(column, value) for column, value in zip(columns, row)] for row in rows)
    yield written.getvalue().removesuffix("\n")


def _erlang_record(columns: Sequence[str], row: Row) -> str:
    pairs = [f"{{{_atom(column)},{_erlang_value(column, value)}}}" for column, value in zip(columns, row)]
    return f"[{','.join(pairs)}]"


def _erlang_value(column: str, value: Any) -> str:
    """Return a value as rabbitmqctl's Erlang terms have it: tags are atoms, field tables have their types."""
    if column in FIELD_TABLES and isinstance(value, list):
        return f"[{','.join([_erlang_field(*entry) for entry in value])}]"
    if column in ATOMS:
        return f"[{','.join(map(_atom, value))}]" if isinstance(value, list) else _atom(str(value))
    return erlang_term(value)


def _erlang_field(name: str, kind: str, value: Any) -> str:
    return f"{{{erlang_term(name)},{kind},{erlang_term(value)}}}"


def erlang_term(value: Any) -> str:
    """Return a value of JSON as an Erlang term: ``[{name,<<"a">>}]`` for an object."""
    if isinstance(value, dict):
        return f"[{','.join([f'{{{_atom(name)},{erlang_term(inner)}}}' for name, inner in value.items()])}]"
    if isinstance(value, list):
        return f"[{','.join(map(erlang_term, value))}]"
    return "undefined" if value is None else field_term(value)


def _atom(name: str) -> str:
    if re.fullmatch(r"[a-z][A-Za-z0-9_@]*", name):
        return name
    quoted = name.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{quoted}'"


def _texts(columns: Sequence[str], row: Row) -> list[str]:
    return [escape(text(column, value)) for column, value in zip(columns, row)]


def text(column: str, value: Any) -> str:
    """Return a value as rabbitmqctl's table shows it."""
    if isinstance(value, list):
        return listed_table_term(value) if column in FIELD_TABLES else f"[{', '.join(map(str, value))}]"
    if isinstance(value, dict):
        return f"[{', '.join([f'{{{name!r}, {state}}}' for name, state in value.items()])}]"
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _width(cell: str) -> int:
    """Return how many columns of a terminal a text takes."""
    if cell.isascii():
        return len(cell)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in cell)
