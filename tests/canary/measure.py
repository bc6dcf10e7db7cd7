"""Run one attack with a canary beside it, and return the figures.

This takes three processes beside this one. While they run, this process sleeps in steps of 5 ms and notes how late it
wakes up: this delay is caused by the machine and not by the broker.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.canary.brokers import Broker
from tests.canary.figures import P99_MS, WORST_MS, Figures, Round, delays_of
from tests.canary.shape import Shape, resident_mib

ROOT = Path(__file__).resolve().parents[2]
IDLE_S = 0.5
AFTER_S = 0.4
GIVE_UP_S = 600.0
STEP_S = 0.005


class Outcome(NamedTuple):
    """The figures of a run, and what was wrong with it."""

    figures: Figures
    findings: list[str]


class Bird:
    """The canary's process, and what it has written so far."""

    def __init__(self, broker: Broker) -> None:
        self.rounds: list[Round] = []
        self.cut = ""
        there = broker.address("canary", "canary")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.canary.bird", there.host, str(there.port), there.user, there.password,
             there.vhost, str(broker.pid)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("cut"):
                self.cut = line[4:].strip()
            else:
                self.rounds.append(Round(*map(float, line.split())))

    def await_round_after(self, moment: float, limit_s: float) -> bool:
        """Wait for a round that was begun after this moment; whether there is one."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline and not self.cut:
            if self.rounds and self.rounds[-1].begun > moment:
                return True
            time.sleep(0.01)
        return False

    def end(self) -> None:
        """Let it end, or end it where the broker does not let it."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(1)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join()
        self.process.stdout.close()


class Watch:
    """A thread that measures the worst delay of its own wake-ups, and the largest memory of the broker."""

    def __init__(self, pid: int) -> None:
        self.late_s = 0.0
        self.before_mib = self.largest_mib = resident_mib(pid)
        self._pid = pid
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look_on)
        self._thread.start()

    def _look_on(self) -> None:
        while not self._is_over.is_set():
            begun = time.monotonic()
            time.sleep(STEP_S)
            self.late_s = max(self.late_s, time.monotonic() - begun - STEP_S)
            self.largest_mib = max(self.largest_mib, resident_mib(self._pid))

    def end(self) -> None:
        """Stop looking."""
        self._is_over.set()
        self._thread.join()


@contextmanager
def canary_on(broker: Broker) -> Iterator[Bird]:
    """A canary that sings."""
    bird = Bird(broker)
    try:
        assert bird.await_round_after(0, 30), f"the canary does not sing: {bird.cut}"
        yield bird
    finally:
        bird.end()


def run(shape: Shape, broker: Broker, *, is_long: bool, seconds: float, checks_memory: bool = True) -> Outcome:
    """Attack once; return the figures, and the violations."""
    with canary_on(broker) as bird:
        time.sleep(0.2)
        idle_from = time.monotonic()
        time.sleep(IDLE_S)
        watch = Watch(broker.pid)
        begun = time.monotonic()
        try:
            notes, complaint = attack(shape, broker, is_long, seconds)
            ended = time.monotonic()
            time.sleep(AFTER_S)
            hears_again = bird.await_round_after(ended, 60)
        finally:
            watch.end()
    before = [one for one in bird.rounds if one.begun >= idle_from and one.ended < begun]
    during = [one for one in bird.rounds if one.ended >= begun]
    if not hears_again and not bird.cut:
        during.append(Round(max(one.ended for one in bird.rounds), 0, float("inf"), 0))
    figures = Figures(
        shape.name, delays_of(before), delays_of(during), watch.late_s * 1_000, bird.cut, ended - begun,
        watch.largest_mib - watch.before_mib, notes)
    findings = [complaint] if complaint else []
    findings += [f"the canary was cut: {bird.cut}"] if bird.cut else []
    findings += [f"the log says {line}" for line in broker.faults()[:5]]
    findings += judge(shape, figures, checks_memory)
    return Outcome(figures, findings)


def judge(shape: Shape, figures: Figures, checks_memory: bool) -> list[str]:
    """What is over its bound. Time in line for a processor that other programs had is not the broker's."""
    findings = []
    if shape.bounds_delay and figures.attacked.own_worst_ms > WORST_MS:
        findings.append(f"the worst delay was {figures.attacked.own_worst_ms:.0f} ms, over {WORST_MS:.0f}")
    if shape.bounds_delay and figures.attacked.own_p99_ms > P99_MS:
        findings.append(f"the 99th percentile was {figures.attacked.own_p99_ms:.0f} ms, over {P99_MS:.0f}")
    if checks_memory and shape.memory_mib and figures.memory_mib > shape.memory_mib:
        findings.append(f"the broker grew by {figures.memory_mib:.0f} MiB, over {shape.memory_mib:.0f}")
    return findings


def attack(shape: Shape, broker: Broker, is_long: bool, seconds: float) -> tuple[str, str]:
    """Run the attacker's process to its end: its notes, and what it complains of."""
    world = {
        "address": vars(broker.address("attack", "attack")), "other_vhost": "other",
        "canary": vars(broker.address("canary", "canary")), "ctl_command": broker.ctl, "pid": broker.pid,
        "http_port": broker.http_port,
        "is_long": is_long, "seconds": seconds}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.canary.attacker", shape.name], cwd=ROOT, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        notes, errors = process.communicate(json.dumps(world), GIVE_UP_S if is_long else GIVE_UP_S / 10)
    except subprocess.TimeoutExpired:
        process.kill()
        notes, errors = process.communicate()
        return ", ".join(notes.split("\n")).strip(", "), "the attacker did not come to an end"
    lines = errors.strip().splitlines()
    complaint = f"the attacker says {lines[-1] if lines else process.returncode}" if process.returncode else ""
    return ", ".join(notes.strip().splitlines()), complaint
