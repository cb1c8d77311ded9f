"""Names of image files."""

from __future__ import annotations

from pathlib import PurePath

import pytest

from nuxel.image.formats import LATER, READABLE, is_image_folder, is_image_name, stem


@pytest.mark.parametrize(
    ("name", "bare"),
    [
        ("a.png", "a"),
        ("a.TIFF", "a"),
        ("a.b.c.jpg", "a.b.c"),
        ("stack.ome.tif", "stack"),
        ("stack.OME.TIFF", "stack"),
        ("plate.ome.zarr", "plate"),
        (".ome.tif", ".ome"),
        ("scan.001", "scan.001"),
        ("README", "README"),
        ("folder/a.png", "a"),
    ],
)
def test_stem_takes_off_what_marks_an_image(name: str, bare: str) -> None:
    assert stem(PurePath(name)) == bare


def test_every_extension_is_lower_case_and_known_in_any_case() -> None:
    for extension in [*READABLE, *LATER]:
        assert extension == extension.lower()
        assert is_image_name(PurePath(f"a{extension}"))
        assert is_image_name(PurePath(f"a{extension.upper()}"))


@pytest.mark.parametrize("name", ["a", "png", ".png", "a.csv", "a.png.txt", "Thumbs.db", "a.xml"])
def test_other_names_are_no_images(name: str) -> None:
    assert not is_image_name(PurePath(name))


def test_no_format_is_both_readable_and_not() -> None:
    assert not set(READABLE) & set(LATER)


def test_only_zarr_is_a_folder() -> None:
    assert is_image_folder(PurePath("a.Zarr"))
    assert not is_image_folder(PurePath("a.png"))


def test_a_name_of_dots_names_no_folder():
    assert [stem(PurePath(name)) for name in ("..png", "...png", ".a.png")] == ["..png", "...png", ".a"]
