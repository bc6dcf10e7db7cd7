"""The commands of amqpctl about amqpctl: help, completion in a shell, and the programs rabbitmqctl and
rabbitmq-diagnostics.

These programs are amqpctl under the names that scripts say. No installation of amqpd brings them along, not even an
extra: pip installs the scripts of a package always or never, and an extra that names a package of its own would let
anybody who registers that name decide what is installed. So a user asks for them, and says where they go; a program
that is there already is left alone.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from amqpd.ctl.options import Command, Options, common
from amqpd.exit_codes import EXIT_IO, EXIT_USAGE
from amqpd.program import Failure

ALIASES = ("rabbitmqctl", "rabbitmq-diagnostics")
MARK = "# Written by 'amqpctl install_aliases'."
SCRIPT = """\
#!{python}
{mark}
import sys

from amqpd.ctl import main

sys.exit(main(name="{name}"))
"""
COMPLETE_VARIABLE = "_AMQPCTL_COMPLETE"


def commands() -> list[click.Command]:
    """Return the commands about amqpctl."""
    return [show_help, autocomplete, completion, install_aliases]


@click.command("help", cls=Command)
@click.argument("command_name", metavar="[COMMAND]", required=False)
@click.option("--list-commands", is_flag=True, help="Print the names of all commands only.")
@common
@click.pass_context
def show_help(context: click.Context, command_name: str | None, *, list_commands: bool) -> None:
    """Describe a command, or list all."""
    root = context.find_root()
    program = root.command
    assert isinstance(program, click.Group)
    if list_commands:
        for name in program.list_commands(root):
            click.echo(name)
        return
    if command_name is None:
        click.echo(program.get_help(root))
        return
    command = program.get_command(root, command_name)
    if command is None:
        raise Failure(f"Command '{command_name}' not found.", EXIT_USAGE)
    with click.Context(command, parent=root, info_name=command_name) as own:
        click.echo(command.get_help(own))


@click.command("autocomplete", cls=Command)
@click.argument("words", metavar="[WORD]...", nargs=-1)
@common
@click.pass_context
def autocomplete(context: click.Context, words: tuple[str, ...]) -> None:
    """List the commands that begin with a word."""
    root = context.find_root()
    program = root.command
    assert isinstance(program, click.Group)
    begun = words[-1] if words else ""
    for name in program.list_commands(root):
        if name.startswith(begun):
            click.echo(name)


@click.command("completion", cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
@common
def completion(context: click.Context, shell: str) -> None:
    """Print the completion code for a shell.

    It completes commands, options and names. The names of queues, exchanges, users, vhosts and policies are those
    of the running broker.

    \b
    bash, in ~/.bashrc:                     eval "$(amqpctl completion bash)"
    zsh, in ~/.zshrc:                       eval "$(amqpctl completion zsh)"
    fish, in ~/.config/fish/config.fish:    amqpctl completion fish | source
    """
    from click.shell_completion import get_completion_class
    made = get_completion_class(shell)
    assert made is not None
    root = context.find_root()
    values = made(root.command, {}, root.info_name or "amqpctl", COMPLETE_VARIABLE)
    # Not source(), which also asks bash for its version.
    click.echo(values.source_template % values.source_vars())


@click.command("install_aliases", cls=Command)
@click.argument("directory", metavar="DIR")
@click.option("--force", is_flag=True, help="Replace programs that are there already.")
@common
@click.pass_obj
def install_aliases(options: Options, directory: str, *, force: bool) -> None:
    """Write rabbitmqctl and rabbitmq-diagnostics.

    DIR gets two programs. They are amqpctl, for scripts that call these names. A program of that name is not
    replaced, unless with --force.
    """
    folder = Path(directory).expanduser()
    try:
        for path in [folder / name for name in ALIASES]:
            if path.exists() and not force and MARK not in path.read_text(errors="replace"):
                raise Failure(f"{path} exists already, and is not amqpd's: name another directory", EXIT_IO)
        for path in [folder / name for name in ALIASES]:
            path.unlink(missing_ok=True)
            path.write_text(SCRIPT.format(python=sys.executable, mark=MARK, name=path.name))
            path.chmod(0o755)
    except OSError as error:
        raise Failure(f"{error.filename or folder}: cannot be written: {error.strerror}; name another directory",
                      EXIT_IO) from None
    options.announce(f"Wrote {' and '.join(ALIASES)} into {folder}.")
    if str(folder.resolve()) not in [str(Path(place).resolve()) for place in os.environ.get("PATH", "").split(":")]:
        options.announce(f"{folder} is not in PATH.")
