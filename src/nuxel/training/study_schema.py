"""What ``study.toml`` may hold: rows, budgets, tables and figures, each checked by itself and against the others."""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nuxel.data.dataset import Source
from nuxel.decode.clumps import SPLITS
from nuxel.errors import UsageError

LOSSES = ("loss", "confidence", "location", "segmentation")
"""What curves can show of training, rather than of the validation images."""

SCORES: Mapping[str, tuple[str, ...]] = {
    "curves": (
        "mAP",
        "AP50",
        "AJI",
        "NCS",
        "precision",
        "recall",
        "box_AP50",
        "pixel_accuracy",
        "IoU_foreground",
        "IoU_nucleus",
        "IoU_touching",
        *LOSSES,
    ),
    "bars": ("mAP", "AP50", "IoU", "AJI", "NCS", "precision", "recall", "pixel_accuracy", "box_AP50"),
}
"""Kinds of figures, and what each can show: scores on the validation images, and those on the test images."""


@dataclass(frozen=True)
class Row:
    """What a line of a table measures.

    Parameters
    ----------
    name, label
        What it is called on the command line and in names of files (letters, digits, ``_``, ``-``, ``+``, ``.``), and
        in the tables.
    recipe, set
        Of a row that trains: a recipe in the study's folder, and changes of it, each ``table.key=value``.
    of
        Of a row that only evaluates: the row whose model it uses, with the decoder's parameters that the model has.
    split
        Divide clumps in this way instead (see :class:`nuxel.decode.clumps.ClumpRule`).
    rule
        Other parameters of the decoder that are to be changed, each ``key=value``.
    tune
        With ``split``, ``rule`` or ``images``: choose the decoder's other parameters anew. Otherwise they are the
        model's, so that a random walker starts from the markers that the watershed has (tuning it takes hundreds of
        walks an image).
    tta
        With test-time augmentation.
    resize
        Stretch or shrink every image to a square of this side first, as the paper did; what is found is brought back to
        the image's own size, where it is compared.
    seeds
        The least number of seeds that it is run with.
    images
        Name of the images on which its decoder is tuned, if it is, and which are scored, if they are not those of the
        study.
    """

    name: str
    label: str
    recipe: str = ""
    set: tuple[str, ...] = ()
    of: str = ""
    split: str | None = None
    rule: tuple[str, ...] = ()
    tune: bool = False
    tta: bool = False
    resize: int | None = None
    seeds: int = 1
    images: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w+-][\w.+-]*", self.name):
            raise UsageError(
                f"name {self.name!r} of a row is to be in names of files; use letters, digits, _, -, + and ."
            )
        if bool(self.recipe) == bool(self.of):
            raise UsageError(
                f"row {self.name} must have either a recipe, to train, or of, to evaluate a model"
            )
        if self.recipe and (self.changes or self.tta or self.resize is not None):
            raise UsageError(
                f"row {self.name} trains; split, rule, tta and resize are for rows that evaluate (of)"
            )
        if self.tune and not (self.of and (self.changes or self.images)):
            raise UsageError(
                f"row {self.name} has neither a split, a rule nor images of its own to tune a model's decoder for"
            )
        if self.of and self.set:
            raise UsageError(f"row {self.name} evaluates the model of {self.of}; set is for rows that train")
        if self.split is not None and self.split not in SPLITS:
            raise UsageError(
                f"split of row {self.name} must be one of {', '.join(SPLITS)}, got {self.split!r}"
            )
        if self.resize is not None and self.resize < 1:
            raise UsageError(f"resize of row {self.name} must be at least 1, got {self.resize}")
        if self.seeds < 1:
            raise UsageError(f"seeds of row {self.name} must be at least 1, got {self.seeds}")

    @property
    def changes(self) -> dict[str, Any]:
        """The decoder's parameters that the row changes, those of ``split`` and ``rule``.

        Examples
        --------
        >>> Row("few", "Few", of="all", rule=("min_score=0.7", "overlap=best")).changes
        {'min_score': 0.7, 'overlap': 'best'}
        """
        changes: dict[str, Any] = {} if self.split is None else {"split": self.split}
        for change in self.rule:
            key, equals, text = change.partition("=")
            if not equals:
                raise UsageError(f"rule of row {self.name} must hold key=value, got {change!r}")
            try:
                changes[key.strip()] = tomllib.loads(f"value = {text}")["value"]
            except tomllib.TOMLDecodeError:
                changes[key.strip()] = text.strip()
        return changes


