"""Monitoring in both directions: the level is kept where nothing changed, a shift is found; cards are not trusted."""

from __future__ import annotations

import json
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from dmlcore.calibration import Target, calibrate_targets, calibration_card
from dmlcore.calibration.monitor import monitor_labelled, monitor_unlabelled, read_card
from dmlcore.calibration.reference import block_sums
from dmlcore.cli import app
from dmlcore.metrics.inputs import build_pairs
from tests.calibration.laws import draw_sphere

PLAIN = Target("far", 0.02)

PLOTS = find_spec("matplotlib") is not None  # an extra, absent where the core is tested alone


def card_of(seed, classes=80, target=PLAIN):
    held_out = draw_sphere(classes, 6, np.random.default_rng(seed), 0.0)
    return json.loads(
        json.dumps(calibration_card(calibrate_targets(held_out, None, [target], references=True)))
    )


def test_the_level_is_kept_where_nothing_changed():
    """Cards and new sets of other sizes from one law: far fewer alarms than a test that takes images as independent."""
    alarms = 0
    for number in range(30):
        card = card_of((1, number))
        new, _ = draw_sphere((40, 80, 120)[number % 3], 6, np.random.default_rng((2, number)), 0.0)
        found = monitor_unlabelled(card, new)
        assert ("nearest" in found["tests"]) == (number % 3 < 2)
        alarms += not found["ok"]
    assert alarms <= 4  # 5 % of 30 is 1.5; 5 and more has a chance of 2 %


@pytest.mark.parametrize(
    ("shift", "named"),
    [("narrower", "accepted"), ("wider", "nearest"), ("hubs", "accepted")],
)
def test_a_shift_is_found(shift, named):
    rng = np.random.default_rng(3)
    new, _ = draw_sphere(80, 6, rng, 0.3 if shift == "hubs" else 0.0)
    if shift == "narrower":  # classes nearer to one another, as with a camera that blurs
        new = new + 1.5 * np.eye(16)[0]
    elif shift == "wider":  # images of a class farther apart
        new = new + 0.25 * rng.standard_normal(new.shape)
    found = monitor_unlabelled(card_of(4), new)
    assert not found["ok"]
    assert named in found["shifted"]


def test_labels_are_measured_against_the_promise():
    card = card_of(5, target=Target("far", 0.02, 0.95))
    new, y = draw_sphere(80, 6, np.random.default_rng(6), 0.0)
    same = monitor_labelled(card, new, y)
    assert same["ok"]
    assert same["limits"] == {"far": 0.02}
    assert "for classes not seen" in same["promised"]
    worse = monitor_labelled(card, new + 1.5 * np.eye(16)[0], y)
    assert worse["broken"] == ["far"]
    unit = new / np.linalg.norm(new, axis=1, keepdims=True)
    accepted = np.triu(unit @ unit.T >= card["threshold"]["cosine_similarity"], 1) & (y[:, None] != y)
    assert same["far"]["errors"] == accepted.sum()


def test_the_block_sums_equal_a_naive_recount():
    x, y = draw_sphere(30, 5, np.random.default_rng(7), 0.1)
    pairs = build_pairs(x, y, None, torch.device("cpu"))
    blocks = np.arange(30) // 10
    sums = block_sums(pairs, blocks, 0.7)
    rows = pairs.rows[:150].double().numpy()
    s = rows @ rows.T
    np.fill_diagonal(s, -2.0)
    of, own = blocks[pairs.row_class], pairs.row_class[:, None] == pairs.row_class
    near = s >= 0.7
    for left_out in (None, 1):
        keep = of != (-1 if left_out is None else left_out)
        part = np.ix_(keep, keep)
        expected = {
            "images": keep.sum(),
            "mates": keep.sum() * 4,
            "strangers": keep.sum() * (keep.sum() - 5),
            "own_accepted": (near & own)[part].sum(),
            "own_sum": s[part][(near & own)[part]].sum(),
            "other_accepted": (near & ~own)[part].sum(),
            "other_sum": s[part][(near & ~own)[part]].sum(),
            "nearest": s[part].max(axis=1).mean(),
        }
        assert sums.without(left_out) == pytest.approx(expected, rel=1e-6)
    sizes = sums.nearest_by_size()
    alone = [np.where(own | (of == block), s, -2.0).max(axis=1).mean() for block in range(3)]
    assert sizes[0] == pytest.approx(np.mean(alone), rel=1e-6)
    assert sizes[2] == pytest.approx(s.max(axis=1).mean(), rel=1e-6)


