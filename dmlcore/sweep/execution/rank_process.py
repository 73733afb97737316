"""A process of a data-parallel trial other than rank 0: does what rank 0 does, told by a line of JSON on stdin.

A script, run as a module. It keeps nothing: when stdin ends or rank 0 dies, it ends.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import torch
from torch import distributed

from dmlcore.config.trial import TrialConfig
from dmlcore.data.dataset import PreparedDataset
from dmlcore.training.ranks import Ranks, follow_evaluation
from dmlcore.training.run import make_deterministic
from dmlcore.training.trainer import Trainer

METHODS: Final = ("train_epoch", "embed", "backbone_features")
"""What rank 0 may let the trainers of the others do."""
FAULT = 3
"""Exit code of a process that raised an error, which it wrote to stdout."""
START_SECONDS = 600.0
"""Time for all to start: to import torch takes seconds, on a busy machine minutes."""
PDEATHSIG = 1
"""Of prctl(2): the signal that a process gets when its parent dies."""


def join_ranks(meeting: Any, rank: int, size: int, device: str, timeout: timedelta) -> None:
    """Open the process group of a trial: NCCL on GPUs, gloo on CPUs.

    Args:
        meeting: a TCPStore that all reach.
        rank: of this process.
        size: number of processes.
        device: `cuda` or `cpu`.
        timeout: how long one waits for another, once all have started.
    """
    meeting.set(f"started {rank}", "")
    meeting.wait([f"started {other}" for other in range(size)], timedelta(seconds=START_SECONDS))
    # All ranks are on one node: the name of the host need not resolve.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    backend = "nccl" if device == "cuda" else "gloo"
    distributed.init_process_group(backend, store=meeting, rank=rank, world_size=size, timeout=timeout)


def is_lost_peer(error: Exception) -> bool:
    """Tell whether an error says no more than that another process died or did not answer in time."""
    # gloo raises a plain RuntimeError; a pipe to a process that has died raises an OSError.
    if isinstance(error, distributed.DistBackendError | distributed.DistNetworkError | BrokenPipeError):
        return True
    return type(error) is RuntimeError and any(word in str(error) for word in ("gloo", "NCCL"))


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
    meeting = distributed.TCPStore("127.0.0.1", setup["port"], is_master=False)
    join_ranks(meeting, rank, config.processes, setup["device"], timeout)
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
    # Only Linux has it; elsewhere the end of stdin and the timeout do
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def main() -> None:
    """Follow stdin to its end; the last words on stdout are the error of this process."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to the log of the trial
    code = 0
    try:
        follow(iter(sys.stdin))
    except Exception as error:
        traceback.print_exc()
        code = 1 if is_lost_peer(error) else FAULT
        with suppress(OSError):
            answers.write(f"{type(error).__name__}: {error}")
            answers.flush()
    # At once: nothing is left to write, and to leave the others in order would take an agreement with them.
    os._exit(code)


if __name__ == "__main__":
    main()
