import numpy as np
import pytest

from nuxel.instances import Instances
from nuxel.measure.nuclei import measure_nuclei

SHAPE_COLUMNS = [
    "label",
    "centroid_y",
    "centroid_x",
    "y0",
    "x0",
    "y1",
    "x1",
    "area",
    "perimeter",
    "major_axis",
    "minor_axis",
    "eccentricity",
    "solidity",
]


def grey(shape):
    return np.zeros((*shape, 1), np.uint8)


def measured(labels, **options):
    labels = np.asarray(labels, np.int32)
    return measure_nuclei(Instances(labels), grey(labels.shape), channel_names=["g"], **options)


def test_columns_of_one_channel():
    expected = [*SHAPE_COLUMNS, "mean_intensity", "min_intensity", "max_intensity", "score", "touches_edge"]
    assert list(measured(np.ones((3, 3))).columns) == expected


def test_columns_of_three_channels():
    labels = np.ones((3, 3), np.int32)
    names = ["red", "green", "blue"]
    table = measure_nuclei(Instances(labels), np.zeros((3, 3, 3)), channel_names=names)
    intensities = [f"{what}_{name}" for name in names for what in ("mean", "min", "max")]
    assert list(table.columns) == [*SHAPE_COLUMNS, *intensities, "score", "touches_edge"]


def test_names_that_are_empty_or_doubled_are_told_apart():
    labels = np.ones((3, 3), np.int32)
    pixels = np.zeros((3, 3, 4)) + np.arange(4)
    table = measure_nuclei(Instances(labels), pixels, channel_names=["DAPI", "GFP", "DAPI", ""])
    found = {name: value.item() for name, value in table.columns.items() if name.startswith("mean_")}
    assert found == {"mean_DAPI_0": 0, "mean_GFP_1": 1, "mean_DAPI_2": 2, "mean_channel_3": 3}
    for names in (["a", "a", "a_1", "b"], ["channel_1", "", "x", "y"], ["", "", "channel", "channel_0"]):
        table = measure_nuclei(Instances(labels), pixels, channel_names=names)
        assert sum(name.startswith("mean_") for name in table.columns) == 4


def test_a_known_rectangle():
    labels = np.zeros((10, 20), np.int32)
    labels[2:5, 7:13] = 1
    table = measured(labels)
    found = {name: column.item() for name, column in table.columns.items()}
    assert (found["y0"], found["x0"], found["y1"], found["x1"]) == (2, 7, 5, 13)
    assert (found["centroid_y"], found["centroid_x"]) == (3.0, 9.5)
    assert found["area"] == 18
    assert found["perimeter"] == 14
    assert found["major_axis"] == pytest.approx(4 * np.sqrt((6**2 - 1) / 12))
    assert found["minor_axis"] == pytest.approx(4 * np.sqrt((3**2 - 1) / 12))
    assert found["eccentricity"] == pytest.approx(np.sqrt(1 - 8 / 35))
    assert found["solidity"] == 1
    assert found["touches_edge"] == 0


def test_micrometres_stand_beside_pixels():
    labels = np.zeros((10, 20), np.int32)
    labels[2:5, 7:13] = 1
    table = measured(labels, pixel_size_um=0.5)
    names = list(table.columns)
    for name in ("centroid_y", "centroid_x", "perimeter", "major_axis", "minor_axis"):
        assert names[names.index(name) + 1] == f"{name}_um"
        assert table[f"{name}_um"][0] == table[name][0] / 2
    assert names[names.index("area") + 1] == "area_um2"
    assert table["area_um2"][0] == 18 / 4
    assert sum("_um" in name for name in names) == 6


@pytest.mark.parametrize(
    ("label_at", "touches"),
    [((0, 2), 1), ((4, 2), 1), ((2, 0), 1), ((2, 6), 1), ((1, 1), 0), ((3, 5), 0), ((2, 4), 0)],
)
def test_touching_the_edge(label_at, touches):
    labels = np.zeros((5, 7), np.int32)
    labels[label_at] = 1
    assert measured(labels)["touches_edge"].tolist() == [touches]


def test_scores_follow_their_nuclei():
    labels = np.array([[2, 0, 1]], np.int32)
    nuclei = Instances(labels, np.array([0.25, 0.75], np.float32))
    table = measure_nuclei(nuclei, grey(labels.shape), channel_names=["g"])
    assert table["score"].tolist() == [0.25, 0.75]
    assert table["centroid_x"].tolist() == [2, 0]


