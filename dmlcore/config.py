"""The one schema of `params.yaml` (a study) and `data/params.yaml` (the data sets).

Every section is frozen and strict: an unknown key, a wrong type or a value out of range is refused before anything
runs, with the path, the rule and the value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$"
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=64)]
DatasetName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_\-]*$", max_length=64)]
"""Without a dot: DVC reads one as the next key of params.yaml."""
PositiveInt = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0.0, lt=1.0)]
Rate = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


T = TypeVar("T", bound=BaseModel)


class ConfigError(ValueError):
    """A params file that breaks the schema; the message lists each path, rule and value."""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


# ---------------------------------------------------------------------------------------------- data sets


class SplitConfig(Strict):
    rule: Literal["hashed", "scripts", "listed", "official"] = "hashed"
    """`hashed`: units ordered by a seeded hash; `scripts` (glyphs): Latin trains, every other script tests;
    `listed`: the names under `test` and `validation`, the rest trains; `official`: the published test classes, and of
    the published training classes those first by the seeded hash validate (`validation_share` of all classes)."""
    unit: Literal["class", "super_class"] = "class"
    """What is kept whole: all images of a class, or all classes of a super-class, lie in one split."""
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
                "test_share + validation_share must be below 1, so that classes are left to train on"
            )
        if (bool(self.test), bool(self.validation)) != (self.rule == "listed",) * 2:
            raise ValueError("`test` and `validation` name the units of rule `listed`, and only of that rule")
        if self.protocol == "closed" and self.rule != "hashed":
            raise ValueError(f"protocol `closed` divides images by rule `hashed`, got rule `{self.rule}`")
        if self.rule == "scripts" and self.unit != "class":
            raise ValueError(f"rule `scripts` keeps classes whole, got unit `{self.unit}`")
        return self


class PreprocessConfig(Strict):
    image_size: Annotated[int, Field(ge=8, le=1024)] = 32
    """Pixels: the side of the stored squares (`raw`), the short side of the stored images (`jpeg`)."""
    encoding: Literal["raw", "jpeg"] = "raw"
    """`raw`: squares of plain pixels, all of one size, for small images. `jpeg`: whole images, the long side kept, for
    photographs that training crops at random."""
    jpeg_quality: Annotated[int, Field(ge=50, le=100)] = 95
    max_broken_share: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of the images that may be unreadable: left out, counted and named in the summary. Above it: an error."""
    split: SplitConfig = SplitConfig()
    on_duplicates: Literal["error", "report"] = "error"
    """Identical images under two classes: refuse them, or count them in the summary (published sets)."""
    min_faces: Annotated[int, Field(ge=2, le=16)] = 12
    """glyphs: a character is a class if at least this many of the 16 font faces draw it."""
    super_classes: str | None = None
    """image_folder: a CSV with the columns class_name, super_class at the top of the source folder, by its name there:
    so DVC, which watches that folder, sees when a row changes."""


Kind = Literal[
    "glyphs",
    "image_folder",
    "cub200",
    "cars196",
    "sop",
    "inaturalist2018",
    "inshop",
    "mnist",
    "fashion_mnist",
    "cifar100",
    "omniglot",
    "grocery",
]


class DatasetConfig(Strict):
    kind: Kind
    source: str
    """What its download reads on this machine, relative to data/: the folder of class folders of an `image_folder`,
    the list of archives, checksums and counts of a data set that the project knows."""
    archives: str | None = None
    """Folder in which its archives may lie, relative to data/; looked into before the folder that the environment
    variable DMLCORE_ARCHIVES names, and before anything is downloaded."""
    preprocess: PreprocessConfig = PreprocessConfig()

    @model_validator(mode="after")
    def _suits_kind(self) -> DatasetConfig:
        if self.kind != "glyphs" and self.preprocess.split.rule == "scripts":
            raise ValueError(
                f"split rule `scripts` knows the scripts of `glyphs` only, got kind `{self.kind}`"
            )
        if self.kind != "image_folder" and self.preprocess.super_classes is not None:
            raise ValueError(f"`super_classes` belongs to kind `image_folder`, got kind `{self.kind}`")
        return self


