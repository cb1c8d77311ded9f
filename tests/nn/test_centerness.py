"""Centres of nuclei: the target map against its rule written out, components against scipy's labelling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional
from torchvision.ops import nms

from nuxel.errors import UsageError
from nuxel.labels.read import read_labels
from nuxel.labels.relabel import relabel
from nuxel.nn.centerness import CenternessHead, centerness_targets, component_peaks

DATA = Path(__file__).parents[2].parent / "shared" / "data"
Labels = NDArray[np.int32]


def boxes_of(labels: Labels) -> Tensor:
    """Torchvision's boxes of the nuclei: half a pixel up and left of the pixels' outer edges."""
    found = [part for part in ndimage.find_objects(np.maximum(labels, 0)) if part]
    boxes = [(x.start, y.start, x.stop, y.stop) for y, x in found]
    return torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4) - 0.5


def targets(labels: Labels, stride: int = 4) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    centre, owner = centerness_targets(torch.from_numpy(labels).float(), boxes_of(labels), stride)
    return centre.numpy(), owner.numpy()


def claims(labels: Labels, stride: int) -> list[tuple[float, set[tuple[int, int]], tuple[int, int]]]:
    """Of each nucleus: the area of its box, the locations within its central 0.3 x 0.3, and the nearest one."""
    found = []
    for y, x in (part for part in ndimage.find_objects(np.maximum(labels, 0)) if part):
        height, width = y.stop - y.start, x.stop - x.start
        middle = (y.start + y.stop) / 2, (x.start + x.stop) / 2
        places = {
            (row, column)
            for row in range(labels.shape[0] // stride)
            for column in range(labels.shape[1] // stride)
            if abs((row + 0.5) * stride - middle[0]) <= 0.15 * height
            and abs((column + 0.5) * stride - middle[1]) <= 0.15 * width
        }
        found.append((height * width, places, (int(middle[0] // stride), int(middle[1] // stride))))
    return found


@st.composite
def label_images(draw: st.DrawFn) -> Labels:
    """Ellipses of any size, some on top of others or cut by them, on background and what is not annotated."""
    labels = np.zeros((32, 40), np.int32)
    labels[:, draw(st.integers(0, 40)) :] = -1
    rows, columns = np.mgrid[:32, :40]
    for number in range(draw(st.integers(0, 8))):
        y, x = draw(st.integers(0, 31)), draw(st.integers(0, 39))
        a, b = draw(st.integers(1, 14)), draw(st.integers(1, 14))
        labels[((rows - y) / a) ** 2 + ((columns - x) / b) ** 2 < 1] = number + 1
    numbers = np.unique(labels[labels > 0])
    lookup = np.zeros(10, np.int32)
    lookup[numbers] = np.arange(1, len(numbers) + 1)
    return np.where(labels > 0, lookup[np.maximum(labels, 0)], labels)


class TestTargets:
    @given(label_images(), st.sampled_from([2, 4]))
    @settings(max_examples=100)
    def test_the_rule_of_the_paper(self, labels: Labels, stride: int) -> None:
        centre, owner = targets(labels, stride)
        wanted = claims(labels, stride)
        central = set().union(*(places | {nearest} for _, places, nearest in wanted))
        for place, value in np.ndenumerate(centre):
            pixel = labels[tuple(stride * side + stride // 2 for side in place)]
            assert value == (1 if place in central else 0 if pixel > 0 else -1)
            if value == 1:
                _, places, nearest = wanted[owner[place]]
                assert place in places | {nearest}
            else:
                assert owner[place] == -1

    @given(label_images(), st.sampled_from([2, 4]))
    @settings(max_examples=100)
    def test_every_nucleus_has_a_location(self, labels: Labels, stride: int) -> None:
        """But for those whose middle lies in the same location as that of another, of which the smallest has it."""
        _, owner = targets(labels, stride)
        wanted = claims(labels, stride)
        for index, (area, _, nearest) in enumerate(wanted):
            rivals = [
                other for other, (_, _, place) in enumerate(wanted) if place == nearest and other != index
            ]
            if not rivals or all(area < wanted[other][0] for other in rivals):
                assert owner[nearest] == index

    def test_unlabelled_images_teach_nothing(self) -> None:
        for value in (0, -1):
            centre, owner = targets(np.full((16, 24), value, np.int32))
            assert centre.shape == (4, 6)
            assert (centre == -1).all()
            assert (owner == -1).all()

    def test_a_nucleus_too_small_for_a_projection_still_has_its_centre(self) -> None:
        labels = np.zeros((16, 16), np.int32)
        labels[4:6, 12:14] = 1  # no location's middle pixel, which is (6, 14) here
        centre, owner = targets(labels)
        assert np.argwhere(centre == 1).tolist() == [[1, 3]]
        assert (centre == -1).sum() == 15
        assert owner[1, 3] == 0

    def test_a_finer_map_tells_apart_what_lies_in_one_location(self) -> None:
        labels = np.zeros((8, 8), np.int32)
        labels[0:2, 0:2], labels[2:4, 2:4] = 1, 2
        assert (targets(labels, 4)[0] == 1).sum() == 1
        assert np.argwhere(targets(labels, 2)[0] == 1).tolist() == [[0, 0], [1, 1]]

    def test_a_centre_may_lie_outside_of_its_nucleus(self) -> None:
        """As in the paper: the centre is the box's, whatever the mask is there."""
        labels = np.ones((20, 20), np.int32)
        labels[:, 4:16] = 0
        assert targets(labels)[0].tolist()[2] == [0, -1, 1, -1, 0]

    def test_nuclei_at_the_edge(self) -> None:
        labels = np.zeros((8, 8), np.int32)
        labels[7, 7], labels[0, 0] = 1, 2
        assert np.argwhere(targets(labels)[0] == 1).tolist() == [[0, 0], [1, 1]]


