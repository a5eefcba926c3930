"""Places of data and artifacts: paths and URIs, and the stores behind them.

`open_storage` takes a folder or a file:///, s3:// or minio:// URI. `folder` and `object_store` are
the two kinds of stores; the latter is imported only for a bucket.
"""

import os
import re
from pathlib import Path

from components.process.messages import SIGNATURE
from components.storage.folder import LocalStorage
from components.storage.outputs import path_from_uri
from components.storage.retry import Backoff
from components.storage.store import Storage

BUCKET_SCHEMES = ("s3", "minio")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def open_storage(uri: str, *folders: str, patience: Backoff | None = None) -> Storage:
    """The storage that a URI names, or a folder under it.

    Args:
        uri: a folder, file:///folder, s3://bucket/prefix or minio://bucket/prefix.
        folders: names to be appended.
        patience: how long a bucket's server may be unreachable; None for retry.LONG_BACKOFF.

    Raises:
        ValueError: the URI is empty, of another kind, contains credentials, or names an invalid
            bucket; or the environment names an invalid server.
        PermissionError: it names a bucket, and there are no credentials.
    """
    check_no_user_information(uri)
    if is_remote(uri):
        from components.storage.object_store import ObjectStorage

        return ObjectStorage.open(uri, *folders, patience=patience)
    return LocalStorage(local_path(uri).joinpath(*folders))


def is_remote(uri: str) -> bool:
    """Whether a URI names a bucket, not a place on this machine."""
    return uri.partition("://")[0] in BUCKET_SCHEMES and "://" in uri


def written_path(uri: str, *, option: str, kind: str) -> Path:
    """The local path in an option that names an output.

    Args:
        uri: a path or a file:// URI.
        option: its name in a message, such as --output.
        kind: file or folder.

    Raises:
        ValueError: it is empty, or a URI of another kind.
    """
    if is_remote(uri):
        raise ValueError(f"{option} {uri}: name a local {kind}")
    return local_path(uri)


def path_or_uri(text: str) -> Path | str:
    """The place of an artifact: a path for a path or file:// URI; the URI itself for a bucket.

    Raises:
        ValueError: it is empty, a URI of another kind, or contains credentials.
    """
    check_no_user_information(text)
    return text if is_remote(text) else local_path(text)


def local_path(uri: str) -> Path:
    """The folder that a file:// URI or a plain path names.

    Raises:
        ValueError: it is empty or a URI of another kind.
    """
    if not uri:
        raise ValueError("a place is needed, such as /data/textures or s3://bucket/textures")
    check_no_user_information(uri)
    scheme, found, rest = uri.partition("://")
    if found and scheme == "file" and rest.removeprefix("localhost").startswith("/"):
        return path_from_uri(f"file://{rest.removeprefix('localhost')}")
    if found or uri.startswith("file:"):
        raise ValueError(f"{uri!r} is neither a folder nor a file:///, s3:// or minio:// URI")
    return Path(uri)


def real_path(path: Path | str) -> Path:
    """A path with its links resolved; links in a circle are left."""
    return Path(os.path.realpath(path))  # Path.resolve raises on a circle


def check_no_user_information(text: str, *, what: str = "a place") -> None:
    """Refuse URIs with a user or key before their host or bucket, without repeating them.

    Args:
        text: a path or URI of any kind, or words with URIs among them.
        what: its name in the message.

    Raises:
        ValueError: a URI contains credentials, a bucket's URI names a host, or a URL is presigned.
    """
    for found in _SCHEME.finditer(text):
        if SIGNATURE.search(text, found.end()):
            raise ValueError(
                f"{what}: presigned URLs are not supported; give s3://BUCKET/KEY, and credentials"
                " in the environment (AWS_ACCESS_KEY_ID, ...)"
            )
        before = re.split(r"[\s,\"']", text[: found.start()])[-1]
        authority = re.split(r"[/?#\s,\"']", text[found.end() :], maxsplit=1)[0]
        authority = re.sub(r"\[[0-9a-fA-F:.]*\]", "", authority)
        is_bucket = found[1] in BUCKET_SCHEMES
        # A secret key may contain slashes; then the part before the first does not end in a port.
        is_port = re.search(r":(?!\d*$)", authority) is None and not is_bucket
        if "@" in before + authority or (":" in authority and not is_port):
            held = "host before its bucket" if is_bucket else "password"
            raise ValueError(
                f"{what}: a URI must not contain a user, key or {held}; give credentials in the"
                " environment (AWS_ACCESS_KEY_ID, ...), on Kubeflow with --secret"
            )
