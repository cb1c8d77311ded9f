"""``nuxel.segment`` on arrays and files of every kind."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

import nuxel
from nuxel.data.dataset import Source, find_annotated, read_annotated
from nuxel.errors import NuxelError, UsageError
from nuxel.image.resample import resize_labels
from nuxel.labels.relabel import relabel
from nuxel.metrics.average_precision import average_precision
from nuxel.metrics.matching import match

DATA = Path(__file__).parents[2].parent / "shared" / "data"
EXAMPLES = Path(__file__).parents[2] / "examples"
Draw = Callable[..., NDArray[np.uint8]]


@pytest.fixture
def segment(toy_model: Path) -> Callable[..., NDArray[np.int32]]:
    def find(image: Any, **options: Any) -> NDArray[np.int32]:
        return nuxel.segment(image, model=toy_model, **{"scale": 1, "threads": 1, **options}).labels

    return find


@pytest.mark.parametrize("number", [64, np.int64(64), np.uint8(64)])
def test_numbers_of_numpy_are_numbers(segment: Callable[..., Any], draw_discs: Draw, number: Any) -> None:
    assert segment(draw_discs(), tile_size=number).max() == 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"threads": 99_999_999_999}, "threads must be at most"),
        ({"scale": 10**400}, "the scale must be at most 16"),
        ({"diameter": -(10**400)}, "the diameter must be a positive number"),
        ({"model": "m" * 300}, "no such model"),
    ],
)
def test_absurd_values_are_refused(draw_discs: Draw, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        nuxel.segment(draw_discs(), **options)


class Odd:
    """As a tensor of another library that has no array to give."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __array__(self, *_: Any, **__: Any) -> NDArray[Any]:
        raise self.error


@pytest.mark.parametrize(
    "error", [TypeError("bfloat16"), RuntimeError("requires grad"), ValueError("ragged")]
)
def test_what_gives_no_array_is_refused(error: Exception) -> None:
    with pytest.raises(NuxelError, match=f"an image is a path or an array of numbers: {error}"):
        nuxel.segment(Odd(error))


def test_channels_that_are_no_colours_are_not_guessed_at(
    segment: Callable[..., Any], draw_discs: Draw
) -> None:
    discs = draw_discs()
    for stack in (np.stack([discs, discs], -1), np.stack([discs] * 4, -1).astype(np.uint16)):
        with pytest.raises(NuxelError, match="is grey, RGB or RGBA"):
            segment(stack)
    assert segment(np.stack([discs] * 4, -1)).max() == 4
    assert segment(np.stack([discs] * 4, -1) / np.float32(255)).max() == 4


def test_a_path_of_bytes(segment: Callable[..., Any], tmp_path: Path, draw_discs: Draw) -> None:
    class Bytes:
        def __fspath__(self) -> bytes:
            return bytes(tmp_path / "a.png")

    Image.fromarray(draw_discs()).save(tmp_path / "a.png")
    assert segment(Bytes()).max() == 4


DTYPES = [
    "bool",
    "uint8",
    "int8",
    "uint16",
    "int16",
    "uint32",
    "int32",
    "int64",
    "float16",
    "float32",
    "float64",
]


def test_a_model_file_that_changed_is_opened_again(
    make_toy_model: Callable[..., Path], draw_discs: Draw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_toy_model("model.onnx")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / path.name).write_bytes(b"no model")
    monkeypatch.chdir(tmp_path)
    assert len(nuxel.segment(draw_discs(), model=path.name, scale=1)) == 4
    monkeypatch.chdir(tmp_path / "other")
    with pytest.raises(NuxelError, match="not an ONNX model"):
        nuxel.segment(draw_discs(), model=path.name, scale=1)
    path.write_bytes(b"no model, either")
    with pytest.raises(NuxelError, match="not an ONNX model"):
        nuxel.segment(draw_discs(), model=path, scale=1)


