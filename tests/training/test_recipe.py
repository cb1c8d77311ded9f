import math
import shlex
import tomllib
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import pytest

from nuxel.errors import UsageError
from nuxel.predict.model import DEFAULT_MODEL, Model, model_path
from nuxel.training.recipe import make_recipe, read_recipe
from nuxel.training.schedule import Schedule, Stage

RECIPES = Path(__file__).parents[2] / "recipes"
MINIMAL = {"system": "multihead_unet"}
SHIPPED = sorted(path for path in RECIPES.rglob("*.toml") if path.name != "study.toml")


@pytest.mark.parametrize("system", ["fcn8s", "us_net", "attention_mask_rcnn", "partial_mask_rcnn"])
def test_views_of_networks_that_know_no_sizes_are_about_as_large_as_their_images(system: str) -> None:
    """In prediction images keep their own scale, and so they must in training."""
    assert make_recipe({"system": system}).augmentation.zoom_range == (0.8, 1.25)
    assert make_recipe({"system": system, "augmentation": {"diameter": 30}}).augmentation.zoom_range is None
    wide = {"system": system, "augmentation": {"wide_p": 1.0}}
    assert make_recipe(wide).augmentation.zoom_range is None
    given = {"system": system, "augmentation": {"zoom_range": [1, 2], "blur_p": 0.5}}
    assert make_recipe(given).augmentation.zoom_range == (1, 2)
    assert make_recipe({"system": "multihead_unet"}).augmentation.zoom_range is None


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_are_right(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.data.train
    assert recipe.about.title
    assert recipe.about.training_data
    assert recipe.raw == tomllib.loads(path.read_text(encoding="utf-8"))


def test_recipes_in_the_documentation_are_right() -> None:
    text = (RECIPES.parent / "docs" / "training.md").read_text(encoding="utf-8")
    blocks = [part.partition("```")[0] for part in text.split("```toml\n")[1:]]
    recipes = [make_recipe(tomllib.loads(block)) for block in blocks]
    assert 20 in [recipe.schedule.total_epochs for recipe in recipes]


def test_commands_in_the_documentation_are_right() -> None:
    text = (RECIPES.parent / "docs" / "training.md").read_text(encoding="utf-8").replace("\\\n", " ")
    commands = [shlex.split(line) for line in text.splitlines() if line.startswith("nuxel train recipes/")]
    assert any("--set" in command for command in commands)
    epochs = []
    for command in commands:
        sets = [value for flag, value in pairwise(command) if flag == "--set"]
        recipe = read_recipe(RECIPES.parent / command[2], sets)
        if "schedule.epochs=10" in sets:
            epochs.append(recipe.schedule.total_epochs)
    assert epochs
    assert set(epochs) == {10}


def test_the_default_recipe_is_that_of_the_shipped_model() -> None:
    recipe, card = read_recipe(RECIPES / "default.toml"), Model(model_path(DEFAULT_MODEL), device="cpu").card
    assert (recipe.about.title, recipe.about.training_data) == (card.title, card.training_data)
    assert asdict(recipe.system.decoder_rule) == card.decoder_rule


def test_every_key_reaches_its_place(recipe_file: Path) -> None:
    recipe = read_recipe(recipe_file)
    assert recipe.seed == 3
    assert recipe.schedule.epochs == 4
    assert recipe.schedule.average_decay == 0.9
    assert recipe.system.network.widths == (8, 8, 8)
    assert recipe.system.network.weights == "none"
    assert recipe.data.val[0].include == ("a",)
    assert recipe.schedule.gradient_clip == 5.0


def test_left_out_tables_have_defaults() -> None:
    recipe = make_recipe(MINIMAL)
    assert recipe.schedule.batch == 8
    assert recipe.augmentation.diameter == 24
    assert recipe.data.train == ()


WRONG = [
    ({}, "system must be one of .*multihead_unet.*, got None"),
    ({"system": "multihead_u_net"}, "system must be one of"),
    ({"system": ["x"]}, "system must be one of"),
    ({**MINIMAL, "schedul": {}}, "unknown key 'schedul'; did you mean schedule?"),
    ({**MINIMAL, "zzz": 1}, "unknown key 'zzz'; known: about, augmentation"),
    ({**MINIMAL, "schedule": {"epoch": 3}}, r"\[schedule\]: unknown key 'epoch'; did you mean epochs?"),
    ({**MINIMAL, "network": {"encoders": "x"}}, "did you mean encoder?"),
    ({**MINIMAL, "schedule": {"epochs": "3"}}, r"\[schedule\] epochs must be a whole number, got '3'"),
    ({**MINIMAL, "schedule": {"epochs": 2.5}}, "epochs must be a whole number, got 2.5"),
    ({**MINIMAL, "schedule": {"epochs": True}}, "epochs must be a whole number, got True"),
    ({**MINIMAL, "schedule": []}, r"\[schedule\] must be a table"),
    ({**MINIMAL, "network": 3}, r"\[network\] must be a table"),
    ({**MINIMAL, "schedule": {"balance": "half"}}, "balance must be a number, got 'half'"),
    ({**MINIMAL, "network": {"widths": 3}}, "widths must be a list, got 3"),
    ({**MINIMAL, "network": {"widths": "96"}}, "widths must be a list, got '96'"),
    ({**MINIMAL, "network": {"widths": [96, "48", 3]}}, "widths must be a whole number, got '48'"),
    ({**MINIMAL, "network": {"widths": [96]}}, r"one positive width fewer than its depth, got depth 4"),
    ({**MINIMAL, "augmentation": {"wide_range": [7.0]}}, "wide_range must be a list of 2"),
    ({**MINIMAL, "augmentation": {"blur_p": 2}}, r"\[augmentation\]: blur_p is a probability"),
    ({**MINIMAL, "data": {"train": {}}}, "train must be a list"),
    ({**MINIMAL, "data": {"train": [{}]}}, "folder is missing"),
    ({**MINIMAL, "data": {"train": [{"folder": "x", "where": 3}]}}, "where must be a table"),
    ({**MINIMAL, "data": {"train": [{"folder": "x", "index": 3}]}}, "index must be text, got 3"),
    ({**MINIMAL, "seed": -1}, "seed must be a whole number from 0 to 4294967295, got -1"),
    ({**MINIMAL, "seed": True}, "seed must be a whole number"),
    ({**MINIMAL, "seed": 2**32}, "seed must be a whole number"),
    ({**MINIMAL, "network": {"heads": ["nucleus"]}}, "needs the map shrunk, which the network does not have"),
    (
        {"system": "attention_mask_rcnn", "loss": {"mask": -1.0}},
        "mask is a weight and must be finite and not negative, got -1",
    ),
    (
        {**MINIMAL, "loss": {"nucleus": -1.0}},
        "nucleus is a weight and must be finite and not negative, got -1.0",
    ),
    (
        {**MINIMAL, "loss": {"offset": float("nan")}},
        "offset is a weight and must be finite and not negative, got nan",
    ),
    ({**MINIMAL, "schedule": {"epochs": 0}}, r"\[schedule\]: epochs must be at least 1, got 0"),
    ({**MINIMAL, "schedule": {"workers": -1}}, "workers must not be negative, got -1"),
    ({**MINIMAL, "schedule": {"decoder_rate": float("nan")}}, "decoder_rate must not be negative, got nan"),
    ({**MINIMAL, "schedule": {"average_decay": 1.5}}, "average_decay must be at least 0 and below 1"),
    ({**MINIMAL, "schedule": {"precision": "half"}}, "precision must be one of 32-true"),
    ({**MINIMAL, "schedule": {"crop": 100}}, "crop must be a multiple of the network's stride 16"),
    ({**MINIMAL, "schedule": {"crop": 16}}, "at least 32, got 16"),
    ({**MINIMAL, "schedule": {"window": 100}}, "window must be a multiple of the network's stride 16"),
    ({**MINIMAL, "schedule": {"window": 0}}, "at least 32, got 0"),
    ({**MINIMAL, "schedule": {"balance": float("inf")}}, "balance must lie within -10 and 10"),
    ({**MINIMAL, "schedule": {"optimiser": "rms"}}, "optimiser must be one of adamw, adam, sgd, got 'rms'"),
    ({**MINIMAL, "schedule": {"policy": "steps"}}, "policy must be one of cosine, step, got 'steps'"),
    ({**MINIMAL, "schedule": {"factor": 0}}, "factor must lie above 0 and not above 1"),
    ({**MINIMAL, "schedule": {"factor": 1.5}}, "factor must lie above 0 and not above 1"),
    ({**MINIMAL, "schedule": {"every": 0}}, "every must be at least 1"),
    ({**MINIMAL, "schedule": {"stages": [{}]}}, r"\[schedule\] stages: epochs is missing"),
    ({**MINIMAL, "schedule": {"stages": [{"epochs": 0}]}}, "stages: epochs must be at least 1, got 0"),
    ({**MINIMAL, "schedule": {"stages": [{"epochs": 1, "frozen": []}]}}, "did you mean freeze?"),
    ({**MINIMAL, "schedule": {"stages": {"epochs": 1}}}, "stages must be a list"),
    ({**MINIMAL, "schedule": {"stages": [{"epochs": 1, "encoder_rate": -1}]}}, "rate must not be negative"),
    ({**MINIMAL, "schedule": {"stages": [{"epochs": 1, "encoder_rate": "1"}]}}, "rate must be a number"),
    (
        {**MINIMAL, "schedule": {"stages": [{"epochs": 1, "freeze": ["head"]}]}},
        "freeze must list some of enc",
    ),
    ({**MINIMAL, "schedule": {"stages": [{"epochs": 1, "freeze": ["encoder", "decoder"]}]}}, "list some of"),
    ({**MINIMAL, "schedule": {"stages": [{"epochs": 1}], "epochs": 3}}, "has stages, which have epochs"),
]


@pytest.mark.parametrize(("raw", "words"), WRONG)
def test_what_is_wrong_is_one_sentence(raw: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        make_recipe(raw, "my.toml")
    assert str(caught.value).startswith("my.toml: ")
    assert "\n" not in str(caught.value)


class TestFile:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"absent\.toml: no such recipe"):
            read_recipe(tmp_path / "absent.toml")

    @pytest.mark.parametrize("content", [b"system = ", b"\xff\xfe", b"system = 'a'\nsystem = 'b'"])
    def test_no_toml(self, content: bytes, tmp_path: Path) -> None:
        path = tmp_path / "broken.toml"
        path.write_bytes(content)
        with pytest.raises(UsageError, match="not a readable TOML recipe"):
            read_recipe(path)

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="not a readable TOML recipe"):
            read_recipe(tmp_path)


