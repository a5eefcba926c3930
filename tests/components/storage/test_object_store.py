"""Buckets, on a real server; and both kinds of storage, held to one protocol."""

import base64
import filecmp
import http.server
import io
import json
import logging
import os
import re
import ssl
import threading
import time
import traceback
import tracemalloc
import types
from contextlib import suppress

import pytest
import urllib3
from minio.error import S3Error

from components.process.threads import thread_pool
from components.storage import object_store, retry
from components.storage.places import open_storage
from components.storage.retry import Backoff
from components.storage.transfer import send_artifact
from tests.servers.seaweedfs import SECRET_KEY

SHORT = Backoff(total=0.5, first=0.05)


@pytest.fixture
def impatient(monkeypatch):
    """Nobody waits long in a test."""
    for name in ("SHORT_BACKOFF", "LONG_BACKOFF", "RESULT_BACKOFF"):
        monkeypatch.setattr(retry, name, SHORT)


# One protocol, two kinds of storage


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.s3)])
def uri(request, tmp_path):
    return str(tmp_path / "store") if request.param == "folder" else request.getfixturevalue("s3")


def test_what_was_put_is_got_whole_and_in_part(uri, tmp_path):
    storage = open_storage(uri, "a", "b")
    storage.put_bytes("bytes", b"0123456789")
    (tmp_path / "file").write_bytes(b"from a file")
    storage.put_file("folder/file", tmp_path / "file")
    (tmp_path / "empty").touch()
    storage.put_file("folder/empty", tmp_path / "empty")
    for name, content in (("file", b"from a file"), ("empty", b"")):
        storage.get_file(f"folder/{name}", tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == content
    assert storage.get("bytes") == b"0123456789"
    assert storage.get("folder/file") == b"from a file"
    assert storage.get_range("bytes", 3, 4) == b"3456"
    assert storage.get_range("bytes", 0, 10) == b"0123456789"
    assert storage.get_range("bytes", 3, 0) == b""
    assert open_storage(uri).get("a/b/bytes") == b"0123456789"
    assert storage.uri.endswith("/a/b")


def test_objects_are_listed_with_their_folders_in_order(uri):
    storage = open_storage(uri)
    for name in ("b/2", "b/10", "a", "b/c/1", "bb"):
        storage.put_bytes(name, name.encode())
    assert [stat.name for stat in storage.list()] == ["a", "b/10", "b/2", "b/c/1", "bb"]
    assert [stat.name for stat in storage.list("b")] == ["b/10", "b/2", "b/c/1"]
    assert [stat.size for stat in storage.list("b")] == [4, 3, 5]
    assert storage.list("nothing") == []


def test_version_changes_when_an_object_is_rewritten(uri):
    storage = open_storage(uri)
    storage.put_bytes("x", b"one")
    before = storage.stat("x")
    assert storage.list() == [before]
    storage.put_bytes("x", b"two")
    assert storage.stat("x").version != before.version
    assert storage.stat("y") is None


def test_put_replaces_and_delete_is_content_with_nothing(uri):
    storage = open_storage(uri)
    storage.put_bytes("x", b"old")
    storage.put_bytes("x", b"")
    assert storage.get("x") == b""
    storage.delete("x")
    storage.delete("x")
    assert storage.list() == []


def test_odd_names_are_names(uri):
    storage = open_storage(uri)
    for name in ("with space", "ümläut/百", "a+b&c=d%20", "-1_c1s1.jpg"):
        storage.put_bytes(name, name.encode())
        assert storage.get(name) == name.encode()
    assert len(storage.list()) == 4


def test_missing_object_is_named(uri):
    with pytest.raises(FileNotFoundError, match="nobody"):
        open_storage(uri).get("nobody")
    with pytest.raises(FileNotFoundError, match="nobody"):
        open_storage(uri).get_range("nobody", 0, 1)


@pytest.mark.usefixtures("impatient")
def test_range_beyond_the_end_is_an_error(uri):
    storage = open_storage(uri)
    storage.put_bytes("x", b"123")
    with pytest.raises(OSError, match="x"):
        storage.get_range("x", 2, 2)


@pytest.mark.s3
def test_more_objects_than_one_page_are_listed(s3):
    storage = open_storage(s3)
    names = [f"{n:04d}" for n in range(1001)]
    for name in names:
        storage.put_bytes(name, b"")
    assert [stat.name for stat in storage.list()] == names


@pytest.mark.s3
def test_file_longer_than_one_request_is_put_in_parts(s3, tmp_path, monkeypatch):
    monkeypatch.setattr(object_store, "MAX_SINGLE_PUT", 5 << 20)
    monkeypatch.setattr(object_store, "PART_SIZE", 5 << 20)
    data = bytes(range(256)) * (12 << 12)
    (tmp_path / "big").write_bytes(data)
    storage = open_storage(s3)
    storage.put_file("big", tmp_path / "big")
    assert storage.get("big") == data
    assert "-" in storage.stat("big").version  # an ETag of parts, which is no hash


COMPLETION_ERROR = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>InternalError</Code>'
    b"<Message>We encountered an internal error. Please try again.</Message></Error>"
)


