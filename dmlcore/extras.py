"""The extras of the package: which libraries each brings, and the one line for who lacks one."""

from __future__ import annotations

from importlib.util import find_spec

EXTRAS: dict[str, tuple[str, ...]] = {
    "plot": ("matplotlib",),
    "data": (
        "filelock",
        "fontTools",
        "mlxtend",
        "PIL",
        "polars",
        "pooch",
        "pydantic",
        "requests",
        "rich",
        "torchvision",
        "yaml",
    ),
    "train": ("pytorch_metric_learning", "threadpoolctl", "timm"),
    "sweep": ("fsspec", "mlflow", "optuna", "platformdirs", "psutil", "ray"),
    "pipeline": ("dvc", "jinja2", "markupsafe", "plotly", "statsmodels"),
}
"""Extra -> the modules that it brings, beside those of the extra before it: each of these includes all before it."""


class MissingExtraError(ImportError):
    """A library is not installed; the message says which, what needs it, and which extra brings it."""


def require(extra: str, what: str, *modules: str) -> None:
    """Refuse to go on where a library of an extra is not installed.

    Args:
        extra: a key of EXTRAS.
        what: what needs it, for the message: a command, an option or a module.
        modules: those that `what` needs; by default all that the extra brings.

    Raises:
        MissingExtraError: one of them is not installed.
    """
    absent = [module for module in modules or modules_of(extra) if find_spec(module) is None]
    if absent:
        verb = "is" if len(absent) == 1 else "are"
        raise MissingExtraError(
            f"{what} needs {', '.join(absent)}, which {verb} not installed; run pip install 'dmlcore[{extra}]'"
        )


def modules_of(extra: str) -> list[str]:
    """Return all modules that an extra brings, those of the extras that it includes first."""
    names = list(EXTRAS)
    return [module for name in names[: names.index(extra) + 1] for module in EXTRAS[name]]
