"""The way to the server: proxies, certificates, credentials in URLs, answers that do not come."""

import base64
import socket
import threading
from pathlib import Path

import pytest

from components.kubeflow import connection
from components.kubeflow.api import KubeflowClient, check_name
from components.kubeflow.connection import Server, SubmissionError, UnavailableError, find_proxy
from tests.servers.certificates import self_signed
from tests.servers.connect_proxy import ConnectProxy
from tests.servers.kubeflow_stub import KubeflowStub

SPEC = {"pipelineInfo": {"name": "p"}, "schemaVersion": "2.1.0", "root": {"dag": {"tasks": {}}}}


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def stub():
    with KubeflowStub().running() as server:
        yield server


@pytest.fixture(scope="module")
def signed(tmp_path_factory):
    return self_signed(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def tls_stub(signed):
    with KubeflowStub().running(signed[1]) as server:
        yield server


def ask(host: str) -> str | None:
    return KubeflowClient(Server(host)).find_experiment("san")


def test_http_proxy_is_asked_for_a_host_that_only_it_knows(stub, monkeypatch):
    stub.experiments["san"] = "by-proxy"
    monkeypatch.setenv("HTTP_PROXY", stub.host)
    assert ask("http://kubeflow.invalid") == "by-proxy"


def test_https_goes_through_a_tunnel_of_the_proxy(tls_stub, signed, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(signed[0]))
    tls_stub.experiments["san"] = "found"
    with ConnectProxy().running() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        assert ask(tls_stub.host) == "found"
    address = tls_stub.host.removeprefix("https://")
    ((first, credentials),) = proxy.asked
    assert first.startswith(f"CONNECT {address} ")
    assert credentials == ""


def test_credentials_of_a_proxy_go_to_the_proxy_and_into_no_message(tls_stub, signed, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(signed[0]))
    with ConnectProxy().running() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("://", "://me:p%40ss@"))
        ask(tls_stub.host)
    assert proxy.asked[0][1] == "Basic " + base64.b64encode(b"me:p@ss").decode()
    with pytest.raises(UnavailableError) as error:  # it is gone now
        ask(tls_stub.host)
    assert str(error.value) == (
        f"cannot reach {tls_stub.host} through the proxy {proxy.url}: Connection refused"
    )


@pytest.mark.parametrize("excluded", ["127.0.0.1", "*", "example,127.0.0.1"])
def test_host_in_no_proxy_is_asked_itself(stub, monkeypatch, excluded):
    stub.experiments["san"] = "itself"
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", excluded)
    assert ask(stub.host) == "itself"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_lower_case_names_and_addresses_without_a_scheme_count_too(monkeypatch, scheme):
    monkeypatch.setenv(f"{scheme}_proxy", "proxy.example:3128")
    found = find_proxy(f"{scheme}://kubeflow.example/pipeline")
    assert found is not None
    assert str(found) == "http://proxy.example:3128"
    other = {"http": "https", "https": "http"}[scheme]
    assert find_proxy(f"{other}://kubeflow.example") is None


def test_proxy_that_is_no_url_is_refused_without_its_credentials(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "socks5://me:hunter2@proxy:1")
    with pytest.raises(ValueError, match="HTTPS_PROXY is not a URL such as http://") as error:
        find_proxy("https://h")
    assert "hunter2" not in str(error.value)


def test_certificate_that_is_not_trusted_says_so_and_names_the_variable(tls_stub):
    with pytest.raises(SubmissionError) as error:
        ask(tls_stub.host)
    assert str(error.value) == (
        f"the certificate of {tls_stub.host} is not trusted (self-signed certificate); "
        "SSL_CERT_FILE names a file of certificates that are"
    )


def test_certificate_that_the_variable_names_is_trusted(tls_stub, signed, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(signed[0]))
    assert ask(tls_stub.host) is None


def test_certificate_of_another_address_is_no_matter_of_the_variable(tmp_path, monkeypatch):
    certificate, context = self_signed(tmp_path, address="127.0.0.2")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with KubeflowStub().running(context) as other, pytest.raises(SubmissionError) as error:
        ask(other.host)
    assert "is not trusted (IP address mismatch, certificate is not valid for" in str(error.value)
    assert "SSL_CERT_FILE" not in str(error.value)


