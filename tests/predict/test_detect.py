"""Networks that detect, from the model file to the products, without PyTorch: a toy that always reports two nuclei."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import nuxel
from nuxel.cli.main import main
from nuxel.errors import NuxelError, UsageError
from nuxel.image.resample import ScaledImage
from nuxel.labels.read import read_labels
from nuxel.predict.card import METADATA_KEY, ModelCard
from nuxel.predict.detect import attention_of, find
from nuxel.predict.files import Job, segment_files
from nuxel.predict.model import Model, open_models
from nuxel.predict.pipeline import Options, look_at
from nuxel.predict.segment import attention_map

BOXES = np.array([[8, 8, 24, 24], [30, 30, 44, 44]], np.float32)
SCORES = np.array([0.9, 0.6], np.float32)


def write_detector(path: Path, card: ModelCard) -> Path:
    """Two full boxes in every window; attention is the mean brightness of 16 x 16 pixels."""
    onnx = pytest.importorskip("onnx")
    node, numbers = onnx.helper.make_node, onnx.numpy_helper.from_array
    nodes = [
        node("Identity", ["known_boxes"], ["boxes"]),
        node("Identity", ["known_scores"], ["scores"]),
        node("Identity", ["known_masks"], ["masks"]),
        node("ReduceMean", ["image"], ["grey"], axes=[1], keepdims=0),
        node("AveragePool", ["grey4"], ["pooled"], kernel_shape=[16, 16], strides=[16, 16]),
        node("Squeeze", ["pooled", "axis"], ["attention_4"]),
    ]
    nodes.insert(4, node("Unsqueeze", ["grey", "axis"], ["grey4"]))
    known = {
        "known_boxes": BOXES,
        "known_scores": SCORES,
        "known_masks": np.ones((2, 4, 4), np.float32),
        "axis": np.array([1]),
    }
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "toy",
        [value("image", 1, [1, 3, 64, 64])],
        [value(name, 1, None) for name in card.maps],
        [numbers(array, name) for name, array in known.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, card.to_json()
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def card(toy_card: ModelCard) -> ModelCard:
    return dataclasses.replace(
        toy_card,
        decoder="detections",
        maps=("boxes", "scores", "masks", "attention_4"),
        context="global",
        window=64,
        most=3,
        reach=0,
        diameters=(8.0, 32.0),
    )


@pytest.fixture
def path(card: ModelCard, tmp_path: Path) -> Path:
    return write_detector(tmp_path / "toy.onnx", card)


@pytest.fixture
def model(path: Path) -> Model:
    return Model(path, threads=1, device="cpu")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:32, 32:] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_both_nuclei_with_their_scores(path: Path, image: Path) -> None:
    nuclei = nuxel.segment(image, model=path)
    assert nuclei.boxes.tolist() == BOXES.astype(int).tolist()
    assert nuclei.scores.tolist() == pytest.approx(SCORES.tolist())
    assert np.count_nonzero(nuclei.labels) == 16 * 16 + 14 * 14


def test_threshold_and_least_area(path: Path, image: Path) -> None:
    assert len(nuxel.segment(image, model=path, threshold=0.7)) == 1
    assert len(nuxel.segment(image, model=path, min_area=200)) == 1
    assert len(nuxel.segment(image, model=path, min_area=300)) == 0


def test_boxes_come_back_from_the_networks_scale(model: Model) -> None:
    found = find(ScaledImage(np.zeros((32, 32, 3), np.uint8), 2.0), model)
    assert found.detections.boxes.tolist() == (BOXES / 2).tolist()


def test_only_the_owner_reports(model: Model) -> None:
    """Two windows of 64 side by side share a quarter; the toy says the same of both."""
    found = find(ScaledImage(np.zeros((64, 112, 3), np.uint8)), model)
    columns = sorted(found.detections.boxes[:, 1].tolist())
    assert columns == [8, 30, 56, 78]
    assert found.full_windows == 0


def test_a_window_that_is_full_is_reported(card: ModelCard, image: Path, tmp_path: Path) -> None:
    full = write_detector(tmp_path / "full.onnx", dataclasses.replace(card, most=2))
    with pytest.warns(
        UserWarning, match=r"1 window\(s\) of 64 pixels hold as many as the model reports at most"
    ):
        nuxel.segment(image, model=full)
    (row,) = segment_files([image], Job(Model(full, threads=1), tmp_path / "out"))
    assert row.status == "done"
    assert row.reason.startswith("nuclei may be missing: 1 window(s)")
    assert row.reason in (tmp_path / "out" / "summary.csv").read_text()


def test_a_card_without_a_window_is_refused(card: ModelCard, image: Path, tmp_path: Path) -> None:
    lost = write_detector(tmp_path / "lost.onnx", dataclasses.replace(card, window=None))
    with pytest.raises(NuxelError, match="detects nuclei but names no window; export the model again"):
        nuxel.segment(image, model=lost)


def test_scale_and_diameter(model: Model) -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    assert look_at(image, model, Options())[0].scale == 1
    assert look_at(image, model, Options(scale=0.5))[0].scale == 0.5
    assert look_at(image, model, Options(diameter=64.0))[0].scale < 1


def test_what_needs_maps_is_refused(path: Path, model: Model) -> None:
    with pytest.raises(UsageError, match="test-time augmentation averages maps"):
        look_at(np.zeros((64, 64, 3), np.uint8), model, Options(tta=True))
    with pytest.raises(UsageError, match="averaged by their maps"):
        open_models([path, path])


class TestAttention:
    def test_each_pixel_has_its_cells(self, model: Model) -> None:
        image = np.zeros((64, 112, 3), np.uint8)
        image[16:32, 80:96] = 255
        drawn = attention_of(ScaledImage(image), lambda window: model.attend(window, 4), model.card)
        assert drawn.shape == (64, 112)
        assert np.allclose(drawn, image[..., 0] / 255)

    def test_a_function_returns_it_at_the_images_size(self, path: Path, image: Path) -> None:
        pixels = np.asarray(Image.open(image))
        found = attention_map(pixels, path, level=4)
        assert np.allclose(found, pixels[..., 0] / 255)
        assert attention_map(pixels, path, level=4, scale=2.0).shape == (64, 64)
        with pytest.raises(UsageError, match="no attention map of level 2; it has levels 4"):
            attention_map(pixels, path, level=2)

    def test_the_command_draws_it(self, path: Path, image: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        assert main(["segment", str(image), "--model", str(path), "--out", str(out), "--save-attention"]) == 0
        drawn = np.asarray(Image.open(out / "a_attention.png")).astype(int)
        assert drawn.shape == (64, 64, 3)
        assert drawn[8, 56].sum() > drawn[56, 8].sum() + 100
        assert read_labels(out / "a_labels.tif").max() == 2

    def test_it_is_drawn_by_a_second_run_that_asks_for_it(
        self, model: Model, image: Path, tmp_path: Path
    ) -> None:
        plain = Job(model, tmp_path / "out")
        segment_files([image], plain)
        (row,) = segment_files([image], dataclasses.replace(plain, attention=4))
        assert row.status == "done"
        assert (tmp_path / "out" / "a_attention.png").is_file()
        (row,) = segment_files([image], dataclasses.replace(plain, attention=4))
        assert row.status == "skipped"

    def test_its_level_decides_the_result(self, model: Model, tmp_path: Path) -> None:
        assert Job(model, tmp_path, attention=4).parameters["attention_level"] == 4
        assert "attention_level" not in Job(model, tmp_path).parameters

    def test_a_level_without_a_picture_is_refused(self, path: Path, image: Path, tmp_path: Path) -> None:
        asked = ["segment", str(image), "--model", str(path), "--out", str(tmp_path / "out")]
        assert main([*asked, "--attention-level", "4"]) == 2
        assert main([*asked, "--tta"]) == 2  # which means nothing to a network that reports boxes
        assert not (tmp_path / "out").exists()

    def test_a_model_without_it_is_refused(self, toy_model: Path, image: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        asked = ["segment", str(image), "--model", str(toy_model), "--out", str(out), "--save-attention"]
        assert main(asked) == 2
        assert not out.exists()
