"""The attacker's process: `python -m tests.canary.attacker NAME`, with the `World` as JSON on stdin."""

from __future__ import annotations

import json
import sys

from tests.canary.peer import Address
from tests.canary.shape import World
from tests.canary.shapes import SHAPES


def main(name: str) -> None:
    """Attack. An exception tells what the broker did wrong."""
    given = json.load(sys.stdin)
    world = World(**given | {key: Address(**given[key]) for key in ("address", "canary")})
    SHAPES[name].attack(world)


if __name__ == "__main__":
    main(sys.argv[1])
