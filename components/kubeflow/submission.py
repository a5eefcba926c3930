"""The options of `submit`: where to submit and what to run there, with their checks."""

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

# URIs that KFP's importer reads: a bucket and a key, without a query, credentials or empty parts.
_IMPORT_SCHEMES = ("s3", "minio", "gs", "oci")
_IMPORT_URI = rf"({'|'.join(_IMPORT_SCHEMES)})://[A-Za-z0-9][\w.-]*(/(?!\.\.?(/|$))[^/?#\s]+)+/?"
# The pipeline root of a stock installation.
_STOCK_ROOT = "minio://mlpipeline"
DEFAULT_EXPERIMENT = "san"
_LONGEST_DEADLINE = 2**31 - 1  # Kubernetes counts seconds in 32 bits


def add_submission_options(
    parser: argparse.ArgumentParser, *, graphs: Iterable[str], presets: Iterable[str]
) -> None:
    """Add the options that say where to submit and what to run there to a command line."""

    def add(flag: str, text: str, **options: Any) -> None:
        parser.add_argument(flag, help=text, **options)

    many = {"action": "append", "default": []}
    add_server_options(parser)
    add("--graph", "default: the graph of the preset, or full", choices=list(graphs))
    add("--preset", f"parameters to start from: {', '.join(presets)}")
    add("--param", "set one parameter; may be repeated", **many)
    add("--of", "repeat an earlier run (its id, or the link to its page)", metavar="RUN")
    add(
        "--from",
        "with --of: run this step and all after it again, without the cache",
        dest="start",
        metavar="STEP",
    )
    add("--only", "run only this step, without the cache; --param sets its settings")
    add(
        "--input",
        "with --only: URI of an input artifact; may be repeated",
        **many,
        metavar="NAME=URI",
    )
    add("--experiment", f"default: the experiment of the run --of, or {DEFAULT_EXPERIMENT}")
    add("--name", "name of the run or schedule (default: the graph or step, and the time)")
    add("--pipeline-root", "URI for artifacts (default: the server's choice)", default="")
    add(
        "--service-account",
        "service account of the pods (default: the server's choice)",
        default="",
    )
    add("--wait", "follow the run to its end; exit status 1 if it fails", action="store_true")
    add_compiled_options(parser)
    add_schedule_options(parser)


def add_server_options(parser: argparse.ArgumentParser, *, is_host_needed: bool = True) -> None:
    """Add the options for the server and its user to a command line."""
    parser.add_argument(
        "--host",
        help="URL of Kubeflow Pipelines, such as http://localhost:8080",
        required=is_host_needed,
    )
    parser.add_argument(
        "--namespace", help="your profile, if the installation is for several users", default=""
    )
    parser.add_argument(
        "--token-file", help="file with a bearer token; it is read for every request", type=Path
    )


def add_compiled_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that change a compiled pipeline to a command line."""
    parser.add_argument(
        "--no-cache", help="run every step without the server's cache", action="store_true"
    )
    parser.add_argument(
        "--deadline",
        help="maximum time of the whole run, such as 2d (needs KFP 2.17)",
        metavar="TIME",
    )


def server_from_options(options: argparse.Namespace) -> Server:
    """The server of a command line.

    Raises:
        ValueError: the host is no URL or contains credentials, or the token file has no token.
    """
    return Server(options.host, options.namespace, options.token_file)


def deadline_from_options(options: argparse.Namespace) -> int | None:
    """The maximum seconds of the whole run, if a command line sets it.

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
    """Refuse options that cannot be combined.

    Raises:
        ValueError: there are such options.
    """
    if options.input and not options.only:
        raise ValueError("--input needs --only")
    if options.start and not options.of:
        raise ValueError("--from needs --of RUN, the run whose earlier steps are reused")
    if options.start and options.only:
        raise ValueError("--from and --only cannot be combined; give one of them")
    for given in ("graph", "preset"):
        if options.only and getattr(options, given):
            raise ValueError(f"--{given} is for a whole graph; with --only give --param NAME=VALUE")
        if options.of and getattr(options, given):
            raise ValueError(f"--{given} has no effect with --of, which uses that of the run")
    if options.schedule is not None:
        for given in ("only", "of", "wait", "no_cache", "deadline"):
            if getattr(options, given):
                raise ValueError(
                    f"--{given.replace('_', '-')} has no effect with --schedule, which runs an "
                    "uploaded version unchanged"
                )


def check_no_user_info(options: argparse.Namespace) -> None:
    """Refuse credentials in URLs, which everybody could read in the run.

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
    """Refuse a pipeline root in which steps cannot store files, if one of them is to use it.

    Args:
        root: its URI; empty is the server's choice.
        places: the values of the parameters for textures and checkpoints.

    Raises:
        ValueError: steps cannot store files there.
    """
    if root and not all(places.values()):
        check_root(root)


def warn_of_inputs(inputs: Mapping[str, str], pipeline_root: str) -> None:
    """Warn of inputs that KFP's launcher may be unable to open.

    pipeline_root: that of the run; empty if the server chooses it.
    """
    root = _bucket(pipeline_root or _STOCK_ROOT)
    for name, uri in inputs.items():
        if uri.startswith("oci://"):
            why = "KFP mounts oci:// only for its own models, and the steps cannot read it"
        elif _bucket(uri) != root:
            known = "" if pipeline_root else " (of a stock installation)"
            why = (
                f"it is not in {root}, the pipeline root{known}; KFP opens another scheme or bucket"
                " only with credentials in the pod's environment, with a region, and not by path "
                "style; give the URI exactly as the user interface shows it"
            )
        else:
            continue
        sys.stderr.write(f"pipeline.py: warning: --input {name}={uri}: {why}\n")


def _bucket(uri: str) -> str:
    """Scheme and bucket of a URI."""
    return "/".join(uri.split("/")[:3])


def check_places_outlast_pod(places: Mapping[str, str], volumes: Collection[str]) -> None:
    """Refuse folders that are lost when a pod ends.

    Raises:
        ValueError: a place is neither a URI nor in the folder of a volume.
    """
    for name, value in places.items():
        inside = any(path_from_uri(value).is_relative_to(volume) for volume in volumes)
        if value and not is_remote(value) and not inside:
            raise ValueError(
                f"{name}={value} is a folder that is lost when its pod ends; give a URI such as "
                "s3://BUCKET/PREFIX, or a folder in a --volume"
            )
