"""A minio client for a server, with its credentials, proxy and trusted certificates.

Credentials in the environment variables of `s3_servers.Variables` come first. For AWS_* the client
also searches ~/.aws, and then the roles that the platform assigns: IRSA on EKS (AWS_ROLE_ARN and
AWS_WEB_IDENTITY_TOKEN_FILE), ECS and EC2. It honours HTTPS_PROXY, HTTP_PROXY and NO_PROXY. No
message contains a key or a password.
"""

import configparser
import http.client
import io
import ipaddress
import os
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urlsplit

import certifi
import urllib3
from minio import Minio
from minio.credentials.credentials import Credentials
from minio.credentials.providers import (
    AWSConfigProvider,
    ChainedProvider,
    EnvAWSProvider,
    EnvMinioProvider,
    IamAwsProvider,
    Provider,
)

from components.process.threads import await_socket
from components.storage import retry
from components.storage.s3_servers import (
    MINIO_VARIABLES,
    SECONDS_TO_CONNECT,
    Endpoint,
    Variables,
    first_set,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer

CONNECTIONS = 32
SECONDS_OF_SILENCE = 60
# After this time a response must have arrived at this rate, in bytes a second.
SECONDS_OF_PATIENCE, SLOWEST = 120.0, 1000
PAGES_WITHOUT_OBJECTS, MOST_OBJECTS = 100, 20_000_000  # in a listing
SEND_CHUNK = 16 << 10  # a writable socket has room for this much, so sending it never blocks
# The platform sets one of these if it assigns a role.
ROLE_VARIABLES = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


class Proxy(NamedTuple):
    """A proxy: URL without credentials, its user and password, and the variable that names it."""

    url: str
    user: str
    variable: str


class CredentialsError(Exception):
    """No credentials were found, or they cannot be used."""


def client_of(endpoint: Endpoint, bucket: str) -> Minio:
    """A client with credentials. It does not retry; `retry` does.

    Raises:
        PermissionError: there are no credentials, or they cannot be used.
        ValueError: the environment names an invalid proxy or certificate file.
    """
    parts = urlsplit(endpoint.url)
    provider = _CredentialsProvider(endpoint)
    try:
        provider.retrieve()
    except CredentialsError as error:
        raise PermissionError(f"{bucket}: {error}") from None  # the causes may quote keys
    return Minio(
        parts.netloc,
        secure=parts.scheme == "https",
        # Without a region the client requests the region of every bucket.
        region=region_of(endpoint) or (None if is_aws(endpoint.url) else "us-east-1"),
        credentials=provider,
        http_client=_pool_manager(endpoint.variables, proxy_of_endpoint(endpoint)),
    )


def region_of(endpoint: Endpoint) -> str | None:
    """The region that the environment names.

    Raises:
        ValueError: it is not a valid name; it contains a line break, for example.
    """
    variable = first_set(endpoint.variables.regions)
    region = os.environ.get(variable)
    if region and not re.fullmatch(r"[A-Za-z0-9_-]+", region):
        raise ValueError(f"{variable} is {region!r}; a region is a word such as eu-central-1")
    return region


def is_aws(url: str) -> bool:
    """Whether an endpoint belongs to AWS."""
    return (urlsplit(url).hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))


def proxy_of_endpoint(endpoint: Endpoint) -> Proxy | None:
    """The proxy for an endpoint; None for an endpoint within the cluster."""
    return None if endpoint.is_in_cluster else proxy_of(endpoint.url)


def proxy_of(url: str, environment: Mapping[str, str] | None = None) -> Proxy | None:
    """The proxy that the environment names for a URL; None for a direct connection.

    Connections to this machine are direct. NO_PROXY lists host names, which include their
    subdomains, addresses, networks such as 10.0.0.0/8, or `*`. As with curl, a variable in lower
    case takes precedence.

    Raises:
        ValueError: the variable does not contain the http:// or https:// URL of a proxy.
    """
    known = os.environ if environment is None else environment
    parts = urlsplit(url)
    upper = f"{parts.scheme}_proxy".upper()
    variable = first_set((upper.lower(), upper), known)
    avoided = known.get(first_set(("no_proxy", "NO_PROXY"), known), "")
    if not variable or _is_avoided(parts.hostname or "", avoided):
        return None
    named = known[variable]
    proxy = urlsplit(named if "://" in named else f"http://{named}")
    user, _, host = proxy.netloc.rpartition("@")
    is_address = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:]+)(:\d+)?", host) is not None
    if proxy.scheme not in ("http", "https") or not is_address:
        raise ValueError(f"{variable} must be http://HOST:PORT or https://HOST:PORT")
    return Proxy(f"{proxy.scheme}://{host}", unquote(user), variable)


