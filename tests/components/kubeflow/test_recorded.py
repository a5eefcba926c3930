"""The stub against recorded answers of Kubeflow Pipelines 2.17.0, and our requests against its."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import urllib3
import yaml

from components.kubeflow.api import KubeflowClient, VersionIds
from components.kubeflow.connection import Server, SubmissionError
from components.kubeflow.schedule import Schedule
from tests.servers.kubeflow_models import check_model
from tests.servers.kubeflow_stub import API, KubeflowStub
from tests.servers.recorded import recorded_exchanges

# It is looked at in test_follow.py.
FAILED_RUN = "a failed run"
SPEC = {
    "pipelineInfo": {"name": "recorded"},
    "schemaVersion": "2.1.0",
    "sdkVersion": "kfp-2.17.0",
    "root": {
        "dag": {"tasks": {}},
        "inputDefinitions": {
            "parameters": {
                "checkpoint": {"parameterType": "STRING"},
                "identities": {"parameterType": "NUMBER_INTEGER", "defaultValue": 300.0},
            }
        },
    },
}
SPECS = {
    "schemaVersion of the future": {**SPEC, "schemaVersion": "9.9.9"},
    "sdkVersion of the future": {**SPEC, "sdkVersion": "kfp-9.9.9"},
}


@pytest.fixture
def stub():
    with KubeflowStub().running() as server:
        yield server


class Replay:
    """Sends recorded requests to a stub, the ids in them as the stub has given them."""

    def __init__(self, stub: KubeflowStub) -> None:
        self.stub = stub
        self.pool = urllib3.PoolManager()
        self.ids: dict[str, str] = {}

    def send(self, exchange: dict[str, Any]) -> tuple[int, Any]:
        """Status and content of the stub's answer."""
        headers = {"Content-Type": "application/json"}
        url = self.stub.host + self._own(exchange["path"])
        if exchange["body"] == "<multipart/form-data>":
            text = "what is this" if "broken" in url else yaml.safe_dump(SPEC)
            fields = {"uploadfile": ("p.yaml", text)}
            answer = self.pool.request(exchange["method"], url, fields=fields)
        else:
            data = None if exchange["body"] is None else json.dumps(self._own(exchange["body"]))
            if data:
                spec = json.dumps(SPECS.get(exchange["note"], SPEC))
                data = data.replace('"<the compiled pipeline>"', spec)
            answer = self.pool.request(exchange["method"], url, body=data, headers=headers)
        text = answer.data.decode()
        return answer.status, json.loads(text) if text[:1] == "{" else text

    def check(self, recorded: Any, found: Any) -> None:
        """Refuse an answer that is not as it was recorded, but for ids, times and tokens."""
        if isinstance(recorded, dict):
            assert recorded.keys() == found.keys()
            for key, value in recorded.items():
                if key.endswith("_id"):
                    self.ids.setdefault(value, found[key])
                    assert found[key] == self._own(value)
                elif key == "pipeline_spec":
                    assert found[key]["pipelineInfo"] == SPEC["pipelineInfo"]
                elif key.endswith(("_at", "update_time")):
                    assert datetime.fromisoformat(found[key]).tzinfo == UTC
                elif key != "next_page_token":
                    self.check(value, found[key])
        elif isinstance(recorded, list):
            assert len(recorded) == len(found)
            for one, other in zip(recorded, found, strict=True):
                self.check(one, other)
        else:
            assert found == self._own(recorded)

    def _own(self, value: Any) -> Any:
        """Anything with the stub's ids in place of the recorded ones."""
        text = json.dumps(value)
        for theirs, ours in self.ids.items():
            text = text.replace(theirs, ours)
        return json.loads(text)


def test_stub_answers_every_recorded_request_as_the_server_did(stub):
    replay = Replay(stub)
    count = 0
    for exchange in recorded_exchanges():
        note = exchange["note"]
        if note.startswith((FAILED_RUN, "for several users")):
            continue
        status, content = replay.send(exchange)
        assert status == exchange["status"], note
        replay.check(exchange["answer"], content)
        count += 1
    assert count == 42


@pytest.mark.parametrize(
    ("note", "token"),
    [("no namespace asked", None), ("no token", None), ("a token that is not good", "bad")],
)
def test_stub_for_several_users_answers_as_the_server_did(stub, note, token):
    stub.is_for_several = True
    stub.token = None if note == "no namespace asked" else "good"
    (exchange,) = [e for e in recorded_exchanges() if e["note"] == f"for several users: {note}"]
    headers = {"authorization": f"Bearer {token}"} if token else {}
    answer = urllib3.request("GET", stub.host + exchange["path"], headers=headers)
    content = answer.json()
    del content["details"]  # not recorded
    assert (answer.status, content) == (exchange["status"], exchange["answer"])


def test_name_that_is_too_long_starts_a_workflow_that_the_server_does_not_keep(stub):
    replay = Replay(stub)
    for exchange in recorded_exchanges()[:15]:
        status, content = replay.send(exchange)
        if status == 200:
            replay.check(exchange["answer"], content)
    assert "r" * 256 in stub.workflows
    assert "r" * 256 not in [run["display_name"] for run in stub.runs.values()]


