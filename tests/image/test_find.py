"""Inputs as people give them: files, folders, patterns."""

from __future__ import annotations

import os
from pathlib import Path, PurePath

import pytest

from nuxel.errors import UsageError
from nuxel.image.find import FoundImage, find_images, refuse_collisions

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def relatives(*inputs: str | Path) -> list[str]:
    return [found.relative.as_posix() for found in find_images(inputs)]


def test_folder_is_searched_with_its_sub_folders_in_order(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "b.png",
        "a.TIF",
        "sub/deep/c.JPeG",
        "sub/a.ome.tiff",
        "d.bmp",
        "notes.txt",
        "table.csv",
        "noext",
    )
    assert relatives(tmp_path) == ["a", "b", "d", "sub/a", "sub/deep/c"]
    found = find_images([tmp_path])
    assert [image.path.name for image in found] == ["a.TIF", "b.png", "d.bmp", "a.ome.tiff", "c.JPeG"]
    assert all(image.path.is_file() for image in found)
    assert all(not image.relative.is_absolute() for image in found)


def test_formats_to_come_are_found_so_that_they_fail_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "slide.SVS", "stack.czi", "plate.ome.zarr/0/0", "plate.ome.zarr/a.png")
    assert relatives(tmp_path) == ["plate", "slide", "stack"]
    assert relatives(tmp_path / "plate.ome.zarr") == ["plate"]


def test_a_folder_may_be_called_like_a_file(tmp_path: Path) -> None:
    touch(tmp_path, "run.png/a.png")
    assert relatives(tmp_path) == ["run.png/a"]
    assert relatives(tmp_path / "run.png") == ["a"]


@pytest.mark.parametrize(
    "name",
    [
        ".hidden.png",
        ".cache/a.png",
        "__MACOSX/a.png",
        "sub/__MACOSX/._a.png",
        "Thumbs.db",
        "a_labels.tif",
        "sub/A_Labels.tif",
        "a_overlay.png",
        "a_nuclei.csv",
        "summary.csv",
        "run.json",
    ],
)
def test_what_folders_hold_besides_images(tmp_path: Path, name: str) -> None:
    touch(tmp_path, name)
    with pytest.raises(UsageError, match=r"no image in this folder.*looked for \.png"):
        find_images([tmp_path])
    touch(tmp_path, "b.png")
    assert relatives(tmp_path) == ["b"]


def test_names_that_only_resemble_products_are_images(tmp_path: Path) -> None:
    touch(tmp_path, "labels.tif", "a_labels.png", "overlay.png", "my_labels_2.tif")
    assert relatives(tmp_path) == ["a_labels", "labels", "my_labels_2", "overlay"]


@pytest.mark.parametrize(
    "name", ["notes.txt", ".hidden.png", "a_labels.tif", "masks/a.png", "noext", "a.001"]
)
def test_a_named_file_is_always_taken(tmp_path: Path, name: str) -> None:
    touch(tmp_path, name, "images/b.png")
    (found,) = find_images([tmp_path / name])
    assert found.path == tmp_path / name


@pytest.mark.parametrize(
    ("name", "relative"),
    [("a.png", "a"), ("b.ome.tif", "b"), ("c.txt", "c.txt"), ("d.001", "d.001"), (".e.png", ".e")],
)
def test_outputs_of_a_named_file(tmp_path: Path, name: str, relative: str) -> None:
    touch(tmp_path, f"sub/{name}")
    assert relatives(tmp_path / "sub" / name) == [relative]


