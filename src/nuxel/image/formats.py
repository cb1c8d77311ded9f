"""Which file names are images."""

from __future__ import annotations

from pathlib import PurePath

READABLE = (
    ".png",
    ".jpg",
    ".jpeg",
    ".bmp",
    ".tif",
    ".tiff",
    ".tf2",
    ".btf",
    ".tf8",
    ".lsm",
    ".stk",
    ".qptiff",
)

LATER = {
    ".svs": "Aperio SVS",
    ".ndpi": "Hamamatsu NDPI",
    ".vms": "Hamamatsu VMS",
    ".mrxs": "3DHISTECH MRXS",
    ".scn": "Leica SCN",
    ".bif": "Ventana BIF",
    ".czi": "Zeiss CZI",
    ".nd2": "Nikon ND2",
    ".lif": "Leica LIF",
    ".oib": "Olympus OIB",
    ".vsi": "Olympus VSI",
    ".ims": "Imaris",
    ".dcm": "DICOM",
    ".zarr": "OME-Zarr",
}
"""Formats that nuxel knows and has no reader for yet: they are found, and fail with their own name."""


def stem(path: PurePath) -> str:
    """The file's name without the extension of an image; any other extension stays.

    Examples
    --------
    >>> [stem(PurePath(name)) for name in ("well.A1.PNG", "stack.ome.tif", "plate.001")]
    ['well.A1', 'stack', 'plate.001']
    """
    if not is_image_name(path):
        return path.name
    bare = path.stem
    if bare in (".", ".."):  # would be a folder
        return path.name
    # OME-TIFF and OME-Zarr wear two extensions
    return bare[:-4] if bare.lower().endswith(".ome") and len(bare) > 4 else bare


def is_image_name(path: PurePath) -> bool:
    """Whether the extension, in any case, is one of an image."""
    extension = path.suffix.lower()
    return extension in READABLE or extension in LATER


def is_image_folder(path: PurePath) -> bool:
    """Whether a folder of this name is one image, not a folder of images."""
    return path.suffix.lower() == ".zarr"
