import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nuxel.data.clusters import KEPT, LARGEST_CLUSTER, paste_clusters

SEEDS = st.integers(0, 10**6)


def picture(labels: np.ndarray) -> np.ndarray:
    """A noisy image of labels, every nucleus of a colour of its own."""
    rng = np.random.default_rng(0)
    colours = rng.integers(90, 200, (max(1, labels.max() + 1), 3))
    colours[0] = 20
    noise = rng.integers(0, 30, (*labels.shape, 3))
    return (colours[np.maximum(labels, 0)] + noise).astype(np.uint8)


@st.composite
def scenes(draw) -> np.ndarray:
    """Discs of many sizes, some touching, some cut by the edge, with a corner that nobody annotated, or without."""
    height, width = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    labels = np.zeros((height, width), np.int32)
    rng = np.random.default_rng(draw(SEEDS))
    rows, columns = np.mgrid[:height, :width]
    for number in range(1, draw(st.integers(0, 8)) + 1):
        y, x, radius = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(0.6, 9)
        labels[((rows - y) ** 2 + (columns - x) ** 2 < radius**2) & (labels == 0)] = number
    if draw(st.booleans()):
        labels[: draw(st.integers(0, height)), : draw(st.integers(0, width))] = -1
    return labels


def pieces(mask: np.ndarray) -> int:
    return ndimage.label(mask)[1]


def two_discs(distance: int, side: int = 80) -> np.ndarray:
    rows, columns = np.mgrid[:side, :side]
    labels = np.zeros((side, side), np.int32)
    for number, x in ((1, side // 2 - distance // 2), (2, side // 2 + distance // 2)):
        labels[(rows - side // 2) ** 2 + (columns - x) ** 2 < 9**2] = number
    return labels


@given(scenes(), SEEDS)
@settings(max_examples=120)
def test_no_nucleus_is_destroyed_or_cut_in_two(labels: np.ndarray, seed: int) -> None:
    _, drawn = paste_clusters(picture(labels), labels, np.random.default_rng(seed))
    for number in np.unique(labels[labels > 0]):
        before, after = labels == number, drawn == number
        assert not (after & ~before).any()
        assert after.sum() >= KEPT * before.sum()
        assert pieces(after) <= pieces(before)


@given(scenes(), SEEDS)
@settings(max_examples=120)
def test_every_copy_is_whole_enough_and_touches_another(labels: np.ndarray, seed: int) -> None:
    _, drawn = paste_clusters(picture(labels), labels, np.random.default_rng(seed))
    known = max(0, int(labels.max(initial=0)))
    areas = [int((labels == number).sum()) for number in np.unique(labels[labels > 0])]
    copies = np.unique(drawn[drawn > known])
    assert copies.tolist() == list(range(known + 1, known + 1 + len(copies)))
    for number in copies:
        mask = drawn == number
        ring = ndimage.binary_dilation(mask) & ~mask
        assert (drawn[ring] > 0).any()
        assert pieces(mask) == 1
        assert any(KEPT * area <= mask.sum() <= area for area in areas)


@given(scenes(), SEEDS)
@settings(max_examples=120)
def test_pixels_change_only_where_something_was_pasted(labels: np.ndarray, seed: int) -> None:
    image = picture(labels)
    before = image.copy(), labels.copy()
    mixed, drawn = paste_clusters(image, labels, np.random.default_rng(seed))
    assert np.array_equal(image, before[0])
    assert np.array_equal(labels, before[1])
    assert (mixed.dtype, mixed.shape, drawn.dtype) == (np.uint8, image.shape, np.int32)
    assert np.array_equal(drawn < 0, labels < 0)
    copies = drawn != labels
    near = ndimage.maximum_filter(copies, 7) & ((labels == 0) & (drawn == 0))
    changed = (mixed != image).any(axis=2)
    assert not changed[~(copies | near)].any()
    assert not changed[labels < 0].any()


@given(scenes(), SEEDS)
@settings(max_examples=40)
def test_is_a_function_of_the_generator(labels: np.ndarray, seed: int) -> None:
    first, second = (paste_clusters(picture(labels), labels, np.random.default_rng(seed)) for _ in range(2))
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])


@pytest.mark.parametrize("seed", range(8))
def test_the_inside_of_a_copy_is_its_original_turned(seed: int) -> None:
    labels = np.zeros((90, 90), np.int32)
    labels[40:54, 40:49] = labels[54:60, 40:60] = 1  # an L has eight different forms
    image = picture(labels)
    mixed, drawn = paste_clusters(image, labels, np.random.default_rng(seed))
    assert drawn.max() > 1
    last = int(drawn.max())  # lies on top, whole
    box = ndimage.find_objects(drawn)[last - 1]
    original = (slice(40, 60), slice(40, 60))
    forms = [(np.rot90(labels[original] == 1, k), np.rot90(image[original], k)) for k in range(4)]
    forms += [(mask[:, ::-1], pixels[:, ::-1]) for mask, pixels in forms]
    copy = drawn[box] == last
    fits = [pixels for mask, pixels in forms if mask.shape == copy.shape and np.array_equal(mask, copy)]
    assert len(fits) == 1
    deep = ndimage.binary_erosion(copy, iterations=3)
    assert deep.any()
    assert np.abs(mixed[box][deep].astype(int) - fits[0][deep]).max() <= 1


def test_edges_are_soft_and_bring_the_faint_surroundings_along() -> None:
    labels = two_discs(distance=40)
    shine = ndimage.binary_dilation(labels > 0, iterations=2)
    image = np.select([labels > 0, shine], [200, 100], 20).astype(np.uint8)[..., None].repeat(3, 2)
    mixed, drawn = paste_clusters(image, labels, np.random.default_rng(1))
    copies = drawn > 2
    free = (labels == 0) & ~shine
    rim = copies & ndimage.binary_dilation(drawn == 0) & free
    ring = (drawn == 0) & ndimage.binary_dilation(copies) & free
    assert rim.any()
    assert 110 < mixed[rim].mean() < 190
    assert 25 < mixed[ring].mean() < 60


def test_copies_form_conglomerates_of_two_to_five() -> None:
    labels = two_discs(distance=60, side=140)
    sizes = set()
    for seed in range(120):
        _, drawn = paste_clusters(picture(labels), labels, np.random.default_rng(seed))
        groups, count = ndimage.label(drawn > 0)
        sizes |= {len(np.unique(drawn[groups == group])) for group in range(1, count + 1)}
    assert set(range(1, LARGEST_CLUSTER + 1)) <= sizes


@pytest.mark.parametrize("spoil", ["edge", "neighbour", "unknown"])
def test_a_nucleus_whose_outline_is_not_all_its_own_is_not_copied(spoil: str) -> None:
    labels = np.zeros((60, 60), np.int32)
    if spoil == "edge":
        labels[0:14, 20:34] = 1
    if spoil == "neighbour":
        labels[20:34, 10:24], labels[20:34, 24:38] = 1, 2
    if spoil == "unknown":
        labels[20:34, 20:34], labels[20:34, 34:50] = 1, -1
    image = picture(labels)
    for seed in range(10):
        mixed, drawn = paste_clusters(image, labels, np.random.default_rng(seed))
        assert np.array_equal(drawn, labels)
        assert np.array_equal(mixed, image)


@pytest.mark.parametrize("value", [0, -1, 1])
def test_an_image_of_one_kind_stays(value: int) -> None:
    labels = np.full((30, 40), value, np.int32)
    image = picture(labels)
    mixed, drawn = paste_clusters(image, labels, np.random.default_rng(0))
    assert np.array_equal(drawn, labels)
    assert np.array_equal(mixed, image)
