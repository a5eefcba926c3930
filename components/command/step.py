"""The declaration of a step, and its command line.

A step is a plain typed function: paths in, paths out, a few settings, nothing returned. Its
signature and docstring are the only place where its parameters are written. `step_parameters`
reads them. The command line (`step_parser`, here), the KFP component
(`components.kubeflow.component`) and the table in components/README.md (`tools.readme`) are made
from them.

This module needs only the standard library.
"""

import argparse
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, NoReturn, Union, get_args, get_origin, get_type_hints

from components.command.once import OnceParser
from components.process.gpu import GPU_STEPS
from components.process.messages import leave_last_words, printable
from components.storage.places import path_or_uri
from san_core.shipped.generator import SHIPPED_FOLDER, SHIPPED_GENERATOR

Step = Callable[..., None]

MAX_SETTINGS = 12


@dataclass(frozen=True)
class Artifact:
    """A file or directory that passes between steps; `kind` is its KFP type, such as "Dataset".

    may_be_checkpoint: whether the checkpoint of a training can be given, whose model is then read.
    """

    kind: str
    is_output: bool
    may_be_checkpoint: bool = False


def Input(  # noqa: N802 - reads as the type annotation it stands in
    kind: str, *, may_be_checkpoint: bool = False
) -> Artifact:
    """Mark a parameter as an artifact that is read.

    `Annotated[Path, Input("Dataset")]` must be given; `Annotated[Path | None, Input("Dataset")] =
    None` may be absent.
    """
    return Artifact(kind, is_output=False, may_be_checkpoint=may_be_checkpoint)


def Output(kind: str) -> Artifact:  # noqa: N802
    """Mark a parameter as an artifact that is written.

    It is declared like an input: `Annotated[Path, Output("Model")]` must be given;
    `Annotated[Path | None, Output("Artifact")] = None` may be absent by hand, and is given on KFP.
    """
    return Artifact(kind, is_output=True)


def boolean(text: str) -> bool:
    """Read "true" or "false", the way KFP's launcher writes booleans on a command line."""
    if text not in ("true", "false"):
        raise ValueError(text)  # argparse turns this into "invalid boolean value: ..."
    return text == "true"


