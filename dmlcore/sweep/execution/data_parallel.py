"""The processes of a data-parallel trial: the worker of the trial is rank 0 and starts the others on its node.

They are `rank_process`: each gets the trial and then one command a line on its stdin, whose end is its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from dmlcore.config.trial import TrialConfig
from dmlcore.sweep.execution.rank_process import FAULT, is_lost_peer, join_ranks
from dmlcore.training.ranks import ALONE, Ranks

NOTICE_SECONDS = 30.0
"""Time in which rank 0 learns by itself that another rank has died; NCCL would wait for its timeout."""
END_SECONDS = 5.0


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
    meeting = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
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
        join_ranks(meeting, 0, config.processes, device.type, timeout)
        yield Ranks(0, config.processes, followers.tell)
    except (RuntimeError, OSError) as error:
        # torch tells of a lost peer and of a timeout by a RuntimeError of any wording; a closed pipe is an OSError.
        followers.explain(error)
        raise
    finally:
        followers.end()
        if distributed.is_initialized():
            distributed.destroy_process_group()


class _Followers:
    """The other processes, as rank 0 sees them."""

    def __init__(self, setups: list[dict[str, Any]]) -> None:
        # The paths that this process imports from: a node of a cluster was sent the code.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        command = [sys.executable, "-m", "dmlcore.sweep.execution.rank_process"]
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
        if not is_lost_peer(error):
            return
        deadline = time.monotonic() + END_SECONDS
        while time.monotonic() < deadline:
            for rank, process in enumerate(self.processes, start=1):
                code = process.poll()
                if code is not None and code < 0:
                    raise RankLostError(f"rank {rank} of this trial died: {_end_of(process)}") from error
                if code == FAULT:
                    raise RankError(f"rank {rank}: {_last_words(process)}") from error
            time.sleep(0.05)  # those that only lost their peers end as well
        raise RankLostError(
            "a process of this trial did not answer, at the latest after sweep.resources.process_timeout_seconds: "
            f"{error}"
        ) from error

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


def _last_words(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.read().strip()[:2000]
