"""Training sets of which a recipe keeps a share of the annotations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nuxel.data.thin import nuclei_in
from nuxel.errors import UsageError
from nuxel.training.recipe import make_recipe
from nuxel.training.train import _thinned
from nuxel.training.validate import Whole


def images(seed: int = 0) -> list[Whole]:
    """Each pixel's first channel is the number of its nucleus."""
    rng = np.random.default_rng(seed)
    found = []
    for shape in ((40, 60), (80, 20), (33, 33)):
        labels = np.kron(np.arange(1, 17).reshape(4, 4), np.ones((20, 15))).astype(np.int32)
        labels = np.resize(labels, shape) * rng.integers(0, 2, shape, np.int32)
        found.append((np.stack([labels.astype(np.uint8)] * 3, 2), labels))
    return found


def thinned(seed: int = 0, **data: Any) -> list[Whole]:
    return _thinned(make_recipe({"system": "multihead_unet", "seed": seed, "data": data}), images())


def test_without_a_share_all_is_kept() -> None:
    for (image, labels), (same, equal) in zip(images(), thinned(), strict=True):
        assert np.array_equal(image, same)
        assert np.array_equal(labels, equal)


def test_a_share_of_the_nuclei_leaves_the_images_as_they_are() -> None:
    kept = thinned(keep=0.25)
    total = sum(len(nuclei_in(labels)) for _, labels in images())
    assert sum(len(nuclei_in(labels)) for _, labels in kept) == round(total / 4)
    for (image, _), (same, labels) in zip(images(), kept, strict=True):
        assert np.array_equal(image, same)
        assert set(np.unique(labels)) <= {-1, *nuclei_in(labels).tolist()}
        assert np.array_equal(labels[labels > 0], image[labels > 0, 0])


def test_a_crop_hides_what_is_outside() -> None:
    for (image, labels), (part, cropped) in zip(images(), thinned(crop=0.25), strict=True):
        assert part.shape[:2] == cropped.shape == tuple(round(side / 2) for side in labels.shape)
        assert cropped.min() >= 0
        assert np.array_equal(cropped > 0, part[..., 0] > 0)
        rows, columns = cropped.shape
        windows = np.lib.stride_tricks.sliding_window_view(image[..., 0], (rows, columns))
        assert (windows == part[..., 0]).all((2, 3)).any()


def test_which_are_kept_depends_on_the_seed_alone() -> None:
    for share in ({"keep": 0.5}, {"crop": 0.5}):
        first, again, other = (thinned(seed, **share) for seed in (1, 1, 2))
        assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(first, again, strict=True))
        assert not all(np.array_equal(a, b) for (_, a), (_, b) in zip(first, other, strict=True))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"keep": 0.0}, "keep must be a share above 0 and at most 1, got 0.0"),
        ({"crop": 1.5}, "crop must be a share above 0 and at most 1, got 1.5"),
        ({"keep": 0.5, "crop": 0.5}, "keep and crop are two ways to leave out annotations; choose one"),
    ],
)
def test_wrong_shares(data: dict[str, float], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        thinned(**data)
