from collections import Counter

import numpy as np
import pytest
from torch.nn.functional import normalize

from dmlcore.config.data import PreprocessConfig, SplitConfig
from dmlcore.config.trial import EvaluationConfig
from dmlcore.core.errors import DataError
from dmlcore.datasets.importers.inshop import load_catalogue as inshop_catalogue
from dmlcore.sweep.baselines import raw_pixel_embeddings, raw_pixel_metrics
from tests.datasets.published import images, imported, tiny_jpeg

ROWS = [
    ("img/WOMEN/Dresses/id_00000002/02_1_front.jpg", "id_00000002", "train"),
    ("img/WOMEN/Dresses/id_00000002/02_2_side.jpg", "id_00000002", "train"),
    ("img/WOMEN/Blouses_Shirts/id_00000001/02_1_front.jpg", "id_00000001", "query"),
    ("img/WOMEN/Blouses_Shirts/id_00000001/02_2_side.jpg", "id_00000001", "gallery"),
    ("img/MEN/Denim/id_00000003/01_1_front.jpg", "id_00000003", "query"),
    ("img/MEN/Denim/id_00000003/01_2_side.jpg", "id_00000003", "gallery"),
    ("img/MEN/Denim/id_00000003/01_3_back.jpg", "id_00000003", "gallery"),
    ("img/MEN/Pants/id_00000003/01_4_full.jpg", "id_00000003", "gallery"),
]
EXPECTED = {"train": {"classes": 1, "images": 2}, "test": {"classes": 2, "images": 6, "queries": 2}}


def listed(rows, count=None):
    """The list in its published form: a count, a head, and columns padded with blanks."""
    lines = [f"{path:<60}{item} {status:<8}" for path, item, status in rows]
    return "\n".join([str(count or len(rows)), "image_name item_id evaluation_status", *lines, ""]).encode()


def build(folder, text=None):
    archives = {"img.zip": images([row[0] for row in ROWS]), "list_eval_partition.txt": text or listed(ROWS)}
    return imported(folder, "inshop", inshop_catalogue, archives, expected=EXPECTED)


def test_queries_and_gallery(tmp_path):
    catalogue = build(tmp_path)
    assert [(item.source, item.class_name) for item in catalogue.items] == [row[:2] for row in ROWS]
    assert Counter((item.official, item.role) for item in catalogue.items) == {
        ("train", "both"): 2,
        ("test", "query"): 2,
        ("test", "gallery"): 4,
    }
    kinds = {(item.class_name, item.super_class) for item in catalogue.items}
    assert kinds == {
        ("id_00000001", "WOMEN/Blouses_Shirts"),
        ("id_00000002", "WOMEN/Dresses"),
        ("id_00000003", "MEN/Denim"),
    }


def test_queries_and_gallery_reach_the_manifest(tmp_path, prepared):
    more = [
        (f"img/MEN/Denim/id_{item}/{number}.jpg", f"id_{item}", "train")
        for item in (7, 8, 9)
        for number in (1, 2)
    ]
    rows = [*ROWS, *more]
    pictures = images([row[0] for row in rows])
    for query in (row[0] for row in ROWS if row[2] == "query"):
        pictures[query] = tiny_jpeg(99)  # One picture: in a search of all images both would find each other.
    archives = {"img.zip": pictures, "list_eval_partition.txt": listed(rows)}
    expected = EXPECTED | {"train": {"classes": 4, "images": 8}}
    catalogue = imported(tmp_path, "inshop", inshop_catalogue, archives, expected=expected)
    split = SplitConfig(rule="official", validation_share=0.25)
    config = PreprocessConfig(image_size=8, encoding="jpeg", on_duplicates="report", split=split)
    dataset = prepared(catalogue, config)
    manifest = dataset.manifest
    found = Counter(manifest.select("split", "role").rows())
    assert found == {
        ("train", "both"): 4,
        ("validation", "both"): 4,
        ("test", "query"): 2,
        ("test", "gallery"): 4,
    }
    halves = {row[0]: row[2] for row in rows}
    test = manifest.filter(split="test")
    assert dict(test.select("source", "role").rows()) == {
        source: half for source, half in halves.items() if half != "train"
    }
    assert raw_pixel_metrics(dataset.split("test"), EvaluationConfig())[
        "test/recall_at_1"
    ] == naive_recall_at_1(dataset.split("test"))


def naive_recall_at_1(split):
    """The share of queries whose nearest gallery image, by the cosine of the pixels, is of their class."""
    unit = normalize(raw_pixel_embeddings(split.images).double())
    gallery = [place for place, role in enumerate(split.roles) if role == "gallery"]
    queries = [place for place, role in enumerate(split.roles) if role == "query"]
    nearest = [gallery[int((unit[gallery] @ unit[query]).argmax())] for query in queries]
    return np.mean(
        [split.labels[query] == split.labels[other] for query, other in zip(queries, nearest, strict=True)]
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (listed(ROWS, 9), "line 1 announces 9 images, 8 are listed"),
        (listed(ROWS, "many"), "line 1: must be a whole number, got 'many'"),
        (
            b"1\nname item status\nimg/A/B/c/d.jpg c train\n",
            "line 2: must be 'image_name item_id evaluation_status'",
        ),
        (
            listed([("img/A/c/d.jpg", "c", "train")]),
            "a path must be img/WHO/GARMENT/ITEM/FILE, got 'img/A/c/d.jpg'",
        ),
        (listed([("img/A/B/c/d.jpg", "c", "val")]), "must have a status of train, query, gallery, got 'val'"),
        (b"\n", "line 2: must be 'image_name item_id evaluation_status', got ''"),
        (
            listed([*ROWS[:2], (*ROWS[2][:2], "gallery"), *ROWS[3:]]),
            "test must have 2 queries, got 1",
        ),
    ],
)
def test_broken_lists_are_refused(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        build(tmp_path, text)
