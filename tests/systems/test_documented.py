"""The pages on the systems say what is so."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from nuxel.training.recipe import SYSTEMS, make_recipe

FOLDER = Path(__file__).parents[2] / "docs" / "systems"
PAGES = {name: (FOLDER / f"{name}.md").read_text(encoding="utf-8") for name in SYSTEMS}
EXAMPLES = [text for page in PAGES.values() for text in re.findall(r"```toml\n(.*?)```", page, re.DOTALL)]
TABLES = [(name, field.name) for name, system in SYSTEMS.items() for field in dataclasses.fields(system)]
ELSEWHERE = {("multihead_unet", "targets"), ("multihead_unet", "decoder_rule")}
"""What the family's page says in words, or training.md in a table of its own."""


@pytest.mark.parametrize("text", EXAMPLES)
def test_every_example_is_a_recipe(text: str) -> None:
    raw = tomllib.loads(text)
    recipe = make_recipe(raw)
    for table in ("network", "loss"):
        for key, value in raw.get(table, {}).items():
            found = getattr(getattr(recipe.system, table), key)
            assert found == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize(("name", "table"), [place for place in TABLES if place not in ELSEWHERE])
def test_every_key_and_its_default_is_in_a_table(name: str, table: str) -> None:
    lines = [line.split("|") for line in PAGES[name].splitlines() if line.startswith("|")]
    config: Any = getattr(SYSTEMS[name](), table)
    for key in dataclasses.fields(config):
        rows = [line for line in lines if f"`{key.name}`" in line[1]]
        assert rows, key.name
        default = getattr(config, key.name)
        if (
            name != "multihead_unet"
            and isinstance(default, int | float | str)
            and not isinstance(default, bool)
        ):
            shown = f"{default:g}" if isinstance(default, int | float) else default
            assert any(shown in line[2] for line in rows), (key.name, default)
