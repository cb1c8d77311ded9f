"""Annotated images in folders: what is found, what is read, and the sentence for everything that cannot be."""

import glob
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from nuxel.data.dataset import Annotated, Source, find_annotated, place_of, read_annotated, read_masks
from nuxel.errors import NuxelError

DATA = Path(__file__).parents[2].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")


# Two regions, of which the second lies within the first, and one that is a mere line.
CORNERS = [[(0, 1), (4, 1), (4, 5), (0, 5)], [(1, 2), (3, 2), (3, 4), (1, 4)], [(0, 0), (6, 0)]]
REGIONS = "".join(
    "<Region><Vertices>" + "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in corners) + "</Vertices></Region>"
    for corners in CORNERS
)
OUTLINES = f"<Annotations><Annotation><Regions>{REGIONS}</Regions></Annotation></Annotations>"


def write(path, array=None):
    """An image, a label image, or a file of outlines; the folders above it are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.zeros((6, 5), np.uint8) if array is None else np.asarray(array)
    if path.suffix == ".xml":
        path.write_text(OUTLINES)
    elif path.suffix == ".geojson":
        path.write_text('{"type": "FeatureCollection", "features": []}')
    elif path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix in (".tif", ".tiff"):
        tifffile.imwrite(path, array)
    else:
        Image.fromarray(array).save(path)
    return path


@pytest.fixture
def plate(tmp_path):
    """Three images with labels, and an index."""
    for name in "abc":
        write(tmp_path / "plate" / "images" / f"{name}.png")
        write(tmp_path / "plate" / "labels" / f"{name}.png")
    (tmp_path / "plate" / "index.csv").write_text("id,stain,day\na,dapi,1\nb,he,1\nc,dapi,2\n")
    return tmp_path / "plate"


def stems(source):
    return [item.image.stem for item in find_annotated(source)]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_an_accented_letter_may_be_written_in_two_ways(tmp_path, form):
    """File systems of macOS keep letter and accent apart, tables do not."""
    name = unicodedata.normalize(form, "m\u00fcll")
    write(tmp_path / "images" / f"{name}.png")
    write(tmp_path / "labels" / f"{name}.png")
    (tmp_path / "index.csv").write_text("id,stain\nm\u00fcll,he\n", encoding="utf-8")
    assert stems(Source(str(tmp_path), "index.csv", {"stain": "he"})) == [name]


def complaint(call, *arguments):
    with pytest.raises(NuxelError) as error:
        call(*arguments)
    return str(error.value)


# ---- finding --------------------------------------------------------------------------------------------


def test_images_are_found_with_their_labels_sorted_by_name(plate):
    assert find_annotated(Source(str(plate))) == [
        Annotated(plate / "images" / f"{name}.png", plate / "labels" / f"{name}.png", plate.as_posix())
        for name in "abc"
    ]


@pytest.mark.parametrize("folder", ["labels", "masks"])
@pytest.mark.parametrize("suffix", [".tif", ".tiff", ".png", ".npy", ".xml", ".geojson"])
def test_labels_of_every_format_and_either_folder_name(tmp_path, folder, suffix):
    write(tmp_path / "images" / "a.tif")
    labels = write(tmp_path / folder / f"a{suffix}")
    assert find_annotated(Source(str(tmp_path)))[0].labels == labels


def test_labels_may_be_what_nuxel_wrote(tmp_path):
    write(tmp_path / "images" / "a.png")
    labels = write(tmp_path / "labels" / "a_labels.tif")
    assert find_annotated(Source(str(tmp_path)))[0].labels == labels
    outlines = write(tmp_path / "labels" / "a_nuclei.geojson")
    assert find_annotated(Source(str(tmp_path)))[0].labels == labels
    drawn = write(tmp_path / "labels" / "a.geojson")
    assert find_annotated(Source(str(tmp_path)))[0].labels == labels
    drawn.unlink()
    labels.unlink()
    assert find_annotated(Source(str(tmp_path)))[0].labels == outlines
    plain = write(tmp_path / "labels" / "a.png")
    assert find_annotated(Source(str(tmp_path)))[0].labels == plain


def test_labels_go_before_masks(plate):
    write(plate / "masks" / "a.tif")
    assert find_annotated(Source(str(plate)))[0].labels == plate / "labels" / "a.png"


def test_images_in_sub_folders_have_their_labels_in_the_same(tmp_path):
    write(tmp_path / "images" / "monday" / "a.png")
    write(tmp_path / "images" / "tuesday" / "late" / "a.png")
    monday = write(tmp_path / "labels" / "monday" / "a.tif")
    tuesday = write(tmp_path / "labels" / "tuesday" / "late" / "a.npy")
    assert [item.labels for item in find_annotated(Source(str(tmp_path)))] == [monday, tuesday]


def test_a_source_may_hold_several_pairs_of_folders(tmp_path):
    for name in ("one", "two"):
        write(tmp_path / name / "images" / "a.png")
        write(tmp_path / name / "labels" / "a.png")
    found = find_annotated(Source(str(tmp_path)))
    assert [item.labels.parent.parent.name for item in found] == ["one", "two"]


def test_aperio_xml_may_lie_beside_its_image(tmp_path):
    """As MoNuSeg's files do, in whatever folder; but what is in a folder of labels goes before."""
    write(tmp_path / "tissue" / "a.tif")
    write(tmp_path / "images" / "b.tif")
    found = [write(tmp_path / "tissue" / "a.xml"), write(tmp_path / "images" / "b.xml")]
    assert {item.labels for item in find_annotated(Source(str(tmp_path)))} == set(found)
    found[1] = write(tmp_path / "labels" / "b.png")
    assert {item.labels for item in find_annotated(Source(str(tmp_path)))} == set(found)


