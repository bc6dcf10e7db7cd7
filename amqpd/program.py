"""What the programs `amqpd` and `amqpctl` share: exit codes, and the report of every error on stderr.

Exit codes: 0 stopped cleanly, 64 usage, 65 data, 69 unavailable, 70 a bug, 74 input or output, 75 locked or timed
out, 78 configuration. sysexits.h; RabbitMQ docs/cli.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from amqpd.exit_codes import EXIT_BUG, EXIT_INTERRUPTED, EXIT_IO, EXIT_USAGE


class Failure(Exception):
    """An error for the user, in one line or several, and the exit code."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def run(command: click.Command, arguments: Sequence[str] | None) -> int:
    """Run a program and return its exit code. Every error becomes lines on stderr, never a traceback."""
    name = command.name or ""
    try:
        result = command.main(arguments, prog_name=name, standalone_mode=False)
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
