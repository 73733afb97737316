"""Watchdog: kill a process that runs too long, or takes too much memory with its children, from outside it.

Arguments: PID SECONDS BYTES REASON_FILE, where 0 means no limit. A script that imports the standard library alone, so
that it starts in 20 ms. A thread of the process could not do it: code in C that hangs stops Python's threads.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

POLL_SECONDS = 0.1


def watch(pid: int, seconds: float, memory_bytes: int, kill_reason_file: Path) -> None:
    """Wait until this process's parent `pid` breaks a limit, then write why and kill it; return when it ends."""
    started = time.monotonic()
    # Asked anew each time: once the parent has ended, another process may get its number.
    while os.getppid() == pid:
        used = sum(map(_anonymous_bytes, [pid, *_children(pid)])) if memory_bytes else 0
        reason = _exceeded(time.monotonic() - started, seconds, used, memory_bytes)
        if reason:
            # The reason comes first and atomically: whoever sees the process gone finds it complete.
            temporary = kill_reason_file.with_name(kill_reason_file.name + ".part")
            temporary.write_text(reason)
            temporary.replace(kill_reason_file)
            os.kill(pid, signal.SIGKILL)
            return
        time.sleep(POLL_SECONDS)


def _exceeded(elapsed: float, seconds: float, used: int, memory_bytes: int) -> str:
    if seconds and elapsed > seconds:
        return f"time limit: a trial may run {seconds:g} s (sweep.resources.time_limit_seconds); it was ended"
    if memory_bytes and used > memory_bytes:
        return (
            f"memory limit: a trial may take {memory_bytes} bytes (sweep.resources.memory_bytes), it took {used}; "
            "it was ended"
        )
    return ""


def _children(pid: int) -> list[int]:
    """Return the processes that `pid` has started: the other processes of its trial, and this one."""
    found: list[int] = []
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    except OSError:  # a thread has ended meanwhile
        return found
    return found


def _anonymous_bytes(pid: int) -> int:
    """Return the anonymous resident memory; pages of mapped files can be dropped at any time and do not count."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


if __name__ == "__main__":
    watch(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
