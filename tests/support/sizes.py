"""How much the longest tests try: a sample, or as much as a proof needs if PROOF is set, as by `make proof`."""

from __future__ import annotations

import os

IS_PROOF = os.environ.get("PROOF", "") not in ("", "0")


def sized(sample: int, proof: int, variable: str = "") -> int:
    """Return how much to test; an environment variable may override it."""
    return int(os.environ.get(variable) or (proof if IS_PROOF else sample))
