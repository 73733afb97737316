"""Guards of a sweep: one state and one driver a study, and limits of seconds and memory for each attempt at a trial."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

T = TypeVar("T")
WATCHDOG = Path(__file__).with_name("watchdog.py")
LOCK_SECONDS = 5.0
"""Wait this long for the lock of a sweep; that of a killed driver is free within 0.04 s."""


class SweepBusyError(RuntimeError):
    """Another process runs this sweep."""


class SweepHaltedError(RuntimeError):
    """The sweep has ended before its last trial, as somebody asked or as its budget demands; nothing is lost."""


def keep_state(study: Path, checkout: Path) -> None:
    """In a copy that DVC made for an experiment, let `state/` be that of the checkout from which it was queued.

    `dvc exp run --queue` and `--temp` run in a copy under .dvc/tmp/exps, which is removed afterwards, with all that is
    not cached: records, weights and MLflow runs would go with it.

    Args:
        study: folder of the study, absolute, in `checkout`.
        checkout: the folder that holds this code, the copy.
    """
    try:
        place = next(parent for parent in checkout.parents if parent.parts[-3:] == (".dvc", "tmp", "exps"))
    except StopIteration:
        return
    state = study / "state"
    kept = place.parents[2] / study.relative_to(checkout) / "state"
    if state.is_symlink():
        return
    if state.is_dir():  # DVC makes folders of outputs
        for folder in sorted((path for path in state.rglob("*") if path.is_dir()), reverse=True):
            folder.rmdir()
        state.rmdir()
    (kept / "records").mkdir(parents=True, exist_ok=True)
    state.symlink_to(kept, target_is_directory=True)


@contextmanager
def sweep_lock(state: Path) -> Iterator[None]:
    """Hold the lock of the study whose state folder is `state`: one process runs its sweep or delivers its records.

    Raises:
        SweepBusyError: another process holds it.
    """
    state.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(state / "sweep.lock").acquire(timeout=LOCK_SECONDS)
    except Timeout:
        raise SweepBusyError(
            f"another process runs the sweep of {state.parent}; wait until it ends or stop it"
        ) from None
    with held:
        yield


@dataclass(frozen=True)
class Limits:
    """Limits of one attempt at a trial; None: no limit."""

    seconds: float | None = None
    memory_bytes: int | None = None


@dataclass
class Budget:
    """Hours of trials after which none starts."""

    hours: float
    spent_seconds: float
    """Of the trials that have ended, in earlier runs too."""

    def is_spent(self, running_seconds: float = 0.0) -> bool:
        return self.spent_seconds + running_seconds >= 3600 * self.hours

    @property
    def reason(self) -> str:
        return (
            f"the budget of {self.hours:g} hours of trials is spent (sweep.budget_hours: raise it to go on)"
        )


NO_LIMITS = Limits()


@contextmanager
def enforce_limits(limits: Limits, kill_reason_file: Path) -> Iterator[None]:
    """Run the block under `limits`: if it breaks one, this process is killed and `kill_reason_file` says why.

    A kill from outside, since code in C that hangs holds the interpreter: no signal handler and no exception would end
    it. And before memory runs out: Ray and the kernel end whichever process they choose, and its trial is tried again.
    """
    if limits == NO_LIMITS:
        yield
        return
    numbers = [os.getpid(), limits.seconds or 0, limits.memory_bytes or 0]
    # As a script, isolated (-I) and without site-packages (-S): importing this package would take seconds.
    command = [sys.executable, "-I", "-S", WATCHDOG, *numbers, kill_reason_file]
    watchdog = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        watchdog.terminate()
        watchdog.wait()


def pop_kill_reason(kill_reason_file: Path) -> str | None:
    """Return why the watchdog ended the last attempt and remove the file; None if it did not."""
    try:
        reason = kill_reason_file.read_text()
    except FileNotFoundError:
        return None
    kill_reason_file.unlink()
    return reason


def answer_within(seconds: float, request: Callable[[], T]) -> T:
    """Return what `request` does, from a thread that is left behind if it hangs: a mount or a server may never answer.

    Raises:
        TimeoutError: it did not return within `seconds`.
    """
    answers: queue.SimpleQueue[tuple[T, None] | tuple[None, Exception]] = queue.SimpleQueue()

    def work() -> None:
        try:
            answers.put((request(), None))
        except Exception as error:
            answers.put((None, error))

    threading.Thread(target=work, daemon=True, name="request").start()
    try:
        answer, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:.0f} s") from None
    if error is not None:
        raise error
    return answer  # type: ignore[return-value]
