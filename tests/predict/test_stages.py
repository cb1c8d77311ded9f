"""A network run in stages gives what it gives as a whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nuxel.errors import NuxelError
from nuxel.image.normalise import normalise
from nuxel.image.read import read_image
from nuxel.predict import model as model_module
from nuxel.predict import stages as stages_module
from nuxel.predict.model import DEFAULT_MODEL, Model, model_path
from nuxel.predict.pipeline import Options, segment_normalised
from nuxel.predict.stages import IMAGE, Stage, run_stages
from nuxel.tiling.grid import Box, crop

EXAMPLES = Path(__file__).parents[2] / "examples"
STRIDE = 4

Tensor = NDArray[np.float32]


def blurred(values: Tensor) -> Tensor:
    """The mean of 3 x 3 pixels, zeros beyond the edge."""
    padded = np.pad(values, ((0, 0), (0, 0), (1, 1), (1, 1)))
    height, width = values.shape[2:]
    shifted = [padded[:, :, y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return np.sum(shifted, axis=0, dtype=np.float32) / np.float32(9)


def halved(values: Tensor, times: int = 1) -> Tensor:
    for _ in range(times):
        values = (values[:, :, ::2, ::2] + values[:, :, 1::2, 1::2]) / np.float32(2)
    return values


def enlarged(values: Tensor, factor: int) -> Tensor:
    return values.repeat(factor, 2).repeat(factor, 3)


class ToyStages:
    """Fine: blurred and halved. Deep: halved, minus its own mean (which sees everything). Last: both, at full size."""

    stages = (
        Stage((IMAGE,), ("half",), 2),
        Stage(("half",), ("quarter",), None),
        Stage(("half", "quarter"), ("maps",), 4),
    )

    def __init__(self) -> None:
        self.largest = [0, 0, 0]

    def __call__(self, place: int, seen: Mapping[str, Tensor]) -> Sequence[Tensor]:
        self.largest[place] = max(self.largest[place], *(value.size for value in seen.values()))
        assert all(value.dtype == np.float32 and value.flags.c_contiguous for value in seen.values())
        if place == 0:
            return [halved(blurred(seen[IMAGE]))]
        if place == 1:
            quarter = halved(seen["half"])
            return [quarter - quarter.mean()]
        return [enlarged(blurred(seen["half"] + enlarged(seen["quarter"], 2)), 2)]

    def whole(self, window: NDArray[np.uint8]) -> Tensor:
        half = halved(blurred(np.float32(1 / 255) * window.transpose(2, 0, 1)[None].astype(np.float32)))
        quarter = halved(half)
        maps: Tensor = enlarged(blurred(half + enlarged(quarter - quarter.mean(), 2)), 2)[0]
        return maps


@given(
    height=st.integers(1, 24),
    width=st.integers(1, 24),
    largest=st.integers(20**2, 60**2),
    seed=st.integers(0, 9),
)
def test_stages_give_what_the_whole_gives(height: int, width: int, largest: int, seed: int) -> None:
    shape = (STRIDE * height, STRIDE * width, 3)
    window = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    toy = ToyStages()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages_module, "LARGEST_TILE", largest)
        maps = run_stages(window, (0, 0, *shape[:2]), toy.stages, STRIDE, toy)
    assert maps.shape == (3, *shape[:2])
    assert maps.dtype == np.float32
    np.testing.assert_allclose(maps, toy.whole(window), atol=1e-5)
    assert toy.largest[0] <= 3 * largest
    assert toy.largest[1] == 3 * height * width * STRIDE**2 // 4


@st.composite
def spans(draw: st.DrawFn) -> tuple[int, int, int]:
    """Length, first and last pixel of the inner part, all multiples of the stride."""
    length = draw(st.integers(1, 24))
    first = draw(st.integers(0, length - 1))
    return STRIDE * length, STRIDE * first, STRIDE * draw(st.integers(first + 1, length))


@given(rows=spans(), columns=spans(), largest=st.integers(20**2, 60**2))
def test_the_inner_part_of_a_window(
    rows: tuple[int, int, int], columns: tuple[int, int, int], largest: int
) -> None:
    (height, top, bottom), (width, left, right) = rows, columns
    window = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)
    toy = ToyStages()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages_module, "LARGEST_TILE", largest)
        maps = run_stages(window, (top, left, bottom, right), toy.stages, STRIDE, toy)
    np.testing.assert_allclose(maps, toy.whole(window)[:, top:bottom, left:right], atol=1e-5)
    assert toy.largest[0] <= 3 * largest
    assert toy.largest[1] == 3 * height * width // 4  # the deep part sees the window
    assert (
        toy.largest[2] <= 3 * (bottom - top + 2 * STRIDE) * (right - left + 2 * STRIDE) // 4
    )  # the last does not


def test_what_no_stage_reads_is_dropped() -> None:
    class Chatty(ToyStages):
        stages = (Stage((IMAGE,), ("unread", "half"), 2), *ToyStages.stages[1:])

        def __call__(self, place: int, seen: Mapping[str, Tensor]) -> Sequence[Tensor]:
            answers = super().__call__(place, seen)
            return [seen[IMAGE], *answers] if place == 0 else answers

    window = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    toy = Chatty()
    maps = run_stages(window, (0, 0, 24, 32), toy.stages, STRIDE, toy)
    np.testing.assert_allclose(maps, toy.whole(window), atol=1e-5)


@pytest.fixture
def model() -> Model:
    return Model(model_path(DEFAULT_MODEL), threads=1, device="cpu")


def staged(patch: pytest.MonkeyPatch, tile: int = 128 * 128) -> None:
    """Let every window be run in stages, in small tiles."""
    patch.setattr(model_module, "LARGEST_TILE", 0)
    patch.setattr(stages_module, "LARGEST_TILE", tile)


def test_the_shipped_model_runs_in_stages(model: Model) -> None:
    early, deep, late = model.card.stages
    assert early.reads == (IMAGE,)
    assert deep.reach is None
    assert early.reach is not None
    assert late.reach is not None
    assert max(early.reach, late.reach) < model.card.reach / 4


@pytest.mark.parametrize(
    ("shape", "inner"),
    [((16, 16), (0, 0, 16, 16)), ((16, 400), (0, 208, 16, 320)), ((352, 304), (32, 48, 288, 256))],
)
def test_maps_are_the_same(
    model: Model, shape: tuple[int, int], inner: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    whole = model(window)
    staged(monkeypatch)
    np.testing.assert_allclose(model(window), whole, atol=1e-5)
    np.testing.assert_allclose(model(window, inner), crop(whole, inner), atol=1e-5)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.png")), ids=lambda path: path.stem)
def test_nuclei_are_the_same(model: Model, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = normalise(read_image(path).pixels)
    whole = segment_normalised(image, model, Options()).nuclei
    staged(monkeypatch)
    nuclei = segment_normalised(image, model, Options()).nuclei
    assert len(nuclei) == len(whole)
    assert np.count_nonzero(nuclei.labels != whole.labels) <= whole.labels.size / 100_000


def test_the_memory_of_stages_is_given_back(model: Model) -> None:
    resident = psutil.Process().memory_info
    model.release()  # of a model without stages yet there is nothing to give
    model(np.zeros((1040, 1040, 3), np.uint8), (0, 0, 16, 16))
    kept = resident().rss
    model.release()
    assert resident().rss < kept - 15e6  # half of it: pages are shared with what other tests have left


def test_stages_that_are_not_the_graphs(
    make_toy_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model(make_toy_model(stages=(Stage((IMAGE,), ("absent",), 1),)))
    staged(monkeypatch)
    with pytest.raises(NuxelError, match=r"changed\.onnx: the stages of its card are not its graph's"):
        model(np.zeros((16, 16, 3), np.uint8))


def test_networks_together_run_in_stages_only_if_all_can(model: Model) -> None:
    from nuxel.predict.networks import Ensemble

    plain = Model(model.path, threads=1, device="cpu")
    plain.card = dataclasses.replace(plain.card, stages=())
    assert Ensemble([model, model]).card.stages == model.card.stages
    assert Ensemble([model, plain]).card.stages == Ensemble([plain, model]).card.stages == ()
