"""Buckets behind the storage protocol: AWS S3, SeaweedFS, MinIO, Ceph.

Objects carry the sha256 of their content, and `get` compares it: the client does not notice a
complete but wrong body, and an ETag is no content hash after a multipart upload or with server-side
encryption.
"""

import base64
import hashlib
import io
import logging
import mmap
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar
from xml.etree import ElementTree

import urllib3
from minio import Minio
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError

from components.storage import retry
from components.storage.outputs import add_path_to_errors
from components.storage.retry import Backoff
from components.storage.s3_client import (
    CredentialsError,
    StrangeAnswerError,
    client_of,
    is_aws,
    limited_requests,
    proxy_of_endpoint,
    region_of,
)
from components.storage.s3_servers import Endpoint, endpoint_of, first_set
from components.storage.store import (
    MOST_IN_MEMORY,
    DamagedError,
    Stat,
    check_fits_memory,
    check_object_name,
)
from san_core.disk import reserve_space
from san_core.images.shard import sha256

T = TypeVar("T")
log = logging.getLogger(__name__)

# The maximum size of one request to S3. Such an upload is atomic, and leaves nothing if it is
# killed; parts of a multipart upload would stay, unseen and paid for.
MAX_SINGLE_PUT = 5 << 30
PART_SIZE = 512 << 20  # of longer objects
READ_CHUNK = 1 << 20
FETCH_CHUNK = 8 << 20  # bytes of a long object per request
DAMAGED_TRIES = 3  # attempts to read an object that arrives damaged
DIGEST_HEADER = "x-amz-meta-sha256"
OTHER_DIGEST = "its sha256 is not the one it was stored with"
NOT_AN_S3_SERVER = "does not answer like an S3 server"
MISSING_OBJECT_CODES = ("NoSuchKey", "NoSuchObject", "NoSuchVersion")
TRANSIENT_CODES = (
    *("SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "ServerBusy"),
    # The upload arrived damaged.
    *("BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody", "OperationAborted"),
)
UNREACHABLE_ERRORS = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
# Messages of a refusal that say no more than its code.
BARE_REFUSALS = ("", "Access Denied", "Access Denied.", "Access denied", "Forbidden")
# Error codes of S3, and what to check.
REFUSALS = {
    "SignatureDoesNotMatch": "refuses the secret key; is {secret_key} right?",
    "InvalidAccessKeyId": "does not know the access key; is {access_key} right?",
    "ExpiredToken": "says that the credentials have expired",
    "InvalidToken": "refuses the session token; is AWS_SESSION_TOKEN right?",
    "RequestTimeTooSkewed": "says that the clock of this machine is wrong",
    "AccessDenied": (
        "denies access; are {access_key} and {secret_key} right, and do they allow {needs}?"
    ),
}
# The actions of S3 that credentials must allow, by what is done.
READ = "s3:GetObject (and s3:ListBucket, without which a missing object is denied too)"
PUT, LIST, DELETE = "s3:PutObject", "s3:ListBucket", "s3:DeleteObject"
# Error codes of a bucket in another region than that of the signature.
WRONG_REGION_CODES = (
    *("AuthorizationHeaderMalformed", "PermanentRedirect"),
    *("IllegalLocationConstraintException", "InvalidRegion"),
)


class _NotKeptError(DamagedError):
    """The store does not hold what was written."""


class ObjectStorage:
    """Objects in a bucket, under a prefix."""

    def __init__(
        self,
        scheme: str,
        bucket: str,
        prefix: str,
        *,
        client: Minio,
        endpoint: Endpoint,
        patience: Backoff | None = None,
    ) -> None:
        self.scheme = scheme
        self.bucket = bucket
        self.prefix = prefix
        self._client = client
        self._endpoint = endpoint
        self._patience = patience
        self._has_answered = False

    @classmethod
    def open(cls, uri: str, *folders: str, patience: Backoff | None = None) -> Self:
        """The store of an s3://bucket/prefix or minio://bucket/prefix URI; sends no request yet.

        patience: how long its server may be unreachable; None for retry.LONG_BACKOFF.

        Raises:
            ValueError: the bucket's name, the prefix or the endpoint is invalid.
            PermissionError: there are no credentials.
            ConnectionError: minio:// means Kubeflow's own store, and there is none.
        """
        scheme, _, rest = uri.partition("://")
        bucket, _, prefix = rest.partition("/")
        is_name = re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", bucket)
        if not is_name or ".." in bucket or re.fullmatch(r"[0-9.]+", bucket):
            raise ValueError(
                f"{uri}: {bucket!r} is not a bucket's name, which has 3 to 63 lower-case letters,"
                " digits, dots and hyphens"
            )
        path = "/".join(part for part in (prefix.strip("/"), *folders) if part)
        if path:
            check_object_name(path)
        endpoint = endpoint_of(scheme)
        client = client_of(endpoint, f"{scheme}://{bucket}")
        return cls(scheme, bucket, path, client=client, endpoint=endpoint, patience=patience)

    @property
    def uri(self) -> str:
        """The absolute URI of the root."""
        return "/".join(filter(None, (f"{self.scheme}://{self.bucket}", self.prefix)))

    def put_bytes(self, name: str, data: bytes) -> None:
        """Write an object atomically, replacing one of that name."""
        self._put_object(name, memoryview(data), sha256(data))

    def put_file(self, name: str, path: Path, *, digest: str = "") -> None:
        """Write the content of a file, without reading it into memory as a whole."""
        with path.open("rb") as file:
            known = digest or hashlib.file_digest(file, "sha256").hexdigest()
            if path.stat().st_size == 0:  # an empty file cannot be mapped
                self._put_object(name, memoryview(b""), known)
                return
            # Not closed: the traceback of an error may still hold a piece of it.
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._put_object(name, memoryview(content), known)

    def _put_object(self, name: str, content: memoryview, digest: str) -> None:
        """Write an object of this sha256, and check that the store holds it."""
        key = self._key(name)

        def put() -> None:
            if len(content) <= MAX_SINGLE_PUT:
                self._put_at_once(key, content, digest)
            else:
                self._put_in_parts(key, content, digest)
            self._check_kept(key, len(content), digest)

        self._call_with_retries(name, f"{PUT} and s3:GetObject", put)

    def _put_at_once(self, key: str, content: memoryview, digest: str) -> None:
        """Put an object in one request; minio's own call would copy it into memory."""
        told = {
            "Content-Type": "application/octet-stream",
            DIGEST_HEADER: digest,
            # The server compares it too, and refuses an upload that was damaged on the way.
            "x-amz-checksum-sha256": base64.b64encode(bytes.fromhex(digest)).decode(),
        }
        self._client._put_object(self.bucket, key, content or b"", told)  # type: ignore[arg-type]

    def _put_in_parts(self, key: str, content: memoryview, digest: str) -> None:
        self._client.put_object(
            self.bucket,
            key,
            _Pieces(content),  # type: ignore[arg-type]
            len(content),
            metadata={DIGEST_HEADER: digest},
            part_size=PART_SIZE,
            num_parallel_uploads=1,  # each is held in memory
        )

    def _check_kept(self, key: str, size: int, digest: str) -> None:
        """Check the object under a key, as S3 also answers 200 if it could not join the parts.

        Raises:
            _NotKeptError: it is not the one that was written.
        """
        try:
            kept = self._client.stat_object(self.bucket, key)
        except S3Error as error:
            if error.code not in MISSING_OBJECT_CODES:
                raise
            raise _NotKeptError("it does not exist after the upload") from error
        if kept.size != size:
            raise _NotKeptError(f"{kept.size} bytes are stored, but {size} were sent")
        if (kept.metadata or {}).get(DIGEST_HEADER) != digest:
            raise _NotKeptError("the stored content is not the one that was sent")

    def get(self, name: str, *, most: int = MOST_IN_MEMORY) -> bytes:
        """The bytes of an object; OSError if there are more than `most`."""

        def get() -> bytes:
            with self._open_object(self._key(name)) as response:
                told = response.headers.get("content-length", "")
                where = f"{self.uri}/{name}"
                check_fits_memory(where, int(told) if told.isdecimal() else 0, most)
                data = _read_body(response, most)
                check_fits_memory(where, len(data), most)
                digest = response.headers.get(DIGEST_HEADER)
            if digest and sha256(data) != digest:
                raise DamagedError(OTHER_DIGEST)
            return data

        return self._read_until_whole(name, get)

    def get_file(self, name: str, path: Path) -> None:
        """Copy an object to a file, piece by piece, and compare its sha256."""
        self._read_until_whole(name, lambda: self._fetch_pieces(name, path))

    def _fetch_pieces(self, name: str, path: Path) -> None:
        stated = self._client.stat_object(self.bucket, self._key(name))
        size, digest = stated.size or 0, hashlib.sha256()
        with add_path_to_errors(path), path.open("wb") as file:
            reserve_space(file, size, path=path)
            for start in range(0, size, FETCH_CHUNK):
                piece = self._read_range(name, start, min(FETCH_CHUNK, size - start))
                file.write(piece)
                digest.update(piece)
                del piece  # before the next one is read
        told = (stated.metadata or {}).get(DIGEST_HEADER)
        if told and digest.hexdigest() != told:
            raise DamagedError(OTHER_DIGEST)
        if size > FETCH_CHUNK and self.stat(name) != _stat_of(name, stated):
            raise DamagedError("it was replaced during the download")

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """Exactly `length` bytes of an object from `offset`; OSError if it has fewer."""
        if not length:
            return b""
        return self._read_until_whole(name, lambda: self._read_range(name, offset, length))

    def _read_range(self, name: str, offset: int, length: int) -> bytes:
        """As `get_range`, but without a second attempt at damaged data.

        Raises:
            DamagedError: fewer bytes arrived.
        """

        def get() -> bytes:
            with self._open_object(self._key(name), offset=offset, length=length) as response:
                data = _read_body(response, length)
            if len(data) != length:
                raise DamagedError(
                    f"{len(data)} bytes arrived, but {length} from {offset} were requested"
                )
            return data

        return self._call_with_retries(name, READ, get)

    def _read_until_whole(self, name: str, read: Callable[[], T]) -> T:
        """Read an object; if it arrives damaged, read it again at once, a few times.

        Raises:
            DamagedError: it was damaged every time.
        """
        for left in reversed(range(DAMAGED_TRIES)):
            try:
                return self._call_with_retries(name, READ, read)
            except DamagedError as error:
                if not left:
                    raise _damaged_every_time(self._where(name), error) from error
                log.warning("%s: %s; trying again", self._where(name), error)
        raise AssertionError  # the last time returned or raised

    @contextmanager
    def _open_object(self, key: str, offset: int = 0, length: int = 0) -> Iterator[Any]:
        response = self._client.get_object(self.bucket, key, offset=offset, length=length)
        try:
            yield response
        finally:
            response.close()
            response.release_conn()

    def stat(self, name: str) -> Stat | None:
        """Name, size and version of an object; None if there is none."""
        try:
            found = self._call_with_retries(
                name, READ, lambda: self._client.stat_object(self.bucket, self._key(name))
            )
        except FileNotFoundError:
            if not self._has_answered:
                self.is_empty()  # raises if the bucket, not only the object, is missing
            return None
        return _stat_of(name, found)

    def list(self, folder: str = "") -> list[Stat]:
        """The objects in a folder and its subfolders, sorted by name."""
        parts = [part for part in (self.prefix, folder) if part]
        start = "/".join([*parts, ""]) if parts else ""
        above = f"{self.prefix}/" if self.prefix else ""

        def list_keys() -> list[Any]:
            return list(self._listed(start))

        found = self._call_with_retries(folder, LIST, list_keys)
        return [
            _stat_of(o.object_name.removeprefix(above), o)
            for o in found
            if not o.object_name.endswith("/")
        ]

    def is_empty(self) -> bool:
        """Whether `list` finds no object; a console's marker of a folder does not count."""
        start = f"{self.prefix}/" if self.prefix else ""

        def has_object() -> bool:
            return any(not found.object_name.endswith("/") for found in self._listed(start))

        return not self._call_with_retries("", LIST, has_object)

    def _listed(self, start: str) -> Iterator[Any]:
        """The objects whose keys have a prefix, as the client lists them.

        Raises:
            StrangeAnswerError: the answer is not a listing, or has no end.
        """
        with limited_requests() as budget:
            try:
                for found in self._client.list_objects(self.bucket, prefix=start, recursive=True):
                    budget.take_object(found.object_name or "")
                    yield found
            except (ValueError, TypeError, AttributeError) as error:  # XML of another kind
                raise StrangeAnswerError(str(error)) from error

    def delete(self, name: str) -> None:
        """Remove an object; nothing happens if there is none."""
        key = self._key(name)
        self._call_with_retries(name, DELETE, lambda: self._client.remove_object(self.bucket, key))

    def sweep(self, folder: str = "") -> int:  # noqa: ARG002
        """Do nothing: an upload in one request leaves nothing behind."""
        return 0

    def _key(self, name: str) -> str:
        check_object_name(name)
        return f"{self.prefix}/{name}" if self.prefix else name

    def _call_with_retries(self, name: str, needs: str, action: Callable[[], T]) -> T:
        """Call `action`, with retries after transient errors; raise an OSError of one line at last.

        needs: the actions of S3 that credentials must allow.
        """
        where = self._where(name)
        try:
            done = retry.call_with_retries(
                action,
                is_transient=self._is_transient,
                what=where,
                backoff=self._patience or retry.LONG_BACKOFF,
            )
        except (ElementTree.ParseError, UnicodeDecodeError) as error:
            raise OSError(f"{where}: {self._server()} {NOT_AN_S3_SERVER}") from error
        except StrangeAnswerError as error:
            raise OSError(f"{where}: {self._server()} {NOT_AN_S3_SERVER}: {error}") from error
        except (MinioException, urllib3.exceptions.HTTPError) as error:
            raise self._readable_error(error, where, needs) from error
        except _NotKeptError as error:
            raise _damaged_every_time(where, error) from error
        except CredentialsError as error:
            raise PermissionError(f"{where}: {error}") from None  # the cause may quote keys
        self._has_answered = True
        return done

    def _where(self, name: str) -> str:
        return f"{self.uri}/{name}" if name else self.uri

    def _is_transient(self, error: Exception) -> bool:
        """Whether another attempt may succeed."""
        if isinstance(error, _NotKeptError):
            return True
        if isinstance(error, CredentialsError):
            return self._has_answered  # a service for role credentials that does not answer now
        if isinstance(error, urllib3.exceptions.SSLError):
            return not _is_certificate_refusal(error)
        if isinstance(error, S3Error):
            # A bucket that existed is not deleted: its server is starting.
            is_starting = error.code == "NoSuchBucket" and self._has_answered
            return (
                error.code in TRANSIENT_CODES
                or _is_transient_status(error.response.status)
                or is_starting
            )
        if isinstance(error, InvalidResponseError):
            return _is_transient_status(error._code)
        if isinstance(error, ServerError):
            return _is_transient_status(error.status_code)
        return isinstance(error, urllib3.exceptions.HTTPError)

    def _readable_error(self, error: Exception, where: str, needs: str) -> OSError:
        """The error to show instead of the client's."""
        server = self._endpoint.url
        if isinstance(error, S3Error):
            return self._readable_answer(error, where, needs)
        if isinstance(error, MinioException):
            return OSError(f"{where}: {self._server()} {NOT_AN_S3_SERVER}: {str(error)[:200]}")
        if _is_certificate_refusal(error):
            return ConnectionError(
                f"{where}: the certificate of {server} is not trusted"
                f" ({retry.root_cause(error)}); name trusted certificates in SSL_CERT_FILE"
            )
        is_unreachable = isinstance(error, UNREACHABLE_ERRORS)
        return ConnectionError(
            f"{where}: {self._server()}"
            f" {'cannot be reached' if is_unreachable else 'breaks off'}: {retry.root_cause(error)}"
        )

    def _server(self) -> str:
        """The server, the variable that names it, and its proxy, if there is one."""
        proxy = proxy_of_endpoint(self._endpoint)
        through = f", through the proxy of {proxy.variable}" if proxy else ""
        return f"{self._endpoint.url} (from {self._endpoint.origin}{through})"

    def _readable_answer(self, error: S3Error, where: str, needs: str) -> OSError:
        """The error to show instead of the server's."""
        server = self._endpoint.url
        if error.code in MISSING_OBJECT_CODES:
            return FileNotFoundError(f"{where}: there is no such object at {server}")
        if error.code == "NoSuchBucket":
            return FileNotFoundError(
                f"{self.scheme}://{self.bucket}: there is no such bucket at {server};"
                " create it, or correct the name"
            )
        if expected := self._expected_region(error):
            return OSError(f"{where}: {server} {expected}")
        if error.code in REFUSALS:
            words = REFUSALS[error.code]
            words = words.format(**self._endpoint.variables._asdict(), needs=needs)
            if is_aws(server) and not region_of(self._endpoint):
                words += " (without AWS_REGION they must allow s3:GetBucketLocation too)"
            if error.code == "AccessDenied" and (error.message or "") not in BARE_REFUSALS:
                words += f" It says: {error.message}"  # such as which key of KMS is not allowed
            return PermissionError(f"{where}: {server} {words}")
        kind = PermissionError if error.response.status in (401, 403) else OSError
        return kind(f"{where}: {server} answers {error.code}: {error.message}")

    def _expected_region(self, error: S3Error) -> str:
        """The error about the region, in words; empty if the server reports none."""
        told = error.response.headers.get("x-amz-bucket-region", "")
        used = region_of(self._endpoint)
        message = error.message or ""
        # The same code is also used for an invalid key.
        is_other = error.code == "AuthorizationHeaderMalformed" and "region" not in message
        is_named = error.code in WRONG_REGION_CODES and not is_other
        if not is_named and (not told or not used or told == used):  # any refusal may contain it
            return ""
        found = re.search(r"expecting '([\w-]+)'", message)
        expected = told or (found[1] if found else "another one")
        names = self._endpoint.variables.regions
        said = f"{first_set(names)} is {used}" if used else f"{names[0]} is not set"
        return f"expects the region {expected}, and {said}"


def _stat_of(name: str, found: Any) -> Stat:
    return Stat(name, found.size or 0, found.etag or "")


def _read_body(response: Any, most: int) -> bytes:
    """The whole body of an answer, up to about `most` bytes."""
    body = io.BytesIO()
    while body.tell() <= most and (piece := response.read(READ_CHUNK)):
        body.write(piece)
        retry.note_progress()
    return body.getvalue()


class _Pieces:
    """Bytes as a stream that copies only one piece at a time."""

    def __init__(self, content: memoryview) -> None:
        self._content = content
        self._taken = 0

    def read(self, size: int) -> bytes:
        piece = bytes(self._content[self._taken : self._taken + size])
        self._taken += len(piece)
        return piece


def _damaged_every_time(where: str, error: DamagedError) -> DamagedError:
    return DamagedError(f"{where} arrives damaged every time: {error}")


def _is_transient_status(status: int) -> bool:
    return status >= 500 or status == 429


def _is_certificate_refusal(error: BaseException | None) -> bool:
    """Whether a certificate was refused; other TLS errors may be transient."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__ or next(iter(_errors_in_args(error)), None)
    return False


def _errors_in_args(error: BaseException) -> list[BaseException]:
    return [one for one in error.args if isinstance(one, BaseException)]
