"""Choosing planes and channels from layouts, without any file."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nuxel.errors import NuxelError, UsageError
from nuxel.image.choose import choose_planes, described
from nuxel.image.reader import COLOUR_NAMES, Layout


def layout(axes: str, *shape: int, names: tuple[str, ...] = ("grey",)) -> Layout:
    return Layout(
        "TIFF", axes, (*shape, 64, 96) + ((3,) if axes.endswith("S") else ()), np.dtype("u1"), names, None
    )


FULL = layout("TCZYX", 2, 3, 4, names=("DAPI", "GFP", "405"))
GREY = layout("YX")
COLOUR = layout("YXS", names=COLOUR_NAMES)
UNNAMED = layout("QYX", 5)


@pytest.mark.parametrize(
    ("held", "given", "planes", "names"),
    [
        (GREY, {}, ((),), ("grey",)),
        (COLOUR, {}, ((),), COLOUR_NAMES),
        (FULL, {"t": 1, "channel": "gfp", "z": 3}, ((1, 1, 3),), ("GFP",)),
        (FULL, {"t": 0, "channel": 0, "z": 0}, ((0, 0, 0),), ("DAPI",)),
        (FULL, {"t": 0, "channel": " Dapi ", "z": 0}, ((0, 0, 0),), ("DAPI",)),
        (FULL, {"t": 0, "channel": "2", "z": 0}, ((0, 2, 0),), ("405",)),
        (FULL, {"t": 0, "channel": "405", "z": 0}, ((0, 2, 0),), ("405",)),
        (FULL, {"t": 0, "channel": np.int64(2), "z": np.uint8(1)}, ((0, 2, 1),), ("405",)),
        (FULL, {"t": 1, "channel": 1, "z": "max"}, tuple((1, 1, z) for z in range(4)), ("GFP",)),
        (UNNAMED, {"z": 4}, ((4,),), ("grey",)),
        (UNNAMED, {"t": 0}, ((0,),), ("grey",)),
        (UNNAMED, {"channel": 2}, ((2,),), ("channel 2",)),
        (UNNAMED, {"channel": "2"}, ((2,),), ("channel 2",)),
        (UNNAMED, {"z": "max"}, ((0,), (1,), (2,), (3,), (4,)), ("grey",)),
        (layout("CQYX", 2, 5, names=("a", "b")), {"channel": "b", "t": 3}, ((1, 3),), ("b",)),
        (layout("CQYX", 2, 5, names=("a", "b")), {"channel": "b", "z": 3}, ((1, 3),), ("b",)),
        (layout("IYXS", 5, names=COLOUR_NAMES), {"z": 3}, ((3,),), COLOUR_NAMES),
        (layout("IYXS", 5, names=COLOUR_NAMES), {"z": 3, "channel": 2}, ((3,),), ("blue",)),
        (GREY, {"z": 0, "t": 0, "channel": 0}, ((),), ("grey",)),
        (GREY, {"z": "max", "channel": "grey"}, ((),), ("grey",)),
        (layout("CYXS", 2, names=("a", "b")), {"channel": "b"}, ((1,),), COLOUR_NAMES),
    ],
)
def test_what_is_meant(held: Layout, given: dict[str, Any], planes: tuple, names: tuple[str, ...]) -> None:
    choice = choose_planes(held, **given)
    assert choice.planes == planes
    assert choice.names == names


@pytest.mark.parametrize(("channel", "sample"), [(0, 0), ("GREEN", 1), ("blue", 2), ("2", 2), (None, None)])
def test_one_colour_of_three(channel: str | int | None, sample: int | None) -> None:
    choice = choose_planes(COLOUR, channel=channel)
    assert choice.sample == sample
    assert choice.names == (COLOUR_NAMES if sample is None else (COLOUR_NAMES[sample],))


@pytest.mark.parametrize(
    ("held", "given", "message"),
    [
        (FULL, {}, r"with --t 0\.\.1 and --channel 0\.\.2 or NAME and --z 0\.\.3 or max$"),
        (FULL, {"t": 0, "z": 1}, r"say which plane with --channel 0\.\.2 or NAME$"),
        (FULL, {}, r"axes TCZYX of sizes 2 x 3 x 4 x 64 x 96 \(channels: DAPI, GFP, 405\)"),
        (UNNAMED, {}, r"exactly one of --channel or --z or --t 0\.\.4 for the unnamed axis Q"),
        (UNNAMED, {"z": 0, "t": 0}, "exactly one of --channel or --z or --t"),
        (layout("IYXS", 5, names=COLOUR_NAMES), {}, r"exactly one of --z or --t 0\.\.4"),
        (layout("ZQYX", 2, 5), {"z": 0}, r"exactly one of --channel or --t 0\.\.4"),
        (layout("QIYX", 2, 5), {"z": 0, "t": 0}, "save it as OME-TIFF"),
        (layout("TCZQYX", 2, 3, 4, 5), {"t": 0, "z": 0, "channel": 0}, "save it as OME-TIFF"),
    ],
)
def test_what_is_open_is_asked_for(held: Layout, given: dict[str, Any], message: str) -> None:
    with pytest.raises(NuxelError, match=message):
        choose_planes(held, **given)


@pytest.mark.parametrize(
    ("held", "given", "message"),
    [
        (FULL, {"t": 2, "channel": 0, "z": 0}, "has no t 2: it holds axes TCZYX of sizes 2 x 3"),
        (FULL, {"t": -1, "channel": 0, "z": 0}, "has no t -1"),
        (FULL, {"t": 0, "channel": 3, "z": 0}, "has no channel 3: .*DAPI, GFP, 405"),
        (FULL, {"t": 0, "channel": "RFP", "z": 0}, "has no channel 'RFP': .*DAPI, GFP, 405"),
        (FULL, {"t": 0, "channel": "3", "z": 0}, "has no channel '3'"),
        (FULL, {"t": 0, "channel": "", "z": 0}, "has no channel ''"),
        (FULL, {"t": 0, "channel": 405, "z": 0}, "has no channel 405"),
        (FULL, {"t": 0, "channel": 0, "z": 4}, "has no z 4"),
        (COLOUR, {"channel": "grey"}, "has no channel 'grey': .*red, green, blue"),
        (COLOUR, {"channel": 3}, "has no channel 3"),
        (COLOUR, {"z": 1}, "has no z 1: it holds axes YXS"),
        (GREY, {"z": 1}, "has no z 1"),
        (GREY, {"t": 1}, "has no t 1"),
        (GREY, {"channel": 1}, "has no channel 1"),
        (GREY, {"channel": "DAPI"}, "has no channel 'DAPI'"),
        (UNNAMED, {"channel": "DAPI"}, "has no channel 'DAPI'"),
        (UNNAMED, {"t": 5}, "has no t 5"),
        (
            layout("CYX", 2, names=("a", "A")),
            {"channel": "a"},
            r"2 channels named 'a': give the index of one, \[0, 1\]",
        ),
        (layout("CYX", 2, names=("a", "b")), {"channel": 0, "z": 1}, "has no z 1"),
    ],
)
def test_what_is_not_there(held: Layout, given: dict[str, Any], message: str) -> None:
    with pytest.raises(NuxelError, match=message) as caught:
        choose_planes(held, **given)
    assert not isinstance(caught.value, UsageError)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"z": "min"}, "z must be an index from 0 or 'max', not 'min'"),
        ({"z": 1.0}, "z must be an index"),
        ({"t": "max"}, "t must be an index from 0, not 'max'"),
        ({"t": 0.5}, "t must be an index"),
        ({"channel": 1.0}, "channel must be an index from 0 or a channel's name, not 1.0"),
    ],
)
def test_what_has_no_meaning_for_any_file(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        choose_planes(FULL, **given)


def test_a_sentence_names_twenty_channels_at_most() -> None:
    names = tuple(f"c{i}" for i in range(21))
    assert described(layout("CYX", 21, names=names)).endswith("c19, ...)")
    assert described(layout("CYX", 20, names=names[:20])).endswith("c19)")
