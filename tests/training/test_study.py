"""A study of tiny networks: what a row leaves behind, what is run again and what is not, tables, charts, pictures."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from nuxel.data.dataset import find_all, read_annotated
from nuxel.decode.detections import DetectionRule
from nuxel.errors import NuxelError, UsageError
from nuxel.export.heat_map import draw_heat_map
from nuxel.export.overlay import draw_overlay
from nuxel.image.resample import ScaledImage
from nuxel.instances import Instances
from nuxel.labels.relabel import relabel
from nuxel.metrics.aggregated_jaccard import aggregated_jaccard, normalised_coverage
from nuxel.metrics.average_precision import average_precision
from nuxel.metrics.overlap import overlap_table
from nuxel.predict.detect import attention_of
from nuxel.predict.model import Model
from nuxel.predict.pipeline import Options, decoder_rule, segment_normalised
from nuxel.training import study as study_module
from nuxel.training import study_figures
from nuxel.training.epoch_log import read_rows
from nuxel.training.module import TrainingModule
from nuxel.training.study import run_study
from nuxel.training.study_figures import draw_bars, draw_curves, mean_curve, side_by_side
from nuxel.training.study_file import Study, read_study
from nuxel.training.study_page import difference, ratio, read_results, write_page
from nuxel.training.study_schema import Row
from nuxel.training.tune import GRIDS, tune_decoder

RECIPES = Path(__file__).parents[2] / "recipes"
PAPER = RECIPES / "multihead_unet"
DATA = RECIPES.parents[1] / "shared" / "data" / "dsb2018"

RECIPE = """
system = "multihead_unet"
[[data.train]]
folder = "{data}"
[[data.val]]
folder = "{data}"
include = ["a"]
[network]
encoder = "plain"
weights = "none"
depth = 2
encoder_widths = [4, 4, 8]
decoder = "concat"
widths = [8, 4]
heads = ["nucleus", "shrunk", "touching"]
[schedule]
epochs = 4
steps_per_epoch = 9
batch = 2
crop = 32
warmup_steps = 0
decoder_rate = 1e-2
encoder_rate = 1e-2
validate_every = 2
average_decay = 0
workers = 0
"""

STUDY = """
title = "Discs"
tune = [{{ folder = "{data}", include = ["a"] }}]
test = [{{ folder = "{data}" }}]
budget = [
    {{ name = "small", note = "Two steps.", set = ["schedule.steps_per_epoch=2"] }},
    {{ name = "paper" }},
]
row = [
    {{ name = "first", label = "ReLU", recipe = "tiny.toml" }},
    {{ name = "second", label = "ELU", recipe = "tiny.toml", set = ["network.activation=elu", "schedule.epochs=2"] }},
    {{ name = "turned", label = "ReLU, turned", of = "first", tta = true }},
    {{ name = "whole", label = "ReLU, whole clumps", of = "first", split = "none", tune = true }},
    {{ name = "walked", label = "ReLU, random walker", of = "first", split = "random_walker" }},
    {{ name = "square", label = "ReLU, 96 x 96", of = "first", resize = 96 }},
    {{ name = "large", label = "ReLU, large nuclei", of = "first", rule = ["min_area=40", "split=none"], tune = true }},
    {{ name = "apart", label = "ReLU, one image", of = "first", images = "one" }},
]
milestone = [{{ score = "mAP", at = 0.0 }}, {{ score = "IoU_nucleus", at = 1.5 }}]
[[images]]
name = "one"
tune = [{{ folder = "{data}", include = ["a"] }}]
test = [{{ folder = "{data}", include = ["b"] }}]
[[table]]
title = "Activation"
note = "Of discs."
curves = true
rows = [{{ row = "first", paper = 0.25 }}, {{ row = "second" }}]
compare = [["first", "second"]]
[[table]]
title = "Decoder"
scores = ["AJI", "recall"]
rows = [{{ row = "first" }}, {{ row = "whole" }}]
compare = [["first", "whole"]]
ratios = [["whole", "first"]]
by = "AJI"
[[figure]]
title = "Figure 1: mAP"
note = "Two activations."
rows = ["first", "second"]
[[figure]]
title = "Scores"
kind = "bars"
rows = ["first", "second", "turned"]
[[picture]]
title = "Discs found"
images = ["b", "a"]
rows = ["second", "square"]
"""


@pytest.fixture
def folder(data: Path, tmp_path: Path) -> Path:
    return write_study(tmp_path / "discs", data)


def write_study(folder: Path, data: Path) -> Path:
    folder.mkdir()
    for name, text in (("tiny.toml", RECIPE), ("study.toml", STUDY)):
        (folder / name).write_text(text.format(data=data.as_posix()), encoding="utf-8")
    return folder


def change(folder: Path, old: str, new: str) -> None:
    path = folder / "study.toml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path, list[str]]:
    """The whole study with one seed, its folder, and what it said."""
    study = read_study(write_study(tmp_path_factory.mktemp("recipes") / "discs", data), "small")
    out, said = tmp_path_factory.mktemp("studies") / "discs", []
    assert run_study(study, out, tell=said.append) == {}
    return study, out, said


@pytest.fixture
def copied(finished: tuple[Study, Path, list[str]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished[1], tmp_path / "copy"))


def results(out: Path) -> dict[str, dict]:
    found = {path: json.loads(path.read_text(encoding="utf-8")) for path in (out / "results").iterdir()}
    return {f"{result['row']} {result['seed']}": result for result in found.values()}


def row_of(page: str, label: str, table: int = 0) -> list[str]:
    """The cells of a line of the page's tables of scores."""
    lines = [line for line in page.splitlines() if line.startswith(f"| {label} |")]
    return [cell.strip() for cell in lines[table].strip("|").split("|")]