def by_labelling(logits: NDArray[np.float32], least: float) -> NDArray[np.bool_]:
    """The best location of each component that scipy labels."""
    inside = torch.sigmoid(torch.from_numpy(logits).double()).numpy() > least
    numbers, count = ndimage.label(inside, np.ones((3, 3)))
    found = np.zeros(logits.shape, bool)
    for place in ndimage.maximum_position(logits, numbers, range(1, count + 1)):
        found[place] = True
    return found


def noise(seed: int, blur: float) -> NDArray[np.float32]:
    """Logits with a deviation of 3, of which about one in six has a score above 0.95."""
    scores = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((64, 64)), blur)
    return (scores / scores.std() * 3).astype(np.float32)


class TestPeaks:
    @pytest.mark.parametrize("blur", [0, 1, 1.5])
    @pytest.mark.parametrize("seed", range(5))
    def test_they_are_the_best_of_scipys_components(self, seed: int, blur: float) -> None:
        scores = noise(seed, blur)
        expected = by_labelling(scores, 0.95)
        assert expected.sum() > 20
        assert np.array_equal(component_peaks(torch.from_numpy(scores)[None], 0.95)[0].numpy(), expected)

    @pytest.mark.parametrize("blur", [3, 8])
    def test_of_long_components_none_is_missed(self, blur: float) -> None:
        """Of these, which reach over the whole map as centres of nuclei do not, some have a peak too many."""
        for seed in range(5):
            scores = noise(seed, blur)
            found = component_peaks(torch.from_numpy(scores)[None], 0.95)[0].numpy()
            assert found[by_labelling(scores, 0.95)].all()

    @pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
    @pytest.mark.parametrize("stride", [2, 4])
    def test_no_true_centre_is_too_long(self, stride: int) -> None:
        """On perfect maps of real images, each score falling off from the middle of its nucleus' centre."""
        for path in sorted((DATA / "dsb2018" / "labels").iterdir())[::40]:
            labels = read_labels(path)
            labels = relabel(labels[: labels.shape[0] // 32 * 32, : labels.shape[1] // 32 * 32])
            centre, _ = targets(labels, stride)
            scores = np.where(centre == 1, 5 + ndimage.distance_transform_edt(centre == 1), -9)
            scores = (scores + np.random.default_rng(0).uniform(0, 0.1, scores.shape)).astype(np.float32)
            found = component_peaks(torch.from_numpy(scores)[None], 0.95)[0].numpy()
            assert np.array_equal(found, by_labelling(scores, 0.95))

    def test_a_component_longer_than_the_way_of_its_score_has_a_second_peak(self) -> None:
        for steps, peaks in ((16, [0]), (17, [0, 17])):
            line = torch.full((1, 1, steps + 1), 4.0)
            line[0, 0, 0], line[0, 0, -1] = 6, 5
            assert component_peaks(line, 0.95).nonzero()[:, 2].tolist() == peaks

    def test_diagonal_neighbours_are_connected(self) -> None:
        logits = torch.full((1, 4, 4), -5.0)
        logits[0, 0, 0], logits[0, 1, 1], logits[0, 3, 3] = 4, 5, 6
        assert component_peaks(logits, 0.95).nonzero()[:, 1:].tolist() == [[1, 1], [3, 3]]

    def test_none(self) -> None:
        assert not component_peaks(torch.zeros(2, 3, 5), 0.95).any()

    def test_the_threshold_is_a_probability(self) -> None:
        logits = torch.logit(torch.tensor([[[0.949, 0.0, 0.951]]]))
        assert component_peaks(logits, 0.95).tolist() == [[[False, False, True]]]


@pytest.fixture
def head() -> CenternessHead:
    torch.manual_seed(0)
    made = CenternessHead(8, hidden=4)
    made.anchor.copy_(torch.tensor([12.0, 8.0]))
    return made


def two_nuclei() -> Labels:
    labels = np.full((2, 32, 40), -1, np.int32)
    labels[0, 4:16, 8:30] = 1
    labels[1, 20:28, 2:12], labels[1, 3:9, 30:37] = 1, 2
    return labels


class TestHead:
    def test_it_answers_for_each_location(self, head: CenternessHead) -> None:
        logits, codes = head(torch.randn(2, 8, 6, 5))
        assert logits.shape == (2, 6, 5)
        assert codes.shape == (2, 4, 6, 5)

    def test_split_locations_are_those_of_a_finer_map(self) -> None:
        head = CenternessHead(8, hidden=4, stride=4, split=2)
        logits, codes = head(torch.randn(1, 8, 6, 5))
        assert logits.shape == (1, 12, 10)
        assert codes.shape == (1, 4, 12, 10)
        assert head.stride == 2
        anchors = head.anchors(12, 10)
        assert ((anchors[1] + anchors[1, [2, 3, 0, 1]]) / 2).tolist() == [2.5, 0.5, 2.5, 0.5]

    def test_what_lies_far_away_matters(self, head: CenternessHead) -> None:
        """A convolution of 3 x 3 alone would not see the other end of the map."""
        torch.nn.init.normal_(head.attention.out.weight)
        features = torch.randn(1, 8, 20, 20, requires_grad=True)
        head(features)[0][0, 0, 0].backward()
        assert features.grad is not None
        assert features.grad[0, :, -1, -1].abs().sum() > 0

    def test_locations_start_from_the_anchor_around_their_middle(self, head: CenternessHead) -> None:
        """Location (1, 2) is that of rows 4 to 7 and columns 8 to 11, whose middle torchvision has at 5.5, 9.5."""
        assert head.anchors(2, 3)[5].tolist() == [9.5 - 6, 5.5 - 4, 9.5 + 6, 5.5 + 4]

    def test_other_splits_are_refused(self) -> None:
        with pytest.raises(UsageError, match="split into 1 or 2 along each side, got 3"):
            CenternessHead(8, split=3)


def losses(
    head: CenternessHead, logits: Tensor, codes: Tensor, labels: Labels, samples: int = 10**6
) -> tuple[Tensor, Tensor]:
    boxes = [boxes_of(image) for image in labels]
    return head.losses(logits, codes, torch.from_numpy(labels).float(), boxes, samples, 0.5)


class TestLosses:
    def test_the_losses_written_out(self, head: CenternessHead) -> None:
        """With more samples than locations, all are sampled."""
        labels = two_nuclei()
        logits, codes = torch.randn(2, 8, 10), torch.randn(2, 4, 8, 10)
        score, box = losses(head, logits, codes, labels)
        entropies, distances = [], []
        for image, (centre, owner) in enumerate(targets(one) for one in labels):
            boxes = boxes_of(labels[image])
            for (row, column), wanted in np.ndenumerate(centre):
                if wanted >= 0:
                    probability = torch.sigmoid(logits[image, row, column])
                    entropies.append(-torch.log(probability if wanted else 1 - probability))
                if wanted == 1:
                    x0, y0, x1, y1 = (boxes[owner[row, column]] + 0.5).tolist()
                    expected = [
                        ((x0 + x1) / 2 - (4 * column + 2)) / 12,
                        ((y0 + y1) / 2 - (4 * row + 2)) / 8,
                        np.log((x1 - x0) / 12),
                        np.log((y1 - y0) / 8),
                    ]
                    error = (codes[image, :, row, column] - torch.tensor(expected)).abs()
                    distances.append(torch.where(error < 1, error**2 / 2, error - 0.5).sum())
        assert len(distances) > 3
        assert score.item() == pytest.approx(torch.stack(entropies).mean().item(), rel=1e-5)
        assert box.item() == pytest.approx(torch.stack(distances).mean().item(), rel=1e-5)

    def test_so_many_locations_are_sampled_at_most_half_of_them_centres(self, head: CenternessHead) -> None:
        labels = np.ones((1, 32, 40), np.int32)
        logits = torch.zeros(1, 8, 10, requires_grad=True)
        codes = torch.zeros(1, 4, 8, 10, requires_grad=True)
        sum(losses(head, logits, codes, labels, 10)).backward()
        assert logits.grad is not None
        assert codes.grad is not None
        centre = torch.from_numpy(targets(labels[0])[0] == 1)
        assert centre.sum() > 5
        assert ((logits.grad[0] != 0) & centre).sum() == 5
        assert (logits.grad != 0).sum() == 10
        assert codes.grad.abs().sum(1).count_nonzero() <= 5

    @pytest.mark.parametrize("value", [0, -1])
    def test_without_nuclei_they_are_zero(self, head: CenternessHead, value: int) -> None:
        logits, codes = head(torch.randn(2, 8, 8, 10))
        score, box = losses(head, logits, codes, np.full((2, 32, 40), value, np.int32))
        (score + box).backward()
        assert score.item() == box.item() == 0
        assert all(torch.isfinite(p.grad).all() for p in head.parameters() if p.grad is not None)

    def test_one_tiny_nucleus_is_enough(self, head: CenternessHead) -> None:
        labels = np.full((2, 32, 40), -1, np.int32)
        labels[1, 5, 5] = 1
        score, box = losses(head, *head(torch.randn(2, 8, 8, 10)), labels)
        assert score.item() == pytest.approx(np.log(2), rel=0.05)
        assert box.item() > 0

    def test_they_fall_to_zero_at_the_right_answer(self, head: CenternessHead) -> None:
        labels = two_nuclei()
        logits = torch.stack([torch.from_numpy(targets(one)[0] * 40.0 - 20) for one in labels]).float()
        codes = torch.zeros(2, 4, 8, 10)
        anchors = head.anchors(8, 10)
        for image, one in enumerate(labels):
            owner = torch.from_numpy(targets(one)[1])
            wanted = boxes_of(one)[owner.flatten().clamp(min=0)]
            codes[image] = head.coder.encode_single(wanted, anchors).T.reshape(4, 8, 10)
        score, box = losses(head, logits, codes, labels)
        assert score.item() < 1e-6
        assert box.item() < 1e-10


class TestBoxes:
    def test_the_right_answer_gives_the_boxes_of_the_nuclei(self, head: CenternessHead) -> None:
        labels = two_nuclei()
        logits = torch.full((2, 8, 10), -9.0)
        codes = torch.zeros(2, 4, 8, 10)
        anchors = head.anchors(8, 10)
        for image, one in enumerate(labels):
            centre, owner = targets(one)
            logits[image][torch.from_numpy(centre == 1)] = 9.0
            logits[image] += torch.linspace(0, 1, 80).reshape(8, 10)
            wanted = boxes_of(one)[torch.from_numpy(owner).flatten().clamp(min=0)]
            codes[image] = head.coder.encode_single(wanted, anchors).T.reshape(4, 8, 10)
        for found, one in zip(head.boxes(logits, codes, 0.95, 0.7, 100), labels, strict=True):
            best_last = (
                boxes_of(one).flip(0) if len(found) > 1 and found[0, 1] < found[-1, 1] else boxes_of(one)
            )
            expected = best_last[torch.argsort(best_last[:, 1])]
            assert functional.mse_loss(found[torch.argsort(found[:, 1])], expected) < 1e-8

    def test_repeats_go_and_so_do_the_worst_of_too_many(self, head: CenternessHead) -> None:
        logits = torch.full((1, 8, 10), -9.0)
        logits[0, 0, 0], logits[0, 0, 2], logits[0, 5, 5] = 6.0, 8.0, 7.0
        codes = torch.zeros(1, 4, 8, 10)
        codes[0, 0, 0, 0] = 8 / 12  # location (0, 0) points at the nucleus of (0, 2), 8 pixels further right
        boxes = head.anchors(8, 10)[[2, 55]]
        inside = boxes.clone()
        inside[:, :2].clamp_(min=-0.5)
        (found,) = head.boxes(logits, codes, 0.95, 0.7, 100)
        assert torch.allclose(found, inside)
        assert len(nms(found, torch.arange(2.0), 0.7)) == 2
        assert torch.allclose(head.boxes(logits, codes, 0.95, 0.7, 1)[0], inside[:1])

    def test_they_lie_within_the_image(self, head: CenternessHead) -> None:
        logits = torch.full((1, 8, 10), -9.0)
        logits[0, ::2, ::2] = 9.0
        (found,) = head.boxes(logits, torch.randn(1, 4, 8, 10) * 2, 0.95, 1.0, 100)
        assert len(found) > 5
        assert found[:, :2].min() >= -0.5
        assert found[:, 2].max() <= 39.5
        assert found[:, 3].max() <= 31.5

    def test_none(self, head: CenternessHead) -> None:
        found = head.boxes(torch.zeros(2, 8, 10), torch.zeros(2, 4, 8, 10), 0.95, 0.7, 100)
        assert [tuple(one.shape) for one in found] == [(0, 4), (0, 4)]
