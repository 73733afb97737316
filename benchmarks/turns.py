"""Let groups of processes run in turns, so that a machine whose speed drifts meets all of them alike."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterable

import psutil

TURN = 1.0
"""Seconds. Short against the drift, which is within seconds too, long against a switch."""


class Group:
    """Processes that run together: those given and all that they start."""

    def __init__(self, processes: Iterable[subprocess.Popen[str]]) -> None:
        self.processes = list(processes)
        self.turns: list[tuple[float, float]] = []
        """From when to when they ran, by `time.time()`."""
        self._members: list[psutil.Process] = []
        self.stop()

    @property
    def ended(self) -> bool:
        return all(process.poll() is not None for process in self.processes)

    def run_for(self, seconds: float) -> None:
        """Let the group, which was stopped, run for so long or until it ends, then stop it."""
        began, until = time.time(), time.monotonic() + seconds
        self.release()
        while not self.ended and time.monotonic() < until:
            time.sleep(0.02)
        members = self._family()  # looking for them takes a while, in which they still run
        _signal(members, signal.SIGSTOP)
        self.turns.append((began, time.time()))
        self._members = members
        self.stop()

    def stop(self) -> None:
        """Stop all of them, those that were born meanwhile too."""
        while born := [each for each in self._family() if each not in self._members]:
            _signal(born, signal.SIGSTOP)
            self._members += born

    def release(self) -> None:
        """Let all that were stopped run on."""
        _signal(self._members, signal.SIGCONT)
        self._members = []

    def at(self, moment: float) -> float:
        """How many seconds the group had run by `moment` of `time.time()`."""
        return sum(min(end, moment) - begin for begin, end in self.turns if begin < moment)

    def _family(self) -> list[psutil.Process]:
        found = []
        for process in self.processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                parent = psutil.Process(process.pid)
                found += [parent, *parent.children(recursive=True)]
        return found


def _signal(processes: Iterable[psutil.Process], what: signal.Signals) -> None:
    for each in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.send_signal(what)


def in_turns(groups: list[Group]) -> None:
    """Run `groups`, stopped so far, to their end: one at a time for `TURN` seconds, the last that is left alone."""
    try:
        while waiting := [group for group in groups if not group.ended]:
            for group in waiting:
                group.run_for(TURN if len(waiting) > 1 else TURN * 10)
    finally:
        for group in groups:
            group.release()
