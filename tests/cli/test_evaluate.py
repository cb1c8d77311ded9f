"""``nuxel evaluate`` as a user runs it."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from nuxel.cli.main import main
from nuxel.errors import UsageError

Capture = pytest.CaptureFixture[str]
Out = Callable[..., Path]
DATA = Path(__file__).parents[2].parent / "shared" / "data" / "dsb2018"
TRAINING = ("torch", "torchvision", "timm", "lightning", "onnx")


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """Three images of two nuclei, as a data set of images and labels, and an index of them."""
    labels = np.zeros((20, 30), np.uint16)
    labels[2:12, 2:12], labels[5:15, 15:25] = 1, 2
    for folder in ("images", "labels"):
        (tmp_path / "truth" / folder).mkdir(parents=True)
        for name in "abc":
            Image.fromarray(labels).save(tmp_path / "truth" / folder / f"{name}.png")
    (tmp_path / "index.csv").write_text("id,stain\na,red\nb,red\nc,blue\n")
    return tmp_path / "truth"


@pytest.fixture
def out(tmp_path: Path, truth: Path) -> Out:
    """Write predictions as ``nuxel segment`` does: the truth without its last nucleus in the images named."""

    def write(name: str, without: str = "", images: str = "abc") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for image in images:
            labels = np.asarray(Image.open(truth / "labels" / f"{image}.png")).astype(np.int32)
            labels = np.where(labels == 2, 0, labels) if image in without else labels
            tifffile.imwrite(folder / f"{image}_labels.tif", labels, compression="zlib")
            (folder / f"{image}_nuclei.csv").write_text("label,score\n1,0.9\n2,0.8\n")
            Image.new("RGB", (30, 20)).save(folder / f"{image}_overlay.png")
        (folder / "summary.csv").write_text("file\n")
        return folder

    return write


def run(*arguments: object) -> int:
    return main(["evaluate", *map(str, arguments)])


def fails(capsys: Capture, code: int, *arguments: object) -> str:
    """Run a command that must fail with one line on stderr and nothing on stdout; give the line."""
    assert run(*arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("nuxel evaluate: ")
    return captured.err


def test_an_output_folder_as_it_stands(out: Out, truth: Path, capsys: Capture) -> None:
    assert run(out("out", without="c"), truth) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    lines = captured.out.splitlines()
    assert lines[1].split()[:7] == ["mean", "of", "images", "3", "6", "5", "0.833"]
    assert "5 correct, 0 merged, 0 split, 0 poorly outlined, 1 missed" in captured.out


def test_groups_and_files_for_machines(out: Out, truth: Path, tmp_path: Path, capsys: Capture) -> None:
    options = ("--index", tmp_path / "index.csv", "--json", tmp_path / "e.json", "--csv", tmp_path / "e.csv")
    assert run(out("out", without="c"), truth, *options) == 0
    assert "stain:\n  blue " in capsys.readouterr().out
    found = json.loads((tmp_path / "e.json").read_text())
    assert found["groups"]["stain"]["blue"]["mean"]["ap"] == 0.5
    with (tmp_path / "e.csv").open() as file:
        assert [row["stain"] for row in csv.DictReader(file)] == ["red", "red", "blue"]


def test_only_some_images(out: Out, truth: Path, tmp_path: Path, capsys: Capture) -> None:
    folder = out("out", images="ab")
    assert (
        run(folder, truth, "--index", tmp_path / "index.csv", "--where", "stain=red", "--group", "stain") == 0
    )
    assert capsys.readouterr().out.splitlines()[1].split()[3] == "2"


def test_missing_predictions(out: Out, truth: Path, capsys: Capture) -> None:
    folder = out("out", images="ab")
    assert "no prediction for c (--allow-missing" in fails(capsys, 2, folder, truth)
    assert run(folder, truth, "--allow-missing") == 0
    assert "2 missed" in capsys.readouterr().out


def test_options_reach_the_scores(out: Out, truth: Path, tmp_path: Path, capsys: Capture) -> None:
    pytest.importorskip("faster_coco_eval")
    assert (
        run(out("out"), truth, "--hausdorff", "--boxes", "--iou", "0.7", "--json", tmp_path / "e.json") == 0
    )
    shown = capsys.readouterr().out
    assert "boxes: voc_ap50 1.000" in shown
    assert "Hausd" in shown
    assert json.loads((tmp_path / "e.json").read_text())["threshold"] == 0.7


def test_comparison_and_report(out: Out, truth: Path, tmp_path: Path, capsys: Capture) -> None:
    pytest.importorskip("matplotlib")
    pair = out("one", without="ab"), out("two", without="c")
    page = tmp_path / "r.html"
    assert run(pair[0], truth, "--compare", pair[1], "--report", page, "--images", truth / "images") == 0
    shown = capsys.readouterr().out
    assert f"first: {pair[0]}\nsecond: {pair[1]}\n" in shown
    (line,) = [line for line in shown.splitlines() if line.startswith("AP  ")]
    assert line.split()[1:4] == ["0.667", "0.833", "+0.167"]
    html = page.read_text()
    assert "Where they differ most" in html
    assert html.count("data:image/jpeg") == 9


def test_run_lengths_and_single_files(out: Out, truth: Path, tmp_path: Path, capsys: Capture) -> None:
    runs = " ".join(f"{20 * x + 3} 10" for x in range(2, 12))
    (tmp_path / "runs.csv").write_text(f"ImageId,EncodedPixels\na,{runs}\nb,{runs}\nc,\n")
    assert run(tmp_path / "runs.csv", truth, "--json", tmp_path / "e.json") == 0
    found = json.loads((tmp_path / "e.json").read_text())
    assert [row["ap"] for row in found["images"]] == [0.5, 0.5, 0]
    assert run(out("out") / "a_labels.tif", truth / "labels" / "b.png") == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("true nuclei (IoU > 0.5): 2 correct")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--iou", "0"], "the IoU threshold must lie between 0 and 1"),
        (["--group", "stain"], "give one as index (--index CSV)"),
        (["--where", "stain=red"], "give one as index (--index CSV)"),
        (["--json", "missing/e.json"], "missing/e.json: cannot be written there"),
        (["--csv", "."], "cannot be written there"),
        (["--report", "missing/e.html"], "cannot be written there"),
        (["--json", "e", "--csv", "e"], "--json, --csv and --report need a file each"),
        (["--images", "missing"], "missing: there is no such folder of images"),
        (["--images", "."], "add --report FILE.html"),
        (["--compare", "missing"], "missing: there is no such file or folder"),
    ],
)
def test_wrong_usage(out: Out, truth: Path, capsys: Capture, options: list[str], sentence: str) -> None:
    assert sentence in fails(capsys, 2, out("out"), truth, *options)


def test_every_option_reaches_the_evaluation(
    out: Out, truth: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, object]] = []

    def record(*_: object, **settings: object) -> None:
        given.append({name: value for name, value in settings.items() if name != "progress"})
        raise UsageError("enough")

    monkeypatch.setattr("nuxel.evaluation.evaluate.evaluate", record)
    plain = {"index": None, "iou": 0.5, "hausdorff": False, "boxes": False, "allow_missing": False}
    fails(capsys, 2, out("out"), truth)
    changes = ("--iou", 0.7, "--hausdorff", "--boxes", "--allow-missing", "--index", tmp_path / "i.csv")
    fails(capsys, 2, out("two"), truth, *changes, "--where", "stain=red", "--group", "day")
    assert given[0] == {**plain, "where": {}, "group": []}
    assert given[1] == {
        **dict.fromkeys(("hausdorff", "boxes", "allow_missing"), True),
        "index": tmp_path / "i.csv",
        "iou": 0.7,
        "where": {"stain": "red"},
        "group": ["day"],
    }


@pytest.mark.parametrize(("option", "name"), [("--csv", "summary.csv"), ("--json", "run.json")])
def test_the_records_of_a_run_stay(
    out: Out, truth: Path, tmp_path: Path, capsys: Capture, option: str, name: str
) -> None:
    folder = out("out")
    held = {"summary.csv": "file,status,reason,nuclei\n", "run.json": '{"provider": "CPU"}\n'}[name]
    (folder / name).write_text(held)
    (tmp_path / "link").symlink_to(folder / name)
    for path in (folder / name, tmp_path / "link"):
        assert "would be replaced" in fails(capsys, 2, folder, truth, option, path)
    assert (folder / name).read_text() == held
    for _ in range(2):  # what evaluate itself wrote may be replaced, whatever it is called
        assert run(folder, truth, option, tmp_path / name) == 0
        assert run(folder, truth, option, tmp_path / f"my_{name}") == 0


def test_files_are_written_before_anything_is_said(out: Out, truth: Path, tmp_path: Path) -> None:
    """Whoever reads the text, such as ``head``, may hang up."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [
        sys.executable,
        "-u",
        "-m",
        "nuxel",
        "evaluate",
        out("out"),
        truth,
        "--json",
        tmp_path / "e.json",
    ]
    subprocess.run(command, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert json.loads((tmp_path / "e.json").read_text())["images"]


def test_links_are_written_through(out: Out, truth: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "link.json").symlink_to(tmp_path / "there.json")
    folder = out("out")
    for _ in range(2):
        assert run(folder, truth, "--json", tmp_path / "link.json") == 0
    assert (tmp_path / "link.json").is_symlink()
    assert json.loads((tmp_path / "there.json").read_text())["images"]
    capsys.readouterr()
    os.mkfifo(tmp_path / "pipe")
    assert "is no regular file" in fails(capsys, 2, folder, truth, "--csv", tmp_path / "pipe")


def test_bad_files_are_named(out: Out, truth: Path, tmp_path: Path, capsys: Capture) -> None:
    folder = out("out")
    assert "there is no such file or folder" in fails(capsys, 2, folder / "missing", truth)
    assert "are the same file" in fails(capsys, 2, folder, folder)
    tifffile.imwrite(folder / "b_labels.tif", np.zeros((9, 9), np.int32))
    assert "b_labels.tif: it is 9 x 9 pixels" in fails(capsys, 1, folder, truth)
    tifffile.imwrite(folder / "b_labels.tif", np.zeros((20, 30), np.float32))
    assert "b_labels.tif: holds float32 values" in fails(capsys, 1, folder, truth)
    (folder / "b_labels.tif").write_bytes(b"II*\0")
    assert "b_labels.tif: cannot be read as a label image" in fails(capsys, 1, folder, truth)
    assert "is no run-length CSV" in fails(capsys, 1, tmp_path / "index.csv", truth)
    assert "no column id" in fails(capsys, 1, folder, truth, "--index", folder / "summary.csv")


def test_an_input_is_not_replaced(out: Out, truth: Path, tmp_path: Path, capsys: Capture) -> None:
    predicted, index = out("out"), tmp_path / "index.csv"
    picture = truth / "images" / "a.png"
    for option, path in (
        ("--csv", index),
        ("--json", picture),
        ("--csv", predicted / ".." / "index.csv"),
        ("--csv", predicted / "a_nuclei.csv"),
    ):
        before = path.read_bytes()
        line = fails(capsys, 2, predicted, truth, "--index", index, option, path)
        assert "would be replaced; name another file" in line
        assert path.read_bytes() == before
    same = (tmp_path / "a.out", predicted / ".." / "a.out")
    assert "need a file each" in fails(capsys, 2, predicted, truth, "--csv", same[0], "--json", same[1])
    (tmp_path / "empty").mkdir()
    asked = ("--report", tmp_path / "r.html", "--images", tmp_path / "empty")
    assert "no image in this folder" in fails(capsys, 2, predicted, truth, *asked)


def test_an_image_has_the_name_of_its_truth(out: Out, truth: Path, tmp_path: Path, capsys: Capture) -> None:
    """However deep the predictions lie: so two of them can be compared, and the index has to know one name only."""
    flat, deep = out("flat", without="a"), tmp_path / "deep"
    shutil.copytree(flat, deep / "plate")
    assert run(flat, truth, "--compare", deep) == 0
    (tmp_path / "plates.csv").write_text("id,plate,split\na.png,1,test\nb.png,2,test\nc.png,2,train\n")
    asked = (
        "--index",
        tmp_path / "plates.csv",
        "--where",
        "plate=2",
        "--group",
        "split",
        "--csv",
        tmp_path / "s.csv",
    )
    assert run(deep, truth, *asked) == 0
    rows = list(csv.DictReader((tmp_path / "s.csv").read_text().splitlines()))
    assert [(row["image"], row["group_split"], row["split"]) for row in rows] == [
        ("b", "test", "0"),
        ("c", "train", "0"),
    ]
    capsys.readouterr()


def test_files_given_by_name_belong_together_and_those_found_do_not(
    truth: Path, tmp_path: Path, capsys: Capture
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder, name in ((one, "b"), (other, "c")):
        folder.mkdir()
        shutil.copy(truth / "labels" / f"{name}.png", folder)
    assert run(one / "b.png", other / "c.png") == 0
    capsys.readouterr()
    assert "no prediction has the name of a truth" in fails(capsys, 2, one, other)


def test_an_index_that_contradicts_itself(out: Out, truth: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "index.csv").write_text("id,stain\na,red\nb,red\nc,blue\na,red\na,blue\n")
    line = fails(capsys, 1, out("out"), truth, "--index", tmp_path / "index.csv")
    assert "two rows say different things of a; leave one" in line


def test_links_to_folders_are_followed_and_loops_end(out: Out, truth: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "labels").symlink_to(truth / "labels", target_is_directory=True)
    (linked / "again").symlink_to(linked, target_is_directory=True)
    assert run(out("out"), linked) == 0


@pytest.mark.parametrize("where", ["stain", "=red"])
def test_where_is_column_and_value(out: Out, truth: Path, capsys: Capture, where: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(out("out"), truth, "--where", where)
    assert stopped.value.code == 2
    assert f"expected COLUMN=VALUE, got {where}" in capsys.readouterr().err


def test_a_report_without_matplotlib_is_refused_at_once(
    out: Out, truth: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "needs matplotlib" in fails(capsys, 2, out("out"), truth, "--report", tmp_path / "r.html")


def test_it_imports_neither_torch_nor_matplotlib(out: Out, truth: Path) -> None:
    code = f"""import sys
from nuxel.cli.main import main
main(["evaluate", {str(out("out"))!r}, {str(truth)!r}])
print([name for name in (*{TRAINING}, "matplotlib", "onnxruntime", "scipy.stats") if name in sys.modules])"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-1] == "[]"


def test_the_test_split_takes_under_three_seconds(tmp_path: Path) -> None:
    """Processor time of a fresh interpreter, so that a busy machine does not decide."""
    if not DATA.is_dir():
        pytest.skip("shared/data/dsb2018 is not here")
    with (DATA / "index.csv").open() as file:
        stems = [row["id"] for row in csv.DictReader(file) if row["split"] == "test"]
    for stem in stems:
        labels = np.asarray(Image.open(DATA / "labels" / f"{stem}.png")).astype(np.int32)
        np.save(tmp_path / f"{stem}.npy", np.roll(labels, 2, axis=1))
    code = f"""import time
from nuxel.cli.main import main
options = ["--index", {str(DATA / "index.csv")!r}, "--where", "split=test", "--group", "modality"]
code = main(["evaluate", {str(tmp_path)!r}, {str(DATA)!r}, *options])
print(code, time.process_time())"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    code, seconds = shown.splitlines()[-1].split()
    assert shown.splitlines()[1].split()[3] == "66"
    assert code == "0"
    assert float(seconds) < 3


def test_the_documentation_names_every_option(capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        run("--help")
    options = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out)) - {"--help"}
    described = set(
        re.findall(r"--[a-z][a-z-]*", (Path(__file__).parents[2] / "docs" / "evaluate.md").read_text())
    )
    assert options == described
