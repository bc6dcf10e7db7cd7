"""What the programs `amqpd` and `amqpctl` share: exit codes, and the report of every error on stderr.

Exit codes: 0 stopped cleanly, 64 usage, 65 data, 69 unavailable, 70 a bug, 74 input or output, 75 locked or timed
out, 78 configuration. sysexits.h; RabbitMQ docs/cli.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence

import click

from amqpd.exit_codes import EXIT_BUG, EXIT_INTERRUPTED, EXIT_IO, EXIT_UNAVAILABLE, EXIT_USAGE
from amqpd.wording import escape


class Failure(Exception):
    """An error for the user, in one line or several, and the exit code."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def run(command: click.Command, arguments: Sequence[str] | None, name: str | None = None) -> int:
    """Run a program and return its exit code. Every error becomes lines on stderr, never a traceback.

    `name` is that of the program, unless it is the command's.
    """
    name = name or command.name or ""
    try:
        result = command.main(arguments, prog_name=name, standalone_mode=False,
                              color=False if os.environ.get("NO_COLOR") else None)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return EXIT_USAGE
    except click.UsageError as error:
        place = error.ctx.command_path if error.ctx else name
        complain(name, f"{error.format_message().rstrip('.')}; try '{place} --help'")
        return EXIT_USAGE
    except Failure as failure:
        complain(name, str(failure))
        return failure.exit_code
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of stdout has closed it. Nothing may be left for the interpreter to flush at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_IO
    except Exception as error:
        complain(name, f"internal error, please report it: {_describe(error)}")
        return EXIT_BUG


def complain(name: str, text: str) -> None:
    """Print an error, each line after the program's name."""
    for line in text.splitlines():
        click.echo(f"{name}: {line}", err=True)


def _describe(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" ({trace.tb_frame.f_code.co_filename} line {trace.tb_lineno})" if trace else ""
    return f"{type(error).__name__}: {error}{place}".replace("\n", " ")


def print_findings(findings: Sequence[Mapping[str, str]], *, as_json: bool) -> None:
    """Print what a doctor found. Raises Exit, 69, if there is a problem."""
    if as_json:
        click.echo(json.dumps(findings))
    else:
        for line in _finding_lines(findings):
            click.echo(escape(line))
    if any(one["level"] == "problem" for one in findings):
        raise click.exceptions.Exit(EXIT_UNAVAILABLE)


def _finding_lines(findings: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """Yield what a doctor found, the worst first: level, what was checked, the finding, and the remedy below it."""
    levels = ("problem", "warning", "ok")
    for one in sorted(findings, key=lambda one: levels.index(one["level"])):
        yield f"{one['level']:<9}{one['check']}: {one['text']}"
        if one["remedy"]:
            yield f"{'':<9}remedy: {one['remedy']}"
    problems, warnings = [sum(one["level"] == level for one in findings) for level in levels[:2]]
    yield f"{problems} problem{'s' * (problems != 1)}, {warnings} warning{'s' * (warnings != 1)}"
