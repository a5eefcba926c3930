"""The server of a URI, and its configuration by the environment."""

import logging
import socket

import pytest

from components.storage import retry, s3_servers
from components.storage.places import open_storage
from components.storage.retry import Backoff
from components.storage.s3_servers import Service, endpoint_of, find_service


@pytest.fixture
def service():
    """Makes a service that listens, or does not, on this machine."""
    listening = []

    def make(name, *, listens=True):
        one = socket.create_server(("127.0.0.1", 0))
        port = one.getsockname()[1]
        listening.append(one) if listens else one.close()
        return Service(name, "127.0.0.1", port, "HOST_VARIABLE")

    find_service.cache_clear()
    yield make
    find_service.cache_clear()
    for one in listening:
        one.close()


@pytest.mark.parametrize(
    ("scheme", "environment", "url"),
    [
        ("s3", {}, "https://s3.amazonaws.com"),
        ("minio", {"MINIO_ENDPOINT": "http://m:9000/"}, "http://m:9000"),
        ("minio", {"MINIO_ENDPOINT": "http://m", "AWS_ENDPOINT_URL": "http://a"}, "http://m"),
        ("s3", {"MINIO_ENDPOINT": "http://m", "AWS_ENDPOINT_URL": "http://a"}, "http://a"),
        (
            "minio",
            {"MINIO_SERVICE_SERVICE_HOST": "10.0.0.7", "MINIO_SERVICE_SERVICE_PORT": "9001"},
            "http://10.0.0.7:9001",
        ),
        (
            "minio",
            {"MINIO_SERVICE_SERVICE_HOST": "10.0.0.7", "SEAWEEDFS_SERVICE_HOST": "fd00::1"},
            "http://[fd00::1]:8333",
        ),
        (
            "minio",
            {
                "MINIO_SERVICE_SERVICE_HOST": "10.0.0.7",
                "MINIO_ACCESS_KEY": "k",
                "AWS_ENDPOINT_URL": "http://a",
            },
            "http://10.0.0.7:9000",
        ),
        ("s3", {"MINIO_SERVICE_SERVICE_HOST": "10.0.0.7"}, "https://s3.amazonaws.com"),
        ("minio", {"AWS_ENDPOINT_URL": "http://a:1/"}, "http://a:1"),
        ("s3", {"AWS_ENDPOINT_URL": "http://a:1", "S3_ENDPOINT_URL": "https://b"}, "https://b"),
        ("s3", {"S3_ENDPOINT_URL": "http://b", "AWS_ENDPOINT_URL_S3": "http://c"}, "http://c"),
    ],
)
def test_endpoint_is_found_where_others_look_for_it(scheme, environment, url):
    assert endpoint_of(scheme, environment).url == url


def test_object_store_in_the_namespace_of_a_pod_is_named_too(caplog):
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            endpoint_of("minio", {"SEAWEEDFS_SERVICE_HOST": "10.9.8.7"})
    assert caplog.messages == ["minio:// is Kubeflow's SeaweedFS, http://10.9.8.7:8333"]


@pytest.mark.parametrize(
    "url",
    ["host:9000", "ftp://host", "http://u:hunter2@host", "http://h/x", "http://h:hunter2/", "//h"],
)
@pytest.mark.parametrize(
    ("scheme", "name"), [("s3", "AWS_ENDPOINT_URL"), ("minio", "MINIO_ENDPOINT")]
)
def test_impossible_endpoint_is_refused_and_not_shown(scheme, name, url):
    with pytest.raises(ValueError, match=f"{name} must be http://HOST:PORT") as raised:
        endpoint_of(scheme, {name: url})
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(("newer", "found"), [(True, "SeaweedFS"), (False, "MinIO")])
def test_object_store_of_kubeflow_is_found_and_named(service, monkeypatch, caplog, newer, found):
    stores = (service("SeaweedFS", listens=newer), service("MinIO"))
    monkeypatch.setattr(s3_servers, "KUBEFLOW_SERVICES", stores)
    with caplog.at_level(logging.INFO):
        endpoints = [endpoint_of("minio", {}) for _ in range(2)]
    port = stores[0 if newer else 1].port
    assert {one.url for one in endpoints} == {f"http://127.0.0.1:{port}"}
    assert endpoints[0].origin == f"Kubeflow's {found}"
    assert endpoints[0].is_in_cluster
    assert caplog.messages == [f"minio:// is Kubeflow's {found}, http://127.0.0.1:{port}"]


def test_services_are_where_kubeflow_has_them():
    """SeaweedFS since 2.16, before that MinIO; in namespace kubeflow."""
    found = [(one.name, one.host, one.port) for one in s3_servers.KUBEFLOW_SERVICES]
    assert found == [
        ("SeaweedFS", "seaweedfs.kubeflow", 8333),
        ("MinIO", "minio-service.kubeflow", 9000),
    ]


@pytest.mark.usefixtures("isolated_environment")
@pytest.mark.parametrize("is_pod", [True, False])
def test_missing_object_store_of_kubeflow_is_reported_in_a_pod_after_retries(
    service, monkeypatch, caplog, is_pod
):
    monkeypatch.setattr(retry, "LONG_BACKOFF", Backoff(total=0.3, first=0.1))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    if is_pod:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    stores = (service("SeaweedFS", listens=False), service("MinIO", listens=False))
    monkeypatch.setattr(s3_servers, "KUBEFLOW_SERVICES", stores)
    places = rf"SeaweedFS \(127.0.0.1:{stores[0].port}\) nor MinIO \(127.0.0.1:{stores[1].port}\)"
    with pytest.raises(ConnectionError, match=rf"neither {places} answers here; MINIO_ENDPOINT="):
        open_storage("minio://san/x")
    assert ("trying again" in caplog.text) == is_pod
