"""Outlines from Aperio ImageScope: what is read, where it lies, and the sentence for everything that cannot be read."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage.draw import polygon2mask

from nuxel.data.aperio_xml import read_regions
from nuxel.data.outlines import read_outlines
from nuxel.errors import NuxelError

SAMPLE = Path(__file__).parents[2].parent / "shared/data/monuseg_sample/TCGA-B0-5710-01Z-00-DX1.xml"
needs_sample = pytest.mark.skipif(not SAMPLE.is_file(), reason="needs ../shared/data/monuseg_sample")

SQUARE = [(2, 3), (2, 7), (5, 7), (5, 3)]


def region(corners, **attributes):
    """A region as ImageScope writes it; corners are (row, column)."""
    given = "".join(f' {name}="{value}"' for name, value in attributes.items())
    vertices = "".join(f'<Vertex X="{x}" Y="{y}"/>' for y, x in corners)
    return f'<Region Type="0"{given}><Attributes/><Vertices>{vertices}</Vertices></Region>'


def annotation(*regions):
    head = '<RegionAttributeHeaders><AttributeHeader Name="Region"/></RegionAttributeHeaders>'
    return f"<Annotation><Attributes/><Regions>{head}{''.join(regions)}</Regions><Plots/></Annotation>"


@pytest.fixture
def write(tmp_path):
    def write(*annotations, head=""):
        path = tmp_path / "a.xml"
        path.write_text(f'{head}<Annotations MicronsPerPixel="0.25">{"".join(annotations)}</Annotations>')
        return path

    return write


def complaint(path, shape=(10, 10)):
    with pytest.raises(NuxelError) as error:
        read_outlines(path, shape)
    said = str(error.value)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    return said.removeprefix(f"{path}: ")


# ---- what is read ---------------------------------------------------------------------------------------


def test_corners_lie_between_pixels(write):
    labels = read_outlines(str(write(annotation(region(SQUARE)))), (8, 9))
    expected = np.zeros((8, 9), int)
    expected[2:5, 3:7] = 1
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, expected)


def test_regions_of_every_annotation_in_the_order_of_the_file(write):
    path = write(
        annotation(region(SQUARE)),
        annotation(),
        annotation(region([(0.25, 1.5), (1e0, 2), (-3, 4)]), region([])),
    )
    assert [corners.tolist() for corners in read_regions(path)] == [
        [list(map(float, corner)) for corner in SQUARE],
        [[0.25, 1.5], [1, 2], [-3, 4]],
        [],
    ]


def test_no_nuclei_is_an_annotation_too(write):
    assert read_outlines(write(annotation()), (3, 4)).tolist() == [[0] * 4] * 3


def test_a_nucleus_inside_another_is_not_lost(write):
    inner = [(3, 4), (3, 5), (4, 5), (4, 4)]
    for order in ([SQUARE, inner], [inner, SQUARE]):
        labels = read_outlines(write(annotation(*map(region, order))), (8, 9))
        assert (labels == 1 + order.index(inner)).sum() == 1
        assert (labels == 1 + order.index(SQUARE)).sum() == 11


def test_slips_of_the_pen_leave_out_their_number(write):
    slips = [[], [(4, 4)], [(4, 4)] * 5, [(1, 1), (3, 3)], [(1, 1), (2, 2), (7, 7)]]
    labels = read_outlines(write(annotation(*map(region, [*slips, SQUARE]))), (8, 9))
    assert np.unique(labels).tolist() == [0, 6]
    assert (labels == 6).sum() == 12


def test_a_tiny_nucleus_has_a_pixel(write):
    labels = read_outlines(write(annotation(region([(4.6, 4.6), (4.6, 4.9), (4.9, 4.7)]))), (8, 9))
    assert np.argwhere(labels).tolist() == [[4, 4]]


def test_a_nucleus_partly_outside_is_cut(write):
    labels = read_outlines(write(annotation(region([(-5, 6), (-5, 30), (2, 30), (2, 6)]))), (8, 9))
    assert np.argwhere(labels).tolist() == [[0, 6], [0, 7], [0, 8], [1, 6], [1, 7], [1, 8]]


def test_an_outline_that_crosses_itself_has_no_hole(write):
    labels = read_outlines(write(annotation(region([*SQUARE, *SQUARE, (4, 5)]))), (8, 9))
    assert labels.sum() == 12


def test_what_imagescope_leaves_out_is_no_nucleus(write):
    path = write(annotation(region([(3, 4), (3, 5), (4, 5)], NegativeROA=1), region(SQUARE, NegativeROA=0)))
    assert len(read_regions(path)) == 1
    assert read_outlines(path, (8, 9)).sum() == 12


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_encodings(tmp_path, encoding):
    name = "latin-1" if encoding == "latin-1" else encoding[:6].rstrip("-")
    path = tmp_path / "ä.xml"
    text = f'<?xml version="1.0" encoding="{name}"?><Annotations Name="ä">{annotation(region(SQUARE))}</Annotations>'
    path.write_text(text, encoding=encoding)
    assert read_outlines(path, (8, 9)).sum() == 12


# ---- what cannot be read --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty; use the XML"),
        (b"  \n", "is no XML (no element found"),
        (b"<Annotations><Annotation>", "is no XML (no element found"),
        (b"<Annotations></Annotation>", "is no XML (mismatched tag"),
        (b"\x89PNG\r\n", "is no XML (not well-formed"),
        (b'<?xml version="1.0" encoding="klingon"?><a/>', "is no XML (unknown encoding"),
        (b'<?xml version="1.0" encoding="utf-7"?><a/>', "is no XML ("),
        (b"<svg/>", "is no Aperio annotation, which holds Annotations, in it Annotation, in it Regions"),
        (b"<Annotations/>", "is no Aperio annotation"),
        (b"<Annotations><Annotation/></Annotations>", "is no Aperio annotation"),
        (b"<a><Annotations><Annotation><Regions/></Annotation></Annotations></a>", "is no Aperio annotation"),
    ],
)
def test_files_that_are_something_else(tmp_path, content, sentence):
    path = tmp_path / "a.xml"
    path.write_bytes(content)
    assert complaint(path).startswith(sentence)


def test_a_missing_file(tmp_path):
    assert complaint(tmp_path / "a.xml").startswith("cannot be read (No such file or directory)")


@pytest.mark.parametrize(
    "definition",
    [
        "<!DOCTYPE Annotations>",
        '<!DOCTYPE Annotations SYSTEM "http://example.org/a.dtd">',
        '<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;&b;&b;">]>',
    ],
)
def test_document_type_definitions_are_refused(write, definition):
    path = write(annotation(region(SQUARE)), head=definition)
    assert complaint(path).startswith("holds a document type definition")


@pytest.mark.parametrize("value", ["", "left", "3,5", "nan", "inf", "-1e9", "0x3"])
def test_corners_that_are_no_numbers(write, value):
    path = write(annotation(region(SQUARE), region([(1, 2), (value, 7)])))
    assert complaint(path).startswith(f"has a corner X=7, Y={value} in region 2, but both must be numbers")


def test_a_corner_without_a_coordinate(write):
    path = write(annotation(region(SQUARE).replace('X="7" Y="2"', 'X="7"')))
    assert complaint(path).startswith("has a corner X=7, Y=None in region 1")


def test_the_annotation_of_a_larger_image(write):
    far = [[(y + 40, x) for y, x in SQUARE], [(y, x + 40) for y, x in SQUARE]]
    path = write(annotation(*map(region, [SQUARE, *far])))
    assert complaint(path).startswith(
        "only 1 of its 3 outlines reach into an image of 10 x 10 pixels; it belongs to"
    )
    assert read_outlines(write(annotation(region(SQUARE), region(far[0]))), (10, 10)).sum() == 12


# ---- MoNuSeg --------------------------------------------------------------------------------------------


@needs_sample
def test_the_sample_is_read_whole():
    regions = read_regions(SAMPLE)
    attributes = [float(region.get("Area")) for region in ElementTree.parse(SAMPLE).iter("Region")]
    labels = read_outlines(SAMPLE, (1000, 1000))
    assert np.unique(labels).tolist() == list(range(len(attributes) + 1))
    inside = [(corners.min() >= 0) & (corners.max() <= 1000) for corners in regions]
    areas = np.bincount(labels.ravel())[1:]
    # a thousand pixels lie in two nuclei, and count for one of them
    assert abs(areas[inside].sum() / np.array(attributes)[inside].sum() - 1) < 0.02
    for number in range(0, len(regions), 40):
        expected = polygon2mask(labels.shape, regions[number] - 0.5)
        found = labels == number + 1
        # scikit-image counts centres on a side otherwise, and a crossing as a hole
        assert (found & ~expected).sum() < 0.04 * expected.sum()
        # what this nucleus does not have, another has
        assert (labels[expected] == 0).mean() < 0.04
        assert (labels[expected] == number + 1).mean() > 0.75


@needs_sample
def test_edges_in_the_sample_lie_where_the_outlines_are():
    """Of all ways to shift the outlines the one with the steepest edges across them is no shift.

    That corners were pixel centres would be a shift of half a pixel, which is 6 standard errors away.
    """
    red = np.asarray(Image.open(SAMPLE.with_suffix(".tif")))[..., 0].astype(float)
    slopes = [ndimage.gaussian_filter(red, 1, order=order) for order in ((1, 0), (0, 1))]
    places, outward = [], []
    for corners in read_regions(SAMPLE):
        step = np.roll(corners, -1, axis=0) - corners
        turn = np.sign(
            np.cross(np.pad(corners, ((0, 0), (0, 1))), np.pad(step, ((0, 0), (0, 1))))[:, 2].sum()
        )
        places.append(corners + step / 2)
        outward.append(turn * np.stack([step[:, 1], -step[:, 0]], axis=1))
    places, outward = np.concatenate(places), np.concatenate(outward)
    # the middle of the first pixel is at 0.5 in the image and at 0 for map_coordinates
    places -= 0.5

    def steepness(down, right):
        there = places.T + np.array([[down], [right]])
        found = [ndimage.map_coordinates(slope, there, order=1, mode="nearest") for slope in slopes]
        return sum((one * other).sum() for one, other in zip(found, outward.T, strict=True))

    shifts = np.arange(-1, 1.01, 0.25)
    table = np.array([[steepness(down, right) for right in shifts] for down in shifts])
    down, right = np.unravel_index(table.argmax(), table.shape)
    assert table.max() > 0
    assert abs(shifts[down]) <= 0.25
    assert abs(shifts[right]) <= 0.25
    assert steepness(0, 0) > max(steepness(-0.5, -0.5), steepness(0.5, 0.5))
