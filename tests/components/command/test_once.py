"""Flags that are given twice."""

import pytest

from components.__main__ import STEPS
from components.command.export import export_parser
from components.command.imageset import imageset_parser
from components.command.once import status_of
from components.command.search import search_parser
from components.command.step import step_parser
from components.experiments.compare import compare_parser
from components.experiments.prune import prune_parser
from components.launch.options import argument_parser
from components.nodes.on_nodes import on_nodes_parser


@pytest.mark.parametrize(
    ("parser", "words", "flag"),
    [
        (imageset_parser, ["ls", "p", "--split", "query", "--split", "train"], "--split"),
        (
            lambda: argument_parser(["full"]),
            ["run", "--preset", "demo", "--name", "a", "--name=b"],
            "--name",
        ),
    ],
)
def test_commands_refuse_a_flag_that_is_given_twice(parser, words, flag, capsys):
    with pytest.raises(SystemExit) as stop:
        parser().parse_args(words)
    assert stop.value.code == 2
    assert f"argument {flag}: given twice" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("parser", "words", "short"),
    [
        (imageset_parser, ["ls", "p", "--split", "query"], ["--spl", "train"]),
        (lambda: argument_parser(["full"]), ["run", "--name", "a"], ["--nam", "b"]),
        (search_parser, ["--model", "m", "--gallery", "g", "--query", "q"], ["--gal", "h"]),
        (export_parser, ["--model", "m"], ["--mod", "n"]),
        (compare_parser, ["a", "--runs", "r"], ["--run", "s"]),
        (prune_parser, ["--runs", "r"], ["--run", "s"]),
        (
            lambda: step_parser(STEPS["check_reid"]),
            ["--dataset", "d", "--counts", "c"],
            ["--dat", "e"],
        ),
        (lambda: on_nodes_parser(STEPS), ["--job", "{}"], ["--jo=1", "train_san"]),
    ],
)
def test_an_abbreviated_flag_is_refused(parser, words, short, capsys):
    with pytest.raises(SystemExit) as stop:
        parser().parse_args([*words, *short])
    assert stop.value.code == 2
    assert f"unrecognized arguments: {short[0]}" in capsys.readouterr().err


def test_what_may_be_repeated_is_collected():
    words = ["run", "--preset", "demo", "--param", "a=1", "--param", "b=2"]
    assert argument_parser(["full"]).parse_args(words).param == ["a=1", "b=2"]


@pytest.mark.parametrize(("code", "status"), [(0, 0), (2, 2), (None, 2), ("wrong", 2)])
def test_command_ends_as_argparse_ends_it(code, status):
    assert status_of(SystemExit(code)) == status
