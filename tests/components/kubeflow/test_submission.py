"""Submission to a stub server that records requests; requests use Kubeflow's models."""

import json
import re
import socket
from itertools import chain
from pathlib import Path
from typing import Any

import kfp
import pytest
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2 as pipeline_pb

import pipeline
from components.command.code import ROOT
from components.kubeflow import follow
from components.kubeflow.api import KubeflowClient
from components.kubeflow.connection import Server
from components.storage.retry import Backoff
from tests.servers.kubeflow_models import check_model
from tests.servers.kubeflow_stub import API, KubeflowStub
from tests.write_golden import CLUSTER_IMAGE

# What the stub calls the first of each.
RUN, EXPERIMENT = "00000002-0000-4000-8000-000000000001", "00000001-0000-4000-8000-000000000001"

PLACES = ("--param", "destination=s3://b/textures", "--param", "checkpoint=s3://b/state")

EVALUATED = ("--input", "features=s3://b/f", "--input", "dataset=s3://b/d")
PAIRS = ("--input", "pit=s3://b/pit", "--param", "checkpoint=")


@pytest.fixture
def stub():
    with KubeflowStub().running() as server:
        yield server


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(follow, "SECONDS_BETWEEN_LOOKS", 0.0)
    monkeypatch.setattr(follow, "PATIENCE", Backoff(total=2, first=0.01, longest=0.01))


def submit(stub: KubeflowStub, *words: str) -> int:
    usual = {"--host": stub.host, "--image": CLUSTER_IMAGE}
    words = tuple(chain(*(pair for pair in usual.items() if pair[0] not in words), words))
    return pipeline.main(["submit", *words])


def posted(stub: KubeflowStub, what: str) -> dict[str, Any]:
    (request,) = [r for r in stub.requests if (r.method, r.path) == ("POST", f"{API}/{what}")]
    return request.body


def test_run_is_posted_as_kubeflows_models_want_it(stub, capsys):
    words = ("--experiment", "reid", "--name", "first", "--param", "seed=3", *PLACES)
    assert submit(stub, *words, "--pipeline-root", "s3://b/root", "--service-account", "me") == 0
    check_model("V2beta1Experiment", posted(stub, "experiments"))
    assert posted(stub, "experiments") == {"display_name": "reid"}
    run = posted(stub, "runs")
    check_model("V2beta1Run", run)
    assert run["experiment_id"] == EXPERIMENT
    assert (run["display_name"], run["service_account"]) == ("first", "me")
    assert run["runtime_config"] == {
        "parameters": {
            "destination": "s3://b/textures",
            "checkpoint": "s3://b/state",
            "seed": 3,
        },
        "pipeline_root": "s3://b/root",
    }
    assert f"run first: {stub.host}/#/runs/details/{RUN}" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:This client only works:FutureWarning")
@pytest.mark.parametrize("gpus", ["0", "2"])
def test_bodies_are_those_that_kfps_own_client_sends(stub, tmp_path, gpus):
    file = str(tmp_path / "p.yaml")
    words = ["--gpus", gpus, "--graph", "baseline", "--image", CLUSTER_IMAGE]
    assert pipeline.main(["compile", *words, "--output", file]) == 0
    given = {"checkpoint": "", "seed": 3, "dataset": "msmt17", "source": "s3://b/msmt"}
    params = [word for name, value in given.items() for word in ("--param", f"{name}={value}")]
    assert submit(stub, *words, "--name", "r", *params) == 0
    ours = [request for request in stub.requests if request.method == "POST"]
    stub.requests.clear()
    stub.experiments.clear()
    kfp.Client(stub.host).create_run_from_pipeline_package(
        file, given, run_name="r", experiment_name="san"
    )
    theirs = [request for request in stub.requests if request.method == "POST"]
    for one, other in zip(ours, theirs, strict=True):
        assert one.path == other.path
        assert without_empty(one.body) == without_empty(other.body)


def without_empty(body: dict[str, Any]) -> dict[str, Any]:
    """A body without the fields that say nothing."""
    return {key: value for key, value in body.items() if value not in ("", None)}