def _is_avoided(host: str, avoided: str) -> bool:
    """Whether NO_PROXY excludes a host from the proxy."""
    names = [item.strip().removeprefix("*.").lstrip(".") for item in avoided.split(",")]
    if "*" in names or host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return any(f".{host}".endswith(f".{name.partition(':')[0]}") for name in names if name)
    return address.is_loopback or any(_holds(network, address) for network in names)


def _holds(network: str, address: "ipaddress.IPv4Address | ipaddress.IPv6Address") -> bool:
    """Whether an item of NO_PROXY is this address or a network that contains it."""
    try:
        return address in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def _pool_manager(variables: Variables, proxy: Proxy | None) -> urllib3.PoolManager:
    options: dict[str, Any] = {
        "maxsize": CONNECTIONS,
        "block": True,
        "timeout": urllib3.Timeout(connect=SECONDS_TO_CONNECT, read=SECONDS_OF_SILENCE),
        "retries": False,
        "cert_reqs": "CERT_REQUIRED",
        "ca_certs": _trusted_certificates(variables),
    }
    pool = urllib3.PoolManager(**options)
    if proxy:
        told = urllib3.make_headers(proxy_basic_auth=proxy.user) if proxy.user else None
        pool = urllib3.ProxyManager(proxy.url, proxy_headers=told, **options)
    pool.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
    return pool


def _trusted_certificates(variables: Variables) -> str:
    """The file of trusted certificates.

    Raises:
        ValueError: the environment names a file without certificates.
    """
    name = first_set(variables.certificates)
    if not name:
        return certifi.where()
    path = os.environ[name]
    try:
        ssl.create_default_context(cafile=path)
    except OSError as error:
        raise ValueError(f"{name}={path} is no readable file of certificates (PEM)") from error
    return path


class StrangeAnswerError(Exception):
    """The server does not behave like S3: it lists nothing, or its listing does not end."""


class ListingBudget:
    """The number of requests that a listing may make: 100, and one more for every object."""

    def __init__(self) -> None:
        self._left = PAGES_WITHOUT_OBJECTS
        self._names: set[str] = set()

    def take_object(self, name: str) -> None:
        """Count a listed object.

        Raises:
            StrangeAnswerError: it was listed before, or the listing exceeds MOST_OBJECTS.
        """
        if name in self._names or len(self._names) >= MOST_OBJECTS:
            raise StrangeAnswerError(f"a listing without end, of {len(self._names):,} objects")
        self._names.add(name)
        self._left += 1

    def take_request(self) -> None:
        """Count a request.

        Raises:
            StrangeAnswerError: too many requests listed no objects.
        """
        self._left -= 1
        if self._left < 0:
            raise StrangeAnswerError("a listing without end, of empty pages")


_BUDGET: ContextVar[ListingBudget | None] = ContextVar("_BUDGET", default=None)


@contextmanager
def limited_requests() -> Iterator[ListingBudget]:
    """Count requests within the block, so that every listing ends."""
    budget = ListingBudget()
    token = _BUDGET.set(budget)
    try:
        yield budget
    finally:
        _BUDGET.reset(token)


