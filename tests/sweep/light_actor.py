"""What a worker process runs that imports nothing but this file: forty of them start in seconds."""

import os
import resource
import threading


class Answering:
    def answer(self) -> dict[str, float]:
        return {"a": 1.0}


def faults_of_blocks(megabytes: int, count: int) -> list[int]:
    """Page faults of each of `count` blocks, one after the other, in a thread as that of a trial."""
    found: list[int] = []

    def allocate() -> None:
        for _ in range(count):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            block = b"x" * (megabytes << 20)
            found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
            del block

    thread = threading.Thread(target=allocate)
    thread.start()
    thread.join()
    return found


def malloc_settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("MALLOC_")}
