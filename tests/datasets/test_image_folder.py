import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from dmlcore.config.data import DatasetConfig, PreprocessConfig, SplitConfig
from dmlcore.core.errors import DataError
from dmlcore.datasets.acquire.acquire import acquire_class_folders
from dmlcore.datasets.importers.image_folder import load_catalogue as folder_catalogue

GROCERY = Path(os.environ.get("DMLCORE_GROCERY", Path(__file__).parents[3] / "shared/data/grocery"))


@pytest.fixture
def source(tmp_path):
    """Eight classes of three images, four super-classes."""
    folder = tmp_path / "source"
    random = np.random.default_rng(0)
    for name in "abcdefgh":
        (folder / name).mkdir(parents=True)
        for number in range(3):
            pixels = random.integers(0, 256, (10, 12, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    rows = "".join(f"{name},{'wxyz'[place // 2]}\n" for place, name in enumerate("abcdefgh"))
    (folder / "supers.csv").write_text("class_name,super_class\n" + rows)
    return folder


@pytest.fixture
def build(tmp_path, source, prepared):
    def through_the_tar(config=None):
        config = config or PreprocessConfig(image_size=8)
        acquire_class_folders(source, tmp_path / "raw")
        return prepared(folder_catalogue(tmp_path / "raw", config), config)

    return through_the_tar


def by_super_class(**split):
    return PreprocessConfig(
        image_size=8, super_classes="supers.csv", split=SplitConfig(unit="super_class", **split)
    )


def test_folders_become_classes(build):
    dataset = build()
    assert set(dataset.manifest["class_name"]) == set("abcdefgh")
    assert dataset.manifest["super_class"].equals(dataset.manifest["class_name"], check_names=False)
    assert dataset.split("test").images.array.shape == (12, 8, 8, 3)
    assert dataset.manifest.filter(source="c/1.png")["class_name"].item() == "c"


def test_super_classes_come_from_the_table_and_stay_whole(build):
    manifest = build(by_super_class(rule="listed", test=("w", "z"), validation=("x",))).manifest
    found = manifest.group_by("split").agg(pl.col("class_name").unique().sort().str.join("")).sort("split")
    assert found.rows() == [("test", "abgh"), ("train", "ef"), ("validation", "cd")]
    assert manifest.filter(class_name="d")["super_class"].unique().to_list() == ["x"]


def test_the_pack_is_one_file_that_changes_with_the_files_alone(source, tmp_path):
    acquire_class_folders(source, tmp_path / "raw")
    first = (tmp_path / "raw/images.tar").read_bytes()
    for path in source.rglob("*.png"):
        os.utime(path, (1, 1))
    (source / "a/.DS_Store").touch()
    (source / "a/Thumbs.db").touch()
    acquire_class_folders(source, tmp_path / "raw")
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["images.tar"]
    assert (tmp_path / "raw/images.tar").read_bytes() == first
    Image.new("RGB", (9, 9)).save(source / "a/0.png")
    acquire_class_folders(source, tmp_path / "raw")
    assert (tmp_path / "raw/images.tar").read_bytes() != first


def test_odd_but_printable_names_survive(source, build):
    for name in ("déjà vu", "a;rm -rf", "Ж" * 100, "x" * 200, "*?<>|&'\"", "C:\\"):
        shutil.copytree(source / "a", source / name)
        for number, path in enumerate(sorted((source / name).iterdir())):
            Image.fromarray(np.full((9, 9, 3), 10 * len(name) % 251 + number, np.uint8)).save(path)
    names = set(build(PreprocessConfig(image_size=8, on_duplicates="report")).manifest["class_name"])
    assert {"déjà vu", "a;rm -rf", "Ж" * 100, "x" * 200, "*?<>|&'\"", "C:\\"} < names


@pytest.mark.parametrize("name", [b"new\nline", b"not \xff utf-8", b"escape \x1b[31m"])
def test_names_that_are_no_text_are_refused(source, build, name):
    os.mkdir(os.path.join(os.fsencode(source), name))  # noqa: PTH102, PTH118 - bytes on purpose
    with pytest.raises(DataError, match="a name must be UTF-8 text in one line"):
        build()


def test_links_out_of_the_folder_are_refused(source, build, tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "secret.png")
    (source / "a/link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(DataError, match=r"a/link.png: a link must not lead out of"):
        build()


def test_linked_class_folders_out_of_the_folder_are_refused(source, build, tmp_path):
    shutil.copytree(source / "a", tmp_path / "elsewhere")
    (source / "linked").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"linked: a link must not lead out of"):
        build()


def test_links_within_the_folder_are_followed(source, build):
    (source / "a/again.png").symlink_to(source / "a/0.png")
    duplicates = build().summary["duplicates"]
    assert (duplicates["across_classes"], duplicates["within_a_class"]) == (0, 2)


@pytest.mark.parametrize("name", ["a/notes.txt", "a/deeper/0.png"])
def test_what_is_no_image_is_refused(source, build, name):
    (source / name).parent.mkdir(exist_ok=True)
    (source / name).touch()
    with pytest.raises(DataError, match="a class folder holds images only"):
        build()


def test_links_in_a_circle_are_refused(source, build):
    (source / "a/loop").symlink_to("..")
    with pytest.raises(DataError, match=r"loop.*links must not lead in a circle"):
        build()


def test_links_that_multiply_are_refused(source, build):
    for one, other in zip("abcdefg", "bcdefgh", strict=True):
        for number in range(3):
            (source / one / f"link{number}").symlink_to(f"../{other}")
    with pytest.raises(DataError, match=r"or 100 times to one folder"):
        build()


def deepen(source):
    """Class a gets two deeper folders, of which one is two levels down."""
    for number, place in enumerate(("a/x", "a/x", "a/y/z", "a/y/z")):
        (source / place).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (number, 50 * number, 9)).save(source / place / f"{number}.png")


def test_images_of_deeper_folders_join_the_class_at_the_top(source, build):
    deepen(source)
    manifest = build(PreprocessConfig(image_size=8, nested_folders="join")).manifest
    assert set(manifest["class_name"]) == set("abcdefgh")
    assert manifest.filter(class_name="a").height == 7
    assert manifest.filter(source="a/y/z/2.png")["class_name"].item() == "a"


@pytest.mark.parametrize("unit", ["class", "super_class"])
def test_deeper_folders_are_classes_of_their_own(source, build, unit):
    deepen(source)
    split = SplitConfig(unit=unit, validation_share=0.2)
    manifest = build(PreprocessConfig(image_size=8, nested_folders="classes", split=split)).manifest
    assert set(manifest["class_name"]) == set("abcdefgh") | {"a/x", "a/y/z"}
    assert manifest.filter(class_name="a/y/z")["super_class"].unique().to_list() == ["a"]
    if unit == "super_class":
        assert manifest.filter(super_class="a")["split"].n_unique() == 1


def test_deeper_folders_are_refused_with_the_setting_that_takes_them(source, build):
    deepen(source)
    with pytest.raises(DataError, match=r"a/x/0.png: .*set `nested_folders` to join or classes"):
        build()


@pytest.mark.parametrize("setting", [{"nested_folders": "join"}, {"merge_names": True}])
def test_settings_of_folders_are_refused_elsewhere(setting):
    with pytest.raises(ValueError, match="works for kind `image_folder` only, got kind `sop`"):
        DatasetConfig(kind="sop", source="x", preprocess=PreprocessConfig(**setting))


def test_a_pipe_is_refused_and_not_waited_for(source, build):
    os.mkfifo(source / "a/pipe.png")
    with pytest.raises(DataError, match=r"pipe.png: a class folder holds images only"):
        build()


def test_a_file_of_terabytes_is_refused_before_it_is_read(source, build):
    with (source / "a/sparse.png").open("wb") as file:
        file.truncate(8 << 30)
    with pytest.raises(
        DataError, match=r"a/sparse.png: must have at most 536,870,912 bytes, got 8,589,934,592"
    ):
        build()


def test_empty_folders_are_refused(source, build):
    (source / "empty").mkdir()
    with pytest.raises(DataError, match="empty: a class folder must hold images"):
        build()
    shutil.rmtree(source)
    with pytest.raises(DataError, match="no such folder; `source` names"):
        build()
    source.mkdir()
    with pytest.raises(DataError, match="one folder of images per class, got no folder"):
        build()


def test_an_unreadable_image_is_refused_by_name_and_nothing_is_left(source, build, tmp_path):
    (source / "b/1.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"'b/1.png': unreadable image"):
        build()
    assert not (tmp_path / "prepared").exists()


def test_identical_images_under_two_classes_are_refused(source, build):
    shutil.copy(source / "a/0.png", source / "h/9.png")
    with pytest.raises(
        DataError, match=r"identical images in two classes: .*'a/0.png' of 'a'.*'h/9.png' of 'h'"
    ):
        build()


def test_a_lone_test_image_is_refused(source, build):
    for name in ("a/1.png", "a/2.png"):
        (source / name).unlink()
    with pytest.raises(DataError, match=r"at least 2 images.*'source': 'a/0.png'"):
        build(
            PreprocessConfig(
                image_size=8, split=SplitConfig(rule="listed", test=("a", "b"), validation=("c",))
            )
        )


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("class_name,super_class\na,w\n", "supers.csv: class 'b' has no super_class"),
        ("class,super\na,w\n", "must be CSV with the columns class_name, super_class"),
        ("class_name,super_class\na,w\na,x\n", "a class must have one row"),
        ("", "must be CSV"),
    ],
)
def test_a_faulty_table_is_refused(source, build, table, message):
    (source / "supers.csv").write_text(table)
    with pytest.raises(DataError, match=message):
        build(by_super_class())


