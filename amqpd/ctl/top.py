"""amqpctl top: the busiest queues or connections, in a table that is drawn again and again.

Rates come from two readings of the broker's counts. On a terminal the table takes the whole screen until q is pressed;
elsewhere, or with `--once`, it is a list like others.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from select import select
from typing import Any, NamedTuple

import click

from amqpd.ctl import tables
from amqpd.ctl.options import Command, Options, common
from amqpd.exit_codes import EXIT_USAGE
from amqpd.program import Failure
from amqpd.wording import escape

FIRST_S = 1.0                   # between the two readings of a single table
NAME_AT_LEAST = 12              # columns of a terminal
SCREEN, LINE_END, PAGE_END = "\x1b[?1049h\x1b[?25l", "\x1b[K", "\x1b[J"
TOP_LEFT, NO_SCREEN = "\x1b[H", "\x1b[?25h\x1b[?1049l"

Row = list[Any]


class View(NamedTuple):
    """A table: the command that counts, its arguments, and the columns.

    `shown` are columns of the broker's answer that are shown as they are, `rates` those of which the change in a second
    is shown, with their names here. `key` is the column by which rows of two readings belong together. `order` is the
    column that the rows are sorted by, unless another one is asked for.
    """

    command: str
    has_vhost: bool
    shown: Sequence[str]
    rates: Mapping[str, str]
    after: Sequence[str]
    key: str
    order: str

    @property
    def columns(self) -> list[str]:
        """The columns of the table."""
        return [*self.shown, *self.rates.values(), *self.after]


VIEWS = {
    "queues": View(
        "count_queues", True, ["name", "ready", "unacked", "consumers"],
        {"published": "in/s", "delivered": "out/s", "acked": "ack/s"}, [], "name", "ready"),
    "connections": View(
        "count_connections", False, ["name", "user", "vhost", "state", "channels"],
        {"received_bytes": "in B/s", "sent_bytes": "out B/s"}, ["unsent_bytes"], "number", "in B/s"),
}


def commands() -> Iterator[click.Command]:
    """Yield this command."""
    yield top


@click.command("top", cls=Command)
@click.argument("what", type=click.Choice([*VIEWS]), default="queues")
@click.option("--sort", "order", metavar="COLUMN", help="Sort by this column.  [default: ready, or 'in B/s']")
@click.option("--interval", "interval_s", type=click.FloatRange(0.1, 60), metavar="SECONDS", default=2.0,
              help="Draw the table so often.  [default: 2]")
@click.option("--once", is_flag=True, help="Print one table.")
@click.option("--limit", type=click.IntRange(1), metavar="NUMBER", help="Show so many rows at most.")
@common
@click.pass_obj
def top(
    options: Options, what: str, *, order: str | None, interval_s: float, once: bool, limit: int | None
) -> None:
    """Show the busiest queues or connections live.

    The table, with rates, is drawn every two seconds until q is pressed. If stdout is not a terminal, or with --once,
    one table is printed. Numbers are sorted from the highest.

    \b
    amqpctl top
    amqpctl top connections --sort 'out B/s'
    amqpctl -q -p shop top queues --once --sort in/s --limit 10
    """
    view = VIEWS[what]
    order = order or view.order
    if order not in view.columns:
        raise Failure(f"there is no column '{order}', only {', '.join(view.columns)}", EXIT_USAGE)
    arguments: dict[str, Any] = {"vhost": options.vhost} if view.has_vhost else {}

    def read() -> dict[str, Any]:
        counts: dict[str, Any] = options.ask(view.command, **arguments)
        return counts

    if once or options.formatter != "table" or not sys.stdout.isatty():
        first = read()
        time.sleep(FIRST_S)
        rows = sorted_rows(view, rows_of(view, first, read()), order)
        options.announce(f"Top {what}{f' of vhost {options.vhost}' if view.has_vhost else ''} ...")
        options.show(view.columns, rows[:limit])
        return
    title = f"amqpd: {what}{f' of vhost {options.vhost}' if view.has_vhost else ''}, by {order}; q quits"
    with Terminal() as terminal:
        draw_until_quit(view, order, escape(title), read, terminal, interval_s, limit)


class Terminal:
    """The screen, and the keys that are pressed. Without a terminal as stdin, there are no keys."""

    def __enter__(self) -> Terminal:
        self._restore: Callable[[], None] = lambda: None
        if sys.stdin.isatty():
            with contextlib.suppress(ImportError):
                self._read_keys_at_once()
        self.write(SCREEN)
        return self

    def _read_keys_at_once(self) -> None:
        import termios
        import tty

        before = termios.tcgetattr(sys.stdin)
        tty.setcbreak(sys.stdin)
        self._restore = lambda: termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)

    def __exit__(self, *error: object) -> None:
        self.write(NO_SCREEN)
        self._restore()

    def write(self, text: str) -> None:
        """Write to the screen."""
        click.echo(text, nl=False)
        sys.stdout.flush()

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        return shutil.get_terminal_size()

    def wait_for_key(self, seconds: float) -> str:
        """Return the key that is pressed within so many seconds, or ""; q at the end of input."""
        if not sys.stdin.isatty():
            time.sleep(seconds)
            return ""
        return sys.stdin.read(1) or "q" if select([sys.stdin], [], [], seconds)[0] else ""


def draw_until_quit(
    view: View, order: str, title: str, read: Callable[[], dict[str, Any]], terminal: Terminal, interval_s: float,
    limit: int | None,
) -> None:
    """Draw the table now and after each interval, until the key q is pressed."""
    before = now = read()
    while True:
        columns, lines = terminal.size
        room = max(1, lines - 3)
        rows = sorted_rows(view, rows_of(view, before, now), order)
        shown = rows[: min(room, limit or room)]
        page = [title, "", *table_lines(view, shown, columns)]
        terminal.write(TOP_LEFT + f"{LINE_END}\n".join(page) + LINE_END + PAGE_END)
        if terminal.wait_for_key(interval_s) in ("q", "Q"):
            return
        before, now = now, read()


def rows_of(view: View, before: dict[str, Any], now: dict[str, Any]) -> list[Row]:
    """Return the rows of the table; a rate is None where there are not two readings."""
    columns = now["columns"]
    key = columns.index(view.key)
    earlier = {row[key]: row for row in before["rows"]}
    seconds = (now["now_ms"] - before["now_ms"]) / 1000
    rated = [columns.index(name) for name in view.rates]
    shown, after = [columns.index(name) for name in view.shown], [columns.index(name) for name in view.after]
    rows = []
    for row in now["rows"]:
        known = earlier.get(row[key])
        rates = [_rate(row[at], None if known is None else known[at], seconds) for at in rated]
        rows.append([*(row[at] for at in shown), *rates, *(row[at] for at in after)])
    return rows


def _rate(now: int, before: int | None, seconds: float) -> float | None:
    # A count that is lower belongs to a queue that was deleted and declared again.
    if before is None or seconds <= 0 or now < before:
        return None
    rate = (now - before) / seconds
    return round(rate) if rate >= 10 or rate.is_integer() else round(rate, 1)


def sorted_rows(view: View, rows: list[Row], order: str) -> list[Row]:
    """Return the rows sorted: numbers from the highest, what is not known last, and rows that are equal by name."""
    at = view.columns.index(order)
    rows = sorted(rows, key=lambda row: str(row[0]))
    if any(isinstance(row[at], str) for row in rows):
        return sorted(rows, key=lambda row: str(row[at]))
    return sorted(rows, key=lambda row: -1 if row[at] is None else row[at], reverse=True)


def table_lines(view: View, rows: list[Row], width: int) -> list[str]:
    """Return the table for a terminal of this width: names are cut to fit."""
    others = [max(len(name), *(len(tables.text(name, row[at])) for row in rows)) if rows else len(name)
              for at, name in enumerate(view.columns)][1:]
    room = max(NAME_AT_LEAST, width - sum(others) - len(tables.GAP) * len(others))
    cut = [[name if len(name) <= room else f"{name[: room - 1]}…", *rest] for name, *rest in rows]
    return [*tables.render_aligned(view.columns, cut, header=True, width=1 << 30)]
