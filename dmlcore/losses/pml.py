"""Every loss of pytorch-metric-learning that takes embeddings and labels, by name: `pml:CircleLoss`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor, nn

from dmlcore.extras import require
from dmlcore.losses.base import MetricLoss

PREFIX = "pml:"
# What the library calls num_classes and embedding_dim (`l` is ManifoldLoss's, `descriptors_dim` P2SGradLoss's).
SIZE_NAMES = {
    "num_classes": "num_classes",
    "embedding_size": "embedding_dim",
    "descriptors_dim": "embedding_dim",
    "l": "embedding_dim",
}
PART_MODULES = {
    "distance": "distances",
    "reducer": "reducers",
    "embedding_regularizer": "regularizers",
    "weight_regularizer": "regularizers",
    "miner": "miners",
    "loss": "losses",
}
# CrossBatchMemory goes by the name of a class: those here that can take references have the name of a loss of its list.
STANDS_FOR = {
    "Circle": "CircleLoss",
    "Contrastive": "ContrastiveLoss",
    "LiftedStructure": "LiftedStructureLoss",
    "MultiSimilarity": "MultiSimilarityLoss",
    "SupCon": "SupConLoss",
    "ThresholdConsistentMargin": "ContrastiveLoss",
    "Triplet": "TripletMarginLoss",
    "UnifiedThreshold": "ContrastiveLoss",
}
ABSTRACT = ("BaseLossWrapper", "BaseMetricLossFunction", "GenericPairLoss")
LABEL_FREE = ("ManifoldLoss",)
TWO_VIEWS = ("SelfSupervisedLoss", "VICRegLoss")


class PMLLoss(MetricLoss):
    """A loss of pytorch-metric-learning, called as ours are.

    Args:
        name: class name in `pytorch_metric_learning.losses`.
        num_classes: passed on where the class takes it.
        embedding_dim: passed on where the class takes it, under the library's name.
        params: the class's arguments. Parts are mappings with a name, as `distance: {name: LpDistance, power: 2}`,
            likewise reducer, embedding_regularizer, weight_regularizer, `miner` (any of the library's, applied before
            the loss) and the inner `loss` (`losses`, a list) of a wrapper.

    Raises:
        ValueError: unknown name or argument, a missing one, or one that the class refuses.

    Reference: Musgrave, Belongie, Lim, "PyTorch Metric Learning", 2020 (arXiv 2008.09164).

    Edge cases are the library's own: mostly 0 with zero gradient where there is no pair.
    """

    def __init__(self, name: str, num_classes: int, embedding_dim: int, params: Mapping[str, Any]) -> None:
        super().__init__()
        sizes = {"num_classes": num_classes, "embedding_dim": embedding_dim}
        params = dict(params)
        # CrossBatchMemory mines against its memory and takes the miner itself.
        miner = None if name == "CrossBatchMemory" else params.pop("miner", None)
        self.miner = None if miner is None else _build_part("miner", miner, sizes)
        self.loss = _build("losses", name, sizes, params)
        self.takes_labels = name not in LABEL_FREE

    def check_batch_size(self, batch_size: int) -> None:
        """Refuse batches that a memory within the loss cannot take.

        Raises:
            ValueError: a `memory_size` is below `batch_size`.
        """
        for part in self.loss.modules():
            size: Any = vars(part).get("memory_size", batch_size)
            if type(part).__name__ == "CrossBatchMemory" and size < batch_size:
                raise ValueError(
                    f"`{PREFIX}CrossBatchMemory`: `memory_size` must be at least the batch size ({batch_size}), "
                    f"got {size}; raise it, or make the batches smaller"
                )

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        self.check_batch_size(len(embeddings))
        pairs = None if self.miner is None else self.miner(embeddings, labels)
        loss: Tensor = self.loss(embeddings, labels if self.takes_labels else None, pairs)
        return loss


def to_pml(loss: MetricLoss) -> nn.Module:
    """Wrap a loss as a subclass of pytorch-metric-learning's BaseMetricLossFunction, with which its wrappers work.

    `MultipleLosses` takes the losses here as they are; `CrossBatchMemory` and `DistributedLossWrapper` check the class.

    Args:
        loss: any of `dmlcore.losses`; with `CrossBatchMemory` one that can take references, as `Contrastive`.

    Returns:
        A module called as `loss(embeddings, labels, indices_tuple=None, ref_emb=None, ref_labels=None)`.

    Raises:
        ModuleNotFoundError: pytorch-metric-learning is not installed.
    """
    base = _import("losses").BaseMetricLossFunction

    def compute_loss(
        self: Any, embeddings: Tensor, labels: Tensor, indices: Any, ref_emb: Tensor, ref_labels: Tensor
    ) -> dict[str, Any]:
        value = self.wrapped(embeddings, labels, indices, ref_emb, ref_labels)
        return {"loss": {"losses": value, "indices": None, "reduction_type": "already_reduced"}}

    own = type(loss).__name__
    adapter: Any = type(STANDS_FOR.get(own, own), (base,), {"compute_loss": compute_loss})()
    adapter.wrapped = loss
    return cast(nn.Module, adapter)


def pml_losses() -> dict[str, type[nn.Module]]:
    """Return name -> class of the losses that can be called with embeddings and labels."""
    return {name: kind for name, kind in _classes("losses").items() if name not in (*ABSTRACT, *TWO_VIEWS)}


def _import(module: str) -> Any:
    require("train", f"`{PREFIX}NAME`", "pytorch_metric_learning")
    # Here and not above: it takes a second to import, and few trials need it.
    return importlib.import_module(f"pytorch_metric_learning.{module}")


def _classes(module: str) -> dict[str, type[nn.Module]]:
    members = vars(_import(module))
    return {
        name: kind
        for name, kind in sorted(members.items())
        if inspect.isclass(kind) and issubclass(kind, nn.Module) and not name.endswith("Mixin")
    }


def _build(module: str, name: str, sizes: Mapping[str, int], params: Mapping[str, Any]) -> nn.Module:
    known = pml_losses() if module == "losses" else _classes(module)
    if name in TWO_VIEWS:
        raise ValueError(
            f"`{PREFIX}{name}` compares two views of an image; a loss here gets embeddings and labels only"
        )
    if name not in known:
        raise ValueError(f"unknown pytorch-metric-learning {module} {name!r}; known: {', '.join(known)}")
    required, optional = _arguments(known[name])
    given = {own: sizes[ours] for own, ours in SIZE_NAMES.items() if own in required}
    for key in params:
        if key not in required | optional or key in given:
            allowed = ", ".join(sorted((required | optional) - set(given)))
            raise ValueError(
                f"`{PREFIX}{name}` has no parameter `{key}`, got {params[key]!r}; its parameters: {allowed}"
            )
    missing = required - set(given) - set(params)
    if missing:
        raise ValueError(f"`{PREFIX}{name}` is missing the required parameters {', '.join(sorted(missing))}")
    try:
        return known[name](**given, **{key: _parts(key, value, sizes) for key, value in params.items()})
    except (AssertionError, TypeError, ValueError) as error:
        raise ValueError(f"`{PREFIX}{name}` rejected its parameters {dict(params)!r}: {error}") from error


def _arguments(kind: type[nn.Module]) -> tuple[set[str], set[str]]:
    """Return the names of the required and the optional arguments of a class.

    A class hands **kwargs on to its parents, which adds their optional arguments (their required ones it sets itself),
    and *args too, which adds the required ones.
    """
    required: set[str] = set()
    optional: set[str] = set()
    passes_required = passes_optional = True
    for parent in inspect.getmro(kind):
        if parent is nn.Module or not passes_optional:
            break
        if "__init__" in vars(parent):
            parameters = list(inspect.signature(vars(parent)["__init__"]).parameters.values())[1:]
            named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
            optional |= {p.name for p in named if p.default is not p.empty}
            if passes_required:
                required |= {p.name for p in named if p.default is p.empty}
            passes_required &= any(p.kind is p.VAR_POSITIONAL for p in parameters)
            passes_optional &= any(p.kind is p.VAR_KEYWORD for p in parameters)
    return required - optional, optional


def _parts(key: str, value: Any, sizes: Mapping[str, int]) -> Any:
    if key == "losses" and isinstance(value, (list, tuple)):
        return [_build_part("loss", item, sizes) for item in value]
    return _build_part(key, value, sizes) if key in PART_MODULES and value is not None else value


def _build_part(key: str, value: Any, sizes: Mapping[str, int]) -> nn.Module:
    if isinstance(value, nn.Module):
        return value
    if not isinstance(value, Mapping) or "name" not in value:
        raise ValueError(f"`{key}` must be a mapping with a `name`, got {value!r}; write it as {{name: ...}}")
    rest = {name: item for name, item in value.items() if name != "name"}
    return _build(PART_MODULES[key], value["name"], sizes, rest)
