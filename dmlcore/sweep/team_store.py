"""Finished trials that a team shares at an fsspec address: looked up there before a trial runs, left there after it.

Layout: `KEY.json`, the record of a finished trial; `KEY.stopped.json`, of one that a scheduler has stopped;
`files/SHA256`, its checkpoint and embeddings under the hash of their content. Nothing there is ever changed: of two
records under one key the first stays. Anybody may have written it, so each record must be that of the key which this
sweep has computed from its own config, data, code and versions, and each file must have the hash in its record.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from dmlcore.config.base import ConfigError
from dmlcore.config.sweep import SweepConfig
from dmlcore.core.errors import without_passwords
from dmlcore.core.hashing import file_sha256
from dmlcore.records import RecordError, TrialRecord, record_text
from dmlcore.sweep.execution.guards import answer_within
from dmlcore.sweep.file_store import FileStore, NoAnswerError, SharedStorageError
from dmlcore.sweep.margin_rates import STAND_IN
from dmlcore.sweep.plan import PlannedTrial
from dmlcore.sweep.ray.arrivals import Identity
from dmlcore.training.store import TrialStore

LARGEST_RECORD, LARGEST_FILE = 1 << 24, 1 << 34  # bytes
SECONDS = 30.0
"""Longest wait for an answer to a small request; a store that hangs must not hold a sweep up."""
SLOWEST_BYTES_PER_SECOND = 1e5
FINISHED, STOPPED = "{}.json", "{}.stopped.json"

T = TypeVar("T")


class StoreError(Exception):
    """The store does not answer, or refuses."""


@dataclass(frozen=True)
class TeamStore:
    """The store at an address; picklable.

    Args:
        address: of fsspec, or a folder.
        files: whether the files of trials are left and fetched too.
        scores: whether at least the validation embeddings of baselines are: others take their margins from them.
    """

    address: str
    files: bool = False
    scores: bool = False
    _quiet: list[str] = field(default_factory=list, compare=False)
    """Why it did not answer this process, which then looks nothing up any more."""

    @classmethod
    def of(
        cls, sweep: SweepConfig, study: Path, address: str | None = None, files: bool | None = None
    ) -> TeamStore | None:
        """Return the store of a sweep; None: it has none.

        `address` and `files` are in place of `sweep.records` and `sweep.records_files`; a path is relative to `study`.

        Raises:
            ConfigError: no package for such an address is installed.
        """
        given = address or sweep.records
        if given is None:
            return None
        place = given if "://" in given else f"file://{(study / given).resolve()}"
        rated = any(f'"{kind}"' in sweep.model_dump_json() for kind in STAND_IN)
        store = cls(place, sweep.records_files if files is None else files, rated)
        try:
            store.storage.path("x")
        except SharedStorageError as error:
            raise ConfigError(without_passwords(str(error))) from None
        return store

    @cached_property
    def storage(self) -> FileStore:
        return FileStore(self.address, "sweep.records", patience_seconds=0.0)

    def __str__(self) -> str:
        return without_passwords(self.address)

    def names(self) -> set[str]:
        """List what the store has: the names of records, and those of files if they are wanted.

        Raises:
            StoreError: it does not answer.
        """
        names = set(self._ask(lambda: self.storage.names("")))
        if self.files or self.scores:
            names |= {f"files/{name}" for name in self._ask(lambda: self.storage.names("files"))}
        return names

    def names_of(self, record: TrialRecord) -> set[str]:
        """Return the names under which a record, and those of its files that are wanted, are left."""
        own = (FINISHED if record.status == "finished" else STOPPED).format(record.trial_key)
        return {own, *(f"files/{record.files[name]}" for name in self._wanted(record))}

    def fetch(self, trial: PlannedTrial) -> TrialRecord | None:
        """Return the record that the store has of a trial, and move its files to the trial's folder if they are wanted.

        Raises:
            RecordError: what is there is damaged, or not of that trial.
            StoreError: it does not answer.
        """
        identity = Identity.of(trial)
        for name, status in entries(trial):
            record = self._read(name, identity, status)
            if record is not None:
                needed, folder = self._needed(record), trial.store_folder
                all_here = self.fetch_files(record, folder, self._wanted(record))
                if needed and not all_here and not self.fetch_files(record, folder, needed):
                    return None  # its numbers alone would leave other trials without their margins
                return record.model_copy(update={"labels": trial.cell.labels})
        return None

    def look_up(self, trial: PlannedTrial) -> TrialRecord | None:
        """Fetch as `fetch` does, in the process that is about to run the trial: what fails there costs nothing more."""
        if self._quiet:
            return None
        try:
            record = self.fetch(trial)
        except StoreError as error:
            self._quiet.append(str(error))
            print(f"{self} is not asked again by this process: {error}", flush=True)
            return None
        except (RecordError, OSError) as error:
            print(f"{self}: {trial.key} {error}; the trial runs", flush=True)
            return None
        return record if record is not None and trial.is_complete(record) else None

    def leave(self, record: TrialRecord, folder: Path, *, replace: bool = False) -> TrialRecord:
        """Put a record there, after its files if they are wanted, unless somebody has been first.

        Args:
            record: of a finished trial, or of one that a scheduler stopped.
            folder: of its files; a file that is gone or changed since is not left.
            replace: what is there is known to be damaged.

        Returns:
            The record that the store has now.

        Raises:
            StoreError: it does not answer. RecordError: it cannot be replaced.
        """
        name = (FINISHED if record.status == "finished" else STOPPED).format(record.trial_key)
        first = None
        if not replace:
            try:
                first = self._read(name, Identity.recorded(record), record.status)
            except RecordError as error:
                print(f"sweep: {self}/{name} {error}; replaced", flush=True)
                replace = True
        if first is not None and first.files != record.files:
            return first
        kept = TrialStore(folder)
        for each in self._wanted(record):
            if kept.matches({each: record.files[each]}):
                self._leave_file(kept.path(each), record.files[each], replace)
        content = record_text(record).encode()
        if replace:
            self._ask(lambda: self.storage.write(name, content))
        elif first is None and not self._ask(lambda: self.storage.create(name, content)):
            return self.leave(record, folder)  # somebody was faster just now
        return first or record

    def fetch_files(self, record: TrialRecord, folder: Path, names: Collection[str]) -> bool:
        """Move files of a record from the store to `folder`, all or none; return whether all are there.

        Raises:
            RecordError: one does not have the hash in the record.
            StoreError: it does not answer.
        """
        if not names or TrialStore(folder).matches({name: record.files[name] for name in names}):
            return bool(names)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as place:
            if not all(self._fetch_file(record.files[name], Path(place) / name) for name in names):
                return False
            folder.mkdir(exist_ok=True)
            for name in names:
                (Path(place) / name).replace(TrialStore(folder).path(name))
        return True

    def _wanted(self, record: TrialRecord) -> list[str]:
        return sorted(record.files) if self.files else self._needed(record)

    def _needed(self, record: TrialRecord) -> list[str]:
        is_base = self.scores and not record.config.get("regularizers")
        return [name for name in record.files if name == "validation" and is_base]

    def _fetch_file(self, digest: str, target: Path) -> bool:
        name = f"files/{digest}"
        size = self._ask(lambda: self.storage.size(name))
        if size is None:
            return False
        if size > LARGEST_FILE:
            raise RecordError(f"names {name} of {size} bytes, more than {LARGEST_FILE}")
        self._ask(lambda: self.storage.get(name, target), size)
        if file_sha256(target) != digest:
            raise RecordError(f"names {name}, which does not have that sha256")
        return True

    def _leave_file(self, file: Path, digest: str, replace: bool) -> None:
        name, size = f"files/{digest}", file.stat().st_size
        if replace or self._ask(lambda: self.storage.size(name)) != size:
            self._ask(lambda: self.storage.put(file, name), size)

    def _read(self, name: str, identity: Identity, status: str) -> TrialRecord | None:
        size = self._ask(lambda: self.storage.size(name))
        if size is None:
            return None
        if size > LARGEST_RECORD:
            raise RecordError(f"has {size} bytes, a record has at most {LARGEST_RECORD}")
        content = self._ask(lambda: self.storage.read(name))
        return None if content is None else identity.read(content, status)

    def _ask(self, request: Callable[[], T], size: int = 0) -> T:
        """Return the answer to a request that moves `size` bytes.

        Raises:
            StoreError: its libraries raised an error, of whatever class, or did not answer. RecordError: it is a link.
        """
        try:
            return answer_within(SECONDS + size / SLOWEST_BYTES_PER_SECOND, request)
        except NoAnswerError as error:
            raise StoreError(without_passwords(str(error))[:300]) from error
        except SharedStorageError as error:
            raise RecordError(str(error)) from None
        except Exception as error:
            reason = (str(error).strip() or "no reason given").splitlines()[0]
            raise StoreError(without_passwords(f"{type(error).__name__}: {reason}")[:300]) from error


def entries(trial: PlannedTrial) -> Iterable[tuple[str, str]]:
    """Yield the names under which the store may have a trial's record, and the status that it must have there."""
    yield FINISHED.format(trial.key), "finished"
    if trial.cell.comparison_group is not None:
        yield STOPPED.format(trial.key), "stopped"


def is_among(names: Collection[str], trial: PlannedTrial) -> bool:
    """Return whether a store with these names has a record of the trial."""
    return any(name in names for name, _ in entries(trial))
