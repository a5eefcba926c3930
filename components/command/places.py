"""Default places for textures and checkpoints: on Kubeflow in the pipeline root, by hand none.

KFP does not pass a task its pipeline root, but the outputs lie below it:
ROOT/PIPELINE/RUN/TASK/ID/NAME, where RUN and ID are UUIDs (older backends have no ID). The folders
below are the same for all workers, all attempts and all runs. Each finds its files in them by its
own fingerprint.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from components.storage.places import BUCKET_SCHEMES, check_no_user_information, is_remote
from components.storage.sources import (
    PLACE_PARAMETERS,
    STORE_PARAMETERS,
    keeps_nothing,
    read_places,
)

# The default folders in the pipeline root, by the parameter that names another place.
ROOT_FOLDERS = {
    "destination": "san-textures",
    "checkpoint": "san-checkpoints",
    "feature_parts": "san-features",
}
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
# An uploaded pipeline is pipeline/NAME or, with several users, namespace/WHOSE/pipeline/NAME.
_PIPELINE = r"(?:(?:namespace/[^/]+/)?pipeline/)?[^/]+"
_OUTPUT_URI = re.compile(
    rf"(\w+://[^/]+(?:/.+?)?)/{_PIPELINE}/({_UUID})/([^/]+)(?:/{_UUID})?/[^/]+"
)
_ASK_FOR_PLACES = (
    "give both destination=URI and checkpoint=URI (or checkpoint=none), at"
    f" {' or '.join(f'{one}://' for one in BUCKET_SCHEMES)}; where several workers embed,"
    " feature_parts=URI too"
)


class TaskPlace(NamedTuple):
    """The place of a task on Kubeflow.

    Attributes:
        root: URI of the pipeline root.
        run: the id of the run.
        task: its name in the pipeline.
    """

    root: str
    run: str
    task: str


def settle_places(
    values: Mapping[str, Any], executor_input: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The values of a step's parameters, with places filled in and checked.

    Without a pipeline root, an empty checkpoint means the same as "none": no checkpoints. The same
    holds for feature_parts.

    Args:
        values: values by parameter.
        executor_input: KFP's description of the task, or None for a run by hand.

    Raises:
        ValueError: a place contains credentials, or a required place is not given.
    """
    for name in PLACE_PARAMETERS:
        check_no_user_information(str(values.get(name) or ""), what=name)
    for place in read_places(values):
        check_no_user_information(place.uri, what=place.name)
    settled = dict(values)
    for name in filter(values.__contains__, STORE_PARAMETERS):
        if keeps_nothing(name, values[name]):
            settled[name] = ""
        elif not values[name] and (root := pipeline_root(executor_input or {})):
            settled[name] = f"{root}/{ROOT_FOLDERS[name]}"
    if settled.get("destination") == "":
        raise ValueError(
            "destination is needed, a folder or URI such as s3://BUCKET/PREFIX; only on Kubeflow"
            " it has a default, in the pipeline root"
        )
    return settled


def pipeline_root(executor_input: Mapping[str, Any]) -> str | None:
    """The pipeline root of a task whose outputs are in a bucket; None if it is a local folder.

    Raises:
        ValueError: steps cannot use its storage, or the outputs do not reveal it.
    """
    uri = next((one for one in _output_uris(executor_input) if _is_elsewhere(one)), "")
    if not uri:
        return None
    check_root(uri)
    found = _read_output_uri(uri)
    if found is None:
        raise ValueError(
            f"the pipeline root is unknown, as {uri} is not below one; {_ASK_FOR_PLACES}"
        )
    return found.root


def task_place(executor_input: Mapping[str, Any]) -> TaskPlace:
    """The place of a task whose outputs are in a bucket.

    Raises:
        ValueError: the outputs are elsewhere, or their URIs do not reveal the run.
    """
    uri = next(_output_uris(executor_input), "")
    found = _read_output_uri(uri)
    if found is None or not is_remote(uri):
        schemes = " or ".join(f"{one}://" for one in BUCKET_SCHEMES)
        raise ValueError(
            f"several nodes need Kubeflow Pipelines and a pipeline root at {schemes}; the output"
            f" of this task is at {uri or 'no URI'}"
        )
    return found


def _read_output_uri(uri: str) -> TaskPlace | None:
    found = _OUTPUT_URI.fullmatch(uri)
    return None if found is None or "?" in uri else TaskPlace(*found.groups())


def check_root(uri: str) -> None:
    """Refuse a pipeline root in storage that steps cannot use.

    Raises:
        ValueError: steps cannot use it; the message asks for other places.
    """
    if not is_remote(uri):
        raise ValueError(
            f"the pipeline root is at {uri.partition('://')[0]}://, where steps cannot store files;"
            f" {_ASK_FOR_PLACES}"
        )


def _output_uris(executor_input: Mapping[str, Any]) -> Iterator[str]:
    artifacts = executor_input.get("outputs", {}).get("artifacts") or {}
    for name in sorted(artifacts):
        yield from (str(one["uri"]) for one in artifacts[name]["artifacts"])


def _is_elsewhere(uri: str) -> bool:
    """Whether a URI is not a local folder."""
    return "://" in uri and not uri.startswith("file://")
