"""The words that say where to submit and what to run there, and their checks."""

import argparse
import re
import sys
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from components.command.places import check_root
from components.kubeflow import quantities
from components.kubeflow.connection import Server
from components.kubeflow.schedule import add_schedule_options
from components.storage.outputs import path_from_uri
from components.storage.places import check_no_user_information, is_remote

# What KFP's importer reads: a bucket and a key, without a query, credentials or empty parts.
_IMPORT_SCHEMES = ("s3", "minio", "gs", "oci")
_IMPORT_URI = rf"({'|'.join(_IMPORT_SCHEMES)})://[A-Za-z0-9][\w.-]*(/(?!\.\.?(/|$))[^/?#\s]+)+/?"
# Where a stock installation keeps artifacts.
_STOCK_ROOT = "minio://mlpipeline"
DEFAULT_EXPERIMENT = "san"
_LONGEST_DEADLINE = 2**31 - 1  # Kubernetes counts seconds in 32 bits


def add_submission_options(
    parser: argparse.ArgumentParser, *, graphs: Iterable[str], presets: Iterable[str]
) -> None:
    """Add what says where to submit and what to run there to a command line."""

    def add(flag: str, text: str, **options: Any) -> None:
        parser.add_argument(flag, help=text, **options)

    many = {"action": "append", "default": []}
    add_server_options(parser)
    add("--graph", "default: that of the preset, or full", choices=list(graphs))
    add("--preset", f"parameters to start from: {', '.join(presets)}")
    add("--param", "set one parameter; may be repeated", **many)
    add("--of", "run again what an earlier run is made of (its id, or the link)", metavar="RUN")
    add("--from", "with --of, run this step and all after it anew", dest="start", metavar="STEP")
    add("--only", "run this step alone, whatever is cached; its settings are the parameters")
    add(
        "--input",
        "with --only, where an input artifact is; may be repeated",
        **many,
        metavar="NAME=URI",
    )
    add("--experiment", f"default: that of --of, or {DEFAULT_EXPERIMENT}")
    add("--name", "of the run or the schedule (default: graph or step, and the time)")
    add("--pipeline-root", "URI under which artifacts are kept", default="")
    add("--service-account", "of the pods (default: the server's choice)", default="")
    add("--wait", "follow the run to its end; exit status 1 if it fails", action="store_true")
    add_compiled_options(parser)
    add_schedule_options(parser)


def add_server_options(parser: argparse.ArgumentParser, *, is_host_needed: bool = True) -> None:
    """Add where the server is, and who asks, to a command line."""
    parser.add_argument(
        "--host",
        help="URL of Kubeflow Pipelines, such as http://localhost:8080",
        required=is_host_needed,
    )
    parser.add_argument(
        "--namespace", help="profile, on an installation for several users", default=""
    )
    parser.add_argument(
        "--token-file", help="file with a bearer token, read for every request", type=Path
    )


def add_compiled_options(parser: argparse.ArgumentParser) -> None:
    """Add what is changed in a compiled pipeline to a command line."""
    parser.add_argument(
        "--no-cache", help="run every step, whatever the server has cached", action="store_true"
    )
    parser.add_argument(
        "--deadline", help="most time of the whole run, such as 2d (KFP 2.17)", metavar="TIME"
    )


def server_from_options(options: argparse.Namespace) -> Server:
    """The server of a command line.

    Raises:
        ValueError: the host is no URL or holds credentials, or the token's file holds none.
    """
    return Server(options.host, options.namespace, options.token_file)


def deadline_from_options(options: argparse.Namespace) -> int | None:
    """Most seconds of the whole run, if a command line says it.

    Raises:
        ValueError: it is not a time, or too long.
    """
    if options.deadline is None:
        return None
    try:
        seconds = quantities.parse_seconds(options.deadline)
    except ValueError as error:
        raise ValueError(f"--deadline {options.deadline}: {error}") from None
    if seconds > _LONGEST_DEADLINE:
        raise ValueError(f"--deadline {options.deadline} is longer than {_LONGEST_DEADLINE} s")
    return seconds


