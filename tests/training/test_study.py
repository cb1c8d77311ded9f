"""A study of tiny networks: what a row leaves behind, what is run again and what is not, and the tables."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from nuxel.data.dataset import find_annotated, read_annotated
from nuxel.errors import NuxelError, UsageError
from nuxel.labels.relabel import relabel
from nuxel.metrics.average_precision import average_precision
from nuxel.predict.model import Model
from nuxel.predict.pipeline import Options, segment_normalised
from nuxel.training import study as study_module
from nuxel.training.epoch_log import read_rows
from nuxel.training.module import TrainingModule
from nuxel.training.study import loss_fall, read_curve, run_study, training_seconds
from nuxel.training.study_file import Study, read_study
from nuxel.training.study_page import difference, read_results, write_page

PAPER = Path(__file__).parents[2] / "recipes" / "multihead_unet"

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
tune = {{ folder = "{data}", include = ["a"] }}
test = {{ folder = "{data}" }}
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
]
milestone = [{{ score = "mAP", at = 0.0 }}, {{ score = "IoU_nucleus", at = 1.5 }}]
[[table]]
title = "Activation"
note = "Of discs."
curves = true
rows = [{{ row = "first", paper = 0.25 }}, {{ row = "second" }}]
compare = [["first", "second"]]
[[table]]
title = "Decoder"
rows = [{{ row = "first" }}, {{ row = "whole" }}]
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
            "first 0", "second 0", "turned 0", "whole 0", "walked 0", "square 0",
        }  # fmt: skip
        assert [sentence.split(":")[0] for sentence in said] == [
            f"{row} (seed 0)" for row in ("first", "second", "turned", "whole", "walked", "square")
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
            ("whole", Options(), "none"), ("walked", Options(), "random_walker"),
        ],
    )  # fmt: skip
    def test_scores_are_those_of_the_model_file(
        self, finished, row: str, options: Options, split: str
    ) -> None:
        study, out, _ = finished
        result = results(out)[f"{row} 0"]
        model = Model(out / "models" / f"{study.job(study.row('first'), 0).name}.onnx")
        assert result["decoder_rule"]["split"] == split
        if row != "whole":
            assert {**model.card.decoder_rule, "split": split} == result["decoder_rule"]
        assert (row == "walked") == (result["tuned"] == {})
        model.card = dataclasses.replace(model.card, decoder_rule=result["decoder_rule"])
        for item, measured in zip(find_annotated(study.file.test), result["images"], strict=True):
            image, truth = read_annotated(item)
            found = segment_normalised(image, model, options).nuclei.labels
            assert measured["image"] == item.image.name
            assert measured["mAP"] == pytest.approx(average_precision(truth, found))
            assert measured["AP50"] == pytest.approx(average_precision(truth, found, [0.5]))
        assert result["mAP"] == pytest.approx(np.mean([image["mAP"] for image in result["images"]]))

    def test_a_resized_image_is_compared_at_its_own_size(self, finished, monkeypatch) -> None:
        """A network's answer that is perfect at 96 x 96 is nearly so at 64 x 64."""
        study, _, _ = finished
        seen: list[tuple[int, ...]] = []

        def know(image: np.ndarray, *_: object) -> object:
            seen.append(image.shape)
            labels = relabel((image[..., 0] > 128).astype(np.int32))
            return type("Found", (), {"nuclei": type("Nuclei", (), {"labels": labels})})

        monkeypatch.setattr(study_module, "segment_normalised", know)
        item = find_annotated(study.file.test)[0]
        image, truth = read_annotated(item)
        found = study_module._labels(image, None, study.row("square"))
        assert seen == [(96, 96, 3)]
        assert ((found > 0) == (truth > 0)).mean() > 0.97

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
        assert row_of(write_page(study, copied, {}), "ELU")[6] == "2"

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
        assert set(failed) == {f"{row} (seed 0)" for row in ("first", "turned", "whole", "walked", "square")}
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


