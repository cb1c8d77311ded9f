"""The page on the family says what is so."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

from nuxel.systems.multihead_unet import LossConfig, NetworkConfig
from nuxel.training.recipe import make_recipe

PAGE = (Path(__file__).parents[2] / "docs" / "systems" / "multihead_unet.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("text", EXAMPLES)
def test_every_example_is_a_recipe(text: str) -> None:
    raw = tomllib.loads(text)
    recipe = make_recipe(raw)
    for table in ("network", "loss"):
        for key, value in raw.get(table, {}).items():
            found = getattr(getattr(recipe.system, table), key)
            assert found == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize("config", [NetworkConfig, LossConfig])
def test_every_key_is_in_a_table(config: type) -> None:
    rows = "\n".join(line.split("|")[1] for line in PAGE.splitlines() if line.startswith("|"))
    for key in dataclasses.fields(config):
        assert f"`{key.name}`" in rows, key.name
