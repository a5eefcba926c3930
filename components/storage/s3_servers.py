"""The server of each URI scheme, and the environment variables that configure it.

AWS_* configure `s3://`. MINIO_ENDPOINT, MINIO_ACCESS_KEY and MINIO_SECRET_KEY configure `minio://`,
so that a pod can reach both. If none of these three is set, AWS_* configure `minio://` too. Without
an endpoint, `s3://` is AWS, and `minio://` is the object store of Kubeflow Pipelines.
"""

import functools
import logging
import os
import socket
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from components.storage import retry

log = logging.getLogger(__name__)

AWS_ENDPOINT = "https://s3.amazonaws.com"
SECONDS_TO_CONNECT = 5


class Variables(NamedTuple):
    """The environment variables of a server; of several, the first that is set counts."""

    endpoints: tuple[str, ...]
    access_key: str
    secret_key: str
    regions: tuple[str, ...]
    certificates: tuple[str, ...]


AWS_VARIABLES = Variables(
    endpoints=("AWS_ENDPOINT_URL_S3", "S3_ENDPOINT_URL", "AWS_ENDPOINT_URL"),
    access_key="AWS_ACCESS_KEY_ID",
    secret_key="AWS_SECRET_ACCESS_KEY",
    regions=("AWS_REGION", "AWS_DEFAULT_REGION"),
    certificates=("AWS_CA_BUNDLE", "SSL_CERT_FILE"),
)
MINIO_VARIABLES = Variables(
    endpoints=("MINIO_ENDPOINT",),
    access_key="MINIO_ACCESS_KEY",
    secret_key="MINIO_SECRET_KEY",
    regions=("MINIO_REGION",),
    certificates=("SSL_CERT_FILE",),
)


class Service(NamedTuple):
    """An object store of Kubeflow Pipelines, with its default address.

    Kubernetes sets `host_variable` to its address in the pods of its namespace.
    """

    name: str
    host: str
    port: int
    host_variable: str
    port_variable: str = ""  # empty if the service has several ports


# The first comes with KFP 2.16 and newer, the second with older releases.
KUBEFLOW_SERVICES = (
    Service("SeaweedFS", "seaweedfs.kubeflow", 8333, "SEAWEEDFS_SERVICE_HOST"),
    Service(
        *("MinIO", "minio-service.kubeflow", 9000),
        *("MINIO_SERVICE_SERVICE_HOST", "MINIO_SERVICE_SERVICE_PORT"),
    ),
)


class Endpoint(NamedTuple):
    """The URL of a store, the source of this URL, and the variables that configure the store.

    is_in_cluster: whether it is a service of the cluster, which is reached without a proxy.
    """

    url: str
    origin: str
    variables: Variables
    is_in_cluster: bool = False


def variables_of(scheme: str, environment: Mapping[str, str] = os.environ) -> Variables:
    """The variables that configure the server of a URI scheme."""
    own = (*MINIO_VARIABLES.endpoints, MINIO_VARIABLES.access_key, MINIO_VARIABLES.secret_key)
    has_own = scheme == "minio" and any(environment.get(name) for name in own)
    return MINIO_VARIABLES if has_own else AWS_VARIABLES


def endpoint_of(scheme: str, environment: Mapping[str, str] = os.environ) -> Endpoint:
    """The endpoint of a URI scheme. Kubeflow's own store is searched for, and its name logged.

    Raises:
        ValueError: a variable is not the http:// or https:// URL of a host.
        ConnectionError: no variable is set, and no object store of Kubeflow is found.
    """
    variables = variables_of(scheme, environment)
    name = first_set(variables.endpoints, environment)
    if name:
        return Endpoint(_checked_url(name, environment[name]), name, variables)
    if scheme == "s3":
        return Endpoint(AWS_ENDPOINT, "the scheme s3", variables)
    found = _service_of_namespace(environment) or find_service(KUBEFLOW_SERVICES)
    url = f"http://{found.host}:{found.port}"
    _log_once(f"minio:// is Kubeflow's {found.name}, {url}")
    return Endpoint(url, f"Kubeflow's {found.name}", variables, is_in_cluster=True)


def first_set(names: tuple[str, ...], environment: Mapping[str, str] = os.environ) -> str:
    """The first variable that is set and not empty; empty if none is."""
    return next((name for name in names if environment.get(name)), "")


def _checked_url(name: str, url: str) -> str:
    """The normalised URL of a variable. Errors do not quote it, as it may contain a password."""
    expected = f"{name} must be http://HOST:PORT or https://HOST:PORT"
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises if it is not a number
    except ValueError:
        raise ValueError(expected) from None
    is_plain = "@" not in parts.netloc and parts.path in ("", "/") and not parts.query
    if parts.scheme not in ("http", "https") or not parts.hostname or not is_plain:
        raise ValueError(expected)
    return f"{parts.scheme}://{parts.netloc}"


def _service_of_namespace(environment: Mapping[str, str]) -> Service | None:
    """The object store in the namespace of this pod, from the variables of Kubernetes."""
    for service in KUBEFLOW_SERVICES:
        if host := environment.get(service.host_variable):
            port = environment.get(service.port_variable, service.port)
            return service._replace(host=f"[{host}]" if ":" in host else host, port=int(port))
    return None


@functools.cache
def find_service(services: tuple[Service, ...]) -> Service:
    """The first service that accepts a connection; searched for once in a process.

    In a pod the search is repeated for a while: the network may start some seconds after the
    container, and a store may be temporarily unavailable.

    Raises:
        ConnectionError: no service accepts a connection.
    """

    def connect() -> Service:
        for service in services:
            try:
                socket.create_connection((service.host, service.port), SECONDS_TO_CONNECT).close()
            except OSError:
                continue
            return service
        looked = " nor ".join(f"{one.name} ({one.host}:{one.port})" for one in services)
        raise ConnectionError(
            f"minio:// without MINIO_ENDPOINT leads to Kubeflow's own store, and neither {looked}"
            " answers here; MINIO_ENDPOINT=http://HOST:PORT names another"
        )

    is_pod = "KUBERNETES_SERVICE_HOST" in os.environ
    return retry.call_with_retries(
        connect, is_transient=lambda _: is_pod, what="minio://", backoff=retry.LONG_BACKOFF
    )


@functools.cache
def _log_once(message: str) -> None:
    log.info("%s", message)
