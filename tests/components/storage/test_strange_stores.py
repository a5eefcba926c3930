"""Servers that are not S3: web pages, endless listings, dropped connections."""

import http.server
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from components.__main__ import main
from components.process.threads import thread_pool
from components.storage import retry, s3_client, staging, transfer
from components.storage.places import open_storage
from components.storage.store import MOST_IN_MEMORY, Stat

pytestmark = pytest.mark.usefixtures("impatient")
NAMESPACE = "xmlns='http://s3.amazonaws.com/doc/2006-03-01/'"


def page(*keys: str, truncated: str = "false") -> bytes:
    """A page of a listing."""
    time_ = "<LastModified>2026-01-01T00:00:00.000Z</LastModified>"
    found = "".join(f"<Contents><Key>{k}</Key>{time_}<Size>1</Size></Contents>" for k in keys)
    told = f"<Name>san</Name><IsTruncated>{truncated}</IsTruncated>"
    more = "<NextContinuationToken>t</NextContinuationToken>"
    return f"<ListBucketResult {NAMESPACE}>{told}{more}{found}</ListBucketResult>".encode()


@contextmanager
def answering(
    monkeypatch, body: bytes, *, status=200, kind="text/html", size=None, pause=0.0
) -> Iterator[None]:
    """A server that gives one answer to whatever it is asked, byte by byte where it pauses."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body) if size is None else size))
            self.end_headers()
            pieces = [body[at : at + 1] for at in range(len(body))] if pause else [body]
            try:
                for piece in pieces:
                    self.wfile.write(piece)
                    time.sleep(pause)
            except ConnectionError:
                return

        def log_message(self, *_arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setattr(retry, "LONG_BACKOFF", retry.Backoff(total=0))
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("ask", ["get", "put"])
def test_a_request_to_a_server_that_is_silent_ends_with_the_work_it_was_for(monkeypatch, ask):
    def leave_while_it_is_asked() -> None:
        with thread_pool(1) as pool:
            pool.submit(getattr(storage, "get" if ask == "get" else "put_bytes"), "a", *more)
            kept.append(server.accept()[0])
            kept[0].recv(1)  # the request has begun; nobody reads on, and nobody answers
            time.sleep(0.2)
            raise KeyboardInterrupt

    kept: list[socket.socket] = []
    more = (bytes(64 << 20),) if ask == "put" else ()  # more than a system takes on itself
    with socket.create_server(("127.0.0.1", 0)) as server, answering(monkeypatch, b""):
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.getsockname()))
        storage = open_storage("s3://san/x")
        with pytest.raises(KeyboardInterrupt):
            leave_while_it_is_asked()
        kept[0].close()


@pytest.mark.parametrize(
    "body",
    [
        b"<!doctype html><html><head><title>Console</title><body><br>Log in</html>",
        b"<html><body>Log in</body></html>",
        b"<?xml version='1.0'?><Other><Key>x</Key></Other>",
        page("a").replace(b"<Size>1</Size>", b"<Size>much</Size>"),
        b"{}",
        b"",
    ],
    ids=["html", "xhtml", "xml", "size", "json", "nothing"],
)
@pytest.mark.parametrize("ask", ["list", "is_empty"])
def test_a_page_in_place_of_a_listing_is_one_line(monkeypatch, body, ask):
    with answering(monkeypatch, body):
        with pytest.raises(OSError, match=r"does not answer like an S3 server") as raised:
            getattr(open_storage("s3://san/x"), ask)()
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "words",
    [["imageset", "ls", "s3://san/x"], ["check_reid", "--dataset", "s3://san/x", "--counts", "c"]],
    ids=["imageset", "step"],
)
@pytest.mark.parametrize(
    ("kind", "body", "shown"),
    [
        (
            "application/xml",
            "<Error><Code>AccessDenied</Code><Message>\x9b2Jkey \u202eoff</Message></Error>",
            r"It says: \x9b2Jkey \u202eoff",
        ),
        ("text/plain", "\x1b]0;owned\x07 \x9b2J", r"\x1b]0;owned\x07 \x9b2J"),
    ],
    ids=["XML", "text"],
)
def test_commands_for_a_terminal_in_an_answer_are_shown_as_numbers(
    monkeypatch, tmp_path, capfd, words, kind, body, shown
):
    monkeypatch.chdir(tmp_path)
    with answering(monkeypatch, body.encode(), status=403, kind=f"{kind}; charset=utf-8"):
        assert main(words) == 1
    told = capfd.readouterr()
    assert shown in told.err
    assert not re.search("[\x07\x1b\x9b\u202e]", told.out + told.err)


@pytest.mark.parametrize(
    ("body", "what"),
    [(page("a", "b", truncated="true"), "2 objects"), (page(truncated="true"), "empty pages")],
)
def test_a_listing_without_end_is_given_up(monkeypatch, body, what):
    with (
        answering(monkeypatch, body, kind="application/xml"),
        pytest.raises(OSError, match=rf"like an S3 server: a listing without end, of {what}"),
    ):
        open_storage("s3://san").list()


def test_a_listing_that_ends_is_read(monkeypatch):
    with answering(monkeypatch, page("a", "b"), kind="application/xml"):
        assert [stat.name for stat in open_storage("s3://san").list()] == ["a", "b"]


@pytest.mark.parametrize("ask", ["list", "get"])
def test_an_answer_that_drips_is_given_up(monkeypatch, ask):
    monkeypatch.setattr(s3_client, "SECONDS_OF_PATIENCE", 0.3)
    with answering(monkeypatch, page("a") * 10, kind="application/xml", pause=0.02):
        storage = open_storage("s3://san")
        with pytest.raises(ConnectionError, match=r"breaks off: only \d+ bytes came in 0 s"):
            storage.list() if ask == "list" else storage.get("a")


def test_an_object_that_is_larger_than_memory_is_not_read(monkeypatch):
    with (
        answering(monkeypatch, b"", size=50 * 10**9),
        pytest.raises(OSError, match=r"san/a has 50,000,000,000 bytes; at most 536,870,912"),
    ):
        open_storage("s3://san").get("a")


def test_a_user_without_home_gets_the_required_setting(monkeypatch):
    def nobody(_user: int) -> None:
        raise KeyError

    for name in ("HOME", "XDG_CACHE_HOME", "SAN_CACHE", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    with pytest.raises(PermissionError, match=r"no credentials; set AWS_ACCESS_KEY_ID"):
        open_storage("s3://san/x")
    with pytest.raises(FileNotFoundError, match=r"has no home for .* set SAN_CACHE to a folder"):
        staging.cache_folder()


def test_a_read_only_home_is_reported_with_the_required_setting(monkeypatch):
    for name in ("XDG_CACHE_HOME", "SAN_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/dev/null")
    message = "cannot create /dev/null/.cache/san-pipeline for .* set SAN_CACHE to a folder"
    with pytest.raises(FileNotFoundError, match=message):
        staging.cache_folder()


class Objects:
    """A store of objects of any name and size."""

    uri = "s3://san/x"

    def __init__(self, **sizes: int) -> None:
        self.sizes = sizes

    def list(self) -> list[Stat]:
        return [Stat(name, size, "") for name, size in self.sizes.items()]

    def get(self, name: str) -> bytes:
        return b"x" * self.sizes[name]


STRANGE = {"a": 3, "a/1.jpg": 1, "b/c": 0, "b/c/2.jpg": 2, "../out": 1, "n" * 300: 1, "d//3": 1}


def test_objects_that_cannot_be_files_are_left_out_by_name(monkeypatch):
    monkeypatch.setattr(transfer, "open_storage", lambda _uri: Objects(**STRANGE))
    told: dict[str, str] = {}
    with transfer.local_source("s3://san/x", told.__setitem__) as folder:
        found = {f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file()}
    assert found == {"a/1.jpg", "b/c/2.jpg"}  # an empty object b/c is what some programs call one
    no_name = "the name of no file"
    kinds = {"../out": no_name, "n" * 300: no_name, "d//3": no_name, "a": "a file and a folder"}
    assert told == kinds


def test_objects_that_cannot_be_files_are_refused_where_nothing_is_left_out(monkeypatch):
    monkeypatch.setattr(transfer, "open_storage", lambda _uri: Objects(a=1, **{"a/1.jpg": 1}))
    with (
        pytest.raises(
            ValueError, match=r"s3://san/x/a cannot be downloaded: it is a file and a fol"
        ),
        transfer.local_source("s3://san/x"),
    ):
        pass


def test_room_for_all_objects_is_looked_for_before_the_first_is_fetched(monkeypatch):
    monkeypatch.setattr(transfer, "open_storage", lambda _uri: Objects(a=MOST_IN_MEMORY << 30))
    with (
        pytest.raises(OSError, match=r"no space left \(needs [\d,.]+ MB, has [\d,.]+ MB\)"),
        transfer.local_source("s3://san/x"),
    ):
        pass
