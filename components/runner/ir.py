"""Reading a compiled pipeline (KFP's intermediate representation, IR) into a list of tasks.

Supported are container tasks, their parameters and artifacts, importers, loops over a list
(dsl.ParallelFor) and the order of dependentTasks, which this project's pipelines use. Anything else
raises a ValueError that names it, so that nothing silently runs differently than on Kubeflow.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from components.command.suggestion import suggestion
from components.storage.places import check_no_user_information
from san_core.checked_json import read_json

PLACEHOLDER = re.compile(r"\{\{\$.*?\}\}")
_PARAMETER_PLACEHOLDER = re.compile(r"\{\{\$\.inputs\.parameters\['([^']+)'\]\}\}")
_ARTIFACT_PLACEHOLDER = re.compile(
    r"\{\{\$\.(inputs|outputs)\.artifacts\['([^']+)'\]\.(?:path|uri)\}\}"
)

# Keys of each object that do not change what is computed here.
_TASK_KEYS = {
    "cachingOptions", "componentRef", "dependentTasks", "inputs", "iteratorPolicy",
    "parameterIterator", "retryPolicy", "taskInfo",
}  # fmt: skip
_CONTAINER_KEYS = {"args", "command", "env", "image", "resources"}

_MOST_SHOWN = 60  # characters of a value in a message
# The JSON form of each KFP parameter type; booleans are true and false.
_PARAMETER_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "NUMBER_INTEGER": ((int,), "a whole number"),
    "NUMBER_DOUBLE": ((int, float), "a number"),
    "BOOLEAN": ((bool,), "true or false"),
    "LIST": ((list,), 'a list, such as ["0/2", "1/2"]'),
}


@dataclass(frozen=True)
class TaskOutput:
    """One output artifact of one task."""

    task: str
    artifact: str


@dataclass(frozen=True)
class Task:
    """One run of one container, or one import of a folder or file.

    Attributes:
        name: its name on this machine, such as generate_textures-0
        step: the same without the number of the loop iteration
        words: command and arguments, with parameters filled in and placeholders for artifacts
        parameters: the input parameters, including defaults
        inputs: the source task and artifact of each input artifact that was passed
        outputs: the KFP type of each output artifact, such as system.Dataset
        after: names of the tasks that must finish before it
        env: environment variables set in the pipeline; this project sets some for clusters alone,
            but a pipeline run here without its own would silently run differently
        image: its container image
        imported: for an import, the URI of its only output; earlier runs on Kubeflow, whose tasks
            are read too, have imports, and a run here refuses them by it
    """

    name: str
    step: str
    words: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, TaskOutput] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    image: str = ""
    imported: str = ""


def pipeline_parameters(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The declared parameters of a pipeline: parameterType and optional defaultValue of each."""
    definitions: dict[str, dict[str, Any]] = (
        document["root"].get("inputDefinitions", {}).get("parameters", {})
    )
    return definitions


def parse_arguments(words: Iterable[str], document: Mapping[str, Any]) -> dict[str, Any]:
    """The values of parameters, from `name=value` words.

    Raises:
        ValueError: as for `parse_argument`, or a parameter is given twice.
    """
    found: dict[str, Any] = {}
    for word in words:
        name, value = parse_argument(word, document)
        if name in found:
            raise ValueError(f"parameter {name} is given twice")
        found[name] = value
    return found


def parse_argument(word: str, document: Mapping[str, Any]) -> tuple[str, Any]:
    """Name and value of `name=value`, parsed by the type that the pipeline declares.

    Raises:
        ValueError: the pipeline has no such parameter, or the value has another type or is a URI
            with credentials.
    """
    name, equals, text = word.partition("=")
    check_no_user_information(word, what=name if name.isidentifier() else "--param")
    declared = pipeline_parameters(document)
    if not equals:
        raise ValueError(f"{word!r} is not of the form name=value")
    if name not in declared:
        raise ValueError(f"this pipeline has no parameter {name!r}{suggestion(name, declared)}")
    kind = declared[name]["parameterType"]
    if kind == "STRING":
        return name, text
    expected, example = _PARAMETER_TYPES[kind]
    try:
        value = read_json(text, object, where=name)
    except ValueError:
        value = None
    if type(value) not in expected:
        shown = text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
        raise ValueError(f"parameter {name}: {shown!r} is not {example}")
    return name, value