@dataclass(frozen=True)
class RecipeBudget:
    """Changes of one recipe, for all rows that train by it, and what the rows' labels then say besides."""

    recipe: str
    set: tuple[str, ...] = ()
    label: str = ""


@dataclass(frozen=True)
class Budget:
    """Changes of every row's recipe, made after the row's own, and then those of single recipes."""

    name: str
    note: str = ""
    set: tuple[str, ...] = ()
    recipe: tuple[RecipeBudget, ...] = ()

    def changes(self, recipe: str) -> list[str]:
        """All changes of a recipe in the order in which they are made."""
        return [*self.set, *(change for own in self.recipe if own.recipe == recipe for change in own.set)]


@dataclass(frozen=True)
class Images:
    """Images for some rows: ``tune`` are those on which decoders are tuned, ``test`` those that are scored."""

    name: str
    tune: tuple[Source, ...]
    test: tuple[Source, ...]

    def __post_init__(self) -> None:
        _check_sets(self, f"images {self.name}")


@dataclass(frozen=True)
class Entry:
    """A line of a table: a row, and the paper's figure for it, where it has one."""

    row: str
    paper: float | None = None


@dataclass(frozen=True)
class Table:
    """Rows side by side.

    Parameters
    ----------
    compare
        Pairs of rows, the one that should be worse first, whose difference gets an interval.
    ratios
        Pairs of rows; of the first's mean score over the second's there is an interval, too.
    by
        The score of single images that is compared.
    scores
        Further scores to be shown, of those that bars can show.
    curves
        Whether the IoUs of the maps during training, and the milestones, are shown too.
    """

    title: str
    rows: tuple[Entry, ...]
    note: str = ""
    compare: tuple[tuple[str, str], ...] = ()
    ratios: tuple[tuple[str, str], ...] = ()
    by: str = "mAP"
    scores: tuple[str, ...] = ()
    curves: bool = False

    def __post_init__(self) -> None:
        for score in self.scores:
            check_known(score, SCORES["bars"], f"scores of table {self.title!r}")
        check_known(self.by, SCORES["bars"], f"by of table {self.title!r}")


@dataclass(frozen=True)
class Milestone:
    """A score on the validation images (one of those that curves show, no loss) that is to be reached."""

    score: str
    at: float

    def __post_init__(self) -> None:
        check_known(
            self.score, [name for name in SCORES["curves"] if name not in LOSSES], "score of a milestone"
        )
        if not math.isfinite(self.at):
            raise UsageError(f"at of milestone {self.score} must be a number, got {self.at}")


@dataclass(frozen=True)
class Figure:
    """A chart of recorded numbers.

    Parameters
    ----------
    kind
        ``"curves"``: the score on the validation images by epoch, of rows that train; the mean over seeds, and a band
        of one standard deviation where there are several. ``"bars"``: the score on the test images, mean and standard
        deviation over seeds, with a mark at the paper's mAP, where a table names it.
    score
        One of :data:`SCORES`.
    """

    title: str
    rows: tuple[str, ...]
    kind: str = "curves"
    score: str = "mAP"
    note: str = ""

    def __post_init__(self) -> None:
        if self.kind not in SCORES:
            raise UsageError(f"kind must be one of {', '.join(SCORES)}, got {self.kind!r}")
        if self.score not in SCORES[self.kind]:
            raise UsageError(
                f"the score of {self.kind} must be one of {', '.join(SCORES[self.kind])}, got {self.score!r}"
            )


