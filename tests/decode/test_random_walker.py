"""The random walker on clumps small enough to see."""

import sys

import numpy as np
import pytest

from nuxel.decode.clumps import ClumpRule, decode_clumps
from nuxel.decode.random_walker import walk
from nuxel.errors import NuxelError


def test_two_markers_share_a_clump_along_the_higher_ground():
    height = np.zeros((5, 9), np.int16)
    height[:, 6] = 90
    markers = np.zeros((5, 9), np.int32)
    markers[2, 0], markers[2, 8] = 7, 3
    found = walk(height, markers, np.ones((5, 9), bool))
    assert (found[:, :6] == 7).all()
    assert (found[:, 7:] == 3).all()


def test_each_clump_is_divided_by_itself():
    inside = np.ones((3, 12), bool)
    inside[:, 3] = inside[:, 8] = False
    markers = np.zeros((3, 12), np.int32)
    markers[1, 1], markers[1, 4], markers[1, 7] = 1, 2, 3
    found = walk(np.zeros((3, 12), np.int16), markers, inside)
    assert (found[:, :3] == 1).all()
    assert (found[:, 4] == 2).all()
    assert (found[:, 7] == 3).all()
    assert not found[:, 8:].any()
    assert not found[~inside].any()


def test_a_marker_beyond_its_clump_is_left_out():
    inside = np.array([[True, True, False, True, True]])
    found = walk(np.zeros((1, 5), np.int16), np.array([[1, 0, 2, 0, 3]], np.int32), inside)
    assert found.tolist() == [[1, 1, 0, 3, 3]]


def test_the_decoder_uses_it():
    nucleus = np.full((7, 13), 255, np.uint8)
    shrunk = np.zeros_like(nucleus)
    shrunk[2:5, 1:4] = shrunk[2:5, 9:12] = 255
    touching = np.zeros_like(nucleus)
    touching[:, 6] = 255
    rule = ClumpRule(split="random_walker", min_marker_area=1)
    labels = decode_clumps(np.stack([nucleus, shrunk, touching]), rule).labels
    assert (labels[:, :6] == 1).all()
    assert (labels[:, 7:] == 2).all()


def test_without_scikit_image_there_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    with pytest.raises(NuxelError, match="needs scikit-image"):
        walk(np.zeros((1, 1), np.int16), np.ones((1, 1), np.int32), np.ones((1, 1), bool))
