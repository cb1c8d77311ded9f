"""``nuxel train``, as a person runs it: what it writes, refuses, survives."""

from __future__ import annotations

import csv
import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nuxel.cli.main import main
from nuxel.training import graph
from nuxel.training import train as train_module
from nuxel.training.recipe import read_recipe
from nuxel.training.schedule import Schedule
from nuxel.training.validate import Validation

RECIPE = """
system = "multihead_unet"
seed = 3
[[data.train]]
folder = "{data}"
[[data.val]]
folder = "{data}"
include = ["a"]
[network]
weights = "none"
widths = [8, 8, 8]
[schedule]
epochs = 5
steps_per_epoch = 2
batch = 2
crop = 32
warmup_steps = 2
decoder_rate = 2e-2
validate_every = 2
average_decay = 0.5
workers = 0
"""

# Runs the command in a process that gets SIGKILL: in training step N, or between validation and checkpoint of epoch N.
KILLED = """
import os, signal, sys
from nuxel.cli.main import main
from nuxel.training.epoch_log import EpochLog
from nuxel.training.module import TrainingModule

where, number = sys.argv[1], int(sys.argv[2])

def die_in(original, now):
    def method(self, *args):
        if now(self, *args):
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, *args)
    return method

if where == "step":
    step = TrainingModule.training_step
    TrainingModule.training_step = die_in(step, lambda module, *_: module.global_step == number)
else:
    end = EpochLog.on_train_epoch_end
    def write_and_die(self, trainer, module):
        end(self, trainer, module)
        if trainer.current_epoch == number:
            os.kill(os.getpid(), signal.SIGKILL)
    EpochLog.on_train_epoch_end = write_and_die
sys.exit(main(sys.argv[3:]))
"""


def write_pair(folder: Path, stem: str, seed: int, side: int = 64) -> None:
    """A noisy dark image with bright squares."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((side, side), np.uint16)
    for number, (y, x) in enumerate(rng.integers(2, side - 14, (4, 2)), 1):
        labels[y : y + 12, x : x + 12] = number
    image = np.clip(np.where(labels > 0, 190, 30) + rng.normal(0, 8, labels.shape), 0, 255).astype(np.uint8)
    for name, array in (("images", image), ("labels", labels)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(folder / name / f"{stem}.png")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_pair(folder, "a", 0)
    write_pair(folder, "b", 1)
    path = folder / "tiny.toml"
    path.write_text(RECIPE.format(data=folder.as_posix()), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def unbroken(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    assert main(["train", str(recipe), "--out", str(out)]) == 0
    return out


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def checkpoint(run: Path, name: str = "last") -> dict:
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)


def events(run: Path) -> dict[str, list[tuple[int, float]]]:
    found = EventAccumulator(str(run / "tensorboard")).Reload()
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def assert_equal(first: object, second: object, where: str = "checkpoint") -> None:
    """Bit for bit the same, all the way down; paths of the run folders may differ."""
    if isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            if key not in (
                "dirpath",
                "best_model_path",
                "last_model_path",
                "kth_best_model_path",
                "best_k_models",
                "current_score",  # of the last validation of this process; nothing reads it after a resume
            ):
                assert_equal(first[key], second[key], f"{where} {key}")
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second), where
        for index, (a, b) in enumerate(zip(first, second, strict=True)):
            assert_equal(a, b, f"{where} {index}")
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    else:
        assert first == second, where


def killed(where: str, number: int, recipe: Path, out: Path, *more: str) -> None:
    """Run ``nuxel train`` in a process of its own until it is killed with SIGKILL."""
    command = [
        sys.executable,
        "-W",
        "error",
        "-c",
        KILLED,
        where,
        str(number),
        "train",
        str(recipe),
        "--out",
        str(out),
    ]
    threads = str(torch.get_num_threads())
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": threads,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    done = subprocess.run([*command, *more], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert done.stderr == ""
    assert done.stdout == ""


@pytest.fixture(scope="module")
def continued(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Killed in mid-epoch 2, continued, killed after epoch 3 was validated and before its checkpoint, moved to
    another folder, continued to the end.
    """
    run = tmp_path_factory.mktemp("runs") / "killed"
    killed("step", 5, recipe, run)
    assert checkpoint(run)["epoch"] == 1
    killed("checkpoint", 3, recipe, run, "--resume")
    assert checkpoint(run)["epoch"] == 2
    assert [row["epoch"] for row in rows(run)] == list("0123")
    moved = run.with_name("moved")
    shutil.move(run, moved)
    assert main(["train", str(recipe), "--out", str(moved), "--resume"]) == 0
    return moved


