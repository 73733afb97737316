"""The sweep that `benchmarks.chaos` disturbs: its driver, and trials that sleep and write down what they did.

python -m benchmarks.chaos_sweep FOLDER ADDRESS [STORAGE]     the driver; its folder holds `settings.json`

A trial appends a line a tick to a journal that no kill can take back; a journal is what the benchmark judges by.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dmlcore.config.sweep import SweepConfig
from dmlcore.sweep.run import SweepFolders, run_sweep
from dmlcore.tracking import BackgroundTracker, MlflowTracker
from dmlcore.training.checkpoint import EpochReport
from dmlcore.training.run import TrialResult
from dmlcore.training.store import TrialStore
from tests.sweep.sweeps import sweep_config

TICK = 0.1
EPOCH_TICKS = 10
"""An epoch is a second, with a report and a checkpoint at its end."""
STUDY = "chaos"


@dataclass(frozen=True)
class JournalledSleeper:
    """In place of `run_trial`: epochs that sleep, with the real files of a trial, resumed from its real checkpoint."""

    journals: Path
    seconds: float

    def __call__(
        self,
        config: Any,
        data: Any,
        *,
        store: TrialStore,
        report: Callable[[EpochReport], None],
        **rest: Any,
    ) -> TrialResult:
        journal = Journal(self.journals / f"{store.folder.name}.txt")
        found = store.load_state("last")
        done = json.loads(found[1])["ticks"] if found else 0
        journal.write("begin", done)
        for epoch in range(done // EPOCH_TICKS + 1):
            report(EpochReport(epoch, {"validation/map_at_r": 0.5}))
        curve = [EpochReport(epoch, {"validation/map_at_r": 0.5}) for epoch in range(done // EPOCH_TICKS + 1)]
        for tick in range(done + 1, round(self.seconds / TICK) + 1):
            time.sleep(TICK)
            journal.write("tick", tick)
            if tick % EPOCH_TICKS == 0:
                curve.append(EpochReport(tick // EPOCH_TICKS, {"validation/map_at_r": 0.5}))
                report(curve[-1])
                store.save_state("last", {"state": torch.zeros(1000)}, json.dumps({"ticks": tick}))
                journal.write("checkpoint", tick)
        for name in ("best", "validation", "test"):
            store.save(name, {"numbers": torch.zeros(1000)})
        store.discard("last")
        journal.write("end", round(self.seconds / TICK))
        return TrialResult({"test/map_at_r": 0.5}, curve, {}, dict(store.digests))


class Journal:
    """A file of lines `MOMENT PROCESS EVENT TICKS`, each written at once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, event: str, ticks: int) -> None:
        line = f"{time.time():.3f} {os.getpid()} {event} {ticks}\n"
        opened = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(opened, line.encode())
        finally:
            os.close(opened)


@dataclass
class Attempt:
    """What one process did for a trial, from its journal."""

    process: int
    began: float
    resumed: int
    """Ticks that its checkpoint had."""
    last: float = 0.0
    """Moment of its last line."""
    ticks: int = 0
    saved: int = 0
    """Ticks of its last checkpoint."""
    ended: bool = False


def attempts(path: Path) -> list[Attempt]:
    """Read a journal."""
    found: list[Attempt] = []
    for line in path.read_text().splitlines():
        moment, process, event, ticks = line.split()
        if event == "begin":
            found.append(Attempt(int(process), float(moment), int(ticks), saved=int(ticks), ticks=int(ticks)))
        # Two processes may write in turns, which would be what the benchmark looks for.
        mine = next(attempt for attempt in reversed(found) if attempt.process == int(process))
        mine.last, mine.ticks = float(moment), int(ticks)
        mine.saved = int(ticks) if event == "checkpoint" else mine.saved
        mine.ended = mine.ended or event == "end"
    return found


def config_of(settings: dict[str, Any], address: str, storage: str | None) -> SweepConfig:
    return sweep_config(
        study=STUDY,
        regularizers=[[]],
        seeds=list(range(settings["trials"])),
        cluster={"address": address, **({"storage": storage} if storage else {})},
    )


def main() -> None:
    folder, address, *storage = sys.argv[1:]
    settings = json.loads((Path(folder) / "settings.json").read_text())
    config = config_of(settings, address, storage[0] if storage else None)
    folders = SweepFolders(Path(folder) / "study", Path(folder) / "prepared")
    run = JournalledSleeper(Path(folder) / "journals", settings["seconds"])
    tracker = MlflowTracker.for_study(STUDY, folders.state, None)
    with BackgroundTracker(tracker, folders.state) as background:
        plan = run_sweep(config, folders, background, run)
    sys.exit(1 if plan.missing else 0)


if __name__ == "__main__":
    main()
