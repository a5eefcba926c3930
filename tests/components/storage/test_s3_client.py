"""Proxies, certificates and regions between a client and a store."""

import contextlib
import datetime
import http.client
import http.server
import ipaddress
import socket
import ssl
import threading
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from components.storage import retry
from components.storage.places import open_storage
from components.storage.retry import Backoff
from components.storage.s3_client import proxy_of


@contextlib.contextmanager
def http_server(handler, *, context=None):
    """A server on this machine, with TLS if it has a context; gives its port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


class Quiet(http.server.BaseHTTPRequestHandler):
    """Says nothing on stderr."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", headers=(), length=None):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.mark.usefixtures("isolated_environment")
@pytest.mark.parametrize("region", ["eu-central-1\n", "eu central", "x\r\nHost: elsewhere"])
def test_region_that_is_no_word_is_refused_and_no_key_is_shown(monkeypatch, region):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("AWS_REGION", region)
    with pytest.raises(ValueError, match=r"AWS_REGION is .*; a region is a word such as") as raised:
        open_storage("s3://san/x").list()
    assert "AKIDEXAMPLE" not in str(raised.value)
    assert "\n" not in str(raised.value)


# Proxies


@pytest.fixture
def proxy(s3_server):
    """A proxy that alone resolves the host store.example: its port, and its requests."""
    asked = []

    class Forward(Quiet):
        def forward(self):
            asked.append((urlsplit(self.path).netloc, self.headers.get("Proxy-Authorization")))
            url = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            there = http.client.HTTPConnection("127.0.0.1", s3_server.port)
            kept = {k: v for k, v in self.headers.items() if not k.lower().startswith("proxy-")}
            there.request(
                self.command,
                url._replace(scheme="", netloc="").geturl(),
                self.rfile.read(length),
                kept,
            )
            answer = there.getresponse()
            body = answer.read()
            left_out = ("content-length", "transfer-encoding", "connection", "date", "server")
            told = [(k, v) for k, v in answer.getheaders() if k.lower() not in left_out]
            self.answer(answer.status, body, told, answer.getheader("Content-Length"))
            there.close()

        def do_GET(self):
            self.forward()

        def do_PUT(self):
            self.forward()

        def do_HEAD(self):
            self.forward()

    with http_server(Forward) as port:
        yield port, asked


@pytest.mark.s3
def test_bucket_is_reached_through_the_proxy_of_the_environment(s3, proxy, monkeypatch):
    port, asked = proxy
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store.example:8333")
    monkeypatch.setenv("HTTP_PROXY", f"http://me:hunter2@127.0.0.1:{port}")
    storage = open_storage(s3)
    storage.put_bytes("x", b"through the proxy")
    assert storage.get("x") == b"through the proxy"
    assert {host for host, _ in asked} == {"store.example:8333"}
    assert {told for _, told in asked} == {"Basic bWU6aHVudGVyMg=="}  # me:hunter2


@pytest.mark.usefixtures("isolated_environment")
def test_proxy_that_does_not_answer_is_named_by_its_variable_and_not_shown(monkeypatch):
    monkeypatch.setattr(retry, "LONG_BACKOFF", Backoff(total=0.2, first=0.05))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:hunter2@127.0.0.1:1")
    with pytest.raises(ConnectionError, match="through the proxy of HTTPS_PROXY") as raised:
        open_storage("s3://san/x").list()
    assert "hunter2" not in str(raised.value)


