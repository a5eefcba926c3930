"""The connection to one server of Kubeflow Pipelines: host, token, proxy, certificates, refusals.

Requests go through the generated client (kfp-server-api). Errors become one line for the person who
submits.
"""

import os
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import kfp_server_api as kfp
import urllib3

from components.storage.retry import root_cause
from san_core.checked_json import read_json

T = TypeVar("T")

# (to connect, to answer); a server with a busy database takes seconds.
TIMEOUT = (10.0, 60.0)
NOT_KUBEFLOW = (
    "answers, but not as Kubeflow Pipelines 2; if it shows a login page, it needs --token-file"
)
# The answer of a server for several users to a request without a namespace.
_NEEDS_NAMESPACE = "empty namespace in multi-user mode"
# Errors that another authority does not solve: the certificate has expired, or is of another host.
_CERTIFICATE_OF_ANOTHER = (10, 62, 64)
# The server may have carried out a request that failed with one of these.
_BROKEN_OFF = (urllib3.exceptions.ReadTimeoutError, urllib3.exceptions.ProtocolError)


class SubmissionError(Exception):
    """The reason, in one line, why a pipeline was not submitted or its run did not succeed."""


class UnavailableError(SubmissionError):
    """The server cannot be reached at present."""


class NotFoundError(SubmissionError):
    """The server does not have the requested object."""


@dataclass(frozen=True)
class Server:
    """The address of Kubeflow Pipelines, and the identity of its user.

    Attributes:
        host: URL of its API or user interface, such as http://localhost:8080
        namespace: the profile of a multi-user installation; empty for a single-user one
        token_file: file with a bearer token, read again for every request, as tokens expire
    """

    host: str
    namespace: str = ""
    token_file: Path | None = None

    def __post_init__(self) -> None:
        if "@" in self.host:  # not repeated, as messages may be logged
            raise ValueError(
                "--host holds a user name or password (before @); give it without, and a token by "
                "--token-file"
            )
        if not self.host.startswith(("http://", "https://")) or not urlsplit(self.host).hostname:
            raise ValueError(f"--host {self.host} is not a URL such as https://kubeflow.example")
        if self.token_file is not None:
            read_token(self.token_file)

    def page_url(self, *path: str) -> str:
        """A page of the user interface, such as runs/details/ID."""
        return f"{self.host.rstrip('/')}/#/{'/'.join(path)}"

    def run_url(self, run: str) -> str:
        """The page of a run."""
        return self.page_url("runs", "details", run)