class TestRun:
    def test_one_row_an_epoch(self, unbroken: Path) -> None:
        found = rows(unbroken)
        assert [row["epoch"] for row in found] == list("01234")
        assert [row["step"] for row in found] == ["2", "4", "6", "8", "10"]
        assert all(float(row["train/loss"]) > 0 for row in found)
        validated = [bool(row["val/mAP"]) for row in found]
        assert validated == [False, True, False, True, False]

    def test_tensorboard_shows_the_same_numbers(self, unbroken: Path) -> None:
        found = events(unbroken)
        assert [step for step, _ in found["train/loss"]] == [2, 4, 6, 8, 10]
        assert [value for _, value in found["train/loss"]] == pytest.approx(
            [float(row["train/loss"]) for row in rows(unbroken)], rel=1e-6
        )
        assert [step for step, _ in found["val/mAP"]] == [4, 8]

    def test_a_picture_for_each_validation(self, unbroken: Path, recipe: Path) -> None:
        pictures = sorted((unbroken / "pictures").iterdir())
        assert [path.name for path in pictures] == ["epoch_0001.png", "epoch_0003.png"]
        with Image.open(pictures[0]) as picture:
            assert picture.size == (64 + 4, 2 * 64 + 4)
            image = Image.open(recipe.parent / "images" / "a.png").convert("RGB")
            shown = np.asarray(picture.crop((0, 0, 64, 64))), np.asarray(picture.crop((0, 68, 64, 132)))
        for part in shown:  # the image, but for outlines
            assert (np.abs(part.astype(int) - np.asarray(image)).max(axis=2) < 40).mean() > 0.5

    def test_checkpoints_hold_no_code(self, unbroken: Path) -> None:
        assert checkpoint(unbroken)["epoch"] == 4
        assert checkpoint(unbroken, "best")["epoch"] in (1, 3)

    def test_what_is_exported_are_the_averaged_weights(self, unbroken: Path) -> None:
        state = checkpoint(unbroken)
        averaged, current = state["state_dict"], state["current_model_state"]
        assert averaged.keys() == current.keys()
        assert any(not torch.equal(averaged[key], current[key]) for key in averaged)

    def test_only_the_run_folder_is_written(self, unbroken: Path) -> None:
        assert sorted(path.name for path in unbroken.iterdir()) == [
            "checkpoints", "metrics.csv", "pictures", "recipe.json", "tensorboard",
        ]  # fmt: skip
        assert sorted(path.name for path in (unbroken / "checkpoints").iterdir()) == [
            "best.ckpt",
            "last.ckpt",
        ]

    def test_nothing_is_said_but_the_end(
        self, recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture
    ) -> None:
        short = ["--set", "schedule.epochs=1", "--set", "data.val=[]"]
        assert main(["train", str(recipe), "--out", str(tmp_path / "run"), *short]) == 0
        said = capfd.readouterr()
        assert said.err == ""
        assert said.out.startswith("trained: ")
        assert said.out.count("\n") == 1
        assert not (tmp_path / "run" / "pictures").exists()
        assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["last.ckpt"]
        assert "val/mAP" not in rows(tmp_path / "run")[0]


