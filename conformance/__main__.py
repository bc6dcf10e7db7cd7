"""Run the suite against a broker: `python -m conformance amqp://guest:guest@127.0.0.1:5672/`.

All other arguments are those of pytest and of the suite: --restart, --ctl, --consumer-timeout, --http, --profile, -k …
"""
from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
USAGE = """\
usage: amqp-conformance URL [OPTION]...
       python -m conformance URL [OPTION]...

Ask the AMQP 0-9-1 broker at URL what clients of RabbitMQ rely on, and print a table by chapter. Queues, exchanges and
vhosts that the tests make have names of their own, and are deleted. Exit codes are pytest's: 0 when no test failed.

  --restart COMMAND        stops the broker cleanly, starts it on the same data and port, returns when it serves clients
  --ctl COMMAND            takes rabbitmqctl's words, such as `set_policy ...`
  --consumer-timeout MS    the consumer timeout that the broker was started with, some seconds
  --http URL               the broker's management API, http://USER:PASSWORD@HOST:PORT
  --programs PYTHON        has pyrabbit2, flower and celery, which are run against that API
  --profile NAME           what the broker can do: a name in conformance/brokers, or a path of such a file

Other options are pytest's: -k dead_letter, -x, --junitxml FILE, -rs; `test_ttl.py` runs that file alone. README.md
explains the table.
"""


def main(words: list[str] | None = None) -> int:
    """Run the suite as pytest would; returns its exit code."""
    words = sys.argv[1:] if words is None else words
    if not words or words[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if words else int(pytest.ExitCode.USAGE_ERROR)
    url, *options = words
    if not url.startswith("amqp://"):
        print(f"the first word must be the broker's url, amqp://…, not {url!r}", file=sys.stderr)
        return int(pytest.ExitCode.USAGE_ERROR)
    tests = [str(HERE / word) for word in options if is_test(word)] or [str(HERE)]
    others = [word for word in options if not is_test(word)]
    return int(pytest.main(["-c", str(HERE / "suite.ini"), "--broker", url, *others, *tests]))


def is_test(word: str) -> bool:
    """Return whether this word names a file of the suite, or a test in it: `test_ttl.py::test_…`."""
    file = HERE / word.partition("::")[0]
    return file.name.startswith("test_") and file.is_file()


if __name__ == "__main__":
    sys.exit(main())