def our_requests(stub: KubeflowStub, tmp_path: Path) -> list[Any]:
    """What our client asks for the same things."""
    client = KubeflowClient(Server(stub.host))
    file = tmp_path / "p.yaml"
    file.write_text(yaml.safe_dump(SPEC))
    assert client.version() is None  # the recorded server was built by hand
    experiment = client.make_experiment("recorded")
    run = client.start_run([SPEC], {"checkpoint": "s3://san/c"}, experiment=experiment, name="one")
    client.get_run(run)
    client.list_runs(experiment, 2)
    with pytest.raises(SubmissionError, match=r"409: .*Workflow manifest cannot be empty"):
        client.retry_run(run)
    client.stop_run(run)
    client.find_pipeline("absent")
    pipeline = client.upload_pipeline(file, "recorded")
    ids = client.upload_version(file, "second", pipeline)
    client.find_pipeline("recorded")
    assert [one.name for one in client.versions(pipeline)] == ["second", "recorded"]
    times = ("2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z")
    schedule = Schedule("0 0 3 * * *", *times, max_concurrency=1, no_catchup=True)
    client.make_schedule(ids, {"checkpoint": "x"}, schedule, experiment=experiment, name="nightly")
    return stub.requests


def shape(method: str, path: str, body: Any) -> tuple[str, str, Any]:
    """A request without the values that differ: the route, and the fields of its body."""
    path = path.removeprefix(API)
    for part in path.split("/"):
        if "-" in part:
            path = path.replace(part.partition(":")[0], "ID")
    path = path.replace("absent", "NAME").replace("recorded", "NAME")
    return method, path, fields_of(body)


def fields_of(body: Any) -> Any:
    if not isinstance(body, dict):
        return "form" if body else None
    # The server takes what is not given, or says nothing, alike.
    inner = {key: value for key, value in body.items() if value not in ("", None)}
    return {k: "spec" if k == "pipeline_spec" else fields_of(v) for k, v in inner.items()}


def test_our_client_asks_as_the_recorded_requests_do(stub, tmp_path):
    known = []
    for exchange in recorded_exchanges():
        url = urlsplit(exchange["path"])
        asked = shape(exchange["method"], url.path, exchange["body"])
        known.append((asked, set(parse_qs(url.query))))
    for request in our_requests(stub, tmp_path):
        ours = shape(request.method, request.path, request.body)
        assert any(ours == asked and {*request.query} <= query for asked, query in known), request
    assert len(stub.requests) == 14


MODELS = {
    "/experiments": "V2beta1Experiment",
    "/runs": "V2beta1Run",
    "/recurringruns": "V2beta1RecurringRun",
}


def test_bodies_that_we_send_are_valid_by_the_models_of_the_api(stub, tmp_path):
    posted = [
        request
        for request in our_requests(stub, tmp_path)
        if request.method == "POST" and isinstance(request.body, dict)
    ]
    assert [request.path.removeprefix(API) for request in posted] == list(MODELS)
    for request in posted:
        check_model(MODELS[request.path.removeprefix(API)], request.body)


def test_bodies_that_the_stub_answers_are_valid_by_the_models_of_the_api(stub, tmp_path):
    our_requests(stub, tmp_path)
    for run in stub.runs.values():
        check_model("V2beta1Run", run)
    for made in stub.recurring.values():
        check_model("V2beta1RecurringRun", made)
    for one in stub.pipelines.values():
        check_model("V2beta1Pipeline", one)
    for one in stub.versions.values():
        check_model("V2beta1PipelineVersion", one)
    assert len(stub.versions) == 2


def test_model_check_finds_a_field_of_another_type():
    with pytest.raises(AssertionError):
        check_model("V2beta1RecurringRun", {"max_concurrency": 1})
    with pytest.raises(AssertionError, match="no field nonsense"):
        check_model("V2beta1Run", {"nonsense": 1})


def test_runs_come_in_pages(stub, monkeypatch):
    monkeypatch.setattr("components.kubeflow.api.PAGE_SIZE", 2)
    for number in range(5):
        stub.add_run(f"r{number}")
    client = KubeflowClient(Server(stub.host))
    found = client.list_runs(stub.experiments["san"], 4)
    assert [run.run_id for run in found] == ["r4", "r3", "r2", "r1"]
    assert len(client.list_runs(stub.experiments["san"], 9)) == 5


def test_run_of_an_uploaded_version_has_the_pipeline_of_that_version(stub, tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text(yaml.safe_dump(SPEC))
    client = KubeflowClient(Server(stub.host))
    pipeline = client.upload_pipeline(file, "recorded")
    ids = VersionIds(pipeline, next(client.versions(pipeline)).pipeline_version_id)
    stub.add_run(
        "r1",
        pipeline_version_reference={
            "pipeline_id": ids.pipeline,
            "pipeline_version_id": ids.version,
        },
    )
    assert client.run_spec(client.get_run("r1")) == SPEC
