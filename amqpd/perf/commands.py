"""The options of `amqpperf`, named as RabbitMQ's PerfTest has them where they mean the same."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from typing import Any

import click
import msgspec

from amqpd import __version__
from amqpd.exit_codes import EXIT_IO, EXIT_OK
from amqpd.perf.address import DEFAULT_URL, Address, read_url
from amqpd.perf.coordinator import Run
from amqpd.perf.failure import RunFailure
from amqpd.perf.plan import CHURN, Plan
from amqpd.perf.summary import Summary
from amqpd.perf.topology import Topology
from amqpd.program import Failure, complain, run

LATENCY_RATE = 1_000.0      # of a producer, where the latency is wanted and no rate is named
EXCHANGE_TYPES = ["direct", "fanout", "topic", "headers"]
DURABLE_TYPES = ("quorum", "stream")
_BOOLEANS = {"true": True, "false": False}


def _read_arguments(ctx: click.Context, param: click.Parameter, value: str | None) -> dict[str, Any]:
    """Return the arguments of a queue, with numbers and booleans for what looks like them."""
    found: dict[str, Any] = {}
    for one in value.split(",") if value else ():
        key, is_pair, text = one.partition("=")
        if not is_pair or not key:
            raise click.BadParameter(f"{one!r} is not NAME=VALUE", ctx, param)
        digits = text.removeprefix("-")
        found[key] = int(text) if digits.isascii() and digits.isdigit() else _BOOLEANS.get(text, text)
    return found


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="amqpperf", message="%(prog)s %(version)s")
@click.argument("url", envvar="AMQP_URL", default=DEFAULT_URL, required=False)
@click.option("--workload", type=click.Choice(["throughput", "latency", *sorted(CHURN)]), default="throughput",
              show_default=True, help="What to do: throughput; latency, which is the same at 1000 messages a second "
              "unless --rate is given; or open and close connections, channels or queues.")
@click.option("-x", "--producers", type=click.IntRange(0, 10_000), default=1, show_default=True,
              help="Number of producers, or of those who open and close.")
@click.option("-y", "--consumers", type=click.IntRange(0, 10_000), default=1, show_default=True,
              help="Number of consumers.")
@click.option("--queues", type=click.IntRange(1, 10_000), default=1, show_default=True, help="Number of queues.")
@click.option("-u", "--queue", metavar="NAME", help="Name of the queue; several are NAME-1, NAME-2 and so on. A queue "
              "that exists is used and not deleted.  [default: a new name]")
@click.option("-s", "--size", metavar="BYTES", type=click.IntRange(0, 512 * 1024 * 1024), default=12, show_default=True,
              help="Size of a message. Latency is measured from 8 bytes on.")
@click.option("-r", "--rate", type=click.FloatRange(0), help="Messages, or operations, a second of each producer.  "
              "[default: as many as possible]")
@click.option("--persistent", is_flag=True, help="Persistent messages, in durable queues.")
@click.option("--mandatory", is_flag=True, help="Count messages that come back without a route.")
@click.option("--priority", type=click.IntRange(0, 255), help="Priority of the messages.")
@click.option("-c", "--confirm", metavar="N", type=click.IntRange(1),
              help="Use confirms; so many publishes of a producer may be unconfirmed.")
@click.option("-q", "--prefetch", metavar="N", type=click.IntRange(0, 65_535), default=1_000, show_default=True,
              help="Unacknowledged deliveries of a consumer; 0 is no limit.")
@click.option("--ack/--auto-ack", "is_acking", default=True, help="Acknowledge deliveries, or consume without that.  "
              "[default: ack]")
@click.option("-A", "--multi-ack", metavar="N", type=click.IntRange(1, 65_535), default=1, show_default=True,
              help="Acknowledge N deliveries with one ack.")
@click.option("-z", "--duration", metavar="SECONDS", type=click.FloatRange(0.1),
              help="End after so many seconds.  [default: at Ctrl-C]")
@click.option("-C", "--count", metavar="N", type=click.IntRange(1),
              help="End when each producer has published N messages and they are consumed.")
@click.option("-e", "--exchange", metavar="NAME", help="Publish to this exchange, to which the queues are bound.  "
              "[default: the default exchange]")
@click.option("-t", "--type", "exchange_type", type=click.Choice(EXCHANGE_TYPES),
              help="Declare the exchange, of this type, if it does not exist.")
@click.option("-k", "--routing-key", metavar="KEY",
              help="Publish and bind with this key.  [default: each queue's name]")
@click.option("--queue-args", metavar="NAME=VALUE,...", callback=_read_arguments,
              help="Arguments of the queues, such as x-max-length=1000,x-queue-type=quorum.")
@click.option("-p", "--predeclared", is_flag=True, help="Declare and delete nothing; --queue or --exchange must exist.")
@click.option("--processes", type=click.IntRange(1, 256), default=1, show_default=True,
              help="Share the connections among so many processes.")
@click.option("--json", "json_file", metavar="FILE",
              help="Write the summary as JSON to FILE; - is stdout, and then all else goes to stderr.")
@click.option("--quiet", is_flag=True, help="No live line.")
@click.option("--ca", metavar="FILE", default="",
              help="The CAs that are trusted with amqps://.  [default: the system's]")
@click.option("--certificate", metavar="FILE", default="", help="A client certificate for amqps://.")
@click.option("--key", metavar="FILE", default="", help="Its key, if it is in another file.")
@click.option("--insecure", is_flag=True, help="Trust any certificate with amqps://.")
def amqpperf(url: str, **options: Any) -> None:
    """Load an AMQP 0-9-1 broker and measure it.

    URL names the broker, as amqp://USER:PASSWORD@HOST:PORT/VHOST or amqps://…, and may be in the variable AMQP_URL.
    Ctrl-C ends a run with its summary. The run's queues and exchange are deleted.

    \b
    amqpperf -z 10                                          guest at 127.0.0.1:5672
    amqpperf amqp://app:secret@mq:5672/shop --persistent --confirm 1000 -s 200 -z 30
    amqpperf --workload latency --rate 500 -z 10 --json result.json
    amqpperf --workload churn-connections -x 4 -z 10
    """
    try:
        address = _address(url, options)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="'URL'") from None
    plan = _plan(address, options)
    exchange_type = options["exchange_type"] or ""
    topology = Topology(plan, exchange_type, options["routing_key"], options["predeclared"])
    to_stderr = options["json_file"] == "-"

    def show(line: str) -> None:
        if not options["quiet"]:
            click.echo(line, err=to_stderr)

    whole = Run(plan, topology, options["processes"], options["duration"] or 0.0, show)
    try:
        summary = whole.run()
    except RunFailure as failure:
        raise Failure(failure.text, failure.exit_code) from None
    click.echo(summary.as_text(), err=to_stderr)
    _write_json(options["json_file"], summary)
    if whole.failure is not None:
        complain("amqpperf", whole.failure.text)
    raise click.exceptions.Exit(whole.failure.exit_code if whole.failure else EXIT_OK)


def _address(url: str, options: dict[str, Any]) -> Address:
    address = read_url(url)
    return msgspec.structs.replace(
        address, ca=options["ca"], certificate=options["certificate"], key=options["key"],
        is_verified=not options["insecure"])


def _plan(address: Address, options: dict[str, Any]) -> Plan:
    workload = options["workload"]
    is_churn = workload in CHURN
    producers, consumers = options["producers"], 0 if is_churn else options["consumers"]
    if not producers and not consumers:
        raise click.UsageError("There are neither producers nor consumers.")
    ack_every = options["multi_ack"] if options["is_acking"] else 0
    if 0 < options["prefetch"] < ack_every:
        raise click.UsageError(
            f"--multi-ack {ack_every} never comes with --prefetch {options['prefetch']}: make the prefetch larger.")
    if options["predeclared"] and not options["queue"] and (consumers or not options["exchange"]):
        raise click.UsageError("--predeclared needs --queue NAME, or --exchange NAME with --consumers 0.")
    run_id = secrets.token_hex(4)
    exchange = options["exchange"] or (f"amqpperf.{run_id}" if options["exchange_type"] else "")
    has_no_queue = is_churn or options["predeclared"] and not options["queue"]
    queues = () if has_no_queue else _names(options["queue"] or f"amqpperf.{run_id}", options["queues"])
    keys = (options["routing_key"],) if options["routing_key"] is not None else queues or ("",)
    arguments = options["queue_args"]
    rate = options["rate"] or (LATENCY_RATE if workload == "latency" else 0.0)
    return Plan(
        address=address, workload=workload, run_id=run_id, producers=producers, consumers=consumers,
        queues=queues, exchange=exchange, keys=keys, size=options["size"], rate=rate, count=options["count"] or 0,
        is_persistent=options["persistent"], is_mandatory=options["mandatory"], priority=options["priority"],
        confirm=options["confirm"] or 0, prefetch=options["prefetch"], ack_every=ack_every,
        queue_arguments=arguments, is_durable=options["persistent"] or arguments.get("x-queue-type") in DURABLE_TYPES)


def _names(name: str, count: int) -> tuple[str, ...]:
    """Return the names of the queues: all equally long, so that all deliveries of a size have the same form."""
    width = len(str(count))
    return (name,) if count == 1 else tuple(f"{name}-{number:0{width}}" for number in range(1, count + 1))


def _write_json(file: str | None, summary: Summary) -> None:
    if file is None:
        return
    text = json.dumps(summary.as_json(), indent=2)
    if file == "-":
        click.echo(text)
        return
    try:
        with open(file, "w") as target:
            target.write(text + "\n")
    except OSError as error:
        raise Failure(f"cannot write {file}: {error.strerror}; the summary is above", EXIT_IO) from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program `amqpperf` and return the exit code."""
    return run(amqpperf, arguments)