def test_pipeline_that_is_posted_is_of_kfps_schema(stub):
    assert submit(stub, "--gpus", "2", "--secret", "storage", *PLACES) == 0
    spec = posted(stub, "runs")["pipeline_spec"]
    parsed = json_format.ParseDict(spec["pipeline_spec"], pipeline_pb.PipelineSpec())
    assert parsed.pipeline_info.name == "san-full"
    json_format.ParseDict(spec["platform_spec"], pipeline_pb.PlatformSpec())
    executors = spec["platform_spec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert executors["exec-evaluate"]["secretAsEnv"][0]["secretName"] == "storage"


def test_pipeline_without_a_platform_specification_is_posted_plain(stub):
    assert submit(stub, "--graph", "baseline", "--secret", "none") == 0
    spec = posted(stub, "runs")["pipeline_spec"]
    assert spec["pipelineInfo"]["name"] == "san-baseline"


def test_experiment_that_is_there_is_not_made_again(stub):
    stub.experiments["san"] = "old"
    assert submit(stub, "--graph", "baseline", "--secret", "none") == 0
    assert [r.method for r in stub.requests] == ["GET", "POST"]
    assert posted(stub, "runs")["experiment_id"] == "old"


def test_namespace_and_token_are_given(stub, tmp_path):
    stub.token = "abc.def"
    (tmp_path / "token").write_text("abc.def\n")
    words = ("--namespace", "vision", "--token-file", str(tmp_path / "token"))
    assert submit(stub, *words, "--graph", "baseline", "--param", "checkpoint=") == 0
    assert stub.requests[0].query["namespace"] == ["vision"]
    assert posted(stub, "experiments") == {"display_name": "san", "namespace": "vision"}
    assert {r.token for r in stub.requests} == {"Bearer abc.def"}


def test_token_is_read_for_every_request(stub, tmp_path):
    file = tmp_path / "token"
    file.write_text("one")
    client = KubeflowClient(Server(stub.host, token_file=file))
    client.make_experiment("a")
    file.write_text("two")
    client.make_experiment("b")
    assert [r.token for r in stub.requests] == [*["Bearer one"] * 2, *["Bearer two"] * 2]


def test_waiting_names_tasks_and_ends_with_1_and_one_line_if_the_run_fails(stub, capsys):
    stub.states = ["RUNNING", "FAILED"]
    nodes = [{"display_name": name, "state": "FAILED"} for name in ("san-baseline-9", "train-san")]
    stub.tasks = [nodes]
    assert submit(stub, "--wait", "--graph", "baseline", "--param", "checkpoint=") == 1
    said = capsys.readouterr()
    lines = [line.split(" ", 1)[1] for line in said.out.splitlines()[1:]]
    assert lines == ["train-san failed", "the run running", "the run failed"]
    (line,) = said.err.splitlines()
    assert line.startswith(
        "pipeline.py: the run ended as FAILED: train-san failed; to see a step's"
    )


@pytest.mark.parametrize(
    ("refusal", "words", "message"),
    [
        ((401, "", "text/plain"), (), r"HOST needs --token-file \(401\)"),
        (
            (401, "", "text/plain"),
            ("--token-file", "FILE"),
            r"does not accept the token in FILE \(401\)",
        ),
        (
            (403, '{"message": "User is not\\nauthorized"}', "application/json"),
            ("--namespace", "other"),
            r"does not let you run pipelines in namespace other \(403: User is not authorized\)",
        ),
        (
            (403, "RBAC", "text/plain"),
            (),
            r"there \(403\); it may need --namespace",
        ),
        ((404, "<html>", "text/html"), (), r"answers, but not as Kubeflow Pipelines 2; .* \(404\)"),
        ((302, "", "text/html"), (), r"answers, but not as Kubeflow Pipelines 2; .* \(302\)"),
        ((200, "<html>Log in</html>", "text/html"), (), "answers, but not as Kubeflow Pipelines 2"),
        ((200, "[1]", "application/json"), (), "answers, but not as Kubeflow Pipelines 2"),
        (
            (400, '{"message": "Invalid input"}', "application/json"),
            (),
            r"HOST refuses \(400: Invalid input\)",
        ),
        ((500, "oops", "text/plain"), (), r"HOST refuses \(500\)"),
    ],
)
def test_refusal_is_one_line(stub, tmp_path, capsys, refusal, words, message):
    stub.refusal = refusal
    file = tmp_path / "token"
    file.write_text("secret-token\n")
    given = [str(file) if word == "FILE" else word for word in words]
    assert submit(stub, *given, "--graph", "baseline", "--param", "checkpoint=") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "secret-token" not in line
    assert re.search(message.replace("HOST", stub.host).replace("FILE", str(file)), line)


def test_host_that_cannot_be_reached_is_one_line(capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"http://127.0.0.1:{free.getsockname()[1]}"
    words = ["submit", "--host", host, "--image", CLUSTER_IMAGE, "--graph", "baseline"]
    assert pipeline.main([*words, "--param", "checkpoint="]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"pipeline.py: cannot reach {host}: Connection refused"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--param", "sed=1", *PLACES), "no parameter 'sed'; did you mean 'seed'?"),
        (("--graph", "textures", *PLACES), "--param texture_source=VALUE is needed"),
        (("--pipeline-root", "gs://b/root"), "the pipeline root is at gs://, where steps cannot"),
        (("--pipeline-root", "gs://b", *PLACES[:2]), "give both destination=URI and checkpoint="),
        (
            ("--param", "destination=/tmp/t", *PLACES[2:]),
            "is a folder that is lost when its pod ends",
        ),
        (
            ("--preset", "demo", "--param", "generator=/tmp/g", *PLACES),
            "generator=/tmp/g is a folder that is lost when its pod ends",
        ),
        (
            ("--param", "san_overrides=pretrained=/tmp/w.pth", *PLACES),
            "san_overrides pretrained=/tmp/w.pth is a folder that is lost when its pod ends",
        ),
        (
            ("--param", "dataset=folders:split=/tmp/a.csv+csv:split=s3://b/b.csv", *PLACES),
            "dataset split=/tmp/a.csv is a folder that is lost when its pod ends",
        ),
        (("--preset", "dem"), "no preset 'dem'; did you mean 'demo'?"),
        (("--host", "kubeflow.example", *PLACES), "--host kubeflow.example is not a URL"),
        (("--image", "san:latest", *PLACES), "image san:latest is not pinned"),
        (("--only", "evaluate", "--input", "features"), "--input features is not of the form"),
        (("--input", "reid=s3://b/r", *PLACES), "--input needs --only"),
        (
            ("--only", "evaluate", *EVALUATED, "--input", "dataset=s3://b/e"),
            "--input dataset is given twice: s3://b/d and s3://b/e",
        ),
        (("--token-file", "/nowhere/token", *PLACES), "--token-file /nowhere/token: No such file"),
        (("--param", "san_recipe=nope", *PLACES), "no recipe 'nope'"),
        (
            ("--gpus", "train_san=3", *PLACES),
            "--gpus train_san=3: a batch of 16 identities of 4 images cannot be divided equally "
            "among 3",
        ),
        (
            ("--gpus", "3", "--only", "train_san_pg", *PAIRS),
            "--gpus 3: a batch of 64 images cannot be divided equally among 3 processes",
        ),
        (
            ("--graph", "baseline", "--param", "san_recipe=cuhk03", *PLACES[2:]),
            "recipe 'cuhk03' needs textures (w_rec=1, w_tr=1), and this graph has none",
        ),
        (
            ("--param", "san_overrides=image_height=250", *PLACES),
            "images of 250x128 do not divide by 16, the stride of resnet50",
        ),
        (("--param", "precision=half", *PLACES), "precision 'half' is not one of auto, float32"),
        (("--only", "evaluate", "--graph", "full", *EVALUATED), "--graph is for a whole graph"),
        (("--only", "evaluate", "--preset", "demo", *EVALUATED), "--preset is for a whole graph"),
        (("--only", "evaluate", *EVALUATED, "--param", "protocol=best"), "no protocol 'best'"),
        (("--only", "train_san_pg", *PAIRS, "--param", "recipe=nope"), "no recipe 'nope'"),
        (
            ("--only", "train_san_pg", *PAIRS, "--param", "recipe=pit", "--param", "overrides=a=1"),
            "no recipe field 'a'",
        ),
        (
            ("--only", "prepare_reid", "--param", "dataset=msmt17"),
            "dataset msmt17 needs --param source=PLACE",
        ),
        (("--only", "prepare_reid", "--param", "dataset=mars"), "no data set 'mars'"),
    ],
)
def test_mistakes_are_found_before_anything_is_sent(stub, capsys, words, message):
    with pytest.raises(SystemExit) as stop:
        submit(stub, *words)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert stub.requests == []


@pytest.mark.parametrize(
    "uri",
    [
        *(
            "s3://b/f",
            "minio://mlpipeline/v2/artifacts/a/1/f",
            "gs://b.c/f/",
            "oci://r.example/f:1",
        ),
    ],
)
def test_input_in_a_bucket_is_imported(stub, uri):
    assert submit(stub, "--only", "evaluate", *EVALUATED[2:], "--input", f"features={uri}") == 0
    assert uri in json.dumps(posted(stub, "runs")["pipeline_spec"])


@pytest.mark.parametrize(
    "uri",
    [
        *("features", "file:///f", "https://h/f", "s4://b/f", "s3://b", "s3://b/", "s3:///f"),
        *("s3://b/f?endpoint=h", "s3://b/f#1", "s3://b//f", "s3://b/../f"),
        *("s3://b/f g", "", "as3://b/f"),
    ],
)
def test_input_that_kubeflow_cannot_import_is_refused(stub, capsys, uri):
    with pytest.raises(SystemExit) as stop:
        submit(stub, "--only", "evaluate", *EVALUATED[2:], "--input", f"features={uri}")
    assert stop.value.code == 2
    assert f"--input features={uri} is not of the form NAME=URI" in capsys.readouterr().err
    assert stub.requests == []


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b"two words", "has several words"), (b"\xff\xfe", "it is not text")],
)
def test_file_that_holds_no_token_is_refused(tmp_path, content, message):
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        Server("http://h", token_file=file)


