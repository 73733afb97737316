"""`dmlcore calibrate`: files in, card, plot and table out."""

from __future__ import annotations

import json
from hashlib import sha256

import numpy as np
import polars as pl
import pytest
import torch
from typer.testing import CliRunner

from dmlcore.calibration import Target, calibrate, calibration_card
from dmlcore.cli import app
from dmlcore.cli.options import WRONG_INPUT
from dmlcore.records import RecordFolder
from dmlcore.training.store import TrialStore
from tests.calibration.laws import draw
from tests.cli.study import write_study


def call(*arguments):
    return CliRunner().invoke(app, ["calibrate", *map(str, arguments)])


@pytest.fixture
def files(tmp_path):
    splits = draw(60, 5, np.random.default_rng(0)), draw(40, 4, np.random.default_rng(1))
    arguments = []
    for name, (x, y) in zip(("validation", "test"), splits, strict=True):
        np.save(tmp_path / f"{name}.npy", x.astype(np.float32))
        np.save(tmp_path / f"{name}_labels.npy", y.astype(np.uint16))
        arguments += [f"--{name}", tmp_path / f"{name}.npy"]
        arguments += [f"--{name}-labels", tmp_path / f"{name}_labels.npy"]
    return splits, arguments


def test_the_card_is_the_library_s(files, tmp_path):
    splits, arguments = files
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"naïve <{i}>" for i in range(40)), encoding="utf-8")
    card, plot, table = tmp_path / "out" / "card.json", tmp_path / "p.png", tmp_path / "c.csv"
    done = call(
        *("--far", 0.05, *arguments, "--class-names", names, "--frr-limit", 0.7, "--card", card),
        *("--plot", plot, "--classes", table),
    )
    assert done.exit_code == 0, done.output
    single = [(x.astype(np.float32), y) for x, y in splits]
    found = calibrate(*single, Target("far", 0.05))
    expected = calibration_card(found, class_names=[f"naïve <{i}>" for i in range(40)], limits={"frr": 0.7})
    written = json.loads(card.read_text(encoding="utf-8"))
    inputs = written.pop("inputs")
    assert written.pop("reference")["full"]["images"] == 300
    assert written == json.loads(json.dumps(expected))
    assert inputs[f"{tmp_path / 'test.npy'}"] == sha256((tmp_path / "test.npy").read_bytes()).hexdigest()
    assert len(inputs) == 4
    assert plot.read_bytes().startswith(b"\x89PNG")
    rows = pl.read_csv(table)
    assert rows["far"].to_list() == pytest.approx(found.test.class_far.tolist())
    assert rows["name"][3] == "naïve <3>"
    assert f"beyond 0.7: {len(written['test']['class_frr']['beyond_limit'])} of 40" in done.output
    assert f"{found.threshold.distance:.6f}" in done.output


def test_a_names_file_is_read_line_by_line(files, tmp_path):
    odd = ["a\u2028b", "c\x85d", "e\x0cf", "caf\u00e9", "cafe\u0301", *(f"n{i}" for i in range(35))]
    names, table = tmp_path / "names.txt", tmp_path / "c.csv"
    arguments = ("--far", 0.05, *files[1], "--class-names", names, "--classes", table)
    arguments += ("--card", tmp_path / "card.json")
    names.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(odd).encode())
    done = call(*arguments)
    assert done.exit_code == 0, done.output
    assert pl.read_csv(table)["name"].to_list() == odd
    assert "'cafe\\u0301', 'caf\\xe9' differ only by Unicode normalisation" in done.output
    names.write_bytes("\n".join(odd[3:]).encode("latin-1", "replace"))
    assert f"{names}: must be UTF-8 text, got byte 0xe9 in line 1" in call(*arguments).output


def test_a_trial_brings_its_embeddings(tmp_path):
    records = write_study(tmp_path / "study")
    card = tmp_path / "card.json"
    arguments = ("--study", tmp_path / "study", "--card", card)
    done = call("--frr", 0.1, "--trial", records[1].trial_key[:16], *arguments)
    assert done.exit_code == 0, done.output
    content = json.loads(card.read_text())
    assert content["trial_key"] == records[1].trial_key
    assert content["test"]["images"] == 150
    assert content["validation"]["frr"]["rate"] <= 0.1
    for key, words in (
        ("0", "4 trial keys"),
        ("9", "no trial key in"),
        ("f", "must be finished, it is failed"),
    ):
        refused = call("--frr", 0.1, "--trial", key, *arguments)
        assert refused.exit_code == WRONG_INPUT
        assert words in refused.output
    path = tmp_path / "study" / "state" / "storage" / records[1].train_key[:16] / "test.safetensors"
    path.write_bytes(path.read_bytes() + b"0")
    assert (
        "are missing or were changed"
        in call("--far", 0.1, "--trial", records[1].trial_key, *arguments).output
    )