def test_the_source_may_be_the_folder_of_images_itself(plate):
    found = find_annotated(Source(str(plate / "images")))
    assert [item.labels for item in found] == [plate / "labels" / f"{name}.png" for name in "abc"]


def test_stems_with_dots_and_two_extensions(tmp_path):
    write(tmp_path / "images" / "well.a1.ome.tif")
    labels = write(tmp_path / "labels" / "well.a1.tif")
    assert find_annotated(Source(str(tmp_path)))[0].labels == labels


def test_the_competition_layout(tmp_path):
    for name in ("aa", "bb"):
        write(tmp_path / name / "images" / f"{name}.png")
        write(tmp_path / name / "masks" / "1.png")
    found = find_annotated(Source(str(tmp_path)))
    assert [item.labels for item in found] == [tmp_path / "aa" / "masks", tmp_path / "bb" / "masks"]


def test_one_folder_of_masks_does_not_serve_two_images(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / "images" / f"{name}.png")
    write(tmp_path / "masks" / "1.png")
    said = complaint(find_annotated, Source(str(tmp_path)))
    assert said.startswith(f"{tmp_path / 'images' / 'a.png'}: no labels; expected")


# ---- choosing -------------------------------------------------------------------------------------------


def test_an_index_leaves_out_what_it_does_not_name(plate):
    (plate / "index.csv").write_text("id\na\nc\nelsewhere\n")
    assert stems(Source(str(plate), index="index.csv")) == ["a", "c"]


def test_an_index_may_name_files(plate):
    for name in ("d.jpg", "e.ome.tif"):
        write(plate / "images" / name)
        write(plate / "labels" / f"{name[0]}.png")
    (plate / "index.csv").write_text("id\na.png\nd.jpg\ne.ome.tif\nb.npy\n")
    assert [item.labels.stem for item in find_annotated(Source(str(plate), index="index.csv"))] == [
        "a",
        "b",
        "d",
        "e",
    ]


def test_where_keeps_the_rows_with_all_of_the_values(plate):
    assert stems(Source(str(plate), "index.csv", {"stain": "dapi"})) == ["a", "c"]
    assert stems(Source(str(plate), "index.csv", {"stain": "dapi", "day": "2"})) == ["c"]


def test_include_keeps_what_matches_one_of_the_patterns(plate):
    assert stems(Source(str(plate), include=("a", "[b-z]"))) == ["a", "b", "c"]
    assert stems(Source(str(plate), include=("a*", "c"))) == ["a", "c"]
    assert stems(Source(str(plate), "index.csv", {"day": "1"}, ("b",))) == ["b"]