class ImitationConfig(Strict):
    """Generated archives in the layout of a published data set: for tests and shrunk studies, never the real data."""

    classes: Annotated[int, Field(ge=4, le=196)] = 16
    """The first half trains, as in the published split."""
    images_per_class: Annotated[int, Field(ge=2)] = 8
    side: Annotated[int, Field(ge=16, le=1024)] = 64
    """Pixels of an image's short edge."""
    seed: int = 0


class DataParams(Strict):
    imitations: dict[Literal["cub200", "cars196", "sop", "inaturalist2018", "inshop"], ImitationConfig] = {}
    """Layout -> what stage `imitate` writes to imitations/NAME."""
    datasets: dict[DatasetName, DatasetConfig]


# ---------------------------------------------------------------------------------------------- one trial


def _rising(values: tuple[float, float]) -> tuple[float, float]:
    if not 0.0 < values[0] < values[1] <= 1.0:
        raise ValueError(f"must be two rising numbers in (0, 1], got {values}")
    return values


class BackboneConfig(Strict):
    library: Literal["timm", "torchvision"] = "timm"
    name: str = "resnet10t"
    """A name that the library knows: `resnet50`, `vit_base_patch16_224`, ..."""
    arguments: dict[str, Any] = {}
    """Handed to the library's constructor as they are."""
    weights: str | None = None
    """None: random. `default` or a name: the library's pretrained weights. A path that ends in .safetensors, .pth or
    .pt: a local state dict, relative to the checkout. `package:NAME`: weights that a Python package ships."""
    freeze_batch_norm: bool = False
    """Keep the running statistics of BatchNorm at the pretrained values."""


class ModelConfig(Strict):
    backbone: BackboneConfig = BackboneConfig()
    pooling: Literal["average", "gem", "token"] = "average"
    """`gem`: generalised mean, exponent learned from 3; `token`: the class token of a transformer."""
    normalization: Literal["none", "layer_norm", "batch_norm"] = "layer_norm"
    """Between pooling and projection."""
    embedding_dim: PositiveInt = 128
    channels_last: bool = False
    """Memory layout of images and filters, pixel by pixel; most convolutions run faster on it."""
    trunk: Literal["frozen"] | None = None
    """`frozen`: the backbone embeds each image once, all trials share its features, and only the head is trained."""
    compile: bool | None = None
    """True: torch.compile the embedder; worth its minutes on a GPU."""


class RandomCropConfig(Strict):
    scale: Annotated[tuple[float, float], AfterValidator(_rising)] = (0.08, 1.0)
    """Share of the image's area that a crop covers, from and to."""
    ratio: tuple[Rate, Rate] = (0.75, 4.0 / 3.0)
    """Width to height of the crop before it is resized, from and to."""


class InputConfig(Strict):
    size: Annotated[int, Field(ge=8, le=1024)]
    """Side of the network's input, pixels: evaluation takes the centre crop of the stored image."""
    random_crop: RandomCropConfig | None = None
    """Training takes a random crop, resized to `size` (Inception's); None: the centre crop as in evaluation."""
    mean: tuple[float, ...] = (0.5,)
    """Subtracted from pixels in 0..1, one number or one a channel."""
    std: tuple[Rate, ...] = (0.5,)


class ComponentConfig(Strict):
    name: Annotated[str, Field(pattern=r"^(pml:)?[A-Za-z0-9_]+$")]
    params: dict[str, Any] = {}
    """Arguments of the loss or regulariser; what is left out takes the author's value."""


class OptimizerConfig(Strict):
    name: Literal["adam", "adamw", "sgd"] = "adamw"
    learning_rate: Rate = 1.0e-3
    head_learning_rate: Rate | None = None
    """Of the head (normalisation and projection); None: as the backbone."""
    loss_learning_rate: Rate | None = None
    """Of the loss's own parameters (proxies, centres); None: as the backbone."""
    weight_decay: NonNegative = 4.0e-4
    gradient_clip: Rate | None = None
    """Largest L2 norm of the whole gradient; None: no clipping."""


class ScheduleConfig(Strict):
    name: Literal["constant", "cosine", "milestones"] = "cosine"
    warmup_epochs: NonNegative = 0.0
    milestones: tuple[PositiveInt, ...] = ()
    """Epochs after which the rate is multiplied by `factor`."""
    factor: Share = 0.3


class AugmentationConfig(Strict):
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Zoom drawn from 1 - scale to 1 + scale."""
    shear: Annotated[float, Field(ge=0, lt=1)] = 0.0
    translate: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Largest shift, share of the side."""
    horizontal_flip: bool = False