def check_mode_options(options: argparse.Namespace) -> None:
    """Refuse options that mean nothing beside each other.

    Raises:
        ValueError: there are some.
    """
    if options.input and not options.only:
        raise ValueError("--input is for --only")
    if options.start and not options.of:
        raise ValueError("--from is for --of RUN, the run whose earlier steps are taken")
    if options.start and options.only:
        raise ValueError("--from and --only exclude each other: give one of them")
    for given in ("graph", "preset"):
        if options.only and getattr(options, given):
            raise ValueError(f"--{given} is for a whole graph; with --only give --param NAME=VALUE")
        if options.of and getattr(options, given):
            raise ValueError(f"--{given} has no effect with --of, which takes that of the run")
    if options.schedule is not None:
        for given in ("only", "of", "wait", "no_cache", "deadline"):
            if getattr(options, given):
                raise ValueError(
                    f"--{given.replace('_', '-')} has no effect with --schedule, which runs a "
                    "version as it was uploaded"
                )


def check_no_user_info(options: argparse.Namespace) -> None:
    """Refuse credentials in URLs, which would stand in the run for all to read.

    Raises:
        ValueError: there are some; the message does not repeat them.
    """
    for flag in ("--param", "--input", "--env", "--pipeline-root"):
        given = getattr(options, flag.strip("-").replace("-", "_"), [])
        for word in [given] if isinstance(given, str) else given:
            name = word.partition("=")[0]
            what = f"{flag} {name}" if re.fullmatch(r"\w+", name) else flag
            check_no_user_information(word, what=what)


def inputs_from_options(options: argparse.Namespace) -> dict[str, str]:
    """The URI of each input artifact that is given.

    Raises:
        ValueError: a word is not NAME=URI, its URI is not of a bucket and a key in a kind of
            storage that KFP imports from, or an input is given twice.
    """
    found: dict[str, str] = {}
    for word in options.input:
        name, _, uri = word.partition("=")
        if not re.fullmatch(_IMPORT_URI, uri):
            raise ValueError(
                f"--input {word} is not of the form NAME=URI, such as data=s3://BUCKET/KEY; "
                f"URIs may begin with {', '.join(f'{one}://' for one in _IMPORT_SCHEMES)}"
            )
        if name in found:
            raise ValueError(f"--input {name} is given twice: {found[name]} and {uri}")
        found[name] = uri
    return found


def check_pipeline_root(root: str, places: Mapping[str, Any]) -> None:
    """Refuse a pipeline root that is no place to keep things, if a place is to be in it.

    Args:
        root: its URI; empty is the server's choice.
        places: the values of the parameters that name a place to keep things.

    Raises:
        ValueError: steps cannot keep things there.
    """
    if root and not all(places.values()):
        check_root(root)


def warn_of_inputs(inputs: Mapping[str, str], pipeline_root: str) -> None:
    """Say which inputs KFP's launcher may be unable to open.

    pipeline_root: of the run, or empty where the server chooses.
    """
    root = _bucket(pipeline_root or _STOCK_ROOT)
    for name, uri in inputs.items():
        if uri.startswith("oci://"):
            why = "KFP mounts oci:// for models of its own alone, and the steps do not find it"
        elif _bucket(uri) != root:
            known = "" if pipeline_root else " (of a stock installation)"
            why = (
                f"it is not in {root}, the pipeline root{known}; KFP opens another scheme or bucket"
                " with credentials of the pod's environment alone, with a region, and not by path "
                "style; give the URI exactly as the user interface shows it"
            )
        else:
            continue
        sys.stderr.write(f"pipeline.py: warning: --input {name}={uri}: {why}\n")


def _bucket(uri: str) -> str:
    """Scheme and bucket of a URI."""
    return "/".join(uri.split("/")[:3])


def check_places_outlast_pod(places: Mapping[str, str], volumes: Collection[str]) -> None:
    """Refuse folders that a pod loses as it ends.

    Raises:
        ValueError: a place is neither a URI nor in the folder of a volume.
    """
    for name, value in places.items():
        inside = any(path_from_uri(value).is_relative_to(volume) for volume in volumes)
        if value and not is_remote(value) and not inside:
            raise ValueError(
                f"{name}={value} is a folder that ends with its pod; give a URI such as "
                "s3://BUCKET/PREFIX, or a folder in a --volume"
            )
