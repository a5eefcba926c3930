import argparse
import re
from pathlib import Path
from typing import Annotated

import pytest

from components.__main__ import STEPS, main, usage
from components.command.step import (
    Input,
    Output,
    Step,
    read_docstring,
    step_parameters,
    step_parser,
)


def mix(
    data: Annotated[Path, Input("Dataset")],
    result: Annotated[Path, Output("Model")],
    extra: Annotated[Path | None, Input("Dataset")] = None,
    count: int = 3,
    rate: float = 1,
    name: str = "",
    folder: Path = Path("here"),
    fast: bool = True,
) -> None:
    """Mix things.

    It does so twice.

    Args:
        data: what to mix
        result: the mixture
        extra: more of it
        count: how often,
            told in a second line
        rate: 100% is 1
        name: what to call it
        folder: where to look
        fast: whether to hurry

    Raises:
        ValueError: never.
    """


def test_signature_and_docstring_become_parameters():
    found = {p.name: p for p in step_parameters(mix)}
    assert list(found) == ["data", "result", "extra", "count", "rate", "name", "folder", "fast"]
    assert found["data"].is_input
    assert found["data"].is_required
    assert found["result"].is_output
    assert found["extra"].is_input
    assert not found["extra"].is_required
    assert found["result"].artifact.kind == "Model"
    assert found["count"].type is int
    assert found["count"].default == 3
    assert found["folder"].type is Path


def test_description_goes_on_in_deeper_lines_and_ends_with_its_section():
    described = read_docstring(mix).parameter_help
    assert described["count"] == "how often, told in a second line"
    assert described["fast"] == "whether to hurry"
    assert "ValueError" not in described


def test_docstring_without_parameters_is_all_text():
    assert read_docstring(mix).text == "Mix things.\n\nIt does so twice."
    assert read_docstring(mix).summary == "Mix things."


def parse(*words: str) -> dict[str, object]:
    return vars(step_parser(mix).parse_args(["--data", "d", "--result", "r", *words]))


def test_words_are_read_by_the_declared_types():
    found = parse("--count", "-4", "--rate", "0.5", "--name", "x", "--folder", "f", "--extra", "e")
    assert found["count"] == -4
    assert found["rate"] == 0.5
    assert found["name"] == "x"
    assert found["folder"] == Path("f")
    assert found["extra"] == Path("e")
    assert found["data"] == Path("d")


def test_what_is_left_out_takes_its_default():
    found = parse()
    assert (found["count"], found["rate"], found["name"]) == (3, 1, "")
    assert found["extra"] is None
    assert found["fast"] is True


@pytest.mark.parametrize(
    ("words", "value"), [(["true"], True), (["false"], False), ([], True)], ids=str
)
def test_booleans_are_spelt_true_and_false(words, value):
    assert parse("--fast", *words)["fast"] is value


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--fast", "maybe"], "argument --fast: invalid boolean value: 'maybe'"),
        (["--count", "1.5"], "argument --count: invalid int value: '1.5'"),
        (["--cou", "1"], "unrecognized arguments: --cou 1"),
    ],
)
def test_wrong_word_is_a_usage_error(capsys, words, message):
    with pytest.raises(SystemExit) as stop:
        parse(*words)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_missing_artifact_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as stop:
        step_parser(mix).parse_args(["--data", "d"])
    assert stop.value.code == 2
    assert "required: --result" in capsys.readouterr().err


def test_help_groups_flags_and_shows_defaults():
    text = re.sub(r"\s+", " ", step_parser(mix).format_help())
    assert "python -m components mix" in text
    assert "Mix things. It does so twice." in text
    _, inputs, outputs, settings = re.split(r"inputs: |outputs: |settings: ", text)
    assert "--data PATH|URI what to mix (required)" in inputs
    assert "--extra PATH|URI more of it (optional)" in inputs
    assert "--result PATH|URI the mixture (required)" in outputs
    assert "told in a second line (default: 3)" in settings
    assert "100% is 1 (default: 1)" in settings
    assert "what to call it (default: empty)" in settings
    assert "whether to hurry (default: true)" in settings


def undescribed(alpha: int = 1) -> None:
    """Do it."""


def of_no_type(alpha=1) -> None:
    """Do it.

    Args:
        alpha: a thing
    """


def of_a_list(alpha: list[int]) -> None:
    """Do it.

    Args:
        alpha: a thing
    """


def no_longer_there() -> None:
    """Do it.

    Args:
        alpha: a thing
    """