class TrainConfig(Strict):
    epochs: PositiveInt = 10
    batch_size: Annotated[int, Field(ge=2)] = 128
    images_per_class: PositiveInt = 4
    batches: Literal["class_balanced", "random"] = "class_balanced"
    """`class_balanced`: P classes x K images, each class at most once a batch. `random`: any images."""
    batches_per_epoch: PositiveInt | None = None
    """None: as many as pass over each image about once."""
    batch_limit: Literal["classes"] | None = None
    """`classes`: where the training classes are too few for `batch_size`, batches of all of them; None: an error."""
    chunk_size: PositiveInt | None = None
    """Images on the device at once: gradient replay gives the gradient of the whole batch. None: the batch at once."""
    precision: Literal["bfloat16"] | None = None
    """Of the embedder's arithmetic (autocast); losses and embeddings stay in float32."""
    final: bool | None = None
    """True: once validation has chosen the epoch, train again that long on training and validation classes together."""
    augmentation: AugmentationConfig = AugmentationConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()

    @model_validator(mode="after")
    def _whole_classes(self) -> TrainConfig:
        if self.batches == "class_balanced" and self.batch_size % self.images_per_class:
            raise ValueError(
                f"batch_size must be a multiple of images_per_class ({self.images_per_class}), got {self.batch_size}"
            )
        return self


class EvaluationConfig(Strict):
    ks: tuple[PositiveInt, ...] = (1, 2, 4, 8)
    far_range: Annotated[tuple[float, float], AfterValidator(_rising)] = (0.01, 0.1)
    """Pooled false-accept rates at the two ends of the calibration range."""
    num_thresholds: Annotated[int, Field(ge=2)] = 101
    epsilon: Share = 0.1
    bootstrap: Annotated[int, Field(ge=0)] = 0
    """Resamples of the classes for the interval of OPIS."""


class TrialConfig(Strict):
    dataset: Name
    input: InputConfig | None = None
    """None: stored pixels as they are, all of one size, scaled to -1..1."""
    model: ModelConfig = ModelConfig()
    loss: ComponentConfig
    """`none` trains with the regularisers alone."""
    regularizers: tuple[ComponentConfig, ...] = ()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    seed: Annotated[int, Field(ge=0)] = 0
    threads: PositiveInt = 1
    """CPU threads of a trial. Part of its identity: sums differ in the last bit from one count to another."""


# ---------------------------------------------------------------------------------------------- a study


class ResourcesConfig(Strict):
    gpus: NonNegative = 0.0
    """GPUs of a trial, or a share of one. Its CPUs are `trial.threads`."""
    memory_bytes: PositiveInt | None = None
    """Memory of a trial's process: reserved for it, and a trial that takes more is ended and fails. None: no limit."""
    time_limit_seconds: Rate | None = None
    """A trial that runs longer is ended and fails; run again, it goes on from its checkpoint. None: no limit."""
    reuse_workers: bool = True
    """Whether a worker process runs one trial after another; a new one each costs some seconds a trial."""
    max_concurrent: PositiveInt | None = None
    """None: as many as the machine's (or cluster's) CPUs and GPUs carry."""


class Override(Strict):
    where: dict[Literal["dataset", "backbone", "loss"], Name]
    """Labels of the cells that it is for; those that it does not name are free."""
    set: dict[str, Any]
    """A partial TrialConfig."""


class GridConfig(Strict):
    """One grid of a sweep of several: what it leaves out is taken from the sweep."""

    datasets: tuple[Name, ...] | None = None
    backbones: tuple[Name, ...] | None = None
    """Labels among the sweep's backbones."""
    losses: tuple[Name, ...] | None = None
    """Labels among the sweep's losses."""
    regularizers: tuple[tuple[ComponentConfig, ...], ...] | None = None
    axes: dict[str, tuple[Any, ...]] | None = None
    seeds: tuple[Annotated[int, Field(ge=0)], ...] | None = None


class ClusterConfig(Strict):
    address: str | None = None
    """`HOST:PORT` of a Ray cluster's head, or `auto` on one of its nodes; RAY_ADDRESS goes before it. None: Ray is
    started on this machine."""
    storage: str | None = None
    """fsspec address (`s3://`, `gs://`, `file:///mounted/folder`) by which nodes and driver pass data, checkpoints and
    records. None: every node has this checkout, on a shared folder, under the same path."""