class TestResult:
    def test_every_row_has_one(self, finished) -> None:
        _, out, said = finished
        assert set(results(out)) == {
            "first 0", "second 0", "turned 0", "whole 0", "walked 0", "square 0", "large 0", "apart 0",
        }  # fmt: skip
        assert [sentence.split(":")[0] for sentence in said] == [
            f"{row} (seed 0)"
            for row in ("first", "second", "turned", "whole", "walked", "square", "large", "apart")
        ]

    def test_its_name_is_row_seed_and_hash_and_so_are_model_and_run(self, finished) -> None:
        _, out, _ = finished
        trained = {f"{row}-seed0-{results(out)[f'{row} 0']['hash']}" for row in ("first", "second")}
        assert all(re.fullmatch("(first|second)-seed0-[0-9a-f]{12}", name) for name in trained)
        assert trained <= {path.stem for path in (out / "results").iterdir()}
        assert trained == {path.stem for path in (out / "models").iterdir()}
        assert trained == {path.name for path in (out / "runs").iterdir()}

    def test_the_budget_applies_to_every_row_after_the_row_s_own_changes(self, finished) -> None:
        found = results(finished[1])
        assert (found["first 0"]["steps"], found["second 0"]["steps"]) == (8, 4)
        assert found["second 0"]["recipe"]["network"]["activation"] == "elu"
        assert found["second 0"]["budget"] == "small"
        assert found["first 0"]["versions"]["torch"]

    @pytest.mark.parametrize(
        ("row", "options", "split"),
        [
            ("first", Options(), "watershed"), ("turned", Options(tta=True), "watershed"),
            ("whole", Options(), "none"), ("walked", Options(), "random_walker"), ("large", Options(), "none"),
        ],
    )  # fmt: skip
    def test_scores_are_those_of_the_model_file(
        self, finished, row: str, options: Options, split: str
    ) -> None:
        study, out, _ = finished
        result = results(out)[f"{row} 0"]
        model = Model(out / "models" / f"{study.job(study.row('first'), 0).name}.onnx")
        assert result["decoder_rule"]["split"] == split
        if row not in ("whole", "large"):
            assert {**model.card.decoder_rule, "split": split} == result["decoder_rule"]
        assert (row == "walked") == (result["tuned"] == {})
        model.card = dataclasses.replace(model.card, decoder_rule=result["decoder_rule"])
        for item, measured in zip(find_all(study.file.test), result["images"], strict=True):
            image, truth = read_annotated(item)
            found = segment_normalised(image, model, options).nuclei.labels
            assert measured["image"] == item.image.name
            assert measured["mAP"] == pytest.approx(average_precision(truth, found))
            assert measured["AP50"] == pytest.approx(average_precision(truth, found, [0.5]))
            both, either = (truth > 0) & (found > 0), (truth > 0) | (found > 0)
            assert measured["IoU"] == pytest.approx(both.sum() / either.sum())
            table = overlap_table(truth, found)
            assert measured["AJI"] == pytest.approx(aggregated_jaccard(table))
            assert measured["NCS"] == pytest.approx(normalised_coverage(table))
            assert measured["pixel_accuracy"] == pytest.approx(((truth > 0) == (found > 0)).mean())
        for score in ("mAP", "AP50", "IoU", "AJI", "NCS", "precision", "recall", "pixel_accuracy"):
            assert result[score] == pytest.approx(np.mean([image[score] for image in result["images"]]))

    def test_a_rule_of_its_own_is_kept_while_the_rest_is_tuned(self, finished) -> None:
        study, out, _ = finished
        result = results(out)["large 0"]
        assert result["evaluation"]["rule"] == ["min_area=40", "split=none"]
        assert result["decoder_rule"]["min_area"] == 40
        assert 40 not in GRIDS[type(study.recipes["first"].system.decoder_rule)]["min_area"]
        model = Model(out / "models" / f"{study.job(study.row('first'), 0).name}.onnx")
        model.card = dataclasses.replace(model.card, decoder_rule=result["decoder_rule"])
        (item,) = find_all(study.file.tune)
        image, truth = read_annotated(item)
        found = segment_normalised(image, model, Options()).nuclei.labels
        assert result["tuned"] == {"val mAP": pytest.approx(average_precision(truth, found), abs=1e-4)}

    def test_a_resized_image_is_compared_at_its_own_size(self, finished, monkeypatch) -> None:
        """A network's answer that is perfect at 96 x 96 is nearly so at 64 x 64."""
        study, _, _ = finished
        seen: list[tuple[int, ...]] = []

        def look(image: np.ndarray, *_: object) -> tuple[None, np.ndarray]:
            seen.append(image.shape)
            return None, image

        def decode(image: np.ndarray, *_: object) -> Instances:
            return Instances(relabel((image[..., 0] > 128).astype(np.int32)))

        monkeypatch.setattr(study_module, "look_at", look)
        monkeypatch.setattr(study_module, "decode_seen", decode)
        item = find_all(study.file.test)[0]
        image, truth = read_annotated(item)
        network = SimpleNamespace(card=None)
        found, _ = study_module._labels(image, network, study.row("square"))
        assert seen == [(96, 96, 3)]
        assert ((found > 0) == (truth > 0)).mean() > 0.97

    def test_a_row_with_images_of_its_own_is_another_where_its_model_is_tuned_on_others(
        self, folder: Path
    ) -> None:
        before = read_study(folder, "small")
        path = folder / "study.toml"
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace('include = ["a"]', 'include = ["b"]', 1), encoding="utf-8")
        after = read_study(folder, "small")
        assert after.images(after.row("apart")) == before.images(before.row("apart"))
        names = [one.job(one.row("apart"), 0).name for one in (before, after)]
        assert names[0] != names[1]

    def test_its_decoder_may_be_tuned_on_images_of_its_own(self, folder: Path, finished, monkeypatch) -> None:
        change(folder, 'images = "one" }', 'images = "one", tune = true }')
        study, tuned = read_study(folder, "small"), []

        def tune(model: Model, images: list, held: dict) -> tuple:
            tuned.append(([item.image.stem for item in images], dict(held)))
            return decoder_rule(model.card, Options()), 0.5

        monkeypatch.setattr(study_module, "tune_decoder", tune)
        out = Path(shutil.copytree(finished[1], folder / "out"))
        assert run_study(study, out, only=["apart"]) == {}
        assert tuned == [(["a"], {})]
        result = out / "results" / f"{study.job(study.row('apart'), 0).name}.json"
        assert json.loads(result.read_text(encoding="utf-8"))["tuned"] == {"val mAP": 0.5}

    def test_a_row_may_have_images_of_its_own(self, finished) -> None:
        study, out, _ = finished
        apart, first = (results(out)[f"{row} 0"] for row in ("apart", "first"))
        (one,) = find_all(study.images(study.row("apart")).test)
        assert [image["image"] for image in apart["images"]] == [one.image.name]
        assert apart["images"][0] in first["images"]

    def test_tables_show_and_compare_further_scores(self, finished) -> None:
        _, out, _ = finished
        page = (out / "study.md").read_text(encoding="utf-8")
        first, whole = (results(out)[f"{row} 0"] for row in ("first", "whole"))
        cells = row_of(page, "ReLU, whole clumps")
        assert f"{whole['AJI']:.3f}" in cells
        assert f"{whole['recall']:.3f}" in cells
        assert "| AP50 | IoU | AJI | recall | steps |" in page
        gap = whole["AJI"] - first["AJI"]
        assert f"**ReLU, whole clumps** minus **ReLU**: AJI {gap:+.3f}, " in page
        share = f"{whole['AJI'] / first['AJI']:.1%}" if first["AJI"] else "nan%"
        assert f"**ReLU, whole clumps** over **ReLU**: {share} of its AJI, 95 % interval over " in page

    def test_the_curve_is_that_of_the_run(self, finished) -> None:
        study, out, _ = finished
        run = out / "runs" / study.job(study.row("first"), 0).name
        curve = results(out)["first 0"]["curve"]
        assert [(point["epoch"], point["step"]) for point in curve] == [(1, 2), (2, 4), (3, 6), (4, 8)]
        rows = read_rows(run / "metrics.csv")
        for epoch, point in enumerate(curve):
            assert point["loss"] == float(rows[epoch]["train/loss"])
            for score in ("mAP", "AP50", "IoU_nucleus", "IoU_touching"):
                written = rows[epoch][f"val/{score}"]
                assert point.get(score) == (float(written) if written else None)
        assert ["IoU_touching" in point for point in curve] == [False, True, False, True]
        times = [point["seconds"] for point in curve]
        assert times == sorted(times)
        assert results(out)["first 0"]["seconds"]["training"] == times[-1] > 0

    def test_checkpoints_go_when_the_result_is_there(self, finished) -> None:
        assert not list(finished[1].rglob("*.ckpt"))


class TestTuning:
    """A network that knows the answer, and a rule that drops the smaller nuclei."""

    @pytest.fixture
    def model(self, toy_model: Path) -> Model:
        model = Model(toy_model, threads=1)
        model.card = dataclasses.replace(model.card, decoder_rule={"min_area": 150, "threshold": 0.9})
        return model

    def test_what_a_row_changes_is_held(self, finished, model: Model) -> None:
        tune = finished[0].file.tune
        free, score = tune_decoder(model, find_all(tune))
        assert free.min_area < 150
        row = Row("small", "Small", of="first", rule=("min_area=150", "split=none"), tune=True)
        changed = study_module._changed(model, row, tune).card
        assert (changed.decoder_rule["min_area"], changed.decoder_rule["split"]) == (150, "none")
        assert changed.decoder_rule["threshold"] == free.threshold < 0.9
        assert changed.scores["val mAP"] < score

    def test_with_nothing_held_it_is_that_of_every_model(self, finished, model: Model) -> None:
        tune = finished[0].file.tune
        rule, score = tune_decoder(model, find_all(tune))
        study_module._changed(model, Row("other", "Other", of="first", images="one", tune=True), tune)
        assert model.card.decoder_rule == dataclasses.asdict(rule)
        assert model.card.scores == {"val mAP": round(score, 4)}
        assert rule.min_area < 150


