"""Ends a process that runs too long or takes too much memory, from outside: C code that hangs stops Python's threads.

A script with no library but the standard one, so that it starts in 20 ms: PID SECONDS BYTES REASON_FILE, 0: no limit.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

POLL_SECONDS = 0.1


def watch(pid: int, seconds: float, memory_bytes: int, kill_reason_file: Path) -> None:
    """Wait until this process's parent `pid` breaks a limit; then write why and kill it. Ends when the parent does."""
    started = time.monotonic()
    while os.getppid() == pid:
        reason = _broken(time.monotonic() - started, seconds, _anonymous_bytes(pid), memory_bytes)
        if reason:
            temporary = kill_reason_file.with_name(kill_reason_file.name + ".part")
            temporary.write_text(reason)
            temporary.replace(kill_reason_file)
            os.kill(pid, signal.SIGKILL)
            return
        time.sleep(POLL_SECONDS)


def _broken(elapsed: float, seconds: float, used: int, memory_bytes: int) -> str:
    if seconds and elapsed > seconds:
        return f"time limit: a trial may run {seconds:g} s (sweep.resources.time_limit_seconds); it was ended"
    if memory_bytes and used > memory_bytes:
        return (
            f"memory limit: a trial may take {memory_bytes} bytes (sweep.resources.memory_bytes), it took {used}; "
            "it was ended"
        )
    return ""


def _anonymous_bytes(pid: int) -> int:
    """Memory of its own: pages of files that are mapped can be dropped at any time and do not count."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


if __name__ == "__main__":
    watch(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
