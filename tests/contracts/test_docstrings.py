"""Examples in docstrings run, and give what they say."""

from __future__ import annotations

import doctest
import pkgutil
from importlib import import_module

import numpy as np
import pytest

import nuxel

MODULES = [
    found.name
    for found in pkgutil.walk_packages(nuxel.__path__, "nuxel.")
    if not found.name.endswith("__main__")
]
TRAINING = ("nuxel.nn", "nuxel.losses", "nuxel.systems", "nuxel.training")


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    if name.startswith(TRAINING):
        pytest.importorskip("torch", reason="the training half is not installed")
    module = import_module(name)
    failed, _ = doctest.testmod(module, extraglobs={"np": np}, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


def test_there_are_some() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [
        test for name in ("nuxel.instances", "nuxel.tiling.grid") for test in finder.find(import_module(name))
    ]
    assert sum(bool(test.examples) for test in found) > 3