class _Completions(list):
    """The completions that were answered so; no more than `times`, if that is set."""

    times = None


@pytest.fixture
def broken_completion(tampering_proxy, monkeypatch):
    """As S3 may answer when parts cannot be joined: 200, and an error in the body."""
    monkeypatch.setattr(object_store, "MAX_SINGLE_PUT", 5 << 20)
    monkeypatch.setattr(object_store, "PART_SIZE", 5 << 20)
    told = _Completions()

    def invent(method, path):
        if method != "POST" or "uploadId" not in path or len(told) == told.times:
            return None
        told.append(path)
        return COMPLETION_ERROR

    tampering_proxy.invent = invent
    return told


@pytest.mark.s3
@pytest.mark.usefixtures("impatient")
def test_parts_that_were_not_joined_are_no_object(s3, broken_completion):
    with pytest.raises(OSError, match="x arrives damaged every time: it does not exist after"):
        open_storage(s3).put_bytes("x", bytes(6 << 20))
    assert broken_completion


@pytest.mark.s3
def test_parts_that_are_joined_at_last_are_an_object(s3, broken_completion, monkeypatch):
    monkeypatch.setattr(retry, "RESULT_BACKOFF", Backoff(total=20, first=0.05, longest=0.1))
    storage = open_storage(s3, patience=retry.RESULT_BACKOFF)
    broken_completion.times = 5
    storage.put_bytes("x", bytes(6 << 20))
    assert storage.stat("x").size == 6 << 20


@pytest.mark.s3
@pytest.mark.usefixtures("impatient")
def test_parts_that_were_not_joined_do_not_pass_for_the_former_object(
    s3, broken_completion, tmp_path, monkeypatch
):
    storage = open_storage(s3)
    with monkeypatch.context() as patch:
        patch.setattr(object_store, "MAX_SINGLE_PUT", 5 << 30)
        storage.put_bytes("x", bytes(6 << 20))
    (tmp_path / "x").write_bytes(bytes((6 << 20) - 1) + b"1")  # as long as the former
    with pytest.raises(OSError, match="the stored content is not the one that was sent"):
        storage.put_file("x", tmp_path / "x")
    assert broken_completion


@pytest.mark.s3
def test_long_file_is_put_in_one_request_of_which_no_copy_is_made(s3, tmp_path):
    data = bytes(range(256)) * (24 << 12)
    (tmp_path / "big").write_bytes(data)
    storage = open_storage(s3)
    tracemalloc.start()
    storage.put_file("big", tmp_path / "big")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 8 << 20
    assert "-" not in storage.stat("big").version  # the ETag of one request
    storage.get_file("big", tmp_path / "back")
    assert filecmp.cmp(tmp_path / "big", tmp_path / "back", shallow=False)


@pytest.mark.s3
def test_long_object_is_fetched_piece_by_piece_and_compared(s3, tampering_proxy, tmp_path):
    data = bytes(range(256)) * (12 << 12)
    storage = open_storage(s3)
    storage.put_bytes("x", data)
    tampering_proxy.tamper = _once(flipped)
    storage.get_file("x", tmp_path / "x")
    assert tampering_proxy.tampered == 1
    assert (tmp_path / "x").read_bytes() == data


