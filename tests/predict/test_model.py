"""Opening model files: good ones, and each kind of bad one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from nuxel.errors import NuxelError, UsageError
from nuxel.predict import model as model_module
from nuxel.predict.card import FORMAT, ModelCard
from nuxel.predict.model import DEFAULT_MODEL, Model, model_path, shipped_models


def test_the_card_comes_back_from_the_file(toy_model: Path, toy_card: ModelCard) -> None:
    assert Model(toy_model).card == toy_card


def test_maps_are_those_of_the_graph(toy_model: Path) -> None:
    window = np.zeros((32, 48, 3), np.uint8)
    window[8:16, 8:16] = 255
    maps = Model(toy_model, threads=1, device="cpu")(window)
    assert maps.shape == (4, 32, 48)
    assert maps.dtype == np.float32
    assert maps[0, 12, 12] == 1
    assert maps[0, 28, 40] == 0
    assert maps[0, 8, 8] == pytest.approx((4 / 9 - 0.5) * 4 + 0.5)  # four of nine pixels are bright


def test_a_window_need_not_be_contiguous(toy_model: Path) -> None:
    model = Model(toy_model, threads=1)
    wide = np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)
    assert np.array_equal(model(wide[:, ::2]), model(wide[:, ::2].copy()))


def test_the_hash_names_the_bytes(toy_model: Path, make_toy_model: Callable[..., Path]) -> None:
    same = make_toy_model("same.onnx")
    other = make_toy_model("other.onnx", title="another")
    assert Model(same).sha256 == Model(toy_model).sha256 != Model(other).sha256


def test_threads_default_to_all_that_are_granted(toy_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_module, "available_cpus", lambda: 3)
    assert Model(toy_model).threads == 3
    assert Model(toy_model, threads=2).threads == 2


def test_on_the_cpu(toy_model: Path) -> None:
    assert Model(toy_model, device="cpu").provider == "CPUExecutionProvider"


def test_an_unknown_device_is_wrong_usage(toy_model: Path) -> None:
    with pytest.raises(UsageError, match="device must be auto, cpu or cuda, got tpu"):
        Model(toy_model, device="tpu")


def test_a_device_that_is_not_there_is_wrong_usage(toy_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_module.onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(UsageError, match="device cuda: this ONNX Runtime has only CPUExecutionProvider"):
        Model(toy_model, device="cuda")


def test_a_device_that_does_not_start_is_wrong_usage(
    toy_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runtime that was built for a GPU falls back to the processor where there is none."""
    offered = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(model_module.onnxruntime, "get_available_providers", lambda: offered)
    session = onnxruntime.InferenceSession

    def fall_back(content: bytes, options: object, **_: object) -> object:
        return session(content, options, providers=offered[1:])

    monkeypatch.setattr(model_module.onnxruntime, "InferenceSession", fall_back)
    with pytest.raises(UsageError, match="could not start CUDAExecutionProvider and fell back to CPUExec"):
        Model(toy_model, device="cuda")
    assert Model(toy_model, device="auto").provider == "CPUExecutionProvider"


@pytest.mark.parametrize(
    "content",
    [b"", b"no model", b"\x89PNG\r\n\x1a\n" + bytes(100), bytes(1000)],
    ids=["empty", "text", "png", "zeros"],
)
def test_what_is_not_onnx(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(NuxelError) as caught:
        Model(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_truncated(tmp_path: Path, toy_model: Path, share: float) -> None:
    content = toy_model.read_bytes()
    path = tmp_path / "cut.onnx"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(NuxelError, match=r"cut\.onnx: "):
        Model(path)


def test_the_shipped_model_truncated(tmp_path: Path) -> None:
    content = model_path(DEFAULT_MODEL).read_bytes()
    path = tmp_path / "cut.onnx"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(NuxelError, match=r"cut\.onnx: not an ONNX model, or a damaged one"):
        Model(path)


def test_onnx_but_not_ours(make_toy_model: Callable[..., Path]) -> None:
    with pytest.raises(NuxelError, match="not one of nuxel's"):
        Model(make_toy_model(metadata=None))


def test_from_a_newer_version(make_toy_model: Callable[..., Path]) -> None:
    with pytest.raises(NuxelError, match="newer nuxel"):
        Model(make_toy_model(format=FORMAT + 1))


def test_missing_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.onnx", tmp_path):
        with pytest.raises(NuxelError, match="the model cannot be read"):
            Model(path)


def test_names_and_files(toy_model: Path) -> None:
    assert model_path(str(toy_model)) == toy_model
    assert model_path(DEFAULT_MODEL) == shipped_models()[DEFAULT_MODEL]
    with pytest.raises(UsageError, match=r"nothing: no such model; give a file or one of .*default"):
        model_path("nothing")


def test_the_shipped_model_is_small_and_local() -> None:
    path = model_path(DEFAULT_MODEL)
    card = Model(path, threads=1).card
    assert path.stat().st_size <= 10e6
    assert card.context == "local"
    assert card.maps[0] == "nucleus"
    assert card.reach > 0
    assert "CC0" in card.training_data


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            "bfc_arena.cc: Failed to allocate memory",
            "not enough memory for the network; give a smaller tile size",
        ),
        ("Non-zero status code", "the network cannot be run .Non-zero status code."),
    ],
)
def test_what_onnx_runtime_cannot_do_is_a_sentence(toy_model: Path, said: str, words: str) -> None:
    class Failing:
        def run(self, *_: object) -> None:
            raise RuntimeError(said)

    model = Model(toy_model, threads=1, device="cpu")
    model._session = Failing()
    with pytest.raises(NuxelError, match=words):
        model(np.zeros((32, 32, 3), np.uint8))
