"""The data sets of `data/params.yaml`: the stages `download` and `preprocess` read this."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from dmlcore.config.base import DatasetName, Share, Strict, parse, read_yaml


class SplitConfig(Strict):
    rule: Literal["hashed", "scripts", "listed", "official"] = "hashed"
    """`hashed`: units in the order of a seeded hash; `scripts` (glyphs): Latin trains, every other script tests;
    `listed`: the names under `test` and `validation`, the rest trains; `official`: the published test classes, and of
    the published training classes those first by the seeded hash validate (`validation_share` of all classes)."""
    unit: Literal["class", "super_class"] = "class"
    """What is never divided: all images of a class, or all classes of a super-class, are in one split."""
    protocol: Literal["disjoint", "closed"] = "disjoint"
    """`disjoint`: no class in two splits. `closed`: the same classes in every split (pictures, not benchmarks)."""
    test_share: Share = 0.5
    validation_share: Share = 0.125
    seed: int = 0
    test: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> SplitConfig:
        if self.test_share + self.validation_share >= 1.0:
            raise ValueError(
                f"test_share + validation_share must be below 1, got {self.test_share + self.validation_share}; "
                "lower one of them, to leave classes to train on"
            )
        if (bool(self.test), bool(self.validation)) != (self.rule == "listed",) * 2:
            raise ValueError(
                f"`test` and `validation` must name the units of rule `listed`, and only of it, got rule `{self.rule}`"
            )
        if self.protocol == "closed" and self.rule != "hashed":
            raise ValueError(f"protocol `closed` needs rule `hashed`, got `{self.rule}`")
        if self.rule == "scripts" and self.unit != "class":
            raise ValueError(f"rule `scripts` needs unit `class`, got `{self.unit}`")
        return self


BitDepth = Literal["auto", "stretch"] | Annotated[int, Field(ge=8, le=32)]


class PreprocessConfig(Strict):
    image_size: Annotated[int, Field(ge=8, le=1024)] = 32
    """Pixels: the side of the stored squares (`raw`), the short side of the stored images (`jpeg`)."""
    encoding: Literal["raw", "jpeg"] = "raw"
    """`raw`: squares of plain pixels, all of one size, for small images. `jpeg`: full images, not cropped to
    squares, for photographs that training crops at random."""
    jpeg_quality: Annotated[int, Field(ge=50, le=100)] = 95
    max_broken_share: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Largest share of unreadable images: they are left out, counted and named in the summary. More is an error."""
    max_pixels: Annotated[int, Field(ge=1, le=178_956_970)] = 50_000_000
    """Width x height of a file that is decoded, which takes 4 to 16 bytes a pixel. More is an unreadable image. Above
    the highest value Pillow refuses to open a file."""
    accept_missing_end: bool = True
    """A JPEG file that lacks its end marker and nothing of its picture is read, and named in the summary. false: it is
    an unreadable image."""
    bit_depth: BitDepth = "auto"
    """Bits that images with more than 8 bits a channel really use. `auto`: 8, 12 or 16, the least that hold the image's
    largest value; less than 16 are named in the summary. `stretch`: the image's own range becomes 0 to 255."""
    lone_images: Literal["refuse", "drop", "gallery"] = "refuse"
    """Classes of one image: refused in test and validation; left out before the split is drawn; or kept there, where
    evaluation finds them in the gallery, and not as queries."""
    invert: bool = False
    """`raw`: store 255 less each value. For dark ink on white, to meet networks that learned from light on dark, as
    `glyphs` and MNIST are: their borders are padded with 0."""
    split: SplitConfig = SplitConfig()
    on_duplicates: Literal["error", "report"] = "error"
    """Identical images in two classes: an error, or counted in the summary (published data sets have some)."""
    min_faces: Annotated[int, Field(ge=2, le=16)] = 12
    """glyphs: a character is a class if at least this many of the 16 font faces draw it."""
    max_faces: Annotated[int | None, Field(ge=2, le=15)] = None
    """glyphs: leave out the characters, with their lookalikes, that are classes of a data set whose `min_faces` is
    larger than this: the two have no character in common. None: all."""
    fine_classes: bool = False
    """grocery: the 81 fine classes are the classes, and the 43 coarse ones their super-classes. false: the coarse ones
    are the classes."""
    super_classes: str | None = None
    """image_folder: name of a CSV at the top of the source folder, with the columns class_name and
    super_class. DVC tracks that folder and sees when a row changes."""
    groups: str | None = None
    """image_folder: name of a CSV at the top of the source folder, with the columns file (`apple/1.jpg`) and group: its
    camera, sequence or encounter. In evaluation two images of one class and one group are no pair."""
    nested_folders: Literal["refuse", "join", "classes"] = "refuse"
    """image_folder: images in deeper folders. `join`: they belong to the class of the folder at the top. `classes`:
    each folder with images is a class by its path (`dogs/poodle`), and its super-class is the folder at the top."""
    merge_names: bool = False
    """image_folder: folders whose names differ only by Unicode normalisation are one class, with the composed name
    (NFC). false: they are classes of their own, and named in a note."""


KINDS = tuple(
    sorted(
        path.stem
        for path in Path(__file__).resolve().parents[1].joinpath("datasets", "importers").glob("*.py")
        if path.stem != "__init__"
    )
)
"""The importers by file name, so that a new one needs no change here."""


def _known_kind(kind: str) -> str:
    if kind not in KINDS:
        raise ValueError(f"must be one of {', '.join(KINDS)}, or add an importer of that name")
    return kind


class DatasetConfig(Strict):
    kind: Annotated[str, AfterValidator(_known_kind)]
    """Its importer: a module of dmlcore.datasets.importers."""
    source: str
    """What its download reads, relative to data/: for an `image_folder` the folder of class folders, for a
    published data set the JSON file of archives, checksums and counts."""
    archives: str | None = None
    """Folder in which its archives may be, relative to data/; searched before the folder that the environment variable
    DMLCORE_ARCHIVES names, and before anything is downloaded."""
    preprocess: PreprocessConfig = PreprocessConfig()

    @model_validator(mode="after")
    def _suits_kind(self) -> DatasetConfig:
        if self.kind != "glyphs" and self.preprocess.split.rule == "scripts":
            raise ValueError(f"split rule `scripts` works for kind `glyphs` only, got kind `{self.kind}`")
        for name in ("super_classes", "groups", "nested_folders", "merge_names"):
            default = PreprocessConfig.model_fields[name].default
            if self.kind != "image_folder" and getattr(self.preprocess, name) != default:
                raise ValueError(f"`{name}` works for kind `image_folder` only, got kind `{self.kind}`")
        if self.preprocess.invert and self.preprocess.encoding != "raw":
            raise ValueError(
                f"`invert` works for encoding `raw` only, got encoding `{self.preprocess.encoding}`"
            )
        if self.kind != "grocery" and self.preprocess.fine_classes:
            raise ValueError(f"`fine_classes` works for kind `grocery` only, got kind `{self.kind}`")
        return self


class DataParams(Strict):
    datasets: dict[DatasetName, DatasetConfig]


def load_datasets(path: Path) -> DataParams:
    """Read the data sets of `path` (data/params.yaml)."""
    return parse(DataParams, read_yaml(path), str(path))