class ParameterConfig(Strict):
    """Where a search may look for one setting: in a range, or among values."""

    low: int | float | None = None
    """Smallest value; `low` and `high` without a decimal point: whole numbers alone."""
    high: int | float | None = None
    log: bool = False
    """Even over the magnitudes, as suits a learning rate."""
    values: tuple[bool | int | float | str, ...] = ()

    @model_validator(mode="after")
    def _range_or_values(self) -> ParameterConfig:
        if (self.low is None, self.high is None) != (bool(self.values),) * 2:
            raise ValueError("give `low` and `high`, or `values`")
        if self.low is not None and self.high is not None:
            if not self.low < self.high:
                raise ValueError(f"`low` must be below `high`, got {self.low} and {self.high}")
            if self.log and self.low <= 0:
                raise ValueError(f"`low` must be above 0 where `log` is true, got {self.low}")
        elif self.log:
            raise ValueError("`log` belongs to a range, not to `values`")
        kinds = {float if type(value) is int else type(value) for value in self.values}
        if len(kinds) > 1:
            raise ValueError(f"`values` must be all numbers, all texts or all true/false, got {self.values}")
        return self


OBJECTIVES: dict[str, Literal["maximize", "minimize"]] = {
    "validation/map_at_r": "maximize",
    "validation/r_precision": "maximize",
    "validation/mean_utility": "maximize",
    "validation/opis": "minimize",
    "validation/opis_corrected": "minimize",
    "validation/epsilon_opis": "minimize",
    "validation/equal_error_rate": "minimize",
}
"""What a search can look for, and which way is better."""


def _objective(metric: str) -> str:
    if not metric.startswith("validation/"):
        raise ValueError(f"must start with `validation/`: nothing is chosen on test classes, got {metric!r}")
    if metric not in OBJECTIVES:
        raise ValueError(f"must be one of {sorted(OBJECTIVES)}, got {metric!r}")
    return metric


NOT_SEARCHED = ("dataset", "seed", "evaluation", "threads")
Objective = Annotated[str, AfterValidator(_objective)]


class SearchConfig(Strict):
    """A search in place of a grid: each data set x backbone x loss x arm looks for its best setting by validation, at
    the first of its seeds; the setting chosen is then run at all of them."""

    space: Annotated[dict[str, ParameterConfig], Field(min_length=1)]
    """Dotted config path -> where to look. A regulariser is named by its place or name,
    `regularizers.tcm.params.positive_margin`: searched in the arms that have it."""
    trials: PositiveInt
    """Settings to try in each data set x backbone x loss x arm. Raised, the search goes on where it was."""
    objectives: Annotated[tuple[Objective, ...], Field(min_length=1, max_length=2)] = ("validation/map_at_r",)
    """One or two of OBJECTIVES. With two, the setting chosen is the best by `choose` among those that none beats in
    both."""
    choose: str | None = None
    """The objective that chooses; None: the first."""
    sampler: Literal["tpe", "nsga2", "random"] = "tpe"
    """Optuna's: tree-structured Parzen estimator, genetic algorithm, or independent draws."""
    startup: Annotated[int, Field(ge=2)] = 10
    """Settings drawn at random before `tpe` learns from them; the population of `nsga2`."""
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _consistent(self) -> SearchConfig:
        fixed = sorted(path for path in self.space if path.split(".")[0] in NOT_SEARCHED)
        if fixed:
            raise ValueError(
                f"`space` must leave {NOT_SEARCHED} alone: they would change what is compared, got {fixed}"
            )
        if len(set(self.objectives)) < len(self.objectives):
            raise ValueError(f"`objectives` must be two different metrics, got {self.objectives}")
        if self.choose is not None and self.choose not in self.objectives:
            raise ValueError(f"`choose` must be one of the objectives {self.objectives}, got {self.choose!r}")
        return self


class StopEarlyConfig(Strict):
    """Asynchronous successive halving (ASHA): at epochs grace x factor^0, x factor^1, ... (the rungs) a trial goes on
    only if its validation MAP@R is among the best 1/factor of its rivals that came so far."""

    grace_epochs: PositiveInt = 1
    """The first rung."""
    reduction_factor: Annotated[int, Field(ge=2)] = 3