def test_a_pattern_from_the_folder_on_selects_by_place(tmp_path):
    for name in ("one/images/a.png", "two/images/a.png", "two/images/a.tif", "two/images/b[1].png"):
        write(tmp_path / name)
        write(tmp_path / name.replace("images", "labels"))
    found = {
        pattern: find_annotated(Source(str(tmp_path), include=(pattern,))) for pattern in ("/two/*", "a")
    }
    assert [item.image.parts[-3:] for item in found["/two/*"]] == [
        ("two", "images", name) for name in ("a.png", "a.tif", "b[1].png")
    ]
    assert len(found["a"]) == 3
    for item in found["/two/*"]:
        alone = (glob.escape(place_of(item.image, tmp_path)),)
        assert find_annotated(Source(str(tmp_path), include=alone)) == [item]


def test_group_names_come_from_the_folder_and_the_columns(plate):
    found = find_annotated(Source(str(plate), "index.csv", group=("stain", "day")))
    assert [item.group for item in found] == [
        f"{plate.as_posix()}/{row}" for row in ("dapi/1", "he/1", "dapi/2")
    ]


def test_an_index_from_a_spreadsheet(plate):
    (plate / "index.csv").write_bytes("\ufeffid,stain\r\na,\u00e9\r\nb\r\n".encode())
    assert stems(Source(str(plate), "index.csv", {"stain": "\u00e9"})) == ["a"]
    assert stems(Source(str(plate), "index.csv", {"stain": ""})) == ["b"]
    groups = [item.group for item in find_annotated(Source(str(plate), "index.csv", group=("stain",)))]
    assert groups == [f"{plate.as_posix()}/\u00e9", f"{plate.as_posix()}/"]


# ---- sentences ------------------------------------------------------------------------------------------


def test_a_missing_folder(tmp_path):
    assert (
        complaint(find_annotated, Source(f"{tmp_path}/x"))
        == f"{tmp_path}/x: no such folder of annotated images"
    )


def test_a_folder_without_images(tmp_path):
    assert "no image in this folder" in complaint(find_annotated, Source(str(tmp_path)))


def test_a_missing_label_file(plate):
    (plate / "labels" / "b.png").unlink()
    image = plate / "images" / "b.png"
    wanted = plate / "labels" / "b{.tif,.tiff,.png,.npy,.ome.tif,.ome.tiff,.xml,.geojson}"
    assert complaint(find_annotated, Source(str(plate))) == (
        f"{image}: no labels; expected {wanted}, or for an image alone in its folder {plate / 'masks'}"
    )


def test_a_missing_label_file_that_is_not_needed(plate):
    (plate / "labels" / "b.png").unlink()
    assert stems(Source(str(plate), include=("a", "c"))) == ["a", "c"]


def test_images_outside_a_folder_of_images(tmp_path):
    image = write(tmp_path / "a.png")
    write(tmp_path / "labels" / "a.png")
    said = complaint(find_annotated, Source(str(tmp_path)))
    assert said == f"{image}: no labels; put it in a folder `images` beside a folder `labels`"


def test_a_missing_index(plate):
    said = complaint(find_annotated, Source(str(plate), "list.csv"))
    assert said == f"{plate / 'list.csv'}: no such index"


@pytest.mark.parametrize("wish", [{"where": {"stain": "he"}}, {"group": ("stain",)}])
def test_where_and_group_without_an_index(plate, wish):
    assert (
        complaint(find_annotated, Source(str(plate), **wish))
        == f"{plate}: `where` and `group` need an `index`"
    )


@pytest.mark.parametrize("wish", [{"where": {"dye": "he"}}, {"group": ("dye",)}])
def test_an_unknown_column(plate, wish):
    said = complaint(find_annotated, Source(str(plate), "index.csv", **wish))
    assert said == f"{plate / 'index.csv'}: no column dye; it has day, id, stain"


@pytest.mark.parametrize(("text", "has"), [("name,stain\na,he\n", "name, stain"), ("", "none")])
def test_an_index_without_ids(plate, text, has):
    (plate / "index.csv").write_text(text)
    said = complaint(find_annotated, Source(str(plate), "index.csv"))
    assert said == f"{plate / 'index.csv'}: no column id; it has {has}"


def test_an_index_without_rows_selects_nothing(plate):
    (plate / "index.csv").write_text("id,stain\n")
    assert "no annotated image is selected" in complaint(find_annotated, Source(str(plate), "index.csv"))