class TestSet:
    def test_values_are_toml_or_text(self, recipe_file: Path) -> None:
        changes = [
            "schedule.epochs=9",
            "network.widths=[4, 4, 4]",
            "about.title=my model",
            'about.licence="MIT"',
        ]
        recipe = read_recipe(recipe_file, [*changes, "seed = 8"])
        assert recipe.schedule.epochs == 9
        assert recipe.system.network.widths == (4, 4, 4)
        assert (recipe.about.title, recipe.about.licence, recipe.seed) == ("my model", "MIT", 8)
        assert recipe.raw["schedule"]["epochs"] == 9

    def test_a_table_that_the_recipe_left_out(self, recipe_file: Path) -> None:
        assert read_recipe(recipe_file, ["augmentation.blur_p=0"]).augmentation.blur_p == 0

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ("schedule.epochs", "expected table.key=value"),
            ("=3", "expected table.key=value"),
            ("schedule.epochs=many", "epochs must be a whole number, got 'many'"),
            ("schedule.epoch=3", "did you mean epochs"),
            ("seed.x=3", "seed is not a table"),
            ("data.train.folder=x", "train is not a table"),
        ],
    )
    def test_wrong_changes(self, recipe_file: Path, change: str, words: str) -> None:
        with pytest.raises(UsageError, match=words):
            read_recipe(recipe_file, [change])


