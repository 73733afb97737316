"""The working memory stays under its bound, measured as the peak of a process of its own."""

import subprocess
import sys

import pytest

SCRIPT = """
import sys
from pathlib import Path
import torch
from dmlcore.metrics.evaluation import evaluate

def peak():
    line = next(s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith("VmHWM"))
    return int(line.split()[1]) * 1024

torch.manual_seed(0)
x, y = torch.randn(12288, 32), torch.randint(0, 1200, (12288,))
evaluate(x[:3000], y[:3000], memory_bytes=2**24)
Path("/proc/self/clear_refs").write_text("5")
before = peak()
evaluate(x, y, memory_bytes=int(sys.argv[1]))
print(peak() - before)
"""


def extra_bytes(memory_bytes: int) -> int:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(memory_bytes)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak resident size is read from Linux's /proc")
def test_peak_is_bounded() -> None:
    small, large = extra_bytes(2**25), extra_bytes(2**30)
    assert small < 2**25 + 2**27  # beside the bound: buffers of two threads and tables that grow with N alone
    assert small < large - 2**28  # the bound binds: embeddings at random keep all their similarities, 0.6 GB
    assert large < 2**30
