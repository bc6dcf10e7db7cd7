"""Faults instead of attacks, to check that the measurement detects them. They run only if they are named."""

from __future__ import annotations

import os
import signal
import time

from tests.canary.shape import World, shape


@shape("measured-pause", "measure", in_ci=False)
def pause(world: World) -> None:
    """A broker that does nothing for 400 ms."""
    os.kill(world.pid, signal.SIGSTOP)
    time.sleep(0.4)
    os.kill(world.pid, signal.SIGCONT)


@shape("measured-death", "measure", in_ci=False)
def death(world: World) -> None:
    """A broker that ends."""
    os.kill(world.pid, signal.SIGKILL)


@shape("measured-complaint", "measure", in_ci=False)
def complaint(world: World) -> None:
    """An attacker who finds that something is wrong."""
    raise AssertionError("it is as I say")