def rates(schedule: Schedule, part: str) -> list[float]:
    """The learning rate at every step of a run."""
    steps = range(schedule.total_epochs * schedule.steps_per_epoch)
    return [schedule.greatest_rate(part) * schedule.relative_rate(part, step) for step in steps]


class TestSchedule:
    def test_without_stages_it_is_a_rise_and_half_a_cosine(self) -> None:
        schedule = Schedule(
            epochs=3, steps_per_epoch=10, encoder_rate=5e-4, decoder_rate=2e-3, warmup_steps=4
        )
        expected = [
            (step + 1) / 5 if step < 4 else 0.5 * (1 + math.cos(math.pi * ((step - 4) / 26)))
            for step in range(30)
        ]
        assert rates(schedule, "encoder") == [5e-4 * share for share in expected]
        assert rates(schedule, "decoder") == [2e-3 * share for share in expected]
        assert schedule.relative_rate("encoder", 30) == 0

    def test_the_papers_plain_unet(self) -> None:
        schedule = Schedule(
            epochs=20,
            steps_per_epoch=2,
            decoder_rate=1e-3,
            policy="step",
            factor=0.75,
            every=3,
            warmup_steps=0,
        )
        assert rates(schedule, "decoder") == pytest.approx(
            [1e-3 * 0.75 ** (epoch // 3) for epoch in range(20) for _ in range(2)]
        )

    def test_the_papers_two_stages(self) -> None:
        stages = (Stage(5, decoder_rate=1e-3, freeze=("encoder",)), Stage(15, 1e-4, 1e-4))
        schedule = Schedule(steps_per_epoch=2, stages=stages, policy="step", warmup_steps=0)
        assert schedule.total_epochs == 20
        late = [1e-4 * 0.75 ** (epoch // 3) for epoch in range(15) for _ in range(2)]
        assert rates(schedule, "decoder") == pytest.approx([1e-3] * 6 + [0.75e-3] * 4 + late)
        assert rates(schedule, "encoder")[10:] == pytest.approx(late)
        frozen = [schedule.stage_at(epoch)[0].freeze for epoch in range(20)]
        assert frozen == [("encoder",)] * 5 + [()] * 15

    def test_every_stage_rises_and_falls_anew(self) -> None:
        alone = Schedule(epochs=4, steps_per_epoch=5, decoder_rate=1.0, warmup_steps=3)
        twice = Schedule(steps_per_epoch=5, decoder_rate=1.0, warmup_steps=3, stages=(Stage(4), Stage(4)))
        assert rates(twice, "decoder") == rates(alone, "decoder") * 2

    def test_a_warm_up_precedes_steps_too(self) -> None:
        schedule = Schedule(
            epochs=2, steps_per_epoch=4, decoder_rate=1.0, warmup_steps=3, policy="step", every=1
        )
        assert rates(schedule, "decoder") == [0.25, 0.5, 0.75, 1, 0.75, 0.75, 0.75, 0.75]

    def test_a_rate_of_zero(self) -> None:
        schedule = Schedule(epochs=1, steps_per_epoch=2, encoder_rate=0.0, stages=(Stage(1), Stage(1, 0.5)))
        assert rates(schedule, "encoder")[:2] == [0, 0]
        assert rates(schedule, "encoder")[2] > 0
        assert set(rates(Schedule(epochs=1, encoder_rate=0.0), "encoder")) == {0.0}

    def test_stages_come_from_the_recipe(self) -> None:
        stages = [
            {"epochs": 5, "decoder_rate": 1e-3, "freeze": ["encoder"]},
            {"epochs": 15, "encoder_rate": 1},
        ]
        schedule = make_recipe({**MINIMAL, "schedule": {"stages": stages}}).schedule
        assert schedule.stages == (Stage(5, None, 1e-3, ("encoder",)), Stage(15, 1.0))
