"""The checks of `make gpu` themselves, at tiny sizes on the CPU, and what the command does without a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments):
    command = [sys.executable, "-m", "benchmarks.gpu", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_each_check_runs_and_reports(tmp_path):
    done = run("--device", "cpu", "--budget", 600, "--output", tmp_path)
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert {name: result["error"] for name, result in report.items() if result["error"]} == {}
    assert done.returncode == 0, done.stderr[-2000:]
    assert all(result["rows"] for result in report.values())
    assert len(report) == 13
    missed = [row for result in report.values() for row in result["rows"] if row["ok"] is False]
    assert missed == []
    assert "waits" in (tmp_path / "gpu.txt").read_text()
    assert "| Trainer, JPEG files, 1 threads |" in (tmp_path / "GPU.md").read_text()


def test_a_check_that_has_no_time_left_says_so(tmp_path):
    done = run("--device", "cpu", "--budget", 0, "--only", "jpeg", "--output", tmp_path)
    assert "not run: the budget is spent" in done.stdout
    assert done.returncode == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_says_so():
    done = run()
    assert done.stdout.strip() == "not run: no GPU"
    assert done.returncode == 0
