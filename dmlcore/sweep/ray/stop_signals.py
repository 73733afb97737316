"""The driver's word that a trial must end before its last epoch, and how it reaches the worker."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dmlcore.core.io import write_atomically
from dmlcore.sweep.execution.worker import StoppedEarlyError
from dmlcore.sweep.plan import PlannedTrial
from dmlcore.sweep.ray.shared_storage import SharedStorage


@dataclass(frozen=True)
class StopSignals:
    """A file a trial: on the disk that all share, or in the exchange where there is none.

    A report returns to its worker once the driver has judged the epoch, so the word is there when the worker looks.
    """

    folder: Path
    exchange: SharedStorage | None

    def leave(self, trial: PlannedTrial, reason: str) -> None:
        """Say why the trial must end."""
        if self.exchange is None:
            write_atomically(self._file(trial), reason)
        else:
            self.exchange.write(self._name(trial), reason.encode())

    def obey(self, trial: PlannedTrial) -> None:
        """In the worker, after each report.

        Raises:
            StoppedEarlyError: the trial must end.
        """
        reason = self._read(trial) if trial.cell.rivals is not None else None
        if reason is not None:
            self.clear(trial)
            raise StoppedEarlyError(reason)

    def clear(self, trial: PlannedTrial) -> None:
        """In the worker, before an attempt: a word to an earlier one is said again at its epoch."""
        if trial.cell.rivals is None:
            return
        if self.exchange is None:
            self._file(trial).unlink(missing_ok=True)
        else:
            self.exchange.remove(self._name(trial))

    def _read(self, trial: PlannedTrial) -> str | None:
        if self.exchange is None:
            return self._file(trial).read_text() if self._file(trial).is_file() else None
        content = self.exchange.read(self._name(trial))
        return None if content is None else content.decode()

    def _file(self, trial: PlannedTrial) -> Path:
        return self.folder / f"{trial.key}.stop"

    def _name(self, trial: PlannedTrial) -> str:
        return f"stop/{trial.key}"