def call(*arguments):
    return CliRunner().invoke(app, ["monitor", *map(str, arguments)])


def test_the_command_says_it_by_its_exit_code(tmp_path):
    (tmp_path / "card.json").write_text(json.dumps(card_of(8)))
    new, y = draw_sphere(60, 6, np.random.default_rng(9), 0.0)
    np.save(tmp_path / "same.npy", new)
    np.save(tmp_path / "other.npy", new + 1.5 * np.eye(16)[0])
    np.save(tmp_path / "y.npy", y)
    for name, code, words in (("same", 0, "no shift found"), ("other", 1, "calibrate again")):
        out, plot = tmp_path / f"{name}.json", tmp_path / f"{name}.png"
        arguments = (tmp_path / f"{name}.npy", "--card", tmp_path / "card.json", "--json", out)
        if PLOTS:
            arguments += ("--plot", plot)
        done = call(*arguments)
        assert done.exit_code == code, done.output
        assert words in done.output
        assert json.loads(out.read_text())["ok"] is (code == 0)
        assert not PLOTS or plot.read_bytes().startswith(b"\x89PNG")
        done = call(*arguments, "--labels", tmp_path / "y.npy")
        assert done.exit_code == code, done.output
        assert not PLOTS or plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda card: card | {"schema_version": 1}, "schema_version 2, got 1"),
        (lambda card: [card], "schema_version 2, got None"),
        (lambda card: card | {"threshold": {}}, "lacks 'cosine_similarity'"),
        (lambda card: card | {"threshold": {"cosine_similarity": float("nan")}}, "missing or impossible"),
        (lambda card: card | {"threshold": {"cosine_similarity": "0.5"}}, "missing or impossible"),
        (lambda card: card | {"reference": {"full": {}}}, "lacks 'without'"),
        (
            lambda card: card | {"reference": card["reference"] | {"nearest_by_size": [2.0]}},
            "missing or impossible",
        ),
        (lambda card: {name: value for name, value in card.items() if name != "reference"}, "give --labels"),
    ],
)
def test_a_card_is_not_trusted(tmp_path, change, words):
    (tmp_path / "card.json").write_text(json.dumps(change(CARD)))
    np.save(tmp_path / "new.npy", draw_sphere(20, 6, np.random.default_rng(9), 0.0)[0])
    done = call(tmp_path / "new.npy", "--card", tmp_path / "card.json")
    assert done.exit_code == 2
    assert words in done.output


CARD = card_of(10, classes=30, target=Target("far", 0.1))


def test_broken_files_and_levels_are_refused(tmp_path):
    (tmp_path / "card.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="must be a card of `dmlcore calibrate`"):
        read_card(tmp_path / "card.json")
    with pytest.raises(ValueError, match="at least 40 new images, got 12"):
        monitor_unlabelled(CARD, np.eye(12))
    with pytest.raises(ValueError, match=r"--level must be in \(0, 0.5\)"):
        monitor_unlabelled(CARD, np.eye(50), level=5)


def test_labels_of_other_images_are_refused_by_their_option(tmp_path):
    (tmp_path / "card.json").write_text(json.dumps(CARD))
    np.save(tmp_path / "new.npy", np.eye(50))
    (tmp_path / "y.csv").write_text("class\n" + "ant\nbee\n" * 20)
    done = call(tmp_path / "new.npy", "--card", tmp_path / "card.json", "--labels", tmp_path / "y.csv")
    assert done.exit_code == 2
    assert "--labels: " in done.output
    assert "y.csv must have one label for each of the 50 rows of" in done.output