def artifact_as_text(alpha: Annotated[str, Input("Dataset")]) -> None:
    """Do it.

    Args:
        alpha: a thing
    """


def output_or_none(alpha: Annotated[Path | None, Output("Dataset")] = None) -> None:
    """Do it.

    Args:
        alpha: a thing
    """


def input_with_a_default(alpha: Annotated[Path, Input("Dataset")] = Path("x")) -> None:
    """Do it.

    Args:
        alpha: a thing
    """


def optional_without_default(alpha: Annotated[Path | None, Input("Dataset")]) -> None:
    """Do it.

    Args:
        alpha: a thing
    """


def number_or_none(alpha: int | None = None) -> None:
    """Do it.

    Args:
        alpha: a thing
    """


def number_by_default_a_word(alpha: int = "one") -> None:  # type: ignore[assignment]
    """Do it.

    Args:
        alpha: a thing
    """


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (undescribed, "undescribed: alpha is not described in the docstring"),
        (of_no_type, "alpha has type None, which a step cannot take; it takes str, int, float"),
        (of_a_list, r"alpha has type list\[int\], which a step cannot take"),
        (no_longer_there, "alpha is described but is not a parameter"),
        (artifact_as_text, "alpha is an artifact, so its type is Path, not str"),
        (input_with_a_default, "alpha needs no default, or `Path . None` with the default None"),
        (optional_without_default, "alpha needs no default, or `Path . None`"),
        (number_or_none, "alpha may be None, which only an artifact can"),
        (number_by_default_a_word, "alpha is int, but its default is 'one'"),
    ],
)
def test_wrong_declaration_is_refused(step, message):
    with pytest.raises(TypeError, match=message):
        step_parameters(step)


def test_an_output_may_be_absent_by_hand():
    (alpha,) = step_parameters(output_or_none)
    assert (alpha.is_output, alpha.is_required, alpha.default) == (True, False, None)
    assert vars(step_parser(output_or_none).parse_args([]))["alpha"] is None
    assert vars(step_parser(output_or_none).parse_args(["--alpha", "x"]))["alpha"] == Path("x")


def with_settings(count: int) -> Step:
    names = [f"p{number}" for number in range(count)]
    described = "\n".join(f"        {name}: a thing" for name in names)
    scope: dict[str, Step] = {}
    exec(
        f"def many({', '.join(f'{name}: int = 0' for name in names)}):\n"
        f'    """Do it.\n\n    Args:\n{described}\n    """',
        scope,
    )
    return scope["many"]


def test_more_than_twelve_parameters_are_refused():
    assert len(step_parameters(with_settings(12))) == 12
    with pytest.raises(TypeError, match=r"many has 13 parameters.*at most 12"):
        step_parameters(with_settings(13))


@pytest.mark.parametrize("name", STEPS)
def test_every_step_is_declared_as_it_should_be(name):
    assert STEPS[name].__name__ == name
    assert isinstance(step_parser(STEPS[name]), argparse.ArgumentParser)
    assert any(p.is_output for p in step_parameters(STEPS[name]))


def test_without_a_step_the_steps_are_listed(capsys):
    assert main([]) == 2
    assert capsys.readouterr().err.strip() == usage()
    assert main(["--help"]) == 0
    assert capsys.readouterr().out.strip() == usage()
    for name, step in STEPS.items():
        assert re.search(rf"^  {name} +{re.escape(read_docstring(step).summary)}$", usage(), re.M)


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("trainsan", "train_san"), ("Evaluate", "evaluate"), ("seal-textures", "seal_textures")],
)
def test_capitals_and_joints_of_words_do_not_hide_what_was_meant(wrong, meant, capsys):
    assert main([wrong]) == 2
    assert f"no step {wrong!r}; did you mean {meant!r}? there are" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "line"),
    [(["bake"], "components: no step 'bake'; there are make_pit, prepare_reid"), ([], "usage: ")],
)
def test_an_unknown_step_is_a_usage_error_in_the_termination_log(
    tmp_path, capsys, monkeypatch, words, line
):
    log = tmp_path / "termination-log"
    log.touch()
    monkeypatch.setattr("components.process.messages.TERMINATION_LOG", log)
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith(line)
    assert log.read_text() + "\n" == said


@pytest.mark.parametrize("second", [("--count", "5"), ("--count=5",)])
def test_a_flag_that_is_given_twice_is_refused(second, capsys):
    with pytest.raises(SystemExit) as stop:
        parse("--count", "4", *second)
    assert stop.value.code == 2
    assert "error: argument --count: given twice" in capsys.readouterr().err
