"""A model whose answer is known without training: bright is nucleus."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray
from PIL import Image

from nuxel.predict.card import METADATA_KEY, ModelCard

# On a busy machine an example may take long, which says nothing of what it tests.
settings.register_profile("nuxel", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("nuxel")

TOY_CARD = ModelCard(
    title="bright is nucleus",
    system="toy",
    decoder="clumps",
    decoder_rule={},
    maps=("nucleus", "shrunk", "touching", "log_diameter"),
    stride=16,
    reach=1,
    context="local",
    diameters=(8.0, 200.0),
    input="uint8 RGB",
    training_data="none",
    licence="CC0",
    nuxel_version="0.1.0",
    scores={"AP": 0.5},
)

Discs = NDArray[np.uint8]


def write_toy_model(path: Path, metadata: str | None = TOY_CARD.to_json(), steepness: float = 4.0) -> Path:
    """An ONNX file: the mean of 3 x 3 pixels and all channels, steepened, is the nucleus and the shrunk map."""
    onnx = pytest.importorskip("onnx")
    node, numbers = onnx.helper.make_node, onnx.numpy_helper.from_array
    constants = {"half": 0.5, "steepness": steepness, "zero": 0.0, "one": 1.0}
    nodes = [
        node("ReduceMean", ["image"], ["grey"], axes=[1], keepdims=1),
        node("AveragePool", ["grey"], ["mean"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Sub", ["mean", "half"], ["centred"]),
        node("Mul", ["centred", "steepness"], ["steep"]),
        node("Add", ["steep", "half"], ["raised"]),
        node("Clip", ["raised", "zero", "one"], ["nucleus"]),
        node("Mul", ["nucleus", "zero"], ["nothing"]),
        node("Concat", ["nucleus", "nucleus", "nothing", "nothing"], ["maps"], axis=1),
    ]
    sides = [1, None, "height", "width"]
    graph = onnx.helper.make_graph(
        nodes,
        "toy",
        [onnx.helper.make_tensor_value_info("image", 1, [1, 3, *sides[2:]])],
        [onnx.helper.make_tensor_value_info("maps", 1, [1, 4, *sides[2:]])],
        [numbers(np.array(value, np.float32), name) for name, value in constants.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    if metadata is not None:
        entry = model.metadata_props.add()
        entry.key, entry.value = METADATA_KEY, metadata
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="session")
def toy_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_model(tmp_path_factory.mktemp("model") / "toy.onnx")


@pytest.fixture
def make_toy_model(tmp_path: Path) -> Callable[..., Path]:
    """Write a toy model whose card has some fields changed, or whose metadata is any text, or missing."""

    def make(
        name: str = "changed.onnx", *, metadata: str | None = "", steepness: float = 4.0, **changes: object
    ) -> Path:
        text = dataclasses.replace(TOY_CARD, **changes).to_json() if metadata == "" else metadata
        return write_toy_model(tmp_path / name, text, steepness)

    return make


@pytest.fixture(scope="session")
def toy_card() -> ModelCard:
    return TOY_CARD


@pytest.fixture(scope="session")
def draw_discs() -> Callable[..., Discs]:
    """Draw ``count`` bright discs, far apart, on black: ``(side, side)`` uint8."""

    def draw(count: int = 4, side: int = 96, radius: int = 7) -> Discs:
        image = np.zeros((side, side), np.uint8)
        per_row = int(np.ceil(np.sqrt(count)))
        pitch = side // per_row
        y, x = np.mgrid[:side, :side]
        for number in range(count):
            row, column = divmod(number, per_row)
            inside = (y - (row + 0.5) * pitch) ** 2 + (x - (column + 0.5) * pitch) ** 2 <= radius**2
            image[inside] = 200
        return image

    return draw


@pytest.fixture
def save_discs(tmp_path: Path, draw_discs: Callable[..., Discs]) -> Callable[..., Path]:
    """Save discs as an image below ``tmp_path`` and give its path."""

    def save(name: str, count: int = 4, **drawn: int) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_discs(count, **drawn)).save(path)
        return path

    return save


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Save labels (or any array) below ``tmp_path``, in the format that the name says."""

    def write(name: str, array: NDArray[np.generic]) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".npy":
            np.save(path, array)
        elif path.suffix == ".tif":
            tifffile.imwrite(path, array)
        else:
            Image.fromarray(array if array.dtype == np.uint8 else array.astype(np.uint16)).save(path)
        return path

    return write
