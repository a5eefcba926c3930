"""Where a bucket's server is, who may ask it, and a minio client that asks.

The endpoint is AWS_ENDPOINT_URL_S3, S3_ENDPOINT_URL or AWS_ENDPOINT_URL, else for minio:// the
service that Kubeflow runs, else AWS. Credentials are looked for in AWS_ACCESS_KEY_ID and
AWS_SECRET_ACCESS_KEY, in MINIO_ACCESS_KEY and MINIO_SECRET_KEY, in ~/.aws, and where the platform
lends a role: IRSA on EKS (AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE), ECS, EC2. The region is
AWS_REGION or AWS_DEFAULT_REGION. No message ever holds a key.
"""

import configparser
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

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

ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "S3_ENDPOINT_URL", "AWS_ENDPOINT_URL")
KUBEFLOW_ENDPOINT = "http://minio-service.kubeflow:9000"
AWS_ENDPOINT = "https://s3.amazonaws.com"
CONNECTIONS = 32
SECONDS_TO_CONNECT = 5
SECONDS_OF_SILENCE = 60
SEND_CHUNK = 1 << 20
# Where the platform says that it lends a role.
ROLE_VARIABLES = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


class Endpoint(NamedTuple):
    """Where a store answers, and where that was said."""

    url: str
    origin: str


class CredentialsError(Exception):
    """None of the usual places gives credentials, or what they give cannot be used."""


def endpoint_of(scheme: str, environment: Mapping[str, str] = os.environ) -> Endpoint:
    """Where the stores of a URI scheme answer.

    Raises:
        ValueError: the environment names something that is no http:// or https:// URL of a host.
    """
    for name in ENDPOINT_VARIABLES:
        if url := environment.get(name):
            parts = urlsplit(url)
            is_plain = not parts.username and not parts.password and parts.path in ("", "/")
            if parts.scheme not in ("http", "https") or not parts.hostname or not is_plain:
                raise ValueError(f"{name} must be http://HOST:PORT or https://HOST:PORT")
            return Endpoint(f"{parts.scheme}://{parts.netloc}", name)
    if scheme == "s3":
        return Endpoint(AWS_ENDPOINT, "the scheme s3")
    host = environment.get("MINIO_SERVICE_SERVICE_HOST")
    if host:
        port = environment.get("MINIO_SERVICE_SERVICE_PORT", "9000")
        return Endpoint(f"http://{host}:{port}", "MINIO_SERVICE_SERVICE_HOST")
    return Endpoint(KUBEFLOW_ENDPOINT, "the scheme minio")


def client_of(endpoint: Endpoint, bucket: str) -> Minio:
    """A client with credentials; retrying is left to us, so that there is one place that does."""
    parts = urlsplit(endpoint.url)
    lent = is_aws(endpoint.url) or any(os.environ.get(name) for name in ROLE_VARIABLES)
    provider = _CredentialsProvider(try_roles=lent)
    try:
        provider.retrieve()
    except CredentialsError as error:
        raise PermissionError(f"{bucket}: {error}") from None  # what is below may quote keys
    return Minio(
        parts.netloc,
        secure=parts.scheme == "https",
        # Without a region the client asks for every bucket's.
        region=region() or (None if is_aws(endpoint.url) else "us-east-1"),
        credentials=provider,
        http_client=_pool_manager(),
    )


def region() -> str | None:
    """The region that the environment names."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")


def is_aws(url: str) -> bool:
    """Whether an endpoint is one of AWS."""
    return (urlsplit(url).hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))


def _pool_manager() -> urllib3.PoolManager:
    pool = urllib3.PoolManager(
        maxsize=CONNECTIONS,
        block=True,
        timeout=urllib3.Timeout(connect=SECONDS_TO_CONNECT, read=SECONDS_OF_SILENCE),
        retries=False,
        cert_reqs="CERT_REQUIRED",
        ca_certs=os.environ.get("SSL_CERT_FILE") or certifi.where(),
    )
    pool.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
    return pool


class _ChunkedSend:
    """Sends a body piece by piece.

    urllib3 sends it in one call, which must then end within the time to connect: 128 MB in five
    seconds. Now each piece has the time that an answer has.
    """

    def send(self, data: Any) -> None:
        if not isinstance(data, bytes) or len(data) <= SEND_CHUNK:
            super().send(data)  # type: ignore[misc]
            return
        self.sock.settimeout(SECONDS_OF_SILENCE)  # type: ignore[attr-defined]
        for start in range(0, len(data), SEND_CHUNK):
            super().send(memoryview(data)[start : start + SEND_CHUNK])  # type: ignore[misc]


class _HTTPConnection(_ChunkedSend, urllib3.connection.HTTPConnection):
    pass


class _HTTPSConnection(_ChunkedSend, urllib3.connection.HTTPSConnection):
    pass


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


class _CredentialsProvider(Provider):
    """The first of the usual places that has credentials, asked anew when they have expired.

    Args:
        try_roles: whether to ask who lends roles: elsewhere its address leads nowhere, and slowly.

    Raises:
        CredentialsError: by `retrieve`, if none has any; the message holds none of them.
    """

    def __init__(self, *, try_roles: bool) -> None:
        places: list[Provider] = [EnvAWSProvider(), EnvMinioProvider(), AWSConfigProvider()]
        if try_roles:
            sts = os.environ.get("AWS_ENDPOINT_URL_STS")
            places.append(IamAwsProvider(custom_endpoint=sts, http_client=_pool_manager()))
        self._chain = ChainedProvider(places)

    def retrieve(self) -> Credentials:
        try:
            found = self._chain.retrieve()
        except configparser.Error as error:
            raise CredentialsError("the file of AWS credentials is malformed") from error
        except (ValueError, OSError, urllib3.exceptions.HTTPError) as error:
            role = next((name for name in ROLE_VARIABLES if os.environ.get(name)), "")
            raise CredentialsError(
                f"the role that {role} speaks of is not lent"
                if role
                else "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ) from error
        for what in ("access_key", "secret_key", "session_token"):
            if re.search(r"\s", getattr(found, what) or ""):
                raise CredentialsError(f"the {what.replace('_', ' ')} holds white space")
        return found