def test_a_table_that_is_absent_is_refused(source, build):
    (source / "supers.csv").unlink()
    with pytest.raises(DataError, match=r"'supers.csv': no such file at the top of the source folder"):
        build(by_super_class())
    with pytest.raises(DataError, match="needs `super_classes`"):
        build(PreprocessConfig(split=SplitConfig(unit="super_class")))


@pytest.mark.skipif(not GROCERY.is_dir(), reason="the Grocery Store photographs are not on this machine")
def test_grocery_photographs_split_by_coarse_class(tmp_path, prepared):
    labels = pl.read_csv(GROCERY / "labels.csv")
    for row in labels.group_by("fine").head(8).sort("path").iter_rows(named=True):
        folder = tmp_path / "source" / row["fine"]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(GROCERY / row["path"], folder)
    coarse = labels.select(class_name="fine", super_class="coarse").unique().sort("class_name")
    coarse.write_csv(tmp_path / "source/coarse.csv")

    acquire_class_folders(tmp_path / "source", tmp_path / "raw")
    config = PreprocessConfig(super_classes="coarse.csv", split=SplitConfig(unit="super_class"))
    dataset = prepared(folder_catalogue(tmp_path / "raw", config), config)

    with tarfile.open(tmp_path / "raw/images.tar") as tar:
        assert len(tar.getnames()) == 81 * 8 + 1
    splits = dataset.manifest.group_by("super_class").agg(pl.col("split").unique())
    assert splits["split"].list.len().to_list() == [1] * 43
    assert splits["split"].list.first().value_counts().sort("split").rows() == [
        ("test", 22),
        ("train", 16),
        ("validation", 5),
    ]
    assert dataset.split("test").images.array.std() > 20
