from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from nuxel.data.dataset import Annotated, Source, find_annotated, read_annotated
from nuxel.errors import NuxelError, UsageError
from nuxel.systems.multihead_unet import MultiheadUNet
from nuxel.training.augment import Augmentation
from nuxel.training.recipe import make_recipe
from nuxel.training.samples import EpochSampler, RandomViews, patches, widened
from nuxel.training.train import _views


def views(items: list[Annotated], seed: int = 0, balance: float = 1.0) -> RandomViews:
    return views_of(items, Augmentation(), crop=32, balance=balance, seed=seed)


def views_of(items: list[Annotated], how: Augmentation, **rest: Any) -> RandomViews:
    groups = [item.group for item in items]
    return RandomViews(
        [read_annotated(item) for item in items], groups, MultiheadUNet().draw_targets, how, **rest
    )


@pytest.fixture
def items(data: Path) -> list[Annotated]:
    return find_annotated(Source(str(data)))


def same(first, second) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


class TestViews:
    def test_shapes_and_kinds(self, items: list[Annotated]) -> None:
        picture, targets, annotated = views(items)[0]
        assert (picture.shape, targets.shape, annotated.shape) == ((3, 32, 32), (6, 32, 32), (1, 32, 32))
        assert (picture.dtype, targets.dtype, annotated.dtype) == (torch.uint8, torch.float16, torch.bool)
        assert annotated.all()

    def test_widened_is_what_a_network_takes(self, items: list[Annotated]) -> None:
        sample = views(items)[0]
        picture, targets, annotated = widened(sample)
        assert {t.dtype for t in (picture, targets, annotated)} == {torch.float32}
        assert torch.equal((picture * 255).round().to(torch.uint8), sample[0])
        assert 0.2 < picture.max() <= 1
        assert torch.equal(targets, sample[1].float())
        assert set(annotated.unique().tolist()) == {1.0}

    def test_a_sample_is_a_function_of_seed_and_position(self, items: list[Annotated]) -> None:
        first, second = views(items), views(items)
        backwards = {position: second[position] for position in (7, 3, 0, 3)}
        for position in (0, 3, 7):
            assert same(first[position], backwards[position])
        assert not same(first[0], first[1])
        assert not same(first[0], views(items, seed=1)[0])

    @pytest.mark.filterwarnings("ignore:This DataLoader will create")  # where there is one processor
    def test_workers_do_not_matter(self, items: list[Annotated]) -> None:
        dataset = views(items)
        batches = [
            list(DataLoader(dataset, batch_size=2, sampler=EpochSampler(4), num_workers=workers))
            for workers in (0, 2)
        ]
        assert all(same(a, b) for a, b in zip(*batches, strict=True))

    def test_a_crop_larger_than_the_image_mirrors_it(self, items: list[Annotated]) -> None:
        dataset = views_of(
            items,
            Augmentation(zoom_range=(0.5, 0.5), invert_p=0, light_p=0, shading_p=0, noise_p=0),
            crop=160,  # the images have 64 pixels, here 32
            balance=1.0,
            seed=0,
        )
        for position in range(4):
            picture, targets, annotated = widened(dataset[position])
            assert picture.shape == (3, 160, 160)
            assert annotated.all()
            quarters = [part for half in targets[0].chunk(2, 0) for part in half.chunk(2, 1)]
            assert all(0.02 < quarter.mean() < 0.6 for quarter in quarters)
            inside = targets[0] > 0
            assert picture[:, inside].mean() > picture[:, ~inside].mean() + 0.3

    def test_what_nobody_annotated_is_marked(self, tmp_path: Path, draw) -> None:
        image, labels = draw(64, 0)
        labels[:, :32] = -1
        for name in ("images", "labels"):
            (tmp_path / name).mkdir()
        np.save(tmp_path / "labels" / "a.npy", labels)
        Image.fromarray(image).save(tmp_path / "images" / "a.png")
        dataset = views(find_annotated(Source(str(tmp_path))))
        shares = [dataset[k][2].float().mean().item() for k in range(20)]
        assert 0.2 < np.mean(shares) < 0.8
        _, targets, annotated = widened(dataset[int(np.argmin(np.abs(np.array(shares) - 0.5)))])
        assert not (targets * (1 - annotated)).any()

    @pytest.mark.parametrize(("balance", "expected"), [(1.0, 1 / 4), (0.0, 1 / 2), (0.5, 1 / (1 + 3**0.5))])
    def test_groups_are_drawn_by_size_to_the_power_of_balance(
        self, items: list[Annotated], balance: float, expected: float
    ) -> None:
        a, b = items
        four = [Annotated(a.image, a.labels, "large")] * 3 + [Annotated(b.image, b.labels, "small")]
        dataset = views(four, balance=balance)
        assert dataset.probabilities.sum() == pytest.approx(1)
        assert dataset.probabilities[3] == pytest.approx(expected)
        drawn = Counter(
            int(np.random.default_rng([0, k]).choice(4, p=dataset.probabilities)) for k in range(600)
        )
        assert drawn[3] / 600 == pytest.approx(expected, abs=0.06)

    def test_a_label_image_of_another_shape_is_named(self, tmp_path: Path, draw, write) -> None:
        image, _ = draw(64, 0)
        write(tmp_path, "odd", image, np.zeros((64, 63), np.int32))
        with pytest.raises(
            NuxelError, match=r"odd\.png: labels are \(64, 63\), but the image odd\.png is \(64, 64\)"
        ):
            views(find_annotated(Source(str(tmp_path))))


