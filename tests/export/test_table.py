import csv
import io

import numpy as np
import pytest

from nuxel.errors import NuxelError
from nuxel.export.table import write_table
from nuxel.instances import Instances
from nuxel.measure.nuclei import measure_nuclei
from nuxel.measure.table import NucleusTable


def written(tmp_path, **columns):
    write_table(tmp_path / "table.csv", NucleusTable({k: np.asarray(v) for k, v in columns.items()}))
    return (tmp_path / "table.csv").read_bytes().decode("utf-8")


def test_a_known_table(tmp_path):
    text = written(tmp_path, label=[1, 2], area=[10.5, np.nan], mean=[1 / 3, 2.0])
    assert text == "label,area,mean\n1,10.5,0.3333333\n2,,2\n"


def test_an_empty_table_is_its_header(tmp_path):
    assert written(tmp_path, label=np.empty(0, int), area=np.empty(0)) == "label,area\n"


def test_names_are_utf8_and_quoted_where_needed(tmp_path):
    text = written(tmp_path, **{"mean_µ": [1], "mean_a,b": [2], 'mean_"q"': [3], "mean_100%": [4]})
    assert next(csv.reader(io.StringIO(text))) == ["mean_µ", "mean_a,b", 'mean_"q"', "mean_100%"]


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.uint64])
def test_integers_are_exact(tmp_path, dtype):
    top = np.iinfo(dtype).max
    assert written(tmp_path, value=np.array([0, top], dtype)) == f"value\n0\n{top}\n"


def test_booleans_are_zero_and_one(tmp_path):
    assert written(tmp_path, edge=[True, False]) == "edge\n1\n0\n"


def test_floats_keep_seven_digits_however_large_or_small(tmp_path):
    values = np.array([123456.78, 1.2345678e-9, 9.8765432e12, -0.25, 0.0])
    rows = written(tmp_path, value=values).splitlines()[1:]
    np.testing.assert_allclose([float(row) for row in rows], values, rtol=5e-7)
    assert rows[0] == "123456.8"


def test_a_column_with_gaps_prints_its_numbers_like_one_without(tmp_path):
    values = np.random.default_rng(0).normal(size=50)
    rows = written(tmp_path, whole=values, gaps=np.where(np.arange(50) % 7, values, np.nan)).splitlines()[1:]
    pairs = [row.split(",") for row in rows]
    assert [gap for _, gap in pairs] == [whole if i % 7 else "" for i, (whole, _) in enumerate(pairs)]


def test_measurements_come_back(tmp_path):
    labels = np.zeros((20, 30), np.int32)
    labels[2:9, 3:11], labels[12:19, 20:30] = 1, 2
    pixels = np.random.default_rng(0).normal(size=(20, 30, 3)).astype(np.float32)
    table = measure_nuclei(Instances(labels), pixels, channel_names=["r", "g", "b"], pixel_size_um=0.25)
    write_table(tmp_path / "nuclei.csv", table)
    with (tmp_path / "nuclei.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(table.columns)
    for name in table.columns:
        np.testing.assert_allclose([float(row[name]) for row in rows], table[name], rtol=5e-7)


def test_numpy_reads_it_with_gaps_as_nan(tmp_path):
    write_table(tmp_path / "t.csv", NucleusTable({"a": np.array([1, 2]), "b": np.array([np.nan, 0.5])}))
    back = np.genfromtxt(tmp_path / "t.csv", delimiter=",", names=True)
    np.testing.assert_array_equal(back["b"], [np.nan, 0.5])


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(NuxelError, match=r"t\.csv: cannot be written"):
        write_table(tmp_path / "nowhere" / "t.csv", NucleusTable({"a": np.array([1])}))