@pytest.mark.parametrize("answers", ["masks", "labels", "Masks"])
def test_answers_beside_images_are_skipped(tmp_path: Path, answers: str) -> None:
    touch(tmp_path, "id1/images/a.png", f"id1/{answers}/m1.png", f"id1/{answers}/m2.png", "id2/images/b.png")
    assert relatives(tmp_path) == ["id1/images/a", "id2/images/b"]
    assert relatives(tmp_path / "id1") == ["images/a"]
    assert relatives(f"{tmp_path}/**/*.png") == ["id1/images/a", "id2/images/b"]
    assert relatives(f"{tmp_path}/id1/*") == ["images/a"]
    # named as the input itself, they are what the user wants
    assert relatives(tmp_path / "id1" / answers) == ["m1", "m2"]
    assert relatives(f"{tmp_path}/id1/{answers}/*.png") == ["m1", "m2"]


def test_masks_without_images_are_ordinary_folders(tmp_path: Path) -> None:
    touch(tmp_path, "masks/a.png", "labels/b.png", "images.png")
    assert relatives(tmp_path) == ["images", "labels/b", "masks/a"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.png", ["a", "b"]),
        ("[ab].*", ["a", "b", "b"]),
        ("?.tif", ["b"]),
        ("**/*.png", ["a", "b", "x/c", "x/y/d"]),
        ("x/*", ["c", "y/d"]),
        ("*/c.png", ["x/c"]),
        ("x/**/d.png", ["y/d"]),
        ("**", ["a", "b", "b", "x/c", "x/y/d"]),
        ("x*", ["x/c", "x/y/d"]),
    ],
)
def test_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, expected: list[str]) -> None:
    touch(tmp_path, "a.png", "b.png", "b.tif", "x/c.png", "x/y/d.png", "a.txt", "x/c_overlay.png", ".h/e.png")
    assert sorted(relatives(f"{tmp_path}/{pattern}")) == expected
    monkeypatch.chdir(tmp_path)
    assert sorted(relatives(pattern)) == expected
    assert sorted(relatives(f"./{pattern}")) == expected


def test_a_file_with_brackets_in_its_name_is_no_pattern(tmp_path: Path) -> None:
    touch(tmp_path, "a[1].png", "a1.png")
    assert [found.path.name for found in find_images([tmp_path / "a[1].png"])] == ["a[1].png"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("gone.png", "no such file or folder"),
        ("gone", "no such file or folder"),
        ("*.gif", "nothing matches"),
        ("gone/*.png", "nothing matches"),
        ("*.txt", r"no image matches.*looked for \.png, \.jpg"),
        ("empty", "no image in this folder"),
        ("x" * 300, "no such file"),
    ],
)
def test_inputs_without_an_image(tmp_path: Path, given: str, message: str) -> None:
    touch(tmp_path, "a.txt", "empty/notes.txt")
    with pytest.raises(UsageError, match=message) as caught:
        find_images([tmp_path / given])
    assert given in str(caught.value)


def test_no_input_at_all() -> None:
    with pytest.raises(UsageError, match="no input"):
        find_images([])
    with pytest.raises(UsageError, match="empty"):
        find_images([""])


def test_one_bad_input_spoils_all(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    with pytest.raises(UsageError, match="gone"):
        find_images([tmp_path, tmp_path / "gone.png"])


def test_the_same_file_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "x/a.png", "x/b.png")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "y").symlink_to(tmp_path / "x")
    assert relatives("x/b.png", "x", tmp_path / "x" / "a.png", "./x/*.png", "x/../x/a.png", "y/a.png") == [
        "b",
        "a",
    ]


def test_two_links_to_one_file_are_two_images(tmp_path: Path) -> None:
    touch(tmp_path, "store/object")
    (tmp_path / "x").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "x" / name).symlink_to(tmp_path / "store" / "object")
    assert relatives(tmp_path / "x") == ["a", "b"]


def test_a_link_that_leads_nowhere_is_found_so_that_it_fails(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / "gone")
    assert relatives(tmp_path) == ["a"]
    assert relatives(tmp_path / "a.png") == ["a"]


