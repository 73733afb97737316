"""The processes of a data-parallel trial: the worker of the trial is rank 0 and starts the others on its node.

As a script: one of the others. It gets the trial and then one command a line on stdin, whose end is its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import torch
from torch import distributed

from dmlcore.config.trial import TrialConfig
from dmlcore.data.dataset import PreparedDataset
from dmlcore.training.ranks import ALONE, Ranks, follow_evaluation
from dmlcore.training.run import make_deterministic
from dmlcore.training.trainer import Trainer

METHODS: Final = ("train_epoch", "embed", "backbone_features")
"""What rank 0 may let the trainers of the others do."""
NOTICE_SECONDS = 30.0
"""Time in which rank 0 learns by itself that another rank has died; NCCL would wait for its timeout."""
END_SECONDS = 5.0
PDEATHSIG = 1
"""Of prctl(2): the signal that a process gets when its parent dies."""


class RankLostError(RuntimeError):
    """A process of the trial died or hangs, of nothing that the trial computed: it is tried again."""


class RankError(RuntimeError):
    """A process of the trial raised an error; the message names it."""


@contextmanager
def started_ranks(
    config: TrialConfig, data_folder: Path, caches: Path, device: torch.device, timeout_seconds: float
) -> Iterator[Ranks]:
    """Start the other processes of a trial, on this node, and end them with the block.

    Args:
        config: of the trial; with `processes` None there is nothing to start.
        data_folder: of its prepared data set.
        caches: the folder that trials share.
        device: `cuda`: rank R runs on GPU R of those that this process sees; `cpu`: each has `config.threads`.
        timeout_seconds: how long one waits for another.

    Yields:
        This process, as rank 0 of them all.

    Raises:
        RankLostError: one died or did not answer in time.
        RankError: one raised an error.
    """
    if config.processes is None:
        yield ALONE
        return
    cuda = device.type == "cuda"
    if cuda and torch.cuda.device_count() < config.processes:
        raise ValueError(
            f"{config.processes} processes need a GPU each, this worker sees {torch.cuda.device_count()}: "
            "set sweep.resources.gpus to the number of GPUs of a node or less"
        )
    timeout = timedelta(seconds=timeout_seconds)
    meeting = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timeout)
    setup = {
        "config": config.model_dump_json(),
        "data": str(data_folder),
        "caches": str(caches),
        "device": device.type,
        "port": meeting.port,
        "timeout": timeout_seconds,
        "parent": os.getpid(),
    }
    followers = _Followers([setup | {"rank": rank} for rank in range(1, config.processes)])
    try:
        _join(meeting, 0, config.processes, device.type, timeout)
        yield Ranks(0, config.processes, followers.tell)
    except (RuntimeError, OSError) as error:
        # torch tells of a lost peer and of a timeout by a RuntimeError of any wording; a closed pipe is an OSError.
        followers.explain(error)
        raise
    finally:
        followers.end()
        if distributed.is_initialized():
            distributed.destroy_process_group()


def _join(meeting: Any, rank: int, size: int, device: str, timeout: timedelta) -> None:
    # All ranks are on one node: the name of the host need not resolve.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    backend = "nccl" if device == "cuda" else "gloo"
    distributed.init_process_group(backend, store=meeting, rank=rank, world_size=size, timeout=timeout)


class _Followers:
    """The other processes, as rank 0 sees them."""

    def __init__(self, setups: list[dict[str, Any]]) -> None:
        # The paths that this process imports from: a node of a cluster was sent the code.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        command = [sys.executable, "-m", "dmlcore.sweep.execution.data_parallel"]
        self.processes = [
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
            )
            for _ in setups
        ]
        self.ended = threading.Event()
        for process, setup in zip(self.processes, setups, strict=True):
            self._send(process, setup)
            threading.Thread(target=self._watch, args=(process,), daemon=True, name="rank").start()

    def tell(self, method: str, argument: Any) -> None:
        """Let each call `method` of its trainer, or make a new one: `begin`."""
        for process in self.processes:
            self._send(process, {"method": method, "argument": argument})

    def _send(self, process: subprocess.Popen[str], line: dict[str, Any]) -> None:
        assert process.stdin is not None
        process.stdin.write(json.dumps(line) + "\n")
        process.stdin.flush()

    def _watch(self, process: subprocess.Popen[str]) -> None:
        """End this process too where another died and rank 0 still waits for it; Tune then tries the trial again."""
        process.wait()
        if not self.ended.wait(NOTICE_SECONDS):
            print(f"a process of this trial has died ({_end_of(process)}): ending rank 0", file=sys.stderr)
            os.kill(os.getpid(), signal.SIGKILL)

    def explain(self, error: Exception) -> None:
        """Raise what is known of a rank that failed first; return where none did: the error is rank 0's own.

        Raises:
            RankLostError, RankError: see there.
        """
        waiting = isinstance(error, distributed.DistBackendError | distributed.DistNetworkError | OSError)
        lost = waiting or any(word in str(error) for word in ("gloo", "NCCL", "Timed out", "timed out"))
        if not lost:
            return
        deadline = time.monotonic() + END_SECONDS
        while time.monotonic() < deadline and all(process.poll() is None for process in self.processes):
            time.sleep(0.05)
        gone = [process for process in self.processes if process.poll() is not None]
        if not gone:
            raise RankLostError(
                f"a process of this trial did not answer in time (sweep.resources.process_timeout_seconds): {error}"
            ) from error
        for process in gone:
            if (said := _said(process)) is not None:
                raise RankError(said) from error
        rank = 1 + self.processes.index(gone[0])
        raise RankLostError(f"rank {rank} of this trial died: {_end_of(gone[0])}") from error

    def end(self) -> None:
        """End all: by the end of their stdin, or killed where they hang."""
        self.ended.set()
        for process in self.processes:
            with suppress(OSError):
                assert process.stdin is not None
                process.stdin.close()
        deadline = time.monotonic() + END_SECONDS
        for process in self.processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def _end_of(process: subprocess.Popen[str]) -> str:
    code = process.returncode
    return f"killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"


def _said(process: subprocess.Popen[str]) -> str | None:
    """Return the error that a process wrote as its last words; None: it was killed."""
    assert process.stdout is not None
    with suppress(ValueError, OSError):
        said = json.loads(process.stdout.read())
        return str(said["error"]) if said["fault"] else None
    return None


def follow(commands: Iterator[str]) -> None:
    """Be a process other than rank 0, until its commands end.

    Args:
        commands: lines of JSON, first the trial and then the methods to call.
    """
    setup = json.loads(next(commands))
    _die_with(setup["parent"])
    config = TrialConfig.model_validate_json(setup["config"])
    assert config.processes is not None
    rank = setup["rank"]
    make_deterministic(config.threads)  # before CUDA starts, which reads what it sets
    device = torch.device("cpu")
    if setup["device"] == "cuda":
        device = torch.device("cuda", rank)
        torch.cuda.set_device(device)
    timeout = timedelta(seconds=setup["timeout"])
    meeting = distributed.TCPStore("127.0.0.1", setup["port"], is_master=False, timeout=timeout)
    _join(meeting, rank, config.processes, setup["device"], timeout)
    data, ranks = PreparedDataset.open(Path(setup["data"])), Ranks(rank, config.processes)
    trainer: Trainer | None = None
    for line in commands:
        command = json.loads(line)
        method, argument = command["method"], command["argument"]
        if method == "begin":
            trainer = Trainer(config, data, argument, device, Path(setup["caches"]), ranks)
        elif method == "evaluate":
            follow_evaluation(ranks, device, argument)
        elif method in METHODS:
            getattr(trainer, method)(argument)


def _die_with(parent: int) -> None:
    """Let the kernel kill this process when its parent dies, at once: it may wait for it in a collective."""
    with suppress(
        OSError, AttributeError
    ):  # only Linux has it; elsewhere the end of stdin and the timeout do
        ctypes.CDLL(None).prctl(PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def main() -> int:
    """Follow stdin; tell rank 0 of an error by one line on stdout."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to the log of the trial
    try:
        follow(iter(sys.stdin))
    except Exception as error:
        traceback.print_exc()
        # One that lost its peers is no fault of this process.
        lost = isinstance(error, distributed.DistBackendError | distributed.DistNetworkError)
        lost = lost or "gloo" in str(error) or "Timed out" in str(error)
        with contextlib.suppress(OSError):
            json.dump({"fault": not lost, "error": f"{type(error).__name__}: {error}"}, answers)
            answers.close()
        return 1
    # At once: nothing is left to write, and to leave the others in order would take an agreement with them.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
