"""Training that starts from the weights of another run, and on label images whose 0 is not annotated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nuxel.cli.main import main
from nuxel.data.dataset import Source, find_annotated, read_annotated
from nuxel.systems.partial_mask_rcnn import PartialMaskRCNN
from nuxel.training import train as training
from nuxel.training.export import load_run

QUICK = ("epochs=1", "steps_per_epoch=1", "validate_every=5", "average_decay=0", "warmup_steps=0")
STILL = ("encoder_rate=0", "decoder_rate=0", "weight_decay=0")
Capture = pytest.CaptureFixture[str]


def train(recipe: Path, out: Path, *more: str, changes: tuple[str, ...] = QUICK) -> int:
    settings = [f"--set=schedule.{change}" for change in changes]
    return main(["train", str(recipe), "--out", str(out), *settings, *more])


def weights(run: Path) -> dict[str, torch.Tensor]:
    return dict(load_run(run).network.named_parameters())


def same(one: Path, other: Path) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(one).values(), weights(other).values(), strict=True))


@pytest.fixture(scope="module")
def first(recipe_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("first") / "run"
    assert train(recipe_file, run) == 0
    return run


@pytest.fixture
def write_pair(
    draw: Callable[..., tuple[np.ndarray, np.ndarray]],
    write: Callable[[Path, str, np.ndarray, np.ndarray], None],
) -> Callable[[Path], Path]:
    """Writes two images, in one of which one nucleus is annotated, and a small recipe for them; returns the recipe."""

    def written(folder: Path) -> Path:
        image, labels = draw(64, 0)
        write(folder / "set", "a", image, np.where(labels == 2, 1, 0))
        write(folder / "set", "b", image, np.zeros_like(labels))
        recipe = folder / "partial.toml"
        recipe.write_text(
            f'''system = "partial_mask_rcnn"
data.partial = true
data.train = [{{ folder = "{(folder / "set").as_posix()}" }}]
network = {{ backbone = "resnet18", weights = "none", width = 8, box_head = 16, mask_head = [8] }}
schedule = {{ crop = 64, batch = 2, workers = 0 }}
''',
            encoding="utf-8",
        )
        return recipe

    return written


class TestInit:
    @pytest.mark.parametrize("part", ["", "checkpoints/last.ckpt"])
    def test_it_goes_on_from_the_weights_of_a_run(
        self, recipe_file: Path, first: Path, tmp_path: Path, part: str
    ) -> None:
        """With rates of zero, they stay as they were; another seed alone would draw others."""
        init = str(first / part)
        still = (*QUICK, *STILL)
        assert train(recipe_file, tmp_path / "fresh", "--set=seed=9", changes=still) == 0
        assert not same(first, tmp_path / "fresh")
        assert train(recipe_file, tmp_path / "run", "--set=seed=9", "--init", init, changes=still) == 0
        assert same(first, tmp_path / "run")

    def test_what_it_started_from_is_recorded(self, recipe_file: Path, first: Path, tmp_path: Path) -> None:
        assert train(recipe_file, tmp_path / "run", "--init", str(first)) == 0
        assert load_run(tmp_path / "run").recipe.init == str(first)

    def test_a_finished_epoch_counts_for_more(
        self, recipe_file: Path, first: Path, tmp_path: Path, capsys: Capture
    ) -> None:
        """A resumed run has its own weights, and does not need those any more that it started from."""
        moved = tmp_path / "moved"
        first.rename(moved)
        try:
            assert train(recipe_file, tmp_path / "run", "--init", str(moved)) == 0
        finally:
            moved.rename(first)
        before = weights(tmp_path / "run")
        assert train(recipe_file, tmp_path / "run", "--init", str(moved), "--resume") == 0
        assert all(torch.equal(before[name], value) for name, value in weights(tmp_path / "run").items())
        assert train(recipe_file, tmp_path / "run", "--resume") == 2
        assert "started with another recipe" in capsys.readouterr().err

    def test_other_networks_are_refused(
        self, recipe_file: Path, first: Path, tmp_path: Path, capsys: Capture
    ) -> None:
        changed = "--set=network.widths=[8, 8, 16]"
        assert train(recipe_file, tmp_path / "run", changed, "--init", str(first)) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "its weights do not fit the recipe's network" in line
        assert "start from a run with the same system and [network]" in line
        assert not (tmp_path / "run").exists()

    def test_other_maps_of_the_same_shape_are_refused(
        self, recipe_file: Path, tmp_path: Path, capsys: Capture
    ) -> None:
        rule = "--set=decoder_rule.split=none"
        heads = "--set=network.heads=['nucleus', '{}']"
        assert train(recipe_file, tmp_path / "first", rule, heads.format("shrunk")) == 0
        start = ("--init", str(tmp_path / "first"))
        capsys.readouterr()
        assert train(recipe_file, tmp_path / "run", rule, heads.format("touching"), *start) == 2
        assert (
            "its network maps nucleus, shrunk, and the recipe's nucleus, touching" in capsys.readouterr().err
        )
        assert not (tmp_path / "run").exists()

    @pytest.mark.filterwarnings("always:.*its weights were trained with")
    def test_what_no_shape_shows_is_told(
        self, recipe_file: Path, first: Path, tmp_path: Path, capsys: Capture
    ) -> None:
        assert train(recipe_file, tmp_path / "run", "--set=network.padding=mirror", "--init", str(first)) == 0
        assert "its weights were trained with [network] padding = zero" in capsys.readouterr().err

    @pytest.mark.filterwarnings("always:.*network.centre", "ignore:no pixel of the training images")
    def test_a_part_that_only_one_of_two_networks_has(
        self, write_pair: Callable[[Path], Path], tmp_path: Path, capsys: Capture
    ) -> None:
        recipe = write_pair(tmp_path)
        without = ("--set=network.module=false", "--set=sampling.unknown=ignore")
        assert train(recipe, tmp_path / "without", *without) == 0
        still = (*QUICK, *STILL)
        start = ("--init", str(tmp_path / "without"))
        assert train(recipe, tmp_path / "with", *start, changes=still) == 0
        assert "what it lacks starts at random: network.centre" in capsys.readouterr().err
        before, after = weights(tmp_path / "without"), weights(tmp_path / "with")
        added = after.keys() - before.keys()
        assert added
        assert all(name.startswith("centre.") for name in added)
        assert all(torch.equal(value, after[name]) for name, value in before.items())
        start = ("--init", str(tmp_path / "with"))
        assert train(recipe, tmp_path / "back", *without, *start, changes=still) == 0
        assert "what only it has is left out: network.centre" in capsys.readouterr().err
        assert same(tmp_path / "without", tmp_path / "back")

    def test_a_network_with_no_part_in_common_is_refused(
        self, first: Path, write_pair: Callable[[Path], Path], tmp_path: Path, capsys: Capture
    ) -> None:
        assert train(write_pair(tmp_path), tmp_path / "run", "--init", str(first)) == 2
        assert "its weights do not fit the recipe's network" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("content", "words"),
        [(None, "no run with a finished epoch to start from"), (b"text", "the checkpoint is damaged")],
    )
    def test_what_holds_no_weights_is_refused(
        self, recipe_file: Path, tmp_path: Path, capsys: Capture, content: bytes | None, words: str
    ) -> None:
        init = tmp_path / "init"
        if content is not None:
            init.write_bytes(content)
        assert train(recipe_file, tmp_path / "run", "--init", str(init)) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line
        assert not (tmp_path / "run").exists()


class TestPartial:
    @pytest.mark.filterwarnings("ignore:no pixel of the training images")
    def test_zero_is_not_annotated_if_the_recipe_says_so(
        self, data: Path, recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = []

        def look(recipe: object, views: training.RandomViews, first_epoch: int) -> None:  # noqa: ARG001
            seen.extend(labels for _, labels in views.images)
            raise KeyboardInterrupt

        monkeypatch.setattr(training, "_loader", look)
        for partial, least in (("false", 0), ("true", -1)):
            seen.clear()
            assert train(recipe_file, tmp_path / partial, f"--set=data.partial={partial}") == 1
            assert {int(labels.min()) for labels in seen} == {least}
            assert {int(labels.max()) for labels in seen} == {5}
            assert all((labels == 0).any() != (least < 0) for labels in seen)
        assert read_annotated(find_annotated(Source(str(data)))[0])[1].min() == 0

    def test_an_annotated_image_may_be_partial(self, data: Path) -> None:
        item = find_annotated(Source(str(data)))[0]
        _, whole = read_annotated(item)
        _, part = read_annotated(replace(item, partial=True))
        assert np.array_equal(part, np.where(whole == 0, -1, whole))


def test_a_system_for_partial_labels_trains_from_the_command(
    tmp_path: Path,
    draw: Callable[..., tuple[np.ndarray, np.ndarray]],
    write: Callable[[Path, str, np.ndarray, np.ndarray], None],
    write_pair: Callable[[Path], Path],
    capsys: Capture,
) -> None:
    """One annotated nucleus in one of two images is enough, and none is refused in one sentence."""
    image, labels = draw(64, 0)
    recipe = write_pair(tmp_path)
    assert train(recipe, tmp_path / "run") == 0
    trained = load_run(tmp_path / "run")
    assert isinstance(trained.recipe.system, PartialMaskRCNN)
    rows, columns = np.nonzero(labels == 2)
    assert trained.network.centre.anchor.tolist() == [np.ptp(columns) + 1, np.ptp(rows) + 1]
    write(tmp_path / "set", "a", image, np.zeros_like(labels))
    capsys.readouterr()
    assert train(recipe, tmp_path / "none") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "nothing is annotated in any of the 2 training images" in line
    assert not (tmp_path / "none").exists()