# Wrong input: at once, in one line, without secrets


@pytest.mark.s3
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("AWS_SECRET_ACCESS_KEY", "wrong-secret", "refuses the secret key; is AWS_SECRET_ACCESS"),
        ("AWS_ACCESS_KEY_ID", "nobody", "does not know the access key; is AWS_ACCESS_KEY_ID"),
    ],
)
def test_refused_credentials_fail_at_once_and_are_not_shown(
    s3, monkeypatch, caplog, name, value, message
):
    monkeypatch.setenv(name, value)
    storage = open_storage(s3)
    for action in (
        lambda: storage.list(),
        lambda: storage.get("x"),
        lambda: storage.put_bytes("x", b""),
    ):
        with pytest.raises(PermissionError, match=message) as raised:
            action()
        assert "\n" not in str(raised.value)
        assert not any(word in str(raised.value) for word in (value, SECRET_KEY))
    with pytest.raises(PermissionError, match="denies access"):  # an answer to HEAD has no words
        storage.stat("x")
    assert caplog.text == ""  # nothing was tried again


@pytest.mark.s3
@pytest.mark.parametrize(
    ("action", "needs"),
    [
        (lambda storage: storage.list(), "s3:ListBucket"),
        (lambda storage: storage.get("x"), "s3:GetObject (and s3:ListBucket, without which"),
        (lambda storage: storage.stat("x"), "s3:GetObject (and s3:ListBucket, without which"),
        (lambda storage: storage.put_bytes("x", b""), "s3:PutObject"),
        (lambda storage: storage.delete("x"), "s3:DeleteObject"),
    ],
)
def test_denial_names_the_actions_that_are_needed(s3, tampering_proxy, action, needs):
    tampering_proxy.deny = lambda _: True
    words = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY right, and do they allow"
    with pytest.raises(PermissionError, match=re.escape(f"denies access; are {words} {needs}")):
        action(open_storage(s3))


@pytest.mark.s3
def test_missing_bucket_is_named_and_not_made(s3, s3_server, caplog):
    storage = open_storage("s3://no-such-bucket/x")
    for action in (
        lambda: storage.list(),
        lambda: storage.get("x"),
        lambda: storage.stat("x"),
        lambda: storage.put_bytes("x", b""),
    ):
        with pytest.raises(FileNotFoundError, match=r"no-such-bucket: there is no such bucket at"):
            action()
    assert caplog.text == ""
    assert not s3_server.client().bucket_exists("no-such-bucket")


@pytest.fixture
def away(tampering_proxy, monkeypatch):
    """A store that comes back after half a second."""
    for name in ("SHORT_BACKOFF", "LONG_BACKOFF", "RESULT_BACKOFF"):
        monkeypatch.setattr(retry, name, Backoff(total=0))
    port, tampering_proxy.server_port = tampering_proxy.server_port, 1  # where nobody is
    back = threading.Timer(0.5, setattr, (tampering_proxy, "server_port", port))
    back.start()
    yield
    back.join()


@pytest.mark.s3
def test_store_that_is_away_at_the_start_is_waited_for_as_later(s3, away, monkeypatch):
    monkeypatch.setattr(retry, "LONG_BACKOFF", Backoff(total=10, first=0.05))
    assert open_storage(s3).list() == []


@pytest.mark.s3
def test_result_is_sent_to_a_store_that_was_away_for_longer(s3, away, monkeypatch, tmp_path):
    (tmp_path / "page.html").write_text("<p>")
    monkeypatch.setattr(retry, "RESULT_BACKOFF", Backoff(total=10, first=0.05))
    send_artifact(tmp_path / "page.html", f"{s3}/page.html")
    assert open_storage(s3).get("page.html") == b"<p>"


