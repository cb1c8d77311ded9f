"""Files in, products out: what is written, what is done again, and what one bad file does to the others."""

from __future__ import annotations

import csv
import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tifffile
from PIL import Image

import nuxel
from nuxel.errors import NuxelError, UsageError
from nuxel.export.run_record import SummaryRow
from nuxel.labels.read import read_labels
from nuxel.predict import files, pipeline
from nuxel.predict.files import Job, Reading, segment_files
from nuxel.predict.model import Model
from nuxel.predict.pipeline import Options

Save = Callable[..., Path]
PRODUCTS = ("_labels.tif", "_nuclei.csv", "_overlay.png")


@pytest.fixture(scope="module")
def model(toy_model: Path) -> Model:
    return Model(toy_model, threads=1, device="cpu")


@pytest.fixture
def job(model: Model, tmp_path: Path) -> Job:
    return Job(model, tmp_path / "out", Options(scale=1))


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def statuses(rows: list[SummaryRow]) -> list[str]:
    return [row.status for row in rows]


@pytest.mark.parametrize(("most", "times"), [(0, 1), (10**6, 0)])
def test_the_memory_that_a_large_image_took_is_given_back(
    most: int, times: int, save_discs: Save, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, released = save_discs("a.png"), []
    monkeypatch.setattr(Model, "release", lambda _: released.append("model"))
    monkeypatch.setattr(pipeline, "LARGEST_KEPT", most)
    segment_files([path], job)
    assert len(released) == times
    nuxel.segment(path, model=str(job.model.path), scale=1)
    assert len(released) == 2 * times


class TestProducts:
    def test_names_and_sub_folders(self, save_discs: Save, job: Job, tmp_path: Path) -> None:
        save_discs("in/a.png")
        save_discs("in/plate/deep/b.ome.tif")
        segment_files([tmp_path / "in"], job)
        expected = [f"{stem}{end}" for stem in ("a", "plate/deep/b") for end in PRODUCTS]
        assert names_in(job.out) == sorted([*expected, "summary.csv", "run.json"])

    def test_label_image(self, save_discs: Save, job: Job) -> None:
        segment_files([save_discs("a.png", 5)], job)
        with tifffile.TiffFile(job.out / "a_labels.tif") as file:
            labels = file.asarray()
            assert file.pages.first.dtype == np.int32
        assert labels.shape == (96, 96)
        assert np.unique(labels).tolist() == [0, 1, 2, 3, 4, 5]
        assert read_labels(job.out / "a_labels.tif").dtype == np.int32

    def test_the_pixel_size_is_written_and_multiplied_in(self, save_discs: Save, job: Job) -> None:
        path = save_discs("a.png")
        segment_files([path], dataclasses.replace(job, reading=Reading(pixel_size_um=0.5)))
        with tifffile.TiffFile(job.out / "a_labels.tif") as file:
            tags = file.pages.first.tags
            per_cm, unit = tags["XResolution"].value, tags["ResolutionUnit"].value
        assert per_cm[0] / per_cm[1] == pytest.approx(20000)
        assert unit == 3
        for row in read_csv(job.out / "a_nuclei.csv"):
            assert float(row["area_um2"]) == pytest.approx(float(row["area"]) / 4, rel=1e-5)
            assert float(row["perimeter_um"]) == pytest.approx(float(row["perimeter"]) / 2, rel=1e-5)
        (summary,) = read_csv(job.out / "summary.csv")
        assert float(summary["per_mm2"]) == pytest.approx(4 / (0.048**2), rel=1e-5)

    def test_without_a_pixel_size_there_are_no_micrometres(self, save_discs: Save, job: Job) -> None:
        segment_files([save_discs("a.png")], job)
        columns = read_csv(job.out / "a_nuclei.csv")[0].keys()
        assert not [name for name in columns if name.endswith(("_um", "_um2"))]
        wanted = {
            "label",
            "centroid_y",
            "x0",
            "area",
            "perimeter",
            "major_axis",
            "minor_axis",
            "eccentricity",
        }
        wanted |= {"solidity", "mean_intensity", "min_intensity", "max_intensity", "score", "touches_edge"}
        assert wanted <= columns
        (summary,) = read_csv(job.out / "summary.csv")
        assert summary["per_mm2"] == ""

    def test_the_table_describes_the_label_image(self, save_discs: Save, job: Job) -> None:
        segment_files([save_discs("a.png")], job)
        labels = read_labels(job.out / "a_labels.tif")
        for row in read_csv(job.out / "a_nuclei.csv"):
            ys, xs = np.nonzero(labels == int(row["label"]))
            assert len(ys) == int(row["area"])
            assert float(row["centroid_y"]) == pytest.approx(ys.mean(), abs=1e-4)
            assert (int(row["x0"]), int(row["x1"])) == (xs.min(), xs.max() + 1)
            assert float(row["max_intensity"]) == 200  # of the file, not of what the network saw
            assert 0.5 <= float(row["score"]) <= 1

    def test_the_overlay_shows_the_image_with_outlines(self, save_discs: Save, job: Job) -> None:
        path = save_discs("a.png")
        segment_files([path], job)
        overlay = np.asarray(Image.open(job.out / "a_overlay.png"))
        assert overlay.shape == (96, 96, 3)
        coloured = np.ptp(overlay, axis=2) > 0
        labels = read_labels(job.out / "a_labels.tif")
        assert coloured.any()
        assert (labels[coloured] > 0).all()
        assert len(np.unique(overlay[coloured], axis=0)) > 1

    def test_summary_and_record(self, save_discs: Save, job: Job, model: Model) -> None:
        path = save_discs("a.png", 9)
        segment_files([path], job)
        (row,) = read_csv(job.out / "summary.csv")
        assert (row["file"], row["status"], row["reason"], row["nuclei"]) == (str(path), "done", "", "9")
        area = np.count_nonzero(read_labels(job.out / "a_labels.tif"))
        assert float(row["mean_area"]) == pytest.approx(area / 9, rel=1e-5)
        assert float(row["per_megapixel"]) == pytest.approx(9e6 / 96**2, rel=1e-5)
        assert float(row["scale"]) == 1
        assert float(row["seconds"]) > 0
        record = json.loads((job.out / "run.json").read_text())
        assert record["model"] == {"file": "toy.onnx", "sha256": model.sha256, "title": "bright is nucleus"}
        assert record["parameters"]["scale"] == 1
        assert record["images"] == {"done": 1, "skipped": 0, "failed": 0}
        assert record["threads"] == 1
        assert record["packages"]["numpy"] == np.__version__
        assert record["packages"]["onnxruntime"] == onnxruntime.__version__

    def test_the_competitions_layout(self, save_discs: Save, job: Job, tmp_path: Path) -> None:
        save_discs("in/one/images/one.png")
        for number in range(3):
            save_discs(f"in/one/masks/{number}.png")
        rows = segment_files([tmp_path / "in"], job)
        assert [row.file for row in rows] == [str(tmp_path / "in/one/images/one.png")]
        assert "one/images/one_labels.tif" in names_in(job.out)

    def test_own_products_are_no_inputs(self, save_discs: Save, model: Model, tmp_path: Path) -> None:
        save_discs("in/a.png")
        job = Job(model, tmp_path / "in", Options(scale=1))
        assert statuses(segment_files([tmp_path / "in"], job)) == ["done"]
        assert statuses(segment_files([tmp_path / "in"], job)) == ["skipped"]

    def test_progress_is_told_after_each(self, save_discs: Save, job: Job, tmp_path: Path) -> None:
        for name in ("a", "b"):
            save_discs(f"in/{name}.png")
        told: list[tuple[int, int, str]] = []
        segment_files([tmp_path / "in"], job, lambda done, total, row: told.append((done, total, row.status)))
        assert told == [(1, 2, "done"), (2, 2, "done")]


class TestUnusualImages:
    def test_no_nuclei_is_an_empty_result(self, job: Job, tmp_path: Path) -> None:
        Image.fromarray(np.zeros((40, 50), np.uint8)).save(tmp_path / "black.png")
        (row,) = segment_files([tmp_path / "black.png"], job)
        assert (row.status, row.nuclei, row.mean_area) == ("done", 0, None)
        labels = read_labels(job.out / "black_labels.tif")
        assert labels.shape == (40, 50)
        assert not labels.any()
        text = (job.out / "black_nuclei.csv").read_text()
        assert text.startswith("label,")
        assert text.count("\n") == 1

    def test_every_pixel_one_nucleus(self, job: Job, tmp_path: Path) -> None:
        image = np.full((40, 50), 255, np.uint8)
        image[5::10, 5::10] = 0  # specks, so that there is a contrast; the mean of 3 x 3 pixels stays bright
        Image.fromarray(image).save(tmp_path / "full.png")
        (row,) = segment_files([tmp_path / "full.png"], job)
        assert (row.status, row.nuclei, row.mean_area) == ("done", 1, 2000)
        assert (read_labels(job.out / "full_labels.tif") == 1).all()
        (nucleus,) = read_csv(job.out / "full_nuclei.csv")
        assert nucleus["touches_edge"] == "1"

    @pytest.mark.parametrize("shape", [(1, 1), (1, 37), (23, 1)])
    def test_slivers(self, job: Job, tmp_path: Path, shape: tuple[int, int]) -> None:
        Image.fromarray(np.full(shape, 9, np.uint8)).save(tmp_path / "sliver.png")
        (row,) = segment_files([tmp_path / "sliver.png"], dataclasses.replace(job, options=Options()))
        assert row.status == "done"
        assert row.nuclei in (0, 1)
        assert read_labels(job.out / "sliver_labels.tif").shape == shape


class TestFailures:
    def test_a_bad_file_is_named_and_the_others_are_done(
        self, save_discs: Save, job: Job, tmp_path: Path
    ) -> None:
        save_discs("in/a.png")
        (tmp_path / "in" / "b.png").write_bytes(b"")
        (tmp_path / "in" / "c.png").write_text("hello")
        (tmp_path / "in" / "d.tif").write_bytes(save_discs("d.tif").read_bytes()[:200])
        save_discs("in/e.png")
        rows = segment_files([tmp_path / "in"], job)
        assert statuses(rows) == ["done", "failed", "failed", "failed", "done"]
        for row in rows[1:4]:
            assert row.reason.startswith(row.file)
            assert "\n" not in row.reason
        listed = read_csv(job.out / "summary.csv")
        assert [(row["status"], row["reason"]) for row in listed] == [(r.status, r.reason) for r in rows]
        assert [name for name in names_in(job.out) if name.startswith(("b", "c", "d"))] == []
        assert json.loads((job.out / "run.json").read_text())["images"]["failed"] == 3

    def test_a_format_for_which_there_is_no_reader(self, job: Job, tmp_path: Path) -> None:
        (tmp_path / "in" / "s.zarr").mkdir(parents=True)
        (tmp_path / "in" / "s.svs").write_bytes(b"II*\x00")
        (tmp_path / "in" / "t.nd2").write_bytes(b"x")
        with pytest.raises(UsageError, match="both write"):
            segment_files([tmp_path / "in"], job)
        (tmp_path / "in" / "s.svs").rename(tmp_path / "in" / "u.svs")
        rows = segment_files([tmp_path / "in"], job)
        for row, form in zip(rows, ("OME-Zarr", "Nikon ND2", "Aperio SVS"), strict=True):
            assert form in row.reason
            assert "no reader" in row.reason

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
    def test_a_pipe_is_not_waited_for(self, job: Job, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.png")
        (row,) = segment_files([tmp_path / "pipe.png"], job)
        assert "not a regular file" in row.reason

    def test_an_unreadable_file(
        self, save_discs: Save, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        save_discs("in/a.png")
        save_discs("in/b.png")
        opened = Path.open

        def refuse(self: Path, *args: object, **kwargs: object) -> object:
            if self.name == "a.png":
                raise PermissionError(errno.EACCES, "Permission denied", str(self))
            return opened(self, *args, **kwargs)

        monkeypatch.setattr(Path, "open", refuse)  # root may read everything, so the system will not refuse
        rows = segment_files([tmp_path / "in"], job)
        assert statuses(rows) == ["failed", "done"]
        assert rows[0].reason == f"{tmp_path / 'in' / 'a.png'}: the file cannot be read (Permission denied)"

    def test_the_unexpected_is_one_line_too(
        self, save_discs: Save, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        save_discs("in/a.png")
        save_discs("in/b.png")
        read = files.read_image

        def fail(path: Path, **reading: object) -> object:
            if path.name == "a.png":
                raise RuntimeError("first line\nsecond line")
            return read(path, **reading)

        monkeypatch.setattr(files, "read_image", fail)
        rows = segment_files([tmp_path / "in"], job)
        assert statuses(rows) == ["failed", "done"]
        assert rows[0].reason == f"{rows[0].file}: unexpected RuntimeError: first line second line"

    def test_out_of_memory_stops_one_image(
        self, save_discs: Save, job: Job, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object, **__: object) -> object:
            raise MemoryError

        monkeypatch.setattr(files, "look_at", fail)
        (row,) = segment_files([save_discs("a.png")], job)
        assert row.reason == f"{row.file}: not enough memory for an image of this size"

    @pytest.mark.parametrize("end", PRODUCTS)
    def test_disk_full_leaves_no_result_that_would_be_skipped(
        self, save_discs: Save, job: Job, monkeypatch: pytest.MonkeyPatch, end: str
    ) -> None:
        path = save_discs("a.png")
        assert statuses(segment_files([path], job)) == ["done"]
        again = dataclasses.replace(job, overwrite=True)
        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", _full_for(end))
            (row,) = segment_files([path], again)
        assert row.status == "failed"
        assert "cannot be written (No space left on device); free space" in row.reason
        # nor can what was there before take its name again
        assert not all((job.out / f"a{product}").exists() for product in PRODUCTS)
        assert statuses(segment_files([path], job)) == ["done"]

    def test_a_full_disk_at_the_summary(
        self, save_discs: Save, job: Job, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "replace", _full_for("summary.csv"))
        with pytest.raises(NuxelError, match=r"summary\.csv: cannot be written \(No space left on device\)"):
            segment_files([save_discs("a.png")], job)
        assert json.loads((job.out / "run.json").read_text())["images"]["done"] == 1

    def test_a_file_in_the_way_of_a_sub_folder(self, save_discs: Save, job: Job, tmp_path: Path) -> None:
        save_discs("in/plate/a.png")
        save_discs("in/b.png")
        job.out.mkdir()
        (job.out / "plate").write_text("in the way")
        rows = segment_files([tmp_path / "in"], job)
        assert statuses(rows) == ["done", "failed"]
        assert "a_labels.tif: cannot be written (" in rows[1].reason

    def test_a_folder_in_the_way_of_a_product(self, save_discs: Save, job: Job) -> None:
        (job.out / "a_labels.tif").mkdir(parents=True)
        (row,) = segment_files([save_discs("a.png")], job)
        assert "a_labels.tif: cannot be written (" in row.reason


def _full_for(end: str) -> Callable[[Path, Path], None]:
    """``os.replace`` on a disk that has no room for one file."""
    move = os.replace

    def refuse(source: Path, target: Path) -> None:
        if str(target).endswith(end):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        move(source, target)

    return refuse


class TestRefusedBeforeAnythingIsWritten:
    def test_two_inputs_with_one_output(self, save_discs: Save, job: Job) -> None:
        inputs = [save_discs("a.png"), save_discs("a.tif")]
        with pytest.raises(UsageError, match=r"a\.png and .*a\.tif would both write"):
            segment_files(inputs, job)
        assert not job.out.exists()

    def test_the_same_name_in_two_folders(self, save_discs: Save, job: Job, tmp_path: Path) -> None:
        save_discs("x/a.png")
        save_discs("y/a.png")
        with pytest.raises(UsageError, match="both write"):
            segment_files([tmp_path / "x", tmp_path / "y"], job)
        assert not job.out.exists()

    def test_no_input(self, job: Job, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        for inputs in ([], [tmp_path / "empty"], [tmp_path / "absent.png"], [str(tmp_path / "*.png")]):
            with pytest.raises(UsageError):
                segment_files(inputs, job)
        assert not job.out.exists()

    def test_an_output_folder_that_is_a_file(self, save_discs: Save, job: Job) -> None:
        job.out.write_text("in the way")
        with pytest.raises(UsageError, match=r"out: the output folder cannot be written \(File exists\)"):
            segment_files([save_discs("a.png")], job)

    def test_an_output_folder_below_a_file(self, save_discs: Save, job: Job) -> None:
        path = save_discs("a.png")
        with pytest.raises(UsageError, match="the output folder cannot be written"):
            segment_files([path], dataclasses.replace(job, out=path / "out"))

    def test_an_output_folder_that_refuses(
        self, save_discs: Save, job: Job, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        path = save_discs("a.png")
        monkeypatch.setattr(Path, "open", refuse)
        with pytest.raises(UsageError, match="Read-only file system"):
            segment_files([path], job)

    def test_tiles_below_the_stride(self, model: Model, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="the tile size must be at least 16 pixels, got 15"):
            Job(model, tmp_path, Options(tile_size=15))

    @pytest.mark.parametrize("size", [0, -1, float("nan"), 3.25e-7, 1e6])
    def test_an_impossible_pixel_size(self, size: float) -> None:
        with pytest.raises(UsageError, match="pixel size must be a number of micrometres"):
            Reading(pixel_size_um=size)

    def test_an_input_in_the_place_of_a_product(self, save_discs: Save, job: Job) -> None:
        named = [save_discs("out/a.png"), save_discs("out/a_overlay.png")]
        before = named[1].read_bytes()
        for overwrite in (False, True):
            with pytest.raises(UsageError, match=r"a_overlay\.png: would be replaced by a result"):
                segment_files(named, dataclasses.replace(job, overwrite=overwrite))
        assert named[1].read_bytes() == before


class TestFilesOfAnotherHand:
    """Are never replaced unless that is asked for."""

    @pytest.mark.parametrize(
        "name",
        ["a_nuclei.csv", "a_overlay.png", "a_attention.png", "summary.csv", "run.json", "run_lengths.csv"],
    )
    def test_beside_no_label_image(self, save_discs: Save, job: Job, name: str) -> None:
        path = save_discs("a.png")
        mine = save_discs(f"out/{name}") if name.endswith(".png") else job.out / name
        if not name.endswith(".png"):
            job.out.mkdir()
            mine.write_text("file,label\nmine,1\n")
        before = mine.read_bytes()
        drawn = job
        if name in ("a_attention.png", "run_lengths.csv"):
            assert statuses(segment_files([path], job)) == ["done"]  # it is in nobody's way
        if name == "run_lengths.csv":
            drawn = dataclasses.replace(job, formats=("run-length",))
            with pytest.raises(
                UsageError, match=rf"{name}: exists already, and is not as nuxel segment wrote"
            ):
                segment_files([path], drawn)
        elif name != "a_attention.png":
            with pytest.raises(
                UsageError, match=rf"{name}: exists already, and is not as nuxel segment wrote"
            ):
                segment_files([path], drawn)
            assert names_in(job.out) == [name]
        assert mine.read_bytes() == before
        assert statuses(segment_files([path], dataclasses.replace(drawn, overwrite=True))) == ["done"]

    @pytest.mark.parametrize(
        ("name", "text"),
        [("a_nuclei.csv", "label,source,score\n1,human,\n"), ("summary.csv", "file,status,reason,human\n")],
    )
    def test_what_nuxel_propagate_wrote(self, save_discs: Save, job: Job, name: str, text: str) -> None:
        path = save_discs("a.png")
        job.out.mkdir()
        (job.out / name).write_text(text)
        with pytest.raises(UsageError, match=rf"{name}: exists already, and is not as nuxel segment wrote"):
            segment_files([path], job)
        assert (job.out / name).read_text() == text

    def test_what_cannot_be_looked_at(
        self, save_discs: Save, job: Job, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path, opened = save_discs("a.png"), Path.open
        job.out.mkdir()
        (job.out / "a_overlay.png").write_text("mine")

        def refuse(self: Path, *args: object, **kwargs: object) -> object:
            if self.name == "a_overlay.png":
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
            return opened(self, *args, **kwargs)

        monkeypatch.setattr(Path, "open", refuse)  # root may read everything, so the system will not refuse
        with pytest.raises(UsageError, match=r"a_overlay\.png: exists already"):
            segment_files([path], job)

    def test_a_table_that_a_person_replaced(self, save_discs: Save, job: Job) -> None:
        path = save_discs("a.png")
        assert statuses(segment_files([path], job)) == ["done"]
        (job.out / "a_nuclei.csv").write_text("mine\n")
        with pytest.raises(
            UsageError, match=r"a_nuclei\.csv: exists already, and is not as nuxel segment wrote"
        ):
            segment_files([path], dataclasses.replace(job, options=Options(scale=1, threshold=0.6)))
        assert (job.out / "a_nuclei.csv").read_text() == "mine\n"

    @pytest.mark.parametrize("end", PRODUCTS[1:])
    def test_what_a_killed_run_left_is_no_such(self, save_discs: Save, job: Job, end: str) -> None:
        path = save_discs("a.png")
        reading = dataclasses.replace(job, reading=Reading(pixel_size_um=0.5))
        for one in (job, reading):
            assert statuses(segment_files([path], dataclasses.replace(one, overwrite=True))) == ["done"]
            for other in set(PRODUCTS) - {end}:
                (job.out / f"a{other}").unlink()
            assert statuses(segment_files([path], one)) == ["done"]


def _write_set(folder: Path, discs: np.ndarray) -> list[Path]:
    """Two channels of one OME-TIFF image, each in a file of its own that describes both."""
    folder.mkdir()
    names = ["s_C0.ome.tif", "s_C1.ome.tif"]
    planes = "".join(
        f'<TiffData FirstC="{i}" IFD="0" PlaneCount="1"><UUID FileName="{name}">urn:uuid:{i}</UUID></TiffData>'
        for i, name in enumerate(names)
    )
    for i, name in enumerate(names):
        ome = (
            f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{i}"><Image ID="Image:0">'
            f'<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="{discs.shape[1]}" '
            f'SizeY="{discs.shape[0]}" SizeC="2" SizeZ="1" SizeT="1"><Channel ID="Channel:0:0" Name="405"/>'
            f'<Channel ID="Channel:0:1" Name="488"/>{planes}</Pixels></Image></OME>'
        )
        pixels = discs if i else np.zeros_like(discs)
        tifffile.imwrite(folder / name, pixels, description=ome, metadata=None)
    return [folder / name for name in names]


class TestImagesInSeveralFiles:
    @pytest.fixture
    def members(self, tmp_path: Path, draw_discs: Callable[..., np.ndarray]) -> list[Path]:
        return _write_set(tmp_path / "set", draw_discs())

    @pytest.fixture
    def job(self, job: Job) -> Job:
        return dataclasses.replace(job, reading=Reading(channel="488"))

    def test_are_done_once(self, members: list[Path], job: Job) -> None:
        job = dataclasses.replace(job, formats=("run-length",))
        for first in ("done", "skipped"):
            rows = segment_files([members[0].parent], job)
            assert statuses(rows) == [first, "skipped"]
            assert rows[0].nuclei == 4
            assert rows[1].nuclei is None
            assert rows[1].reason == "belongs to the OME-TIFF set of s_C0.ome.tif, see there"
        assert not list(job.out.glob("s_C1*"))
        assert (job.out / "run_lengths.csv").read_text().count("\n") == 5

    def test_without_the_first_file_the_next_stands_for_the_set(self, members: list[Path], job: Job) -> None:
        third = members[1].with_name("s_C2.ome.tif")
        third.write_bytes(members[1].read_bytes())
        rows = segment_files([members[1]], job)
        assert statuses(rows) == ["done"]
        assert rows[0].nuclei == 4

    def test_positions_of_one_plate_are_one_set_too(
        self, tmp_path: Path, draw_discs: Callable[..., np.ndarray], job: Job
    ) -> None:
        """Each file holds one image of those that its description names, and none spans two files."""
        discs = draw_discs()
        images = "".join(
            f'<Image ID="Image:{i}"><Pixels ID="Pixels:{i}" DimensionOrder="XYCZT" Type="uint8" SizeX="96" SizeY="96" '
            f'SizeC="1" SizeZ="1" SizeT="1"><Channel ID="Channel:{i}:0"/><TiffData IFD="0" PlaneCount="1"><UUID '
            f'FileName="p{i}.ome.tif">urn:uuid:{i}</UUID></TiffData></Pixels></Image>'
            for i in range(2)
        )
        for i in range(2):
            ome = f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{i}">{images}</OME>'
            path = tmp_path / "plate" / f"p{i}.ome.tif"
            path.parent.mkdir(exist_ok=True)
            tifffile.imwrite(path, discs if i else np.zeros_like(discs), description=ome, metadata=None)
        rows = segment_files([tmp_path / "plate"], dataclasses.replace(job, reading=Reading(t=1)))
        assert [(row.status, row.nuclei) for row in rows] == [("done", 4), ("skipped", None)]

    def test_each_of_them_stands_for_all(self, members: list[Path], job: Job) -> None:
        (row,) = segment_files([members[1]], job)
        assert (row.status, row.nuclei) == ("done", 4)

    def test_a_change_in_another_of_them_is_seen(self, members: list[Path], job: Job) -> None:
        assert statuses(segment_files([members[0]], job)) == ["done"]
        assert statuses(segment_files([members[0]], job)) == ["skipped"]
        with tifffile.TiffFile(members[1]) as file:
            offset, length = file.pages.first.dataoffsets[0], file.pages.first.databytecounts[0]
        with members[1].open("r+b") as file:
            file.seek(offset)
            file.write(bytes(length))
        (row,) = segment_files([members[0]], job)
        assert (row.status, row.nuclei) == ("done", 0)


class TestSecondRun:
    @pytest.fixture
    def path(self, save_discs: Save, job: Job) -> Path:
        path = save_discs("a.png")
        assert statuses(segment_files([path], job)) == ["done"]
        return path

    def test_skips_what_is_done(self, path: Path, job: Job) -> None:
        before = {name: (job.out / name).stat().st_mtime_ns for name in names_in(job.out) if name[0] == "a"}
        (row,) = segment_files([path], job)
        assert (row.status, row.reason, row.nuclei, row.seconds) == ("skipped", "done before", 4, 0)
        after = {name: (job.out / name).stat().st_mtime_ns for name in before}
        assert after == before

    def test_what_was_said_of_it_is_said_again(self, path: Path, job: Job, monkeypatch) -> None:
        monkeypatch.setattr(files, "warning_of", lambda *_: "its size is doubtful")
        assert (
            segment_files([path], dataclasses.replace(job, overwrite=True))[0].reason
            == "its size is doubtful"
        )
        for _ in range(2):
            (row,) = segment_files([path], job)
            assert row.reason == "done before; its size is doubtful"

    def test_the_row_names_the_input_as_it_is_named_now(
        self, path: Path, job: Job, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(path.parent)
        (row,) = segment_files(["a.png"], job)
        assert (row.status, row.file) == ("skipped", "a.png")

    def test_other_bytes(self, path: Path, job: Job, save_discs: Save) -> None:
        save_discs("a.png", 9)
        (row,) = segment_files([path], job)
        assert (row.status, row.nuclei) == ("done", 9)

    def test_another_model(self, path: Path, job: Job, make_toy_model: Save) -> None:
        other = Model(make_toy_model(title="another"), threads=1)
        assert statuses(segment_files([path], dataclasses.replace(job, model=other))) == ["done"]

    @pytest.mark.parametrize(
        "change", [{"threshold": 0.6}, {"min_area": 3}, {"scale": 2.0}, {"scale": None, "diameter": 14.0}]
    )
    def test_another_parameter(self, path: Path, job: Job, change: dict[str, float]) -> None:
        changed = dataclasses.replace(job, options=dataclasses.replace(job.options, **change))
        assert statuses(segment_files([path], changed)) == ["done"]
        assert statuses(segment_files([path], changed)) == ["skipped"]
        assert statuses(segment_files([path], job)) == ["done"]

    def test_another_reading(self, path: Path, job: Job) -> None:
        changed = dataclasses.replace(job, reading=Reading(pixel_size_um=0.5))
        assert statuses(segment_files([path], changed)) == ["done"]

    def test_another_version_of_nuxel(self, path: Path, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(files, "__version__", "99.0")
        assert statuses(segment_files([path], job)) == ["done"]

    def test_tiles_and_threads_change_no_result(self, path: Path, job: Job, toy_model: Path) -> None:
        changed = Job(Model(toy_model, threads=2), job.out, Options(scale=1, tile_size=32))
        assert statuses(segment_files([path], changed)) == ["skipped"]

    @pytest.mark.parametrize("end", PRODUCTS)
    def test_a_missing_product(self, path: Path, job: Job, end: str) -> None:
        (job.out / f"a{end}").unlink()
        assert statuses(segment_files([path], job)) == ["done"]
        assert (job.out / f"a{end}").is_file()

    @pytest.mark.parametrize("end", PRODUCTS)
    def test_an_empty_product(self, path: Path, job: Job, end: str) -> None:
        (job.out / f"a{end}").write_bytes(b"")
        assert statuses(segment_files([path], job)) == ["done"]
        assert (job.out / f"a{end}").stat().st_size

    @pytest.mark.parametrize("content", [b"", b"II*\x00 and then nothing"])
    def test_a_label_image_that_does_not_vouch(self, path: Path, job: Job, content: bytes) -> None:
        (job.out / "a_labels.tif").write_bytes(content)
        assert statuses(segment_files([path], job)) == ["done"]

    def test_a_label_image_of_another_hand(self, path: Path, job: Job) -> None:
        """Is never replaced unless that is asked for, whether it says nothing of itself or something else."""
        mine = job.out / "a_labels.tif"
        for description in ("{}", "[]", "drawn by hand", '{"propagated": "a model"}', None, "no TIFF"):
            if description == "no TIFF":
                mine.write_bytes(b"labels")
            else:
                tifffile.imwrite(mine, np.zeros((96, 96), np.int32), description=description)
            before = mine.read_bytes()
            with pytest.raises(
                UsageError, match=r"a_labels\.tif: exists already, and is not as nuxel segment"
            ):
                segment_files([path], job)
            assert mine.read_bytes() == before
        assert statuses(segment_files([path], dataclasses.replace(job, overwrite=True))) == ["done"]

    def test_overwrite(self, path: Path, job: Job) -> None:
        assert statuses(segment_files([path], dataclasses.replace(job, overwrite=True))) == ["done"]


def test_a_result_that_cannot_be_written_leaves_the_earlier_one(save_discs: Save, job: Job) -> None:
    image = save_discs("in/a.png")
    assert statuses(segment_files([image], job)) == ["done"]
    table = job.out / "a_nuclei.csv"
    table.unlink()
    table.mkdir()
    (table / "in_the_way").write_text("")
    before = {end: (job.out / f"a{end}").read_bytes() for end in ("_labels.tif", "_overlay.png")}
    again = dataclasses.replace(job, options=Options(scale=1, threshold=0.9), overwrite=True)
    (row,) = segment_files([image], again)
    assert row.status == "failed"
    assert "a_nuclei.csv: cannot be written" in row.reason
    assert {end: (job.out / f"a{end}").read_bytes() for end in before} == before
    assert not [name for name in names_in(job.out) if name.startswith(".")]


SLOW_RUN = """
import sys, time
from pathlib import Path
from nuxel.export import atomic
from nuxel.predict import files
from nuxel.predict.model import Model
from nuxel.predict.pipeline import Options

replace = atomic.os.replace
def slow(part, target):  # so that the kill falls while a file stands half written beside its name
    if Path(target).name.startswith("c_labels"):
        Path(part).write_bytes(Path(part).read_bytes()[:100])
        print("now", flush=True)
        time.sleep(60)
    replace(part, target)
atomic.os.replace = slow
files.segment_files([sys.argv[1]], files.Job(Model(sys.argv[2], threads=1), Path(sys.argv[3]), Options(scale=1)))
"""

SLOW_COMMAND = """
import sys, time
from nuxel.cli.main import main
from nuxel.predict import files

write, written = files.write_overlay, []
def slow(path, *rest):
    written.append(path)
    if len(written) == 2:  # while the second image is being written
        print("now", flush=True)
        time.sleep(2)
    write(path, *rest)
files.write_overlay = slow
main(["segment", sys.argv[1], "--model", sys.argv[2], "--out", sys.argv[3], "--scale", "1", "--threads", "1"])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there, to signal a process is to end it")
def test_a_run_that_is_told_to_end_leaves_nothing_half_written(
    save_discs: Save, job: Job, toy_model: Path, tmp_path: Path
) -> None:
    for name in "abc":
        save_discs(f"in/{name}.png")
    arguments = [sys.executable, "-c", SLOW_COMMAND, tmp_path / "in", toy_model, job.out]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as run:
        assert run.stdout
        assert run.stdout.readline() == b"now\n"
        run.send_signal(signal.SIGTERM)
        assert run.wait(30) == 128 + signal.SIGTERM
    assert not [name for name in names_in(job.out) if name.startswith(".")]
    # each image that is done has a row, and each row an image
    rows = read_csv(job.out / "summary.csv")
    assert {row["status"] for row in rows} == {"done"}
    assert len(rows) == sum(name.endswith("_labels.tif") for name in names_in(job.out))
    assert statuses(segment_files([tmp_path / "in"], job))[-1] == "done"


def test_a_killed_run_leaves_no_half_file_and_is_continued(
    save_discs: Save, job: Job, toy_model: Path, tmp_path: Path
) -> None:
    for name in "abcd":
        save_discs(f"in/{name}.png")
    arguments = [sys.executable, "-c", SLOW_RUN, tmp_path / "in", toy_model, job.out]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as run:
        assert run.stdout
        assert run.stdout.readline() == b"now\n"
        run.send_signal(signal.SIGKILL)
        run.wait(30)
    visible = [name for name in names_in(job.out) if not name.startswith(".")]
    assert visible == sorted(
        [f"{n}{end}" for n in "ab" for end in PRODUCTS] + ["c_nuclei.csv", "c_overlay.png"]
    )
    for name in visible:
        if name.endswith(".tif"):
            assert read_labels(job.out / name).max() == 4
        elif name.endswith(".png"):
            Image.open(job.out / name).load()
        else:
            assert len(read_csv(job.out / name)) == 4
    rows = segment_files([tmp_path / "in"], job)
    assert statuses(rows) == ["skipped", "skipped", "done", "done"]
    assert [row.nuclei for row in rows] == [4, 4, 4, 4]


def test_an_image_that_is_being_finished_when_the_run_is_interrupted_is_done(
    save_discs: Save, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interruption comes while the second image is looked at and before the first has anything written."""
    for name in "ab":
        save_discs(f"in/{name}.png")
    interrupted, decode, look = threading.Event(), files.decode_seen, files.look_at
    looks: list[int] = []

    def wait_and_decode(*given: Any) -> Any:
        assert interrupted.wait(30)
        time.sleep(0.2)
        return decode(*given)

    def look_or_interrupt(*given: Any) -> Any:
        if looks:
            interrupted.set()
            raise KeyboardInterrupt
        looks.append(1)
        return look(*given)

    several = dataclasses.replace(job, model=Model(job.model.path, threads=2))
    monkeypatch.setattr(files, "decode_seen", wait_and_decode)
    monkeypatch.setattr(files, "look_at", look_or_interrupt)
    with pytest.raises(KeyboardInterrupt):
        segment_files([tmp_path / "in"], several)
    assert [(row["status"], row["reason"]) for row in read_csv(job.out / "summary.csv")] == [("done", "")]
    assert (job.out / "a_labels.tif").exists()


class TestRecords:
    def test_size_and_scale(
        self, save_discs: Save, make_toy_model: Callable[..., Path], tmp_path: Path
    ) -> None:
        model = Model(make_toy_model(diameters=(32.0, 64.0)), threads=1)
        (row,) = segment_files([save_discs("a.png")], Job(model, tmp_path / "out"))
        assert row.diameter == pytest.approx(16)
        assert row.scale == pytest.approx((32 * 64) ** 0.5 / 16)
        (line,) = read_csv(tmp_path / "out" / "summary.csv")
        assert (float(line["diameter"]), float(line["scale"])) == pytest.approx((16, 2.82843))

    def test_a_doubtful_pixel_size(self, save_discs: Save, toy_model: Path, tmp_path: Path) -> None:
        job = Job(Model(toy_model, threads=1), tmp_path / "out", reading=Reading(pixel_size_um=0.01))
        (row,) = segment_files([save_discs("a.png")], job)
        assert "um across" in row.reason

    def test_what_was_read_and_where_it_ran(self, save_discs: Save, toy_model: Path, tmp_path: Path) -> None:
        job = Job(Model(toy_model, threads=1), tmp_path / "out", Options(scale=1), Reading(pixel_size_um=0.5))
        (row,) = segment_files([save_discs("a.png")], job)
        record = json.loads((job.out / "run.json").read_text())
        assert record["parameters"]["pixel_size_um"] == 0.5
        assert record["provider"] == "CPUExecutionProvider"
        assert record["seconds"] >= row.seconds > 0
        assert record["started"][:4] >= "2024"

    def test_columns_have_the_names_of_the_channels(
        self, toy_model: Path, tmp_path: Path, draw_discs: Callable[..., np.ndarray]
    ) -> None:
        Image.fromarray(np.stack([draw_discs()] * 3, 2)).save(tmp_path / "c.png")
        segment_files(
            [tmp_path / "c.png"], Job(Model(toy_model, threads=1), tmp_path / "out", Options(scale=1))
        )
        assert "mean_green" in (tmp_path / "out" / "c_nuclei.csv").read_text().splitlines()[0]


def test_more_nuclei_than_16_bits_count(toy_model: Path, tmp_path: Path) -> None:
    """In every product: 270 x 270 squares of 4 x 4 pixels, 2 apart."""
    square = np.zeros((6, 6), np.uint8)
    square[1:5, 1:5] = 200
    Image.fromarray(np.tile(square, (270, 270))).save(tmp_path / "many.png")
    how = Options(scale=1, min_area=1)
    job = Job(Model(toy_model, threads=1), tmp_path / "out", how, formats=("run-length",))
    (row,) = segment_files([tmp_path / "many.png"], job)
    assert row.nuclei == 270 * 270 > 2**16
    labels = read_labels(job.out / "many_labels.tif")
    assert np.array_equal(np.unique(labels), np.arange(270 * 270 + 1))
    table = read_csv(job.out / "many_nuclei.csv")
    assert [int(line["label"]) for line in table] == list(range(1, 270 * 270 + 1))
    last = table[-1]
    inside = np.argwhere(labels == 270 * 270)
    assert (float(last["centroid_y"]), float(last["centroid_x"])) == pytest.approx(tuple(inside.mean(0)))
    assert len(read_csv(job.out / "run_lengths.csv")) == 270 * 270
    with Image.open(job.out / "many_overlay.png") as overlay:
        assert overlay.size == (1620, 1620)
        corner = np.asarray(overlay.convert("RGB"))[-6:, -6:]
    assert np.ptp(corner, axis=2).max() > 50  # the last one has its outline, in a colour


@pytest.mark.parametrize("held", ['{"mine": 1}', '{\n "nuxel": "0.1.0",\n "threshold": 0.5\n}'])
def test_a_json_file_of_a_person_or_of_nuxel_evaluate_is_kept(save_discs: Save, job: Job, held: str) -> None:
    job.out.mkdir(parents=True)
    (job.out / "run.json").write_text(held)
    with pytest.raises(UsageError, match=r"run\.json: exists already"):
        segment_files([save_discs("a.png")], job)
    assert (job.out / "run.json").read_text() == held


def test_a_link_to_an_input_in_the_place_of_a_product(
    save_discs: Save, toy_model: Path, tmp_path: Path
) -> None:
    job = Job(Model(toy_model, threads=1), tmp_path / "out", Options(scale=1), overwrite=True)
    one, other = save_discs("a.png"), save_discs("b.png")
    job.out.mkdir()
    (job.out / "a_overlay.png").symlink_to(other)
    with pytest.raises(UsageError, match="would be replaced by a result"):
        segment_files([one, other], job)


def test_a_run_that_is_interrupted_records_what_it_did(save_discs: Save, job: Job, tmp_path: Path) -> None:
    for name in "ab":
        save_discs(f"in/{name}.png")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        segment_files([tmp_path / "in"], job, interrupt)
    assert [row["status"] for row in read_csv(job.out / "summary.csv")] == ["done"]
