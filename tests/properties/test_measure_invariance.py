"""What measuring must not depend on, and how it must follow what it does depend on."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nuxel.instances import Instances
from nuxel.labels.relabel import relabel
from nuxel.measure.nuclei import measure_nuclei

INVARIANT = ("area", "perimeter", "major_axis", "minor_axis", "eccentricity", "solidity")
INTENSITY = ("mean_intensity", "min_intensity", "max_intensity")


@st.composite
def scenes(draw):
    """A label image from coarse blocks, so that nuclei are thicker than a pixel, and a grey image."""
    coarse = draw(
        arrays(np.int32, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.integers(-1, 4))
    )
    down, right = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    labels = relabel(coarse.repeat(down, axis=0).repeat(right, axis=1))
    pixels = draw(arrays(np.uint8, (*labels.shape, 1)))
    return labels, pixels


def measured(labels, pixels, **options):
    return measure_nuclei(Instances(labels), pixels, channel_names=["g"], **options)


def assert_same(ours, theirs, names, order=slice(None)):
    for name in names:
        np.testing.assert_allclose(ours[name][order], theirs[name], atol=1e-6, err_msg=name)


@given(scenes(), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_renumbering_only_permutes_the_rows(scene, random):
    labels, pixels = scene
    count = max(int(labels.max()), 0)
    order = list(range(count))
    random.shuffle(order)
    numbers = np.array([0, *(place + 1 for place in order), -1], np.int32)
    before, after = measured(labels, pixels), measured(numbers[labels], pixels)
    assert_same(after, before, [name for name in before.columns if name != "label"], order)


@given(scenes(), *(st.integers(0, 5) for _ in range(4)))
@settings(max_examples=60)
def test_an_empty_margin_shifts_places_and_nothing_else(scene, top, bottom, left, right):
    labels, pixels = scene
    margin = ((top, bottom), (left, right))
    before = measured(labels, pixels)
    after = measured(np.pad(labels, margin), np.pad(pixels, (*margin, (0, 0))))
    assert_same(after, before, INVARIANT + INTENSITY)
    for name, shift in (("centroid_y", top), ("y0", top), ("y1", top), ("centroid_x", left), ("x0", left)):
        np.testing.assert_allclose(after[name], before[name] + shift, atol=1e-9)
    if min(top, bottom, left, right) > 0:
        assert not after["touches_edge"].any()


@given(scenes())
@settings(max_examples=60)
def test_transposing_swaps_rows_and_columns(scene):
    labels, pixels = scene
    before = measured(labels, pixels)
    after = measured(np.ascontiguousarray(labels.T), pixels.transpose(1, 0, 2))
    assert_same(after, before, (*INVARIANT, *INTENSITY, "touches_edge"))
    for name in ("centroid_{}", "{}0", "{}1"):
        np.testing.assert_allclose(after[name.format("y")], before[name.format("x")], atol=1e-9)
        np.testing.assert_allclose(after[name.format("x")], before[name.format("y")], atol=1e-9)


@given(scenes())
@settings(max_examples=60)
def test_mirroring_changes_no_shape(scene):
    labels, pixels = scene
    before = measured(labels, pixels)
    after = measured(labels[:, ::-1].copy(), pixels[:, ::-1])
    assert_same(after, before, INVARIANT + INTENSITY)
    np.testing.assert_allclose(after["centroid_x"], labels.shape[1] - 1 - before["centroid_x"], atol=1e-9)


@given(scenes())
@settings(max_examples=60)
def test_every_nucleus_lies_within_its_bounds(scene):
    labels, pixels = scene
    table = measured(labels, pixels)
    assert table["area"].sum() == (labels > 0).sum()
    assert ((table["y0"] <= table["centroid_y"]) & (table["centroid_y"] < table["y1"])).all()
    assert ((table["x0"] <= table["centroid_x"]) & (table["centroid_x"] < table["x1"])).all()
    assert ((table["solidity"] > 0) & (table["solidity"] <= 1)).all()
    assert (table["minor_axis"] <= table["major_axis"]).all()
    assert (table["min_intensity"] <= table["mean_intensity"] + 1e-9).all()
    assert (table["mean_intensity"] <= table["max_intensity"] + 1e-9).all()
    np.testing.assert_array_equal(
        np.array([table[n] for n in ("y0", "x0", "y1", "x1")]).T, Instances(labels).boxes
    )


@given(scenes(), st.floats(0.01, 10))
@settings(max_examples=30)
def test_the_pixel_size_only_adds_columns(scene, size):
    labels, pixels = scene
    plain, with_size = measured(labels, pixels), measured(labels, pixels, pixel_size_um=size)
    assert_same(with_size, plain, plain.columns)
    np.testing.assert_allclose(with_size["area_um2"], plain["area"] * size**2)
    np.testing.assert_allclose(with_size["perimeter_um"], plain["perimeter"] * size)
