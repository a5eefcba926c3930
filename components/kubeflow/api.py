"""Kubeflow Pipelines' v2beta1 API: starting a run and following it.

Spoken is through the client that its makers generate (kfp-server-api); what goes wrong is said in
one line for the person who submits.
"""

import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, TypeVar

import kfp_server_api as kfp
import urllib3

from components.storage.retry import Backoff, call_with_retries, root_cause

T = TypeVar("T")

END_STATES = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
SECONDS_BETWEEN_LOOKS = 5.0
# (to connect, to answer); a server that is busy with its database takes seconds.
TIMEOUT = (10.0, 60.0)
# While a run is followed, for how long its server may be away.
PATIENCE = Backoff(total=300)
NOT_KUBEFLOW = (
    "answers, but not as Kubeflow Pipelines 2; if it shows a login page, it wants --token-file"
)

# What KFP calls the nodes that are none of the pipeline's tasks.
_INTERNAL_NODES = r"root|executor(\(\d+\))?|.*-driver"


class SubmissionError(Exception):
    """Why a pipeline could not be submitted, or its run did not succeed, in one line."""


@dataclass(frozen=True)
class Server:
    """Where Kubeflow Pipelines is, and who asks.

    Attributes:
        host: URL of its API or user interface, such as http://localhost:8080
        namespace: the profile of a multi-user installation; empty for a single-user one
        token_file: file with a bearer token, read anew for every request, as tokens get old
    """

    host: str
    namespace: str = ""
    token_file: Path | None = None

    def __post_init__(self) -> None:
        if not self.host.startswith(("http://", "https://")):
            raise ValueError(f"--host {self.host} is not a URL such as https://kubeflow.example")
        if self.token_file is not None:
            read_token(self.token_file)

    def run_url(self, run: str) -> str:
        """The page of a run in the user interface."""
        return f"{self.host.rstrip('/')}/#/runs/details/{run}"


