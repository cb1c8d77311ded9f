import numpy as np
import pytest

from nuxel.measure.table import NucleusTable


def test_a_table_knows_its_rows_and_columns():
    table = NucleusTable({"label": np.array([1, 2, 3]), "area": np.array([4, 5, 6])})
    assert len(table) == 3
    assert list(table.columns) == ["label", "area"]
    assert table["area"].tolist() == [4, 5, 6]


def test_a_table_may_be_empty():
    assert len(NucleusTable({})) == 0
    assert len(NucleusTable({"label": np.empty(0, int)})) == 0


@pytest.mark.parametrize("area", [np.ones(2), np.ones((3, 1)), np.float64(1)])
def test_columns_must_be_equally_long_and_flat(area):
    with pytest.raises(ValueError, match="equally long"):
        NucleusTable({"label": np.array([1, 2, 3]), "area": area})


def test_an_unknown_column_is_a_key_error():
    with pytest.raises(KeyError):
        NucleusTable({"label": np.array([1])})["area"]
