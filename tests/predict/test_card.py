"""The card survives the trip through a file, and what is wrong with one is said in a sentence."""

from __future__ import annotations

import dataclasses
import json

import pytest

from nuxel.errors import NuxelError
from nuxel.predict.card import FORMAT, ModelCard, read_card
from nuxel.predict.stages import Stage


def test_round_trip_keeps_every_field(toy_card: ModelCard) -> None:
    assert read_card(toy_card.to_json(), "a.onnx") == toy_card


def test_stages_come_back(toy_card: ModelCard) -> None:
    stages = (Stage(("image",), ("a", "b"), 33), Stage(("a",), ("c",), None))
    card = dataclasses.replace(toy_card, stages=stages)
    assert read_card(card.to_json(), "a.onnx") == card


def test_a_card_of_the_first_format_has_no_stages(toy_card: ModelCard) -> None:
    held = {**json.loads(toy_card.to_json()), "format": 1}
    del held["stages"]
    assert read_card(json.dumps(held), "a.onnx").stages == ()


def test_the_text_is_plain_json_with_the_documented_fields(toy_card: ModelCard) -> None:
    held = json.loads(toy_card.to_json())
    assert held["format"] == FORMAT == 2
    assert held["maps"] == ["nucleus", "shrunk", "touching", "log_diameter"]
    assert held["diameters"] == [8.0, 200.0]


def test_without_a_card_it_is_not_ours() -> None:
    with pytest.raises(NuxelError, match=r"^a.onnx: an ONNX model, but not one of nuxel's"):
        read_card(None, "a.onnx")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "null", "{}", '{"format": 1}', '{"format": 1, "maps": 3}']
)
def test_a_damaged_card_is_refused(text: str) -> None:
    with pytest.raises(NuxelError, match=r"^a.onnx: the model card is damaged"):
        read_card(text, "a.onnx")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("diameters", [1]),
        ("diameters", ["a", "b"]),
        ("diameters", None),
        ("maps", None),
        ("surplus", 1),
        ("stride", "x"),
        ("reach", None),
        ("decoder_rule", []),
        ("window", 2.5),
        ("stages", None),
        ("stages", [{"reads": ["image"]}]),
    ],
)
def test_a_field_of_the_wrong_form_is_damage(toy_card: ModelCard, key: str, value: object) -> None:
    held = {**json.loads(toy_card.to_json()), key: value}
    with pytest.raises(NuxelError, match="damaged"):
        read_card(json.dumps(held), "a.onnx")


def test_a_missing_field_is_damage(toy_card: ModelCard) -> None:
    held = json.loads(toy_card.to_json())
    del held["stride"]
    with pytest.raises(NuxelError, match="damaged"):
        read_card(json.dumps(held), "a.onnx")


@pytest.mark.parametrize("number", [FORMAT + 1, 99, "2"])
def test_a_newer_format_asks_for_an_upgrade_and_names_the_writer(toy_card: ModelCard, number: object) -> None:
    # fields that this version cannot know must not turn the sentence into "damaged"
    held = {**json.loads(toy_card.to_json()), "format": number, "nuxel_version": "9.1", "novel": [1]}
    with pytest.raises(NuxelError, match=rf"newer nuxel \(9.1, model format {number}\); upgrade"):
        read_card(json.dumps(held), "a.onnx")
