"""The commands of amqpctl that tell what a broker has: feature flags, memory, versions, variables, ciphers.

RabbitMQ docs/man/rabbitmqctl.8, docs/man/rabbitmq-diagnostics.8, docs/feature-flags.
"""

from __future__ import annotations

import click

from amqpd.ctl.options import Command, Options, common
from amqpd.exit_codes import EXIT_UNAVAILABLE, EXIT_USAGE
from amqpd.identity import RABBITMQ_VERSION
from amqpd.program import Failure

FLAG_COLUMNS = ("name", "state", "stability", "provided_by", "desc", "doc_url")
UNITS = {"bytes": 1, "kb": 10 ** 3, "mb": 10 ** 6, "gb": 10 ** 9, "tb": 10 ** 12}


def commands() -> list[click.Command]:
    """Return the commands that tell what a broker has."""
    return [
        list_feature_flags, enable_feature_flag, list_deprecated_features, memory_breakdown, os_env, erlang_version,
        version, list_ciphers, list_hashes, cipher_suites, tls_versions, log_location, certificates,
        list_unresponsive_queues, hash_password]


# Features

@click.command("list_feature_flags", cls=Command)
@click.argument("columns", metavar="[COLUMN]...", nargs=-1)
@common
@click.pass_obj
def list_feature_flags(options: Options, columns: tuple[str, ...]) -> None:
    """List RabbitMQ's feature flags.

    COLUMN is name, state, stability, provided_by, desc or doc_url. Flags whose behaviour amqpd has are enabled.
    """
    unknown = [column for column in columns if column not in FLAG_COLUMNS]
    if unknown:
        raise Failure(f"Info key(s) {','.join(unknown)} are not supported", EXIT_USAGE)
    options.announce("Listing feature flags ...")
    result = options.ask("list_feature_flags", columns=columns or ("name", "state"))
    options.show(result["columns"], result["rows"])


@click.command("enable_feature_flag", cls=Command)
@click.argument("flag", metavar="FLAG | all")
@common
@click.pass_obj
def enable_feature_flag(options: Options, flag: str) -> None:
    """Succeed for a feature flag that amqpd has.

    All of those are always enabled.
    """
    options.announce("Enabling all feature flags ..." if flag == "all" else f'Enabling feature flag "{flag}" ...')
    options.ask("enable_feature_flag", name=flag)


@click.command("list_deprecated_features", cls=Command)
@click.argument("columns", metavar="[COLUMN]...", nargs=-1)
@click.option("--used", is_flag=True, help="Only those in use.")
@common
@click.pass_obj
def list_deprecated_features(options: Options, columns: tuple[str, ...], *, used: bool) -> None:
    """List RabbitMQ's deprecated features.

    None is denied here, so the list is empty.
    """
    options.announce("Listing deprecated features in use ..." if used else "Listing deprecated features ...")
    options.ask("ping")
    options.show(columns or ("name", "deprecation_phase"), [])


# Versions

@click.command("version", cls=Command)
@common
@click.pass_obj
def version(options: Options) -> None:
    """Show RabbitMQ's version.

    It is the version whose behaviour amqpd has. No broker is asked. The version of amqpd itself is what --version
    shows.
    """
    options.say(RABBITMQ_VERSION)


@click.command("erlang_version", cls=Command)
@click.option("--details", is_flag=True, help="Means nothing here.")
@click.option("--offline", is_flag=True, help="Means nothing here.")
@common
@click.pass_obj
def erlang_version(options: Options, *, details: bool, offline: bool) -> None:
    """Show Python's version in place of Erlang's."""
    options.announce(f"Asking node {options.node} for its Erlang/OTP version...")
    options.say(f"Python {options.ask('status')['python_version']}")


# The process

@click.command("memory_breakdown", cls=Command)
@click.option("--unit", type=click.Choice(list(UNITS)), default="gb", help="The unit of a text.  [default: gb]")
@common
@click.pass_obj
def memory_breakdown(options: Options, unit: str) -> None:
    """Show what memory is used for.

    Only what is known is told apart.
    """
    options.announce(f"Reporting memory breakdown on node {options.node}...")
    memory = options.ask("status")["memory"]
    total = memory["total"]["rss"]
    parts = {name: size for name, size in memory.items() if isinstance(size, int)}
    parts["other_system"] = max(total - sum(parts.values()), 0)
    shares = {
        name: {"bytes": size, "percentage": round(100 * size / total, 2) if total else 0.0}
        for name, size in sorted(parts.items(), key=lambda part: -part[1])}
    options.say(shares, [
        f"{name}: {round(part['bytes'] / UNITS[unit], 4)} {unit} ({part['percentage']}%)"
        for name, part in shares.items()])


