"""Every command of the Markdown files is right: its words are parsed as its program parses them.

`PARSED_ALONE` lists what no test runs, with the reason; test_runs.py runs most of the others.
"""

import argparse
import ast
import importlib.util
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import pipeline
from components.__main__ import STEPS, main
from components.command.code import ROOT
from components.kubeflow.cluster_options import cluster_from_options
from components.kubeflow.component import check_image_pinned
from components.kubeflow.schedule import schedule_from_options
from components.kubeflow.submission import check_mode_options, check_no_user_info
from components.launch.options import argument_parser
from components.launch.presets import (
    Preset,
    check_beforehand,
    choose_graph,
    find_preset,
    pipeline_arguments,
)
from tests.documents.markdown import Command, commands, documents, name_of, python_blocks

COMMANDS = tuple(commands())
# What cannot run where tests run, by its first words, and why; the words of all are parsed.
PARSED_ALONE = {
    "kubectl": "no cluster",
    "aws": "no bucket of AWS",
    "pipeline.py submit": "no cluster; tests/components/kubeflow/ submits to a stub",
    "pipeline.py upload": "no cluster; the same stub",
    "pipeline.py runs": "no cluster; the same stub",
    "pipeline.py compile": "test_pipeline.py compiles every graph",
    "make": "minutes; .ci/run runs lint, test, test-slow, demo and test-docker",
    "docker": "no docker; make test-docker",
    "torchrun": "no GPU; tests/steps/test_two_processes.py runs two processes",
    "pip": "no package registry",
    "venv": "no package registry",
    "tools.body": "a package that is not installed here",
    "pytest": "the tests themselves",
    "tensorboard": "a server",
    "mkdir": "a folder for docker",
    "export": "variables of a bucket",
}
# Its commands leave out where their artifacts lie.
CARD = "san_core/shipped/MODEL_CARD.md"
_PYTHON = re.compile(r"(\.venv/bin/|/tmp/\S+/)?python3?")


class ParsedError(BaseException):
    """The words were right: nothing further shall happen."""


@pytest.fixture
def no_work(monkeypatch, tmp_path):
    """Programs parse their words and do no more."""
    parse = argparse.ArgumentParser.parse_args

    def parse_and_end(self, *words, **named):
        parse(self, *words, **named)
        raise ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_end)
    monkeypatch.chdir(tmp_path)


def kind_of(command: Command) -> str:
    """What a command is called in PARSED_ALONE, or a like name."""
    words = command.words
    if _PYTHON.fullmatch(words[0]):
        if words[1] == "pipeline.py":
            return f"pipeline.py {words[2]}"
        return words[2] if words[1] == "-m" else words[1]
    return f"make {words[1]}" if words[0] == "make" else Path(words[0]).name


def inner_words(words: list[str]) -> list[str] | None:
    """The words after `-m components`, wherever a command has them."""
    for place in range(len(words) - 1):
        if words[place : place + 2] == ["-m", "components"]:
            return words[place + 2 :]
    return None


def named(command: Command) -> str:
    return f"{command.file}: {command.text[:70]}"


def those(*kinds: str) -> list[Command]:
    """The commands of some kinds, each text once."""
    found = {command.text: command for command in COMMANDS if kind_of(command) in kinds}
    return list(found.values())


def test_commands_of_every_kind_are_found():
    files = {command.file for command in COMMANDS}
    documented = {"README.md", "components/README.md", "components/DATA.md", "docker/README.md"}
    assert documented | {"tests/README.md", "CONTRIBUTING.md"} <= files
    kinds = {kind_of(command) for command in COMMANDS}
    assert {"pipeline.py run", "pipeline.py submit", "components", "make demo", "docker"} <= kinds


def test_what_is_not_run_is_there():
    kinds = {kind_of(command) for command in COMMANDS}
    assert set(PARSED_ALONE) - {"aws"} <= kinds | {kind.split()[0] for kind in kinds}


@pytest.mark.parametrize(
    "command",
    [c for c in COMMANDS if inner_words(c.words) is not None and c.file != CARD],
    ids=named,
)
def test_step_commands_are_parsed(command, no_work, capsys):
    words = inner_words(command.words)
    if not words or words == ["recipes"]:
        assert main(words or ["--help"]) == 0
        assert "python -m components" in capsys.readouterr().out
    elif "--help" in words:
        assert main(words) == 0
    elif words[-1] == "...":  # the flags of the step follow
        assert words[0] in STEPS
    elif words[0] == "recipes":
        assert main(words) == 0
        assert "arch=" in capsys.readouterr().out
    else:
        with pytest.raises(ParsedError):
            main(words)


def test_a_wrong_flag_is_noticed(no_work):
    assert main(["make_pit", "--pti", "x"]) == 2


@pytest.mark.parametrize("command", those("pipeline.py run"), ids=named)
def test_run_commands_are_no_mistake(command, tmp_path):
    words = command.words[2:]
    if "--help" not in words:
        options = argument_parser(pipeline.GRAPHS).parse_args(words)
        check_pipeline(options, tmp_path)