class TestAgain:
    def test_what_is_there_is_not_run(self, finished, copied: Path) -> None:
        before = {path: path.stat().st_mtime_ns for path in copied.rglob("*")}
        said: list[str] = []
        assert run_study(finished[0], copied, tell=said.append) == {}
        assert said == []
        assert {path: path.stat().st_mtime_ns for path in copied.rglob("*")} == before

    def test_a_changed_row_is_run_and_the_old_result_is_not_shown(self, folder: Path, copied: Path) -> None:
        change(folder, "schedule.epochs=2", "schedule.epochs=1")
        study, said = read_study(folder, "small"), []
        assert "not run" in row_of(write_page(study, copied, {}), "ELU")
        assert run_study(study, copied, tell=said.append) == {}
        assert [sentence.split(":")[0] for sentence in said] == ["second (seed 0)"]
        assert row_of(write_page(study, copied, {}), "ELU")[7] == "2"

    def test_a_changed_evaluation_uses_the_model_that_is_there(self, folder: Path, copied: Path) -> None:
        change(folder, "tta = true", "tta = true, split = 'none'")
        said: list[str] = []
        assert run_study(read_study(folder, "small"), copied, tell=said.append) == {}
        assert [sentence.split(":")[0] for sentence in said] == ["turned (seed 0)"]

    def test_another_budget_is_run(self, finished, copied: Path, folder: Path) -> None:
        study = read_study(folder, "paper")
        assert all(not found for found in read_results(study, copied).values())
        assert all(read_results(finished[0], copied).values())

    def test_a_half_trained_row_goes_on(self, finished, tmp_path: Path, monkeypatch) -> None:
        study, out, _ = finished
        step, steps = TrainingModule.training_step, []

        def counted(module: TrainingModule, *batch: object) -> object:
            steps.append(module.global_step)
            if steps == [0, 1, 2, 3, 4]:
                raise KeyboardInterrupt
            return step(module, *batch)

        monkeypatch.setattr(TrainingModule, "training_step", counted)
        with pytest.raises(KeyboardInterrupt):
            run_study(study, tmp_path, only=["first"])
        assert not list((tmp_path / "results").iterdir())
        assert run_study(study, tmp_path, only=["first"]) == {}
        assert steps == [0, 1, 2, 3, 4, 4, 5, 6, 7]
        again, whole = (results(folder)["first 0"] for folder in (tmp_path, out))
        assert again["images"] == whole["images"]
        assert [point["loss"] for point in again["curve"]] == [point["loss"] for point in whole["curve"]]


class TestFailure:
    def test_the_others_go_on(self, folder: Path, tmp_path: Path) -> None:
        change(folder, "schedule.epochs=2", "schedule.epochs=1")
        change(folder, 'recipe = "tiny.toml" },', 'recipe = "broken.toml" },')
        text = (
            (folder / "tiny.toml").read_text(encoding="utf-8").replace('encoder = "plain"', 'encoder = "vgg"')
        )
        text = text.replace("encoder_widths = [4, 4, 8]\n", "")
        (folder / "broken.toml").write_text(text, encoding="utf-8")
        study, said = read_study(folder, "small"), []
        failed = run_study(study, tmp_path / "out", tell=said.append)
        assert set(failed) == {
            f"{row} (seed 0)" for row in ("first", "turned", "whole", "walked", "square", "large", "apart")
        }
        assert "vgg" in failed["first (seed 0)"]
        assert "the model of row first is missing" in failed["turned (seed 0)"]
        assert all("\n" not in reason for reason in failed.values())
        assert set(results(tmp_path / "out")) == {"second 0"}
        page = (tmp_path / "out" / "study.md").read_text(encoding="utf-8")
        assert row_of(page, "ReLU")[2] == "not run"
        assert f"- first (seed 0): {failed['first (seed 0)']}" in page
        assert "**ELU** minus **ReLU**: not run" in page

    def test_what_nobody_foresaw_is_one_sentence(self, finished, tmp_path: Path, monkeypatch) -> None:
        def exhaust(*_: object, **__: object) -> None:
            raise MemoryError("all of it\nis gone")

        monkeypatch.setattr(study_module, "train", exhaust)
        failed = run_study(finished[0], tmp_path, only=["second"])
        assert failed == {"second (seed 0)": "MemoryError: all of it"}
        assert not list((tmp_path / "results").iterdir())

    def test_a_damaged_result_is_named(self, finished, copied: Path) -> None:
        path = next((copied / "results").glob("second-*"))
        path.write_text("{", encoding="utf-8")
        with pytest.raises(NuxelError, match="remove it to run its row again"):
            write_page(finished[0], copied, {})
        with pytest.raises(UsageError, match="remove it to run its row again"):  # before anything is trained
            run_study(finished[0], copied)

    def test_a_damaged_file_that_is_no_result_of_a_row_is_left_alone(self, finished, copied: Path) -> None:
        before = write_page(finished[0], copied, {})
        for name in ("second-seed0-000000000000", "second-seedling", "second-seed0"):
            (copied / "results" / f"{name}.json").write_text("", encoding="utf-8")
        assert write_page(finished[0], copied, {}) == before

    def test_a_model_that_is_gone_can_be_trained_again(self, finished, copied: Path) -> None:
        study = finished[0]
        result = copied / "results" / f"{study.job(study.row('first'), 0).name}.json"
        (copied / "models" / result.with_suffix(".onnx").name).unlink()
        next((copied / "results").glob("turned-*")).unlink()
        failed = run_study(study, copied, only=["turned"])
        assert f"remove {result} to train it again" in failed["turned (seed 0)"]


class TestCompared:
    """A minus B, where A and B cannot be compared."""

    def changed(self, out: Path, row: str, change) -> None:
        path = next((out / "results").glob(f"{row}-*"))
        result = json.loads(path.read_text(encoding="utf-8"))
        change(result["images"])
        path.write_text(json.dumps(result), encoding="utf-8")

    def test_other_images(self, finished, copied: Path) -> None:
        for change in (lambda images: images.pop(), lambda images: images[0].update(image="other")):
            self.changed(copied, "second", change)
            page = write_page(finished[0], copied, {})
            assert "**ELU** minus **ReLU**: scored on different images" in page
            assert "**ReLU, whole clumps** minus **ReLU**: AJI" in page

    def test_a_score_that_one_lacks(self, finished, copied: Path) -> None:
        self.changed(copied, "whole", lambda images: [image.pop("AJI") for image in images])
        page = write_page(finished[0], copied, {})
        assert page.count("AJI was not measured of both") == 2  # the difference and the ratio