def test_an_index_that_is_no_text(plate):
    (plate / "index.csv").write_bytes(b"id\n\xff\xfe\n")
    said = complaint(find_annotated, Source(str(plate), "index.csv"))
    assert said.startswith(f"{plate / 'index.csv'}: not a readable CSV (")


def test_nothing_selected(plate):
    said = complaint(find_annotated, Source(str(plate), "index.csv", {"day": "3"}, ("a*",)))
    assert said == (
        f"{plate}: no annotated image is selected (index = index.csv, whose ids are file stems, "
        "where = {'day': '3'}, include = ('a*',))"
    )


def test_two_rows_of_one_image(plate):
    with (plate / "index.csv").open("a") as file:
        file.write("b,he,1\n,,\n,,\n")  # once more, and what spreadsheets leave at the end
    assert stems(Source(str(plate), "index.csv")) == ["a", "b", "c"]
    with (plate / "index.csv").open("a") as file:
        file.write("b,dapi,9\n")
    assert complaint(find_annotated, Source(str(plate), "index.csv")) == (
        f"{plate / 'index.csv'}: two rows say different things of b; leave one"
    )


def test_a_plane_that_is_no_number(plate):
    said = complaint(find_annotated, Source(str(plate), z="top"))
    assert "z must be a plane's number or max, got 'top'" in said


# ---- reading --------------------------------------------------------------------------------------------


def test_an_image_is_read_normalised_and_its_labels_without_gaps(tmp_path):
    image = write(tmp_path / "a.tif", np.arange(30, dtype=np.uint16).reshape(5, 6) * 1000)
    labels = write(tmp_path / "l.tif", np.array([[0, 7, 7, 70_000, -1, 0]] * 5, np.int32))
    pixels, drawn = read_annotated(Annotated(image, labels, ""))
    assert pixels.shape == (5, 6, 3)
    assert pixels.dtype == np.uint8
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert drawn.dtype == np.int32
    assert drawn.tolist() == [[0, 1, 1, 2, -1, 0]] * 5


def test_what_to_read_of_a_stack(tmp_path):
    stack = np.stack([np.full((5, 6), 9, np.uint8), np.arange(30, dtype=np.uint8).reshape(5, 6)])
    path = tmp_path / "images" / "a.ome.tif"
    path.parent.mkdir()
    tifffile.imwrite(path, stack, metadata={"axes": "CYX", "Channel": {"Name": ["405", "488"]}})
    write(tmp_path / "labels" / "a.ome.tif", np.ones((5, 6), np.uint16))
    (asked,) = find_annotated(Source(str(tmp_path)))
    assert "say which plane with --channel" in complaint(read_annotated, asked)
    (item,) = find_annotated(Source(str(tmp_path), channel="488", z="0", t=0))
    pixels, labels = read_annotated(item)
    assert np.ptp(pixels) == 255
    assert labels.all()


def test_an_image_with_a_folder_of_masks(tmp_path):
    image = write(tmp_path / "a.png", np.zeros((2, 3), np.uint8))
    write(tmp_path / "masks" / "1.png", np.array([[0, 255, 0]] * 2, np.uint8))
    _, drawn = read_annotated(Annotated(image, tmp_path / "masks", ""))
    assert drawn.tolist() == [[0, 1, 0]] * 2


def test_an_image_with_aperio_xml(tmp_path):
    image, outlines = write(tmp_path / "a.png"), write(tmp_path / "a.xml")
    _, drawn = read_annotated(Annotated(image, outlines, ""))
    assert drawn.dtype == np.int32
    whole, around = [1, 1, 1, 1, 0], [1, 2, 2, 1, 0]
    assert drawn.tolist() == [[0] * 5, whole, around, around, whole, [0] * 5]


def test_aperio_xml_of_another_image(tmp_path):
    image, outlines = write(tmp_path / "a.png", np.zeros((1, 1), np.uint8)), write(tmp_path / "a.xml")
    assert "belongs to another image" in complaint(read_annotated, Annotated(image, outlines, ""))


def test_damaged_aperio_xml(tmp_path):
    image = write(tmp_path / "a.png")
    (tmp_path / "a.xml").write_text("<Annotations>")
    said = complaint(read_annotated, Annotated(image, tmp_path / "a.xml", ""))
    assert said.startswith(f"{tmp_path / 'a.xml'}: is no XML")


