"""What must not change the result of an evaluation: formats, folders, numbers, order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from nuxel.data.image_names import match_names
from nuxel.evaluation.compare import compare
from nuxel.evaluation.evaluate import Evaluation, evaluate
from nuxel.evaluation.scores import score_image
from nuxel.evaluation.summary import summarise

Labels = NDArray[np.int32]
NAMES = st.lists(st.sampled_from(["x", "y", "a/x", "b/x", "a/y", "c/a/x", "z"]), unique=True, max_size=6)


def scene(seed: int) -> Labels:
    """Blocks of random nuclei, some touching, and always at least one."""
    rng = np.random.default_rng(seed)
    small = rng.integers(1, 7, (5, 6)) * (rng.random((5, 6)) < 0.6)
    small[0, 0] = 1
    return np.repeat(np.repeat(small, 4, axis=0), 3, axis=1).astype(np.int32)


def scores_of(evaluation: Evaluation) -> list[dict[str, float]]:
    return [dict(row.scores) for row in evaluation.images]


def save_tiff(path: Path, labels: Labels) -> None:
    tifffile.imwrite(path / "x_labels.tif", labels, tile=(16, 16))


def save_png(path: Path, labels: Labels) -> None:
    Image.fromarray(labels.astype(np.uint16)).save(path / "x.png")


def save_npy(path: Path, labels: Labels) -> None:
    np.save(path / "x.npy", labels.astype(np.uint64))


def save_data_set(path: Path, labels: Labels) -> None:
    for folder in ("images", "labels"):
        (path / folder).mkdir()
        Image.fromarray(labels.astype(np.uint8)).save(path / folder / "x.png")


def save_masks(path: Path, labels: Labels) -> None:
    (path / "x" / "masks").mkdir(parents=True)
    for number in np.unique(labels[labels > 0]):
        Image.fromarray((labels == number).astype(np.uint8) * 255).save(
            path / "x" / "masks" / f"m{number}.png"
        )


def run_lengths(labels: Labels) -> str:
    lines = ["ImageId,EncodedPixels"]
    for number in np.unique(labels[labels > 0]):
        inside = np.pad((labels == number).T.ravel().astype(np.int8), 1)
        steps = np.diff(inside)
        starts, ends = np.flatnonzero(steps > 0), np.flatnonzero(steps < 0)
        lines.append("x," + " ".join(f"{a + 1} {b - a}" for a, b in zip(starts, ends, strict=True)))
    return "\n".join(lines)


@pytest.mark.parametrize("save", [save_tiff, save_png, save_npy, save_data_set, save_masks])
@pytest.mark.parametrize("seed", range(3))
def test_every_format_of_the_truth_gives_the_same_scores(
    tmp_path: Path, save: Callable[[Path, Labels], None], seed: int
) -> None:
    truth, predicted = scene(seed), scene(seed + 100)
    (tmp_path / "truth").mkdir()
    save(tmp_path / "truth", truth)
    (tmp_path / "out").mkdir()
    save_tiff(tmp_path / "out", predicted)
    expected = evaluate(predicted, truth)
    found = evaluate(tmp_path / "out", tmp_path / "truth")
    assert scores_of(found) == scores_of(expected)
    assert found.images[0].image == "x"
    assert found.totals.errors == expected.totals.errors


@pytest.mark.parametrize("seed", range(3))
def test_run_lengths_on_either_side(tmp_path: Path, seed: int) -> None:
    truth, predicted = scene(seed), scene(seed + 100)
    save_npy(tmp_path, truth)
    (tmp_path / "predicted.csv").write_text(run_lengths(predicted))
    there = evaluate(tmp_path / "predicted.csv", tmp_path / "x.npy")
    assert scores_of(there) == scores_of(evaluate(predicted, truth))
    back = evaluate(tmp_path / "x.npy", tmp_path / "predicted.csv")
    assert scores_of(back) == scores_of(evaluate(truth, predicted))


@given(st.integers(0, 50), st.permutations(range(1, 7)))
def test_other_numbers(seed: int, order: list[int]) -> None:
    truth, predicted = scene(seed), scene(seed + 100)
    numbers = np.array([0, *order], np.int32) * 1000
    expected = score_image("a", truth, predicted)
    found = score_image("a", numbers[truth] if seed % 2 else truth, numbers[predicted])
    assert found.errors == expected.errors
    for name in ("ap", "pq", "ncs", "dice", "f1"):
        assert found.scores[name] == pytest.approx(expected.scores[name])


@given(st.integers(0, 50))
def test_transposition_changes_no_score(seed: int) -> None:
    truth, predicted = scene(seed), scene(seed + 100)
    there, across = score_image("a", truth, predicted), score_image("a", truth.T, predicted.T)
    assert across.scores == pytest.approx(there.scores)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=6), st.randoms())
def test_the_order_of_the_images(seeds: list[int], random: st.randoms) -> None:
    rows = [score_image(str(seed), scene(seed), scene(seed + 100)) for seed in seeds]
    shuffled = random.sample(rows, len(rows))
    there, back = summarise(rows), summarise(shuffled)
    assert back.mean == pytest.approx(there.mean)
    assert back.pooled == pytest.approx(there.pooled)
    assert back.errors == there.errors


@given(st.lists(st.integers(0, 20), min_size=1, max_size=4))
def test_every_image_twice_changes_no_rate(seeds: list[int]) -> None:
    rows = [score_image(str(seed), scene(seed), scene(seed + 100)) for seed in seeds]
    once, twice = summarise(rows), summarise(rows * 2)
    assert twice.mean == pytest.approx(once.mean)
    assert twice.pooled == pytest.approx(once.pooled)
    assert twice.truth_nuclei == 2 * once.truth_nuclei


@given(NAMES, NAMES)
def test_names_match_one_to_one_and_the_same_from_either_side(first: list[str], second: list[str]) -> None:
    there, back = match_names(first, second), match_names(second, first)
    assert {b: a for a, b in there.items()} == back
    assert len(set(there.values())) == len(there)
    for name in set(first) & set(second):
        assert there[name] == name
    if max(len(first), len(second)) > 1:
        assert all(a == b or a.endswith("/" + b) or b.endswith("/" + a) for a, b in there.items())


@settings(max_examples=10)
@given(st.integers(0, 1000))
def test_intervals_hold_the_mean_of_many_images(seed: int) -> None:
    rows = [
        [score_image(str(n), scene(n), scene(n + shift)) for n in range(8)]
        for shift in (seed + 50, seed + 99)
    ]
    evaluations = [Evaluation(of, [], evaluate(scene(0), scene(0)).settings) for of in rows]
    for one in compare(*evaluations).differences.values():
        assert one.low - 1e-9 <= one.mean <= one.high + 1e-9
        assert 0 < one.p_value <= 1
        assert one.better + one.worse <= 8
