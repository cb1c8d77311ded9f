"""``nuxel segment`` as a user runs it."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from nuxel.cli.main import main
from nuxel.image.choose import read_z
from nuxel.labels.read import read_labels
from nuxel.labels.run_length import read_run_lengths
from nuxel.predict import files

Capture = pytest.CaptureFixture[str]
Save = Callable[..., Path]
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def run(toy_model: Path, tmp_path: Path) -> Callable[..., int]:
    def run_segment(*arguments: object) -> int:
        given = ["segment", *arguments, "--out", tmp_path / "out", "--model", toy_model]
        return main([str(argument) for argument in given])

    return run_segment


def summary(tmp_path: Path) -> list[dict[str, str]]:
    with (tmp_path / "out" / "summary.csv").open() as file:
        return list(csv.DictReader(file))


def test_all_done(save_discs: Save, run: Callable[..., int], tmp_path: Path, capsys: Capture) -> None:
    save_discs("in/a.png", 4)
    save_discs("in/deep/b.png", 9)
    assert run(tmp_path / "in", "--scale", "1") == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"2 done, 0 skipped, 0 failed; 13 nuclei; see {tmp_path / 'out'}\n"
    assert (tmp_path / "out" / "deep" / "b_labels.tif").is_file()
    assert run(tmp_path / "in", "--scale", "1") == 0
    assert "0 done, 2 skipped, 0 failed; 13 nuclei" in capsys.readouterr().err
    assert run(tmp_path / "in", "--scale", "1", "--overwrite") == 0
    assert "2 done, 0 skipped" in capsys.readouterr().err


def test_some_failed(save_discs: Save, run: Callable[..., int], tmp_path: Path, capsys: Capture) -> None:
    save_discs("in/a.png")
    (tmp_path / "in" / "b[red].png").write_bytes(b"")  # looks like markup of the progress bar
    (tmp_path / "in" / "c.tif").write_text("text")
    save_discs("in/d.png")
    assert run(tmp_path / "in", "--scale", "1") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    first, second, last = captured.err.splitlines()
    assert first == f"nuxel segment: {tmp_path / 'in' / 'b[red].png'}: it is empty (0 bytes)"
    assert second.startswith(f"nuxel segment: {tmp_path / 'in' / 'c.tif'}: ")
    assert last.startswith("2 done, 0 skipped, 2 failed; 8 nuclei")
    assert [row["status"] for row in summary(tmp_path)] == ["done", "failed", "failed", "done"]
    assert "it is empty" in summary(tmp_path)[1]["reason"]


def test_a_pattern(save_discs: Save, run: Callable[..., int], tmp_path: Path) -> None:
    save_discs("in/a_dapi.png")
    save_discs("in/a_gfp.png")
    assert run(tmp_path / "in" / "*_dapi.png") == 0
    assert [Path(row["file"]).name for row in summary(tmp_path)] == ["a_dapi.png"]


def test_every_option_reaches_the_job(
    save_discs: Save, run: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[files.Job] = []

    def record(_: object, job: files.Job, __: object) -> list[object]:
        jobs.append(job)
        return []

    monkeypatch.setattr(files, "segment_files", record)
    path = save_discs("a.png")
    assert run(path) == 0
    assert (
        run(
            *(
                path,
                "--channel",
                "DAPI",
                "--z",
                "max",
                "--t",
                "2",
                "--pixel-size",
                "0.25",
                "--diameter",
                "30",
            ),
            *(
                "--threshold",
                "0.4",
                "--min-area",
                "12",
                "--tile-size",
                "320",
                "--threads",
                "2",
                "--overwrite",
            ),
        )
        == 0
    )
    assert run(path, "--channel", "1", "--z", "3", "--scale", "0.5", "--device", "cpu") == 0
    plain, full, other = jobs
    assert plain.options == files.Options()
    assert plain.reading == files.Reading()
    assert not plain.overwrite
    assert dataclasses.asdict(full.reading) == {"channel": "DAPI", "z": "max", "t": 2, "pixel_size_um": 0.25}
    assert full.options == files.Options(threshold=0.4, min_area=12, diameter=30, tile_size=320)
    assert full.overwrite
    assert full.model.threads == 2
    assert (other.reading.channel, other.reading.z, other.options.scale) == ("1", 3, 0.5)
    assert other.model.provider == "CPUExecutionProvider"


def test_a_stack_asks_and_the_options_answer(
    run: Callable[..., int], tmp_path: Path, draw_discs: Callable[..., np.ndarray], capsys: Capture
) -> None:
    stack = np.zeros((2, 3, 96, 96), np.uint8)
    stack[1, 2] = draw_discs(4)
    tifffile.imwrite(
        tmp_path / "s.ome.tif", stack, metadata={"axes": "CZYX", "Channel": {"Name": ["GFP", "DAPI"]}}
    )
    path = tmp_path / "s.ome.tif"
    assert run(path) == 1
    line = capsys.readouterr().err.splitlines()[0]
    assert all(word in line for word in ("GFP", "DAPI", str(path)))
    assert run(path, "--channel", "dapi", "--z", "max", "--scale", "1") == 0
    assert read_labels(tmp_path / "out" / "s_labels.tif").max() == 4
    assert run(path, "--channel", "0", "--z", "2", "--scale", "1") == 0
    assert read_labels(tmp_path / "out" / "s_labels.tif").max() == 0


def test_options_change_what_is_found(save_discs: Save, run: Callable[..., int], tmp_path: Path) -> None:
    path = save_discs("a.png", 4, radius=5)

    def found(*options: object) -> tuple[int, int]:
        assert run(path, "--scale", "1", *options) == 0
        labels = read_labels(tmp_path / "out" / "a_labels.tif")
        return int(labels.max()), int(np.count_nonzero(labels))

    count, area = found()
    assert count == 4
    assert found("--min-area", area) == (0, 0)
    assert found("--min-area", area // 4) == (count, area)
    assert found("--threshold", "0.05")[1] > area > found("--threshold", "0.95")[1]


def test_the_bundled_examples(tmp_path: Path, capsys: Capture) -> None:
    assert main(["segment", str(EXAMPLES), "--out", str(tmp_path / "out")]) == 0
    assert "6 done, 0 skipped, 0 failed" in capsys.readouterr().err
    rows = {Path(row["file"]).stem: row for row in summary(tmp_path)}
    assert len(rows) == 6
    assert all(int(row["nuclei"]) > 0 for row in rows.values())
    assert all(float(row["scale"]) > 0 for row in rows.values())
    assert int(rows["fluorescence_dense"]["nuclei"]) > 3 * int(rows["fluorescence_sparse"]["nuclei"])
    small, large = (float(rows[f"fluorescence_{name}"]["mean_area"]) for name in ("dense", "large"))
    assert large > 4 * small


@pytest.mark.parametrize("text", ["0", "17", "max"])
def test_planes(text: str) -> None:
    assert read_z(text) == (text if text == "max" else int(text))


class TestRunLengths:
    def test_written_beside_the_usual_products(
        self, save_discs: Save, run: Callable[..., int], tmp_path: Path
    ) -> None:
        save_discs("in/a.png", 4)
        save_discs("in/deep/b.png", 9)
        Image.fromarray(np.zeros((96, 96), np.uint8)).save(tmp_path / "in" / "empty.png")
        assert run(tmp_path / "in", "--scale", "1", "--format", "run-length") == 0
        read = read_run_lengths(tmp_path / "out" / "run_lengths.csv")
        assert {name: len(found.nuclei) for name, found in read.items()} == {"a": 4, "b": 9, "empty": 0}
        labels = read_labels(tmp_path / "out" / "deep" / "b_labels.tif")
        assert np.array_equal(read["b"].paint(labels.shape), labels)

    def test_a_second_run_that_skips_everything_writes_it_too(
        self, save_discs: Save, run: Callable[..., int], tmp_path: Path
    ) -> None:
        save_discs("in/a.png", 4)
        (tmp_path / "in" / "broken.png").write_bytes(b"")
        assert run(tmp_path / "in", "--scale", "1") == 1
        assert not (tmp_path / "out" / "run_lengths.csv").exists()
        assert run(tmp_path / "in", "--scale", "1", "--format", "run-length") == 1
        assert list(read_run_lengths(tmp_path / "out" / "run_lengths.csv")) == ["a"]

    def test_images_of_one_name_are_told_apart_by_their_folders(
        self, save_discs: Save, run: Callable[..., int], tmp_path: Path
    ) -> None:
        for place in ("one/a.png", "two/a.png", "two/b.png"):
            save_discs(f"in/{place}")
        run(tmp_path / "in", "--scale", "1", "--format", "run-length")
        assert list(read_run_lengths(tmp_path / "out" / "run_lengths.csv")) == ["one/a", "two/a", "b"]


class TestSeveralModels:
    def test_are_averaged_and_recorded(
        self, save_discs: Save, run: Callable[..., int], toy_model: Path, tmp_path: Path
    ) -> None:
        image = save_discs("a.png", 4)
        assert run(image, "--scale", "1", "--model", toy_model) == 0
        record = json.loads((tmp_path / "out" / "run.json").read_text())
        assert record["model"]["file"] == f"{toy_model.name} + {toy_model.name}"
        assert read_labels(tmp_path / "out" / "a_labels.tif").max() == 4

    def test_the_other_options_reach_the_job_too(
        self, save_discs: Save, run: Callable[..., int], toy_model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        jobs: list[files.Job] = []
        monkeypatch.setattr(files, "segment_files", lambda _, job, __: jobs.append(job) or [])
        image = save_discs("a.png")
        assert run(image) == run(image, "--tta", "--format", "run-length", "--model", toy_model) == 0
        plain, full = jobs
        assert (plain.options.tta, plain.formats, plain.attention) == (False, (), None)
        assert (full.options.tta, tuple(full.formats), full.attention) == (True, ("run-length",), None)
        assert full.model.name == f"{toy_model.name} + {toy_model.name}"

    def test_test_time_augmentation_finds_the_same_of_a_model_that_is_symmetric(
        self, save_discs: Save, run: Callable[..., int], tmp_path: Path
    ) -> None:
        image = save_discs("a.png", 4)
        assert run(image, "--scale", "1") == 0
        plain = read_labels(tmp_path / "out" / "a_labels.tif")
        assert run(image, "--scale", "1", "--tta") == 0
        assert summary(tmp_path)[0]["status"] == "done"  # another result, so not skipped
        assert np.array_equal(read_labels(tmp_path / "out" / "a_labels.tif"), plain)


def test_a_terminal_shows_a_bar(
    save_discs: Save,
    run: Callable[..., int],
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save_discs("in/a.png")
    (tmp_path / "in" / "b.png").write_bytes(b"")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert run(tmp_path / "in", "--scale", "1") == 1
    said = capsys.readouterr().err
    assert "2 of 2" in said
    assert "\r\033[Knuxel segment: " in said  # the failure has a line of its own


@pytest.mark.skipif(sys.platform == "win32", reason="ONNX Runtime has another switch there")
def test_nothing_is_kept_in_the_home_folder_nor_sent(tmp_path: Path) -> None:
    """ONNX Runtime would write an identifier there, and queue what it tells its maker."""
    home = tmp_path / "home"
    home.mkdir()
    image = Path(__file__).parents[2] / "examples" / "brightfield.png"
    command = [sys.executable, "-m", "nuxel", "segment", image, "--out", tmp_path / "out", "--threads", "1"]
    kept = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    subprocess.run(command, check=True, capture_output=True, env={**kept, "HOME": str(home)})
    assert list(home.rglob("*")) == []