class TestArrays:
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_every_dtype(self, segment: Callable[..., Any], draw_discs: Draw, dtype: str) -> None:
        discs = draw_discs()
        bright = (discs > 0).astype(dtype)
        if dtype != "bool":
            bright *= np.array(100, dtype)
        assert np.array_equal(segment(bright), segment(discs))

    def test_offset_and_range_do_not_matter(self, segment: Callable[..., Any], draw_discs: Draw) -> None:
        discs = draw_discs()
        expected = segment(discs)
        assert expected.max() == 4
        assert np.array_equal(segment(discs.astype(np.int32) - 70000), expected)
        assert np.array_equal(segment(discs * 1e-6), expected)
        assert np.array_equal(segment(discs / 200 * 4095), expected)

    @pytest.mark.parametrize("layout", ["grey", "one", "rgb", "rgba"])
    def test_every_number_of_channels(
        self, segment: Callable[..., Any], draw_discs: Draw, layout: str
    ) -> None:
        discs = draw_discs()
        opaque = np.full_like(discs, 255)
        images = {
            "grey": discs,
            "one": discs[..., None],
            "rgb": np.stack([discs] * 3, 2),
            "rgba": np.stack([discs] * 3 + [opaque], 2),
        }
        assert np.array_equal(segment(images[layout]), segment(discs))

    @pytest.mark.parametrize("shape", [(3, 40, 50), (10, 40, 50), (40, 50, 5)])
    def test_what_is_no_plane_is_not_guessed_at(
        self, segment: Callable[..., Any], shape: tuple[int, ...]
    ) -> None:
        with pytest.raises(NuxelError, match=r"got an array of shape .*: of a stack or of several channels"):
            segment(np.zeros(shape))

    @pytest.mark.parametrize("channel", [0, 1, 2])
    def test_a_stain_in_one_channel_is_seen_as_grey(
        self, segment: Callable[..., Any], draw_discs: Draw, channel: int
    ) -> None:
        discs = draw_discs()
        colour = np.zeros((*discs.shape, 3), np.uint8)
        colour[..., channel] = discs
        assert np.array_equal(segment(colour), segment(discs))

    def test_views_are_as_good_as_copies(self, segment: Callable[..., Any], draw_discs: Draw) -> None:
        discs = draw_discs()
        assert np.array_equal(segment(discs[::-1, ::-1])[::-1, ::-1] > 0, segment(discs) > 0)
        assert np.array_equal(segment(np.asfortranarray(discs)), segment(discs))
        assert np.array_equal(segment(discs.astype(">u2")), segment(discs))

    def test_the_image_stays_as_it_is(self, segment: Callable[..., Any], draw_discs: Draw) -> None:
        discs = draw_discs()
        before = discs.copy()
        discs.flags.writeable = False
        segment(discs)
        assert np.array_equal(discs, before)

    def test_holes_in_the_data(self, segment: Callable[..., Any], draw_discs: Draw) -> None:
        discs = draw_discs().astype(np.float32)
        discs[:3], discs[3:5], discs[5:6] = np.nan, -np.inf, np.inf
        assert 4 <= segment(discs).max() <= 5  # a row of infinities may count as bright

    @pytest.mark.parametrize("value", [0, 7, 255])
    def test_a_constant_image_has_no_nuclei(self, segment: Callable[..., Any], value: int) -> None:
        assert segment(np.full((50, 70), value, np.uint8)).max() == 0

    def test_what_is_masked_counts_for_nothing(self, segment: Callable[..., Any], draw_discs: Draw) -> None:
        discs = draw_discs()
        mask = np.zeros(discs.shape, bool)
        mask[: len(discs) // 2] = True
        seen = segment(np.ma.masked_array(discs, mask))
        assert (segment(discs).max(), seen.max()) == (4, 2)
        assert not seen[mask].any()
        assert np.array_equal(segment(np.ma.masked_array(discs, np.ma.nomask)), segment(discs))

    def test_nothing_but_nan(self, segment: Callable[..., Any]) -> None:
        assert segment(np.full((50, 70), np.nan)).max() == 0

    @pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (15, 17), (16, 16), (33, 97)])
    def test_every_size(self, segment: Callable[..., Any], shape: tuple[int, int]) -> None:
        assert segment(np.zeros(shape, np.uint8)).shape == shape
        assert shipped(np.eye(*shape, dtype=np.uint8)).labels.shape == shape

    @pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4, 5), (0, 5), (5, 0), (5, 5, 0)])
    def test_what_is_no_image(self, segment: Callable[..., Any], shape: tuple[int, ...]) -> None:
        with pytest.raises(NuxelError, match=r"an image is \(H, W\) or \(H, W, C\)"):
            segment(np.zeros(shape))

    @pytest.mark.parametrize("dtype", ["complex64", "datetime64[s]", "U3", "O"])
    def test_what_are_no_numbers(self, segment: Callable[..., Any], dtype: str) -> None:
        with pytest.raises(NuxelError, match="an image is a path or an array of real numbers"):
            segment(np.empty((8, 8), dtype))

    @pytest.mark.parametrize("given", [None, b"a.png", 5, [[1, 2], [3]], {"a": 1}])
    def test_what_is_no_array(self, segment: Callable[..., Any], given: object) -> None:
        with pytest.raises(NuxelError, match=r"^an image is "):
            segment(given)

    @pytest.mark.parametrize(
        "options",
        [
            {"model": None},
            {"model": []},
            {"model": b"default"},
            {"model": ""},
            {"model": "."},
            {"threads": [1]},
            {"threads": True},
            {"threads": 0},
            {"device": ["cpu"]},
            {"tta": "no"},
            {"scale": 17},
        ],
    )
    def test_options_of_another_kind(self, options: dict[str, Any]) -> None:
        with pytest.raises(UsageError) as refused:
            nuxel.segment(np.zeros((8, 8), np.uint8), **options)
        assert "\n" not in str(refused.value)

    def test_numbers_may_be_of_numpy(self, segment: Callable[..., Any], draw_discs: Draw) -> None:
        plain = segment(draw_discs(), threads=1, min_area=5)
        assert np.array_equal(segment(draw_discs(), threads=np.int64(1), min_area=np.int16(5)), plain)

    def test_a_view_that_no_machine_holds(
        self, segment: Callable[..., Any], draw_discs: Draw, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("nuxel.image.reader.available_memory", lambda: 96 * 96 * 14 * 4)
        assert segment(draw_discs(), scale=2).max() == 4
        with pytest.raises(
            NuxelError, match=r"at the scale 3 would be 288 x 288, more .*; give a smaller scale"
        ):
            segment(draw_discs(), scale=3)


def test_a_doubtful_pixel_size_is_a_warning(toy_model: Path, draw_discs: Draw, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="give the pixel size .--pixel-size. if that is wrong"):
        nuxel.segment(draw_discs(), model=toy_model, pixel_size_um=0.01)
    tifffile.imwrite(tmp_path / "a.tif", draw_discs(), resolution=(1e6, 1e6), resolutionunit="CENTIMETER")
    with pytest.warns(UserWarning, match="at 0.01 um a pixel"):  # the file's own
        nuxel.segment(tmp_path / "a.tif", model=toy_model)


def test_several_models_are_averaged(make_toy_model: Callable[..., Path], draw_discs: Draw) -> None:
    """One is sure of four nuclei, the other says a half everywhere."""
    sure, unsure = (make_toy_model(f"{steepness}.onnx", steepness=steepness) for steepness in (4.0, 0.0))
    how: dict[str, Any] = {"scale": 1, "threshold": 0.6}
    assert len(nuxel.segment(draw_discs(), model=unsure, **how)) == 0
    both = nuxel.segment(draw_discs(), model=[sure, unsure], **how)
    assert both.scores == pytest.approx([0.75] * 4, abs=0.05)


class TestFiles:
    def test_as_the_array_that_it_holds(
        self, segment: Callable[..., Any], draw_discs: Draw, tmp_path: Path
    ) -> None:
        discs = draw_discs()
        Image.fromarray(discs).save(tmp_path / "a.png")
        tifffile.imwrite(tmp_path / "a.tif", discs.astype(np.uint16) * 200)
        expected = segment(discs)
        assert np.array_equal(segment(tmp_path / "a.png"), expected)
        assert np.array_equal(segment(str(tmp_path / "a.tif")), expected)

    @pytest.mark.parametrize(
        "dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]
    )
    def test_every_dtype(
        self, segment: Callable[..., Any], draw_discs: Draw, tmp_path: Path, dtype: str
    ) -> None:
        tifffile.imwrite(tmp_path / "a.tif", (draw_discs() // 2).astype(dtype), compression="lzw")
        assert np.array_equal(segment(tmp_path / "a.tif"), segment(draw_discs()))

    def test_planes_are_chosen(self, segment: Callable[..., Any], draw_discs: Draw, tmp_path: Path) -> None:
        stack = np.stack([np.zeros_like(draw_discs()), draw_discs()])
        tifffile.imwrite(tmp_path / "z.ome.tif", stack, metadata={"axes": "ZYX"})
        assert segment(tmp_path / "z.ome.tif", z=1).max() == 4
        assert segment(tmp_path / "z.ome.tif", z=0).max() == 0
        with pytest.raises(NuxelError, match="z"):
            segment(tmp_path / "z.ome.tif")
        for choice in ({"z": 0}, {"channel": "red"}, {"t": 0}):
            with pytest.raises(UsageError, match="channel, z and t choose from what a file holds"):
                segment(stack[1], **choice)

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("threshold", "0.5"),
            ("diameter", [30]),
            ("scale", True),
            ("min_area", 2.5),
            ("tile_size", "big"),
            ("threads", 1.5),
            ("threads", 0),
            ("threads", "2"),
        ],
    )
    def test_options_that_are_no_numbers(self, toy_model: Path, option: str, value: Any) -> None:
        with pytest.raises(UsageError, match=f"{option} must be a .*number.*, got {re.escape(repr(value))}"):
            nuxel.segment(np.zeros((8, 8)), model=toy_model, **{option: value})

    def test_missing(self, segment: Callable[..., Any], tmp_path: Path) -> None:
        with pytest.raises(NuxelError, match=r"absent\.png: there is no such file"):
            segment(tmp_path / "absent.png")


class TestOptions:
    @pytest.mark.parametrize("size", [0, -0.5, float("inf"), "wide"])
    def test_an_impossible_pixel_size(self, segment: Callable[..., Any], size: Any) -> None:
        with pytest.raises(UsageError, match="pixel size must be a number of micrometres"):
            segment(np.zeros((8, 8)), pixel_size_um=size)

    def test_an_unknown_option(self, segment: Callable[..., Any]) -> None:
        with pytest.raises(TypeError, match="treshold"):
            segment(np.zeros((8, 8)), treshold=0.5)

    def test_an_unknown_model(self) -> None:
        with pytest.raises(UsageError, match="no such model"):
            nuxel.segment(np.zeros((8, 8)), model="nothing")

    def test_least_area(self, segment: Callable[..., Any], draw_discs: Draw) -> None:
        discs = draw_discs()
        discs[4, 2:7] = 200
        discs[3:6, 3:6] = 200
        assert segment(discs, min_area=30).max() == 4

    def test_tiles_and_threads_do_not_matter(self, segment: Callable[..., Any], draw_discs: Draw) -> None:
        discs = draw_discs(16, 160)
        expected = segment(discs)
        assert expected.max() == 16
        assert np.array_equal(segment(discs, tile_size=32), expected)
        assert np.array_equal(segment(discs, threads=2), expected)


def read(name: str) -> NDArray[np.uint8]:
    return np.asarray(Image.open(EXAMPLES / f"{name}.png"))


def share_matched(found: NDArray[np.int32], expected: NDArray[np.int32]) -> float:
    """The F1 score of two label images at IoU 0.5."""
    return 2 * match(expected, found, 0.5).true_positives / (found.max() + expected.max())


def shipped(image: Any) -> nuxel.Instances:
    # one thread: several would wait for one another where other tests run beside this one
    return nuxel.segment(image, threads=1)


class TestShippedModel:
    """Bounds that any model worth shipping keeps; nothing here depends on its weights beyond that."""

    def test_nuclei_of_real_images_are_found(self) -> None:
        found = shipped(EXAMPLES / "fluorescence_dense.png")
        assert 60 < len(found) < 140
        assert found.labels.dtype == np.int32
        assert np.array_equal(np.unique(found.labels), np.arange(len(found) + 1))
        assert found.scores.shape == (len(found),)
        assert ((found.scores > 0) & (found.scores <= 1)).all()
        inside = read("fluorescence_dense")[found.labels > 0].mean()
        assert inside > 3 * read("fluorescence_dense")[found.labels == 0].mean()

    @pytest.mark.parametrize(
        ("name", "diameter"),
        [
            ("fluorescence_dense", 6.5),
            ("fluorescence_large", 6.5),
            ("fluorescence_large", 200),
            ("purple_on_purple", 6.5),
            ("purple_on_purple", 50),
            ("purple_on_white", 12),
            ("purple_on_white", 100),
        ],
    )
    def test_nuclei_from_6_to_200_px_are_the_same(self, name: str, diameter: float) -> None:
        """Without being told how large they are."""
        image = read(name)
        found = shipped(image).labels
        own = np.median(np.sqrt(4 / np.pi * np.bincount(found[found > 0])[1:]))
        shape = tuple(round(side * diameter / own) for side in found.shape)
        resized = np.asarray(Image.fromarray(image).resize(shape[::-1], Image.Resampling.BICUBIC))
        assert share_matched(shipped(resized).labels, relabel(resize_labels(found, shape))) > 0.85

    @pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
    @pytest.mark.parametrize(("resize", "least"), [(1.0, 0.75), (0.5, 0.7), (2.0, 0.7)])
    def test_real_images_that_it_was_not_trained_on(self, resize: float, least: float) -> None:
        """Far below what benchmarks/accuracy.py measures on all of them; every seventh of those up to 360 px."""
        found = find_annotated(Source(str(DATA / "dsb2018"), "index.csv", {"split": "val"}))
        pairs = [read_annotated(item) for item in found[::7]]
        scores = []
        for image, truth in pairs:
            if max(truth.shape) > 360:
                continue
            shape = tuple(round(side * resize) for side in truth.shape)
            resized = np.asarray(Image.fromarray(image).resize(shape[::-1], Image.Resampling.BICUBIC))
            scores.append(average_precision(resize_labels(truth, shape), shipped(resized).labels, [0.5]))
        assert len(scores) > 5
        assert np.mean(scores) > least

    @pytest.mark.parametrize("name", ["brightfield", "purple_on_purple", "fluorescence_dense"])
    def test_a_lower_threshold_loses_no_nucleus(self, name: str) -> None:
        found = shipped(EXAMPLES / f"{name}.png")
        for threshold in (0.5, 0.2):
            more = nuxel.segment(EXAMPLES / f"{name}.png", threads=1, threshold=threshold)
            assert len(more) >= len(found)
            assert set(np.unique(found.labels[more.labels > 0])) >= set(range(1, len(found) + 1))

    @pytest.mark.parametrize("name", ["fluorescence_dense", "fluorescence_large", "purple_on_white"])
    def test_an_inverted_image_gives_about_the_same(self, name: str) -> None:
        image = read(name)
        assert share_matched(shipped(255 - image).labels, shipped(image).labels) > 0.6

    def test_a_stain_in_the_blue_channel_gives_the_same(self) -> None:
        grey = read("fluorescence_dense")
        blue = np.zeros((*grey.shape, 3), np.uint8)
        blue[..., 2] = grey
        assert np.array_equal(shipped(blue).labels, shipped(grey).labels)

    def test_depth_of_bits_gives_the_same(self) -> None:
        grey = read("fluorescence_dense")
        expected = shipped(grey).labels
        for same in (grey.astype(np.int16) * 16 - 5000, grey / np.float32(255)):
            assert share_matched(shipped(same).labels, expected) > 0.98

    @pytest.mark.parametrize("threads", [1, 3])
    def test_the_number_of_threads_does_not_matter(self, threads: int) -> None:
        image = read("purple_on_purple")
        expected = nuxel.segment(image, threads=2).labels
        found = nuxel.segment(image, threads=threads).labels
        assert np.array_equal(found, expected)