def test_variable_that_names_no_file_is_refused(monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    with pytest.raises(ValueError, match=r"SSL_CERT_FILE names /nowhere/ca\.pem, which is no file"):
        ask("https://127.0.0.1")


def test_server_without_tls_is_no_matter_of_certificates(stub):
    host = stub.host.replace("http://", "https://")
    with pytest.raises(SubmissionError, match=f"cannot reach {host}: SSLError"):
        ask(host)


@pytest.mark.parametrize(
    "host",
    ["https://me:hunter2@kubeflow.example", "me:hunter2@kubeflow.example", "http://hunter2@h"],
)
def test_credentials_in_the_host_are_refused_and_not_repeated(host):
    with pytest.raises(ValueError, match="--host holds a user name or password") as error:
        Server(host)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("host", ["kubeflow.example", "https://", "ftp://h"])
def test_host_that_is_no_url_is_refused(host):
    with pytest.raises(ValueError, match=f"--host {host} is not a URL"):
        Server(host)


def start(host: str) -> str:
    client = KubeflowClient(Server(host))
    return client.start_run([SPEC], {}, experiment="e", name="n")


MAY_HAVE = "the run may have started anyway; before you submit again, look at HOST/#/runs"


def test_run_whose_answer_does_not_come_may_have_started(stub, monkeypatch):
    monkeypatch.setattr(connection, "TIMEOUT", (1.0, 0.1))
    stub.seconds_to_answer = 0.5
    with pytest.raises(UnavailableError) as error:
        start(stub.host)
    may_have = MAY_HAVE.replace("HOST", stub.host)
    assert str(error.value) == f"{stub.host} has not answered within 0.1 s; {may_have}"


@pytest.mark.parametrize("status", [500, 502, 504])
def test_run_that_the_server_stumbles_over_may_have_started(stub, status):
    stub.refusal = (status, "oops", "text/plain")
    with pytest.raises(UnavailableError) as error:
        start(stub.host)
    assert str(error.value).endswith(f"({status}); {MAY_HAVE.replace('HOST', stub.host)}")


def test_run_whose_connection_is_cut_may_have_started():
    with socket.create_server(("127.0.0.1", 0)) as server:
        host = f"http://127.0.0.1:{server.getsockname()[1]}"

        def cut() -> None:
            taken, _ = server.accept()
            taken.recv(65536)
            taken.close()

        threading.Thread(target=cut, daemon=True).start()
        with pytest.raises(UnavailableError, match=r"broke off: .*; the run may have started"):
            start(host)


@pytest.mark.parametrize("refusal", [(400, '{"message": "bad"}', "application/json"), None])
def test_run_that_never_arrived_or_was_refused_has_not_started(stub, refusal):
    stub.refusal = refusal
    host = stub.host if refusal else "http://127.0.0.1:9"
    with pytest.raises(SubmissionError) as error:
        start(host)
    assert "may have started" not in str(error.value)


def test_looking_something_up_starts_nothing(stub):
    stub.refusal = (500, "oops", "text/plain")
    with pytest.raises(UnavailableError) as error:
        ask(stub.host)
    assert str(error.value) == f"{stub.host} refuses (500)"


def test_installation_for_several_users_asks_for_the_profile_in_one_line(stub):
    stub.is_for_several = True
    with pytest.raises(SubmissionError) as error:
        ask(stub.host)
    assert str(error.value) == (
        f"{stub.host} is an installation for several users; give your profile with --namespace"
    )
    assert KubeflowClient(Server(stub.host, "vision")).find_experiment("san") is None


def test_upload_that_is_refused_says_why(stub, tmp_path: Path):
    (tmp_path / "p.yaml").write_text("what is this")
    with pytest.raises(SubmissionError, match=r"refuses \(400: unknown template format\)"):
        KubeflowClient(Server(stub.host)).upload_pipeline(tmp_path / "p.yaml", "p")


@pytest.mark.parametrize(
    ("kind", "longest"), [("run", 255), ("experiment", 128), ("pipeline", 128)]
)
def test_name_that_the_server_cannot_keep_is_refused(kind, longest):
    assert check_name(kind, "é" * longest) == "é" * longest
    with pytest.raises(ValueError, match=f"the {kind} has {longest + 1} characters, .* {longest}:"):
        check_name(kind, "é" * (longest + 1))
    with pytest.raises(ValueError, match=f"the name of the {kind} is empty"):
        check_name(kind, " ")


def test_long_names_are_not_sent(stub, tmp_path: Path):
    client, file = KubeflowClient(Server(stub.host)), tmp_path / "p.yaml"
    for send in (
        lambda: client.make_experiment("e" * 129),
        lambda: client.start_run([SPEC], {}, experiment="e", name="r" * 256),
        lambda: client.upload_pipeline(file, "p" * 129),
        lambda: client.upload_version(file, "v" * 128, "p"),
    ):
        with pytest.raises(ValueError, match="characters, and Kubeflow keeps"):
            send()
    assert stub.requests == []
