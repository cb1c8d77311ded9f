import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nuxel.training.paint import LEAST_CONTRAST, paint


def grid_of_squares(side: int = 64, step: int = 16, width: int = 10) -> np.ndarray:
    labels = np.zeros((side, side), np.int32)
    for number, (y, x) in enumerate(np.ndindex(side // step, side // step), 1):
        labels[y * step + 3 : y * step + 3 + width, x * step + 3 : x * step + 3 + width] = number
    return labels


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    height=st.sampled_from([1, 2, 7, 48]),
    width=st.sampled_from([1, 3, 40]),
    kind=st.sampled_from(["some", "one pixel", "all", "none", "ignored"]),
)
def test_any_view_gives_a_clean_picture(seed: int, height: int, width: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    labels = np.zeros((height, width), np.int32)
    if kind == "some":
        labels[: height // 2 + 1, : width // 2] = 2
    if kind == "one pixel":
        labels[0, 0] = 1
    if kind == "all":
        labels[:] = 4
    if kind == "ignored":
        labels[0, 0], labels[-1, -1] = 1, -1
    picture = torch.from_numpy(rng.random((3, height, width), np.float32))
    before = picture.clone()
    painted = paint(picture, labels, rng)
    assert painted.shape == (3, height, width)
    assert painted.dtype == torch.float32
    assert painted.isfinite().all()
    assert painted.min() >= 0
    assert painted.max() <= 1
    assert torch.equal(picture, before)
    everywhere = bool((labels > 0).all() or (labels == 0).all())
    if everywhere or (labels < 0).any():
        assert torch.equal(painted, picture)


def test_nuclei_stay_where_they_are() -> None:
    """Whatever the colours, more of the difference lies between nuclei and background than the eye needs."""
    labels = grid_of_squares()
    inside = torch.from_numpy(labels > 0)
    picture = torch.full((3, 64, 64), 0.5)
    clear = 0
    for seed in range(60):
        painted = paint(picture, labels, np.random.default_rng(seed))
        difference = (painted[:, inside].mean(1) - painted[:, ~inside].mean(1)).abs().mean()
        clear += bool(difference > LEAST_CONTRAST / 3)
    assert clear >= 54


def test_colours_brightness_and_polarity_vary() -> None:
    labels = grid_of_squares()
    inside = torch.from_numpy(labels > 0)
    picture = torch.full((3, 64, 64), 0.5)
    views = [paint(picture, labels, np.random.default_rng(seed)) for seed in range(40)]
    brighter = [bool(view[:, inside].mean() > view[:, ~inside].mean()) for view in views]
    assert 8 < sum(brighter) < 32
    grey = [bool((view[0] - view[1]).abs().max() < 1e-6) for view in views]
    assert 0 < sum(grey) < 20
    grounds = torch.stack([view[:, ~inside].mean(1) for view in views])
    assert grounds.std(0).min() > 0.15


def test_nuclei_differ_from_each_other() -> None:
    labels = grid_of_squares()
    picture = torch.full((3, 64, 64), 0.5)
    spreads = []
    for seed in range(20):
        painted = paint(picture, labels, np.random.default_rng(seed)).mean(0).numpy()
        spreads.append(np.std([painted[labels == number].mean() for number in range(1, 17)]))
    assert np.median(spreads) > 0.02  # of one strength for all, which differ by texture alone, it is 0.012


def test_some_views_keep_the_pictures_detail() -> None:
    labels = grid_of_squares()
    rows, columns = np.mgrid[:64, :64]
    chequered = torch.from_numpy((((rows + columns) % 2) * 0.6 + 0.2).astype(np.float32)).expand(3, -1, -1)
    shares = []
    for seed in range(40):
        painted = paint(chequered, labels, np.random.default_rng(seed)).mean(0)
        shares.append(float((painted[:, 1:] - painted[:, :-1]).abs().mean()))
    assert 8 <= sum(share > 0.1 for share in shares) <= 32


def test_is_a_function_of_the_generator() -> None:
    labels, picture = grid_of_squares(), torch.rand(3, 64, 64)
    first, again, other = (paint(picture, labels, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("side", [1, 2, 5])
def test_tiny_views(side: int) -> None:
    labels = np.zeros((side, 4), np.int32)
    labels[0, 1:3] = 1
    painted = paint(torch.zeros(3, side, 4), labels, np.random.default_rng(0))
    assert painted.shape == (3, side, 4)