class TestPatches:
    def test_the_us_net_papers(self) -> None:
        """Section 3.1: 400 x 400 at a stride of 200, of images of 1000 x 1000."""
        labels = np.arange(10**6, dtype=np.int32).reshape(1000, 1000)
        found = patches((np.zeros((1000, 1000, 3), np.uint8), labels), 400, 200)
        corners = [divmod(int(part[0, 0]), 1000) for _, part in found]
        assert corners == [(y, x) for y in (0, 200, 400, 600) for x in (0, 200, 400, 600)]
        assert {part.shape for _, part in found} == {(400, 400)}
        assert {image.shape for image, _ in found} == {(400, 400, 3)}

    @given(
        st.tuples(st.integers(1, 60), st.integers(1, 60)),
        st.integers(1, 40).flatmap(lambda side: st.tuples(st.just(side), st.integers(1, side))),
    )
    def test_they_cover_the_image(self, shape: tuple[int, int], patch: tuple[int, int]) -> None:
        side, stride = patch
        labels = np.arange(shape[0] * shape[1], dtype=np.int32).reshape(shape)
        found = [part for _, part in patches((np.zeros((*shape, 3), np.uint8), labels), side, stride)]
        assert {part.shape for part in found} == {tuple(min(length, side) for length in shape)}
        assert len(np.unique(np.concatenate([part.ravel() for part in found]))) == labels.size
        for axis, corner in enumerate(zip(*(divmod(int(p[0, 0]), shape[1]) for p in found), strict=True)):
            starts = sorted(set(corner))
            assert starts[-1] + min(side, shape[axis]) == shape[axis]
            assert max(np.diff(starts), default=0) <= stride

    def test_views_come_from_them(self, draw) -> None:
        """The patches of both images are drawn alike."""
        data = {"patch": [40, 20]}
        still = {"zoom_range": [1, 1], "stretch": 0, "shear": 0, "elastic_p": 0, "turn": False}
        recipe = make_recipe(
            {
                "system": "multihead_unet",
                "data": data,
                "schedule": {"crop": 32, "balance": 1},
                "augmentation": still,
            }
        )
        images = [draw(60, 0), draw(32, 1)]
        views = _views(recipe, images, ["large", "small"])
        assert [labels.shape for _, labels in views.images] == [(40, 40)] * 4 + [(32, 32)]
        assert views.probabilities == pytest.approx([1 / 5] * 5)
        assert views[3][0].shape == (3, 32, 32)

    @pytest.mark.parametrize("patch", [[0, 0], [100, 101], [100, 0], [-4, -5]])
    def test_wrong_sizes(self, patch: list[int]) -> None:
        with pytest.raises(UsageError, match="patch must be a side and a stride of at most that side"):
            make_recipe({"system": "multihead_unet", "data": {"patch": patch}})


class TestSampler:
    def test_epochs_follow_each_other_without_overlap(self) -> None:
        sampler = EpochSampler(5)
        seen = []
        for epoch in range(3):
            sampler.set_epoch(epoch)
            seen += list(sampler)
        assert seen == list(range(15))
        assert len(sampler) == 5

    def test_any_epoch_can_be_first(self) -> None:
        sampler = EpochSampler(4)
        sampler.set_epoch(6)
        assert list(sampler) == list(sampler) == [24, 25, 26, 27]
        assert max(Counter(sampler).values()) == 1


def test_devices_share_the_positions_of_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 3)
    sampler = EpochSampler(4)
    sampler.set_epoch(2)
    taken = []
    for rank in range(3):
        monkeypatch.setattr("torch.distributed.get_rank", lambda rank=rank: rank)
        positions = list(sampler)
        assert len(positions) == len(sampler) == 4
        taken += positions
    assert sorted(taken) == list(range(24, 36))


def test_of_several_views_the_one_with_most_nuclei_is_taken() -> None:
    labels = np.zeros((200, 200), np.int32)
    for number, (y, x) in enumerate(np.random.default_rng(0).integers(0, 190, (12, 2)), 1):
        labels[y : y + 5, x : x + 5] = number
    image = np.zeros((200, 200, 3), np.uint8)
    seen = {}
    for candidates in (1, 8):
        views = RandomViews(
            [(image, labels)], ["a"], lambda drawn: drawn[None].astype(np.float32),
            Augmentation(turn=False, zoom_range=(1.0, 1.0)), crop=64, balance=1, seed=0, candidates=candidates,
        )  # fmt: skip
        seen[candidates] = [len(np.unique(views[k][1])) - 1 for k in range(20)]
    assert min(seen[8]) >= 1
    assert np.mean(seen[8]) > 1.3 * np.mean(seen[1])