class TestChosen:
    def test_a_row_brings_the_row_whose_model_it_uses(self, finished) -> None:
        study = finished[0]
        assert [row.name for row in study.chosen(["whole", "second"])] == ["first", "second", "whole"]
        assert len(study.chosen([])) == 6

    def test_seeds_are_added_row_by_row(self, finished, tmp_path: Path, monkeypatch) -> None:
        ran = []

        def instead(_: Study, job: study_module.Job, __: Path) -> dict:
            ran.append((job.row.name, job.seed, job.recipe.seed))
            score = 0.25 * job.seed
            images = [{"image": "a", "mAP": score, "AP50": 0.5}]
            return {
                "row": job.row.name, "seed": job.seed, "mAP": score, "AP50": 0.5, "images": images, "steps": 8,
                "seconds": {"training": 60.0 * job.seed}, "plateau": job.seed > 0, "loss_fall": 0.5, "curve": [],
            }  # fmt: skip

        monkeypatch.setattr(study_module, "_run", instead)
        study = finished[0]
        run_study(study, tmp_path, seeds=2, only=["first", "second"])
        assert ran == [("first", 0, 0), ("second", 0, 0), ("first", 1, 1), ("second", 1, 1)]
        run_study(study, tmp_path, seeds=3, only=["first"])
        assert ran[4:] == [("first", 2, 2)]
        page = write_page(study, tmp_path, {})
        assert row_of(page, "ReLU") == [
            "ReLU", "0.250", "0.250", "0.250", "3", "0.500", "8", "1.0", "no (+50.0%)",
        ]  # fmt: skip
        assert row_of(page, "ELU")[2:5] == ["0.125", f"{0.25 / 2**0.5:.3f}", "2"]
        assert "mAP -0.125, 95 % interval over 1 images -0.125 to -0.125 (means of 3 and 2 seeds)" in page
        assert "the order is reversed" in page
        assert row_of(page, "ReLU, whole clumps")[2] == "not run"


class TestPage:
    def test_shows_the_paper_s_figures_beside_ours(self, finished) -> None:
        study, out, _ = finished
        page = (out / "study.md").read_text(encoding="utf-8")
        first = results(out)["first 0"]
        assert page.startswith("# Discs\n\nBudget `small`. Two steps.\n\n## Activation\n\nOf discs.\n\n|")
        cells = row_of(page, "ReLU")
        assert cells[1:7] == ["0.250", f"{first['mAP']:.3f}", "", "1", f"{first['AP50']:.3f}", "8"]
        assert cells[8] == f"{'yes' if first['plateau'] else 'no'} ({first['loss_fall']:+.1%})"
        assert row_of(page, "ReLU, whole clumps")[6] == ""
        assert page == write_page(study, out, {})

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


