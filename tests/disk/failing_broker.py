"""A broker on a disk that fails: `python failing_broker.py DIRECTORY KIND NTH HOW serve …`.

The fault is one of `tests/support/disk.py`; the operations during the start count too.
"""

from __future__ import annotations

import sys
from pathlib import Path

from amqpd.cli import main
from tests.support.disk import Disk, Fault

if __name__ == "__main__":
    directory, kind, nth, how, *arguments = sys.argv[1:]
    with Disk(Path(directory), Fault(kind, int(nth), how)).at_work():
        sys.exit(main(arguments))