def read_token(file: Path) -> str:
    """The bearer token in a file; messages never show any of it.

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


class KubeflowClient:
    """The API of one server, with errors in words for the person who submits."""

    def __init__(self, server: Server, *, terminal: TextIO | None = None) -> None:
        self.server = server
        self.terminal = terminal or sys.stdout
        configuration = kfp.Configuration(host=server.host.rstrip("/"))
        configuration.retries = False  # what may be asked again is asked again by `follow_run`
        configuration.ssl_ca_cert = os.environ.get("SSL_CERT_FILE")
        if server.token_file is not None:
            configuration.api_key_prefix["authorization"] = "Bearer"
            configuration.refresh_api_key_hook = self._renew_token
            self._renew_token(configuration)
        client = kfp.ApiClient(configuration)
        self._experiments = kfp.ExperimentServiceApi(client)
        self._runs = kfp.RunServiceApi(client)

    def start_run(
        self,
        documents: Sequence[Mapping[str, Any]],
        arguments: Mapping[str, Any],
        *,
        experiment: str,
        name: str,
        pipeline_root: str = "",
        service_account: str = "",
    ) -> str:
        """Start a run, say where its page is, and return its id.

        Args:
            documents: the compiled pipeline and, if there is one, its platform specification.
            arguments: values of the pipeline's parameters.
            experiment: the experiment it belongs to; made if there is none of that name.
            name: what the run is called.
            pipeline_root: where artifacts are kept; empty for the server's own place.
            service_account: which its pods use; empty for the server's own choice.

        Raises:
            SubmissionError: the server cannot be reached, or refuses.
        """
        pipeline = documents[0]
        if len(documents) > 1:
            pipeline = {"pipeline_spec": documents[0], "platform_spec": documents[1]}
        run = kfp.V2beta1Run(
            experiment_id=self._experiment_id(experiment),
            display_name=name,
            pipeline_spec=pipeline,
            runtime_config=kfp.V2beta1RuntimeConfig(
                parameters=dict(arguments), pipeline_root=pipeline_root or None
            ),
            service_account=service_account or None,
        )
        made = self._call(
            lambda: self._runs.run_service_create_run(run, _request_timeout=TIMEOUT), needs="run_id"
        )
        self._write_line(f"run {name}: {self.server.run_url(made.run_id)}")
        return str(made.run_id)

    def follow_run(self, run: str) -> None:
        """Say how the states of a run and its tasks change, until it has succeeded.

        Raises:
            SubmissionError: it ended otherwise, or the server has gone for minutes, where the run
                goes on.
        """
        known: dict[str, str] = {}
        while True:
            found = self._get_run(run)
            states = {**_task_states(found), "the run": found.state or "PENDING"}
            for who, state in states.items():
                if known.get(who) != state:
                    self._write_line(f"{time.strftime('%H:%M:%S')} {who} {state.lower()}")
            known |= states
            if found.state in END_STATES:
                break
            time.sleep(SECONDS_BETWEEN_LOOKS)
        if found.state != "SUCCEEDED":
            raise SubmissionError(
                f"the run ended as {found.state}{_failure_reason(found)}; "
                f"see {self.server.run_url(run)}"
            )

    def _get_run(self, run: str) -> "kfp.V2beta1Run":
        """A run as it is now; asked for again while the server is away."""
        try:
            return call_with_retries(
                lambda: self._call(
                    lambda: self._runs.run_service_get_run(run, _request_timeout=TIMEOUT),
                    needs="run_id",
                ),
                is_transient=lambda error: isinstance(error, _UnavailableError),
                what=f"run {run}",
                backoff=PATIENCE,
            )
        except SubmissionError as error:
            raise SubmissionError(
                f"{error}; the run is no longer followed, but goes on: {self.server.run_url(run)}"
            ) from error

    def _experiment_id(self, name: str) -> str:
        """The id of an experiment, which is made if there is none of that name."""
        by_name = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
        where = {"namespace": self.server.namespace} if self.server.namespace else {}
        listed = self._call(
            lambda: self._experiments.experiment_service_list_experiments(
                filter=json.dumps({"predicates": [by_name]}), **where, _request_timeout=TIMEOUT
            )
        )
        if listed.experiments:
            return str(listed.experiments[0].experiment_id)
        wanted = kfp.V2beta1Experiment(display_name=name, **where)
        made = self._call(
            lambda: self._experiments.experiment_service_create_experiment(
                wanted, _request_timeout=TIMEOUT
            ),
            needs="experiment_id",
        )
        return str(made.experiment_id)

    def _call(self, request: Callable[[], T], *, needs: str = "") -> T:
        """The answer to a request, or one line that says why there is none.

        needs: what every true answer to this request has.
        """
        host = self.server.host
        try:
            answer = request()
        except urllib3.exceptions.HTTPError as error:
            raise _UnavailableError(f"cannot reach {host}: {root_cause(error)}") from error
        except kfp.ApiException as error:
            raise self._refusal_error(error) from error
        except (ValueError, TypeError, AttributeError) as error:  # made of a web page by the client
            raise SubmissionError(f"{host} {NOT_KUBEFLOW}") from error
        if needs and not getattr(answer, needs):  # of a web page it makes an empty answer
            raise SubmissionError(f"{host} {NOT_KUBEFLOW}")
        return answer

    def _refusal_error(self, error: "kfp.ApiException") -> SubmissionError:
        """What a status means for the person who submits."""
        host, said = self.server.host, _server_message(error)
        if error.status == 401:
            file = self.server.token_file
            wants = f"does not accept the token in {file}" if file else "wants --token-file"
            return SubmissionError(f"{host} {wants} (401{said})")
        if error.status == 403:
            where = f"in namespace {self.server.namespace}" if self.server.namespace else "there"
            hint = "" if self.server.namespace else "; perhaps it wants --namespace"
            return SubmissionError(
                f"{host} does not let you run pipelines {where} (403{said}){hint}"
            )
        if 300 <= error.status < 400 or (error.status == 404 and not said):
            return SubmissionError(f"{host} {NOT_KUBEFLOW} ({error.status})")
        if not error.status:  # the client's own word for what TLS finds wrong
            return SubmissionError(f"cannot reach {host}: {' '.join(str(error.reason).split())}")
        # 5xx is the server's own trouble, as of one that restarts or waits for its database.
        kind = _UnavailableError if error.status == 429 or error.status >= 500 else SubmissionError
        return kind(f"{host} refuses ({error.status}{said})")

    def _renew_token(self, configuration: "kfp.Configuration") -> None:
        """Put the token as the file has it now into the next request."""
        assert self.server.token_file is not None
        try:
            configuration.api_key["authorization"] = read_token(self.server.token_file)
        except ValueError as error:  # it was read well before
            raise SubmissionError(str(error)) from error

    def _write_line(self, line: str) -> None:
        self.terminal.write(line + "\n")
        self.terminal.flush()


class _UnavailableError(SubmissionError):
    """The server cannot be reached now, which may pass."""


def _server_message(error: "kfp.ApiException") -> str:
    """The first line of the server's own explanation, if it has one."""
    try:
        content = json.loads(error.body)
        text = str(content.get("message") or content.get("error") or "")
    except (TypeError, ValueError, AttributeError):
        return ""
    line = " ".join(text.split())
    return f": {line[:300]}" if line else ""


def _pipeline_tasks(run: "kfp.V2beta1Run") -> list[Any]:
    """The pipeline's own tasks of a run; KFP lists nodes of its own among them."""
    details = (run.run_details.task_details if run.run_details else None) or []
    return [
        one
        for one in details
        if one.display_name and not re.fullmatch(_INTERNAL_NODES, one.display_name)
    ]


def _task_states(run: "kfp.V2beta1Run") -> dict[str, str]:
    """The state of every task of a run that has one, by its name, and an end that tells twins."""
    tasks = _pipeline_tasks(run)
    names = Counter(one.display_name for one in tasks)
    return {
        f"{name} ({(one.task_id or '')[-4:]})" if names[name] > 1 else name: one.state
        for one in tasks
        if (name := one.display_name) and one.state
    }


def _failure_reason(run: "kfp.V2beta1Run") -> str:
    """Which tasks failed, and what is said of it."""
    words = [
        one.display_name + (f" ({one.error.message})" if one.error and one.error.message else "")
        for one in _pipeline_tasks(run)
        if one.state == "FAILED"
    ]
    general = f": {run.error.message}" if run.error and run.error.message else ""
    return f": {', '.join(dict.fromkeys(words))}" if words else general