class TestFigures:
    def test_a_fall_of_the_loss(self) -> None:
        assert loss_fall([]) is None
        assert loss_fall([1.0]) is None
        assert loss_fall([1.0, 0.75]) == 0.25
        assert loss_fall([9.0] * 12 + [2.0] * 4 + [1.0, 2.0, 1.0, 2.0]) == 0.25
        assert loss_fall([1.0, 1.5]) == -0.5

    def test_an_interval_of_a_difference(self) -> None:
        rng = np.random.default_rng(1)
        first = rng.uniform(0, 1, 100)
        mean, low, high = difference(first, first + rng.normal(0.1, 0.2, 100))
        assert low < mean < high
        assert high - low == pytest.approx(2 * 1.96 * 0.2 / 10, rel=0.2)

    def test_seconds_between_sessions_do_not_count(self, tmp_path: Path, monkeypatch) -> None:
        """The second session opens its file at 1000 s, and goes on from step 4, at which the first was after 40 s."""
        now = [0.0]
        monkeypatch.setattr(time, "time", lambda: now[0])
        for begin, steps in ((100.0, [2, 4, 6]), (1000.0, [6, 8])):
            now[0] = begin
            writer = SummaryWriter(tmp_path, purge_step=steps[0] - 1)
            for number, step in enumerate(steps, 1):
                now[0] = begin + 20 * number
                writer.add_scalar("loss", 1.0, step)
            writer.close()
        assert training_seconds(tmp_path) == {2: 20, 4: 40, 6: 60, 8: 80}

    def test_an_empty_event_file_is_no_session(self, tmp_path: Path) -> None:
        (tmp_path / "events.out.tfevents.1").write_bytes(b"")
        assert training_seconds(tmp_path) == {}

    def test_a_run_without_rows_has_no_curve(self, tmp_path: Path) -> None:
        assert read_curve(tmp_path) == []


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
            ('of = "first", tta', 'recipe = "tiny.toml", tta', "row turned trains; split, tta and resize"),
            ("tta = true", 'set = ["seed=3"]', "set is for rows that train"),
            ('split = "none"', 'split = "axe"', "split of row whole must be one of watershed"),
            ("tta = true", "tune = true", "row turned has no split of its own to tune"),
            ("resize = 96", "resize = 0", "resize of row square must be at least 1, got 0"),
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

    def test_images_that_are_not_there(self, folder: Path, tmp_path: Path) -> None:
        study = read_study(folder, "small", data="/absent")
        with pytest.raises(UsageError, match="/absent: no such folder of annotated images"):
            run_study(study, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        page_only = tmp_path / "page"
        assert run_study(study, page_only, seeds=0) == {}

    def test_a_folder_that_cannot_be_made(self, finished, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("", encoding="utf-8")
        with pytest.raises(UsageError, match="the study's folder cannot be made"):
            run_study(finished[0], tmp_path / "file" / "out")


def test_another_folder_of_images_is_used_everywhere(folder: Path) -> None:
    study = read_study(folder, "small", data="elsewhere")
    assert {study.file.tune.folder, study.file.test.folder} == {"elsewhere"}
    assert study.file.tune.include == ("a",)
    for recipe in study.recipes.values():
        assert {source.folder for source in (*recipe.data.train, *recipe.data.val)} == {"elsewhere"}


@pytest.mark.parametrize("budget", ["small", "paper"])
class TestThePaper:
    """``recipes/multihead_unet``, without training anything."""

    @pytest.fixture
    def study(self, budget: str) -> Study:
        return read_study(PAPER, budget)

    def test_every_row_is_a_recipe_whose_decoder_has_its_maps(self, study: Study) -> None:
        assert len(study.recipes) > 20
        for row in study.file.row:
            system = study.recipes[row.of or row.name].system
            rule = dataclasses.replace(system.decoder_rule, split=row.split or system.decoder_rule.split)
            assert set(rule.maps) <= set(system.maps), row.name

    def test_every_row_has_the_same_steps_of_the_same_size(self, study: Study) -> None:
        schedules = [recipe.schedule for recipe in study.recipes.values()]
        assert {schedule.total_epochs for schedule in schedules} == {20}
        assert len({(s.steps_per_epoch, s.batch, s.crop, s.validate_every) for s in schedules}) == 1

    def test_no_two_rows_are_the_same(self, study: Study) -> None:
        jobs = [study.job(row, 0) for row in study.file.row]
        assert len({job.hash for job in jobs}) == len(jobs)

    def test_every_row_is_in_a_table(self, study: Study) -> None:
        assert {entry.row for table in study.file.table for entry in table.rows} == {
            row.name for row in study.file.row
        }

    def test_trains_tunes_and_scores_on_separate_images(self, study: Study) -> None:
        assert (study.file.tune.where, study.file.test.where) == ({"split": "val"}, {"split": "test"})
        for recipe in study.recipes.values():
            assert [source.where for source in recipe.data.train] == [{"split": "train"}]
            assert [source.where for source in recipe.data.val] == [{"split": "val"}]

    def test_has_the_paper_s_figures(self, study: Study) -> None:
        figures = {t.title[:7]: [entry.paper for entry in t.rows if entry.paper] for t in study.file.table}
        assert figures["Table 1"] == [0.358, 0.320, 0.361]
        assert figures["Table 2"] == [0.273, 0.322, 0.420]