@pytest.mark.usefixtures("impatient", "isolated_environment")
def test_server_that_does_not_answer_is_named_with_where_its_address_is_from(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with pytest.raises(
        ConnectionError,
        match=r"s3://san/x: http://127.0.0.1:1 \(from AWS_ENDPOINT_URL\) cannot be reached: "
        "Connection refused",
    ):
        open_storage("s3://san/x").list()


@pytest.mark.usefixtures("isolated_environment")
def test_missing_credentials_are_asked_for():
    with pytest.raises(PermissionError, match="s3://san: no credentials; set AWS_ACCESS_KEY_ID"):
        open_storage("s3://san/x")


@pytest.mark.parametrize(
    "uri",
    ["s3://", "s3:///x", "s3://UPPER/x", "s3://a", "minio://a_b/x", "s3://a..b", "s3://10.0.0.1"],
)
def test_impossible_buckets_are_refused(uri):
    with pytest.raises(
        ValueError, match="is not a bucket's name, which has 3 to 63 lower-case letters"
    ):
        open_storage(uri)


@pytest.mark.usefixtures("isolated_environment")
@pytest.mark.parametrize("content", ["hunter2\n", "[default]\naws_access_key_id = %hunter2\n"])
def test_malformed_file_of_credentials_is_named_and_not_quoted(tmp_path, content):
    (tmp_path / "home" / ".aws").mkdir(parents=True)
    (tmp_path / "home" / ".aws" / "credentials").write_text(content)
    with pytest.raises(PermissionError, match="the file of AWS credentials is malformed") as raised:
        open_storage("s3://san/x")
    assert "hunter2" not in "".join(traceback.format_exception(raised.value))


@pytest.mark.usefixtures("isolated_environment")
@pytest.mark.parametrize("name", ["ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN"])
def test_credentials_with_a_line_break_are_refused_and_not_shown(monkeypatch, name):
    for one in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN"):
        monkeypatch.setenv(f"AWS_{one}", "hunter2\n" if one == name else "fine")
    with pytest.raises(PermissionError, match="holds white space") as raised:
        open_storage("s3://san/x")
    assert "hunter2" not in str(raised.value)


@pytest.mark.usefixtures("isolated_environment")
def test_role_that_is_not_lent_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/san")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "missing"))
    with pytest.raises(
        PermissionError, match="role that AWS_WEB_IDENTITY_TOKEN_FILE names could not"
    ):
        open_storage("s3://san/x")


@pytest.mark.s3
def test_server_that_is_no_store_is_recognised(s3, tampering_proxy):
    tampering_proxy.tamper = lambda answer: b"<!doctype html>".ljust(len(answer.body))
    with pytest.raises(OSError, match="does not answer like an S3 server"):
        open_storage(s3).list()


@pytest.mark.usefixtures("isolated_environment")
@pytest.mark.parametrize(
    ("cause", "passes"),
    [
        (ssl.SSLEOFError(8, "broken off"), True),
        (ssl.SSLCertVerificationError(1, "self-signed"), False),
    ],
)
def test_broken_tls_may_pass_but_a_refused_certificate_does_not(monkeypatch, cause, passes):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    storage = open_storage("s3://san/x")
    error = urllib3.exceptions.SSLError(cause)
    assert storage._is_transient(error) == passes
    words = "breaks off: broken off" if passes else r"is not trusted \(self-signed\); name trusted"
    assert re.search(words, str(storage._readable_error(error, "s3://san/x", "s3:GetObject")))


NO_KMS = "User: arn:aws:iam::1:user/san is not authorized to perform: kms:GenerateDataKey"


@pytest.mark.usefixtures("isolated_environment")
@pytest.mark.parametrize(
    ("status", "code", "message", "words"),
    [
        (
            403,
            "AccessDenied",
            NO_KMS,
            rf"denies access; .* do they allow s3:X\? It says: {NO_KMS}$",
        ),
        (403, "AccessDenied", "Access Denied", r"do they allow s3:X\?$"),
        (403, "QuotaExceeded", "It is full", "answers QuotaExceeded: It is full$"),
        (403, "InvalidObjectState", "archived", "answers InvalidObjectState: archived$"),
        (400, "KMS.DisabledException", "Key is off", r"answers KMS\.Disabled.*: Key is off$"),
    ],
)
def test_refusal_keeps_the_cause_that_the_store_tells(monkeypatch, status, code, message, words):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    storage = open_storage("s3://san/x")
    response = types.SimpleNamespace(status=status, headers={})
    error = S3Error(response, code, message, "x", "1", "2")
    told = storage._readable_answer(error, "s3://san/x", "s3:X")
    assert re.search(words, str(told))
    assert isinstance(told, PermissionError) == (status == 403)


@pytest.mark.parametrize("name", ["../x", "/x", "a//b", "", "./a"])
def test_names_do_not_leave_their_root(name, isolated_environment, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with pytest.raises(ValueError, match="is not a plain relative path"):
        open_storage("s3://san/root").get(name)


# Who is let in


@pytest.mark.s3
@pytest.mark.parametrize("place", ["MINIO", "file"])
def test_credentials_are_found_in_the_usual_places(s3, monkeypatch, tmp_path, place):
    from tests.servers.seaweedfs import ACCESS_KEY

    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    if place == "MINIO":
        monkeypatch.setenv("MINIO_ENDPOINT", os.environ["AWS_ENDPOINT_URL"])
        monkeypatch.setenv("MINIO_ACCESS_KEY", ACCESS_KEY)
        monkeypatch.setenv("MINIO_SECRET_KEY", SECRET_KEY)
        with pytest.raises(PermissionError, match="s3://san: no credentials; set AWS_ACCESS_KEY"):
            open_storage(s3)
        s3 = s3.replace("s3://", "minio://")
    else:
        file = tmp_path / "home" / ".aws" / "credentials"
        file.parent.mkdir(parents=True)
        file.write_text(
            f"[default]\naws_access_key_id={ACCESS_KEY}\naws_secret_access_key={SECRET_KEY}\n"
        )
    assert open_storage(s3).list() == []


@pytest.mark.s3
def test_variables_of_aws_serve_minio_only_where_it_has_none_of_its_own(s3, monkeypatch):
    uri = s3.replace("s3://", "minio://")
    assert open_storage(uri).list() == []
    monkeypatch.setenv("MINIO_ENDPOINT", os.environ["AWS_ENDPOINT_URL"])
    with pytest.raises(PermissionError, match="set MINIO_ACCESS_KEY and MINIO_SECRET_KEY: AWS_"):
        open_storage(uri)
    monkeypatch.setenv("MINIO_ACCESS_KEY", "nobody")
    monkeypatch.setenv("MINIO_SECRET_KEY", SECRET_KEY)
    with pytest.raises(PermissionError, match="the access key; is MINIO_ACCESS_KEY right"):
        open_storage(uri).list()
    assert open_storage(s3).list() == []


STS = """<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{key}</AccessKeyId>
<SecretAccessKey>{secret}</SecretAccessKey><SessionToken></SessionToken>
<Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult>
</AssumeRoleWithWebIdentityResponse>"""


@pytest.fixture
def sts():
    """A token service that lends the server's keys for a web identity token."""
    from tests.servers.seaweedfs import ACCESS_KEY

    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            length = int(self.headers.get("Content-Length") or 0)
            asked.append(f"{self.path} {self.rfile.read(length).decode()}")
            body = STS.format(key=ACCESS_KEY, secret=SECRET_KEY).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", asked
    server.shutdown()
    server.server_close()


@pytest.mark.s3
def test_role_of_a_service_account_is_used(s3, sts, monkeypatch, tmp_path):
    url, asked = sts
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    claims = base64.urlsafe_b64encode(json.dumps({"exp": 4070908800}).encode()).decode()
    token = f"e30.{claims.rstrip('=')}.x"
    (tmp_path / "token").write_text(token)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/san")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", url)
    assert open_storage(s3).list() == []
    assert token in asked[0]
    assert "role%2Fsan" in asked[0]


# What may pass is tried again; what arrives wrong is not believed


def _once(change):
    """A lie about the first answer with content, and the truth from then on."""
    told = []

    def lie(answer):
        if told or answer.method != "GET" or not answer.body or "list-type" in answer.path:
            return answer.body
        told.append(True)
        return change(answer.body)

    return lie


def flipped(body):
    return body[:-1] + bytes([body[-1] ^ 1])


def truncated(body):
    return body[: len(body) // 2]


@pytest.mark.s3
@pytest.mark.parametrize("change", [truncated, flipped])
def test_body_that_arrives_wrong_is_read_again(s3, tampering_proxy, caplog, change):
    storage = open_storage(s3)
    storage.put_bytes("x", b"0123456789")
    tampering_proxy.tamper = _once(change)
    assert storage.get("x") == b"0123456789"
    assert tampering_proxy.tampered == 1
    assert "trying again" in caplog.text


@pytest.mark.s3
def test_truncated_part_is_read_again(s3, tampering_proxy):
    storage = open_storage(s3)
    storage.put_bytes("x", b"0123456789")
    tampering_proxy.tamper = _once(truncated)
    assert storage.get_range("x", 2, 6) == b"234567"
    assert tampering_proxy.tampered == 1


@pytest.mark.s3
@pytest.mark.usefixtures("impatient")
def test_body_that_always_arrives_wrong_is_never_believed(s3, tampering_proxy):
    storage = open_storage(s3)
    storage.put_bytes("x", b"0123456789")
    tampering_proxy.tamper = lambda answer: (
        flipped(answer.body) if answer.method == "GET" else answer.body
    )
    with pytest.raises(OSError, match="x arrives damaged every time: its sha256 is not"):
        storage.get("x")
    tampering_proxy.tamper = lambda answer: (
        truncated(answer.body) if answer.method == "GET" else answer.body
    )
    with pytest.raises(ConnectionError, match=r"x: http://.* breaks off: "):
        storage.get("x")


@pytest.mark.s3
def test_body_that_is_damaged_on_its_way_to_the_store_is_put_again(
    s3, tampering_proxy, tmp_path, caplog
):
    told = []

    def garble(method, body):
        if method != "PUT" or len(told) > 1:
            return body
        told.append(method)
        return flipped(body)

    storage = open_storage(s3)
    storage.list()
    tampering_proxy.alter_request = garble
    (tmp_path / "file").write_bytes(b"0123456789")
    storage.put_file("x", tmp_path / "file")
    assert len(told) == 2
    assert caplog.text.count("trying again") == 2
    assert storage.get("x") == b"0123456789"


@pytest.mark.s3
@pytest.mark.usefixtures("impatient")
def test_body_that_is_always_damaged_on_its_way_is_not_kept(s3, tampering_proxy):
    storage = open_storage(s3)
    tampering_proxy.alter_request = lambda method, body: flipped(body) if method == "PUT" else body
    with pytest.raises(OSError, match="x: http"):
        storage.put_bytes("x", b"0123456789")
    assert storage.stat("x") is None


@pytest.mark.s3
def test_store_that_keeps_too_little_of_a_file_is_noticed(s3, tmp_path, monkeypatch, impatient):
    storage = open_storage(s3)
    (tmp_path / "file").write_bytes(b"0123456789")
    short = types.SimpleNamespace(size=9)  # what a store says that has lost a byte
    monkeypatch.setattr(storage._client, "stat_object", lambda *_: short)
    with pytest.raises(OSError, match="9 bytes are stored, but 10 were sent"):
        storage.put_file("x", tmp_path / "file")


@pytest.mark.s3
def test_slow_store_has_the_time_it_needs_for_a_long_body(s3, tampering_proxy, monkeypatch):
    """Each piece must be taken in time, not the whole."""
    monkeypatch.setattr("components.storage.s3_client.SECONDS_TO_CONNECT", 0.5)
    tampering_proxy.seconds_per_mib = 0.1
    storage = open_storage(s3)
    data = bytes(24 << 20)
    storage.put_bytes("x", data)
    tampering_proxy.seconds_per_mib = 0
    assert storage.get("x") == data


# Patience


def test_retries_wait_longer_each_time_and_end(monkeypatch, caplog):
    now, tries = [0.0], []
    monkeypatch.setattr(retry.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(retry.time, "sleep", lambda s: now.__setitem__(0, now[0] + s))
    monkeypatch.setattr(retry.random, "uniform", lambda low, high: high if low == 0.5 else 99)

    def action():
        tries.append(now[0])
        raise OSError("down")

    with pytest.raises(OSError, match="down"):
        retry.call_with_retries(
            action, is_transient=lambda _: True, what="x", backoff=Backoff(10, first=1, longest=4)
        )
    assert tries == [0, 1, 3, 7]  # the next would begin at 11
    assert caplog.text.count("x: down; trying again in") == 3


def test_what_a_try_took_while_it_got_on_is_not_held_against_it(monkeypatch):
    now, tries = [0.0], []
    monkeypatch.setattr(retry.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(retry.time, "sleep", lambda s: now.__setitem__(0, now[0] + s))

    def upload():
        tries.append(now[0])
        now[0] += 600
        if len(tries) < 3:
            retry.note_progress()
        now[0] += 6  # the store says nothing more
        raise OSError("broken off")

    backoff = Backoff(20, first=1, longest=1)
    with pytest.raises(OSError, match="broken off"):
        retry.call_with_retries(upload, is_transient=lambda _: True, what="x", backoff=backoff)
    assert len(tries) == 3  # the third got on at no moment


def test_waiting_retries_end_when_the_pool_is_left():
    def fail():
        raise OSError("down")

    def try_on():
        backoff = Backoff(total=20, first=10)
        retry.call_with_retries(fail, is_transient=lambda _: True, what="x", backoff=backoff)

    started = time.monotonic()
    with suppress(KeyboardInterrupt), thread_pool(2) as pool:
        for _ in range(4):
            pool.submit(try_on)
        raise KeyboardInterrupt
    assert time.monotonic() - started < 2


def test_reading_ends_when_the_pool_is_left():
    read = []

    class Endless:
        def read(self, size):
            read.append(size)
            time.sleep(0.01)
            return b"x"

    started = time.monotonic()
    with suppress(KeyboardInterrupt), thread_pool(2) as pool:
        pool.submit(object_store._read_body, Endless(), 300)
        while not read:
            time.sleep(0.01)
        raise KeyboardInterrupt
    assert time.monotonic() - started < 2


@pytest.mark.s3
def test_folder_that_a_console_has_made_is_no_object(s3, s3_server):
    storage = open_storage(s3)
    key = f"{storage.prefix}/photos/"
    s3_server.client().put_object(storage.bucket, key, io.BytesIO(), 0)
    assert storage.list() == []
    assert storage.is_empty()
    storage.put_bytes("photos/1.jpg", b"1")
    assert not storage.is_empty()


@pytest.mark.s3
def test_a_piece_that_is_always_too_short_is_reported_once(s3, tmp_path, monkeypatch, caplog):
    storage = open_storage(s3)
    storage.put_bytes("x", b"12345")
    monkeypatch.setattr(object_store, "_read_body", lambda _response, _most: b"123")
    with pytest.raises(OSError, match="x arrives damaged every time: 3 bytes arrived") as raised:
        storage.get_file("x", tmp_path / "x")
    assert str(raised.value).count("damaged every time") == 1
    assert caplog.text.count("trying again") == 2


@pytest.mark.s3
def test_long_upload_that_breaks_off_is_tried_again(s3, tampering_proxy, monkeypatch, caplog):
    """It takes longer than the store is waited for, but gets on all the time."""
    monkeypatch.setattr(retry, "SHORT_BACKOFF", Backoff(total=1.5, first=0.05))
    broken = []

    def break_off(method, body):
        if method == "PUT" and not broken:
            broken.append(len(body))
            tampering_proxy.seconds_per_mib = 0
            raise ConnectionError
        return body

    tampering_proxy.alter_request = break_off
    tampering_proxy.seconds_per_mib = 0.1
    open_storage(s3).put_bytes("x", bytes(24 << 20))
    assert broken == [24 << 20]
    assert caplog.text.count("trying again") == 1


def test_error_that_does_not_pass_is_raised_at_once(caplog):
    tries = []

    def action():
        tries.append(1)
        raise ValueError("wrong")

    with caplog.at_level(logging.WARNING), pytest.raises(ValueError, match="wrong"):
        retry.call_with_retries(action, is_transient=lambda _: False, what="x", backoff=SHORT)
    assert len(tries) == 1
    assert caplog.text == ""
