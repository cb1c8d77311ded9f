"""The decoder against the plain way to write it: the whole image at once, one nucleus at a time."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy import ndimage
from skimage.measure import label
from skimage.segmentation import watershed

from nuxel.data.targets import TargetRule, multihead_targets
from nuxel.decode import clumps
from nuxel.decode.clumps import ClumpRule, decode_clumps
from nuxel.decode.flood import STEP, flood

DATA = Path(__file__).parents[2].parent / "shared" / "data"


def plain_flood(height, markers, mask):
    """Meyer's flooding one pixel at a time: a front of every label, and a sea level that rises by steps."""
    labels = np.where(mask, markers, 0)
    waiting = {}
    for place in zip(*np.nonzero(labels), strict=True):
        waiting.setdefault(height[place] // STEP, set()).add(place)
    while waiting:
        level = min(waiting)
        front = waiting.pop(level)
        while front:
            claims = {}
            for y, x in front:
                for place in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                    within = 0 <= place[0] < mask.shape[0] and 0 <= place[1] < mask.shape[1]
                    if within and mask[place] and not labels[place]:
                        claims.setdefault(place, []).append(labels[y, x])
            front = set()
            for place, takers in claims.items():
                labels[place] = min(takers)
                at = height[place] // STEP
                front.add(place) if at <= level else waiting.setdefault(at, set()).add(place)
    return labels


def plain_decode(maps, rule):
    nucleus, shrunk, touching = maps.astype(float) / 255
    foreground = nucleus >= rule.threshold
    markers = label((shrunk - touching > rule.marker_threshold) & foreground, connectivity=1)
    for number in range(1, markers.max() + 1):
        if (markers == number).sum() < rule.min_marker_area:
            markers[markers == number] = 0
    connected = label(foreground, connectivity=1)
    for number in range(1, connected.max() + 1):
        if not markers[connected == number].any():
            markers[connected == number] = markers.max() + 1
    labels = plain_flood(maps[2].astype(int) - maps[1] - maps[0], markers, foreground)
    gaps = label(labels == 0, connectivity=1)
    filled = labels.copy()
    for gap in range(1, gaps.max() + 1):
        mask = gaps == gap
        around = labels[ndimage.binary_dilation(mask) & ~mask]
        at_edge = mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any()
        if not at_edge and len(set(around)) == 1:
            filled[mask] = around[0]
    result, scores = np.zeros_like(labels), []
    for number in dict.fromkeys(filled[filled > 0].tolist()):
        mask = filled == number
        if mask.sum() >= rule.min_area and nucleus[mask].mean() >= rule.min_score:
            scores.append(nucleus[mask].mean())
            result[mask] = len(scores)
    return result, scores


def assert_equal_to_plain(maps, rule):
    found = decode_clumps(maps, rule)
    labels, scores = plain_decode(maps, rule)
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_allclose(found.scores, scores, rtol=1e-6)


LEVELS = st.sampled_from([0, 40, 127, 128, 140, 255])


@given(
    arrays(np.uint8, st.tuples(st.just(3), st.integers(1, 10), st.integers(1, 10)), elements=LEVELS),
    st.integers(1, 3),
)
@settings(max_examples=150)
def test_equal_to_the_plain_way_on_noise(maps, min_marker_area):
    assert_equal_to_plain(maps, ClumpRule(min_marker_area=min_marker_area, min_area=2))


@pytest.mark.parametrize("band", [1, 700, 1 << 20])
@pytest.mark.parametrize("seed", range(4))
def test_equal_to_the_plain_way_on_smooth_maps_whatever_is_divided_together(seed, band, monkeypatch):
    """A band of 1 pixel is one row, of 700 ten, of a million the image."""
    monkeypatch.setattr(clumps, "BAND", band)
    rng = np.random.default_rng(seed)
    smooth = np.stack([ndimage.gaussian_filter(rng.standard_normal((60, 70)), sigma) for sigma in (3, 2, 1)])
    maps = np.clip(128 + smooth / smooth.std((1, 2), keepdims=True) * 70 + [[[40]], [[0]], [[-60]]], 0, 255)
    assert_equal_to_plain(maps.astype(np.uint8), ClumpRule())


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
@pytest.mark.parametrize("name", ["dsb2018/labels/693bc6458127.png", "tnbc/labels/06_2.png"])
def test_equal_to_the_plain_way_on_soft_maps_of_real_nuclei(name):
    labels = np.asarray(Image.open(DATA / name)).astype(np.int32)[:256, :256]
    drawn = multihead_targets(labels, TargetRule())[:3]
    noise = np.random.default_rng(0).normal(0, 0.05, drawn.shape)
    soft = np.stack([ndimage.gaussian_filter(one, 1) for one in drawn]) + noise
    assert_equal_to_plain(np.rint(np.clip(soft, 0, 1) * 255).astype(np.uint8), ClumpRule())


@pytest.mark.parametrize("split", ["watershed", "random_walker"])
def test_bands_change_nothing_however_long_the_clumps_are(split, monkeypatch):
    """Stripes whose windows reach over several bands."""
    rng = np.random.default_rng(0)
    maps = np.zeros((3, 60, 40), np.uint8)
    maps[0] = np.where(ndimage.gaussian_filter(rng.standard_normal((60, 40)), (9, 1)) > 0, 230, 0)
    maps[1] = np.where(ndimage.gaussian_filter(rng.standard_normal((60, 40)), (2, 0.5)) > 0.1, 255, 0)
    rule = ClumpRule(split=split, min_area=1)
    whole = decode_clumps(maps, rule).labels
    assert whole.max() > 10
    for band in (120, 800, 1200):
        monkeypatch.setattr(clumps, "BAND", band)
        np.testing.assert_array_equal(decode_clumps(maps, rule).labels, whole)


@given(
    arrays(np.int16, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(-60, 60)),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=100)
def test_flooding_equals_the_plain_way(height, seed):
    rng = np.random.default_rng(seed)
    markers = np.where(rng.random(height.shape) < 0.2, rng.integers(1, 5, height.shape), 0).astype(np.int32)
    mask = rng.random(height.shape) < 0.8
    np.testing.assert_array_equal(flood(height, markers, mask), plain_flood(height, markers, mask))


@pytest.mark.parametrize("seed", range(3))
def test_flooding_agrees_with_scikit_image_but_on_ties(seed):
    rng = np.random.default_rng(seed)
    height = ndimage.gaussian_filter(rng.standard_normal((120, 140)), 4)
    height = (height / height.std() * 2000).astype(np.int16)
    markers = label(height < -2500, connectivity=1).astype(np.int32)
    mask = height < 2500
    assert markers.max() > 5
    expected = watershed(height, markers, mask=mask)
    assert (flood(height, markers, mask) == expected).mean() > 0.98
