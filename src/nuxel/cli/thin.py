"""``nuxel thin LABELS --out DIR``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path, PurePath

from nuxel.cli.shared import path_given
from nuxel.errors import UsageError
from nuxel.export.atomic import make_output_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("labels", type=path_given, metavar="LABELS", help="a label image or a folder of them")
    share = parser.add_mutually_exclusive_group(required=True)
    share.add_argument(
        "--keep", type=float, metavar="X", help="share of the nuclei to keep, over all images together"
    )
    share.add_argument(
        "--crop", type=float, metavar="X", help="share of each image's area to keep, in one rectangle"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the random choice (default: 0)")
    parser.add_argument("--out", required=True, type=path_given, metavar="DIR", help="folder to write to")


def run(options: argparse.Namespace) -> int:
    from nuxel import __version__
    from nuxel.data.thin import crop, nuclei_in, thin
    from nuxel.export.label_tiff import write_labels
    from nuxel.labels.read import read_labels

    files = _files(options.labels)
    outputs = _outputs(files, options.labels, options.out)
    labels = [read_labels(path) for path in files]
    if options.keep is not None:
        how, results = f"--keep {options.keep}", thin(labels, options.keep, options.seed)
    else:
        how, results = f"--crop {options.crop}", crop(labels, options.crop, options.seed)
    for folder in (options.out, *{path.parent for path in outputs}):
        make_output_folder(folder)
    for result, path in zip(results, outputs, strict=True):
        write_labels(path, result, description=f"nuxel {__version__} thin {how} --seed {options.seed}")
    before, after = (sum(len(nuclei_in(image)) for image in images) for images in (labels, results))
    filled = sum(bool((image > 0).any()) for image in results)
    print(
        f"nuxel thin: kept {after} of {before} nuclei, in {filled} of {len(files)} label images",
        file=sys.stderr,
    )
    return 0


def _files(given: Path) -> list[Path]:
    """The label images that are meant, in the order of their names, which does not depend on the file system."""
    from nuxel.data.label_sets import LabelFile, find_labels

    sources = [source for _, source in sorted(find_labels(given).items())]
    files = [source.path for source in sources if isinstance(source, LabelFile)]
    if len(files) < len(sources):
        other = next(source for source in sources if not isinstance(source, LabelFile))
        raise UsageError(f"{other.where}: only label images can be thinned; save each image's nuclei as one")
    return files


def _outputs(files: list[Path], given: Path, out: Path) -> list[Path]:
    """Where each result goes: below ``out`` as its input is below the folder, none of them there yet."""
    from nuxel.image.find import FoundImage, refuse_collisions

    root = given if given.is_dir() else given.parent
    if given.is_dir() and given.resolve() in (out.resolve(), *out.resolve().parents):
        raise UsageError(
            f"{out}: lies in the folder of the label images, and would be taken for some next time; choose another"
        )
    found = [FoundImage(path, _bare(path.relative_to(root))) for path in files]
    refuse_collisions(found)
    outputs = [out / item.relative.with_name(item.relative.name + ".tif") for item in found]
    for path in outputs:
        if path.exists():
            raise UsageError(f"{path}: exists already; choose another folder or remove it")
    return outputs


def _bare(path: PurePath) -> PurePath:
    from nuxel.image.formats import is_image_name, stem

    return path.with_name(stem(path) if is_image_name(path) else path.stem)