# The types that a parameter may have, those that KFP, a shell and Python share, with their parsers.
VALUE_PARSERS: dict[type, Callable[[str], Any]] = {
    str: str,
    int: int,
    float: float,
    Path: Path,
    bool: boolean,
}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a step, as every renderer sees it."""

    name: str
    type: type
    help: str
    default: Any
    artifact: Artifact | None

    @property
    def flag(self) -> str:
        """The command-line word: `san_recipe` is `--san-recipe`."""
        return "--" + self.name.replace("_", "-")

    @property
    def is_required(self) -> bool:
        """Whether a caller must give it: it has no default."""
        return self.default is inspect.Parameter.empty

    @property
    def is_input(self) -> bool:
        """Whether it is an artifact the step reads."""
        return self.artifact is not None and not self.artifact.is_output

    @property
    def is_output(self) -> bool:
        """Whether it is an artifact the step writes."""
        return self.artifact is not None and self.artifact.is_output


@dataclass(frozen=True)
class StepDocstring:
    """The content of a docstring: `text` about the step, `parameter_help` about each parameter."""

    text: str
    parameter_help: dict[str, str]

    @property
    def summary(self) -> str:
        """The first line."""
        return self.text.partition("\n")[0]


def read_docstring(step: Step) -> StepDocstring:
    """Read a Google-style docstring; a description may continue in more indented lines."""
    text, _, args = (inspect.getdoc(step) or "").partition("\nArgs:\n")
    described: dict[str, str] = {}
    name, indent = "", None
    for line in args.splitlines():
        if line and not line.startswith(" "):
            break  # the next section, such as Raises:
        entry = re.match(r"( +)(\w+): +(.+)", line)
        if entry and indent in (None, entry[1]):
            indent, name = entry[1], entry[2]
            described[name] = entry[3].strip()
        elif name and line.strip():
            described[name] += " " + line.strip()
    return StepDocstring(text.strip(), described)


def step_parameters(step: Step) -> list[Parameter]:
    """Read a step's parameters from its signature and docstring, in the order they are declared.

    Raises:
        TypeError: a parameter has an unsupported type or no description; a description has no
            parameter; there are more than 12 parameters besides artifacts.
    """
    hints = get_type_hints(step, include_extras=True)
    described = read_docstring(step).parameter_help
    arguments = inspect.signature(step).parameters
    found = [
        _make_parameter(step.__name__, name, hints.get(name), argument.default, described)
        for name, argument in arguments.items()
    ]
    for name in described:
        if name not in arguments:
            raise TypeError(f"{step.__name__}: {name} is described but is not a parameter")
    settings = [p for p in found if p.artifact is None]
    if len(settings) > MAX_SETTINGS:
        raise TypeError(
            f"{step.__name__} has {len(settings)} parameters besides its artifacts; "
            f"a step takes at most {MAX_SETTINGS}"
        )
    return found


def _make_parameter(
    step: str, name: str, hint: Any, default: Any, described: dict[str, str]
) -> Parameter:
    """One parameter, after all checks."""
    artifact, is_optional = None, False
    if get_origin(hint) is Annotated:
        hint, artifact = get_args(hint)
    if get_origin(hint) in (UnionType, Union) and type(None) in get_args(hint):
        (hint,) = (one for one in get_args(hint) if one is not type(None))
        is_optional = True
    if hint not in VALUE_PARSERS:
        raise TypeError(
            f"{step}: {name} has type {hint}, which a step cannot take; "
            f"it takes {', '.join(one.__name__ for one in VALUE_PARSERS)}"
        )
    if name not in described:
        raise TypeError(f"{step}: {name} is not described in the docstring")
    if artifact is not None:
        _check_artifact(step, name, hint, default, is_optional=is_optional)
    elif is_optional:
        raise TypeError(f"{step}: {name} may be None, which only an artifact can")
    elif default is not inspect.Parameter.empty and not _is_of_type(default, hint):
        raise TypeError(f"{step}: {name} is {hint.__name__}, but its default is {default!r}")
    return Parameter(name, hint, described[name], default, artifact)


def _check_artifact(step: str, name: str, hint: Any, default: Any, *, is_optional: bool) -> None:
    """Check that an artifact is a path, and that one that may be absent has the default None."""
    if hint is not Path:
        raise TypeError(f"{step}: {name} is an artifact, so its type is Path, not {hint.__name__}")
    if default is not (None if is_optional else inspect.Parameter.empty):
        raise TypeError(f"{step}: {name} needs no default, or `Path | None` with the default None")


def _is_of_type(value: Any, wanted: type) -> bool:
    """Whether `value` has the type; an int counts as a float, but True not as an int."""
    if isinstance(value, bool):
        return wanted is bool
    return isinstance(value, (int, float) if wanted is float else wanted)


def step_parser(step: Step) -> argparse.ArgumentParser:
    """The command line of a step, `python -m components STEP ...`, on KFP as in a shell."""
    parser = _StepParser(
        prog=f"python -m components {step.__name__}",
        description=read_docstring(step).text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    declared = step_parameters(step)
    for title, chosen in (
        ("inputs", [p for p in declared if p.is_input]),
        ("outputs", [p for p in declared if p.is_output]),
        ("settings", [p for p in declared if p.artifact is None]),
    ):
        group = parser.add_argument_group(title)
        for p in chosen:
            _add_argument(group, p)
    if step.__name__ in GPU_STEPS:
        parser.add_argument_group("machine").add_argument(
            "--device",
            choices=("auto", "cpu"),
            default="auto",
            help="auto uses a GPU if there is one; cpu never does (default: auto)",
        )
    parser.add_argument_group("on Kubeflow").add_argument(
        "--executor-input",
        metavar="JSON",
        help="KFP's description of the run; the pipeline passes it; leave it out by hand",
    )
    return parser


class _StepParser(OnceParser):
    def error(self, message: str) -> NoReturn:
        leave_last_words(printable(f"{self.prog}: error: {message}"))
        super().error(printable(message))


def _add_argument(group: "argparse._ArgumentGroup", p: Parameter) -> None:
    """Add one parameter; its help ends with its default, or says that it is required."""
    reader = _parse_artifact if p.artifact else VALUE_PARSERS[p.type]
    if p.is_input and p.name == "generator":
        reader = _parse_generator
    options: dict[str, Any] = {"type": reader, "required": p.is_required}
    if p.type is bool:
        options |= {"nargs": "?", "const": True, "metavar": "true|false"}
    else:
        options["metavar"] = "PATH|URI" if p.artifact else p.type.__name__.upper()
    if p.is_required:
        note = "required"
    elif p.artifact:
        note = "optional"
    else:
        note = f"default: {command_line_word(p.default) or 'empty'}"
    if not p.is_required:
        options["default"] = p.default
    group.add_argument(p.flag, help=f"{p.help} ({note})".replace("%", "%%"), **options)


def _parse_artifact(text: str) -> Path | str:
    """Read the place of an artifact; argparse keeps the message of ArgumentTypeError only."""
    try:
        return path_or_uri(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _parse_generator(text: str) -> Path | str:
    """The place of a generator; the word shipped is the package's own, not a folder."""
    return SHIPPED_FOLDER if text == SHIPPED_GENERATOR else _parse_artifact(text)


def command_line_word(value: Any) -> str:
    """A value as one word of a command line; booleans are spelt true and false."""
    return str(value).lower() if isinstance(value, bool) else str(value)
