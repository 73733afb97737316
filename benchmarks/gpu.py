"""`make gpu`: what can only be checked on a GPU, most important first; without one it prints "not run: no GPU".

    python -m benchmarks.gpu [--budget SECONDS] [--only NAME ...] [--output FOLDER] [--table FILE]

Each check runs in a process of its own with a time limit: one that fails or hangs leaves its traceback in the report
and does not stop the rest. `--device cpu` runs tiny sizes on the CPU, to test the checks themselves.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.gpu_report import lines, markdown

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Row:
    """One figure of a check. `ok` is None where nothing is asked of it."""

    what: str
    value: float | None = None
    unit: str = ""
    aim: str = ""
    ok: bool | None = None
    note: str = ""


@dataclass(frozen=True)
class Context:
    """Where the checks run; `tiny`: at sizes that test the checks themselves."""

    device: torch.device
    tiny: bool
    folder: Path

    def size(self, full: int, tiny: int) -> int:
        return tiny if self.tiny else full

    def seconds(self, run: Callable[[], object]) -> float:
        """Seconds of a call until the device has done all of it."""
        self.wait()
        start = time.perf_counter()
        run()
        self.wait()
        return time.perf_counter() - start

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


Check = Callable[[Context], Iterator[Row]]


def checks() -> dict[str, tuple[Check, float]]:
    """Name -> the check and the seconds that it may take, most important first."""
    from benchmarks import gpu_kernels as kernels
    from benchmarks import gpu_losses
    from benchmarks import gpu_rates as rates
    from benchmarks import gpu_training as training

    return {
        "machine": (machine, 30.0),
        "synchronisation": (training.synchronisation, 60.0),
        "images/s, resnet50": (rates.resnet50, 70.0),
        "images/s, vit_base": (rates.vit_base, 70.0),
        "evaluate": (kernels.evaluation, 90.0),
        "jpeg": (kernels.jpeg, 60.0),
        "resume": (training.resume, 60.0),
        "bfloat16": (training.bfloat16, 60.0),
        "losses": (gpu_losses.losses, 60.0),
        "epoch": (training.epoch, 45.0),
        "tests": (kernels.repository_tests, 90.0),
        "compiled, resnet50": (rates.compiled_resnet50, 120.0),
        "compiled, vit_base": (rates.compiled_vit_base, 120.0),
    }


def machine(context: Context) -> Iterator[Row]:
    """What the figures were taken on."""
    import torchvision

    cpus = len(os.sched_getaffinity(0))
    yield Row("CPU cores", cpus)
    yield Row(
        "versions",
        note=f"Python {sys.version.split()[0]}, torch {torch.__version__}, torchvision {torchvision.__version__}",
    )
    if context.device.type == "cuda":
        properties = torch.cuda.get_device_properties(0)
        yield Row("GPU memory", properties.total_memory / 2**30, "GiB", note=properties.name)


def main() -> int:
    arguments = _arguments()
    os.environ.setdefault(
        "PYTORCH_NVML_BASED_CUDA_CHECK", "1"
    )  # asked so, CUDA still starts in a forked process
    multiprocessing.set_start_method(arguments.start)
    if arguments.device == "cuda" and not has_gpu():
        print("not run: no GPU")
        return 0
    deadline = time.monotonic() + arguments.budget
    report: dict[str, dict[str, object]] = {}
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, (check, limit) in checks().items():
        if arguments.only and name not in (*arguments.only, "machine"):
            continue
        left = min(limit, deadline - time.monotonic())
        report[name] = run_alone(name, check, arguments.device, left)
        text = "\n".join(lines(name, report[name]))
        print(text, flush=True)
        with (arguments.output / "gpu.txt").open("w" if len(report) == 1 else "a") as file:
            file.write(text + "\n")
        (arguments.output / "gpu.json").write_text(json.dumps(report, indent=1))
        (arguments.table or arguments.output / "GPU.md").write_text(markdown(report))
    return int(any(bool(result["error"]) for result in report.values()))


def has_gpu() -> bool:
    """Ask in a process of its own, so that CUDA does not start in this one."""
    child = multiprocessing.Process(target=_exit_without_gpu)
    child.start()
    child.join()
    return child.exitcode == 0


def _exit_without_gpu() -> None:
    sys.exit(not torch.cuda.is_available())


def run_alone(name: str, check: Check, device: str, limit: float) -> dict[str, object]:
    """Run one check in a process of its own; what it found, its seconds, and its error if it had one."""
    if limit < 2.0:
        return {"rows": [], "seconds": 0.0, "error": "not run: the budget is spent"}
    print(f"... {name}, at most {limit:.0f} s", file=sys.stderr, flush=True)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        # Forked: torch and numba are imported once, which takes seconds; CUDA starts in the child alone.
        child = multiprocessing.Process(target=_run, args=(check, device, Path(folder), limit))
        child.start()
        child.join(limit)
        if timed_out := child.is_alive():
            child.kill()
            child.join()
        error = _text(Path(folder) / "error")
        if timed_out:
            error = f"stopped after {limit:.0f} s\n{_text(Path(folder) / 'stacks')}"
        elif child.exitcode and not error:
            error = f"the process ended with exit code {child.exitcode}"
        rows = [json.loads(line) for line in _text(Path(folder) / "rows").splitlines()]
    return {"rows": rows, "seconds": time.monotonic() - start, "error": error}


def _run(check: Check, device: str, folder: Path, limit: float) -> None:
    import faulthandler

    stacks = (folder / "stacks").open("w")
    faulthandler.dump_traceback_later(max(limit - 1.0, 0.5), file=stacks)
    context = Context(torch.device(device), device == "cpu", folder)
    if context.tiny:
        torch.set_num_threads(1)
    try:
        with (folder / "rows").open("w") as file:
            for row in check(context):
                file.write(json.dumps(asdict(row)) + "\n")
                file.flush()
    except BaseException:
        (folder / "error").write_text(traceback.format_exc())
        os._exit(1)
    os._exit(0)  # not held up by what a library started, such as the compile workers of torch


def _text(path: Path) -> str:
    return path.read_text()[-6000:] if path.name != "rows" and path.is_file() else _whole(path)


def _whole(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--budget", type=float, default=360.0, help="seconds of all checks together")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="run these checks alone, and say on what")
    parser.add_argument(
        "--start", choices=("fork", "spawn"), default="fork", help="how the process of a check starts"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=ROOT / "build" / "gpu",
        help="folder of gpu.txt, gpu.json and the table GPU.md",
    )
    parser.add_argument("--table", type=Path, metavar="FILE", help="where GPU.md goes instead")
    return parser.parse_args()


if __name__ == "__main__":
    # Under the module's own name, so that the checks make the same Row class that this one reads.
    from benchmarks.gpu import main as run_all

    sys.exit(run_all())
