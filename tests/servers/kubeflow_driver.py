"""What the backend's own programs do with a compiled pipeline before a container starts.

A twin of two pieces of KFP and Argo, written from what they do (no server runs in the tests):

- the driver resolves the parameters of every task and fills them into its command line. That of
  2.17.0 does so before it adds a component's defaults, so a parameter that a task leaves out is an
  error there (kubeflow/pipelines#12598); 2.14 to 2.16 and 2.17.1 add the defaults first.
- Argo merges the driver's patch of a pod into the pod by Kubernetes' strategic merge, in which
  entries of `env` with the same name become one entry.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# `{{$.inputs.parameters['x']}}`, among the words of a container.
PARAMETER = re.compile(r"\{\{\$\.inputs\.parameters\['([^']+)'\]\}\}")


class DriverError(Exception):
    """The driver gives up."""


def resolve(
    document: Mapping[str, Any], arguments: Mapping[str, Any], *, is_strict: bool
) -> dict[str, list[str]]:
    """The words of every container of a compiled pipeline, by the path of its task.

    Loops are unrolled; artifacts stay placeholders.

    Args:
        document: the compiled pipeline
        arguments: what a person gives; the API server adds the pipeline's own defaults
        is_strict: whether the driver is that of 2.17.0

    Raises:
        DriverError: a parameter cannot be resolved.
    """
    values = _with_defaults(document["root"], arguments)
    for name in _declared(document["root"]):
        if name not in values:
            raise DriverError(f"the pipeline's parameter {name} has no value")
    return dict(_dag(document, document["root"], values, path="", is_strict=is_strict))


def _dag(
    document: Mapping[str, Any],
    component: Mapping[str, Any],
    values: Mapping[str, Any],
    *,
    path: str,
    is_strict: bool,
) -> Iterator[tuple[str, list[str]]]:
    """Every container below one graph, with its words."""
    for name, task in component["dag"]["tasks"].items():
        own = _inputs(f"{path}{name}", task, values)
        for number, item in enumerate(_items(task, own)):
            where = f"{path}{name}" if item is None else f"{path}{name}[{number}]"
            inner = document["components"][task["componentRef"]["name"]]
            passed = own if item is None else own | item
            if "dag" in inner:
                yield from _dag(document, inner, passed, path=f"{where}/", is_strict=is_strict)
                continue
            executor = document["deploymentSpec"]["executors"][inner["executorLabel"]]
            if "container" in executor:
                known = passed if is_strict else _with_defaults(inner, passed)
                yield where, [_filled(where, word, known) for word in words(executor)]


def _items(task: Mapping[str, Any], values: Mapping[str, Any]) -> list[dict[str, Any] | None]:
    """What each iteration of a loop gets beside the loop's own parameters; [None] for no loop."""
    if "parameterIterator" not in task:
        return [None]
    iterator = task["parameterIterator"]
    source = iterator["items"]
    items = json.loads(source["raw"]) if "raw" in source else values[source["inputParameter"]]
    return [{iterator["itemInput"]: item} for item in items]


def _inputs(where: str, task: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that a task is given."""
    found = {}
    for name, source in task.get("inputs", {}).get("parameters", {}).items():
        if "runtimeValue" in source:
            found[name] = source["runtimeValue"]["constant"]
        elif source.get("componentInputParameter") in values:
            found[name] = values[source["componentInputParameter"]]
        else:
            raise DriverError(f"{where}: parameter {name} comes from {source}, which is not there")
    return found


def words(executor: Mapping[str, Any]) -> list[str]:
    """Command and arguments of an executor."""
    return [*executor["container"]["command"], *executor["container"].get("args", [])]


def _filled(where: str, word: str, values: Mapping[str, Any]) -> str:
    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise DriverError(f'{where}: parameter "{match[1]}" not found in executor input')
        found = values[match[1]]
        if isinstance(found, float) and found.is_integer():
            found = int(found)  # Go writes every whole number without a point
        return found if isinstance(found, str) else json.dumps(found)

    return PARAMETER.sub(value, word)


def _declared(component: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = component.get("inputDefinitions", {}).get("parameters", {})
    return found


def _with_defaults(component: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    declared = _declared(component).items()
    defaults = {name: one["defaultValue"] for name, one in declared if "defaultValue" in one}
    return {**defaults, **values}


def pod_environment(
    container: Mapping[str, Any], platform: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The entries of `env` in the driver's patch of a pod: those of the pipeline, then secrets'."""
    entries = [dict(one) for one in container.get("env", [])]
    for secret in platform.get("secretAsEnv", []):
        for one in secret["keyToEnv"]:
            reference = {"name": secret["secretName"], "key": one["secretKey"]}
            if secret.get("optional"):
                reference["optional"] = True
            entries.append({"name": one["envVar"], "valueFrom": {"secretKeyRef": reference}})
    return entries


def merge_environment(
    pod: Sequence[Mapping[str, Any]], patch: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Kubernetes' strategic merge of two lists whose merge key is `name`: fields are united."""
    merged: list[dict[str, Any]] = [dict(one) for one in pod]
    for entry in patch:
        same = next((one for one in merged if one["name"] == entry["name"]), None)
        if same is None:
            merged.append(dict(entry))
        else:
            same.update(entry)
    return merged
