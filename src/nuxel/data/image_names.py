"""What an image of a set is called, and which names of two sets belong together."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import PurePath

from nuxel.image.layout import IMAGES, LABELS, MASKS, is_named


def image_name(relative: PurePath) -> str:
    """The name of an image from its path below a folder, which has no extension any more.

    Examples
    --------
    >>> [image_name(PurePath(path)) for path in ("plate/A1", "images/x", "3f2a/images/3f2a")]
    ['plate/A1', 'x', '3f2a']
    """
    *folders, name = relative.parts
    if len(folders) > 1 and is_named(folders[-1], IMAGES) and folders[-2] == name:
        folders = folders[:-2]
    return PurePath(*[part for part in folders if not is_named(part, IMAGES, LABELS, MASKS)], name).as_posix()


def match_names(first: Iterable[str], second: Iterable[str], *, lone: bool = True) -> dict[str, str]:
    """For each name of the first that has a partner, its partner in the second.

    Equal names first. Of the others, two belong together if one name is the end of the other (``plate/A1`` and
    ``A1``) and neither could go with a third. With ``lone`` a single one on each side are a pair whatever their names.

    Examples
    --------
    >>> match_names(["a/x", "a/y", "z"], ["x", "b/y", "z"])
    {'z': 'z', 'a/x': 'x'}
    """
    left, right = _composed(first), _composed(second)
    if lone and len(left) == len(right) == 1:
        return dict(zip(left.values(), right.values(), strict=True))
    matched = {name: name for name in left if name in right}
    rest, others = ([name for name in names if name not in matched] for names in (left, right))
    forward, backward = _by_ending(rest, others), _by_ending(others, rest)
    for name in rest:
        if len(forward[name]) == 1 and len(backward[forward[name][0]]) == 1:
            matched[name] = forward[name][0]
    return {left[name]: right[other] for name, other in matched.items()}


def composed(name: str) -> str:
    """The name with its accented letters written in one way; some file systems keep letter and accent apart."""
    return unicodedata.normalize("NFC", name)


def _composed(names: Iterable[str]) -> dict[str, str]:
    """The names by themselves, composed, unless a set tells its images apart by that."""
    given = list(names)
    found = {composed(name): name for name in given}
    return found if len(found) == len(set(given)) else {name: name for name in given}


def _by_ending(names: list[str], others: list[str]) -> dict[str, list[str]]:
    """For each name, the others that are an end of it or that it is an end of."""
    ending_in = defaultdict(list)
    for other in others:
        for end in _endings(other):
            ending_in[end].append(other)
    whole = set(others)
    return {name: ending_in[name] + [end for end in _endings(name) if end in whole] for name in names}


def _endings(name: str) -> Iterator[str]:
    parts = name.split("/")
    for start in range(1, len(parts)):
        yield "/".join(parts[start:])
