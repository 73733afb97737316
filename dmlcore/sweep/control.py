"""What a running sweep shows to other processes, and what they ask of it: small files in `state/control`.

The driver alone writes `status.json`, at most once a second. Whoever reads trusts nothing in it, and takes it for that
of a running sweep only while the sweep's lock is held: the file of a killed driver is recognised by its free lock.
"""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, TypeVar

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from dmlcore.core.io import write_atomically
from dmlcore.core.text import is_valid_name
from dmlcore.records import KEY

LARGEST = 1 << 24
"""Bytes of the largest file that is read: ten thousand running trials are 4 MB."""

Key = Annotated[str, Field(pattern=f"^{KEY.pattern}$")]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Text = Annotated[str, Field(max_length=1000)]


def printable(text: str) -> str:
    """Return text that others wrote as one line, without what would move a terminal's cursor or its colours."""
    return "".join(letter if is_valid_name(letter) else " " for letter in text)


def choose(beginning: str, keys: Iterable[str], what: str) -> str:
    """Return the one key among `keys` that begins so; names of files that are no keys do not count.

    Raises:
        ValueError: none or several do; `what` says in the message of which kind it must be.
    """
    found = sorted({key for key in keys if KEY.fullmatch(key) and beginning and key.startswith(beginning)})
    if len(found) != 1:
        several = f"{len(found)} keys begin so" if found else "no key begins so"
        raise ValueError(f"{beginning!r:.80} must begin the key of a {what}: {several}")
    return found[0]


class _Shown(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LiveTrial(_Shown):
    """A trial that runs; times are seconds since 1970."""

    key: Key
    name: Text
    epochs: Count
    started: Seconds
    epoch: Count = 0
    node: Text | None = None
    """Host name; None until its first report."""
    first_epoch: Count | None = None
    """The first that it reported; a resumed trial does not begin at 0."""
    first_report: Seconds = 0.0
    last_report: Seconds = 0.0

    def seconds_left(self, now: float) -> float | None:
        """Extrapolate from its own epochs, evaluation after the last one not included; None before the second."""
        if self.first_epoch is None or self.epoch <= self.first_epoch:
            return None
        each = (self.last_report - self.first_report) / (self.epoch - self.first_epoch)
        return max(0.0, each * (self.epochs - self.epoch) - (now - self.last_report))


class QueuedTrial(_Shown):
    key: Key
    name: Text


class FailedTrial(QueuedTrial):
    reason: Text


class SweepStatus(_Shown):
    """How far a sweep is."""

    pid: Annotated[int, Field(ge=1)]
    host: Text
    started: Seconds
    total: Count = 0
    """Trials of this run of the stage."""
    finished: Count = 0
    failed: Count = 0
    stopped: Count = 0
    running: list[LiveTrial] = []
    queued: Count = 0
    next: list[QueuedTrial] = []
    """The first SHOWN of the queue; of a search, which draws its settings as it goes, none."""
    failures: list[FailedTrial] = []
    """The last SHOWN."""
    halted: Text | None = None
    """Why no further trial starts; None: they do."""


QUEUE = TypeAdapter(list[QueuedTrial])
T = TypeVar("T")


def _parsed(path: Path, content: bytes, what: str, parse: Callable[[bytes], T]) -> T:
    try:
        return parse(content)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise ValueError(f"{path} is not {what}: `{printable(where)}`: {fault['msg']}") from None


def _first_line(path: Path) -> str | None:
    """Return the first line of a small file that anybody may have written; None if it is not there."""
    try:
        with path.open("rb") as file:
            content = file.read(200)
    except OSError:
        return None
    return printable(content.decode(errors="replace").partition("\n")[0])


class Control:
    """The folder `state/control` of a study.

    Args:
        state: the study's state folder.
    """

    def __init__(self, state: Path) -> None:
        self.lock, self.folder = state / "sweep.lock", state / "control"

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show that this process runs a sweep, whose lock it holds, and drop requests to an earlier one."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.write(new_status())
        try:
            yield
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def write(self, status: SweepStatus) -> None:
        """Replace the status; a disk that refuses it is no reason to end a sweep."""
        try:
            write_atomically(self.folder / "status.json", status.model_dump_json())
        except OSError:
            return

    def read(self) -> SweepStatus | None:
        """Return the status that a driver wrote last, alive or killed; None if there is none.

        Raises:
            ValueError: the file holds something else.
        """
        path = self.folder / "status.json"
        try:
            with path.open("rb") as file:
                content = file.read(LARGEST)
        except FileNotFoundError:
            return None
        return _parsed(path, content, "the status of a sweep", SweepStatus.model_validate_json)

    def write_queue(self, trials: Iterable[tuple[str, str]]) -> None:
        """Write (key, name) of all trials of this run, once."""
        content = QUEUE.dump_json([QueuedTrial(key=key, name=name[:1000]) for key, name in trials])
        with suppress(OSError):
            write_atomically(self.folder / "queue.json", content)

    def known(self, status: SweepStatus) -> dict[str, str]:
        """Return key -> name of the trials of this run that are known, ended ones too.

        Raises:
            ValueError: the file holds something else.
        """
        path = self.folder / "queue.json"
        content = path.read_bytes()[:LARGEST] if path.exists() else b"[]"
        queue = _parsed(path, content, "the queue of a sweep", QUEUE.validate_json)
        running = {trial.key: trial.name for trial in status.running}
        return {trial.key: trial.name for trial in queue} | running

    def request_drain(self, by: str) -> None:
        """Ask the driver to start no further trial."""
        write_atomically(self.folder / "drain", by)

    def request_cancel(self, trial_key: str, by: str) -> None:
        """Ask the driver to end a trial, or not to start it."""
        write_atomically(self.folder / "cancel" / trial_key, by)

    def drain_requested(self) -> str | None:
        """Return who asked to drain; None: nobody has."""
        return _first_line(self.folder / "drain")

    def cancel_requests(self) -> dict[str, str]:
        """Return the key of each trial to cancel, and who asked."""
        folder = self.folder / "cancel"
        found = sorted(folder.iterdir()) if folder.is_dir() else []
        return {path.name: _first_line(path) or "?" for path in found if KEY.fullmatch(path.name)}

    def cancel_done(self, trial_key: str) -> None:
        """Remove a request that was obeyed."""
        (self.folder / "cancel" / trial_key).unlink(missing_ok=True)

    def is_running(self, status: SweepStatus | None) -> bool:
        """Return whether the driver that wrote `status` still holds the sweep's lock."""
        if status is None or not self.is_locked():
            return False
        # `dmlcore sync` takes the same lock, possibly beside the file of a killed driver.
        return status.host != platform.node() or Path(f"/proc/{status.pid}").exists() or not _has_proc()

    def is_locked(self) -> bool:
        """Return whether any process holds the sweep's lock. A sweep that starts just now waits for this look."""
        if not self.lock.exists():
            return False
        try:
            FileLock(self.lock).acquire(timeout=0).lock.release()
        except Timeout:
            return True
        return False


def new_status() -> SweepStatus:
    """Return the status of a sweep in this process that starts now."""
    return SweepStatus(pid=os.getpid(), host=platform.node(), started=time.time())


def _has_proc() -> bool:
    return Path("/proc/self").exists()