class TestChosen:
    def test_a_row_brings_the_row_whose_model_it_uses(self, finished) -> None:
        study = finished[0]
        assert [row.name for row in study.chosen(["whole", "second"])] == ["first", "second", "whole"]
        assert len(study.chosen([])) == 8

    def test_seeds_are_added_row_by_row(self, finished, tmp_path: Path, monkeypatch) -> None:
        ran = []

        def instead(_: Study, job: study_module.Job, __: Path) -> dict:
            ran.append((job.row.name, job.seed, job.recipe.seed))
            return result_of(job.row.name, job.seed)

        monkeypatch.setattr(study_module, "_run", instead)
        study = finished[0]
        run_study(study, tmp_path, seeds=2, only=["first", "second"])
        assert ran == [("first", 0, 0), ("second", 0, 0), ("first", 1, 1), ("second", 1, 1)]
        run_study(study, tmp_path, seeds=3, only=["first"])
        assert ran[4:] == [("first", 2, 2)]
        page = write_page(study, tmp_path, {})
        assert row_of(page, "ReLU") == [
            "ReLU", "0.250", "0.250", "0.250", "3", "0.500", "0.750", "8", "1.0", "no (+50.0%)",
        ]  # fmt: skip
        assert row_of(page, "ELU")[2:5] == ["0.125", f"{0.25 / 2**0.5:.3f}", "2"]
        assert "mAP -0.125, 95 % interval over 1 images -0.125 to -0.125 (means of 3 and 2 seeds)" in page
        assert "the order is reversed" in page
        assert row_of(page, "ReLU, whole clumps")[2:] == ["not run", "", "0", *[""] * 7]

    def test_a_row_may_have_more_seeds_than_the_others(
        self, folder: Path, tmp_path: Path, monkeypatch
    ) -> None:
        ran = []

        def instead(_: Study, job: study_module.Job, __: Path) -> dict:
            ran.append((job.row.name, job.seed))
            return result_of(job.row.name, job.seed)

        monkeypatch.setattr(study_module, "_run", instead)
        change(folder, 'label = "ReLU", recipe', 'label = "ReLU", seeds = 3, recipe')
        change(folder, "tta = true", "tta = true, seeds = 2")
        study = read_study(folder, "small")
        only = ["first", "second", "turned"]
        run_study(study, tmp_path / "none", seeds=0, only=only)
        assert ran == []
        run_study(study, tmp_path / "one", only=only)
        assert ran == [
            ("first", 0), ("second", 0), ("turned", 0), ("first", 1), ("turned", 1), ("first", 2),
        ]  # fmt: skip
        ran.clear()
        run_study(study, tmp_path / "one", seeds=2, only=only)
        assert ran == [("second", 1)]

    def test_seeds_and_labels_decide_no_name(self, folder: Path) -> None:
        before = read_study(folder, "small")
        names = [before.job(row, 1).name for row in before.file.row]
        change(folder, 'label = "ReLU", recipe', 'label = "Rectified", seeds = 3, recipe')
        after = read_study(folder, "small")
        assert [after.job(row, 1).name for row in after.file.row] == names

    def test_names_of_results_stay_what_they_are(self, folder: Path) -> None:
        """Those that rows without a rule had before there were rules: hours of results bear them."""
        study = read_study(folder, "small", data="elsewhere")
        names = {row.name: study.job(row, 0).hash for row in study.file.row}
        large = names.pop("large")
        assert names.pop("apart") not in names.values()
        assert names == {
            "first": "9dd0072c321b",
            "second": "b6b70be3fec7",
            "turned": "171871a3d0b0",
            "whole": "bd6f18ca6539",
            "walked": "cc1e2fe5b9c8",
            "square": "785e7d97fd21",
        }
        assert large not in names.values()


def result_of(row: str, seed: int) -> dict:
    """What a row and seed might give."""
    score = 0.25 * seed
    return {
        "row": row, "seed": seed, "mAP": score, "AP50": 0.5, "IoU": 0.75, "steps": 8, "plateau": seed > 0,
        "images": [{"image": "a", "mAP": score, "AP50": 0.5, "IoU": 0.75}],
        "seconds": {"training": 60.0 * seed}, "loss_fall": 0.5, "curve": [],
    }  # fmt: skip


class TestBudget:
    def test_a_recipe_has_changes_of_its_own_after_the_common_ones(self, folder: Path) -> None:
        shutil.copy(folder / "tiny.toml", folder / "other.toml")
        change(folder, 'label = "ELU", recipe = "tiny.toml"', 'label = "ELU", recipe = "other.toml"')
        change(
            folder,
            'set = ["schedule.steps_per_epoch=2"] }',
            'set = ["schedule.steps_per_epoch=2", "schedule.batch=3"], recipe = ['
            '{ recipe = "other.toml", set = ["schedule.batch=5", "schedule.epochs=1"], label = "short" }] }',
        )
        study = read_study(folder, "small")
        first, second = (study.recipes[name].schedule for name in ("first", "second"))
        assert (first.steps_per_epoch, first.batch, first.epochs) == (2, 3, 4)
        assert (second.steps_per_epoch, second.batch, second.epochs) == (2, 5, 1)
        assert [study.label(study.row(name)) for name in ("first", "second", "turned")] == [
            "ReLU", "ELU (short)", "ReLU, turned",
        ]  # fmt: skip
        change(folder, 'of = "first", tta', 'of = "second", tta')
        study = read_study(folder, "small")
        assert study.label(study.row("turned")) == "ReLU, turned (short)"
        paper = read_study(folder, "paper")
        assert (paper.label(paper.row("second")), paper.recipes["second"].schedule.batch) == ("ELU", 2)


class TestPage:
    def test_shows_the_paper_s_figures_beside_ours(self, finished) -> None:
        study, out, _ = finished
        page = (out / "study.md").read_text(encoding="utf-8")
        first = results(out)["first 0"]
        assert page.startswith("# Discs\n\nBudget `small`. Two steps.\n\n## Activation\n\nOf discs.\n\n|")
        cells = row_of(page, "ReLU")
        scores = [f"{first[name]:.3f}" for name in ("mAP", "AP50", "IoU")]
        assert cells[1:8] == ["0.250", scores[0], "", "1", scores[1], scores[2], "8"]
        assert cells[9] == f"{'yes' if first['plateau'] else 'no'} ({first['loss_fall']:+.1%})"
        assert row_of(page, "ReLU, whole clumps")[9] == ""
        assert page.split("## Discs found")[0] == write_page(study, out, {}).split("## Discs found")[0]

    def test_results_without_the_iou_have_no_column_for_it(self, finished, copied: Path) -> None:
        for name in ("first", "second"):
            (path,) = (copied / "results").glob(f"{name}-*")
            result = json.loads(path.read_text(encoding="utf-8"))
            del result["IoU"]
            path.write_text(json.dumps(result), encoding="utf-8")
        page = write_page(finished[0], copied, {})
        assert page.count("| AP50 | IoU |") == 1
        without, with_it = page.split("## Decoder")
        assert "| AP50 | steps |" in without
        assert row_of(with_it, "ReLU")[6] == ""
        assert row_of(with_it, "ReLU, whole clumps")[6] == f"{results(copied)['whole 0']['IoU']:.3f}"

    def test_shows_the_ious_by_step_and_when_a_score_was_reached(self, finished) -> None:
        _, out, _ = finished
        page = (out / "study.md").read_text(encoding="utf-8")
        curve = results(out)["first 0"]["curve"]
        nuclei = page.split("IoU of nuclei on the validation images, by step:")[1]
        assert "| row | 4 | 8 |" in nuclei
        assert row_of(nuclei, "ReLU") == ["ReLU", *(f"{curve[n]['IoU_nucleus']:.3f}" for n in (1, 3))]
        assert row_of(nuclei, "ELU")[2] == ""
        reached = page.split("First validation at which a score was reached:")[1]
        assert row_of(reached, "ReLU") == [
            "ReLU",
            f"step 4, {curve[1]['seconds'] / 60:.1f} min",
            "not reached",
        ]


@pytest.fixture
def charts(monkeypatch: pytest.MonkeyPatch) -> list:
    """The figures that are drawn, in place of their SVG."""
    pytest.importorskip("matplotlib")
    drawn: list = []
    monkeypatch.setattr(study_figures, "as_svg", lambda chart: drawn.append(chart) or "")
    return drawn


