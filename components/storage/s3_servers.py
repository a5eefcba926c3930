"""Which server the buckets of a URI scheme lie on, and the environment variables that say so.

`s3://` is served by AWS_*. `minio://` has MINIO_ENDPOINT, MINIO_ACCESS_KEY and MINIO_SECRET_KEY of
its own, so that a pod can reach both; where none of the three is set, AWS_* serve it too. Without
an endpoint `s3://` is AWS, and `minio://` the object store that Kubeflow Pipelines brings.
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
    """The environment variables that tell of a server; of several, the first that is set counts."""

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
    """An object store of Kubeflow Pipelines: where it is by default.

    In the pods of its namespace Kubernetes puts its address into `host_variable`.
    """

    name: str
    host: str
    port: int
    host_variable: str
    port_variable: str = ""  # where there is one port, so that it is surely this one


# Of KFP 2.16 and newer, and of those before it.
KUBEFLOW_SERVICES = (
    Service("SeaweedFS", "seaweedfs.kubeflow", 8333, "SEAWEEDFS_SERVICE_HOST"),
    Service(
        *("MinIO", "minio-service.kubeflow", 9000),
        *("MINIO_SERVICE_SERVICE_HOST", "MINIO_SERVICE_SERVICE_PORT"),
    ),
)


class Endpoint(NamedTuple):
    """Where a store answers, where that was said, and which variables tell of it.

    is_in_cluster: whether it was found as a service of the cluster, to which no proxy leads.
    """

    url: str
    origin: str
    variables: Variables
    is_in_cluster: bool = False


def variables_of(scheme: str, environment: Mapping[str, str] = os.environ) -> Variables:
    """The variables that tell of the server of a URI scheme."""
    own = (*MINIO_VARIABLES.endpoints, MINIO_VARIABLES.access_key, MINIO_VARIABLES.secret_key)
    has_own = scheme == "minio" and any(environment.get(name) for name in own)
    return MINIO_VARIABLES if has_own else AWS_VARIABLES


def endpoint_of(scheme: str, environment: Mapping[str, str] = os.environ) -> Endpoint:
    """Where the stores of a URI scheme answer; Kubeflow's own is looked for, and its name logged.

    Raises:
        ValueError: the environment names something that is no http:// or https:// URL of a host.
        ConnectionError: it names nothing, and no object store of Kubeflow is found.
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
    """The URL of a variable in its plain form; it is not shown, as it may hold a password."""
    expected = f"{name} must be http://HOST:PORT or https://HOST:PORT"
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises where it is no number
    except ValueError:
        raise ValueError(expected) from None
    is_plain = "@" not in parts.netloc and parts.path in ("", "/") and not parts.query
    if parts.scheme not in ("http", "https") or not parts.hostname or not is_plain:
        raise ValueError(expected)
    return f"{parts.scheme}://{parts.netloc}"


def _service_of_namespace(environment: Mapping[str, str]) -> Service | None:
    """The object store that Kubernetes tells of, where it is in the namespace of this pod."""
    for service in KUBEFLOW_SERVICES:
        if host := environment.get(service.host_variable):
            port = environment.get(service.port_variable, service.port)
            return service._replace(host=f"[{host}]" if ":" in host else host, port=int(port))
    return None


@functools.cache
def find_service(services: tuple[Service, ...]) -> Service:
    """The first of the services that takes a connection; looked for once in a process.

    In a pod this has patience: its network may begin some seconds after its container does, and a
    store may be away.

    Raises:
        ConnectionError: none of them does.
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