class _WatchedFile(io.RawIOBase):
    """The response of a server, with a minimum transfer rate.

    Raises:
        TimeoutError: by `readinto`, if the response is slower.
        PoolLeftError: by `readinto`, if the thread pool that reads it has been left.
    """

    def __init__(self, raw: io.RawIOBase, connected: object) -> None:
        self._raw, self._socket = raw, connected
        self._taken, self._waited = 0, 0.0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "Buffer", /) -> int | None:
        started = time.monotonic()
        await_socket(self._socket)
        count: int | None = self._raw.readinto(buffer)
        self._waited += time.monotonic() - started
        self._taken += count or 0
        if self._waited > SECONDS_OF_PATIENCE and self._taken < self._waited * SLOWEST:
            raise TimeoutError(f"only {self._taken} bytes came in {self._waited:.0f} s")
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _WatchedResponse(http.client.HTTPResponse):
    def __init__(self, connected: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(connected, *arguments, **options)
        self.fp = io.BufferedReader(_WatchedFile(self.fp.detach(), connected))


class _CountedRequests:
    def urlopen(self, *arguments: Any, **options: Any) -> Any:
        if (budget := _BUDGET.get()) is not None:
            budget.take_request()
        return super().urlopen(*arguments, **options)  # type: ignore[misc]


class _ChunkedSend:
    """Sends a body piece by piece.

    urllib3 sends a body in one call, which must end within the connection timeout: 128 MB in five
    seconds. Here each piece has the read timeout.
    """

    def send(self, data: Any) -> None:
        if not isinstance(data, bytes | memoryview) or len(data) <= SEND_CHUNK:
            super().send(data)  # type: ignore[misc]
            return
        self.sock.settimeout(SECONDS_OF_SILENCE)  # type: ignore[attr-defined]
        for start in range(0, len(data), SEND_CHUNK):
            await_socket(self.sock, to_write=True)  # type: ignore[attr-defined]
            super().send(memoryview(data)[start : start + SEND_CHUNK])  # type: ignore[misc]
            retry.note_progress()


class _HTTPConnection(_ChunkedSend, urllib3.connection.HTTPConnection):
    response_class = _WatchedResponse


class _HTTPSConnection(_ChunkedSend, urllib3.connection.HTTPSConnection):
    response_class = _WatchedResponse


class _HTTPPool(_CountedRequests, urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(_CountedRequests, urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


class _CredentialsProvider(Provider):
    """Credentials from the first source that has some, renewed when they expire.

    Raises:
        CredentialsError: by `retrieve`, if no source has any. The message contains no secret.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._variables = endpoint.variables
        places: list[Provider] = [EnvMinioProvider()]
        if self._variables != MINIO_VARIABLES:
            places = [EnvAWSProvider(), *_config_files(), *_role_lenders(endpoint)]
        self._chain = ChainedProvider(places)

    def retrieve(self) -> Credentials:
        try:
            found = self._chain.retrieve()
        except configparser.Error as error:
            raise CredentialsError("the file of AWS credentials is malformed") from error
        except (ValueError, OSError, urllib3.exceptions.HTTPError) as error:
            raise CredentialsError(self._what_is_missing()) from error
        for what in ("access_key", "secret_key", "session_token"):
            if re.search(r"[^\x21-\x7e]", getattr(found, what) or ""):
                told = what.replace("_", " ")
                raise CredentialsError(f"the {told} holds white space or other than ASCII letters")
        return found

    def _what_is_missing(self) -> str:
        """The message for missing credentials: what to set."""
        asked = f"{self._variables.access_key} and {self._variables.secret_key}"
        if self._variables == MINIO_VARIABLES:
            return f"no credentials; set {asked}: AWS_* do not count where a MINIO_* is set"
        role = first_set(ROLE_VARIABLES)
        return (
            f"the role that {role} names could not be assumed"
            if role
            else f"no credentials; set {asked}"
        )


def _config_files() -> list[Provider]:
    """A provider for ~/.aws; empty if the user, as in some containers, has no home."""
    try:
        return [AWSConfigProvider()]
    except (RuntimeError, KeyError, TypeError):
        return []


def _role_lenders(endpoint: Endpoint) -> list[Provider]:
    """Providers of roles, only on AWS or where a variable names a role.

    Elsewhere the address of the metadata service does not answer, and each request would wait for
    its timeout. The token service of IRSA is on the internet. The metadata services of ECS and EC2
    are local and need no proxy.
    """
    if not is_aws(endpoint.url) and not first_set(ROLE_VARIABLES):
        return []
    service = os.environ.get("AWS_ENDPOINT_URL_STS")
    is_far = bool(os.environ.get("AWS_WEB_IDENTITY_TOKEN_FILE"))
    proxy = proxy_of(service or "https://sts.amazonaws.com") if is_far else None
    pool = _pool_manager(endpoint.variables, proxy)
    return [IamAwsProvider(custom_endpoint=service, http_client=pool)]
