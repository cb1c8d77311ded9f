"""Which planes and which channel of a file are meant; what is ambiguous is asked for, never guessed."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from nuxel.errors import NuxelError, UsageError
from nuxel.image.reader import COLOUR_NAMES, Layout

_WORDS = {"C": "channel", "Z": "z", "T": "t"}
"""The axes that a user can choose from, and how."""

_LISTED = 20
"""As many channels as a sentence can name."""


@dataclass(frozen=True)
class Choice:
    """The planes to read and what to keep of them.

    Parameters
    ----------
    planes
        Index of each plane, one number for each of ``layout.plane_axes``; of several the maximum is taken.
    sample
        Which of red, green and blue to keep, ``None`` for the whole plane.
    names
        Names of the channels that are kept.
    """

    planes: tuple[tuple[int, ...], ...]
    sample: int | None
    names: tuple[str, ...]


def choose_planes(
    layout: Layout,
    *,
    channel: str | int | None = None,
    z: int | Literal["max"] | None = None,
    t: int | None = None,
) -> Choice:
    """Find the planes that ``channel``, ``z`` and ``t`` mean in a file of this layout.

    An axis that the file does not name is chosen by the one of the three that has no axis of its own.
    A file without an axis accepts index 0 of it, and ``z="max"``.

    Raises
    ------
    NuxelError
        If an axis is left open, an index is out of range or a name unknown. The sentence lists what there is,
        and lacks its subject, which is the file.
    UsageError
        If a value is neither an index nor (``channel``) a name nor (``z``) ``"max"``.

    Examples
    --------
    >>> import numpy as np
    >>> layout = Layout("TIFF", "ZCYX", (3, 2, 64, 64), np.dtype(np.uint8), ("DAPI", "GFP"), None)
    >>> choose_planes(layout, channel="gfp", z="max").planes
    ((0, 1), (1, 1), (2, 1))
    """
    given = (("C", channel), ("Z", z), ("T", t))
    wanted = {letter: _checked(letter, value) for letter, value in given if value is not None}
    letters = _deciding_letters(layout, wanted)
    if not wanted.keys() >= set(letters):
        raise NuxelError(f"holds {described(layout)}: {_question(layout, letters, wanted)}")
    ranges = []
    for axis, letter, length in zip(layout.plane_axes, letters, layout.shape, strict=False):
        names = layout.channel_names if axis == "C" else ()
        ranges.append(_indices(layout, letter, wanted[letter], length, names))
    sample = None
    for letter in wanted.keys() - set(letters):
        names = layout.channel_names if letter == "C" else ()
        found = _indices(layout, letter, wanted[letter], len(names) or 1, names)
        sample = found[0] if letter == "C" and layout.is_colour else sample
    return Choice(tuple(itertools.product(*ranges)), sample, _kept_names(layout, letters, ranges, sample))


def read_z(text: str) -> int | Literal["max"]:
    """A z plane that is given as text: its number, or ``max``.

    Raises
    ------
    UsageError
        If it is neither.
    """
    if text == "max":
        return "max"
    if text.isdecimal():
        return int(text)
    raise UsageError(f"z must be a plane's number or max, got {text!r}")


def described(layout: Layout) -> str:
    """What a layout holds, for a sentence.

    Examples
    --------
    >>> import numpy as np
    >>> described(Layout("TIFF", "CYX", (2, 64, 96), np.dtype(np.uint8), ("DAPI", "GFP"), None))
    'axes CYX of sizes 2 x 64 x 96 (channels: DAPI, GFP)'
    """
    sizes = " x ".join(map(str, layout.shape))
    names = [*layout.channel_names[:_LISTED], *(["..."] if len(layout.channel_names) > _LISTED else [])]
    return f"axes {layout.axes} of sizes {sizes} (channels: {', '.join(names)})"


def _checked(letter: str, value: str | int) -> str | int:
    if letter == "C" and isinstance(value, str):
        return value.strip()
    if letter == "Z" and value == "max":
        return value
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        other = {"C": " or a channel's name", "Z": " or 'max'", "T": ""}[letter]
        raise UsageError(f"{_WORDS[letter]} must be an index from 0{other}, not {value!r}") from None


def _deciding_letters(layout: Layout, wanted: Mapping[str, str | int]) -> list[str]:
    """For each plane axis the letter that chooses from it: its own, or the spare one for an unnamed axis."""
    unnamed = [axis for axis in layout.plane_axes if axis not in _WORDS]
    spare = [letter for letter in _spare_letters(layout) if letter in wanted]
    chosen_by = spare[0] if len(unnamed) == len(spare) == 1 else "?"
    return [axis if axis in _WORDS else chosen_by for axis in layout.plane_axes]


def _spare_letters(layout: Layout) -> list[str]:
    """The letters without an axis of their own; in colour images a channel is a colour."""
    taken = layout.plane_axes + ("C" if layout.is_colour else "")
    return [letter for letter in _WORDS if letter not in taken]


def _question(layout: Layout, letters: Sequence[str], wanted: Mapping[str, str | int]) -> str:
    """What the user has to say so that nothing is left open."""
    asked = []
    for axis, letter, length in zip(layout.plane_axes, letters, layout.shape, strict=False):
        if letter in wanted:
            continue
        spare = _spare_letters(layout)
        if letter != "?":
            asked.append(f"--{_WORDS[letter]} {_values(letter, length)}")
        elif letters.count("?") == 1 and spare:
            flags = " or ".join(f"--{_WORDS[s]}" for s in spare)
            asked.append(f"exactly one of {flags} {_values('', length)} for the unnamed axis {axis}")
        else:
            return (
                "more unnamed axes than nuxel can choose from, so save it as OME-TIFF or an ImageJ hyperstack"
            )
    return "say which plane with " + " and ".join(asked)


def _values(letter: str, length: int) -> str:
    other = {"C": " or NAME", "Z": " or max"}.get(letter, "")
    return f"0..{length - 1}{other}"


def _indices(
    layout: Layout, letter: str, value: str | int, length: int, names: Sequence[str]
) -> Sequence[int]:
    """The indices that ``value`` means on an axis of ``length``."""
    if value == "max" and letter == "Z":
        return range(length)
    if isinstance(value, str):
        matching = [i for i, name in enumerate(names) if name.casefold() == value.casefold()]
        if len(matching) == 1:
            return matching
        if len(matching) > 1:
            raise NuxelError(
                f"has {len(matching)} channels named {value!r}: give the index of one, {matching}"
            )
    number = int(value) if isinstance(value, int) or value.isdecimal() else -1
    if not 0 <= number < length:
        raise NuxelError(f"has no {_WORDS[letter]} {value!r}: it holds {described(layout)}, counted from 0")
    return [number]


def _kept_names(
    layout: Layout, letters: Sequence[str], ranges: Sequence[Sequence[int]], sample: int | None
) -> tuple[str, ...]:
    if layout.is_colour:
        return COLOUR_NAMES if sample is None else (COLOUR_NAMES[sample],)
    if "C" in layout.plane_axes:
        return (layout.channel_names[ranges[letters.index("C")][0]],)
    if "C" in letters:
        return (f"channel {ranges[letters.index('C')][0]}",)
    return layout.channel_names
