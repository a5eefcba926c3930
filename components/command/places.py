"""Where a step keeps things if it is not told: on Kubeflow in the pipeline root, else nowhere.

A task is not told its pipeline root, but its outputs lie below it: ROOT/PIPELINE/RUN/TASK/ID/NAME,
where RUN and ID are UUIDs (older backends have no ID). The folders below are the same for all
workers, all tries and all runs, and hold what each finds again by its own fingerprint.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from components.storage.places import BUCKET_SCHEMES, check_no_user_information, is_remote
from components.storage.sources import (
    PLACE_PARAMETERS,
    STORE_PARAMETERS,
    keeps_nothing,
    read_places,
)

# What lies below the pipeline root, by the parameter that names another place.
ROOT_FOLDERS = {"destination": "san-textures", "checkpoint": "san-checkpoints"}
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
# An uploaded pipeline is pipeline/NAME or, with several users, namespace/WHOSE/pipeline/NAME.
_PIPELINE = r"(?:(?:namespace/[^/]+/)?pipeline/)?[^/]+"
_OUTPUT_URI = re.compile(rf"(\w+://[^/]+(?:/.+?)?)/{_PIPELINE}/{_UUID}/[^/]+(?:/{_UUID})?/[^/]+")
_ASK_FOR_PLACES = (
    "give both destination=URI and checkpoint=URI (or checkpoint=none), at"
    f" {' or '.join(f'{one}://' for one in BUCKET_SCHEMES)}"
)


def settle_places(
    values: Mapping[str, Any], executor_input: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The values of a step's parameters, those that name places filled in and checked.

    An empty checkpoint, as "none" does, keeps none where there is no pipeline root.

    Args:
        values: by the names of the parameters.
        executor_input: what KFP knows of the task, or None for a run by hand.

    Raises:
        ValueError: a place holds credentials, or a place is needed and none is given.
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
            "destination is needed, a folder or URI such as s3://BUCKET/PREFIX; a pipeline root"
            " that would do is there on Kubeflow alone"
        )
    return settled


def pipeline_root(executor_input: Mapping[str, Any]) -> str | None:
    """The pipeline root of a task whose outputs lie in a bucket; None for one of this machine.

    Raises:
        ValueError: it is in storage that steps cannot use, or the outputs do not tell it.
    """
    uri = next((one for one in _output_uris(executor_input) if _is_elsewhere(one)), "")
    if not uri:
        return None
    check_root(uri)
    found = _OUTPUT_URI.fullmatch(uri)
    if found is None or "?" in uri:
        raise ValueError(f"{uri} does not tell the pipeline root: {_ASK_FOR_PLACES}")
    return found[1]


def check_root(uri: str) -> None:
    """Refuse a pipeline root in storage that steps cannot use.

    Raises:
        ValueError: it is; the message asks for other places.
    """
    if not is_remote(uri):
        raise ValueError(
            f"the pipeline root is at {uri.partition('://')[0]}://, where steps cannot keep things:"
            f" {_ASK_FOR_PLACES}"
        )


def _output_uris(executor_input: Mapping[str, Any]) -> Iterator[str]:
    artifacts = executor_input.get("outputs", {}).get("artifacts") or {}
    for name in sorted(artifacts):
        yield from (str(one["uri"]) for one in artifacts[name]["artifacts"])


def _is_elsewhere(uri: str) -> bool:
    """Whether a URI is of no folder of this machine."""
    return "://" in uri and not uri.startswith("file://")