class TestKilled:
    def test_ends_with_the_same_weights_averages_and_optimiser(self, continued: Path, unbroken: Path) -> None:
        first, second = checkpoint(continued), checkpoint(unbroken)
        for key in (
            "state_dict",
            "current_model_state",
            "averaging_state",
            "optimizer_states",
            "lr_schedulers",
        ):
            assert_equal(first[key], second[key], key)
        assert_equal(first["callbacks"], second["callbacks"], "callbacks")
        assert (first["epoch"], first["global_step"]) == (second["epoch"], second["global_step"])

    def test_has_the_same_best(self, continued: Path, unbroken: Path) -> None:
        first, second = checkpoint(continued, "best"), checkpoint(unbroken, "best")
        assert first["epoch"] == second["epoch"]
        assert_equal(first["state_dict"], second["state_dict"])

    def test_has_the_same_logs(self, continued: Path, unbroken: Path) -> None:
        assert (continued / "metrics.csv").read_bytes() == (unbroken / "metrics.csv").read_bytes()
        assert events(continued) == events(unbroken)

    def test_has_the_same_pictures(self, continued: Path, unbroken: Path) -> None:
        for picture in (unbroken / "pictures").iterdir():
            assert (continued / "pictures" / picture.name).read_bytes() == picture.read_bytes()

    def test_another_number_of_workers_changes_nothing(
        self, recipe: Path, unbroken: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "run"
        assert main(["train", str(recipe), "--out", str(out), "--set", "schedule.workers=1"]) == 0
        assert_equal(checkpoint(out)["state_dict"], checkpoint(unbroken)["state_dict"])

    def test_with_workers_that_draw_ahead_it_is_the_same_too(
        self, recipe: Path, unbroken: Path, tmp_path: Path
    ) -> None:
        run, workers = tmp_path / "run", ("--set", "schedule.workers=1")
        killed("checkpoint", 2, recipe, run, *workers)
        assert checkpoint(run)["epoch"] == 1
        assert main(["train", str(recipe), "--out", str(run), "--resume", *workers]) == 0
        assert_equal(checkpoint(run)["state_dict"], checkpoint(unbroken)["state_dict"])
        assert (run / "metrics.csv").read_bytes() == (unbroken / "metrics.csv").read_bytes()

    def test_a_finished_run_stays_as_it_is(self, recipe: Path, continued: Path) -> None:
        before = {
            p: p.read_bytes() for p in continued.rglob("*") if p.is_file() and "tensorboard" not in p.parts
        }
        assert main(["train", str(recipe), "--out", str(continued), "--resume"]) == 0
        assert_equal(checkpoint(continued)["epoch"], 4)
        for path, content in before.items():
            if path.suffix != ".ckpt":
                assert path.read_bytes() == content, path


class TestStopped:
    """A run that cannot go on says why, and what it has done stays."""

    def stopped(self, capsys: pytest.CaptureFixture, recipe: Path, out: Path, *more: str) -> str:
        assert main(["train", str(recipe), "--out", str(out), *more]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"nuxel train: {out}: the run has stopped: ")
        return line

    def test_weights_that_are_not_finite(self, capsys, recipe: Path, tmp_path: Path) -> None:
        rates = ("encoder_rate=1e30", "decoder_rate=1e30", "gradient_clip=0", "warmup_steps=0")
        out = tmp_path / "run"
        said = self.stopped(capsys, recipe, out, *(f"--set=schedule.{rate}" for rate in rates))
        assert "in epoch 0 the weights became infinite or NaN; start another with lower rates" in said
        assert not list((out / "checkpoints").iterdir())

    def test_a_full_disk(self, capsys, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patched:
            patched.setattr(pl.Trainer, "save_checkpoint", refuse)
            said = self.stopped(capsys, recipe, tmp_path / "run")
        assert "No space left on device" in said
        assert said.endswith("; it goes on after its last finished epoch with --resume")
        assert main(["train", str(recipe), "--out", str(tmp_path / "run"), "--resume"]) == 0


class TestRefused:
    def refused(self, capsys: pytest.CaptureFixture, recipe: Path, out: Path, *more: str) -> str:
        assert main(["train", str(recipe), "--out", str(out), *more]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("nuxel train: ")
        assert said.err.count("\n") == 1
        return said.err

    def test_a_second_run_in_the_same_folder(self, capsys, recipe: Path, unbroken: Path) -> None:
        before = (unbroken / "metrics.csv").read_bytes()
        assert "already holds a run; continue it with --resume" in self.refused(capsys, recipe, unbroken)
        assert (unbroken / "metrics.csv").read_bytes() == before

    def test_the_first_of_several_processes_looks_as_well(
        self, capsys, recipe: Path, unbroken: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LOCAL_RANK", "0")
        assert "already holds a run" in self.refused(capsys, recipe, unbroken)

    def test_a_folder_with_somebody_s_table(self, capsys, recipe: Path, tmp_path: Path) -> None:
        (tmp_path / "metrics.csv").write_text("epoch,mine\n")
        assert "metrics.csv: exists already, and is of no run" in self.refused(capsys, recipe, tmp_path)
        assert (tmp_path / "metrics.csv").read_text() == "epoch,mine\n"

    def test_to_continue_from_a_damaged_checkpoint(
        self, capsys, recipe: Path, unbroken: Path, tmp_path: Path
    ) -> None:
        copy = Path(shutil.copytree(unbroken, tmp_path / "copy"))
        checkpoint = copy / "checkpoints" / "last.ckpt"
        checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
        assert "last.ckpt: the checkpoint is damaged" in self.refused(capsys, recipe, copy, "--resume")

    def test_a_stage_that_leaves_nothing_to_train(self, capsys, recipe: Path, tmp_path: Path) -> None:
        """US-Net's segmentation branch alone has no weights outside ``unet``."""
        text = recipe.read_text()
        start = text.index("[network]")
        network = '[network]\nbranches = "segmentation"\nwidths = [4, 4, 4, 4, 4, 4, 4]\n'
        schedule = '[schedule]\ncrop = 64\nworkers = 0\nstages = [{ epochs = 1, freeze = ["unet"] }]\n'
        other = tmp_path / "us_net.toml"
        other.write_text(text[:start].replace("multihead_unet", "us_net") + network + schedule)
        said = self.refused(capsys, other, tmp_path / "run")
        assert "freeze = ['unet'] leaves nothing of this network to train" in said

    def test_to_continue_with_another_recipe(self, capsys, recipe: Path, unbroken: Path) -> None:
        said = self.refused(capsys, recipe, unbroken, "--resume", "--set", "schedule.epochs=6")
        assert "started with another recipe" in said

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ("schedule.epoch=3", "did you mean epochs?"),
            ("data.train=[]", "names no [[data.train]] folder"),
            ('data.train=[{folder="/absent"}]', "/absent: no such folder of annotated images"),
            ('data.val=[{folder="/absent"}]', "/absent: no such folder of annotated images"),
            ("network.encoder=tf_efficientnet_lite9", "did you mean tf_efficientnet_lite"),
            ("network.weights=/absent.pth", "/absent.pth: no such weights file"),
        ],
    )
    def test_what_cannot_start(self, capsys, recipe: Path, tmp_path: Path, change: str, words: str) -> None:
        assert words in self.refused(capsys, recipe, tmp_path / "run", "--set", change)
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("part", ["train", "val"])
    def test_labels_of_another_shape(self, capsys, recipe: Path, tmp_path: Path, part: str) -> None:
        write_pair(tmp_path, "odd", 0)
        Image.fromarray(np.zeros((64, 60), np.uint16)).save(tmp_path / "labels" / "odd.png")
        said = self.refused(
            capsys, recipe, tmp_path / "run", "--set", f'data.{part}=[{{folder="{tmp_path.as_posix()}"}}]'
        )
        assert "labels are (64, 60), but the image odd.png is (64, 64)" in said
        assert not (tmp_path / "run").exists()

    def test_an_image_without_labels(self, capsys, recipe: Path, tmp_path: Path) -> None:
        write_pair(tmp_path, "alone", 0)
        (tmp_path / "labels" / "alone.png").unlink()
        said = self.refused(
            capsys, recipe, tmp_path / "run", "--set", f'data.train=[{{folder="{tmp_path.as_posix()}"}}]'
        )
        assert "alone.png: no labels" in said

    def test_a_set_in_which_nothing_is_annotated(self, capsys, recipe: Path, tmp_path: Path) -> None:
        said = self.refused(capsys, recipe, tmp_path / "run", *relabelled(tmp_path, -1, -1))
        assert "nothing is annotated in any of the 1 training images" in said
        assert not (tmp_path / "run").exists()

    def test_a_run_folder_that_cannot_be_made(self, capsys, recipe: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        assert "the run folder cannot be made" in self.refused(capsys, recipe, tmp_path / "file" / "run")


def relabelled(folder: Path, background: int, nuclei: int) -> list[str]:
    """What sets the training images to one with these labels."""
    write_pair(folder, "a", 0)
    labels = np.asarray(Image.open(folder / "labels" / "a.png"))
    (folder / "labels" / "a.png").unlink()
    tifffile.imwrite(folder / "labels" / "a.tif", np.where(labels > 0, nuclei, background).astype(np.int32))
    return ["--set", f'data.train=[{{folder="{folder.as_posix()}"}}]', "--set", "schedule.epochs=1"]


@pytest.mark.filterwarnings("default:no pixel of the training images")
@pytest.mark.parametrize(("background", "warned"), [(-1, True), (0, False)])
def test_a_network_of_maps_needs_background(
    capsys, recipe: Path, tmp_path: Path, background: int, warned: bool
) -> None:
    changes = relabelled(tmp_path, background, 3)
    assert main(["train", str(recipe), "--out", str(tmp_path / "run"), *changes]) == 0
    said = capsys.readouterr().err
    assert ("no pixel of the training images is known to be background" in said) == warned


def test_two_processes_train_one_model_together(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    changes = ["--set", "schedule.devices=2", "--set", "schedule.epochs=2"]
    command = [sys.executable, "-m", "nuxel", "train", str(recipe), "--out", str(out), *changes]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert [row["epoch"] for row in rows(out)] == ["0", "1"]
    assert checkpoint(out)["global_step"] == 4
    assert all(torch.isfinite(value).all() for value in checkpoint(out)["state_dict"].values())


QUICK = ("--set", "schedule.epochs=1", "--set", "schedule.steps_per_epoch=1", "--set", "data.val=[]")


@pytest.mark.parametrize(("scores", "best"), [((0.9, 0.1), 1), ((0.1, 0.9), 3)])
def test_the_best_checkpoint_is_that_of_the_highest_score(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scores: tuple[float, float], best: int
) -> None:
    told = iter(scores)
    monkeypatch.setattr(Validation, "scores", lambda _: {"mAP": next(told)})
    out = tmp_path / "run"
    assert main(["train", str(recipe), "--out", str(out), "--set", "schedule.epochs=4"]) == 0
    assert checkpoint(out, "best")["epoch"] == best


def test_gradients_are_clipped_and_weights_averaged_as_the_recipe_says(recipe: Path, tmp_path: Path) -> None:
    read = read_recipe(recipe, ["schedule.gradient_clip=0.25"])
    assert train_module._trainer(read, tmp_path, validating=False).gradient_clip_val == 0.25
    for decay, same in ((0, True), (0.9, False)):
        out = tmp_path / f"run{decay}"
        changes = ("--set", f"schedule.average_decay={decay}", *QUICK, "--set", "schedule.steps_per_epoch=3")
        assert main(["train", str(recipe), "--out", str(out), *changes]) == 0
        state = checkpoint(out, "last")
        raw = state["current_model_state"]
        assert all(torch.equal(state["state_dict"][key], value) for key, value in raw.items()) == same


class Touches:
    """What a checkpoint could hold to run code: unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("how", ["export", "resume", "init"])
def test_a_checkpoint_that_would_run_code_is_refused(
    recipe: Path, unbroken: Path, tmp_path: Path, how: str
) -> None:
    run, path = Path(shutil.copytree(unbroken, tmp_path / "run")), tmp_path / "done"
    last = run / "checkpoints" / "last.ckpt"
    torch.save({**checkpoint(run, "last"), "more": Touches(path)}, last)
    command = {
        "export": ["export-model", run, "--out", tmp_path / "m.onnx"],
        "resume": ["train", recipe, "--out", run, "--resume"],
        "init": ["train", recipe, "--out", tmp_path / "two", "--init", run],
    }[how]
    assert main([str(part) for part in command]) != 0
    assert not path.exists()
    torch.load(last, weights_only=False)
    assert path.exists()


def test_folds(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    changes = [f"--set=schedule.{key}=1" for key in ("epochs", "steps_per_epoch", "validate_every")]
    command = ["train", str(recipe), "--out", str(tmp_path / "run"), "--folds", "2", *changes]
    assert main(command) == 0
    said = capsys.readouterr()
    assert "over 2 folds" in said.out
    assert "nuxel train: fold 0:" in said.err
    assert main(command) == 2
    assert main([*command, "--resume"]) == 0


def test_half_of_the_size(unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "_LARGE", 8)
    for name, more in (("whole", []), ("half", ["--half"])):
        assert main(["export-model", str(unbroken), "--out", str(tmp_path / f"{name}.onnx"), *more]) == 0
    whole, half = ((tmp_path / f"{name}.onnx").stat().st_size for name in ("whole", "half"))
    assert half < 0.75 * whole


def test_on_the_competition_s_own_layout(recipe: Path, tmp_path: Path) -> None:
    """``<id>/images`` with one image and ``<id>/masks`` with one mask a nucleus."""
    for name in "ab":
        labels = np.asarray(Image.open(recipe.parent / "labels" / f"{name}.png"))
        for kind in ("images", "masks"):
            (tmp_path / "set" / name / kind).mkdir(parents=True)
        shutil.copy(recipe.parent / "images" / f"{name}.png", tmp_path / "set" / name / "images")
        for number in np.unique(labels[labels > 0]):
            mask = Image.fromarray((labels == number).astype(np.uint8) * 255)
            mask.save(tmp_path / "set" / name / "masks" / f"{number}.png")
    folder = f'data.train=[{{ folder = "{(tmp_path / "set").as_posix()}" }}]'
    runs = []
    for change in ([], ["--set", folder]):
        out = tmp_path / f"run{len(runs)}"
        assert main(["train", str(recipe), "--out", str(out), *QUICK, *change]) == 0
        runs.append(checkpoint(out, "last")["state_dict"])
    assert all(torch.equal(runs[0][key], runs[1][key]) for key in runs[0])


@pytest.mark.parametrize(("steps", "decay", "said"), [(40, 0.998, True), (40, 0.9, False), (2, 0.998, False)])
def test_averaged_weights_that_will_stay_where_they_are_are_doubted(
    steps: int, decay: float, said: bool
) -> None:
    schedule = Schedule(epochs=1, steps_per_epoch=steps, average_decay=decay)
    if said:
        with pytest.warns(
            UserWarning, match="after 40 steps 92% of the averaged weights, which are exported"
        ):
            train_module._doubt_averaging(schedule)
    else:
        train_module._doubt_averaging(schedule)