def test_a_trial_with_queries_and_a_gallery_is_calibrated_on_their_pairs(tmp_path):
    record, study = write_study(tmp_path / "study")[0], tmp_path / "study"
    store = TrialStore(study / "state" / "storage" / record.train_key[:16], record.files)
    test = store.load("test")
    rows = torch.arange(len(test["labels"]))
    store.save("test", test | {"is_query": rows % 5 == 0, "groups": rows % 3})
    files = record.files | {"test": store.digest("test")}
    RecordFolder(study / "state" / "records").write(record.model_copy(update={"files": files}))
    card = tmp_path / "card.json"
    done = call("--far", 0.1, "--trial", record.trial_key, "--study", study, "--card", card)
    assert done.exit_code == 0, done.output
    assert "test: each query with each gallery image" in done.output
    content = json.loads(card.read_text())
    assert content["test"]["frr"]["pairs"] == 30 * 4
    assert [group["group"] for group in content["test"]["groups"]] == [0, 1, 2]


def test_validation_alone_gives_a_card_that_says_so(files, tmp_path):
    (validation, _), arguments = files
    card, table = tmp_path / "card.json", tmp_path / "c.csv"
    done = call(
        "--far", 0.05, *arguments[:4], "--card", card, "--classes", table, "--plot", tmp_path / "p.png"
    )
    assert done.exit_code == 0, done.output
    content = json.loads(card.read_text())
    assert {"test", "drift"}.isdisjoint(content)
    assert "note: no test set was given" in done.output
    x, y = validation
    found = calibrate((x.astype(np.float32), y), None, Target("far", 0.05))
    assert found.test is None
    assert len(content.pop("inputs")) == 2
    del content["reference"]
    assert content == json.loads(json.dumps(calibration_card(found)))
    assert pl.read_csv(table)["frr"].to_list() == pytest.approx(found.validation.class_frr.tolist())


def test_queries_and_gallery_are_a_mask_or_two_files(files, tmp_path):
    """And junk labels are left out; names as labels give the same card as integers."""
    ((x, y), _), arguments = files
    query = np.arange(len(y)) % 3 == 0
    np.save(tmp_path / "mask.npy", query)
    cards = [tmp_path / f"{name}.json" for name in ("mask", "files")]
    done = call(
        "--far", 0.05, *arguments[:4], "--validation-is-query", tmp_path / "mask.npy", "--card", cards[0]
    )
    assert done.exit_code == 0, done.output
    for name, rows in (("q", query), ("g", ~query)):
        part, labels = x[rows].astype(np.float32), np.array([f"class {label:03}" for label in y[rows]])
        np.save(tmp_path / f"{name}.npy", np.concatenate([part, part[:4] + 1]))
        (tmp_path / f"{name}.txt").write_text("\n".join([*labels, *["junk"] * 4]))
    done = call(
        *("--far", 0.05, "--validation", tmp_path / "q.npy", "--validation-labels", tmp_path / "q.txt"),
        *("--validation-gallery", tmp_path / "g.npy", "--validation-gallery-labels", tmp_path / "g.txt"),
        *("--ignore-label", "junk", "--card", cards[1]),
    )
    assert done.exit_code == 0, done.output
    one, other = (json.loads(card.read_text()) for card in cards)
    assert one["validation"]["compared"] == "each query with each gallery image"
    assert one["validation"]["far"] == other["validation"]["far"]
    assert one["threshold"] == other["threshold"]
    assert other["validation"]["class_frr"]["worst"][0]["name"].startswith("class ")


def test_several_targets_are_one_card(files, tmp_path):
    (validation, test), arguments = files
    card = tmp_path / "card.json"
    done = call(
        *("--far", 0.05, "--far", 0.01, "--frr", 0.3, "--precision", 0.5, "--prior", 0.5, "--best-f1"),
        *("--cost-false-accept", 10, "--cost-false-reject", 1, "--model", "vit", "--data-date", "2026-11-26"),
        *(*arguments, "--card", card),
    )
    assert done.exit_code == 0, done.output
    content = json.loads(card.read_text())
    entries = [content, *content["further"]]
    kinds = [entry["target"]["kind"] for entry in entries]
    assert kinds == ["far", "far", "frr", "precision", "cost", "f1"]
    assert (content["model"], content["data_date"]) == ("vit", "2026-11-26")
    single = [(x.astype(np.float32), y) for x, y in (validation, test)]
    for entry, target in ((entries[1], Target("far", 0.01)), (entries[5], Target("f1"))):
        assert entry["threshold"]["distance"] == calibrate(*single, target).threshold.distance
    assert f"validation precision {entries[3]['validation']['precision']:.6f}" in done.output