@pytest.mark.s3
def test_store_in_the_cluster_is_asked_without_a_proxy(s3, monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("MINIO_SERVICE_SERVICE_HOST", "127.0.0.1.nip.invalid")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setattr(retry, "LONG_BACKOFF", Backoff(total=0))
    with pytest.raises(ConnectionError, match=r"\(from Kubeflow's MinIO\) cannot be reached"):
        open_storage(s3.replace("s3://", "minio://")).list()


@pytest.mark.parametrize(
    ("url", "environment", "variable"),
    [
        ("https://s3.example", {"HTTPS_PROXY": "http://p:1"}, "HTTPS_PROXY"),
        ("https://s3.example", {"https_proxy": "p:1", "HTTPS_PROXY": "q:1"}, "https_proxy"),
        ("https://s3.example", {"HTTP_PROXY": "http://p:1"}, None),
        ("http://s3.example", {"HTTP_PROXY": "http://p:1"}, "HTTP_PROXY"),
        ("http://127.0.0.1:9000", {"HTTP_PROXY": "http://p:1"}, None),
        ("http://[::1]:9000", {"HTTP_PROXY": "http://p:1"}, None),
        ("http://localhost:9000", {"HTTP_PROXY": "http://p:1"}, None),
        ("http://a.b.example", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "x, b.example"}, None),
        ("http://a.b.example", {"HTTP_PROXY": "http://p:1", "NO_PROXY": ".b.example:80"}, None),
        ("http://a.b.example", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "*.example"}, None),
        ("http://ab.example", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "b.example"}, "HTTP_PROXY"),
        ("http://a.example", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "*"}, None),
        ("http://a.example", {"HTTP_PROXY": "http://p:1", "NO_PROXY": ","}, "HTTP_PROXY"),
        ("http://10.1.2.3", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8"}, None),
        ("http://10.1.2.3", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "10.1.2.3"}, None),
        ("http://11.1.2.3", {"HTTP_PROXY": "http://p:1", "no_proxy": "10.0.0.0/8"}, "HTTP_PROXY"),
    ],
)
def test_proxy_is_chosen_as_other_tools_do(url, environment, variable):
    found = proxy_of(url, environment)
    assert (found and found.variable) == variable


@pytest.mark.parametrize("named", ["socks5://me:hunter2@p:1", "http://", "http://p:hunter2"])
def test_impossible_proxy_is_refused_and_not_shown(named):
    with pytest.raises(ValueError, match="HTTPS_PROXY must be http://HOST:PORT") as raised:
        proxy_of("https://s3.example", {"HTTPS_PROXY": named})
    assert "hunter2" not in str(raised.value)


# Certificates


