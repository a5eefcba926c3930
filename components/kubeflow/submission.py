"""The command that submits a compiled pipeline to Kubeflow: its options, checks and course."""

import argparse
import re
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from components.command.places import check_root
from components.kubeflow.api import KubeflowClient, Server
from components.storage.outputs import path_from_uri
from components.storage.places import check_no_user_information, is_remote

# What KFP's importer reads: a bucket and a key, without a query, credentials or empty parts.
_IMPORT_SCHEMES = ("s3", "minio", "gs", "oci")
_IMPORT_URI = rf"({'|'.join(_IMPORT_SCHEMES)})://[A-Za-z0-9][\w.-]*(/(?!\.\.?(/|$))[^/?#\s]+)+/?"


def add_submission_options(
    parser: argparse.ArgumentParser, *, graphs: Iterable[str], presets: Iterable[str]
) -> None:
    """Add what says where to submit and what to run there to a command line."""

    def add(flag: str, text: str, **options: Any) -> None:
        parser.add_argument(flag, help=text, **options)

    add("--host", "URL of Kubeflow Pipelines, such as http://localhost:8080", required=True)
    add("--namespace", "profile, on an installation for several users", default="")
    add("--token-file", "file with a bearer token, read for every request", type=Path)
    add("--graph", "default: that of the preset, or full", choices=list(graphs))
    add("--preset", f"parameters to start from: {', '.join(presets)}")
    add("--param", "set one parameter; may be repeated", action="append", default=[])
    add("--only", "run this step alone, whatever is cached; its settings are the parameters")
    add(
        "--input",
        "with --only, where an input artifact is; may be repeated",
        action="append",
        default=[],
        metavar="NAME=URI",
    )
    add("--experiment", "default: %(default)s", default="san")
    add("--name", "of the run (default: graph or step, and the time)")
    add("--pipeline-root", "URI under which artifacts are kept", default="")
    add("--service-account", "of the pods (default: the server's choice)", default="")
    add("--wait", "follow the run to its end; exit status 1 if it fails", action="store_true")


def server_from_options(options: argparse.Namespace) -> Server:
    """The server of a command line.

    Raises:
        ValueError: the host is no URL, or the token's file holds none.
    """
    return Server(options.host, options.namespace, options.token_file)


def check_only_option(options: argparse.Namespace) -> None:
    """Refuse options that mean nothing with one step, or with a whole graph.

    Raises:
        ValueError: there is one.
    """
    if options.input and not options.only:
        raise ValueError("--input is for --only")
    for given in ("graph", "preset"):
        if options.only and getattr(options, given):
            raise ValueError(f"--{given} is for a whole graph; with --only give --param NAME=VALUE")


def inputs_from_options(options: argparse.Namespace) -> dict[str, str]:
    """The URI of each input artifact that is given.

    Raises:
        ValueError: a word is not NAME=URI, its URI is not of a bucket and a key in a kind of
            storage that KFP imports from, or an input is given twice.
    """
    found: dict[str, str] = {}
    for word in options.input:
        name, _, uri = word.partition("=")
        check_no_user_information(uri or name, what="--input")
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
        ValueError: it holds credentials, or steps cannot keep things there.
    """
    check_no_user_information(root, what="--pipeline-root")
    if root and not all(places.values()):
        check_root(root)


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


def submit(
    server: Server,
    documents: list[dict[str, Any]],
    arguments: Mapping[str, Any],
    options: argparse.Namespace,
) -> None:
    """Submit a compiled pipeline as a command line says, and follow the run if it asks to.

    Raises:
        SubmissionError: the server cannot be reached or refuses, or the run fails.
    """
    kind = documents[0]["pipelineInfo"]["name"]
    client = KubeflowClient(server)
    run = client.start_run(
        documents,
        arguments,
        experiment=options.experiment,
        name=options.name or f"{kind} {time.strftime('%Y-%m-%d %H:%M:%S')}",
        pipeline_root=options.pipeline_root,
        service_account=options.service_account,
    )
    if options.wait:
        client.follow_run(run)
