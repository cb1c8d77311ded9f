"""Groups of images from a CSV."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from nuxel.errors import NuxelError, UsageError
from nuxel.evaluation.index import Index, read_index

TABLE = """id,stain,size,plate,kaggle
a,red,10,p,k1
b,red,10,p,k2
c,blue,20,p,k3
deep/d,blue,30,p,k4
"""


@pytest.fixture
def index(tmp_path: Path) -> Index:
    (tmp_path / "index.csv").write_text(TABLE)
    return read_index(tmp_path / "index.csv")


def test_columns_that_tell_images_apart(index: Index) -> None:
    found = index.groups(["a", "b", "x/c", "deep/d"])
    assert found["x/c"] == {"stain": "blue", "size": "20"}
    assert list(found) == ["a", "b", "x/c", "deep/d"]
    assert index.groups(["a", "b"])["a"] == {}
    assert index.groups(["a", "b", "c"])["b"] == {"stain": "red", "size": "10"}


def test_a_row_without_other_columns_is_one(tmp_path: Path) -> None:
    (tmp_path / "i.csv").write_text("id\np/a\n")
    assert read_index(tmp_path / "i.csv").row("p/a") == {}


def test_at_most_twenty_groups_unless_named(tmp_path: Path) -> None:
    rows = [f"i{n},{n % 20},{n % 21}" for n in range(42)]
    (tmp_path / "i.csv").write_text("\n".join(["ImageId,twenty,more", *rows]))
    index = read_index(tmp_path / "i.csv")
    images = [f"i{n}" for n in range(42)]
    assert index.groups(images)["i41"] == {"twenty": "1"}
    assert index.groups(images, ["more"])["i41"] == {"more": "20"}


def test_named_columns(index: Index) -> None:
    assert index.groups(["a", "c"], ["kaggle", "plate"])["c"] == {"kaggle": "k3", "plate": "p"}
    with pytest.raises(
        UsageError, match=r"index\.csv: no column colour, form; it has stain, size, plate, kaggle"
    ):
        index.groups(["a"], ["colour", "stain", "form"])


def test_images_without_a_row(index: Index) -> None:
    with pytest.raises(NuxelError, match=r"index\.csv: no row for d, e, f, g, h and 1 more; add"):
        index.groups(["a", "d", "e", "f", "g", "h", "i"])
    with pytest.raises(NuxelError, match=r"no row for d, e, f, g, h; add"):
        index.groups(["a", "d", "e", "f", "g", "h"])


def test_selection(index: Index) -> None:
    assert index.select(["a", "b", "c", "z"], {"stain": "red"}) == ["a", "b"]
    assert index.select(["a", "c", "deep/d"], {"stain": "blue", "size": "30"}) == ["deep/d"]
    with pytest.raises(UsageError, match="none of the 2 images has stain=red and size=20"):
        index.select(["a", "c"], {"stain": "red", "size": "20"})
    with pytest.raises(UsageError, match="no column colour"):
        index.select(["a"], {"colour": "red"})


def test_short_rows_and_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "i.csv").write_bytes(b"\xef\xbb\xbfid,stain\na\nb,red\n")
    index = read_index(tmp_path / "i.csv")
    assert index.row("a") == {"stain": ""}
    assert index.row("z") is None


def test_the_only_column(tmp_path: Path) -> None:
    (tmp_path / "i.csv").write_text("id\na\n")
    with pytest.raises(UsageError, match="it has no other column"):
        read_index(tmp_path / "i.csv").groups(["a"], ["stain"])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"name,stain\na,red\n", "no column id or ImageId"),
        (b"", "no column id"),
        (b"\xff\xfe\x00", "no text table"),
    ],
)
def test_what_is_no_index(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "odd.csv").write_bytes(content)
    with pytest.raises(NuxelError, match=rf"odd\.csv: .*{reason}"):
        read_index(tmp_path / "odd.csv")
    with pytest.raises(NuxelError, match="No such file"):
        read_index(tmp_path / "missing.csv")


def test_an_accented_letter_may_be_written_in_two_ways(tmp_path: Path) -> None:
    one, two = (unicodedata.normalize(form, "m\u00fcll") for form in ("NFC", "NFD"))
    for written, asked in ((one, two), (two, one)):
        (tmp_path / "i.csv").write_text(f"id,stain\n{written},red\n", encoding="utf-8")
        assert read_index(tmp_path / "i.csv").select([f"plate/{asked}"], {"stain": "red"}) == [
            f"plate/{asked}"
        ]
