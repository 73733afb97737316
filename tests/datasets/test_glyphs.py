import hashlib
import unicodedata

import numpy as np
import polars as pl
import pytest
import torch
from torch.nn.functional import normalize

from dmlcore.config.data import PreprocessConfig, load_datasets
from dmlcore.core.errors import DataError
from dmlcore.datasets.importers.glyphs import (
    FACES,
    choose_drawings,
    draw,
    jitter,
    load_face,
    merge_lookalikes,
    super_class,
)
from dmlcore.datasets.importers.glyphs import load_catalogue as glyph_catalogue
from dmlcore.sweep.baselines import raw_pixel_embeddings
from tests.datasets.conftest import REPOSITORY


def test_counts(glyphs):
    assert glyphs.summary["counts"] == {
        "train": {"classes": 530, "images": 7017},
        "validation": {"classes": 177, "images": 2414},
        "test": {"classes": 708, "images": 9674},
        "all": {"classes": 1415, "images": 19105},
    }
    assert glyphs.manifest.group_by("label").len()["len"].min() == 12
    assert glyphs.manifest.group_by("label").len()["len"].max() == 16


def test_the_split_follows_the_hash_of_the_lowest_code_point(glyphs):
    rows = glyphs.manifest.group_by("class_name").agg(pl.col("split").first(), pl.col("source").first())
    split = {str(int(source[2:].split()[0], 16)): split for _, split, source in rows.rows()}
    ordered = sorted(split, key=lambda text: hashlib.sha256(text.encode()).hexdigest())
    assert [split[text] for text in ordered] == ["test"] * 708 + ["validation"] * 177 + ["train"] * 530


def test_names_are_unicode_names_of_letters_and_numbers(glyphs):
    for name in glyphs.manifest["class_name"].unique():
        assert unicodedata.category(unicodedata.lookup(name))[0] in "LN"


def test_lookalikes_are_one_class_under_the_lowest_code_point(glyphs):
    names = set(glyphs.manifest["class_name"])
    assert "LATIN CAPITAL LETTER A" in names
    assert not names & {"GREEK CAPITAL LETTER ALPHA", "CYRILLIC CAPITAL LETTER A"}


def test_raw_pixels_hardly_retrieve_and_the_jitter_is_why(glyphs):
    test = glyphs.split("test")
    embeddings = normalize(raw_pixel_embeddings(test.images))[::3]
    labels = torch.from_numpy(test.labels)[::3]
    nearest = (embeddings @ embeddings.T).fill_diagonal_(-1.0).argmax(dim=1)
    # A third of the images, so fewer right answers and fewer wrong ones than the 0.083 of the whole split.
    assert 0.02 < (labels[nearest] == labels).float().mean() < 0.15


def test_jitter_is_fixed_by_character_and_face(fonts):
    image = draw(load_face(fonts, "DejaVuSerif", 64), ord("R"), 64)
    assert jitter(image, ord("R"), "DejaVuSerif").shape == (32, 32, 1)
    assert np.array_equal(jitter(image, ord("R"), "DejaVuSerif"), jitter(image, ord("R"), "DejaVuSerif"))
    assert not np.array_equal(jitter(image, ord("R"), "DejaVuSerif"), jitter(image, ord("R"), "DejaVuSans"))
    assert not np.array_equal(jitter(image, ord("R"), "DejaVuSerif"), jitter(image, ord("S"), "DejaVuSerif"))


def test_jitter_keeps_the_ink_inside(fonts):
    # Zoom 0.75 to 1.2 and shifts of 11 %: ink between half and 1.5 times, its centre within a quarter of the side.
    image = draw(load_face(fonts, "DejaVuSans", 64), ord("H"), 64)
    ink = np.asarray(image).sum() / 4
    for point in range(100):
        moved = jitter(image, point, "DejaVuSans")[:, :, 0].astype(float)
        rows, columns = np.indices(moved.shape)
        centre = [(grid * moved).sum() / moved.sum() for grid in (rows, columns)]
        assert 0.5 < moved.sum() / ink < 1.5
        assert np.abs(np.array(centre) - 15.5).max() < 8


def test_drawings_are_centred(fonts):
    image = np.asarray(draw(load_face(fonts, "DejaVuSans", 64), ord("O"), 64))
    rows, columns = (np.flatnonzero(image.max(axis=axis)) for axis in (1, 0))
    assert abs(rows[0] + rows[-1] - 63) <= 2
    assert abs(columns[0] + columns[-1] - 63) <= 2


def test_merging_joins_through_any_face_and_takes_the_lowest():
    bitmaps = {
        (5, "sans"): b"x",
        (9, "sans"): b"y",
        (7, "sans"): b"x",  # as 5
        (7, "serif"): b"z",
        (9, "serif"): b"z",  # as 7, so as 5
        (8, "serif"): b"x",  # as 5, but in another face
    }
    assert merge_lookalikes(bitmaps) == {5: 5, 7: 5, 9: 5, 8: 8}


def test_more_faces_leave_fewer_classes(fonts):
    classes = {point for point, _ in choose_drawings(fonts, 16)}
    assert 150 < len(classes) < 708
    assert len(choose_drawings(fonts, 16)) == 16 * len(classes)


def test_a_data_set_of_the_other_characters_has_no_lookalike_in_common(fonts):
    common, others = choose_drawings(fonts, 16), choose_drawings(fonts, 12, max_faces=15)
    drawings = [
        {
            draw(load_face(fonts, FACES[0], 64), point, 64).tobytes()
            for point, face in chosen
            if face == FACES[0]
        }
        for chosen in (common, others)
    ]
    assert len(drawings[1]) > 500
    assert not drawings[0] & drawings[1]


def test_the_glyphs_of_the_default_study_are_those_that_all_faces_draw(fonts):
    config = load_datasets(REPOSITORY / "data/params.yaml").datasets["glyphs"].preprocess
    catalogue = glyph_catalogue(fonts, config)
    assert len(catalogue.items) == 8400  # of 525 characters
    assert len({item.class_name for item in catalogue.items}) == 525


def test_another_image_size_has_the_same_classes(fonts, glyphs):
    catalogue = glyph_catalogue(fonts, PreprocessConfig(image_size=48))
    assert {item.source for item in catalogue.items} == set(glyphs.manifest["source"])
    assert catalogue.read(catalogue.items[0]).shape == (48, 48, 1)


@pytest.mark.parametrize(("character", "expected"), [("à", "Latin/a"), ("Ж", "Cyrillic/Ж"), ("ᾷ", "Greek/α")])
def test_super_class_is_script_and_base_letter(character, expected):
    assert super_class(ord(character)) == expected


def test_a_missing_face_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"DejaVuSans.ttf: no such font file"):
        glyph_catalogue(tmp_path, PreprocessConfig())
