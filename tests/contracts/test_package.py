"""What the plain installation brings: a small half that predicts."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires

import nuxel

HEAVY = (
    "torch",
    "torchvision",
    "tensorflow",
    "keras",
    "jax",
    "opencv",
    "pyqt",
    "pyside",
    "qtpy",
    "timm",
    "lightning",
)


def needed(package: str, found: set[str]) -> set[str]:
    """Everything that a package needs without extras, as far as it is installed."""
    try:
        lines = requires(package) or []
    except PackageNotFoundError:  # for another system or version of Python
        return found
    for line in lines:
        name = re.split(r"[^\w.-]", line, maxsplit=1)[0].lower()
        if "extra ==" not in line and name not in found:
            found.add(name)
            needed(name, found)
    return found


def test_predicting_needs_nothing_heavy() -> None:
    names = needed("nuxel", set())
    assert {"numpy", "scipy", "onnxruntime", "tifffile"} <= names
    assert not [name for name in names if name.startswith(HEAVY)]


def test_what_is_offered_is_found_by_completion() -> None:
    assert set(nuxel.__all__) <= set(dir(nuxel))
    assert all(getattr(nuxel, name) is not None for name in nuxel.__all__)
