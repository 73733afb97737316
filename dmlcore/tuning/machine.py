"""This machine and this process: what decides bits and seconds, and memory given back."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch


def machine_facts() -> dict[str, Any]:
    """What decides bits and seconds: processor, cores, GPU."""
    facts: dict[str, Any] = {"host": platform.node(), "processor": _processor(), "cpus": os.cpu_count()}
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def release_memory() -> None:
    """Give freed memory back to the system: the C library keeps it for each thread that ever asked for some, so that a
    reused worker would only grow (a record's `peak_memory_bytes` shows it).
    """
    gc.collect()
    if gc.get_freeze_count() == 0:
        gc.freeze()  # the libraries, a million objects, need not be walked through after every trial
    with suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL("libc.so.6").malloc_trim(0)
