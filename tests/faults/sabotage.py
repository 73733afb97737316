"""Faults that a test puts into the workers of a sweep: training that lets one happen at an epoch of a trial."""

from __future__ import annotations

import ctypes
import os
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from dmlcore.training import EpochReport, TrialResult, run_trial
from dmlcore.training.store import TrialStore

PATIENCE_SECONDS = float(os.environ.get("DMLCORE_PATIENCE_SECONDS", "300"))
"""On a machine that does other things, more may be needed."""
HOARD_BYTES = 3_000_000_000
"""Where a hoarder stops, for the sake of the machine, if nothing has ended it."""


@dataclass(frozen=True)
class Fault:
    """What happens in the worker when a trial has ended `epoch`, before the checkpoint of that epoch."""

    epoch: int
    action: Callable[[], None]
    always: bool = False
    """At each attempt, not at the first alone."""


@dataclass(frozen=True)
class Saboteur:
    """In place of `run_trial`: the same with faults. Trials are tiny, so a checkpoint is written at every epoch."""

    marks: Path
    """A folder for what has happened."""
    faults: Mapping[str, tuple[Fault, ...]]
    """Name of a trial's store folder -> its faults."""

    def __call__(
        self, *arguments: Any, store: TrialStore, report: Callable[[EpochReport], None], **named: Any
    ) -> TrialResult:
        def with_faults(epoch: EpochReport) -> None:
            report(epoch)
            for fault in self.faults.get(store.folder.name, ()):
                mark = self.marks / f"{store.folder.name}-{epoch.epoch}"
                if fault.epoch == epoch.epoch and (fault.always or not mark.exists()):
                    mark.touch()
                    fault.action()

        return run_trial(*arguments, store=store, report=with_faults, checkpoint_seconds=0.0, **named)


@dataclass(frozen=True)
class Gate:
    """A worker that calls it says its process id and waits until the test opens the gate."""

    path: Path

    def __call__(self) -> None:
        temporary = self.path.with_suffix(".part")
        temporary.write_text(str(os.getpid()))
        temporary.replace(self.path.with_suffix(".pid"))
        wait_for(self.path.with_suffix(".open").exists)

    def pid(self) -> int:
        """Of the worker that waits; waits for it."""
        wait_for(self.path.with_suffix(".pid").exists)
        return int(self.path.with_suffix(".pid").read_text())

    def open(self) -> None:
        self.path.with_suffix(".open").touch()


@dataclass(frozen=True)
class DetachedGate(Gate):
    """A gate for a worker that is to be stopped and orphaned: in its node's session the kernel would wake it then."""

    def __call__(self) -> None:
        os.setpgid(0, os.getpgid(os.getppid()))
        os.setsid()
        super().__call__()


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "what the test waits for did not happen"
        time.sleep(0.02)


@contextmanager
def meanwhile(action: Callable[[], None]):
    """Run `action` in another thread during the block; its error is raised at the end."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(action)
        yield
        future.result(PATIENCE_SECONDS)


def raylet_of(worker: int) -> psutil.Process:
    """The process of the Ray node that started a worker."""
    return next(parent for parent in psutil.Process(worker).parents() if parent.name() == "raylet")


def segfault() -> None:
    ctypes.string_at(0)


def hang() -> None:
    """In C, as a defect of a library would: no signal handler and no other thread of Python runs."""
    re.match(r"(a+)+$", "a" * 60 + "b")


def hoard() -> None:
    """Take memory until something ends this process."""
    blocks = []
    while len(blocks) * 20_000_000 < HOARD_BYTES:
        blocks.append(bytearray(b"\1" * 20_000_000))
    raise AssertionError(f"nothing ended a process that took {HOARD_BYTES} bytes")
