"""Untrusted JSON, checked against a declared shape. No other module parses JSON.

A shape is a type: str, int, float, bool, a Literal, `X | None`, list[X], dict[str, X], Any or a
TypedDict of these. Keys that a TypedDict does not name are ignored, so a later version may add
keys. `Annotated[X, Rule(...)]` says what a value must be beyond its type. Always refused: text that
is not valid Unicode, numbers that are not finite or need more than 64 bits, and very deep nesting.
"""

import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    NotRequired,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

T = TypeVar("T")

MOST_BYTES = 64 << 20  # of a JSON file; the index of a thousand images has half of one
MOST_NESTED = 32  # levels of what no shape describes
_MOST_SHOWN = 40  # characters of a wrong value in a message
_KINDS: dict[type, str] = {list: "a list", dict: "an object"}
_WORDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    NoneType: "null",
}


class Rule(NamedTuple):
    """A further condition on a value of the right type: a test, and its words in a message."""

    holds: Callable[[Any], object]
    wanted: str


class _Checker(NamedTuple):
    """Compares a value, found at a path such as `shards[3].tar`, with a shape."""

    check: Callable[[Any, str], None]
    wanted: str


class _MisfitError(Exception):
    """A value does not match its shape; the message says where and why."""


def read_json(data: bytes | str, shape: type[T], *, where: str) -> T:
    """The value in JSON text, checked against a shape.

    Args:
        data: the JSON, in UTF-8 where it is bytes.
        shape: a type, as the module says.
        where: how a message calls it.

    Raises:
        ValueError: it is not JSON, or does not match the shape; the line names the wrong value.
    """
    if len(data) > MOST_BYTES:
        raise ValueError(
            f"{where} has {len(data):,} bytes; at most {MOST_BYTES:,} of JSON are read"
        )
    try:
        value = json.loads(data, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError(f"{where} is nested too deep to be read") from None
    except ValueError as error:
        raise ValueError(f"{where} is not JSON: {error}") from error
    return check_shape(value, shape, where=where)


def read_json_file(path: Path, shape: type[T]) -> T:
    """The value in a JSON file, as `read_json`. A file that is too large is not read.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a file, not JSON, or does not match the shape.
    """
    return read_json(json_bytes(path), shape, where=str(path))


def json_bytes(path: Path) -> bytes:
    """The bytes of a JSON file; of too large a file, only enough for `read_json` to refuse it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a file.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a file")
    with path.open("rb") as file:  # room is taken for as much as is asked for
        return file.read(min(path.stat().st_size, MOST_BYTES) + 1)


def check_shape(value: object, shape: type[T], *, where: str) -> T:
    """A value from JSON, checked against a shape.

    Raises:
        ValueError: it does not match; the line names the wrong part.
    """
    try:
        checker: _Checker = _checker_of(shape)  # type: ignore[arg-type]  # a type has a hash
        checker.check(value, "")
    except _MisfitError as error:
        raise ValueError(f"{where}: {error}") from None
    return value  # type: ignore[return-value]  # that is what was checked


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is not a JSON number")


@functools.cache
def _checker_of(shape: Any) -> _Checker:
    """The function that compares values with a shape.

    Raises:
        TypeError: it is not a shape.
    """
    kind, parts = get_origin(shape), get_args(shape)
    if shape in (Any, object):
        return _Checker(_check_anything, "anything")
    if is_typeddict(shape):
        return _object_checker(shape)
    if shape in _WORDS:
        return _scalar_checker(shape)
    if kind is Annotated:
        return _rule_checker(_checker_of(parts[0]), shape.__metadata__)
    if kind in (Union, UnionType):
        return _union_checker([_checker_of(part) for part in parts])
    if kind is Literal:
        words = ", ".join(map(str, parts))
        return _rule_checker(_checker_of(str), [Rule(parts.__contains__, f"one of {words}")])
    if kind is list:
        return _list_checker(_checker_of(parts[0]))
    if kind is dict:
        return _mapping_checker(_checker_of(parts[1]))
    raise TypeError(f"{shape} is not a type of JSON value")


def _scalar_checker(kind: type) -> _Checker:
    accepted = (int, float) if kind is float else (kind,)

    def check(value: Any, path: str) -> None:
        if type(value) not in accepted:
            raise _misfit(value, path, _WORDS[kind])
        if kind is str:
            _check_text(value, path)
        elif kind in (int, float):
            _check_number(value, path)

    return _Checker(check, _WORDS[kind])


def _rule_checker(inner: _Checker, rules: Any) -> _Checker:
    def check(value: Any, path: str) -> None:
        inner.check(value, path)
        for rule in rules:
            if not rule.holds(value):
                raise _misfit(value, path, rule.wanted)

    return _Checker(check, rules[-1].wanted)


def _union_checker(options: list[_Checker]) -> _Checker:
    wanted = " or ".join(option.wanted for option in options)

    def check(value: Any, path: str) -> None:
        kind = _KINDS.get(type(value))
        meant = [option for option in options if option.wanted == kind]
        if len(meant) == 1:  # so that the message says what is wrong within
            return meant[0].check(value, path)
        for option in options:
            try:
                return option.check(value, path)
            except _MisfitError:
                continue
        raise _misfit(value, path, wanted)

    return _Checker(check, wanted)


def _list_checker(inner: _Checker) -> _Checker:
    def check(value: Any, path: str) -> None:
        if type(value) is not list:
            raise _misfit(value, path, "a list")
        for number, item in enumerate(value):
            inner.check(item, f"{path}[{number}]")

    return _Checker(check, "a list")


def _mapping_checker(inner: _Checker) -> _Checker:
    def check(value: Any, path: str) -> None:
        if type(value) is not dict:
            raise _misfit(value, path, "an object")
        for key, item in value.items():
            _check_text(key, path)
            inner.check(item, _join(path, key))

    return _Checker(check, "an object")


def _object_checker(shape: Any) -> _Checker:
    """The check of a TypedDict: its own keys by their types; other keys may hold any JSON."""
    hints = get_type_hints(shape, include_extras=True)
    bare = {key: get_args(t)[0] if get_origin(t) is NotRequired else t for key, t in hints.items()}
    inner = {key: _checker_of(hint) for key, hint in bare.items()}
    required = shape.__required_keys__

    def check(value: Any, path: str) -> None:
        if type(value) is not dict:
            raise _misfit(value, path, "an object")
        if missing := required - value.keys():
            raise _MisfitError(f"{path or 'it'} has no {min(missing)}")
        for key, item in value.items():
            if checker := inner.get(key):
                checker.check(item, _join(path, key))
            else:
                _check_text(key, path)
                _check_anything(item, _join(path, key))

    return _Checker(check, "an object")


def _check_anything(value: Any, path: str, levels: int = MOST_NESTED) -> None:
    """The check of a value without a shape: valid text, finite numbers, limited nesting."""
    if type(value) is str:
        _check_text(value, path)
    elif type(value) in (int, float):
        _check_number(value, path)
    elif type(value) in (dict, list) and not levels:
        raise _MisfitError(f"{_shorten(path)} is nested deeper than {MOST_NESTED} levels")
    elif type(value) is list:
        for number, item in enumerate(value):
            _check_anything(item, f"{path}[{number}]", levels - 1)
    elif type(value) is dict:
        for key, item in value.items():
            _check_text(key, path)
            _check_anything(item, _join(path, key), levels - 1)


def _check_text(value: str, path: str) -> None:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _misfit(value, path, "text in Unicode") from None


def _check_number(value: float, path: str) -> None:
    if type(value) is int and not -(2**63) <= value < 2**63:
        raise _MisfitError(f"{path or 'it'} is a number with more than 64 bits")
    if not math.isfinite(value):
        raise _misfit(value, path, "a finite number")


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _misfit(value: Any, path: str, wanted: str) -> _MisfitError:
    shown = _KINDS.get(type(value)) or _shorten(repr(value))
    return _MisfitError(f"{path or 'it'} is {shown}; it must be {wanted}")


def _shorten(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