@pytest.mark.parametrize(
    "command",
    those("pipeline.py submit", "pipeline.py upload", "pipeline.py runs", "pipeline.py compile"),
    ids=named,
)
def test_cluster_commands_are_no_mistake(command, tmp_path):
    options = argument_parser(pipeline.GRAPHS).parse_args(command.words[2:])
    is_submit = options.command == "submit"
    # The run that --of names has its parameters at the server.
    if is_submit and not options.only and not options.of:
        check_pipeline(options, tmp_path)
    if is_submit:
        check_mode_options(options)
        check_no_user_info(options)
        schedule_from_options(options)
    if options.command != "runs":
        cluster_from_options(options)
        image = (options.image or "r/san:{commit}").replace("...", "r.example/san:1")
        check_image_pinned(image.replace("{commit}", "0123456789ab"))


def check_pipeline(options: argparse.Namespace, folder: Path) -> None:
    """Check the parameters of a whole pipeline as `run` does."""
    preset = find_preset(options.preset) if options.preset else Preset("full", {})
    graph = pipeline.GRAPHS[choose_graph(options, preset)]
    document = graph.compile(folder / "p.yaml")
    arguments = pipeline_arguments(preset, document, options.param, folder=folder)
    check_beforehand(arguments, document)


@pytest.mark.parametrize(
    "command", [c for c in COMMANDS if c.words[0] == "make"], ids=lambda c: c.text
)
def test_make_has_the_target_and_its_variables(command):
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE)
    variables = re.findall(r"^([A-Z0-9_]+) *\??=", makefile, re.MULTILINE)
    for word in command.words[1:]:
        name, is_set, value = word.partition("=")
        assert name in (variables if is_set else targets)
        if name == "GROUP":
            groups = ROOT / "tests" / "benchmarks" / "groups" / f"{value}.py"
            assert groups.is_file() or value == "evidence"


@pytest.mark.parametrize(
    "command",
    [c for c in COMMANDS if re.match(r"(tests|tools|san_core|pytest)\b", kind_of(c))],
    ids=named,
)
def test_modules_and_their_files_are_there(command):
    module, *words = command.words[2:]
    assert importlib.util.find_spec(module) is not None
    for word in words:
        assert not word.startswith("tests/") or (ROOT / word).exists()


@pytest.mark.parametrize("command", those("docker"), ids=named)
def test_docker_commands_name_files_and_services_that_are_there(command):
    words = command.words
    if words[1] == "compose":
        assert words[2:4] == ["-f", "docker/compose.yaml"]
        services = yaml.safe_load((ROOT / words[3]).read_text("utf-8"))["services"]
        named_services = [word for word in words[5:] if word in ("s3", "cpu", "gpu", "torch")]
        assert words[4] in ("up", "run", "down")
        assert set(named_services) <= set(services)
        assert bool(named_services) == (words[4] != "down")
    else:
        assert words[1] == "run"
        assert {f"san-pipeline:{target}" for target in ("cpu", "gpu", "onnx")} & {*words}


def test_the_onnx_image_is_shown_with_a_search():
    (command,) = (c for c in those("docker") if "san-pipeline:onnx" in c.words)
    assert (inner_words(command.words) or [])[0] == "search"


CHECKED: tuple[Callable[[str], bool], ...] = (
    lambda kind: kind in ("components", "docker", *PARSED_ALONE),
    lambda kind: kind.startswith(("make ", "pipeline.py ", "tests.", "tools.")),
    lambda kind: kind in ("mkdir", "export", "sha256sum"),
)


def test_every_command_is_of_a_kind_that_is_checked():
    unchecked = [c.text for c in COMMANDS if not any(known(kind_of(c)) for known in CHECKED)]
    assert unchecked == []


@pytest.mark.parametrize("file", [f for f in documents() if python_blocks(f)], ids=name_of)
def test_python_code_uses_names_of_ours_that_are_there(file):
    assert "san_core" in "".join(python_blocks(file))
    for code in python_blocks(file):
        tree = ast.parse(code)
        imported = {
            alias.name: f"{node.module}.{alias.name}"
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("san_core")
            for alias in node.names
        }
        for dotted in imported.values():
            module, _, name = dotted.rpartition(".")
            assert module_file(dotted).exists() or name in names_of_module(module)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                module = imported.get(node.value.id, "")
                if module and module_file(module).exists():
                    assert node.attr in names_of_module(module)


def module_file(dotted: str) -> Path:
    return ROOT / f"{dotted.replace('.', '/')}.py"


def names_of_module(dotted: str) -> set[str]:
    """The functions and classes of a module."""
    tree = ast.parse(module_file(dotted).read_bytes())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def test_commands_in_sentences_are_parsed(no_work):
    found = []
    for file in documents():
        for text in re.findall(
            r"`((?:\.venv/bin/)?python (?:-m components|pipeline\.py) [^`]+)`",
            file.read_text("utf-8"),
        ):
            words = shlex.split(text)
            if words[-1].isupper() or "..." in text or {"STEP", "recipes", "--help"} & {*words}:
                continue
            found.append(text)
            with pytest.raises(ParsedError):
                pipeline.main(words[2:]) if words[1] == "pipeline.py" else main(words[3:])
    assert found
