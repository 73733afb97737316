"""What benchmarks.gpu found, as text and as the table benchmarks/GPU.md.

python -m benchmarks.gpu_report GPU.JSON > GPU.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Report = dict[str, dict[str, Any]]
"""Name of a check -> its rows, seconds and error."""
MARKS = {None: "", True: "ok", False: "MISSED"}


def lines(name: str, result: dict[str, Any]) -> Iterator[str]:
    """Yield the report of one check as text."""
    yield f"\n{name} ({result['seconds']:.1f} s)"
    for row in result["rows"]:
        aim = f"  (aim: {row['aim']}  {MARKS[row['ok']]})" if row["aim"] else f"  {MARKS[row['ok']]}"
        yield f"  {row['what']:58}{_value(row):>12} {row['unit']:9}{aim}  {row['note']}".rstrip()
    if result["error"]:
        yield "  ERROR " + str(result["error"]).strip().replace("\n", "\n    ")


def markdown(report: Report) -> str:
    """Return the page: a table for each check."""
    parts = [
        "# Checks and figures of a GPU\n\nWritten by `make gpu`; what each check does is said in `benchmarks/gpu*.py`."
        " Times are the fastest of the runs of one check; a ratio is taken within one check.\n"
    ]
    for name, result in report.items():
        parts.append(f"\n## {name}\n\n| what | figure | aim | |\n| --- | ---: | --- | --- |\n")
        parts += [_row(row) for row in result["rows"]]
        if result["error"]:
            last = str(result["error"]).strip().splitlines()[-1]
            parts.append(f"\nEnded early: {_cell(last)}\n")
    return "".join(parts)


def _row(row: dict[str, Any]) -> str:
    aim = f"{row['aim']}: {MARKS[row['ok']]}" if row["aim"] else MARKS[row["ok"]]
    figure = f"{_value(row)} {row['unit']}".strip()
    return f"| {_cell(row['what'])} | {figure} | {aim} | {_cell(row['note'])} |\n"


def _cell(text: str) -> str:
    return text.strip().replace("|", "\\|").replace("*", "\\*")[:160]


def _value(row: dict[str, Any]) -> str:
    value = row["value"]
    if value is None:
        return ""
    return f"{value:,.4g}" if value < 1e4 else f"{value:,.0f}"


if __name__ == "__main__":
    sys.stdout.write(markdown(json.loads(Path(sys.argv[1]).read_text())))
