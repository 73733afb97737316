"""Seconds of a `dvc repro` that finds nothing to do, in this checkout.

python -m benchmarks.no_change [--repeats 5]
"""

from __future__ import annotations

import argparse
import subprocess
import time


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    times = []
    for _ in range(parser.parse_args().repeats):
        started = time.perf_counter()
        done = subprocess.run(["dvc", "repro"], check=True, capture_output=True, text=True)
        times.append(time.perf_counter() - started)
        if "Running stage" in done.stdout:
            raise SystemExit("a stage had something to do: run `make repro` first")
    print("dvc repro without a change, seconds: " + ", ".join(f"{seconds:.2f}" for seconds in sorted(times)))


if __name__ == "__main__":
    main()