class TestCharts:
    def test_the_page_shows_them(self, finished) -> None:
        pytest.importorskip("matplotlib")
        _, out, _ = finished
        page = (out / "study.md").read_text(encoding="utf-8")
        assert (
            "\n\n## Figure 1: mAP\n\nTwo activations.\n\n![Figure 1: mAP](figures/figure-1-map.svg)\n\n"
            in page
        )
        assert "\n\n## Scores\n\n![Scores](figures/scores.svg)\n\n" in page
        root = ElementTree.parse(out / "figures" / "figure-1-map.svg").getroot()
        texts = {element.text for element in root.iter() if element.tag.endswith("text")}
        assert {"epoch", "mAP on the validation images", "ReLU", "ELU"} <= texts

    def test_a_curve_is_the_mean_over_seeds_with_a_band(self, finished, charts: list) -> None:
        study = finished[0]
        (figure, _) = study.file.figure
        values = {"first": [[0.1, 0.2, 0.4], [0.3, 0.2, 0.2]], "second": [[0.5, 0.6]]}
        found = {
            row: [
                {"seed": seed, "curve": [{"epoch": 2 * n + 2, "mAP": v} for n, v in enumerate(scores)]}
                for seed, scores in enumerate(of)
            ]
            for row, of in values.items()
        }
        draw_curves(study, figure, found)
        ((axes,),) = (chart.axes for chart in charts)
        (first, second), (band,) = axes.lines, axes.collections
        assert [line.get_label() for line in (first, second)] == ["ReLU", "ELU"]
        np.testing.assert_allclose(first.get_xydata(), [(2, 0.2), (4, 0.2), (6, 0.3)])
        np.testing.assert_allclose(second.get_xydata(), [(2, 0.5), (4, 0.6)])
        ends = band.get_paths()[0].vertices
        np.testing.assert_allclose(ends[ends[:, 0] == 2][:, 1].max(), 0.2 + 0.1 * 2**0.5)
        np.testing.assert_allclose(ends[ends[:, 0] == 6][:, 1].min(), 0.3 - 0.1 * 2**0.5)
        assert axes.get_ylim()[0] == 0
        assert not first.get_color() == second.get_color() == band.get_facecolor()

    def test_a_curve_has_only_what_was_validated(self, finished) -> None:
        _, out, _ = finished
        first = results(out)["first 0"]
        points = mean_curve([first], "mAP")
        assert points == [(n, first["curve"][n - 1]["mAP"], 0.0) for n in (2, 4)]
        assert [epoch for epoch, *_ in mean_curve([first], "loss")] == [1, 2, 3, 4]
        assert mean_curve([], "mAP") == []

    @pytest.mark.parametrize(
        ("score", "axis"),
        [
            ("AP50", "AP50 on the validation images"),
            ("loss", "training loss"),
            ("confidence", "training loss: confidence"),
        ],
    )
    def test_an_axis_says_on_what_it_was_measured(
        self, finished, charts: list, score: str, axis: str
    ) -> None:
        study = finished[0]
        draw_curves(
            study, dataclasses.replace(study.file.figure[0], score=score), {"first": [], "second": []}
        )
        assert charts[0].axes[0].get_ylabel() == axis

    def test_bars_of_a_score_that_a_row_has_not(self, finished, charts: list) -> None:
        study = finished[0]
        figure = dataclasses.replace(study.file.figure[1], score="box_AP50")
        found = {"first": [{"seed": 0, "mAP": 0.5}], "second": [{"seed": 0, "box_AP50": 0.5}], "turned": []}
        draw_bars(study, figure, found)
        assert [text.get_text() for text in charts[0].axes[0].texts] == ["not measured", "0.500", "not run"]

    def test_bars_have_the_paper_s_figure_beside_them(self, finished, charts: list) -> None:
        study = finished[0]
        (_, figure) = study.file.figure
        found = {
            "first": [{"seed": n, "mAP": score} for n, score in enumerate((0.2, 0.3, 0.4))],
            "second": [{"seed": 0, "mAP": 0.5}], "turned": [],
        }  # fmt: skip
        draw_bars(study, figure, found)
        ((axes,),) = (chart.axes for chart in charts)
        assert [bar.get_width() for bar in axes.patches] == pytest.approx([0.3, 0.5])
        assert [text.get_text() for text in axes.get_yticklabels()] == ["ReLU", "ELU", "ReLU, turned"]
        assert [text.get_text() for text in axes.texts] == ["0.300 ± 0.100; paper 0.250", "0.500", "not run"]
        marks = [(line.get_marker(), line.get_xydata().tolist()) for line in axes.lines]
        assert (".", [[0.2, 0], [0.3, 0], [0.4, 0]]) in marks
        assert ("D", [[0.25, 0]]) in marks
        assert (".", [[0.5, 1]]) in marks
        ((low, high),) = [segment[:, 0] for segment in axes.collections[0].get_segments()]
        assert (low, high) == pytest.approx((0.2, 0.4))

    def test_bars_of_another_score_have_no_paper(self, finished, charts: list) -> None:
        study = finished[0]
        figure = dataclasses.replace(study.file.figure[1], score="IoU")
        draw_bars(
            study,
            figure,
            {"first": [{"seed": 0, "mAP": 0.1, "IoU": 0.7}, {"seed": 1}], "second": [], "turned": []},
        )
        ((axes,),) = (chart.axes for chart in charts)
        assert [text.get_text() for text in axes.texts] == ["0.700", "not run", "not run"]
        assert axes.get_xlabel() == "IoU of the foreground on the test images"

    def test_what_is_not_run_is_not_drawn(self, finished, tmp_path: Path) -> None:
        pytest.importorskip("matplotlib")
        page = write_page(finished[0], tmp_path, {})
        assert "## Scores\n\nnot run\n\n## Discs found\n\nnot run\n" in page
        assert [path.name for path in tmp_path.iterdir()] == ["study.md"]

    def test_without_matplotlib_one_line_says_so(self, finished, copied: Path, monkeypatch) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        page = write_page(finished[0], copied, {})
        assert page.count("atplotlib") == 1
        assert "\n\nFigures need Matplotlib; install it with `pip install 'nuxel[report]'`.\n\n" in page
        assert "svg" not in page
        assert "## Discs found\n\n![Discs found](figures/discs-found-" in page


def shown(page: str, title: str) -> tuple[str, str]:
    """File and caption of a picture."""
    found = re.search(rf"## {title}\n\n!\[{title}\]\((\S+)\)\n\n(.*)\n", page)
    assert found
    return found[1], found[2]


