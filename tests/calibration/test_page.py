"""The figures of docs/calibration.md are those that `make validate` wrote into docs/validation.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
ROW = re.compile(
    r"^\| (.+?) \| (\d+) classes of 6 images(?:, (.+?); width [\d.]+)? \| ([\d.]+) % \|", re.MULTILINE
)
FEWEST = 27
CALIBRATE, BOOTSTRAP = "calibrate: interval of the pooled", "bootstrap over classes of the pooled"
WILSON = "Wilson's interval of the same"


def measured(what: str, law: str, most: int = 400) -> list[str]:
    """Covered shares of one interval and law, in percent, from 27 to `most` classes, rising."""
    rows = ROW.findall((DOCS / "validation.md").read_text(encoding="utf-8"))
    found = [
        float(share) for name, n, of, share in rows if (name, of) == (what, law) and FEWEST <= int(n) <= most
    ]
    assert found
    return [f"{share:.1f}" for share in sorted(found)]


@pytest.mark.parametrize(
    ("what", "law", "most"),
    [
        (f"{CALIBRATE} FRR", "", 400),
        (f"{CALIBRATE} FAR", "", 400),
        (f"{CALIBRATE} FAR", "no hubs", 400),
        (f"{CALIBRATE} FAR", "5 % hubs", 200),
        (f"{BOOTSTRAP} FAR", "no hubs", 400),
        (f"{BOOTSTRAP} FAR", "5 % hubs", 400),
        (f"{WILSON} FRR", "", 400),
        (f"{WILSON} FAR", "", 400),
    ],
)
def test_a_range_of_the_page_is_the_measured_one(what, law, most):
    found = measured(what, law, most)
    assert f"{found[0]} to {found[-1]} %" in (DOCS / "calibration.md").read_text(encoding="utf-8")