class SweepConfig(Strict):
    study: Name
    trial: dict[str, Any] = {}
    """What all trials share: a partial TrialConfig."""
    datasets: tuple[Name, ...]
    backbones: dict[Name, dict[str, Any]]
    """Label -> partial TrialConfig laid over `trial` (its model, learning rate, ...)."""
    losses: dict[Name, dict[str, Any]]
    """Label -> partial TrialConfig with a `loss` section."""
    regularizers: tuple[tuple[ComponentConfig, ...], ...] = ((),)
    """The arms; the empty list is arm `off`, against which the others are compared."""
    axes: dict[str, tuple[Any, ...]] = {}
    """Any other dotted config path -> its values, e.g. `train.batch_size: [64, 128]`."""
    overrides: tuple[Override, ...] = ()
    """Settings of some of the cells, laid over `trial`, backbone and loss in this order, below `axes`."""
    grids: tuple[GridConfig, ...] = ()
    """Several grids in place of one: the sweep is their union, a cell that stands in two is run once."""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = (0,)
    search: SearchConfig | None = None
    """None: the whole grid is run."""
    stop_early: StopEarlyConfig | None = None
    """Ends weak trials before their last epoch: those of a search among its data set x backbone x loss x arm; those of
    a grid among the same data set, backbone, loss, regularisers (whatever their parameters) and seed. None: never."""
    storage: str = "state/storage"
    """Where checkpoints and embeddings go, relative to the study's folder."""
    disk_budget_bytes: PositiveInt | None = None
    """Largest size of the storage folder: trials that would go beyond it are not started and fail. None: no limit."""
    resources: ResourcesConfig = ResourcesConfig()
    cluster: ClusterConfig = ClusterConfig()
    attempts: PositiveInt = 2
    """How often a trial is tried in one run of the stage before it is recorded as failed."""


class FigureConfig(Strict):
    width_inches: Rate = 9.0
    height_inches: Rate = 6.0
    dots_per_inch: Annotated[int, Field(ge=50, le=600)] = 130


class AggregateConfig(Strict):
    confidence: Share = 0.95
    """Level of the intervals over seeds."""
    accuracy: str = "test/map_at_r"
    """The accuracy axis of the trade-off plot."""
    inconsistency: str = "test/opis"
    parts: tuple[Literal["pareto", "margins", "embedding"], ...] = ()
    """Analyses of a study beside the comparisons: accuracy against inconsistency over many losses, the grid of margins,
    the picture of a 2-D embedding."""
    figure: FigureConfig = FigureConfig()
    run_link: Annotated[str, Field(pattern=r"^https?://")] | None = None
    """Address of a trial's MLflow run for report.html, `{trial_key}` standing for the trial's key."""


class StudyParams(Strict):
    sweep: SweepConfig
    aggregate: AggregateConfig = AggregateConfig()


# ---------------------------------------------------------------------------------------------- loading


def parse(schema: type[T], values: Mapping[str, Any], where: str) -> T:
    """Validate `values` against `schema`; `where` names their origin in errors.

    Raises:
        ConfigError: one line per fault with its path, rule and value.
    """
    try:
        return schema.model_validate_json(json.dumps(values, allow_nan=True))
    except ValidationError as error:
        lines = [_fault(fault) for fault in error.errors()]
        raise ConfigError(f"{where}: {len(lines)} fault(s)\n" + "\n".join(lines)) from None


def _fault(fault: Mapping[str, Any]) -> str:
    path = ".".join(str(part) for part in fault["loc"])
    return f"  `{path}`: {fault['msg']}; got {fault['input']!r}"[:400]


def load_study(path: Path) -> StudyParams:
    """The study that `path` (a params.yaml) describes."""
    return parse(StudyParams, _read_yaml(path), str(path))


def load_datasets(path: Path) -> DataParams:
    """The data sets that `path` (data/params.yaml) describes."""
    return parse(DataParams, _read_yaml(path), str(path))


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such params file; give the path of a params.yaml") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must be a mapping of sections, got {type(values).__name__}")
    return values


def canonical(config: BaseModel) -> dict[str, Any]:
    """The config as plain JSON values, None left out, so that a new optional field keeps old keys."""
    return config.model_dump(mode="json", exclude_none=True)
