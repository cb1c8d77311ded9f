"""nuxel finds every nucleus in a microscopy image and draws each one as its own instance."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Instances", "NuxelError", "__version__", "evaluate", "segment"]

if TYPE_CHECKING:
    from nuxel.errors import NuxelError
    from nuxel.evaluation.evaluate import evaluate
    from nuxel.instances import Instances
    from nuxel.predict.segment import segment

# ONNX Runtime would send Microsoft what it runs on, and keep an identifier in the home folder. It reads this once, when
# it is imported; on Windows it has a switch of its own (nuxel.predict.model).
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "Instances": "nuxel.instances",
    "NuxelError": "nuxel.errors",
    "evaluate": "nuxel.evaluation.evaluate",
    "segment": "nuxel.predict.segment",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Import on first use: ``import nuxel`` alone stays instant."""
    if name not in _HOMES:
        raise AttributeError(f"module 'nuxel' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
