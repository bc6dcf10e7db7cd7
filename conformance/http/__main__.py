"""Record what RabbitMQ answers, or show a record: `python -m conformance.http record --http URL --broker URL`."""
from __future__ import annotations

import argparse
import json
import sys

from conformance.http import recording, rights
from conformance.http.api import Api
from conformance.http.scenarios import SCENARIOS


def main() -> int:
    """Do what the first word says; exit code 1 if two runs of RabbitMQ differ."""
    parser = argparse.ArgumentParser(prog="python -m conformance.http", description=__doc__)
    words = parser.add_subparsers(dest="word", required=True)
    record = words.add_parser("record", help="play scenarios on RabbitMQ, and write or extend their records")
    record.add_argument("--broker", default="amqp://guest:guest@127.0.0.1:5672/", help="its AMQP url")
    record.add_argument("--http", default="http://guest:guest@127.0.0.1:15672", help="its management url")
    record.add_argument("--ctl", help="the command that takes rabbitmqctl's words; alarms are not recorded without it")
    record.add_argument("--fresh", action="store_true", help="forget earlier runs")
    record.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="by default all")
    show = words.add_parser("show", help="print records, indented")
    show.add_argument("text", nargs="?", default="", help="of the requests with this in them, such as `GET /queues`")
    options = parser.parse_args()
    return shown(options.text) if options.word == "show" else recorded(options)


def recorded(options: argparse.Namespace) -> int:
    """Record scenarios; tell what is not the same each time."""
    api = Api.at(options.http)
    statistics = api.has_statistics()
    names = options.scenarios or [name for name, one in SCENARIOS.items()
                                  if one.statistics == statistics and (options.ctl or not one.ctl)]
    problems: list[str] = []
    for name in names:
        print(name, flush=True)
        problems += recording.record(SCENARIOS[name], api, options.broker, options.ctl, fresh=options.fresh)
    if not options.scenarios and statistics:
        problems += rights_recorded(api, options)
    print("\n".join(problems), file=sys.stderr)
    return 1 if problems else 0


def rights_recorded(api: Api, options: argparse.Namespace) -> list[str]:
    """Record who may do what; returns what differs from an earlier run."""
    before, now = rights.read(), rights.table(api, options.broker)
    rights.write(now, recording.product_of(api))
    if options.fresh or not before:
        return []
    return [f"{name}: was {before.get(name)}, is {row}" for name, row in now.items() if before.get(name) != row]


def shown(text: str) -> int:
    """Print the entries whose request has this text."""
    for scenario in SCENARIOS.values():
        for entry in recording.read(scenario):
            if text in entry["request"]:
                print(f"# {scenario.name}\n{json.dumps(entry, indent=2, ensure_ascii=False)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
