"""The config of one trial: input, model, loss, regularisers, training, evaluation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from dmlcore.config.base import Name, NonNegative, PositiveFloat, PositiveInt, Share, Strict


def _increasing(values: tuple[float, float]) -> tuple[float, float]:
    if not 0.0 < values[0] < values[1] <= 1.0:
        raise ValueError(f"must be two increasing numbers in (0, 1], got {values}")
    return values


class BackboneConfig(Strict):
    name: str = "resnet10t"
    """Model name of timm: `resnet50`, `vit_base_patch16_224`, ..."""
    arguments: dict[str, Any] = {}
    """Passed to timm's constructor unchanged."""
    weights: str | None = None
    """None: random. `default` or a tag such as `tv_in1k`: timm's pretrained weights. A path that ends in
    .safetensors, .pth or .pt: a local state dict, relative to the checkout. `package:NAME`: weights that a
    Python package ships."""
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
    """Memory format NHWC; most convolutions run faster on it."""
    trunk: Literal["frozen"] | None = None
    """`frozen`: the backbone's features are computed once and shared by all trials; only the head is trained."""
    compile: bool | None = None
    """True: torch.compile the embedder; worth its minutes on a GPU."""


class RandomCropConfig(Strict):
    scale: Annotated[tuple[float, float], AfterValidator(_increasing)] = (0.08, 1.0)
    """Smallest and largest share of the image's area that a crop covers."""
    ratio: tuple[PositiveFloat, PositiveFloat] = (0.75, 4.0 / 3.0)
    """Smallest and largest ratio of width to height of a crop, before it is resized."""


class InputConfig(Strict):
    size: Annotated[int, Field(ge=8, le=1024)]
    """Side of the network's input in pixels; evaluation takes the centre crop of the stored image."""
    random_crop: RandomCropConfig | None = None
    """Random resized crops (Inception's) in training; None: the centre crop, as in evaluation."""
    mean: Annotated[tuple[float, ...], Field(min_length=1)] = (0.5,)
    """Subtracted from pixels in 0..1; one number, or one per channel."""
    std: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (0.5,)


class ComponentConfig(Strict):
    name: Annotated[str, Field(pattern=r"^(pml:)?[A-Za-z0-9_]+$")]
    params: dict[str, Any] = {}
    """Arguments of the loss or regulariser; the default is the authors' value."""


class OptimizerConfig(Strict):
    name: Literal["adam", "adamw", "sgd"] = "adamw"
    learning_rate: PositiveFloat = 1.0e-3
    head_learning_rate: PositiveFloat | None = None
    """Of the head (normalisation and projection); None: as the backbone."""
    loss_learning_rate: PositiveFloat | None = None
    """Of the loss's own parameters (proxies, centres); None: as the backbone."""
    weight_decay: NonNegative = 4.0e-4
    gradient_clip: PositiveFloat | None = None
    """Largest L2 norm of the full gradient, that of the loss's own parameters included; None: no clipping."""


class ScheduleConfig(Strict):
    name: Literal["constant", "cosine", "milestones"] = "cosine"
    warmup_epochs: NonNegative = 0.0
    milestones: tuple[PositiveInt, ...] = ()
    """Epochs after which the learning rate is multiplied by `factor`."""
    factor: Share = 0.3
    until: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Of `cosine`: the share of the epochs after which the learning rate has fallen to `floor`, where it stays."""
    floor: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of `cosine`: the lowest learning rate, as a share of the highest."""


class AugmentationConfig(Strict):
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Zoom drawn from 1 - scale to 1 + scale."""
    shear: Annotated[float, Field(ge=0, lt=1)] = 0.0
    translate: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Largest shift, as a share of the side."""
    horizontal_flip: bool = False


class TrainConfig(Strict):
    epochs: PositiveInt = 10
    batch_size: Annotated[int, Field(ge=2)] = 128
    images_per_class: PositiveInt = 4
    batches: Literal["class_balanced", "random"] = "class_balanced"
    """`class_balanced`: P classes x K images, each class at most once per batch. `random`: any images."""
    batches_per_epoch: PositiveInt | None = None
    """None: as many as visit each image about once."""
    batch_limit: Literal["classes"] | None = None
    """`classes`: if there are too few training classes for `batch_size`, batches of all classes; None: an error."""
    chunk_size: PositiveInt | None = None
    """Images on the device at once; the gradient cache gives the gradient of the full batch. None: the full batch."""
    precision: Literal["bfloat16"] | None = None
    """Of the embedder's arithmetic (autocast); losses and embeddings stay in float32."""
    decoder: Literal["gpu"] | None = None
    """`gpu`: nvJPEG decodes the crops of training, a few levels from the CPU's pixels. None: the CPU, the reference.
    Validation, test and `dmlcore embed` always see the CPU's pixels."""
    final: bool | None = None
    """True: once validation has chosen the epoch, train again to it on training and validation classes together."""
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
    ks: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 2, 4, 8)
    far_range: Annotated[tuple[float, float], AfterValidator(_increasing)] = (0.01, 0.1)
    """Pooled false-accept rates at the two ends of the calibration range."""
    num_thresholds: Annotated[int, Field(ge=2)] = 101
    epsilon: Share = 0.1
    bootstrap: Annotated[int, Field(ge=0)] = 0
    """Bootstrap resamples of the classes for the interval of OPIS."""


class TrialConfig(Strict):
    dataset: Name
    input: InputConfig | None = None
    """None: the stored pixels, all of one size, scaled to -1..1."""
    model: ModelConfig = ModelConfig()
    loss: ComponentConfig
    """`none` trains with the regularisers alone."""
    regularizers: tuple[ComponentConfig, ...] = ()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    seed: Annotated[int, Field(ge=0)] = 0
    threads: PositiveInt = 1
    """CPU threads of each process of a trial. Part of its key: sums differ in the last bit between thread counts."""
    processes: Annotated[int, Field(ge=2)] | None = None
    """Processes that share each batch of a trial. None: one. Set by `sweep.resources`, and part of the key, as threads
    are."""

    @model_validator(mode="after")
    def _decodes(self) -> TrialConfig:
        if self.train.decoder and (self.input is None or self.model.trunk):
            reason = "no `input`" if self.input is None else "model.trunk frozen"
            raise ValueError(
                f"train.decoder gpu is for crops decoded anew in each epoch, got {reason}: remove train.decoder"
            )
        return self