@click.command("os_env", cls=Command)
@common
@click.pass_obj
def os_env(options: Options) -> None:
    """List the variables that configure amqpd.

    They are those of the broker's environment, without passwords.
    """
    options.announce(f"Listing RabbitMQ-specific environment variables defined on node {options.node}...")
    rows = options.ask("os_env")["rows"]
    options.say(dict(rows), [f"{name}={value}" for name, value in rows])


@click.command("log_location", cls=Command)
@common
@click.pass_obj
def log_location(options: Options) -> None:
    """Say where the log goes.

    It goes to stderr, which the service manager keeps.
    """
    options.announce(f"Log file location(s) on node {options.node} ...")
    for place in options.ask("status")["log_files"]:
        options.say(place)


@click.command("certificates", cls=Command)
@common
@click.pass_obj
def certificates(options: Options) -> None:
    """List the certificates of the TLS listeners."""
    options.announce(f"Certificates of node {options.node} ...")
    found = options.ask("status")["tls_certificates"]
    options.say(found, [
        f"{one['setting']}: {one['file']}, for {', '.join(one['names'])}, valid until {one['not_after']}"
        for one in found])


@click.command("list_unresponsive_queues", cls=Command)
@click.argument("columns", metavar="[COLUMN]...", nargs=-1)
@click.option("--queue-timeout", type=int, default=15_000, metavar="MS", help="Means nothing here.")
@click.option("--local", "is_local", is_flag=True, help="Means nothing here: there is one node.")
@common
@click.pass_obj
def list_unresponsive_queues(
    options: Options, columns: tuple[str, ...], *, queue_timeout: int, is_local: bool
) -> None:
    """List queues that do not answer: none.

    Queues have no process that could hang.
    """
    options.announce(f"Listing unresponsive queues for vhost {options.vhost} ...")
    options.ask("ping")
    options.show(columns or ("name",), [])


# Ciphers and hashes

@click.command("list_ciphers", cls=Command)
@common
@click.pass_obj
def list_ciphers(options: Options) -> None:
    """List ciphers of encrypted settings: none.

    The configuration has no encrypted values.
    """
    options.announce("Listing supported ciphers ...")
    options.say([], ["[]"])


@click.command("list_hashes", cls=Command)
@common
@click.pass_obj
def list_hashes(options: Options) -> None:
    """List hashes of encrypted settings: none.

    The configuration has no encrypted values.
    """
    options.announce("Listing supported hash algorithms ...")
    options.say([], ["[]"])


@click.command("cipher_suites", cls=Command)
@click.option("--format", "style", type=click.Choice(["openssl"]), default="openssl",
              help="The form of the names.  [default: openssl]")
@click.option("--all", "shows_all", is_flag=True, help="Also those that must be enabled.")
@common
@click.pass_obj
def cipher_suites(options: Options, style: str, *, shows_all: bool) -> None:
    """List the ciphers of TLS listeners.

    They are those of this machine's OpenSSL. No broker is asked.
    """
    import ssl
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    if shows_all:
        context.set_ciphers("ALL")
    options.announce("Listing available cipher suites in OpenSSL format")
    names = [cipher["name"] for cipher in context.get_ciphers()]
    options.say({"cipher_suites": names, "format": style}, names)


@click.command("tls_versions", cls=Command)
@common
@click.pass_obj
def tls_versions(options: Options) -> None:
    """List the versions of TLS that can be used. No broker is asked."""
    options.announce("Listing all TLS versions supported by the runtime...")
    names = ["tlsv1.3", "tlsv1.2"]
    options.say(names, names)


@click.command("hash_password", cls=Command)
@click.argument("password", required=False)
@common
@click.pass_obj
def hash_password(options: Options, password: str | None) -> None:
    """Hash a password, and ask no broker.

    The hash is for a definitions file or the configuration. Without PASSWORD, it is read from stdin. The hash is
    salted SHA-256, as RabbitMQ's password_hash.
    """
    from base64 import b64encode
    from hashlib import sha256
    from os import urandom

    from amqpd.ctl.users import read_password
    chosen = read_password(password)
    if not chosen:
        raise Failure("Bad argument: password cannot be an empty string", EXIT_UNAVAILABLE)
    salt = urandom(4)
    options.announce("Will hash the password")
    options.say(b64encode(salt + sha256(salt + chosen.encode()).digest()).decode())
