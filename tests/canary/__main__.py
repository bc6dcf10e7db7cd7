"""`python -m tests.canary`: run attacks by hand, in their long form, on an amqpd of their own or a running broker.

Prints a line for each attack; the exit code is 1 if a result is out of bounds. `--broker` also needs the command of the
operator, as one string: rabbitmqctl, or `python3 conformance/rabbitmq.py --ctl-of DIR --`.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from contextlib import AbstractContextManager

from conformance.client import parse_url
from tests.canary.brokers import Broker, given_broker, own_broker
from tests.canary.measure import run
from tests.canary.shape import Shape
from tests.canary.shapes import SHAPES


def main() -> int:
    """Run the shapes that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.canary", description=__doc__)
    parser.add_argument("shapes", nargs="*", help="names, or parts of names; all without any")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long an attack goes on that has no end")
    parser.add_argument("--short", action="store_true", help="the numbers of the short form")
    parser.add_argument("--broker", help="amqp://HOST:PORT of a broker that runs")
    parser.add_argument("--ctl", default="", help="what its operator calls")
    parser.add_argument("--http", type=int, default=0, help="the port of its management API")
    parser.add_argument("--pid", type=int, default=0, help="its process, for its size and for SIGSTOP")
    options = parser.parse_args()
    for part in options.shapes:
        if not any(is_asked_for(shape, [part]) for shape in SHAPES.values()):
            parser.error(f"no shape has {part!r} in its name or as its number")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))       # so that what was started is ended
    failed = []
    for name, shape in SHAPES.items():
        if not is_asked_for(shape, options.shapes):
            continue
        with broker_for(shape, options) as broker:
            outcome = run(shape, broker, is_long=not options.short, seconds=options.seconds,
                          checks_memory=not options.broker)
        print(outcome.figures, flush=True)
        for finding in outcome.findings:
            print(f"    {finding}", flush=True)
        failed += [name] if outcome.findings else []
    print(f"{len(failed)} shapes failed: {', '.join(failed)}" if failed else "all as it has to be")
    return int(bool(failed))


def is_asked_for(shape: Shape, parts: list[str]) -> bool:
    """Whether a shape was named, by a part of its name or by its number; those of the measure's own tests must be."""
    if not parts:
        return shape.number != "measure"
    return any(part in shape.name or part == shape.number for part in parts)


def broker_for(shape: Shape, options: argparse.Namespace) -> AbstractContextManager[Broker]:
    """The broker that is to be attacked."""
    if not options.broker:
        return own_broker(shape)
    url = parse_url(options.broker)
    return given_broker(url.host, url.port, options.pid, shlex.split(options.ctl), options.http)


if __name__ == "__main__":
    sys.exit(main())