class TestPictures:
    @pytest.fixture
    def knowing(self, copied: Path, toy_model: Path) -> Path:
        """The study's folder, as if its models had learnt that bright is nucleus, and without its pictures."""
        for path in (copied / "models").iterdir():
            shutil.copy(toy_model, path)
        for path in (copied / "figures").glob("*.png"):
            path.unlink()
        return copied

    def test_shows_what_the_rows_find_beside_the_truth(self, finished, knowing: Path) -> None:
        study = finished[0]
        assert run_study(study, knowing) == {}
        file, caption = shown(write_page(study, knowing, {}), "Discs found")
        assert (
            caption == "From left to right: the true outlines; ELU; ReLU, 96 x 96. From top to bottom: b, a."
        )
        assert re.fullmatch("figures/discs-found-[0-9a-f]{12}.png", file)
        drawn = np.asarray(Image.open(knowing / file))
        assert drawn.shape == (64 + 4 + 64, 64 + 4 + 64 + 4 + 64, 3)
        pairs = {item.image.stem: read_annotated(item) for item in find_all(study.file.test)}
        for top, name in ((0, "b"), (68, "a")):
            image, truth = pairs[name]
            expected = [truth]
            for row in ("second", "square"):
                model = Model(next((knowing / "models").iterdir()))
                rule = results(knowing)[f"{row} 0"]["decoder_rule"]
                model.card = dataclasses.replace(model.card, decoder_rule=rule)
                found, _ = study_module._labels(image, model, study.row(row))
                assert found.max() > 2
                expected.append(found)
            for left, labels in zip((0, 68, 136), expected, strict=True):
                outlined = draw_overlay(image, Instances(relabel(labels)))
                np.testing.assert_array_equal(drawn[top : top + 64, left : left + 64], outlined)

    def test_a_row_is_drawn_with_the_parameters_of_its_result(self, folder: Path, knowing: Path) -> None:
        change(folder, 'rows = ["second", "square"]', 'rows = ["large"]')
        study = read_study(folder, "small")
        image, _ = read_annotated(find_all(study.file.test)[1])
        model = Model(next((knowing / "models").iterdir()))
        every = segment_normalised(image, model, Options()).nuclei
        least = int(np.median(np.bincount(every.labels.ravel())[1:]))
        model.card = dataclasses.replace(model.card, decoder_rule={"min_area": least})
        large = segment_normalised(image, model, Options()).nuclei
        assert 0 < len(large) < len(every)
        (path,) = (knowing / "results").glob("large-*")
        result = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**result, "decoder_rule": model.card.decoder_rule}), encoding="utf-8")
        assert run_study(study, knowing) == {}
        drawn = np.asarray(Image.open(knowing / shown(write_page(study, knowing, {}), "Discs found")[0]))
        np.testing.assert_array_equal(drawn[:64, 68:], draw_overlay(image, large))

    def test_is_drawn_once_for_the_same_results(self, finished, copied: Path, folder: Path) -> None:
        before = {path.name: path.stat().st_mtime_ns for path in (copied / "figures").glob("*.png")}
        run_study(finished[0], copied)
        assert {path.name: path.stat().st_mtime_ns for path in (copied / "figures").glob("*.png")} == before
        change(folder, 'images = ["b", "a"]', 'images = ["a"]')
        study = read_study(folder, "small")
        run_study(study, copied, seeds=0)
        assert "## Discs found\n\nnot run\n" in write_page(study, copied, {})
        run_study(study, copied)
        (new,) = {path.name for path in (copied / "figures").glob("*.png")} - before.keys()
        assert shown(write_page(study, copied, {}), "Discs found")[0] == f"figures/{new}"
        assert np.asarray(Image.open(copied / "figures" / new)).shape == (64, 200, 3)

    def test_what_goes_wrong_is_reported_beside_the_rows(self, finished, knowing: Path, monkeypatch) -> None:
        def refuse(*_: object) -> None:
            raise NuxelError("b.png: not a readable image")

        monkeypatch.setattr(study_module, "_panels", refuse)
        assert run_study(finished[0], knowing) == {"pictures": "b.png: not a readable image"}
        assert not list((knowing / "figures").glob("*.png"))

    def test_rows_whose_model_is_gone_are_left_out(self, finished, copied: Path) -> None:
        for path in (copied / "models").glob("first-*"):
            path.unlink()
        run_study(finished[0], copied)
        _, caption = shown(write_page(finished[0], copied, {}), "Discs found")
        assert caption == "From left to right: the true outlines; ELU. From top to bottom: b, a."

    def test_panels_of_different_sizes(self) -> None:
        rng = np.random.default_rng(0)
        sizes = [(20, 30), (600, 10), (7, 700)]
        columns: list[list[NDArray[np.uint8]]] = [
            [rng.integers(0, 255, (*size, 3)).astype(np.uint8) for size in sizes] for _ in range(3)
        ]
        grid = side_by_side(columns)
        assert grid.shape == (20 + 4 + 512 + 4 + 7, 3 * 512 + 8, 3)
        covered = np.full(grid.shape, 128, np.uint8)
        for place, column in enumerate(columns):
            top = 0
            for panel in column:
                seen = panel[:512, :512]
                left = place * (seen.shape[1] + 4)
                covered[top : top + len(seen), left : left + seen.shape[1]] = seen
                top += len(seen) + 4
        np.testing.assert_array_equal(grid, covered)


BOXES = """
system = "attention_mask_rcnn"
[[data.train]]
folder = "{data}"
[[data.val]]
folder = "{data}"
include = ["a"]
[network]
backbone = "resnet18"
weights = "none"
width = 8
box_head = 8
mask_head = [4]
anchors = [8, 16, 32]
[sampling]
rpn_samples = 16
rois = 16
[detection]
proposals = 30
most = 10
box_min_score = 0.3
[decoder_rule]
min_score = 0.3
[schedule]
epochs = 1
steps_per_epoch = 1
batch = 1
crop = 64
validate_every = 1
average_decay = 0
workers = 0
"""

BOXES_STUDY = """
title = "Boxes"
tune = [{{ folder = "{data}", include = ["a"] }}]
test = [{{ folder = "{data}" }}]
budget = [{{ name = "small" }}]
row = [
    {{ name = "vanilla", label = "Vanilla", recipe = "boxes.toml", set = ["network.pyramid=vanilla"] }},
    {{ name = "proposed", label = "Proposed", recipe = "boxes.toml" }},
    {{ name = "best", label = "Best", of = "proposed", rule = ["overlap=best", "mask_nms=1"] }},
]
[[table]]
title = "Boxes"
rows = [{{ row = "vanilla" }}, {{ row = "proposed" }}, {{ row = "best" }}]
[[figure]]
title = "IoU"
score = "IoU_foreground"
rows = ["vanilla", "proposed"]
[[picture]]
title = "Attention"
images = ["a"]
rows = ["vanilla", "proposed"]
attention = 4
"""


def test_a_network_that_detects(data: Path, tmp_path: Path) -> None:
    """Rows of Mask R-CNN, one with another rule for overlaps, their IoU by epoch, and their attention."""
    folder, out = tmp_path / "boxes", tmp_path / "out"
    folder.mkdir()
    for name, text in (("boxes.toml", BOXES), ("study.toml", BOXES_STUDY)):
        (folder / name).write_text(text.format(data=data.as_posix()), encoding="utf-8")
    study = read_study(folder, "small")
    assert run_study(study, out) == {}
    found = results(out)
    tuned, changed = (DetectionRule(**found[f"{row} 0"]["decoder_rule"]) for row in ("proposed", "best"))
    assert changed == dataclasses.replace(tuned, overlap="best", mask_nms=1.0)
    assert "IoU_foreground" in found["vanilla 0"]["curve"][0]
    page = write_page(study, out, {})
    file, caption = shown(page, "Attention")
    assert caption == (
        "From left to right: the true outlines; Vanilla; Proposed; its attention at P4, from dark (0) to light (1). "
        "From top to bottom: a."
    )
    drawn = np.asarray(Image.open(out / file))
    assert drawn.shape == (64, 4 * 64 + 12, 3)
    image, _ = read_annotated(find_all(study.file.test)[0])
    model = Model(out / "models" / f"{study.job(study.row('proposed'), 0).name}.onnx")
    alpha = attention_of(ScaledImage(image, 1.0), lambda window: model.attend(window, 4), model.card)
    np.testing.assert_array_equal(drawn[:, -64:], draw_heat_map(image, alpha))


class TestFigures:
    def test_an_interval_of_a_difference(self) -> None:
        rng = np.random.default_rng(1)
        first = rng.uniform(0, 1, 100)
        mean, low, high = difference(first, first + rng.normal(0.1, 0.2, 100))
        assert low < mean < high
        assert high - low == pytest.approx(2 * 1.96 * 0.2 / 10, rel=0.2)

    def test_an_interval_of_a_ratio(self) -> None:
        rng = np.random.default_rng(1)
        whole = rng.uniform(0.4, 0.8, 100)
        share, low, high = ratio(whole * rng.normal(0.9, 0.1, 100), whole)
        assert low < share < high
        assert share == pytest.approx(0.9, abs=0.03)
        assert 0.02 < high - low < 0.06  # 2 * 1.96 * 0.1 / 10 = 0.04
        assert not np.isfinite(ratio(whole, np.zeros(100))[0])


