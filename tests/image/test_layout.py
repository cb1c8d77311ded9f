"""Files and folders by names in any case."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nuxel.image.layout import IMAGES, LABELS, Listings

ENDS = (".tif", ".ome.tif", "_labels.tif")


def test_the_name_as_it_is_and_the_end_in_any_case(tmp_path: Path) -> None:
    for name in ("a.TIF", "A.tif", "b.Ome.Tif", "c_LABELS.tif"):
        (tmp_path / name).touch()
    found = {name: Listings().file(tmp_path, name, ENDS) for name in "aAbBcd"}
    expected = {"a": "a.TIF", "A": "A.tif", "b": "b.Ome.Tif", "c": "c_LABELS.tif"}
    assert {name: path.name for name, path in found.items() if path} == expected


def test_of_two_the_one_that_is_written_so(tmp_path: Path) -> None:
    for name in ("a.TIF", "a.tif"):
        (tmp_path / name).touch()
    for name in ("Images", "images", "LABELS"):
        (tmp_path / name).mkdir()
    listings = Listings()
    assert listings.file(tmp_path, "a", ENDS) == tmp_path / "a.tif"
    assert listings.folder(tmp_path, IMAGES) == tmp_path / "images"
    assert listings.folder(tmp_path, LABELS) == tmp_path / "LABELS"
    assert listings.folder(tmp_path / "nowhere", LABELS) is None


def test_a_folder_that_may_be_looked_into_but_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the folders above one's own often are on a cluster."""

    def refuse(_: object) -> list[str]:
        raise PermissionError

    (tmp_path / "images").mkdir()
    (tmp_path / "a.tif").touch()
    monkeypatch.setattr(os, "listdir", refuse)
    assert Listings().folder(tmp_path, IMAGES) == tmp_path / "images"
    assert Listings().folder(tmp_path, LABELS) is None
    assert Listings().file(tmp_path, "a", ENDS) == tmp_path / "a.tif"


def test_each_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[object] = []
    real = os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: listed.append(folder) or real(folder))
    listings = Listings()
    for number in range(5):
        assert listings.file(tmp_path, str(number), ENDS) is None
        assert listings.folder(tmp_path, IMAGES) is None
    assert listed == [tmp_path]