def test_loops_of_links_end(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.png")
    (tmp_path / "x" / "up").symlink_to(tmp_path)
    (tmp_path / "x" / "self").symlink_to(tmp_path / "x")
    assert relatives(tmp_path) == ["x/a"]
    assert len(find_images([f"{tmp_path}/*"])) == 1


def test_a_pattern_takes_the_shortest_way_to_a_file(tmp_path: Path) -> None:
    touch(tmp_path, "in/z.png")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    for pattern in ("in/**/*.png", "in/**", "in/*"):
        assert [item.relative.as_posix() for item in find_images([f"{tmp_path}/{pattern}"])] == ["z"]


def test_a_file_that_may_not_be_looked_at_is_found_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its reader says what stands in the way; the others are done."""
    touch(tmp_path, "in/a.png")
    touch(tmp_path, "in/b.png")

    def deny(self: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "is_dir", deny)
    assert len(find_images([f"{tmp_path}/in/*.png"])) == 2


def test_what_the_system_keeps_at_the_root_of_a_disk_is_skipped(tmp_path: Path) -> None:
    for name in ("System Volume Information", "$RECYCLE.BIN", "lost+found"):
        touch(tmp_path, f"{name}/x.png")
    touch(tmp_path, "a.png")
    assert relatives(tmp_path) == ["a"]


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", deny)
    with pytest.raises(UsageError, match=r"cannot be listed \(Permission denied\)"):
        find_images([tmp_path])


def found(*pairs: tuple[str, str]) -> list[FoundImage]:
    return [FoundImage(Path(path), PurePath(relative)) for path, relative in pairs]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("a.png", "a"), ("a.tif", "a")),
        (("x/a.png", "a"), ("y/a.png", "a")),
        (("a.png", "a"), ("A.png", "A")),
        (("s/ä.png", "s/\u00e4"), ("S/ä.tif", "S/a\u0308")),
    ],
)
def test_two_images_with_one_output_are_refused(first: tuple[str, str], second: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match="would both write") as caught:
        refuse_collisions(found(("z.png", "z"), first, second))
    assert str(Path(first[0])) in str(caught.value)
    assert str(Path(second[0])) in str(caught.value)


def test_different_outputs_are_fine() -> None:
    refuse_collisions(found(("a.png", "a"), ("b.png", "b"), ("x/a.png", "x/a"), ("a b.png", "a b")))
    refuse_collisions([])


def test_collisions_of_found_images(tmp_path: Path) -> None:
    touch(tmp_path, "one/a.png", "two/a.png", "two/a.bmp", "three/b.png")
    for inputs in ([tmp_path / "one", tmp_path / "two" / "a.png"], [tmp_path / "two"]):
        with pytest.raises(UsageError, match="would both write the output 'a'"):
            refuse_collisions(find_images(inputs))
    refuse_collisions(find_images([tmp_path / "one", tmp_path / "three"]))


@pytest.mark.skipif(
    os.name == "nt", reason="names of one letter in two cases need a case-sensitive file system"
)
def test_sorting_does_not_depend_on_the_file_system(tmp_path: Path) -> None:
    touch(tmp_path, "10.png", "9.png", "B.png", "a.png")
    assert relatives(tmp_path) == ["10", "9", "B", "a"]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the development data are not here")
def test_the_layout_of_the_competition() -> None:
    images = find_images([SHARED / "kaggle_layout"])
    assert len(images) == 4
    for image in images:
        assert image.relative == PurePath("stage1_train", image.path.stem, "images", image.path.stem)
    assert len(find_images([SHARED / "dsb2018"])) == 664


def test_a_pattern_below_a_folder_with_brackets(tmp_path: Path) -> None:
    touch(tmp_path, "exp [1]/a.png")
    touch(tmp_path, "exp 1/b.png")
    assert [item.path.name for item in find_images([f"{tmp_path}/exp [1]/*.png"])] == ["a.png"]
    assert [item.path.name for item in find_images([f"{tmp_path}/exp [0-9]/*.png"])] == ["b.png"]