def test_pairs_come_listed(tmp_path):
    x, y = draw(60, 4, np.random.default_rng(9))
    rng = np.random.default_rng(10)
    one, other = rng.integers(0, 240, 500), rng.integers(0, 240, 500)
    other[:200] = one[:200] // 4 * 4 + (one[:200] + 1) % 4
    paths = []
    for name, array in (("a", x[one]), ("b", x[other]), ("same", (y[one] == y[other]).astype(int))):
        np.save(tmp_path / f"{name}.npy", array)
        paths.append(tmp_path / f"{name}.npy")
    card, plot = tmp_path / "card.json", tmp_path / "p.png"
    done = call(
        "--far", 0.1, "--validation-pairs", *paths, "--test-pairs", *paths, "--card", card, "--plot", plot
    )
    assert done.exit_code == 0, done.output
    content = json.loads(card.read_text())
    assert content["validation"]["compared"] == "the pairs that were listed"
    assert content["validation"]["far"]["pairs"] + content["validation"]["frr"]["pairs"] == 500
    assert "class_far" not in content["test"]
    assert plot.read_bytes().startswith(b"\x89PNG")
    mixed = call("--far", 0.1, "--validation-pairs", *paths, "--test", paths[0], "--test-labels", paths[2])
    assert "both splits as listed pairs" in mixed.output
    assert (
        "leave out its other files"
        in call("--far", 0.1, "--validation-pairs", *paths, "--validation", paths[0]).output
    )


@pytest.mark.parametrize("option", ["--worst-group", "--per-group"])
def test_groups_and_a_promise_from_files(files, tmp_path, option):
    ((_, y), _), arguments = files
    (tmp_path / "groups.txt").write_text("\n".join(f"camera {i % 2}" for i in range(len(y))))
    groups, card = ("--validation-groups", tmp_path / "groups.txt"), tmp_path / "card.json"
    done = call("--far", 0.2, "--confidence", 0.9, option, *arguments, *groups, "--card", card)
    assert done.exit_code == 0, done.output
    content = json.loads(card.read_text())
    names = [group["group"] for group in content["validation"]["groups"]]
    assert names == ["camera 0", "camera 1"]
    assert "and for every group" in done.output
    assert "validation group" not in done.output  # test has the list, and no groups
    own = [own["group"] for own in content.get("group_thresholds", [])]
    assert own == (names if option == "--per-group" else [])
    assert ("threshold of group camera 1" in done.output) == (option == "--per-group")
    refused = call("--far", 0.2, "--worst-group", "--per-group", *arguments, *groups)
    assert "not both" in refused.output


def test_groups_of_queries_and_gallery_come_in_two_files_or_one_table(files, tmp_path):
    """And the mask of the table is in words; the label to ignore is a number, however it is written in the files."""
    ((x, y), _), arguments = files
    query, camera = np.arange(len(y)) % 3 == 0, np.array(["north", "south"])[np.arange(len(y)) % 2]
    rows = zip(camera, np.where(query, "query", "gallery"), strict=True)
    (tmp_path / "t.csv").write_text("camera,role\n" + "".join(f"{name},{role}\n" for name, role in rows))
    (tmp_path / "g.csv").write_text("group\n" + "\n".join(camera))
    table, cards = tmp_path / "t.csv", [tmp_path / f"{name}.json" for name in ("table", "files", "column")]
    one = ("--validation-is-query", table, "--validation-groups", table, "--memory", "64MiB")
    column = ("--validation-is-query", table, "--validation-groups", tmp_path / "g.csv")
    two: list[object] = ["--ignore-label", "-1"]
    for name, rows in (("", query), ("-gallery", ~query)):
        junk = [*np.flatnonzero(rows), *np.flatnonzero(rows)[:5]]
        labels = np.where(np.arange(len(junk)) < rows.sum(), y[junk], -1)
        np.save(tmp_path / f"x{name}.npy", x[junk].astype(np.float32))
        np.save(tmp_path / f"y{name}.npy", labels.astype(np.int16))
        (tmp_path / f"g{name}.txt").write_text("\n".join(camera[junk]))
        two += [f"--validation{name}", tmp_path / f"x{name}.npy"]
        two += [f"--validation{name}-labels", tmp_path / f"y{name}.npy"]
        two += [f"--validation{name}-groups", tmp_path / f"g{name}.txt"]
    for words, card in zip(((*arguments[:4], *one), two, (*arguments[:4], *column)), cards, strict=True):
        done = call("--far", 0.05, *words, "--card", card)
        assert done.exit_code == 0, done.output
    found = [json.loads(card.read_text()) for card in cards]
    assert [group["group"] for group in found[0]["validation"]["groups"]] == ["north", "south"]
    assert found[0]["validation"]["compared"] == "each query with each gallery image"
    for other in found[1:]:
        assert other["validation"] == found[0]["validation"]
        assert other["threshold"] == found[0]["threshold"]
    assert len(found[1]["inputs"]) == 6


