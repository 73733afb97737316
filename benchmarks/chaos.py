"""What a sweep loses when its nodes and its driver are killed, against an undisturbed one.

python -m benchmarks.chaos [--trials 60] [--seconds 8]     nodes that share the driver's disk
python -m benchmarks.chaos --store                         nodes that share an object store, which refuses for 30 s

Four raylets of two CPUs each on this machine, and a head without. From the first trial's start on a random raylet is
killed with all its workers every 10 s, five times, a new one joins twice, and the driver is killed once and started
again, as often as it ends before the last trial. Trials sleep and write a journal, from which all figures are taken:

efficiency   seconds of trials / seconds that the CPUs were there, those of a killed node until its death
work lost    of a trial whose process died: seconds that its next attempt did again
repeated     a trial whose record had left its node ran again
doubled      two processes were at one trial at a time, or MLflow has two runs of it
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

from mlflow import MlflowClient

from benchmarks.chaos_sweep import STUDY, TICK, Attempt, attempts
from benchmarks.chaos_targets import Death, Driver, Nodes, ObjectStore, wait_for
from dmlcore.records import RecordFolder
from tests.small import small_dataset

CPUS = 2
KILLS, JOINS, DRIVER = (10, 20, 30, 40, 50), (15, 35), 25
"""Seconds after the start of the first trial."""
OUTAGE = (32, 62)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=8.0, help="of a trial")
    parser.add_argument("--store", action="store_true", help="nodes exchange files through an object store")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of the raylets to kill")
    arguments = parser.parse_args()
    found = []
    for disturbed in (False, True):
        with tempfile.TemporaryDirectory(prefix="chaos-") as name:
            found.append(run(Path(name), arguments, disturbed=disturbed))
            print(f"{'disturbed' if disturbed else 'undisturbed'}: {found[-1].wall:.0f} s", flush=True)
    print(
        f"\n{arguments.trials} trials that sleep {arguments.seconds:g} s, an epoch and a checkpoint a second"
    )
    print("\n".join(table(*found)))
    sys.exit(0 if found[1].is_sound else 1)


@dataclass
class Outcome:
    """What a run did to its trials."""

    wall: float
    efficiency: float
    journals: dict[str, list[Attempt]]
    deaths: dict[str, list[Attempt]]
    """What died -> the attempts at trials that died with it."""
    statuses: list[str]
    """Of the records."""
    planned: int
    runs: list[str]
    """Trial keys of the runs in MLflow."""
    starts: int
    """Of the driver."""

    @property
    def lost(self) -> int:
        return self.planned - self.statuses.count("finished")

    @property
    def repeated(self) -> int:
        return sum(any(attempt.ended for attempt in tries[:-1]) for tries in self.journals.values())

    @property
    def doubled(self) -> int:
        at_once = sum(
            any(later.began < earlier.last for earlier, later in pairwise(tries))
            for tries in self.journals.values()
        )
        return at_once + len(self.runs) - len(set(self.runs))

    def follower(self, died: Attempt) -> Attempt | None:
        tries = next(tries for tries in self.journals.values() if any(one is died for one in tries))
        place = next(place for place, one in enumerate(tries) if one is died)
        return tries[place + 1] if place + 1 < len(tries) else None

    def work_lost(self, died: Attempt) -> float:
        follower = self.follower(died)
        return TICK * (died.ticks - (follower.resumed if follower else 0))

    @property
    def is_sound(self) -> bool:
        died = [attempt for group in self.deaths.values() for attempt in group]
        beyond = [a for a in died if self.work_lost(a) > TICK * (a.ticks - a.saved) + TICK / 2]
        return not (self.lost or self.repeated or self.doubled or beyond)


def table(calm: Outcome, rough: Outcome) -> list[str]:
    """Return the lines of the result."""
    died = [attempt for group in rough.deaths.values() for attempt in group]
    lost = [rough.work_lost(attempt) for attempt in died] or [0.0]
    since = [TICK * (attempt.ticks - attempt.saved) for attempt in died] or [0.0]
    by_death = [sum(map(rough.work_lost, group)) for group in rough.deaths.values()] or [0.0]
    idle = [after.began - a.last for a in died if (after := rough.follower(a)) is not None] or [0.0]
    rows: list[tuple[str, object, object]] = [
        ("seconds, first trial's start to the last one's end", f"{calm.wall:.0f}", f"{rough.wall:.0f}"),
        ("efficiency", f"{calm.efficiency:.2f}", f"{rough.efficiency:.2f}"),
        ("efficiency / undisturbed", "1.00", f"{rough.efficiency / calm.efficiency:.2f}"),
        ("deaths of raylets and drivers", 0, len(rough.deaths)),
        ("starts of the driver", calm.starts, rough.starts),
        ("trials that a death interrupted", 0, len(died)),
        ("work lost of a trial, largest: s", "", f"{max(lost):.1f}"),
        ("since its last checkpoint, largest: s", "", f"{max(since):.1f}"),
        (
            "work lost a death, mean and largest: s",
            "",
            f"{sum(by_death) / len(by_death):.1f}, {max(by_death):.1f}",
        ),
        ("death to next attempt, median and largest: s", "", f"{median(idle):.1f}, {max(idle):.1f}"),
        ("trials lost", calm.lost, rough.lost),
        ("trials repeated", calm.repeated, rough.repeated),
        ("trials doubled", calm.doubled, rough.doubled),
    ]
    return [f"{'':<52} {'undisturbed':>12} {'killed':>12}"] + [
        f"{what:<52} {left!s:>12} {right!s:>12}" for what, left, right in rows
    ]


# ------------------------------------------------------------------------------------------- a run


def run(folder: Path, arguments: argparse.Namespace, *, disturbed: bool) -> Outcome:
    """Run the sweep to its end, with or without killing."""
    small_dataset(folder / "prepared" / "small")
    (folder / "journals").mkdir()
    settings = {"trials": arguments.trials, "seconds": arguments.seconds}
    (folder / "settings.json").write_text(json.dumps(settings))
    store = ObjectStore() if arguments.store else None
    nodes = Nodes(folder, CPUS)
    driver = Driver("benchmarks.chaos_sweep", folder, nodes.address, store.address if store else "")
    try:
        driver.start()
        wait_for(lambda: any((folder / "journals").iterdir()) or driver.is_over())
        timeline = Timeline(
            disturbances(folder, nodes, driver, store, random.Random(arguments.seed)) if disturbed else []
        )
        while not driver.is_over(restart=disturbed):
            timeline.act()
            time.sleep(0.1)
        return outcome(folder, nodes, driver, arguments)
    finally:
        driver.kill()
        nodes.shutdown()
        if store:
            store.stop()


def disturbances(
    folder: Path, nodes: Nodes, driver: Driver, store: ObjectStore | None, choice: random.Random
) -> list[tuple[float, Callable[[], None]]]:
    """Return what happens at which second after the first trial's start."""

    def recorded() -> frozenset[str]:
        names = [path.name for path in (folder / "study" / "state" / "records").glob("*.json")]
        names += store.records() if store else []
        return frozenset(name.partition("-")[0] for name in names)

    events: list[tuple[float, Callable[[], None]]] = [
        (at, lambda: nodes.kill_one(choice, recorded)) for at in KILLS
    ]
    events += [(at, nodes.join) for at in JOINS]
    events.append((DRIVER, driver.kill))
    if store is not None:
        events += [(OUTAGE[0], store.refuse), (OUTAGE[1], store.answer)]
    return sorted(events, key=lambda event: event[0])