def test_shapes_that_differ(tmp_path):
    image, labels = write(tmp_path / "a.png"), write(tmp_path / "l.png", np.zeros((5, 6), np.uint8))
    said = complaint(read_annotated, Annotated(image, labels, ""))
    assert said == f"{labels}: labels are (5, 6), but the image a.png is (6, 5)"


def test_earlier_masks_win_and_covered_or_empty_ones_leave_no_gap(tmp_path):
    rows = {"a": [1, 1, 0, 0, 0], "b": [0, 1, 0, 0, 0], "c": [0, 0, 0, 0, 0], "d": [0, 1, 1, 0, 1]}
    for name, row in rows.items():
        write(tmp_path / f"{name}.png", np.array([row], np.uint8) * 255)
    (tmp_path / "notes.txt").write_text("not a mask")
    labels = read_masks(tmp_path)
    assert labels.tolist() == [[1, 1, 2, 0, 2]]
    assert labels.dtype == np.int32


def test_masks_in_colour_with_alpha_or_faint_count_where_they_are_not_black(tmp_path):
    write(tmp_path / "1.png", np.array([[[0, 0, 0, 255], [0, 9, 0, 255]]], np.uint8))
    write(tmp_path / "2.png", np.array([[1, 0]], np.uint8))
    assert read_masks(tmp_path).tolist() == [[2, 1]]


def test_hidden_masks_are_none(tmp_path):
    write(tmp_path / "1.png", np.array([[0, 255]], np.uint8))
    (tmp_path / "._1.png").write_bytes(b"of another file system")
    assert read_masks(tmp_path).tolist() == [[0, 1]]


def test_a_label_image_is_no_mask(tmp_path):
    path = write(tmp_path / "a_mask.png", np.array([[0, 1, 2]], np.uint8))
    assert complaint(read_masks, tmp_path).startswith(
        f"{path}: holds the numbers 1 to 2, where a mask is of one nucleus"
    )
    write(tmp_path / "b.png", np.array([[3, 0, 0]], np.uint8))
    assert read_masks(tmp_path).tolist() == [[2, 1, 1]]  # faint edges among others


def test_masks_of_different_shapes(tmp_path):
    write(tmp_path / "1.png", np.zeros((2, 3), np.uint8))
    other = write(tmp_path / "2.png", np.zeros((3, 2), np.uint8))
    said = complaint(read_masks, tmp_path)
    assert said == f"{other}: the mask is (3, 2), the others in its folder are (2, 3)"


def test_a_folder_without_masks(tmp_path):
    assert complaint(read_masks, tmp_path) == f"{tmp_path}: a folder of masks without a PNG file"


def test_a_damaged_mask(tmp_path):
    (tmp_path / "1.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    assert str(tmp_path / "1.png") in complaint(read_masks, tmp_path)


# ---- real data ------------------------------------------------------------------------------------------


@needs_data
def test_the_real_sets_are_found_whole():
    dsb2018 = Source(str(DATA / "dsb2018"), "index.csv", group=("modality",))
    found = find_annotated(dsb2018)
    assert len(found) == 664
    assert len({item.group for item in found}) == 4
    assert len(find_annotated(Source(str(DATA / "dsb2018"), "index.csv", {"split": "val"}))) == 66
    assert len(find_annotated(Source(str(DATA / "tnbc")))) == 50
    assert len(find_annotated(Source(str(DATA / "tnbc"), include=("01_*", "11_*")))) == 10


@needs_data
def test_monuseg_s_sample_is_found_and_read():
    """All 359 regions; haematoxylin makes nuclei darker than what is around them: 79 and 187 of 255."""
    (item,) = find_annotated(Source(str(DATA / "monuseg_sample")))
    assert item.labels.suffix == ".xml"
    image, labels = read_annotated(item)
    assert labels.shape == image.shape[:2] == (1000, 1000)
    assert labels.max() == 359
    assert image[labels > 0].mean() < image[labels == 0].mean() - 100


@needs_data
def test_the_competitions_layout_gives_the_same_nuclei():
    for item in find_annotated(Source(str(DATA / "kaggle_layout"))):
        _, labels = read_annotated(item)
        assert labels.max() == len(list(item.labels.glob("*.png")))