def test_a_label_to_ignore_is_of_the_kind_of_the_labels(files, tmp_path):
    done = call("--far", 0.05, *files[1], "--ignore-label", "junk", "--card", tmp_path / "card.json")
    assert done.exit_code == WRONG_INPUT
    assert "--ignore-label must be an integer, as those of --validation-labels are, got 'junk'" in done.output


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("mask", "must say query or gallery (or true or false, 1 or 0) for each image, row 2 is '2'"),
        ("short", "mask.npy must have one value for each of the 300 rows of"),
        ("square", "mask.npy must be [N], one value for each image, got [2, 2]"),
        (
            "both",
            "give --validation-is-query, or --validation-gallery with --validation-gallery-labels, not both",
        ),
        ("alone", "--validation-gallery and --validation-gallery-labels belong together"),
        ("groups", "--validation-gallery-groups goes with --validation-gallery and --validation-groups"),
    ],
)
def test_wrong_queries_are_refused(files, tmp_path, change, words):
    arguments = files[1][:4]
    masks = {"mask": np.arange(300), "short": np.ones(7, bool)}
    np.save(tmp_path / "mask.npy", masks.get(change, np.eye(2, dtype=bool)))
    if change not in ("alone", "groups"):
        arguments += ["--validation-is-query", tmp_path / "mask.npy"]
    if change in ("both", "alone", "groups"):
        arguments += ["--validation-gallery", files[1][1]]
    if change in ("both", "groups"):
        arguments += ["--validation-gallery-labels", files[1][3]]
    if change == "groups":
        arguments += ["--validation-groups", files[1][3]]
    done = call("--far", 0.1, *arguments, "--card", tmp_path / "card.json")
    assert done.exit_code == WRONG_INPUT
    assert words in done.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give at least one target"),
        (["--best-f1", "--confidence", "0.9"], "go with --far or --frr"),
        (["--precision", "0.9"], "target precision needs --prior"),
        (["--cost-false-accept", "5", "--prior", "0.1"], "target cost needs --cost-false-reject"),
        (["--precision", "0.9", "--prior", "1"], "--prior must be a share of the pairs in (0, 1), got 1.0"),
        (["--far", "0.1"], "give --validation and --validation-labels, --validation-pairs, or --trial"),
        (["--far", "0.1", "--validation", "x.npy"], "--validation-labels is missing"),
        (["--far", "0.1", "--memory", "1MiB"], "--memory must be at least 16MiB, got '1MiB'"),
        (["--far", "0.1", "--memory", "lots"], "--memory must be a number of bytes, as 500MiB"),
        (["--far", "2"], "got 2.0"),
        (["--far", "0.1", "--trial", "a", "--test", "x.npy"], "leave out the files"),
    ],
)
def test_wrong_arguments_are_refused(arguments, words):
    done = call(*arguments)
    assert done.exit_code == WRONG_INPUT
    assert words in done.output


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(files, tmp_path, device):
    done = call("--far", 0.1, *files[1], "--device", device, "--card", tmp_path / "card.json")
    assert done.exit_code == WRONG_INPUT
    assert f"device must be one of this machine, cpu or cuda:0, got '{device}'" in done.output


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("pickle", "would have to be unpickled"),
        ("width", "same width, got 2 and 3"),
        ("labels", "one label for each of the 159 rows"),
        ("nan", "test: embeddings must be finite"),
        ("names", "class names must name each test label"),
    ],
)
def test_wrong_files_are_refused(files, tmp_path, change, words):
    (_, (x, _)), arguments = files
    if change == "pickle":
        np.save(tmp_path / "test.npy", np.array([{}], dtype=object), allow_pickle=True)
    elif change == "names":
        (tmp_path / "names.txt").write_text("one\ntwo\n")
        arguments += ["--class-names", tmp_path / "names.txt"]
    else:
        bad = {"width": np.pad(x, ((0, 0), (0, 1))), "labels": x[:-1], "nan": np.where(x > 0.9, np.nan, x)}
        np.save(tmp_path / "test.npy", bad[change])
    done = call("--far", 0.1, *arguments, "--card", tmp_path / "card.json")
    assert done.exit_code == WRONG_INPUT
    assert words in done.output
    assert "Traceback" not in done.output
    assert not (tmp_path / "card.json").exists()