class Timeline:
    """Events that happen at their seconds from now on."""

    def __init__(self, events: list[tuple[float, Callable[[], None]]]) -> None:
        self.events, self.began = events, time.monotonic()

    def act(self) -> None:
        while self.events and time.monotonic() - self.began >= self.events[0][0]:
            self.events.pop(0)[1]()


def outcome(folder: Path, nodes: Nodes, driver: Driver, arguments: argparse.Namespace) -> Outcome:
    journals = {path.stem: attempts(path) for path in sorted((folder / "journals").iterdir())}
    for key, tries in journals.items():
        for attempt in tries:
            # With its node died what it had not handed over: its work was interrupted, though it had ended.
            attempt.ended = attempt.ended and not any(
                attempt.process in death.processes and key not in death.recorded
                for death in nodes.deaths.values()
            )
    every = [attempt for tries in journals.values() for attempt in tries]
    began, ended = min(attempt.began for attempt in every), max(attempt.last for attempt in every)
    deaths: dict[str, list[Attempt]] = {name: [] for name in (*nodes.deaths, *driver.deaths)}
    for attempt in every:
        if not attempt.ended:
            deaths.setdefault(death_of(attempt, nodes.deaths, driver.deaths), []).append(attempt)
    state = folder / "study" / "state"
    client = MlflowClient(f"sqlite:///{state / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(f"dmlcore/{STUDY}")
    runs = client.search_runs([experiment.experiment_id], max_results=5 * arguments.trials)
    return Outcome(
        wall=ended - began,
        efficiency=arguments.trials * arguments.seconds / (CPUS * nodes.seconds(began, ended)),
        journals=journals,
        deaths=deaths,
        statuses=[record.status for record in RecordFolder(state / "records").all()],
        planned=arguments.trials,
        runs=[run.data.tags["trial_key"] for run in runs],
        starts=driver.starts,
    )


def death_of(attempt: Attempt, nodes: dict[str, Death], drivers: dict[str, Death]) -> str:
    """Return what took the process of an attempt along."""
    for name, death in nodes.items():
        if attempt.process in death.processes:
            return name
    # Ray ends the workers of a dead driver within moments.
    before = [name for name, death in drivers.items() if death.moment <= attempt.last + 1.0]
    return before[-1] if before else "nothing known"


if __name__ == "__main__":
    main()
