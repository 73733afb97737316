"""What `dmlcore calibrate` prints and the table of classes that it writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from dmlcore.calibration import Calibration


def class_csv(found: Calibration, names: tuple[str, ...] | None) -> str:
    """Return a row for each class of the last split as CSV."""
    from dmlcore.calibration import class_rows
    from dmlcore.core.spreadsheet import rows_csv

    return rows_csv(class_rows(found.final, names))


def print_card(card: dict[str, Any]) -> None:
    """Print what matters of a card, target by target."""
    for entry in (card, *card.get("further", [])):
        _print_entry(entry)


def _print_entry(card: dict[str, Any]) -> None:
    threshold, target = card["threshold"], card["target"]
    rate = f" {target['rate']:g}" if "rate" in target else ""
    typer.echo(
        f"threshold for {target['kind']}{rate}: distance {threshold['distance']:.6f}, "
        f"cosine {threshold['cosine_similarity']:.6f}"
    )
    if card["promise"]:
        typer.echo(f"promise: {card['promise']['statement']}")
    splits = [split for split in ("validation", "test") if split in card]
    for split in splits:
        _print_split(split, card[split], target["kind"])
    for own in card.get("group_thresholds", []):
        typer.echo(f"threshold of group {own['group']}: distance {own['distance']:.6f}")
    for group in card[splits[-1]].get("groups", []):
        _print_group(splits[-1], group)
    for kind in ("far", "frr"):
        if f"class_{kind}" in card[splits[-1]]:
            _print_classes(kind, splits[-1], card[splits[-1]][f"class_{kind}"])
    for note in card["notes"]:
        typer.echo(f"note: {note}")


def _print_split(name: str, split: dict[str, Any], target: str) -> None:
    typer.echo(f"{name}: {split['compared']}")
    rates = [(kind, split[kind]) for kind in ("far", "frr")]
    rates += [(kind, split.get("identification", {}).get(kind)) for kind in ("fpir", "fnir")]
    for kind, rate in rates:
        if rate:
            interval = f"95 % interval {rate['low']:.6f} to {rate['high']:.6f}"
            of = "pairs" if kind in ("far", "frr") else "searches"
            typer.echo(f"{name:10} {kind.upper()} {rate['rate']:.6f}  {interval}  ({rate['pairs']} {of})")
    if split.get(target) is not None and target not in ("far", "frr"):
        typer.echo(f"{name:10} {target} {split[target]:.6f}")


def _print_group(split: str, group: dict[str, Any]) -> None:
    rates = [
        f"{kind.upper()} {part} {group[part][kind]['rate']:.6f}"
        for kind in ("far", "frr")
        for part in ("within", "across")
        if group[part][kind]
    ]
    typer.echo(f"{split} group {group['group']}: {', '.join(rates)}")


def _print_classes(kind: str, split: str, found: dict[str, Any]) -> None:
    median, high, worst = (found["quantiles"][level] for level in ("0.5", "0.95", "1"))
    typer.echo(
        f"{split} classes {kind.upper()}: median {median:.6f}, 95 % of them up to {high:.6f}, worst {worst:.6f}"
    )
    if "limit" in found:
        beyond, unsure = found["beyond_limit"], len(found["too_few_images_to_say"])
        named = ", ".join(str(row["name"] or row["label"]) for row in beyond[:5])
        line = f"  beyond {found['limit']:g}: {len(beyond)} of {found['classes']}"
        typer.echo(line + (f": {named}" if named else ""))
        typer.echo(f"  above it, too few images to say: {unsure}")