class TestRefused:
    def test_what_is_no_study(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="not the folder of a study; there is no study"):
            read_study(tmp_path / "absent", "small")
        (tmp_path / "study.toml").write_text("title =", encoding="utf-8")
        with pytest.raises(UsageError, match="not a readable TOML file"):
            read_study(tmp_path, "small")

    def test_an_unknown_budget(self, folder: Path) -> None:
        with pytest.raises(UsageError, match="unknown name 'smal'; did you mean small"):
            read_study(folder, "smal")

    def test_an_unknown_row(self, finished, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="--only: unknown name 'frist'; did you mean first"):
            run_study(finished[0], tmp_path / "out", only=["frist"])
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("old", "new", "words"),
        [
            ("tta = true", "ttta = true", "unknown key 'ttta'; did you mean tta?"),
            ('of = "first", tta', "tta", "row turned must have either a recipe, to train, or of"),
            ('of = "first", tta', 'of = "whole", tta', "of in row turned: unknown name 'whole'"),
            ('of = "first", tta', 'recipe = "tiny.toml", tta', "row turned trains; split, rule, tta and"),
            ("tta = true", 'set = ["seed=3"]', "set is for rows that train"),
            ('split = "none"', 'split = "axe"', "split of row whole must be one of watershed"),
            (
                "tta = true",
                "tune = true",
                "row turned has neither a split, a rule nor images of its own to tune",
            ),
            ('name = "turned"', 'name = "a/b"', "name 'a/b' of a row is to be in names of files"),
            ('name = "turned"', 'name = "a[1]"', "name 'a.1.' of a row is to be in names of files"),
            ('name = "turned"', 'name = ""', "name '' of a row is to be in names of files"),
            ('name = "turned"', 'name = "../out"', "name '../out' of a row is to be in names of files"),
            ('score = "mAP"', 'score = "mAp"', "score of a milestone: unknown name 'mAp'; did you mean mAP?"),
            ('score = "mAP"', 'score = "loss"', "score of a milestone: unknown name 'loss'"),
            ("at = 0.0", "at = nan", "at of milestone mAP must be a number, got nan"),
            ("resize = 96", "resize = 0", "resize of row square must be at least 1, got 0"),
            ("tta = true", "rule = ['overlap=best']", "rule of row turned: unknown key 'overlap'; known: "),
            ("tta = true", "rule = ['treshold=1']", "rule of row turned: .*did you mean threshold?"),
            ("tta = true", "rule = ['threshold=2']", "rule of row turned: threshold is a probability"),
            (
                "tta = true",
                "rule = ['threshold=high']",
                "rule of row turned threshold must be a number, got 'high'",
            ),
            ("tta = true", "rule = ['threshold']", "rule of row turned must hold key=value, got 'threshold'"),
            ("tta = true", "seeds = 0", "seeds of row turned must be at least 1, got 0"),
            (
                "tta = true",
                "seeds = 2",
                "row turned has seeds = 2, more than row first, whose models it uses",
            ),
            (
                '{ name = "paper" }',
                '{ name = "paper", recipe = [{ recipe = "tin.toml" }] }',
                "recipe in budget paper: unknown name 'tin.toml'; did you mean tiny.toml?",
            ),
            ('kind = "bars"', 'kind = "bar"', "kind must be one of curves, bars, got 'bar'"),
            (
                'kind = "bars"',
                'score = "IoU"',
                "the score of curves must be one of mAP, AP50, AJI",
            ),
            (
                'kind = "bars"',
                'kind = "bars"\nscore = "loss"',
                "the score of bars must be one of mAP, AP50, IoU,",
            ),
            ('kind = "bars"', "", "figure 'Scores': unknown name 'turned'; "),
            (
                'rows = ["first", "second"]',
                'rows = ["frist"]',
                "figure 'Figure 1: mAP': .*did you mean first?",
            ),
            (
                'rows = ["second", "square"]',
                'rows = ["third"]',
                "picture 'Discs found': unknown name 'third'",
            ),
            ('rows = ["second", "square"]', "rows = []", "picture 'Discs found' has no rows"),
            ('images = ["b", "a"]', "images = []", "picture 'Discs found' has no images"),
            ('images = ["b", "a"]', 'images = ["a"]\nattention = 4', "no row of it has attention at level 4"),
            ('images = "one"', 'images = "on"', "images of row apart: unknown name 'on'; did you mean one?"),
            (
                '["first", "second"]]',
                '["first", "apart"]]',
                "table 'Activation' compares rows of different images",
            ),
            ('by = "AJI"', 'by = "AIJ"', "by of table 'Decoder': unknown name 'AIJ'; did you mean AJI?"),
            ('["AJI", "recall"]', '["recal"]', "scores of table 'Decoder': .*did you mean recall?"),
            ('title = "Discs found"', 'title = "scores?"', "there are two of figure or picture scores"),
            ('name = "second"', 'name = "first"', "there are two of row first"),
            ('name = "paper"', 'name = "small"', "there are two of budget small"),
            (
                'row = "second"',
                'row = "secnd"',
                "table 'Activation': unknown name 'secnd'; did you mean second?",
            ),
            ('["first", "second"]]', '["first"]]', "must be a list of 2"),
            ("tiny.toml", "absent.toml", "row first: .*absent.toml: no such recipe"),
            ("network.activation=elu", "network.activation=swish", "row second: .*activation must be one of"),
            ("schedule.steps_per_epoch=2", "schedule.devices=2", "a study trains on one device"),
            ('title = "Discs"', "", "title is missing"),
        ],
    )
    def test_a_wrong_study(self, folder: Path, old: str, new: str, words: str) -> None:
        change(folder, old, new)
        with pytest.raises(UsageError, match=words) as refused:
            read_study(folder, "small")
        assert str(folder / "study.toml") in str(refused.value)
        assert "\n" not in str(refused.value)

    @pytest.mark.parametrize(
        ("which", "whose"), [(0, "tune of the study"), (1, "test of the study"), (2, "tune of images one")]
    )
    def test_no_images(self, folder: Path, which: int, whose: str) -> None:
        path = folder / "study.toml"
        lines = path.read_text(encoding="utf-8").splitlines()
        place = [n for n, line in enumerate(lines) if line.startswith(("tune = [", "test = ["))][which]
        lines[place] = lines[place].split("=")[0] + "= []"
        path.write_text("\n".join(lines), encoding="utf-8")
        with pytest.raises(UsageError, match=f"{whose} names no images"):
            read_study(folder, "small")

    def test_a_page_of_something_else(self, finished, tmp_path: Path) -> None:
        (tmp_path / "study.md").write_text("mine", encoding="utf-8")
        with pytest.raises(UsageError, match=r"study\.md: exists already, and is not of a study"):
            run_study(finished[0], tmp_path, seeds=0)
        assert [path.name for path in tmp_path.iterdir()] == ["study.md"]

    def test_images_that_are_not_there(self, folder: Path, tmp_path: Path) -> None:
        study = read_study(folder, "small", data="/absent")
        with pytest.raises(UsageError, match="/absent: no such folder of annotated images"):
            run_study(study, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        page_only = tmp_path / "page"
        assert run_study(study, page_only, seeds=0) == {}

    def test_an_image_of_a_picture_that_is_not_there(self, folder: Path, tmp_path: Path) -> None:
        change(folder, 'images = ["b", "a"]', 'images = ["b", "c"]')
        with pytest.raises(UsageError, match="picture 'Discs found': c is none of the images"):
            run_study(read_study(folder, "small"), tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_a_folder_that_cannot_be_made(self, finished, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("", encoding="utf-8")
        with pytest.raises(UsageError, match="the study's folder cannot be made"):
            run_study(finished[0], tmp_path / "file" / "out")


def test_the_documented_study_can_be_read(data: Path, tmp_path: Path) -> None:
    page = (RECIPES.parent / "docs" / "study.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "study.toml").write_text(example, encoding="utf-8")
    recipe = RECIPE.format(data=data.as_posix()).replace("[schedule]\nepochs = 4", "[schedule]")
    (tmp_path / "my.toml").write_text(recipe, encoding="utf-8")
    study = read_study(tmp_path, "small")
    assert study.recipes["elu"].schedule.epochs == 5
    assert study.label(study.row("elu")) == "ELU (from scratch)"
    assert [
        kind for kind in ("row", "table", "figure", "picture", "milestone") if not getattr(study.file, kind)
    ] == []


def test_another_folder_of_images_is_used_everywhere(folder: Path) -> None:
    study = read_study(folder, "small", data="elsewhere")
    assert {study.file.tune[0].folder, study.file.test[0].folder} == {"elsewhere"}
    assert study.file.tune[0].include == ("a",)
    for recipe in study.recipes.values():
        assert {source.folder for source in (*recipe.data.train, *recipe.data.val)} == {"elsewhere"}
    jobs = [one.job(one.row("first"), 0) for one in (study, read_study(folder, "small", data="elsewhere/"))]
    assert jobs[0].name == jobs[1].name


@pytest.mark.parametrize("name", ["us_net", "partially_labeled", "multihead_unet"])
def test_another_folder_of_images_serves_every_study(name: str) -> None:
    """Also where ``[data]`` holds more than lists of images."""
    study = read_study(RECIPES / name, "small", data="elsewhere")
    for recipe in study.recipes.values():
        assert {source.folder for source in (*recipe.data.train, *recipe.data.val)} == {"elsewhere"}


@pytest.mark.parametrize("budget", ["small", "paper"])
@pytest.mark.parametrize("name", ["multihead_unet", "attention_mask_rcnn", "fcn8s_and_mask_rcnn"])
class TestEveryPaper:
    """The studies in ``recipes``, without training anything."""

    @pytest.fixture
    def study(self, name: str, budget: str) -> Study:
        return read_study(RECIPES / name, budget)

    def test_every_row_is_a_recipe_whose_decoder_has_its_maps(self, study: Study) -> None:
        for row in study.file.row:
            system = study.recipe(row).system
            rule = dataclasses.replace(system.decoder_rule, **row.changes)
            assert set(rule.maps) <= set(system.maps), row.name

    def test_no_two_rows_are_the_same(self, study: Study) -> None:
        jobs = [study.job(row, 0) for row in study.file.row]
        assert len({job.hash for job in jobs}) == len(jobs)

    def test_every_row_is_in_a_table(self, study: Study) -> None:
        assert {entry.row for table in study.file.table for entry in table.rows} == {
            row.name for row in study.file.row
        }

    def test_trains_tunes_and_scores_on_separate_images(self, study: Study) -> None:
        assert (study.file.tune[0].where, study.file.test[0].where) == ({"split": "val"}, {"split": "test"})
        for recipe in study.recipes.values():
            assert [source.where for source in recipe.data.train] == [{"split": "train"}]
            assert [source.where for source in recipe.data.val] == [{"split": "val"}]

    def test_no_row_is_spared_a_step(self, study: Study, budget: str) -> None:
        schedules = {name: recipe.schedule for name, recipe in study.recipes.items()}
        per_recipe: dict[str, set[tuple[int, ...]]] = {}
        for row, s in schedules.items():
            effort = (s.total_epochs * s.steps_per_epoch, s.batch, s.crop, s.validate_every)
            per_recipe.setdefault(study.recipes[row].system.name, set()).add(effort)
        assert all(len(efforts) == 1 for efforts in per_recipe.values())
        if budget == "small":
            assert all(steps <= 960 for ((steps, *_),) in per_recipe.values())


class TestThePaper:
    def test_multihead_unet(self) -> None:
        study = read_study(PAPER, "small")
        assert len(study.recipes) > 20
        assert {recipe.schedule.total_epochs for recipe in study.recipes.values()} == {20}
        figures = {t.title[:7]: [entry.paper for entry in t.rows if entry.paper] for t in study.file.table}
        assert figures["Table 1"] == [0.358, 0.320, 0.361]
        assert figures["Table 2"] == [0.273, 0.322, 0.420]

    def test_attention_mask_rcnn(self) -> None:
        study = read_study(RECIPES / "attention_mask_rcnn", "paper")
        table = study.file.table[0]
        assert {entry.row: entry.paper for entry in table.rows} == {
            "vanilla": 0.625, "no_gamma": 0.636, "pixel": 0.639, "concat": 0.637, "proposed": 0.641, "non_local": None,
        }  # fmt: skip
        assert {row: recipe.system.network.pyramid for row, recipe in study.recipes.items()} == {
            entry.row: entry.row for entry in table.rows
        }
        assert {row.name: row.seeds for row in study.file.row if row.seeds >= 3}.keys() >= {
            "vanilla",
            "proposed",
        }
        system, schedule = study.recipes["proposed"].system, study.recipes["proposed"].schedule
        assert (schedule.total_epochs, schedule.batch, schedule.crop) == (50, 2, 512)
        assert (schedule.optimiser, schedule.weight_decay) == ("sgd", 1e-4)
        assert (system.sampling.rois, system.sampling.roi_positive_share) == (600, 0.33)

    def test_fcn8s_and_mask_rcnn(self) -> None:
        study = read_study(RECIPES / "fcn8s_and_mask_rcnn", "paper")
        papers = {row.name: study.paper(row) for row in study.file.row if study.paper(row)}
        assert papers == {"fcn8s": 0.229, "mask_rcnn": 0.401}
        system, schedule = study.recipes["mask_rcnn"].system, study.recipes["mask_rcnn"].schedule
        assert [(stage.epochs, stage.freeze) for stage in schedule.stages] == [
            (100, ("stem", "encoder")), (50, ("stem",)),
        ]  # fmt: skip
        assert (schedule.steps_per_epoch, schedule.optimiser, schedule.decoder_rate) == (100, "sgd", 1e-3)
        sampling, detection = system.sampling, system.detection
        assert (sampling.rpn_samples, sampling.rois, detection.rpn_nms) == (256, 200, 0.7)
        assert (sampling.rpn_positive_iou, sampling.rpn_negative_iou) == (0.7, 0.3)
        rule = study.row("mask_rcnn_thresholds").changes
        assert rule == {"min_score": 0.7, "mask_nms": 0.3, "overlap": "biggest"}
        anchors = study.recipes["paper_anchors"].system.network
        assert (anchors.anchors, anchors.ratios) == ((32, 64, 128, 256, 512), (0.5, 1, 2))
        fcn = study.recipes["fcn8s"]
        assert (fcn.system.network.dropout, fcn.schedule.optimiser, fcn.schedule.decoder_rate) == (
            0.5,
            "adam",
            1e-5,
        )
        varied = {
            row: (
                recipe.system.sampling.rpn_samples,
                recipe.system.sampling.rois,
                recipe.system.detection.rpn_nms,
            )
            for row, recipe in study.recipes.items()
            if row.startswith(("samples", "rois"))
        }
        assert varied == {
            "samples_128": (128, 200, 0.7), "samples_512": (512, 200, 0.7), "rois_350": (256, 350, 0.7),
            "rois_350_nms_0.5": (256, 350, 0.5), "rois_350_nms_0.3": (256, 350, 0.3),
        }  # fmt: skip

    @pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data/dsb2018")
    @pytest.mark.parametrize("name", ["attention_mask_rcnn", "fcn8s_and_mask_rcnn"])
    def test_pictures_are_of_images_that_are_there(self, name: str) -> None:
        study = read_study(RECIPES / name, "small", data=str(DATA))
        images = study_module._images(study)
        for picture in study.file.picture:
            assert len(study_module._pictured(picture, images)) == len(picture.images)