def read_token(file: Path) -> str:
    """The bearer token in a file; messages never contain any of it.

    Raises:
        ValueError: the file cannot be read, is empty, or holds more than one word.
    """
    try:
        token = file.read_text("ascii").strip()
    except OSError as error:
        raise ValueError(f"--token-file {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"--token-file {file} is not a token: it is not text") from None
    if len(token.split()) != 1:
        found = "is empty" if not token else "has several words"
        raise ValueError(f"--token-file {file} {found}; it must hold one token and nothing else")
    return token


class Proxy(NamedTuple):
    """A proxy between this network and the server; messages show only `url`."""

    url: str
    user_info: str

    def __str__(self) -> str:
        return self.url


def find_proxy(url: str) -> Proxy | None:
    """The proxy that HTTPS_PROXY or HTTP_PROXY names for a URL, unless NO_PROXY names its host.

    Raises:
        ValueError: it is not an http:// or https:// URL; the message does not repeat it.
    """
    parts, proxies = urlsplit(url), getproxies()
    given = proxies.get(parts.scheme, "")
    if not given or proxy_bypass(parts.netloc):
        return None
    scheme, _, rest = (given if "://" in given else f"http://{given}").partition("://")
    user_info, _, address = rest.rpartition("@")
    if scheme not in ("http", "https") or not urlsplit(f"{scheme}://{address}").hostname:
        raise ValueError(
            f"{parts.scheme.upper()}_PROXY is not a URL such as http://proxy.example:3128"
        )
    return Proxy(f"{scheme}://{address}", unquote(user_info))


class Connection:
    """Requests to one server, with error messages for the person who submits."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.proxy = find_proxy(server.host)
        self.api = kfp.ApiClient(self._configuration())

    def call(self, request: Callable[[], T], *, needs: str = "", if_sent: str = "") -> T:
        """The answer to a request.

        Args:
            request: sends the request.
            needs: an attribute that every valid answer to this request has.
            if_sent: advice for an error after which the server may have carried out the request.

        Raises:
            SubmissionError: the server cannot be reached, or refuses.
        """
        host = self.server.host
        try:
            answer = request()
        except urllib3.exceptions.HTTPError as error:
            raise self._unreachable_error(error, if_sent) from error
        except kfp.ApiException as error:
            raise self._refusal_error(error, if_sent) from error
        except (
            ValueError,
            TypeError,
            AttributeError,
        ) as error:  # how the client fails on a web page
            if isinstance(
                error.__context__, kfp.ApiException
            ):  # the client fails on an error without a body
                raise self._refusal_error(error.__context__, if_sent) from error
            raise SubmissionError(f"{host} {NOT_KUBEFLOW}") from error
        if needs and not getattr(answer, needs):  # a web page becomes an empty answer
            raise SubmissionError(f"{host} {NOT_KUBEFLOW}")
        return answer

    def _configuration(self) -> "kfp.Configuration":
        """The configuration of the generated client."""
        configuration = kfp.Configuration(host=self.server.host.rstrip("/"))
        configuration.retries = False  # `follow_run` repeats the requests that may be repeated
        configuration.ssl_ca_cert = os.environ.get("SSL_CERT_FILE") or None
        if configuration.ssl_ca_cert and not Path(configuration.ssl_ca_cert).is_file():
            raise ValueError(f"SSL_CERT_FILE names {configuration.ssl_ca_cert}, which is no file")
        if self.proxy:
            configuration.proxy = self.proxy.url
            if self.proxy.user_info:
                configuration.proxy_headers = urllib3.util.make_headers(
                    proxy_basic_auth=self.proxy.user_info
                )
        if self.server.token_file is not None:
            configuration.api_key_prefix["authorization"] = "Bearer"
            configuration.refresh_api_key_hook = self._renew_token
            self._renew_token(configuration)
        return configuration

    def _unreachable_error(
        self, error: "urllib3.exceptions.HTTPError", if_sent: str
    ) -> SubmissionError:
        """The error for a request without an answer."""
        by = f" through the proxy {self.proxy}" if self.proxy else ""
        host = f"{self.server.host}{by}"
        if not isinstance(error, _BROKEN_OFF):
            return UnavailableError(f"cannot reach {host}: {root_cause(error)}")
        reason = f"the connection to {host} broke off: {root_cause(error)}"
        if isinstance(error, urllib3.exceptions.ReadTimeoutError):
            reason = f"{host} has not answered within {TIMEOUT[1]:g} s"
        return UnavailableError(f"{reason}; {if_sent}" if if_sent else reason)

    def _tls_error(self, error: "kfp.ApiException") -> SubmissionError:
        """The error for a TLS failure."""
        host, cause = self.server.host, _certificate_error(error)
        if cause is None:
            return SubmissionError(f"cannot reach {host}: {' '.join(str(error.reason).split())}")
        hint = "; SSL_CERT_FILE names a file of certificates that are"
        if cause.verify_code in _CERTIFICATE_OF_ANOTHER:
            hint = ""
        return SubmissionError(
            f"the certificate of {host} is not trusted ({cause.verify_message.rstrip('.')}){hint}"
        )

    def _refusal_error(self, error: "kfp.ApiException", if_sent: str) -> SubmissionError:
        """The error for a status, in words for the person who submits."""
        host, said = self.server.host, _server_message(error)
        if not error.status:
            return self._tls_error(error)
        if error.status in (401, 403):
            return self._forbidden_error(error.status, said)
        if _NEEDS_NAMESPACE in said:
            return SubmissionError(
                f"{host} is an installation for several users; give your profile with --namespace"
            )
        if 300 <= error.status < 400 or (error.status == 404 and not said):
            return SubmissionError(f"{host} {NOT_KUBEFLOW} ({error.status})")
        text = f"{host} refuses ({error.status}{said})"
        if error.status == 404:
            return NotFoundError(text)
        # 5xx is a failure of the server itself, such as a restart or a wait for its database.
        if error.status >= 500:
            return UnavailableError(f"{text}; {if_sent}" if if_sent else text)
        return UnavailableError(text) if error.status == 429 else SubmissionError(text)

    def _forbidden_error(self, status: int, said: str) -> SubmissionError:
        """The error for a user without access, with what is missing."""
        host, namespace, file = self.server.host, self.server.namespace, self.server.token_file
        if status == 401:
            wants = f"does not accept the token in {file}" if file else "needs --token-file"
            return SubmissionError(f"{host} {wants} (401{said})")
        where = f"in namespace {namespace}" if namespace else "there"
        hint = "" if namespace else "; it may need --namespace"
        return SubmissionError(f"{host} does not let you run pipelines {where} (403{said}){hint}")

    def _renew_token(self, configuration: "kfp.Configuration") -> None:
        """Put the current token of the file into the next request."""
        assert self.server.token_file is not None
        try:
            configuration.api_key["authorization"] = read_token(self.server.token_file)
        except ValueError as error:  # it could be read before
            raise SubmissionError(str(error)) from error


def _certificate_error(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    """The refused certificate that caused an error, if one did."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error
        inner = [one for one in error.args if isinstance(one, BaseException)]
        error = error.__cause__ or error.__context__ or (inner[0] if inner else None)
    return None


def _server_message(error: "kfp.ApiException") -> str:
    """The first line of the server's own explanation, if it has one."""
    try:
        content = read_json(error.body or "", dict[str, Any], where="the answer")
        words = (content.get(key) for key in ("message", "error_message", "error"))
        text = str(next(filter(None, words), ""))
    except ValueError:
        # Uploads are refused in plain text; other plain text comes from a proxy before the server.
        is_plain = error.status == 400 and not re.match(r"\s*<", error.body or "<")
        text = error.body if is_plain else ""
    line = " ".join(text.split())
    return f": {line[:300]}" if line else ""
