"""``nuxel thin`` as a user runs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from nuxel.cli.main import main
from nuxel.data.thin import crop, thin
from nuxel.labels.read import read_labels

Capture = pytest.CaptureFixture[str]
DATA = Path(__file__).parents[2].parent / "shared" / "data" / "dsb2018"


def image(seed: int) -> np.ndarray:
    labels = np.zeros((20, 30), np.int32)
    for number in range(6):
        labels[2:8, 5 * number : 5 * number + 3] = number + 1
    return np.roll(labels, seed, axis=0)


def save(path: Path, labels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, labels)
    elif path.suffix == ".png":
        Image.fromarray(labels.astype(np.uint16)).save(path)
    else:
        tifffile.imwrite(path, labels)
    return path


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """A set of three label images in three formats."""
    for seed, name in enumerate(("b.png", "monday/a.tif", "monday/well.c.npy")):
        save(tmp_path / "labels" / name, image(seed))
    return tmp_path / "labels"


def run(*arguments: object) -> int:
    return main(["thin", *map(str, arguments)])


def fails(capsys: Capture, code: int, *arguments: object) -> str:
    """Run a command that must fail with one line on stderr and nothing on stdout; give the line."""
    assert run(*arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("nuxel thin: ")
    return captured.err.removeprefix("nuxel thin: ")


def written(out: Path) -> list[str]:
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())


@pytest.mark.parametrize(("option", "function"), [("--keep", thin), ("--crop", crop)])
def test_a_folder(
    labels: Path, tmp_path: Path, capsys: Capture, option: str, function: Callable[..., list[np.ndarray]]
) -> None:
    assert run(labels, option, 0.25, "--seed", 7, "--out", tmp_path / "new" / "out") == 0
    names = ["b.tif", "monday/a.tif", "monday/well.c.tif"]
    out = tmp_path / "new" / "out"
    assert written(out) == names
    expected = function([image(seed) for seed in range(3)], 0.25, 7)
    for name, result in zip(names, expected, strict=True):
        np.testing.assert_array_equal(read_labels(out / name), result)
        with tifffile.TiffFile(out / name) as file:
            assert file.pages.first.dtype == np.int32
            assert file.pages.first.description.endswith(f" thin {option} 0.25 --seed 7")
    captured = capsys.readouterr()
    assert captured.out == ""
    kept = sum(len(np.unique(result[result > 0])) for result in expected)
    filled = sum((result > 0).any() for result in expected)
    assert captured.err == f"nuxel thin: kept {kept} of 18 nuclei, in {filled} of 3 label images\n"


def test_one_file_beside_it(tmp_path: Path, capsys: Capture) -> None:
    path = save(tmp_path / "a_labels.png", image(0))
    assert run(path, "--keep", 0.5, "--out", tmp_path / "out") == 0
    assert written(tmp_path / "out") == ["a_labels.tif"]
    assert "kept 3 of 6 nuclei, in 1 of 1 label images" in capsys.readouterr().err
    assert run(path, "--keep", 0.5, "--out", tmp_path) == 0
    assert (tmp_path / "a_labels.tif").is_file()


def test_the_choice_depends_on_the_names_and_not_on_the_formats(labels: Path, tmp_path: Path) -> None:
    for seed, name in reversed(list(enumerate(("b.tif", "monday/a.png", "monday/well.c.tif")))):
        save(tmp_path / "same" / name, image(seed))
    for folder, out in ((labels, "one"), (tmp_path / "same", "other")):
        assert run(folder, "--keep", 0.3, "--out", tmp_path / out) == 0
    assert len(written(tmp_path / "one")) == 3
    for name in written(tmp_path / "one"):
        one, other = (read_labels(tmp_path / out / name) for out in ("one", "other"))
        np.testing.assert_array_equal(one, other)


def test_a_data_set_of_images_and_labels(labels: Path, tmp_path: Path) -> None:
    """Images are not taken for labels, and the folder keeps its layout."""
    save(tmp_path / "images" / "b.png", image(0))
    assert run(tmp_path, "--keep", 0.5, "--out", tmp_path.parent / "thinned") == 0
    assert len(written(tmp_path.parent / "thinned")) == 3
    assert written(tmp_path.parent / "thinned")[0] == "labels/b.tif"
    assert labels.is_dir()


@pytest.mark.parametrize("share", [[], ["--keep", "0.2", "--crop", "0.2"], ["--keep", "few"]])
def test_exactly_one_share(labels: Path, tmp_path: Path, capsys: Capture, share: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(labels, *share, "--out", tmp_path / "out")
    assert stopped.value.code == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--keep", "0"], "the share to keep must be above 0 and at most 1, got 0.0"),
        (["--crop", "1.5"], "the share to keep must be above 0 and at most 1, got 1.5"),
        (["--keep", "nan"], "the share to keep must be above 0 and at most 1, got nan"),
        (["--keep", "0.5", "--seed", "-1"], "the seed must not be negative, got -1"),
        (["--keep", "0.01"], "a share of 0.01 of 18 nuclei is none of them; keep a larger share"),
    ],
)
def test_a_value_out_of_range(
    labels: Path, tmp_path: Path, capsys: Capture, options: list[str], sentence: str
) -> None:
    assert fails(capsys, 2, labels, *options, "--out", tmp_path / "out") == f"{sentence}\n"
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(labels: Path, tmp_path: Path, capsys: Capture) -> None:
    there = save(tmp_path / "out" / "monday" / "a.tif", image(1))
    before = there.read_bytes()
    said = fails(capsys, 2, labels, "--keep", 0.5, "--out", tmp_path / "out")
    assert said == f"{there}: exists already; choose another folder or remove it\n"
    assert there.read_bytes() == before
    assert written(tmp_path / "out") == ["monday/a.tif"]


@pytest.mark.parametrize("below", [".", "monday", "new/folder"])
def test_not_into_the_labels_themselves(labels: Path, capsys: Capture, below: str) -> None:
    names = written(labels)
    said = fails(capsys, 2, labels, "--keep", 0.5, "--out", labels / below)
    assert "lies in the folder of the label images" in said
    assert written(labels) == names


def test_two_inputs_with_one_output(labels: Path, tmp_path: Path, capsys: Capture) -> None:
    for other in ("b.npy", "B.tif"):
        path = save(labels / other, image(0))
        said = fails(capsys, 2, labels, "--keep", 0.5, "--out", tmp_path / "out")
        assert str(labels / "b.png") in said
        assert str(path) in said
        path.unlink()
    assert not (tmp_path / "out").exists()


def test_a_file_that_cannot_be_used_stops_the_set(labels: Path, tmp_path: Path, capsys: Capture) -> None:
    path = labels / "monday" / "z.tif"
    path.write_text("no image")
    for option in ("--keep", "--crop"):
        said = fails(capsys, 1, labels, option, 0.5, "--out", tmp_path / "out")
        assert said.startswith(f"{path}: cannot be read as a label image")
    assert not (tmp_path / "out").exists()


def test_labels_without_nuclei(tmp_path: Path, capsys: Capture) -> None:
    path = save(tmp_path / "a.tif", np.zeros((3, 3), np.int32))
    assert "there is no nucleus in any of the label images" in fails(
        capsys, 1, path, "--keep", 0.5, "--out", tmp_path / "o"
    )
    assert not (tmp_path / "o").exists()


def test_what_is_no_label_image(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "runs.csv").write_text("ImageId,EncodedPixels\na,1 2\n")
    save(tmp_path / "bowl" / "a" / "masks" / "1.png", image(0))
    for given, reason in (
        ("absent", "there is no such file or folder"),
        ("empty", "no label image in this folder"),
        ("runs.csv", "a: only label images can be thinned"),
        ("bowl", "only label images can be thinned"),
    ):
        said = fails(capsys, 2, tmp_path / given, "--keep", 0.5, "--out", tmp_path / "out")
        assert said.startswith(str(tmp_path / given))
        assert reason in said
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_is_a_file(labels: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "out").write_text("in the way")
    said = fails(capsys, 2, labels, "--keep", 0.5, "--out", tmp_path / "out")
    assert said.startswith(f"{tmp_path / 'out'}: the output folder cannot be written")


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
def test_a_quarter_of_real_annotations(tmp_path: Path, capsys: Capture) -> None:
    for path in sorted((DATA / "labels").glob("0*.png"))[:12]:
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "labels" / path.name).symlink_to(path)
    total = sum(read_labels(path).max() for path in (tmp_path / "labels").iterdir())
    assert run(tmp_path / "labels", "--keep", 0.25, "--out", tmp_path / "out") == 0
    assert f"kept {round(total / 4)} of {total} nuclei, in " in capsys.readouterr().err
    for path in (tmp_path / "out").iterdir():
        before, after = read_labels(tmp_path / "labels" / f"{path.stem}.png"), read_labels(path)
        assert ((after == -1) | (after == before)).all()
        assert not (after == 0).any()
        for number in np.unique(after[after > 0]):
            np.testing.assert_array_equal(after == number, before == number)
