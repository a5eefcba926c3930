"""Untrusted JSON: accepted values, and the messages for others."""

import json
import os
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pytest

from san_core import checked_json
from san_core.checked_json import Rule, check_shape, read_json, read_json_file


class Image(TypedDict):
    name: str
    size: Annotated[int, Rule(lambda number: number >= 0, "a whole number from 0")]
    pid: int | None
    sort: NotRequired[Literal["a", "b"]]


class File(TypedDict):
    images: list[Image]
    facts: NotRequired[dict[str, float | bool]]
    cover: NotRequired[Image | None]


WELL = {"images": [{"name": "é.jpg", "size": 3, "pid": None, "sort": "b"}], "facts": {"x": 1.5}}


def test_what_is_of_the_shape_is_given_as_it_is():
    text = json.dumps(WELL, ensure_ascii=False)
    assert read_json(text, File, where="f") == WELL
    assert read_json(text.encode(), File, where="f") == WELL


def test_keys_that_the_shape_does_not_name_are_let_through():
    told = {"images": [], "more": {"deep": [1, "x", None, True]}}
    assert read_json(json.dumps(told), File, where="f") == told


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": 5}, "f: images is 5; it must be a list"),
        ({"images": [7]}, "f: images[0] is 7; it must be an object"),
        ({"images": [{"size": 1, "pid": 1}]}, "f: images[0] has no name"),
        (
            {"images": [{"name": 7, "size": 1, "pid": 1}]},
            "f: images[0].name is 7; it must be text",
        ),
        (
            {"images": [{"name": "x", "size": -1, "pid": 1}]},
            "f: images[0].size is -1; it must be a whole number from 0",
        ),
        (
            {"images": [{"name": "x", "size": 1.0, "pid": 1}]},
            "f: images[0].size is 1.0; it must be a whole number",
        ),
        (
            {"images": [{"name": "x", "size": True, "pid": 1}]},
            "f: images[0].size is True; it must be a whole number",
        ),
        (
            {"images": [{"name": "x", "size": 1, "pid": "1"}]},
            "f: images[0].pid is '1'; it must be a whole number or null",
        ),
        (
            {"images": [{"name": "x", "size": 2**63, "pid": 1}]},
            "f: images[0].size is a number with more than 64 bits",
        ),
        (
            {"images": [{"name": "x", "size": 1, "pid": 1, "sort": "c"}]},
            "f: images[0].sort is 'c'; it must be one of a, b",
        ),
        ({"cover": {"size": 1, "pid": 1}}, "f: cover has no name"),
        ({"cover": "x"}, "f: cover is 'x'; it must be an object or null"),
        ({"facts": {"x": []}}, "f: facts.x is a list; it must be a number or true or false"),
    ],
)
def test_what_is_of_another_shape_is_refused_by_its_place(change, message):
    with pytest.raises(ValueError, match="f: ") as raised:
        read_json(json.dumps(WELL | change), File, where="f")
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "f is not JSON: Expecting value"),
        ("{", "f is not JSON: Expecting property name"),
        ("[NaN]", "f is not JSON: NaN is not a JSON number"),
        ("[1e999]", r"f: \[0\] is inf; it must be a finite number"),
        ('["\\ud800"]', r"f: \[0\] is .* it must be text in Unicode"),
        ('{"\\ud800": 1}', "it must be text in Unicode"),
        ("[" * 200_000, "f is nested too deep to be read"),
        ("[" * 40 + "]" * 40, "is nested deeper than 32"),
        ("9" * 5000, "f is not JSON: Exceeds the limit"),
        (b"\xff{}", "f is not JSON: 'utf-8' codec can't decode"),
    ],
    ids=["empty", "cut", "NaN", "inf", "text", "key", "deep", "nested", "long", "bytes"],
)
def test_invalid_json_is_refused_in_one_line(text, message):
    with pytest.raises(ValueError, match=message) as raised:
        read_json(text, Any, where="f")
    assert "\n" not in str(raised.value)


def test_of_a_file_that_is_too_large_nothing_is_parsed(tmp_path, monkeypatch):
    monkeypatch.setattr(checked_json, "MOST_BYTES", 100)
    (tmp_path / "a.json").write_text(json.dumps(["x" * 100]))
    with pytest.raises(ValueError, match=r"a\.json has 101 bytes; at most 100 of JSON are read"):
        read_json_file(tmp_path / "a.json", list[str])


@pytest.mark.usefixtures("impatient")
def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(ValueError, match=r"a\.json is not a file"):
        read_json_file(tmp_path / "a.json", list[str])


def test_a_shape_that_is_none_is_a_defect():
    with pytest.raises(TypeError, match=r"is not a type of JSON value"):
        check_shape([], set[str], where="f")
