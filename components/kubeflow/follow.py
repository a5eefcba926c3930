"""Following a run to its end, line by line."""

import re
import sys
import time
from collections import Counter
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, TextIO

from components.kubeflow.api import KubeflowClient
from components.kubeflow.connection import SubmissionError, UnavailableError
from components.process.messages import printable
from components.storage.retry import Backoff, call_with_retries

if TYPE_CHECKING:
    import kfp_server_api as kfp

END_STATES = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
SECONDS_BETWEEN_LOOKS = 5.0
# How long the server may be unreachable while a run is followed.
PATIENCE = Backoff(total=300)
# The namespace of pods in a single-user installation.
_DEFAULT_NAMESPACE = "kubeflow"


def follow_run(
    client: KubeflowClient, run: str, tasks: Collection[str], *, terminal: TextIO | None = None
) -> None:
    """Print the changes of state of a run and its tasks, until it has succeeded.

    Args:
        client: the client of the server.
        run: the id of the run.
        tasks: the names of the pipeline's tasks; the server lists every node of the workflow.
        terminal: the stream for lines (default: standard output).

    Raises:
        SubmissionError: the run did not succeed, or the server was unreachable for minutes, while
            the run may continue.
    """
    known: dict[str, str] = {}
    while True:
        found = _get_run(client, run)
        states = {**_task_states(found, tasks), "the run": found.state or "PENDING"}
        for who, state in states.items():
            if known.get(who) != state:
                write_line(f"{time.strftime('%H:%M:%S')} {who} {state.lower()}", terminal)
        known |= states
        if found.state in END_STATES:
            break
        time.sleep(SECONDS_BETWEEN_LOOKS)
    if found.state != "SUCCEEDED":
        raise SubmissionError(
            f"the run ended as {found.state}{_failure_reason(found, tasks)}; "
            f"{_where_to_look(client, found)}"
        )


def write_line(line: str, terminal: TextIO | None = None) -> None:
    """Write a line and flush it."""
    terminal = terminal or sys.stdout
    terminal.write(printable(line) + "\n")
    terminal.flush()


def _get_run(client: KubeflowClient, run: str) -> "kfp.V2beta1Run":
    """The present state of a run; the request is repeated while the server is unreachable."""
    try:
        return call_with_retries(
            lambda: client.get_run(run),
            is_transient=lambda error: isinstance(error, UnavailableError),
            what=f"run {run}",
            backoff=PATIENCE,
        )
    except SubmissionError as error:
        page = client.server.run_url(run)
        raise SubmissionError(
            f"{error}; the run is no longer followed, but continues: {page}"
        ) from error


def _details(run: "kfp.V2beta1Run") -> list[Any]:
    """Every node of the workflow that has a name."""
    details = (run.run_details.task_details if run.run_details else None) or []
    return [one for one in details if one.display_name]


def _task_states(run: "kfp.V2beta1Run", tasks: Collection[str]) -> dict[str, str]:
    """The states of a run's tasks, by name; tasks of the same name get a suffix."""
    own = [one for one in _details(run) if one.display_name in tasks]
    names = Counter(one.display_name for one in own)
    return {
        f"{name} ({(one.task_id or '')[-4:]})" if names[name] > 1 else name: one.state
        for one in own
        if (name := one.display_name) and one.state
    }


def _failure_reason(run: "kfp.V2beta1Run", tasks: Collection[str]) -> str:
    """The failed tasks with their errors, in words; a driver prepares the task of its name."""
    failed = [one for one in _details(run) if one.state == "FAILED"]
    words = [
        one.display_name + (f" ({one.error.message})" if one.error and one.error.message else "")
        for one in failed
        if one.display_name in tasks
    ]
    drivers = {re.sub("-driver$", "", one.display_name) for one in failed} - {
        one.display_name for one in failed
    }
    words += [f"{name} (before it started)" for name in sorted(drivers & {*tasks})]
    general = f": {run.error.message}" if run.error and run.error.message else ""
    return f": {', '.join(dict.fromkeys(words))} failed" if words else general


def _where_to_look(client: KubeflowClient, run: "kfp.V2beta1Run") -> str:
    """Advice on how to read the log of a step."""
    page = client.server.run_url(run.run_id)
    if run.state != "FAILED":
        return f"see {page}"
    namespace = client.server.namespace or _DEFAULT_NAMESPACE
    return (
        f"to see a step's log open {page}, click the step, then Logs; or kubectl -n {namespace} "
        f"logs -l pipeline/runid={run.run_id} -c main --prefix --tail=20"
    )