def test_place_on_a_volume_is_no_mistake(stub):
    words = ("--volume", "claim:/data", "--param", "destination=/data/textures")
    assert submit(stub, *words, "--param", "checkpoint=/data/state") == 0


def test_one_step_is_submitted_alone(stub):
    words = ("--only", "evaluate", "--input", "features=s3://b/f", "--input", "dataset=s3://b/d")
    assert submit(stub, *words, "--param", "rerank=true") == 0
    run = posted(stub, "runs")
    spec = run["pipeline_spec"]["pipeline_spec"]
    assert spec["pipelineInfo"]["name"] == "san-evaluate"
    importers = [
        t for t in spec["root"]["dag"]["tasks"].values() if "importer" in t["taskInfo"]["name"]
    ]
    assert len(importers) == 2
    assert run["runtime_config"]["parameters"] == {"rerank": True}


def test_preset_gives_parameters_and_graph(stub):
    assert submit(stub, "--preset", "demo-baseline", "--param", "checkpoint=s3://b/c") == 0
    run = posted(stub, "runs")
    assert run["pipeline_spec"]["pipeline_spec"]["pipelineInfo"]["name"] == "san-baseline"
    assert run["runtime_config"]["parameters"]["san_recipe"] == "demo-baseline"


def test_the_generator_that_ships_is_no_place(stub):
    words = ("--preset", "demo", "--param", "generator=shipped", *PLACES)
    assert submit(stub, *words) == 0
    run = posted(stub, "runs")
    name = run["pipeline_spec"]["pipeline_spec"]["pipelineInfo"]["name"]
    assert name == "san-ready"
    assert run["runtime_config"]["parameters"]["generator"] == "shipped"


