import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest

from nuxel.errors import NuxelError
from nuxel.export.run_record import SummaryRow, write_run_record, write_summary

HEADER = "file,status,reason,nuclei,mean_area,per_megapixel,per_mm2,scale,diameter,seconds"


def record(tmp_path, **entries):
    write_run_record(tmp_path / "run.json", entries)
    return (tmp_path / "run.json").read_bytes().decode("utf-8")


def test_a_known_summary(tmp_path):
    rows = [
        SummaryRow("a.tif", "done", nuclei=12, mean_area=310.25, per_megapixel=45.5, scale=0.5, seconds=1.0),
        SummaryRow("b,c.tif", "failed", reason='it is "odd"'),
    ]
    write_summary(tmp_path / "summary.csv", rows)
    assert (tmp_path / "summary.csv").read_bytes().decode() == (
        f'{HEADER}\na.tif,done,,12,310.25,45.5,,0.5,,1\n"b,c.tif",failed,"it is ""odd""",,,,,,,\n'
    )


def test_a_summary_reads_back_with_commas_and_line_ends(tmp_path):
    reason = "first line\nsecond, line"
    write_summary(tmp_path / "summary.csv", iter([SummaryRow("µ/ä.tif", "failed", reason=reason)]))
    with (tmp_path / "summary.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert (row["file"], row["reason"]) == ("µ/ä.tif", reason)


def test_a_run_without_inputs_has_a_header(tmp_path):
    write_summary(tmp_path / "summary.csv", [])
    assert (tmp_path / "summary.csv").read_text() == HEADER + "\n"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, np.float64("nan")])
def test_what_is_unknown_is_an_empty_field(tmp_path, value):
    write_summary(tmp_path / "summary.csv", [SummaryRow("a", "done", nuclei=0, mean_area=value)])
    assert (tmp_path / "summary.csv").read_text().splitlines()[1] == "a,done,,0,,,,,,"


@pytest.mark.parametrize("area", [1234.56789, np.float64(1234.56789), np.float32(1234.56789)])
def test_floats_of_any_kind_have_six_digits(tmp_path, area):
    write_summary(
        tmp_path / "summary.csv", [SummaryRow("a", "done", mean_area=area, nuclei=np.int64(1_234_567))]
    )
    assert (tmp_path / "summary.csv").read_text().splitlines()[1] == "a,done,,1234567,1234.57,,,,,"


def test_file_names_that_are_no_text_do_not_stop_the_run(tmp_path):
    name = os.fsdecode(b"scan\xff.tif")
    write_summary(tmp_path / "summary.csv", [SummaryRow(name, "done")])
    assert r"scan\udcff.tif,done" in (tmp_path / "summary.csv").read_text(encoding="utf-8")
    assert json.loads(record(tmp_path, file=name)) == {"file": name}


def test_a_known_record(tmp_path):
    assert record(tmp_path, b=1, a={"d": [1, 2.5], "c": "µm"}) == (
        '{\n  "a": {\n    "c": "µm",\n    "d": [\n      1,\n      2.5\n    ]\n  },\n  "b": 1\n}\n'
    )


def test_numbers_of_numpy_and_paths_become_plain(tmp_path):
    found = record(
        tmp_path,
        count=np.int64(3),
        score=np.float32(0.5),
        flag=np.bool_(True),
        shape=(4, 5),
        values=np.array([[1.0, np.nan]]),
        names={"b", "a"},
        path=Path("in") / "a.tif",
        nothing=None,
    )
    assert json.loads(found) == {
        "count": 3,
        "score": 0.5,
        "flag": True,
        "shape": [4, 5],
        "values": [[1.0, None]],
        "names": ["a", "b"],
        "path": os.path.join("in", "a.tif"),
        "nothing": None,
    }


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), np.float32("nan")])
def test_what_is_not_finite_is_null(tmp_path, value):
    assert json.loads(record(tmp_path, deep=[{"value": value}])) == {"deep": [{"value": None}]}


def test_keys_that_are_no_text_become_text(tmp_path):
    assert json.loads(record(tmp_path, folds={1: "a", 10: "b"})) == {"folds": {"1": "a", "10": "b"}}


def test_what_json_cannot_hold_leaves_no_file(tmp_path):
    with pytest.raises(TypeError):
        record(tmp_path, odd=object())
    assert list(tmp_path.iterdir()) == []


def test_files_that_cannot_be_written_are_named(tmp_path):
    with pytest.raises(NuxelError, match=r"summary\.csv: cannot be written"):
        write_summary(tmp_path / "nowhere" / "summary.csv", [])
    with pytest.raises(NuxelError, match=r"run\.json: cannot be written"):
        write_run_record(tmp_path / "nowhere" / "run.json", {})
