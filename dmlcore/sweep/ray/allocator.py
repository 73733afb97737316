"""How the C library of a worker treats memory that a step of training frees: it keeps it for the next step.

By default glibc maps large blocks anew for each step and gives the top of its heap back after it, so that the kernel
clears the same gigabyte again and again (benchmarks/allocator.py). glibc reads these variables when a process starts,
so a worker cannot set them for itself; other C libraries ignore them. After a trial the worker gives everything back:
`release_memory`.
"""

from __future__ import annotations

import os

KEEP_FREED_MEMORY = {
    "MALLOC_ARENA_MAX": "1",  # a thread's own heap is made of pieces of 64 MiB, each given back as soon as it is free
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
}
"""See mallopt(3)."""


def allocator_settings() -> dict[str, str]:
    """Return the environment variables for workers; those that the user has set keep their values."""
    return {name: os.environ.get(name, value) for name, value in KEEP_FREED_MEMORY.items()}