@pytest.mark.parametrize(
    ("words", "is_cached"),
    [
        ((), True),
        (("--param", "dataset=market1501", "--param", "source=s3://b/market"), False),
    ],
)
def test_data_set_from_outside_is_prepared_anew_by_every_run(stub, words, is_cached):
    assert submit(stub, *words, *PLACES) == 0
    spec = posted(stub, "runs")["pipeline_spec"]["pipeline_spec"]
    options = spec["root"]["dag"]["tasks"]["prepare-reid"]["cachingOptions"]
    assert options == ({"enableCache": True} if is_cached else {})


def test_credentials_are_in_nothing_that_is_sent(stub, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    assert submit(stub, "--secret", "storage", *PLACES) == 0
    assert "hunter2" not in json.dumps([r.body for r in stub.requests])


def test_what_is_submitted_is_what_compile_writes(stub, tmp_path):
    file = tmp_path / "p.yaml"
    assert pipeline.main(["compile", "--image", CLUSTER_IMAGE, "--output", str(file)]) == 0
    source = ("--param", "dataset=market1501", "--param", "source=s3://b/market")
    assert submit(stub, *source, *PLACES) == 0
    pipeline_spec, platform_spec = yaml.safe_load_all(Path(file).read_text())
    assert posted(stub, "runs")["pipeline_spec"] == {
        "pipeline_spec": pipeline_spec,
        "platform_spec": platform_spec,
    }


def test_readme_says_of_every_command_what_it_was_run_against():
    text = (ROOT / "docker" / "README.md").read_text("utf-8").replace("\\\n", " ")
    body, _, table = text.partition("## What was tested\n")
    rows = [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| `")]
    told = {kind_of_command(words) for row in rows for words in re.findall(r"`(.+?)`", row)}
    written = [*re.findall(r"^    (\S.*)$", body, re.M), *re.findall(r"`([^`\n]+)`", body)]
    found = {kind for words in written if (kind := kind_of_command(words))}
    assert len(found) > 10
    assert found <= told


def kind_of_command(line: str) -> str:
    """What a command is called, its program and what that does; empty for what is none."""
    words = re.sub(r"^(\w+=\S* )+|^\.venv/bin/python ", "", line).split()
    if words[:1] == ["kubectl"]:
        return "kubectl"
    is_one = len(words) > 1 and words[0] in ("make", "docker", "pipeline.py", "aws")
    return " ".join(words[:2]) if is_one else ""


@pytest.mark.parametrize(
    "words",
    [
        ("--param", "destination=s3://KEY:hunter2@bucket/x"),
        ("--param", "checkpoint=minio://KEY:hun/ter2@bucket"),
        ("--param", "source=https://me:hunter2@host/x"),
        ("--param", "destinatoin=s3://KEY:hunter2@bucket/x"),
        ("--param", "s3://KEY:hunt=er2@bucket/x"),
        ("--only", "evaluate", "--input", "features=s3://KEY:hunter2@bucket/x"),
        ("--pipeline-root", "s3://KEY:hunter2@bucket/x"),
    ],
)
def test_credentials_in_a_place_are_refused_before_anything_is_sent_and_not_shown(
    stub, capsys, words
):
    with pytest.raises(SystemExit) as stop:
        submit(stub, *words)
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "a URI must not contain a user, key or " in said
    assert "er2" not in said
    assert stub.requests == []


def test_nothing_needs_to_be_configured_on_a_stock_installation(stub):
    """Both places are the pipeline root's, the keys of minio:// the installation's own."""
    assert submit(stub, "--preset", "demo") == 0
    run = posted(stub, "runs")
    assert not {"destination", "checkpoint"} & run["runtime_config"]["parameters"].keys()
    declared = run["pipeline_spec"]["pipeline_spec"]["root"]["inputDefinitions"]["parameters"]
    assert declared["destination"]["defaultValue"] == declared["checkpoint"]["defaultValue"] == ""
    platform = run["pipeline_spec"]["platform_spec"]["platforms"]["kubernetes"]
    for executor in platform["deploymentSpec"]["executors"].values():
        assert [one["secretName"] for one in executor["secretAsEnv"]] == [
            "mlpipeline-minio-artifact"
        ]


def test_checkpoint_none_is_no_folder(stub):
    assert submit(stub, *PLACES[:2], "--param", "checkpoint=none") == 0
    assert posted(stub, "runs")["runtime_config"]["parameters"]["checkpoint"] == "none"
