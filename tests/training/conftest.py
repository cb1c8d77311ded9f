"""A tiny annotated data set and the recipe that trains on it for a few steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

RECIPE = """
system = "multihead_unet"
seed = 3

[about]
title = "tiny"
training_data = "drawn discs"

[[data.train]]
folder = "{data}"

[[data.val]]
folder = "{data}"
include = ["a"]

[network]
weights = "none"
widths = [8, 8, 8]

[schedule]
epochs = 4
steps_per_epoch = 2
batch = 2
crop = 32
warmup_steps = 2
validate_every = 2
average_decay = 0.9
workers = 0
"""


def discs(side: int, seed: int, count: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """A noisy dark RGB image with bright discs, and their labels."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((side, side), np.int32)
    rows, columns = np.mgrid[:side, :side]
    for number in range(1, count + 1):
        y, x, radius = *rng.uniform(8, side - 8, 2), rng.uniform(5, 8)
        labels[((rows - y) ** 2 + (columns - x) ** 2 < radius**2) & (labels == 0)] = number
    grey = np.where(labels > 0, 190, 30) + rng.normal(0, 8, labels.shape)
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, 2), labels


def write_pair(folder: Path, stem: str, image: np.ndarray, labels: np.ndarray) -> None:
    for name, array in (("images", image), ("labels", labels.astype(np.uint16))):
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(folder / name / f"{stem}.png")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the annotated images a and b of 64 pixels."""
    folder = tmp_path_factory.mktemp("discs")
    for seed, stem in enumerate("ab"):
        write_pair(folder, stem, *discs(64, seed))
    return folder


@pytest.fixture(scope="session")
def recipe_file(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(RECIPE.format(data=data.as_posix()), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def draw() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    return discs


@pytest.fixture(scope="session")
def write() -> Callable[[Path, str, np.ndarray, np.ndarray], None]:
    return write_pair
