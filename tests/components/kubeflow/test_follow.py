"""Following a run, against a stub that lists every node of Argo, like the real server."""

import io
import re
from typing import Any

import pytest

from components.kubeflow import follow
from components.kubeflow.api import KubeflowClient
from components.kubeflow.connection import Server, SubmissionError
from components.kubeflow.follow import follow_run
from components.storage.retry import Backoff
from tests.servers.kubeflow_stub import KubeflowStub
from tests.servers.recorded import recorded_answer

RUN = "8aec1706"
FULL = (
    *("make-pit", "prepare-reid", "train-san-pg", "generate-textures", "seal-textures"),
    *("train-san", "extract-features", "evaluate"),
)


@pytest.fixture
def stub():
    with KubeflowStub().running() as server:
        server.add_run(RUN)
        yield server


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(follow, "SECONDS_BETWEEN_LOOKS", 0.0)
    monkeypatch.setattr(follow, "PATIENCE", Backoff(total=2, first=0.01, longest=0.01))


def followed(stub: KubeflowStub, **server: Any) -> tuple[list[str], str]:
    """The lines without their time, and why it did not succeed."""
    terminal = io.StringIO()
    error = ""
    try:
        follow_run(KubeflowClient(Server(stub.host, **server)), RUN, FULL, terminal=terminal)
    except SubmissionError as raised:
        error = str(raised)
    return [line.split(" ", 1)[1] for line in terminal.getvalue().splitlines()], error


def task(name: str, state: str, **more: Any) -> dict[str, Any]:
    return {"display_name": name, "task_id": f"id-{name}", "state": state, **more}


def test_changes_are_logged_until_the_run_succeeds(stub):
    stub.states = ["PENDING", "RUNNING", "RUNNING", "SUCCEEDED"]
    stub.tasks = [
        [],
        [task("root-driver", "SUCCEEDED"), task("prepare-reid", "RUNNING")],
        [task("prepare-reid", "RUNNING")],
        [task("prepare-reid", "SUCCEEDED"), task("train-san", "SUCCEEDED")],
    ]
    lines, error = followed(stub)
    assert error == ""
    assert lines == [
        "the run pending",
        "prepare-reid running",
        "the run running",
        "prepare-reid succeeded",
        "train-san succeeded",
        "the run succeeded",
    ]


def test_of_the_nodes_of_a_real_run_only_tasks_of_the_graph_are_named(stub):
    answer = recorded_answer("a failed run")
    stub.states, stub.tasks = ["FAILED"], [answer["run_details"]["task_details"]]
    assert {"san-full-00002", "iteration-item", "iteration-iterations(0:0)", "for-loop-1"} <= {
        one["display_name"] for one in stub.tasks[0]
    }
    lines, error = followed(stub)
    assert lines == [
        *("train-san-pg failed", "make-pit succeeded", "prepare-reid succeeded"),
        *("generate-textures failed", "the run failed"),
    ]
    page = f"{stub.host}/#/runs/details/{RUN}"
    assert error == (
        "the run ended as FAILED: train-san-pg, generate-textures failed; to see a step's log open "
        f"{page}, click the step, then Logs; or kubectl -n kubeflow logs -l pipeline/runid={RUN} "
        "-c main --prefix --tail=20"
    )


def test_log_is_looked_for_in_the_profile(stub):
    stub.states, stub.tasks = ["FAILED"], [[task("evaluate", "FAILED")]]
    assert "kubectl -n vision logs" in followed(stub, namespace="vision")[1]


@pytest.mark.parametrize("state", ["CANCELED", "SKIPPED"])
def test_run_that_was_stopped_is_one_line(stub, state):
    stub.states, stub.tasks = ["RUNNING", state], [[task("train-san", "RUNNING")]]
    link = f"{stub.host}/#/runs/details/{RUN}"
    assert followed(stub)[1] == f"the run ended as {state}; see {link}"


def test_messages_of_the_server_about_a_task_are_logged(stub):
    why = {"code": 2, "message": "exit code 1"}
    stub.states, stub.tasks = ["FAILED"], [[task("train-san", "FAILED", error=why)]]
    assert "FAILED: train-san (exit code 1) failed; " in followed(stub)[1]


def test_a_failed_driver_is_reported_as_its_task_before_the_start(stub):
    stub.states = ["FAILED"]
    stub.tasks = [[task("root-driver", "FAILED"), task("train-san-driver", "FAILED")]]
    lines, error = followed(stub)
    assert lines == ["the run failed"]
    assert "FAILED: train-san (before it started) failed; " in error


def test_run_that_fails_without_a_task_says_what_the_server_says(stub):
    stub.states, stub.error = ["FAILED"], {"code": 4, "message": "deadline exceeded"}
    assert "the run ended as FAILED: deadline exceeded; " in followed(stub)[1]


def test_tasks_of_one_name_are_distinguished_by_their_ids(stub):
    stub.states = ["SUCCEEDED"]
    twins = {"display_name": "generate-textures", "state": "SUCCEEDED"}
    stub.tasks = [[{**twins, "task_id": "id-aaaa"}, twins]]
    lines = followed(stub)[0]
    assert "generate-textures (aaaa) succeeded" in lines
    assert "generate-textures () succeeded" in lines


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 520])
def test_server_that_is_away_for_a_moment_is_outlived(stub, status):
    stub.states = ["SUCCEEDED"]
    stub.failures_left, stub.failure_status = 3, status
    assert followed(stub)[1] == ""
    assert len(stub.requests) == 4


def test_following_ends_when_the_server_stays_away(stub, monkeypatch):
    monkeypatch.setattr(follow, "PATIENCE", Backoff(total=0))
    stub.failures_left = 1000
    link = re.escape(f"{stub.host}/#/runs/details/{RUN}")
    goes_on = rf"refuses \(503\); the run is no longer followed, but continues: {link}$"
    assert re.search(goes_on, followed(stub)[1])


def test_a_token_that_disappears_while_following_is_reported(stub, tmp_path):
    file = tmp_path / "token"
    file.write_text("one")
    client = KubeflowClient(Server(stub.host, token_file=file))
    file.unlink()
    with pytest.raises(SubmissionError, match=f"--token-file {file}: No such file or directory"):
        follow_run(client, RUN, [])
