import tomllib
from pathlib import Path

import pytest

from nuxel.errors import UsageError
from nuxel.training.recipe import make_recipe, read_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
MINIMAL = {"system": "multihead_unet"}


@pytest.mark.parametrize("path", sorted(RECIPES.rglob("*.toml")), ids=lambda path: path.stem)
def test_shipped_recipes_are_right(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.data.train
    assert recipe.about.title
    assert recipe.about.training_data
    assert recipe.raw == tomllib.loads(path.read_text(encoding="utf-8"))


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
    ({}, "system must be one of multihead_unet, got None"),
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
    ({**MINIMAL, "seed": -1}, "seed must be a whole number >= 0, got -1"),
    ({**MINIMAL, "seed": True}, "seed must be a whole number"),
    ({**MINIMAL, "schedule": {"epochs": 0}}, r"\[schedule\]: epochs must be at least 1, got 0"),
    ({**MINIMAL, "schedule": {"workers": -1}}, "workers must not be negative, got -1"),
    ({**MINIMAL, "schedule": {"decoder_rate": float("nan")}}, "decoder_rate must not be negative, got nan"),
    ({**MINIMAL, "schedule": {"average_decay": 1.5}}, "average_decay must lie between 0 and 1"),
    ({**MINIMAL, "schedule": {"precision": "half"}}, "precision must be one of 32-true"),
    ({**MINIMAL, "schedule": {"crop": 100}}, "crop must be a multiple of the network's stride 16"),
    ({**MINIMAL, "schedule": {"crop": 16}}, "at least 32, got 16"),
    ({**MINIMAL, "schedule": {"balance": float("inf")}}, "balance must be finite"),
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