@dataclass(frozen=True)
class Picture:
    """True outlines of some images, and beside them those that some rows find with seed 0.

    Parameters
    ----------
    images
        Stems of images of ``tune`` or ``test``.
    attention
        Level of the pyramid whose attention is drawn, too, for each row whose network has it.
    """

    title: str
    images: tuple[str, ...]
    rows: tuple[str, ...]
    attention: int | None = None

    def __post_init__(self) -> None:
        for name in ("images", "rows"):
            if not getattr(self, name):
                raise UsageError(f"picture {self.title!r} has no {name}")


@dataclass(frozen=True)
class StudyFile:
    """``study.toml``. ``tune`` are the images on which decoders are tuned, ``test`` those that are scored, of all rows
    that name no other ``images``."""

    title: str
    tune: tuple[Source, ...]
    test: tuple[Source, ...]
    budget: tuple[Budget, ...]
    row: tuple[Row, ...]
    table: tuple[Table, ...]
    milestone: tuple[Milestone, ...] = ()
    figure: tuple[Figure, ...] = ()
    picture: tuple[Picture, ...] = ()
    images: tuple[Images, ...] = ()

    def __post_init__(self) -> None:
        _check_sets(self, "the study")
        self._check_doubled()
        self._check_rows()
        for figure in self.figure:
            known = [row.name for row in self.row if row.recipe or figure.kind != "curves"]
            for name in figure.rows:
                check_known(name, known, f"figure {figure.title!r}")
        rows = [row.name for row in self.row]
        for picture in self.picture:
            for name in picture.rows:
                check_known(name, rows, f"picture {picture.title!r}")
        self._check_tables(rows)

    def _check_doubled(self) -> None:
        titles = [*(figure.title for figure in self.figure), *(picture.title for picture in self.picture)]
        for kind, names in (
            ("row", [row.name for row in self.row]),
            ("budget", [budget.name for budget in self.budget]),
            ("figure or picture", [file_name(title) for title in titles]),
            ("images", [images.name for images in self.images]),
        ):
            if doubled := next((name for name in names if names.count(name) > 1), None):
                raise UsageError(f"there are two of {kind} {doubled}")

    def _check_rows(self) -> None:
        training = {row.name: row for row in self.row if row.recipe}
        for row in self.row:
            if row.images:
                check_known(row.images, [images.name for images in self.images], f"images of row {row.name}")
            if row.of:
                check_known(row.of, list(training), f"of in row {row.name}")
                if row.seeds > training[row.of].seeds:
                    raise UsageError(
                        f"row {row.name} has seeds = {row.seeds}, more than row {row.of}, whose models it uses"
                    )
        recipes = sorted({row.recipe for row in training.values()})
        for budget in self.budget:
            for own in budget.recipe:
                check_known(own.recipe, recipes, f"recipe in budget {budget.name}")

    def _check_tables(self, rows: Sequence[str]) -> None:
        for table in self.table:
            pairs = (*table.compare, *table.ratios)
            for name in (*(entry.row for entry in table.rows), *(name for pair in pairs for name in pair)):
                check_known(name, rows, f"table {table.title!r}")
            for pair in pairs:
                if len({row.images for row in self.row if row.name in pair}) > 1:
                    raise UsageError(
                        f"table {table.title!r} compares rows of different images: {', '.join(pair)}"
                    )


def _check_sets(images: Images | StudyFile, whose: str) -> None:
    for name in ("tune", "test"):
        if not getattr(images, name):
            raise UsageError(f"{name} of {whose} names no images")


def file_name(title: str) -> str:
    """What the file of a figure or picture is called, but for its ending.

    Examples
    --------
    >>> file_name("Figure 9: NMS, RoIs")
    'figure-9-nms-rois'
    """
    return re.sub(r"\W+", "-", title.lower()).strip("-")


def check_known(name: str, known: Sequence[str], where: str) -> None:
    """Refuse a name that is not known, and offer the one that may have been meant."""
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known) or 'none'}"
        raise UsageError(f"{where}: unknown name {name!r}; {hint}")
