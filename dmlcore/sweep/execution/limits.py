"""Limits of a trial: seconds and memory, kept by a watchdog process; and of a sweep: bytes on disk."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dmlcore.sweep.dry_run.forecast import disk_estimate, folder_bytes
from dmlcore.sweep.plan import PlannedTrial

WATCHDOG = Path(__file__).with_name("watchdog.py")


@dataclass(frozen=True)
class Limits:
    """Of one attempt at a trial; None: no limit."""

    seconds: float | None = None
    memory_bytes: int | None = None


NO_LIMITS = Limits()


@contextmanager
def enforce_limits(limits: Limits, kill_reason_file: Path) -> Iterator[None]:
    """Run the block under `limits`: where it breaks one, this process is killed and `kill_reason_file` says why.

    A kill, since neither a signal nor an exception ends code in C that hangs; and before memory runs out, since Ray's
    own kill for want of memory ends the whole sweep.
    """
    if limits == NO_LIMITS:
        yield
        return
    numbers = [os.getpid(), limits.seconds or 0, limits.memory_bytes or 0]
    command = [sys.executable, "-I", "-S", WATCHDOG, *numbers, kill_reason_file]
    watchdog = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        watchdog.terminate()
        watchdog.wait()


def pop_kill_reason(kill_reason_file: Path) -> str | None:
    """Why the watchdog ended the last attempt, told once; None where it did not."""
    try:
        reason = kill_reason_file.read_text()
    except FileNotFoundError:
        return None
    kill_reason_file.unlink()
    return reason


def over_budget(
    trials: Sequence[PlannedTrial], storage: Path, budget_bytes: int | None, concurrent: int
) -> dict[str, str]:
    """Which trials must not start because their files would not fit into the sweep's disk budget.

    What lies in `storage` counts, whoever left it there; features that trials share count once they are there.

    Args:
        trials: those to run, in their order: earlier ones are served first.
        storage: the folder of checkpoints and embeddings.
        budget_bytes: its largest size; None: no limit.
        concurrent: how many trials run, and keep a checkpoint to go on from, at a time.

    Returns:
        Trial key -> the error for its record.
    """
    if budget_bytes is None or not trials:
        return {}
    needs = {trial.key: disk_estimate(trial) for trial in trials}
    there = folder_bytes(storage)
    taken = there + min(concurrent, len(trials)) * max(need.passing for need in needs.values())
    refused = {}
    for trial in trials:
        more = max(0, needs[trial.key].kept - folder_bytes(trial.store_folder))
        if taken + more > budget_bytes:
            refused[trial.key] = (
                f"disk budget: the sweep may keep {budget_bytes} bytes (sweep.disk_budget_bytes), {there} lie in "
                f"{storage} and this trial needs {more} more; it was not started: raise the budget or remove trials"
            )
        else:
            taken += more
    return refused
