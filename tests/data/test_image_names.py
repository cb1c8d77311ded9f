"""Names of images, and which names of two sets belong together."""

from __future__ import annotations

import unicodedata
from pathlib import PurePath

import pytest

from nuxel.data.image_names import image_name, match_names


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("x", "x"),
        ("a/b/x", "a/b/x"),
        ("labels/x", "x"),
        ("p/labels/q/x", "p/q/x"),
        ("x/images/x", "x"),
        ("t/x/images/x", "t/x"),
        ("y/images/x", "y/x"),
        ("x/other/x", "x/other/x"),
        ("images/images", "images"),
    ],
)
def test_names(path: str, name: str) -> None:
    assert image_name(PurePath(path)) == name


class TestMatch:
    def test_whole_names_come_first(self) -> None:
        assert match_names(["x", "a/x"], ["x", "b/x"]) == {"x": "x"}
        assert match_names(["a/x", "b/x"], ["b/x", "a/x"]) == {"a/x": "a/x", "b/x": "b/x"}

    def test_the_end_of_a_name_either_way(self) -> None:
        assert match_names(["out/p/x", "y"], ["p/x", "q/y"]) == {"out/p/x": "p/x", "y": "q/y"}

    def test_a_name_that_could_go_with_two_goes_with_none(self) -> None:
        assert match_names(["a/x", "b/x", "y"], ["x", "y"]) == {"y": "y"}
        assert match_names(["x", "y"], ["a/x", "b/x", "y"]) == {"y": "y"}

    def test_equal_ends_of_different_folders_are_different_images(self) -> None:
        assert match_names(["plate1/A1", "plate1/A2"], ["plate2/A1", "plate2/A2"]) == {}
        assert match_names(["xy", "z"], ["y", "z"]) == {"z": "z"}

    def test_one_on_each_side_needs_no_name(self) -> None:
        assert match_names(["prediction"], ["truth"]) == {"prediction": "truth"}
        assert match_names(["prediction"], []) == {}

    def test_an_accented_letter_may_be_written_in_two_ways(self) -> None:
        """File systems of macOS keep letter and accent apart."""
        one, two = (unicodedata.normalize(form, "plaque/m\u00fcll") for form in ("NFC", "NFD"))
        assert one != two
        assert match_names([one, "y"], [two, "y"]) == {one: two, "y": "y"}
        assert match_names([one, two], [one, two]) == {one: one, two: two}
        assert match_names([two, "y"], [one.partition("/")[2], "y"]) == {two: "m\u00fcll", "y": "y"}
