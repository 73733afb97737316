"""`dmlcore monitor`: is the threshold of a card still good on new data?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from dmlcore.cli.arrays import EMBEDDINGS, LABELS, read_embeddings
from dmlcore.cli.options import INCOMPLETE, check_plot
from dmlcore.cli.split_files import SplitFiles, read_split
from dmlcore.core.io import write_atomically


def monitor(
    embeddings: Annotated[Path, typer.Argument(help=f"New embeddings, {EMBEDDINGS}")],
    card: Annotated[Path, typer.Option(help="Card of `dmlcore calibrate`.")],
    labels: Annotated[Path | None, typer.Option(help=f"Labels of the new data, if known, {LABELS}")] = None,
    level: Annotated[float, typer.Option(help="Probability of an alarm where nothing has changed.")] = 0.05,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the result here as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write the comparison here as PNG.")] = None,
) -> None:
    """Check a threshold on new data: with labels its error rates, without them a test of shift.

    Exit code 0: still good, or nothing speaks against it; 1: not good any more; 2: a wrong argument or file.

    Example: dmlcore monitor --card card.json new.npy --json monitor.json --plot monitor.png
    """
    from dmlcore.calibration.monitor import monitor_labelled, monitor_unlabelled, read_card

    check_plot(plot)
    content = read_card(card)
    if labels is None:
        found = monitor_unlabelled(content, read_embeddings(embeddings), level=level)
    else:
        new = read_split(SplitFiles("EMBEDDINGS", "--", embeddings, labels))
        found = monitor_labelled(content, new.embeddings, new.labels)
    if json_path is not None:
        write_atomically(json_path, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    if plot is not None:
        from dmlcore.calibration.monitor_plot import monitor_png

        write_atomically(plot, monitor_png(found, content))
    _print(found)
    if not found["ok"]:
        raise typer.Exit(INCOMPLETE)


def _print(found: dict[str, Any]) -> None:
    for test in found.get("tests", {}).values():
        typer.echo(
            f"{test['what']}: {test['validation']:.6f} expected, {test['new']:.6f} found, p = {test['p_value']:.2g}"
        )
    for kind in ("far", "frr"):
        if kind in found:
            rate, limit = found[kind], found["limits"].get(kind)
            against = "" if limit is None else f", to be at most {limit:g}"
            interval = f"95 % interval {rate['low']:.6f} to {rate['high']:.6f}"
            typer.echo(f"{kind.upper()} {rate['rate']:.6f}  {interval}{against}")
    for note in found["notes"]:
        typer.echo(f"note: {note}")
    typer.echo(_verdict(found))


def _verdict(found: dict[str, Any]) -> str:
    if "broken" in found:
        kinds = ", ".join(kind.upper() for kind in found["broken"])
        return f"not good any more: {kinds} surely above" if kinds else "nothing speaks against the threshold"
    if found["shifted"]:
        return f"shifted ({', '.join(found['shifted'])}): label a sample and calibrate again"
    return f"no shift found at level {found['level']:g}"
