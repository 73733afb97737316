"""Progress of a sweep: a live display in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dmlcore.records import TrialRecord
from dmlcore.sweep.control import printable


@dataclass
class RunningTrial:
    """A trial that runs."""

    name: str
    epochs: int
    epoch: int = 0
    map_at_r: float | None = None
    started: float = field(default_factory=time.monotonic)


class Progress:
    """Counts of finished, running and failed trials, and the time left.

    Args:
        total: trials to run.
        concurrent: how many run at a time.
        console: where to print.
    """

    def __init__(self, total: int, concurrent: int, console: Console | None = None) -> None:
        self.total, self.concurrent = total, concurrent
        self.console = console or Console()
        self.running: dict[str, RunningTrial] = {}
        self.finished = self.failed = 0
        self.started = time.monotonic()
        self._live = Live(
            get_renderable=self._render, console=self.console, refresh_per_second=2, transient=True
        )

    def __enter__(self) -> Progress:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._live.stop()

    def start(self, key: str, name: str, epochs: int) -> None:
        self.running[key] = RunningTrial(name, epochs)

    def epoch(self, key: str, epoch: int, map_at_r: float | None) -> None:
        if key in self.running:
            self.running[key].epoch, self.running[key].map_at_r = epoch, map_at_r

    def end(self, key: str, name: str, record: TrialRecord | None) -> None:
        """Print how a trial ended: with `record`, or with None if its process died."""
        self.running.pop(key, None)
        ok = record is not None and record.done
        self.finished += ok
        self.failed += not ok
        place = f"[{self.finished + self.failed}/{self.total}]"
        self.console.print(f"{place} {name}: {outcome(record)}", markup=False, soft_wrap=True)
        if not self.console.is_terminal:
            self.console.print(f"    {self.summary()}", markup=False, soft_wrap=True)

    def hold(self, key: str) -> None:
        """Take a trial out of the count: it does not begin in this run."""
        self.running.pop(key, None)
        self.total -= 1

    @property
    def all_ended(self) -> bool:
        return self.finished + self.failed == self.total

    def summary(self) -> str:
        """Return e.g. `12 finished, 2 running, 0 failed, about 5 min left`."""
        counts = f"{self.finished} finished, {len(self.running)} running, {self.failed} failed"
        left = self.seconds_left()
        return counts if left is None else f"{counts}, about {duration(left)} left"

    def seconds_left(self) -> float | None:
        """Extrapolate from the trials done so far, running ones by their share of epochs; None at the beginning."""
        done = self.finished + self.failed + sum(run.epoch / run.epochs for run in self.running.values())
        if done < 0.2:  # of a trial: before that the start of the workers dominates
            return None
        return (time.monotonic() - self.started) * max(0.0, self.total - done) / done

    def _render(self) -> Group:
        table = Table.grid(padding=(0, 2))
        for run in self.running.values():
            score = "" if run.map_at_r is None else f"validation MAP@R {run.map_at_r:.3f}"
            table.add_row(Text(run.name), f"epoch {run.epoch}/{run.epochs}", score)
        bar = ProgressBar(total=self.total, completed=self.finished + self.failed, width=40)
        return Group(bar, Text(self.summary()), table)


def outcome(record: TrialRecord | None) -> str:
    """Describe how a trial ended in one line."""
    if record is None:
        return "FAILED: its process died"
    if record.status != "finished":
        return f"{record.status.upper()}: {record.error}"
    shown = (("MAP@R", "test/map_at_r", 3), ("R@1", "test/recall_at_1", 3), ("OPIS", "test/opis", 5))
    text = ", ".join(
        f"{label} {value:.{digits}f}"
        for label, metric, digits in shown
        if (value := record.metrics.get(metric)) is not None
    )
    return f"{text} in {duration(record.seconds)}"


def duration(seconds: float) -> str:
    """Format as `45 s`, `12 min` or `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def size(count: float) -> str:
    """Format bytes as `310 kB`, `12 MB` or `3.4 GB`."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count / 1e3:.0f} kB"


def host_of(record: TrialRecord) -> str:
    """Return the name of the machine that a trial ran on, fit for a terminal."""
    return printable(str(record.machine.get("host") or "an unnamed machine"))[:80]
