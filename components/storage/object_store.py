"""Buckets behind the storage protocol: AWS S3, SeaweedFS, MinIO, Ceph.

Objects carry the sha256 of their content, and `get` compares it: a body that arrives whole but
wrong raises nothing in the client, and an ETag is no content hash after a multipart upload or with
server-side encryption.
"""

import base64
import hashlib
import io
import logging
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeVar
from xml.etree import ElementTree

import urllib3
from minio import Minio
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError

from components.storage import retry
from components.storage.s3_client import (
    CredentialsError,
    client_of,
    is_aws,
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
from san_core.images.shard import sha256

T = TypeVar("T")
log = logging.getLogger(__name__)

# One request up to here, so that a killed upload leaves no parts behind; a shard fits.
PART_SIZE = 128 << 20
DAMAGED_TRIES = 3  # that an object is read or put if it arrives damaged
DIGEST_METADATA = "sha256"
NOT_AN_S3_SERVER = "does not answer as an S3 server does"
MISSING_OBJECT_CODES = ("NoSuchKey", "NoSuchObject", "NoSuchVersion")
TRANSIENT_CODES = (
    *("SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "ServerBusy"),
    # What was sent arrived damaged.
    *("BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody", "OperationAborted"),
)
UNREACHABLE_ERRORS = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
# Error codes of S3, and what a person should look at.
REFUSALS = {
    "SignatureDoesNotMatch": "refuses the secret key; is {secret_key} right?",
    "InvalidAccessKeyId": "does not know the access key; is {access_key} right?",
    "ExpiredToken": "says that the credentials have expired",
    "InvalidToken": "refuses the session token; is AWS_SESSION_TOKEN right?",
    "RequestTimeTooSkewed": "says that the clock of this machine is wrong",
    "AccessDenied": "denies access; are {access_key} and {secret_key} right, and do they allow it?",
}
# Error codes of a bucket that lies in another region than the one that was signed for.
WRONG_REGION_CODES = (
    *("AuthorizationHeaderMalformed", "PermanentRedirect"),
    *("IllegalLocationConstraintException", "InvalidRegion"),
)


class ObjectStorage:
    """Objects in a bucket, under a prefix."""

    def __init__(
        self, scheme: str, bucket: str, prefix: str, *, client: Minio, endpoint: Endpoint
    ) -> None:
        self.scheme = scheme
        self.bucket = bucket
        self.prefix = prefix
        self._client = client
        self._endpoint = endpoint
        self._has_answered = False

    @classmethod
    def open(cls, uri: str, *folders: str) -> Self:
        """The store of an s3://bucket/prefix or minio://bucket/prefix URI; it is not asked yet.

        Raises:
            ValueError: the bucket's name, the prefix or the endpoint is impossible.
            PermissionError: there are no credentials.
            ConnectionError: minio:// leads to Kubeflow's own store, and there is none.
        """
        scheme, _, rest = uri.partition("://")
        bucket, _, prefix = rest.partition("/")
        is_name = re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", bucket)
        if not is_name or ".." in bucket or re.fullmatch(r"[0-9.]+", bucket):
            raise ValueError(
                f"{uri}: {bucket!r} is not a bucket's name: 3 to 63 lower-case letters, digits,"
                " dots and hyphens"
            )
        path = "/".join(part for part in (prefix.strip("/"), *folders) if part)
        if path:
            check_object_name(path)
        endpoint = endpoint_of(scheme)
        client = client_of(endpoint, f"{scheme}://{bucket}")
        return cls(scheme, bucket, path, client=client, endpoint=endpoint)

    @property
    def uri(self) -> str:
        """The absolute URI of the root."""
        return "/".join(filter(None, (f"{self.scheme}://{self.bucket}", self.prefix)))

    def put_bytes(self, name: str, data: bytes) -> None:
        """Keep an object, replacing one of that name; all or nothing."""
        key = self._key(name)
        self._call_with_retries(
            name, lambda: self._put_object(key, io.BytesIO(data), len(data), sha256(data))
        )

    def put_file(self, name: str, path: Path, *, digest: str = "") -> None:
        """Keep the content of a file, and see that the store has all of it."""
        key, size = self._key(name), path.stat().st_size
        with path.open("rb") as file:
            known = digest or hashlib.file_digest(file, "sha256").hexdigest()

            def put() -> None:
                file.seek(0)
                self._put_object(key, file, size, known)
                kept = self._client.stat_object(self.bucket, key).size
                if kept != size:
                    raise DamagedError(f"{kept} bytes were kept where {size} were sent")

            self._call_with_retries(name, _retry_if_damaged(put))

    def _put_object(self, key: str, content: BinaryIO | io.BytesIO, size: int, digest: str) -> None:
        told: dict[str, Any] = {DIGEST_METADATA: digest}
        if (
            size <= PART_SIZE
        ):  # then the server compares it too, and refuses what was damaged on the way
            told["x-amz-checksum-sha256"] = base64.b64encode(bytes.fromhex(digest)).decode()
        self._client.put_object(self.bucket, key, content, size, metadata=told, part_size=PART_SIZE)

    def get(self, name: str, *, most: int = MOST_IN_MEMORY) -> bytes:
        """The bytes of an object; OSError if there are more than `most`."""

        def get() -> bytes:
            with self._open_object(self._key(name)) as response:
                size = int(response.headers.get("content-length", 0))
                check_fits_memory(f"{self.uri}/{name}", size, most)
                data: bytes = response.read()
                digest = response.headers.get(f"x-amz-meta-{DIGEST_METADATA}")
            if digest and sha256(data) != digest:
                raise DamagedError("its sha256 is not the one it was stored with")
            return data

        return self._call_with_retries(name, _retry_if_damaged(get))

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """Exactly `length` bytes of an object from `offset`; OSError if it has fewer."""

        def get() -> bytes:
            with self._open_object(self._key(name), offset=offset, length=length) as response:
                data: bytes = response.read()
            if len(data) != length:
                raise DamagedError(
                    f"{len(data)} bytes came where {length} from {offset} were asked"
                )
            return data

        return self._call_with_retries(name, _retry_if_damaged(get)) if length else b""

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
                name, lambda: self._client.stat_object(self.bucket, self._key(name))
            )
        except FileNotFoundError:
            if not self._has_answered:
                self.list(
                    name
                )  # this answer does not tell whether the bucket is missing; that does
            return None
        return Stat(name, found.size or 0, found.etag or "")

    def list(self, folder: str = "") -> list[Stat]:
        """The objects in a folder and in its folders, in the order of their names."""
        parts = [part for part in (self.prefix, folder) if part]
        start = "/".join([*parts, ""]) if parts else ""
        above = f"{self.prefix}/" if self.prefix else ""

        def list_keys() -> list[Any]:
            return list(self._client.list_objects(self.bucket, prefix=start, recursive=True))

        found = self._call_with_retries(folder, list_keys)
        return [
            Stat(o.object_name.removeprefix(above), o.size or 0, o.etag or "")
            for o in found
            if not o.object_name.endswith("/")
        ]

    def is_empty(self) -> bool:
        """Whether there is no object, by one request."""
        start = f"{self.prefix}/" if self.prefix else ""

        def first_key() -> Any:
            found = self._client.list_objects(self.bucket, prefix=start, recursive=True)
            return next(iter(found), None)

        return self._call_with_retries("", first_key) is None

    def delete(self, name: str) -> None:
        """Remove an object; nothing happens if there is none."""
        key = self._key(name)
        self._call_with_retries(name, lambda: self._client.remove_object(self.bucket, key))

    def _key(self, name: str) -> str:
        check_object_name(name)
        return f"{self.prefix}/{name}" if self.prefix else name

    def _call_with_retries(self, name: str, action: Callable[[], T]) -> T:
        """Do it, again if what went wrong may pass; in the end an OSError of one line.

        A store that has never done anything is given up sooner: its address is more likely wrong.
        """
        where = f"{self.uri}/{name}" if name else self.uri
        patience = retry.LONG_BACKOFF if self._has_answered else retry.SHORT_BACKOFF
        try:
            done = retry.call_with_retries(
                action, is_transient=self._is_transient, what=where, backoff=patience
            )
        except (ElementTree.ParseError, UnicodeDecodeError) as error:
            raise OSError(f"{where}: {self._server()} {NOT_AN_S3_SERVER}") from error
        except (MinioException, urllib3.exceptions.HTTPError) as error:
            raise self._readable_error(error, where) from error
        except DamagedError as error:
            raise DamagedError(f"{where} arrives damaged every time: {error}") from error
        except CredentialsError as error:
            raise PermissionError(f"{where}: {error}") from None  # what is below may quote keys
        self._has_answered = True
        return done

    def _is_transient(self, error: Exception) -> bool:
        """Whether trying again may help."""
        if isinstance(error, CredentialsError):
            return self._has_answered  # a role's lender that does not answer just now
        if isinstance(error, urllib3.exceptions.SSLError):
            return not _is_certificate_refusal(error)
        if isinstance(error, S3Error):
            # A bucket that was there is not gone: its server is starting.
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

    def _readable_error(self, error: Exception, where: str) -> OSError:
        """What a person should read instead of the client's error."""
        server = self._endpoint.url
        if isinstance(error, S3Error):
            return self._readable_answer(error, where)
        if isinstance(error, MinioException):
            return OSError(f"{where}: {self._server()} {NOT_AN_S3_SERVER}: {str(error)[:200]}")
        if _is_certificate_refusal(error):
            return ConnectionError(
                f"{where}: the certificate of {server} is not trusted"
                f" ({retry.root_cause(error)}); SSL_CERT_FILE names those that are"
            )
        is_unreachable = isinstance(error, UNREACHABLE_ERRORS)
        return ConnectionError(
            f"{where}: {self._server()}"
            f" {'cannot be reached' if is_unreachable else 'breaks off'}: {retry.root_cause(error)}"
        )

    def _server(self) -> str:
        """The server, where that was said, and the proxy that leads to it, if one does."""
        proxy = proxy_of_endpoint(self._endpoint)
        through = f", through the proxy of {proxy.variable}" if proxy else ""
        return f"{self._endpoint.url} (from {self._endpoint.origin}{through})"

    def _readable_answer(self, error: S3Error, where: str) -> OSError:
        """What a person should read instead of a server's error."""
        server = self._endpoint.url
        if error.code in MISSING_OBJECT_CODES:
            return FileNotFoundError(f"{where}: there is no such object at {server}")
        if error.code == "NoSuchBucket":
            return FileNotFoundError(
                f"{self.scheme}://{self.bucket}: there is no such bucket at {server};"
                " make it, or correct the name"
            )
        if expected := self._expected_region(error):
            return OSError(f"{where}: {server} {expected}")
        if error.code in REFUSALS or error.response.status in (401, 403):
            words = REFUSALS.get(error.code or "", REFUSALS["AccessDenied"])
            words = words.format_map(self._endpoint.variables._asdict())
            if is_aws(server) and not region_of(self._endpoint):
                words += " (without AWS_REGION they must allow s3:GetBucketLocation too)"
            return PermissionError(f"{where}: {server} {words}")
        return OSError(f"{where}: {server} answers {error.code}: {error.message}")

    def _expected_region(self, error: S3Error) -> str:
        """What is wrong with the region; empty if the server does not complain of it."""
        told = error.response.headers.get("x-amz-bucket-region", "")
        used = region_of(self._endpoint)
        message = error.message or ""
        # That code is also of a key that is none.
        is_other = error.code == "AuthorizationHeaderMalformed" and "region" not in message
        is_named = error.code in WRONG_REGION_CODES and not is_other
        if not is_named and (not told or not used or told == used):  # it is told with any refusal
            return ""
        found = re.search(r"expecting '([\w-]+)'", message)
        expected = told or (found[1] if found else "another one")
        names = self._endpoint.variables.regions
        said = f"{first_set(names)} is {used}" if used else f"{names[0]} is not set"
        return f"expects the region {expected}, and {said}"


def _retry_if_damaged(action: Callable[[], T]) -> Callable[[], T]:
    """An action that is done again at once, a few times, if what arrives is damaged."""

    def action_with_retries() -> T:
        for left in reversed(range(DAMAGED_TRIES)):
            try:
                return action()
            except DamagedError as error:
                if not left:
                    raise
                log.warning("%s; trying again", error)
        raise AssertionError  # the last time returned or raised

    return action_with_retries


def _is_transient_status(status: int) -> bool:
    return status >= 500 or status == 429


def _is_certificate_refusal(error: BaseException | None) -> bool:
    """Whether a certificate was refused; anything else that goes wrong in TLS may pass."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__ or next(iter(_errors_in_args(error)), None)
    return False


def _errors_in_args(error: BaseException) -> list[BaseException]:
    return [one for one in error.args if isinstance(one, BaseException)]