@pytest.mark.parametrize("shape", [(4, 5), (0, 5), (0, 0)])
def test_no_nucleus_gives_the_same_columns_without_rows(shape):
    none = measured(np.zeros(shape), pixel_size_um=0.5)
    assert list(none.columns) == list(measured(np.ones((3, 3)), pixel_size_um=0.5).columns)
    assert len(none) == 0


@pytest.mark.parametrize(
    "labels", [[[1]], [[1, 1, 1]], [[1], [1]], np.eye(4), np.fliplr(np.eye(5)), [[1, 0, 1]]]
)
def test_degenerate_nuclei_are_finite(labels):
    table = measured(labels)
    assert all(np.isfinite(column).all() for column in table.columns.values())
    assert 0 < table["solidity"][0] <= 1
    assert 0 <= table["eccentricity"][0] <= 1
    assert table["minor_axis"][0] == 0


@pytest.mark.parametrize("points", range(2, 28))
def test_rounding_never_gives_a_slanted_line_less_than_no_width(points):
    """The moments of 6, 12, 21 ... points on this line come out just below nothing in floats."""
    steps = np.arange(points)
    labels = np.zeros((3 * points, points), np.int32)
    labels[3 * steps, steps] = 1
    table = measured(labels)
    assert table["minor_axis"][0] < 1e-5
    assert table["eccentricity"][0] <= 1


def test_a_line_is_as_eccentric_as_can_be_and_a_point_is_not():
    assert measured([[1, 1, 1]])["eccentricity"].tolist() == [1]
    assert measured([[1]])["eccentricity"].tolist() == [0]
    assert measured([[1]])["major_axis"].tolist() == [0]


def test_what_is_not_annotated_is_not_measured():
    labels = np.full((6, 6), -1)
    labels[2:4, 2:4] = 1
    assert measured(labels)["area"].tolist() == [4]
    assert measured(labels)["perimeter"].tolist() == measured(np.maximum(labels, 0))["perimeter"].tolist()


def test_a_missing_number_is_refused():
    with pytest.raises(ValueError, match="2 is missing"):
        measured([[1, 3]])


@pytest.mark.parametrize(
    ("pixels", "names"),
    [
        (np.zeros(3), ["g"]),
        (np.zeros((3, 4, 1)), ["g"]),
        (np.zeros((3, 3, 1), complex), ["g"]),
        (np.zeros((3, 3, 1)), ["g", "h"]),
        (np.zeros((3, 3, 2)), ["g"]),
    ],
)
def test_images_that_do_not_fit_are_refused(pixels, names):
    with pytest.raises(ValueError, match=r"pixels must be|as many names"):
        measure_nuclei(Instances(np.ones((3, 3), np.int32)), pixels, channel_names=names)


def test_seventy_thousand_specks_in_a_million_pixels():
    rows, columns = np.mgrid[:265, :265]
    labels = np.zeros((1060, 1060), np.int32)
    numbers = np.arange(1, 265 * 265 + 1, dtype=np.int32).reshape(265, 265)
    for down in (1, 2):
        for right in (1, 2):
            labels[down::4, right::4] = numbers
    table = measured(labels)
    assert len(table) == 70_225
    assert (table["area"] == 4).all()
    assert (table["perimeter"] == 4).all()
    assert (table["solidity"] == 1).all()
    np.testing.assert_array_equal(table["centroid_y"], 4 * rows.ravel() + 1.5)
    np.testing.assert_array_equal(table["centroid_x"], 4 * columns.ravel() + 1.5)
    assert not table["touches_edge"].any()


def test_sums_of_large_integers_do_not_overflow():
    bright = np.full((1, 4, 1), 2**32 - 1, np.uint32)
    table = measure_nuclei(Instances(np.ones((1, 4), np.int32)), bright, channel_names=["grey"])
    assert table["mean_intensity"].tolist() == [2**32 - 1]


def test_an_image_without_channels_or_names():
    nuclei, pixels = Instances(np.array([[1, 1], [0, 2]], np.int32)), np.array([[1, 3], [9, 5]])
    flat = measure_nuclei(nuclei, pixels)
    assert flat["mean_intensity"].tolist() == [2, 5]
    two = measure_nuclei(nuclei, np.stack([pixels, 2 * pixels], -1))
    assert (two["mean_channel_0"].tolist(), two["mean_channel_1"].tolist()) == ([2, 5], [4, 10])
