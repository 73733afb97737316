"""Threshold-consistent deep metric learning: losses, metrics, and the study that compares them.

`evaluate`, `calibrate` and the packages below are imported on first use: `import dmlcore` alone loads no library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dmlcore import calibration, losses, metrics
    from dmlcore.calibration import calibrate
    from dmlcore.losses import build_loss
    from dmlcore.metrics import evaluate

__all__ = ["__version__", "build_loss", "calibrate", "calibration", "evaluate", "losses", "metrics"]
__version__ = "0.2.0.dev0"

_ORIGIN = {"build_loss": "losses", "calibrate": "calibration", "evaluate": "metrics"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_ORIGIN.get(name, name)}")
    return getattr(module, name) if name in _ORIGIN else module


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
