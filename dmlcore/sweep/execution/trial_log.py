"""A trial's own output: what its process writes while it runs, kept a trial in `state/logs`, with a size limit."""

from __future__ import annotations

import io
import os
import platform
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from dmlcore.records import TrialRecord
from dmlcore.training.checkpoint import EpochReport

LIMIT_BYTES = 1 << 20
"""Above this the older half is cut, looked at once a second."""
CUT = b"[earlier output was cut]\n"


def log_file(state: Path, trial_key: str) -> Path:
    """Return where the output of a trial is kept."""
    return state / "logs" / f"{trial_key}.log"


@contextmanager
def kept_output(file: Path) -> Iterator[None]:
    """Append to `file` what this process writes to stdout and stderr in the block, by code in C too.

    The process writes to the file itself: nothing is lost when it is killed. A file that cannot be opened costs the
    output, not the trial.
    """
    with ExitStack() as stack:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            opened = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            print(f"the output of this trial is not kept: {error}", file=sys.stderr)
        else:
            stack.callback(os.close, opened)
            stack.enter_context(_trimmed(opened))
            stack.enter_context(_redirected(opened))
            _say(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} process {os.getpid()} on {platform.node()}")
        try:
            yield
        except BaseException:
            _say(traceback.format_exc())
            raise


def say_epoch(epoch: EpochReport, epochs: int) -> None:
    """Write the line of an epoch."""
    metrics = "  ".join(f"{name} {value:.5g}" for name, value in epoch.metrics.items())
    _say(f"epoch {epoch.epoch}/{epochs}  {metrics}")


def say_end(record: TrialRecord) -> None:
    """Write how an attempt ended, with its traceback."""
    _say("\n".join(filter(None, (record.details, f"--- {record.status}", record.error))))


def _say(text: str) -> None:
    with suppress(OSError):  # a full disk: the trial may yet do without
        print(text, flush=True)


@contextmanager
def _redirected(opened: int) -> Iterator[None]:
    """Let file descriptors 1 and 2 be `opened`; Python's own streams write to them."""
    before = {number: os.dup(number) for number in (1, 2)}
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a killed process leaves its buffer behind
    _flush()
    for number in before:
        os.dup2(opened, number)
    try:
        yield
    finally:
        _flush()
        for number, earlier in before.items():
            os.dup2(earlier, number)
            os.close(earlier)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()


@contextmanager
def _trimmed(opened: int) -> Iterator[None]:
    """Keep the file within its limit, by a thread and at the end."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(1.0):
            trim(opened)

    thread = threading.Thread(target=watch, daemon=True, name="trial log")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        trim(opened)


def trim(opened: int) -> None:
    """Cut the older part of a file, opened to append, that is above its limit."""
    with suppress(OSError):
        size = os.fstat(opened).st_size
        if size > LIMIT_BYTES:
            kept = os.pread(opened, LIMIT_BYTES // 2, size - LIMIT_BYTES // 2)
            os.ftruncate(opened, 0)
            os.write(opened, CUT + kept.partition(b"\n")[2])