def check_arguments(document: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    """Check that every parameter of the pipeline has a value or a default.

    Raises:
        ValueError: one has neither.
    """
    _with_defaults("the pipeline", document["root"], arguments)


def missing_parameters(document: Mapping[str, Any], arguments: Mapping[str, Any]) -> list[str]:
    """The parameters of the pipeline that have neither a value nor a default."""
    return [
        name
        for name, spec in pipeline_parameters(document).items()
        if name not in arguments and "defaultValue" not in spec and not spec.get("isOptional")
    ]


def read_tasks(document: Mapping[str, Any], arguments: Mapping[str, Any]) -> list[Task]:
    """All tasks of a compiled pipeline in an order in which they can run, with loops unrolled.

    The iterations of a task in a loop follow each other and share their `step`.

    Args:
        document: the compiled pipeline, as loaded from its YAML
        arguments: values of the pipeline's parameters; absent ones have their default

    Raises:
        ValueError: an argument is missing, or the pipeline uses an unsupported feature.
    """
    return _PipelineReader(document).read_dag(
        document["root"], _with_defaults("the pipeline", document["root"], arguments), artifacts={}
    )


class _PipelineReader:
    """Walks a compiled pipeline from its root."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.components = document.get("components", {})
        self.executors = document["deploymentSpec"]["executors"]

    def read_dag(
        self,
        component: Mapping[str, Any],
        values: Mapping[str, Any],
        artifacts: Mapping[str, TaskOutput],
    ) -> list[Task]:
        """The tasks of one graph, given its parameters and artifacts."""
        specs: dict[str, Any] = component["dag"]["tasks"]
        if component["dag"].get("outputs"):
            raise ValueError(
                "the graph has outputs (such as dsl.Collected), which are not supported here"
            )
        done: dict[str, list[Task]] = {}
        for name in _topological_order(specs):
            spec = specs[name]
            _check_keys(f"task {name}", spec, _TASK_KEYS)
            after = tuple(t.name for before in spec.get("dependentTasks", []) for t in done[before])
            done[name] = [
                replace(task, after=after + task.after)
                for task in self._read_task(name, spec, values, artifacts)
            ]
        return [task for name in done for task in done[name]]

    def _read_task(
        self,
        name: str,
        spec: Mapping[str, Any],
        values: Mapping[str, Any],
        artifacts: Mapping[str, TaskOutput],
    ) -> list[Task]:
        """One task, or all iterations of a loop."""
        component = self.components[spec["componentRef"]["name"]]
        inputs = spec.get("inputs", {})
        own_values = _parameter_values(name, inputs.get("parameters", {}), values)
        own_artifacts = _artifact_sources(name, inputs.get("artifacts", {}), artifacts)
        if "parameterIterator" in spec:
            return self._read_loop(name, spec, component, own_values, own_artifacts)
        if "dag" in component:
            raise ValueError(f"task {name}: a pipeline inside the pipeline is not supported here")
        own_values = _with_defaults(f"task {name}", component, own_values)
        executor = self.executors[component["executorLabel"]]
        if "importer" in executor:
            return [_import_task(name, executor["importer"], own_values, component)]
        if "container" not in executor:
            raise ValueError(f"task {name}: {', '.join(executor)} cannot be run here")
        return [_container_task(name, executor["container"], component, own_values, own_artifacts)]

    def _read_loop(
        self,
        name: str,
        spec: Mapping[str, Any],
        component: Mapping[str, Any],
        values: Mapping[str, Any],
        artifacts: Mapping[str, TaskOutput],
    ) -> list[Task]:
        """Every task of a loop's body, once for each item, with the iterations in a row."""
        iterator = spec["parameterIterator"]
        source = iterator["items"]
        raw = source.get("raw")
        items = read_json(raw, object, where=name) if raw else values[source["inputParameter"]]
        if not isinstance(items, list):
            raise ValueError(f"loop {name} is over {items!r}, which is not a list")
        bodies = [
            self.read_dag(component, {**values, iterator["itemInput"]: item}, artifacts)
            for item in items
        ]
        return [
            _as_iteration(task, number, inside={t.name for t in bodies[number]})
            for same_task in zip(*bodies, strict=True)
            for number, task in enumerate(same_task)
        ]


def _container_task(
    name: str,
    container: Mapping[str, Any],
    component: Mapping[str, Any],
    values: Mapping[str, Any],
    inputs: Mapping[str, TaskOutput],
) -> Task:
    """A container task, with parameters filled into its words."""
    _check_keys(f"the container of task {name}", container, _CONTAINER_KEYS)
    if component.get("outputDefinitions", {}).get("parameters"):
        raise ValueError(f"task {name}: output parameters are not supported here; use artifacts")
    outputs = _output_types(component)
    words = tuple(
        _fill_parameters(name, word, values)
        for word in (*container["command"], *container.get("args", []))
    )
    for word in words:
        for direction, artifact in _ARTIFACT_PLACEHOLDER.findall(word):
            if artifact not in (inputs if direction == "inputs" else outputs):
                raise ValueError(f"task {name}: argument {word} names an artifact it does not have")
    return Task(
        name=_underscored(name),
        step=_underscored(name),
        words=words,
        parameters=values,
        inputs=inputs,
        outputs=outputs,
        env={one["name"]: one["value"] for one in container.get("env", [])},
        image=container["image"],
    )


def _import_task(
    name: str, importer: Mapping[str, Any], values: Mapping[str, Any], component: Mapping[str, Any]
) -> Task:
    """An importer of an existing artifact."""
    source = importer["artifactUri"]
    uri = source["constant"] if "constant" in source else values[source["runtimeParameter"]]
    return Task(
        name=_underscored(name),
        step=_underscored(name),
        outputs=_output_types(component),
        imported=str(uri),
    )


def _output_types(component: Mapping[str, Any]) -> dict[str, str]:
    artifacts = component.get("outputDefinitions", {}).get("artifacts", {})
    return {name: one["artifactType"]["schemaTitle"] for name, one in artifacts.items()}


def _as_iteration(task: Task, number: int, *, inside: set[str]) -> Task:
    """A task of a loop's body as iteration `number`; it depends on tasks of the same iteration."""

    def iteration_name(name: str) -> str:
        return f"{name}-{number}" if name in inside else name

    return replace(
        task,
        name=iteration_name(task.name),
        after=tuple(map(iteration_name, task.after)),
        inputs={
            key: TaskOutput(iteration_name(made.task), made.artifact)
            for key, made in task.inputs.items()
        },
    )


def _parameter_values(
    name: str, specs: Mapping[str, Any], outside: Mapping[str, Any]
) -> dict[str, Any]:
    """The values of a task's input parameters that the pipeline sets."""
    values: dict[str, Any] = {}
    for key, spec in specs.items():
        if "componentInputParameter" in spec:
            values[key] = outside[spec["componentInputParameter"]]
        elif "runtimeValue" in spec and "constant" in spec["runtimeValue"]:
            values[key] = spec["runtimeValue"]["constant"]
        else:
            raise ValueError(
                f"task {name}: parameter {key} comes from {', '.join(spec)}, which cannot be read "
                "here; steps pass artifacts to each other, not parameters"
            )
    # A constant may contain parameters of the same task: this is how an f-string compiles.
    return {
        key: _fill_parameters(name, value, values) if isinstance(value, str) else value
        for key, value in values.items()
    }


def _artifact_sources(
    name: str, specs: Mapping[str, Any], outside: Mapping[str, TaskOutput]
) -> dict[str, TaskOutput]:
    """The sources of a task's input artifacts; optional ones may be absent."""
    found = {}
    for key, spec in specs.items():
        if "taskOutputArtifact" in spec:
            made = spec["taskOutputArtifact"]
            found[key] = TaskOutput(_underscored(made["producerTask"]), made["outputArtifactKey"])
        elif "componentInputArtifact" in spec:
            if spec["componentInputArtifact"] in outside:
                found[key] = outside[spec["componentInputArtifact"]]
        else:
            raise ValueError(f"task {name}: artifact {key} comes from {', '.join(spec)}")
    return found


def _with_defaults(
    who: str, component: Mapping[str, Any], values: Mapping[str, Any]
) -> dict[str, Any]:
    """`values` with the defaults of absent parameters, and whole numbers as int."""
    complete = dict(values)
    for name, spec in component.get("inputDefinitions", {}).get("parameters", {}).items():
        if name not in complete:
            if "defaultValue" in spec:
                complete[name] = spec["defaultValue"]
            elif spec.get("isOptional"):
                complete[name] = None
            else:
                raise ValueError(f"{who} needs a value for its parameter {name}")
        if spec["parameterType"] == "NUMBER_INTEGER" and complete[name] is not None:
            complete[name] = int(complete[name])  # the IR keeps every number as a float
    return complete


def _fill_parameters(name: str, word: str, values: Mapping[str, Any]) -> str:
    """A word with its parameters filled in, in the form of KFP's launcher."""

    def replacement(match: re.Match[str]) -> str:
        placeholder = match[0]
        if placeholder == "{{$}}" or _ARTIFACT_PLACEHOLDER.fullmatch(placeholder):
            return placeholder
        parameter = _PARAMETER_PLACEHOLDER.fullmatch(placeholder)
        if not parameter or parameter[1] not in values:
            raise ValueError(f"task {name}: {placeholder} cannot be filled in here")
        found = values[parameter[1]]
        return found if isinstance(found, str) else json.dumps(found)

    return PLACEHOLDER.sub(replacement, word)


def _topological_order(specs: Mapping[str, Any]) -> Iterable[str]:
    """Task names in an order in which each follows its dependencies."""
    done: dict[str, None] = {}
    while len(done) < len(specs):
        ready = [
            name
            for name, spec in specs.items()
            if name not in done and all(one in done for one in spec.get("dependentTasks", []))
        ]
        if not ready:
            raise ValueError(f"tasks wait for each other: {', '.join(set(specs) - set(done))}")
        done |= dict.fromkeys(ready)
    return done


def _check_keys(what: str, spec: Mapping[str, Any], known: set[str]) -> None:
    if others := sorted(set(spec) - known):
        raise ValueError(f"{what} has {', '.join(others)}, which cannot be run here")


def _underscored(task: str) -> str:
    """Task names have dashes in the IR; steps and folders have underscores."""
    return task.replace("-", "_")