@pytest.fixture
def certificate(tmp_path):
    """A file with an untrusted certificate for this machine and store.example, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    today = datetime.datetime.now(datetime.UTC)
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("store.example")]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    form, secret = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    file = tmp_path / "certificate.pem"
    file.write_bytes(made.public_bytes(pem) + key.private_bytes(pem, form, secret))
    return file


EMPTY_LIST = (
    b"<?xml version='1.0'?><ListBucketResult><Name>san</Name><IsTruncated>false</IsTruncated>"
    b"</ListBucketResult>"
)


@pytest.fixture
def tls_store(isolated_environment, certificate, monkeypatch):
    """An empty store behind TLS."""

    class Empty(Quiet):
        def do_GET(self):
            self.answer(200, EMPTY_LIST, [("Content-Type", "application/xml")])

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with http_server(Empty, context=context) as port:
        for scheme in ("AWS", "MINIO"):
            ending = ("_URL", "_KEY_ID", "_ACCESS_KEY") if scheme == "AWS" else ("", "_KEY", "_KEY")
            monkeypatch.setenv(f"{scheme}_ENDPOINT{ending[0]}", f"https://127.0.0.1:{port}")
            monkeypatch.setenv(f"{scheme}_ACCESS{ending[1]}", "key")
            monkeypatch.setenv(f"{scheme}_SECRET{ending[2]}", "secret")
        yield port


@pytest.mark.usefixtures("tls_store")
@pytest.mark.parametrize("scheme", ["s3", "minio"])
def test_an_untrusted_certificate_is_reported_at_once_with_the_variable(scheme, caplog):
    with pytest.raises(
        ConnectionError,
        match=r"certificate of https://\S+ is not trusted \(.+\); name trusted certificates in SSL",
    ):
        open_storage(f"{scheme}://san/x").list()
    assert caplog.text == ""


@pytest.mark.usefixtures("tls_store")
@pytest.mark.parametrize(
    ("scheme", "variable"),
    [("s3", "AWS_CA_BUNDLE"), ("s3", "SSL_CERT_FILE"), ("minio", "SSL_CERT_FILE")],
)
def test_certificates_of_the_environment_are_trusted(scheme, variable, certificate, monkeypatch):
    monkeypatch.setenv(variable, str(certificate))
    assert open_storage(f"{scheme}://san/x").list() == []


def test_store_behind_tls_is_reached_through_a_tunnel_of_the_proxy(
    tls_store, certificate, monkeypatch
):
    asked = []

    class Tunnel(Quiet):
        def do_CONNECT(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            with socket.create_connection(("127.0.0.1", tls_store)) as there:
                back = threading.Thread(target=relay, args=(there, self.connection))
                back.start()
                relay(self.connection, there)
                back.join()
            self.close_connection = True

    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://store.example")
    with http_server(Tunnel) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        storage = open_storage("s3://san/x")
        assert storage.list() == []
        storage._client._http.clear()  # ends the tunnel
    assert asked == ["store.example:443"]


def relay(here, there):
    """Pass on what comes until one side ends."""
    with contextlib.suppress(OSError):
        while data := here.recv(1 << 16):
            there.sendall(data)
        there.shutdown(socket.SHUT_WR)


@pytest.mark.usefixtures("tls_store")
@pytest.mark.parametrize("content", [None, "no certificate"])
def test_file_that_holds_no_certificates_is_named(tmp_path, monkeypatch, content):
    file = tmp_path / "bundle"
    if content:
        file.write_text(content)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(file))
    with pytest.raises(ValueError, match=f"AWS_CA_BUNDLE={file} is no readable file of certific"):
        open_storage("s3://san/x")


# Regions

MALFORMED = (
    "<?xml version='1.0' encoding='UTF-8'?><Error><Code>AuthorizationHeaderMalformed</Code>"
    "<Message>The authorization header is malformed; {}</Message></Error>"
)


@pytest.fixture
def answer(isolated_environment, monkeypatch):
    """Lets a store answer everything alike."""
    with contextlib.ExitStack() as opened:

        def everything(status, body="", headers=()):
            class Same(Quiet):
                def do_GET(self):
                    told = [("Content-Type", "application/xml"), *headers]
                    self.answer(status, b"" if self.command == "HEAD" else body.encode(), told)

                def do_HEAD(self):
                    self.do_GET()

            port = opened.enter_context(http_server(Same))
            monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

        yield everything


@pytest.mark.parametrize("region", ["eu-north-1", ""])
def test_a_wrong_region_is_reported_with_the_right_one_and_variable(answer, monkeypatch, region):
    answer(400, MALFORMED.format("the region 'us-east-1' is wrong; expecting 'eu-west-1'"))
    monkeypatch.setenv("AWS_REGION", region)
    said = f"AWS_REGION is {region}" if region else "AWS_REGION is not set"
    with pytest.raises(OSError, match=f"expects the region eu-west-1, and {said}"):
        open_storage("s3://san/x").list()


def test_a_wrong_region_is_reported_if_only_a_header_names_the_right_one(answer, monkeypatch):
    answer(400, headers=[("x-amz-bucket-region", "eu-west-1")])
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    with pytest.raises(OSError, match="region eu-west-1, and AWS_DEFAULT_REGION is eu-north-1"):
        open_storage("s3://san/x").stat("y")


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (403, "<Error><Code>AccessDenied</Code></Error>", "denies access; are AWS_ACCESS_KEY_ID"),
        (400, MALFORMED.format("the Credential is mal-formed"), "the Credential is mal-formed"),
    ],
)
def test_other_refusals_do_not_blame_the_region(answer, monkeypatch, status, body, message):
    answer(status, body, [("x-amz-bucket-region", "eu-west-1")])
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    with pytest.raises(OSError, match=message) as raised:
        open_storage("s3://san/x").list()
    assert "expects" not in str(raised.value)
