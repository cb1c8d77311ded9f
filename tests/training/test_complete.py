"""Annotations that a network completes while it trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as some
from numpy.typing import NDArray
from PIL import Image

from nuxel.errors import NuxelError, UsageError
from nuxel.instances import Instances
from nuxel.labels.relabel import relabel
from nuxel.training import complete
from nuxel.training.complete import completed
from nuxel.training.module import TrainingModule
from nuxel.training.recipe import Data, Recipe, read_recipe
from nuxel.training.train import train
from nuxel.training.validate import TorchNetwork

Labels = NDArray[np.int32]
DRAW = Callable[..., tuple[NDArray[np.uint8], Labels]]


def few(count: int = 8) -> st.SearchStrategy[Labels]:
    return some.arrays(np.int32, (5, 6), elements=st.integers(-1, count))


class TestCompleted:
    @given(few(), few(3), st.lists(st.floats(0, 1, width=32), min_size=8, max_size=8), st.floats(0, 1))
    def test_annotations_stay_and_the_rest_follows_from_the_score(
        self, annotations: Labels, found: Labels, scores: list[float], least: float
    ) -> None:
        dense = relabel(np.maximum(found, 0))
        of_found = np.array(scores[: dense.max()], np.float32)
        labels = completed(annotations, Instances(dense, of_found), least)
        annotated = annotations >= 0
        assert np.array_equal(labels[annotated], annotations[annotated])
        score = np.append(np.float32(-1), of_found)[dense]
        added, doubted = (labels > 0) & ~annotated, labels < 0
        assert (score[added] >= least).all()
        assert ((score[doubted] >= 0) & (score[doubted] < least)).all()
        assert not np.isin(labels[added], annotations[annotated]).any()

    def test_where_nothing_is_found_is_background(self) -> None:
        nothing = Instances(np.zeros((2, 2), np.int32), np.zeros(0, np.float32))
        assert completed(np.array([[4, -1], [0, -7]], np.int32), nothing, 0.5).tolist() == [[4, 0], [0, 0]]

    def test_shapes_must_be_equal(self) -> None:
        with pytest.raises(NuxelError, match="the annotations are"):
            completed(np.zeros((2, 3), np.int32), Instances(np.zeros((2, 2), np.int32), np.zeros(0)), 0.5)


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory, draw: DRAW) -> Path:
    """Image a is annotated in full, and of b nothing is but the largest nucleus, which has the number 9."""
    folder = tmp_path_factory.mktemp("half")
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for seed, stem in enumerate("ab"):
        image, labels = draw(64, seed)
        if stem == "b":
            labels = np.where(labels == np.bincount(labels[labels > 0]).argmax(), 9, -1).astype(np.int32)
        Image.fromarray(image).save(folder / "images" / f"{stem}.png")
        np.save(folder / "labels" / f"{stem}.npy", labels)
    return folder


def recipe(recipe_file: Path, half: Path, *more: str) -> Recipe:
    source = f'[{{ folder = "{half.as_posix()}" }}]'
    return read_recipe(recipe_file, [f"data.train={source}", "data.val=[]", *more])


def checkpoint(run: Path) -> Any:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def same_weights(found: Any, expected: Any) -> bool:
    return all(
        torch.equal(value, found[kind][name])
        for kind in ("state_dict", "current_model_state")
        for name, value in expected[kind].items()
    )


def labels_of(saved: Any) -> list[Labels]:
    return [labels.numpy() for labels in saved["callbacks"]["CompletedAnnotations"]["labels"]]


@pytest.fixture
def bright(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """Let every network find what is bright on the left, when it is asked for both images again on the right, and so
    on, with a score of 0.9; its weights at each call."""
    seen = []

    def find(image: NDArray[np.uint8], network: TorchNetwork, _: object) -> Any:
        seen.append({name: value.clone() for name, value in network.module.state_dict().items()})
        assert not network.module.training
        assert network.card.decoder_rule["min_score"] == 0.2
        labels = (image[..., 0] > 110).astype(np.int32)
        labels[:, 32:] *= (len(seen) - 1) // 2 % 2
        labels[:, :32] *= (len(seen) + 1) // 2 % 2
        return type("Seen", (), {"nuclei": Instances(labels, np.array([0.9], np.float32))})

    monkeypatch.setattr(complete, "segment_normalised", find)
    return seen


class TestTraining:
    def test_after_the_last_epoch_it_changes_nothing_but_the_labels(
        self, recipe_file: Path, half: Path, tmp_path: Path, bright: list[dict[str, torch.Tensor]]
    ) -> None:
        """What finds the nuclei are the averaged weights, and the others are put back."""
        train(recipe(recipe_file, half), tmp_path / "without")
        assert not bright
        train(recipe(recipe_file, half, "data.complete_after=[4]"), tmp_path / "with")
        found, expected = checkpoint(tmp_path / "with"), checkpoint(tmp_path / "without")
        assert same_weights(found, expected)
        assert "CompletedAnnotations" not in expected["callbacks"]
        assert len(bright) == 2
        assert all(torch.equal(value, bright[0][name]) for name, value in expected["state_dict"].items())

    def test_it_learns_on_from_what_it_found(
        self, recipe_file: Path, half: Path, tmp_path: Path, bright: list[dict[str, torch.Tensor]]
    ) -> None:
        train(recipe(recipe_file, half), tmp_path / "without")
        train(recipe(recipe_file, half, "data.complete_after=[1, 3]"), tmp_path / "with")
        found = checkpoint(tmp_path / "with")
        assert len(bright) == 4
        assert not same_weights(found, checkpoint(tmp_path / "without"))
        of_a, of_b = labels_of(found)
        truth = np.load(half / "labels" / "b.npy")
        assert np.array_equal(of_a, np.load(half / "labels" / "a.npy"))
        assert np.array_equal(of_b == 1, truth == 9)
        assert set(np.unique(of_b)) == {0, 1, 2}
        assert (of_b[:, :32] < 2).all()  # the second time from the annotations, not from the first

    @pytest.mark.parametrize("step", [3, 6])
    def test_a_run_that_broke_ends_like_an_unbroken_one(
        self, step: int, recipe_file: Path, half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        bright: list[dict[str, torch.Tensor]],
    ) -> None:  # fmt: skip
        """Broken off before the annotations are completed for the second time, and after it."""
        wanted = recipe(recipe_file, half, "data.complete_after=[1, 3]")
        train(wanted, tmp_path / "unbroken")
        with monkeypatch.context() as breaking:
            usual = TrainingModule.training_step

            def until(self: TrainingModule, *batch: Any) -> torch.Tensor:
                if self.global_step == step:
                    raise ConnectionError
                return usual(self, *batch)

            breaking.setattr(TrainingModule, "training_step", until)
            with pytest.raises(ConnectionError):
                train(wanted, tmp_path / "broken")
        train(wanted, tmp_path / "broken", resume=True)
        found, expected = checkpoint(tmp_path / "broken"), checkpoint(tmp_path / "unbroken")
        assert found["global_step"] == expected["global_step"] == 8
        assert same_weights(found, expected)
        assert all(map(np.array_equal, labels_of(found), labels_of(expected)))
        assert len(bright) == 8

    def test_a_network_finds_what_nobody_annotated(
        self, recipe_file: Path, half: Path, tmp_path: Path, draw: DRAW
    ) -> None:
        easy = [
            f"augmentation.{name}_p=0" for name in ("invert", "light", "shading", "tint", "noise", "blur")
        ]
        easy += ["augmentation.zoom_range=[1, 1]", "network.weights=imagenet", "schedule.epochs=2"]
        easy += ["schedule.steps_per_epoch=60", "schedule.encoder_rate=2e-3", "schedule.decoder_rate=2e-2"]
        wanted = recipe(recipe_file, half, *easy, "data.complete_after=[2]")
        train(wanted, tmp_path / "run")
        _, truth = draw(64, 1)
        _, labels = labels_of(checkpoint(tmp_path / "run"))
        annotated = np.load(half / "labels" / "b.npy") > 0
        found, there = (labels > 0)[~annotated], (truth > 0)[~annotated]
        assert (found & there).sum() > 0.7 * (found | there).sum()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"complete_after": (0, 3)}, r"complete_after must list rising numbers of epochs, from 1 on, got \[0, 3\]"),
        ({"complete_after": (3, 3)}, "rising numbers"),
        ({"complete_score": 0.1}, "doubted_score and complete_score must lie between 0 and 1, .* got 0.2 and 0.1"),
        ({"complete_score": 1.1}, "between 0 and 1"),
    ],
)  # fmt: skip
def test_wrong_keys(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Data(**changes)
