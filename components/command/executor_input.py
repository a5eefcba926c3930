"""KFP's description of a run for a step: the JSON that replaces `{{$}}` in a command."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

from components.process.messages import note_copy
from components.storage import outputs
from san_core.checked_json import Rule, read_json

_IS_PLACE = Rule(lambda text: text and "\0" not in text, "the name of a place")


class _Artifact(TypedDict):
    uri: Annotated[str, _IS_PLACE]
    name: NotRequired[str]
    type: NotRequired[dict[str, Any]]
    customPath: NotRequired[str | None]
    custom_path: NotRequired[str | None]


class _Passed(TypedDict):
    artifacts: NotRequired[list[_Artifact] | None]


class _Declared(TypedDict):
    artifacts: Annotated[list[_Artifact], Rule(len, "a list of one artifact")]


class _Inputs(TypedDict):
    artifacts: NotRequired[dict[str, _Passed | None] | None]


class _Outputs(TypedDict):
    outputFile: Annotated[str, _IS_PLACE]
    artifacts: NotRequired[dict[str, _Declared] | None]


class _ExecutorInput(TypedDict):
    inputs: NotRequired[_Inputs]
    outputs: _Outputs


def parse_executor_input(text: str) -> dict[str, Any]:
    """KFP's description of this run.

    Raises:
        ValueError: the text does not have the form that KFP writes.
    """
    return {**read_json(text, _ExecutorInput, where="argument --executor-input")}


def passed_artifact_path(executor_input: Mapping[str, Any], name: str) -> Path | None:
    """The path of an optional input artifact, or None if the pipeline did not pass it.

    Optional artifacts are never among the arguments, as KFP would write the word `null` there for
    an absent one.
    """
    passed = (executor_input.get("inputs", {}).get("artifacts") or {}).get(name) or {}
    artifacts = passed.get("artifacts") or []
    return outputs.artifact_path(artifacts[0]) if artifacts else None


def note_mounted_artifacts(executor_input: Mapping[str, Any]) -> None:
    """Make messages name the URIs that Kubeflow shows, not the paths that its launcher uses."""
    for side in ("inputs", "outputs"):
        for found in (executor_input.get(side, {}).get("artifacts") or {}).values():
            for artifact in (found or {}).get("artifacts") or []:
                if not artifact["uri"].startswith(("/", "file:")):
                    note_copy(outputs.artifact_path(artifact), artifact["uri"])
