"""Submitting a run again, schedules, uploads and runs, against the stub."""

import json
import sys
from typing import Any

import pytest
import yaml

import pipeline
from san_core.shipped.generator import SHIPPED_FOLDER
from tests.servers.kubeflow_answers import NEVER
from tests.servers.kubeflow_stub import API, KubeflowStub
from tests.write_golden import CLUSTER_IMAGE, GOLDEN

GIVEN = {
    "destination": "s3://b/textures",
    "checkpoint": "s3://b/state",
    "seed": 3,
    "workers": ["0/2", "1/2"],
    "san_recipe": "demo",
    "verify": "sha256",
}


@pytest.fixture
def stub():
    with KubeflowStub().running() as server:
        yield server


def call(stub: KubeflowStub, command: str, *words: str) -> int:
    host = [] if "--host" in words else ["--host", stub.host]
    return pipeline.main([*command.split(), *host, *words])


def golden(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((GOLDEN / f"{name}.yaml").read_text("utf-8")))


@pytest.fixture
def earlier(stub):
    """A run of the graph `full` with all that pods can ask for."""
    definition, platform = golden("cluster")
    stub.add_run(
        "r1",
        experiment_id=stub.experiments.setdefault("reid", stub.new_id("experiments")),
        pipeline_spec={"pipeline_spec": definition, "platform_spec": platform},
        runtime_config={"parameters": GIVEN, "pipeline_root": "minio://mlpipeline/mine"},
        service_account="trainer",
        state="FAILED",
    )
    return [definition, platform]


def posted(stub: KubeflowStub, what: str) -> dict[str, Any]:
    (request,) = [r for r in stub.requests if (r.method, r.path) == ("POST", f"{API}/{what}")]
    return request.body


def refused(stub: KubeflowStub, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The line that says why wrong usage was refused before anything was sent."""
    with pytest.raises(SystemExit) as stop:
        call(stub, *words)
    assert stop.value.code == 2
    assert stub.requests == []
    return capsys.readouterr().err


def caching(spec: dict[str, Any]) -> dict[str, bool]:
    dags = [spec["root"], *spec["components"].values()]
    every = [task for dag in dags for task in dag.get("dag", {}).get("tasks", {}).items()]
    return {name: one.get("cachingOptions", {}).get("enableCache", False) for name, one in every}


def test_run_is_submitted_again_as_it_was(stub, earlier):
    assert call(stub, "submit", "--of", "r1") == 0
    run = posted(stub, "runs")
    assert run["pipeline_spec"] == {"pipeline_spec": earlier[0], "platform_spec": earlier[1]}
    assert run["runtime_config"] == {
        "parameters": GIVEN,
        "pipeline_root": "minio://mlpipeline/mine",
    }
    assert (run["experiment_id"], run["service_account"]) == (stub.experiments["reid"], "trainer")
    assert run["display_name"].startswith("san-full 2")
    assert [r.method for r in stub.requests] == ["GET", "POST"]


def test_run_is_named_by_the_link_to_its_page_too(stub, earlier):
    assert call(stub, "submit", "--of", f"{stub.host}/#/runs/details/r1") == 0
    assert posted(stub, "runs")["runtime_config"]["parameters"] == GIVEN


def test_from_a_step_on_caching_is_off_and_what_is_given_is_changed(stub, earlier, capsys):
    words = ("--from", "train_san", "--param", "san_overrides=epochs=3", "--param", "seed=4")
    assert call(stub, "submit", "--of", "r1", *words) == 0
    run = posted(stub, "runs")
    before, after = caching(earlier[0]), caching(run["pipeline_spec"]["pipeline_spec"])
    assert before["train-san"]
    assert after == {**before, "train-san": False}
    changed = {"san_overrides": "epochs=3", "seed": 4}
    assert run["runtime_config"]["parameters"] == {**GIVEN, **changed}
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith(
        "train-san and the steps after it run again; earlier steps come from the server's cache,"
        " except"
    )
    assert line.endswith(
        " seal-textures, generate-textures, which this run does not cache; results that are not in"
        " the cache are made again"
    )


def test_experiment_root_and_account_of_the_run_can_be_others(stub, earlier):
    words = ("--experiment", "other", "--pipeline-root", "s3://b/r", "--service-account", "me")
    assert call(stub, "submit", "--of", "r1", *words, "--name", "again") == 0
    run = posted(stub, "runs")
    assert run["experiment_id"] == stub.experiments["other"]
    assert run["runtime_config"]["pipeline_root"] == "s3://b/r"
    assert (run["service_account"], run["display_name"]) == ("me", "again")


def test_run_can_be_followed_that_is_submitted_again(stub, earlier):
    stub.states = ["FAILED", "SUCCEEDED"]  # as it is read, and as it goes
    assert call(stub, "submit", "--of", "r1", "--wait") == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--from", "train_sam"), "no step 'train_sam'; did you mean 'train-san'?"),
        (("--param", "sed=1"), "no parameter 'sed'; did you mean 'seed'?"),
        (("--param", "seed=x"), "parameter seed: 'x' is not a whole number"),
        (("--param", "san_recipe=nope"), "no recipe 'nope'"),
        (("--param", "destination=/tmp/t"), "is a folder that is lost when its pod ends"),
    ],
)
def test_mistakes_about_an_earlier_run_are_found_before_a_run_is_sent(
    stub, earlier, capsys, words, message
):
    with pytest.raises(SystemExit) as stop:
        call(stub, "submit", "--of", "r1", *words)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert [r.method for r in stub.requests] == ["GET"]


def test_folder_in_a_volume_of_the_earlier_run_is_no_mistake(stub, earlier):
    assert call(stub, "submit", "--of", "r1", "--param", "destination=/data/textures") == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--from", "train_san"), "--from needs --of RUN"),
        (("--of", "r1", "--graph", "full"), "--graph has no effect with --of"),
        (("--of", "r1", "--preset", "demo"), "--preset has no effect with --of"),
        (
            ("--of", "r1", "--gpus", "2"),
            "--gpus has no effect with --of, which uses the images and",
        ),
        (("--of", "r1", "--image", "a:1"), "--image has no effect with --of"),
        (("--of", "r 1"), "r 1 is neither the id of a run nor the link to its page"),
        (("--of", "../x"), "../x is neither the id of a run"),
        (
            ("--of", "r1", "--only", "evaluate", "--from", "evaluate"),
            "--from and --only cannot be combined",
        ),
        (("--deadline", "soon"), "--deadline soon: not a time, such as 90s"),
        (("--deadline", "99999d"), "--deadline 99999d is longer than"),
        (("--name", "r" * 256), "the name of the run has 256 characters, and Kubeflow keeps 255"),
        (("--experiment", "e" * 129), "the name of the experiment has 129 characters"),
        (("--experiment", ""), "the name of the experiment is empty"),
        (("--schedule", "0 3 * * *", "--wait"), "--wait has no effect with --schedule"),
        (("--schedule", "0 3 * * *", "--no-cache"), "--no-cache has no effect with --schedule"),
        (("--schedule", "0 3 * * *", "--gpus", "2"), "--gpus has no effect with --schedule"),
        (("--schedule", "0 3 * *"), "has 4 fields; give 5"),
        (("--no-catchup",), "--no-catchup needs --schedule"),
    ],
)
def test_options_that_mean_nothing_together_are_refused(stub, capsys, words, message):
    assert message in refused(stub, capsys, "submit", *words)


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (("--param", "destination=s3://KEY:hunter2@bucket/x"), "--param destination"),
        (("--env", "PIP_INDEX_URL=http://user:hunter2@h/simple"), "--env PIP_INDEX_URL"),
        (("--env", "PIP_INDEX_URL=http://user:hun/ter2@h/simple"), "--env PIP_INDEX_URL"),
        (("--env", "http://user:hunter2@h"), "--env"),
        (("--param", "san_overrides=lr=1 pretrained=s3://K:hunter2@b/w"), "--param san_overrides"),
        (("--pipeline-root", "s3://hunter2@b/r"), "--pipeline-root"),
        (("--only", "evaluate", "--input", "features=s3://k:hunter2@b/f"), "--input features"),
    ],
)
def test_credentials_in_urls_are_refused_and_not_repeated(stub, capsys, words, flag):
    said = refused(stub, capsys, "submit", *words)
    assert f"{flag}: a URI must not contain a user, key or " in said
    assert "ter2" not in said


def test_credentials_in_the_host_are_refused_and_not_repeated(stub, capsys):
    said = refused(stub, capsys, "submit", "--host", "http://me:hunter2@h")
    assert "--host holds a user name or password (before @)" in said
    assert "ter2" not in said


@pytest.mark.parametrize("command", ["compile", "upload --host http://h"])
def test_credentials_in_the_environment_of_pods_are_refused_by_every_command(capsys, command):
    with pytest.raises(SystemExit):
        pipeline.main([*command.split(), "--env", "PIP_INDEX_URL=http://user:hunter2@h"])
    said = capsys.readouterr().err
    assert "--env PIP_INDEX_URL: a URI must not contain a user, key or password" in said
    assert "hunter2" not in said


def test_a_preset_scores_no_untrained_encoder_of_an_onnx_file(stub, capsys):
    words = ("submit", "--preset", "demo", "--param", "model=s3://bucket/x.onnx")
    root = ("--pipeline-root", "s3://bucket/root", "--image", CLUSTER_IMAGE)
    error = refused(stub, capsys, *words, *root, "--param", "references=true")
    assert "s3://bucket/x.onnx is an ONNX file, which has none" in error
    assert call(stub, *words, *root) == 0
    told = "left out, as the ONNX file s3://bucket/x.onnx has no untrained encoder: references\n"
    assert told in capsys.readouterr().out
    assert "references" not in posted(stub, "runs")["runtime_config"]["parameters"]


def test_run_that_the_server_does_not_have_is_one_line(stub, capsys):
    assert call(stub, "submit", "--of", "nope") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "(404: Failed to get a run: " in line


EVALUATED = ("--input", "features=minio://mlpipeline/f", "--input", "dataset=minio://mlpipeline/d")


def step_words(*words: str) -> tuple[str, ...]:
    return ("--image", CLUSTER_IMAGE, *words)


def test_one_step_takes_its_parameters_from_a_run(stub, earlier, capsys):
    words = step_words("--only", "train_san", "--input", "dataset=minio://mlpipeline/d")
    assert call(stub, "submit", "--of", "r1", *words, "--param", "seed=9") == 0
    run = posted(stub, "runs")
    values = run["runtime_config"]["parameters"]
    given = {"recipe": "demo", "checkpoint": "s3://b/state", "seed": 9, "onnx": False}
    assert given.items() <= values.items()
    assert run["pipeline_spec"]["pipeline_spec"]["pipelineInfo"]["name"] == "san-train-san"
    assert run["runtime_config"]["pipeline_root"] == "minio://mlpipeline/mine"
    assert run["experiment_id"] == stub.experiments["reid"]
    assert "warning" not in capsys.readouterr().err


def test_one_step_takes_its_parameters_from_a_run_of_that_step_alone(stub):
    words = step_words("--only", "evaluate", *EVALUATED)
    assert call(stub, "submit", *words, "--param", "rerank=true") == 0
    (first,) = stub.runs
    stub.requests.clear()
    assert call(stub, "submit", *words, "--of", first, "--param", "references=true") == 0
    values = posted(stub, "runs")["runtime_config"]["parameters"]
    assert (values["rerank"], values["references"]) == (True, True)


def test_parameter_that_differs_between_workers_must_be_given(stub, earlier, capsys):
    words = step_words("--only", "generate_textures", "--input", "dataset=minio://mlpipeline/d")
    words += ("--input", "generator=minio://mlpipeline/g", "--of", "r1")
    with pytest.raises(SystemExit):
        call(stub, "submit", *words)
    message = "generate_textures ran with several values of worker in run r1; give --param worker="
    assert message in capsys.readouterr().err
    assert call(stub, "submit", *words, "--param", "worker=0/1") == 0
    values = posted(stub, "runs")["runtime_config"]["parameters"]
    assert (values["worker"], values["verify"]) == ("0/1", "sha256")


def test_a_removed_parameter_is_left_out_and_reported(stub, earlier, capsys):
    definition = earlier[0]
    task = definition["root"]["dag"]["tasks"]["evaluate"]["inputs"]["parameters"]
    task["bygone"] = {"runtimeValue": {"constant": 1}}
    assert call(stub, "submit", "--of", "r1", *step_words("--only", "evaluate", *EVALUATED)) == 0
    assert "left out, as evaluate does not take them now: bygone" in capsys.readouterr().out
    assert "bygone" not in posted(stub, "runs")["runtime_config"]["parameters"]


def test_step_that_the_run_does_not_have_is_refused(stub, earlier, capsys):
    words = step_words("--only", "take_generator", "--param", "source=shipped")
    with pytest.raises(SystemExit):
        call(stub, "submit", "--of", "r1", *words)
    assert "no step 'take_generator'" in capsys.readouterr().err


def test_the_generator_of_the_package_is_no_folder_that_a_pod_could_lose(stub, capsys):
    words = step_words("--only", "take_generator")
    assert call(stub, "submit", *words, "--param", "source=shipped") == 0
    (first,) = stub.runs
    assert call(stub, "submit", *words, "--of", first) == 0
    assert call(stub, "submit", "--of", first, "--param", "source=shipped") == 0
    given = [run["runtime_config"]["parameters"]["source"] for run in stub.runs.values()]
    assert given == ["shipped"] * 3
    with pytest.raises(SystemExit):
        call(stub, "submit", *words, "--param", "source=./shipped")
    assert "source=./shipped is a folder that is lost" in capsys.readouterr().err


def test_the_folder_of_the_packages_generator_is_another_one_in_a_pod(stub, capsys):
    """The word alone names what the image has; a path is that of this machine."""
    places = ("--pipeline-root", "s3://b/root", "--image", CLUSTER_IMAGE)
    for graph in ("ready", "pretrained"):
        words = ("submit", "--graph", graph, *places, "--param", "dataset=synthetic", "--param")
        said = refused(stub, capsys, *words, f"generator={SHIPPED_FOLDER}")
        assert f"generator={SHIPPED_FOLDER} is a folder that is lost" in said
    step = ("submit", *step_words("--only", "take_generator"), "--param")
    said = refused(stub, capsys, *step, f"source={SHIPPED_FOLDER}")
    assert f"source={SHIPPED_FOLDER} is a folder that is lost" in said


def test_a_data_set_in_a_folder_that_is_called_shipped_is_lost_with_its_pod(stub, capsys):
    words = step_words("--only", "prepare_reid", "--param", "dataset=folders")
    assert "source=shipped is a folder" in refused(
        stub, capsys, "submit", *words, "--param", "source=shipped"
    )


@pytest.mark.parametrize(
    ("uri", "root", "why"),
    [
        ("s3://mlpipeline/f", (), "not in minio://mlpipeline, the pipeline root (of a stock inst"),
        ("minio://other/f", (), "KFP opens another scheme or bucket only with"),
        ("minio://mlpipeline/f", ("--pipeline-root", "s3://b/r"), "not in s3://b, the pipeline "),
        ("oci://r.example/f:1", (), "KFP mounts oci:// only for its own models"),
    ],
)
def test_input_that_the_launcher_may_not_open_is_warned_of(stub, capsys, uri, root, why):
    words = step_words("--only", "evaluate", *EVALUATED[2:], "--input", f"features={uri}", *root)
    assert call(stub, "submit", *words) == 0
    said = capsys.readouterr().err
    assert f"pipeline.py: warning: --input features={uri}: " in said
    assert why in said


def test_input_in_the_bucket_of_the_root_is_not_warned_of(stub, capsys):
    words = step_words("--only", "evaluate", "--pipeline-root", "s3://b/root")
    inputs = ("--input", "features=s3://b/f", "--input", "dataset=s3://b/d")
    assert call(stub, "submit", *words, *inputs) == 0
    assert capsys.readouterr().err == ""


BASELINE = ("--image", CLUSTER_IMAGE, "--graph", "baseline", "--param", "checkpoint=s3://b/c")


def test_no_cache_and_deadline_are_in_the_run(stub, capsys):
    stub.version = "2.17.0"
    assert call(stub, "submit", *BASELINE, "--no-cache", "--deadline", "2d") == 0
    spec = posted(stub, "runs")["pipeline_spec"]
    assert set(caching(spec["pipeline_spec"]).values()) == {False}
    config = spec["platform_spec"]["platforms"]["kubernetes"]["pipelineConfig"]
    assert config == {"activeDeadlineSeconds": 172800}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("command", ["submit", "upload"])
@pytest.mark.parametrize("interface", [False, True], ids=["its API", "its pages"])
def test_deadline_that_an_older_server_would_drop_is_refused(
    stub, capsys, monkeypatch, command, interface
):
    stub.version = "2.16.1"
    if interface:  # which answers for the server in words of its own
        monkeypatch.setattr(stub, "health", lambda _: {"apiServerTagName": stub.version})
    words = BASELINE if command == "submit" else UPLOADED
    assert call(stub, command, *words, "--deadline", "2d") == 1
    said = capsys.readouterr().err
    assert "is Kubeflow Pipelines 2.16, which ignores --deadline" in said
    assert {request.method for request in stub.requests} == {"GET"}


def test_deadline_goes_to_a_server_that_does_not_tell_its_version_with_a_warning(stub, capsys):
    assert call(stub, "submit", *BASELINE, "--deadline", "2d") == 0
    assert posted(stub, "runs")["pipeline_spec"]["platform_spec"]
    (line,) = capsys.readouterr().err.splitlines()
    assert "does not report its version; Kubeflow Pipelines before 2.17 ignores" in line


UPLOADED = ("--image", CLUSTER_IMAGE, "--graph", "baseline")


def test_upload_makes_a_pipeline_and_then_adds_versions(stub, capsys):
    assert call(stub, "upload", *UPLOADED) == 0
    (made,) = stub.pipelines.values()
    assert made["name"] == "san-baseline"
    assert capsys.readouterr().out == (
        f"pipeline san-baseline: {stub.host}/#/pipelines/details/{made['pipeline_id']}\n"
    )
    assert call(stub, "upload", *UPLOADED, "--version", "v2", "--no-cache") == 0
    versions = list(stub.versions.values())
    assert [one["name"] for one in versions] == ["san-baseline", "v2"]
    assert any(caching(versions[0]["pipeline_spec"]["pipeline_spec"]).values())
    assert not any(caching(versions[1]["pipeline_spec"]["pipeline_spec"]).values())
    out = capsys.readouterr().out
    assert out.startswith(f"version v2 of san-baseline: {stub.host}/#/pipelines/details/")
    assert out.endswith(f"/version/{versions[1]['pipeline_version_id']}\n")


def test_uploaded_version_holds_what_compile_writes(stub, tmp_path):
    file = tmp_path / "p.yaml"
    words = (*UPLOADED, "--gpus", "2", "--memory", "8Gi")
    assert pipeline.main(["compile", *words, "--output", str(file)]) == 0
    assert call(stub, "upload", *words, "--pipeline", "mine") == 0
    definition, platform = yaml.safe_load_all(file.read_text("utf-8"))
    (version,) = stub.versions.values()
    assert version["pipeline_spec"] == {"pipeline_spec": definition, "platform_spec": platform}


def test_version_that_is_there_is_not_written_over(stub, capsys):
    assert call(stub, "upload", *UPLOADED, "--version", "v1") == 0
    assert [one["name"] for one in stub.versions.values()] == ["san-baseline", "v1"]
    assert call(stub, "upload", *UPLOADED, "--version", "v1") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("refuses (409: Failed to create a pipeline version)")


SCHEDULED = ("--graph", "baseline", "--param", "checkpoint=s3://b/c", "--schedule", "0 3 * * *")


def test_schedule_runs_the_newest_version_at_the_times_that_people_mean(stub, capsys):
    for version in ("v1", "v2"):
        assert call(stub, "upload", *UPLOADED, "--version", version) == 0
    capsys.readouterr()
    words = ("--not-after", "2027-01-01T00:00:00Z", "--name", "nightly", "--no-catchup")
    assert call(stub, "submit", *SCHEDULED, *words) == 0
    made = posted(stub, "recurringruns")
    newest = list(stub.versions.values())[-1]
    assert made["pipeline_version_reference"] == {
        "pipeline_id": newest["pipeline_id"],
        "pipeline_version_id": newest["pipeline_version_id"],
    }
    assert made["trigger"]["cron_schedule"] == {
        "cron": "0 0 3 * * *",
        "end_time": "2027-01-01T00:00:00Z",
    }
    assert (made["mode"], made["max_concurrency"], made["no_catchup"]) == ("ENABLE", "1", True)
    assert made["runtime_config"]["parameters"] == {"checkpoint": "s3://b/c"}
    (one,) = stub.recurring
    assert capsys.readouterr().out == (
        f"schedule nightly (0 0 3 * * *): {stub.host}/#/recurringrun/details/{one}\n"
    )


def test_schedule_runs_the_version_that_is_named(stub, capsys):
    for version in ("v1", "v2"):
        assert call(stub, "upload", *UPLOADED, "--pipeline", "mine", "--version", version) == 0
    assert call(stub, "submit", *SCHEDULED, "--pipeline", "mine", "--version", "v1") == 0
    used = posted(stub, "recurringruns")["pipeline_version_reference"]["pipeline_version_id"]
    assert stub.versions[used]["name"] == "v1"
    assert call(stub, "submit", *SCHEDULED, "--pipeline", "mine", "--version", "v3") == 1
    said = capsys.readouterr().err
    assert "pipeline mine has no version 'v3'; there are v2, v1, mine" in said


def test_schedule_without_an_uploaded_pipeline_says_how_to_upload(stub, monkeypatch, capsys):
    monkeypatch.setattr(sys, "executable", "/env/bin/python")
    assert call(stub, "submit", *SCHEDULED) == 1
    (line,) = capsys.readouterr().err.splitlines()
    upload = "/env/bin/python pipeline.py upload --graph baseline"
    assert line.endswith(f"has no pipeline san-baseline; `{upload}` uploads it")


def test_runs_are_listed_newest_first(stub, capsys):
    made = {"created_at": "2026-11-28T14:34:47Z"}
    for number, ended in enumerate((NEVER, "2026-11-28T14:36:45Z", NEVER)):
        times = {**made, "finished_at": ended}
        stub.add_run(f"r{number}", state="FAILED", **times, display_name=f"run {number}")
    assert call(stub, "runs list", "--most", "2") == 0
    assert capsys.readouterr().out.splitlines() == [
        "r2  FAILED     2026-11-28 14:34          run 2",
        "r1  FAILED     2026-11-28 14:34   2 min  run 1",
    ]
    assert call(stub, "runs list", "--experiment", "other") == 1
    assert "has no experiment other" in capsys.readouterr().err


def test_run_is_stopped_once(stub, capsys):
    stub.add_run("r1", state="RUNNING")
    assert call(stub, "runs stop", "r1") == 0
    assert stub.runs["r1"]["state"] == "CANCELING"
    assert f"run r1 is being stopped: {stub.host}/#/runs/details/r1" in capsys.readouterr().out
    assert call(stub, "runs stop", "r1") == 1
    assert "run r1 cannot be stopped: it is CANCELING" in capsys.readouterr().err


def test_failed_run_is_retried_and_any_other_refused_in_the_servers_words(stub, capsys):
    stub.add_run("r1", state="FAILED")
    assert call(stub, "runs retry", f"{stub.host}/#/runs/details/r1") == 0
    assert stub.runs["r1"]["state"] == "RUNNING"
    assert call(stub, "runs retry", "r1") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "refuses (409: Failed to retry a run: BadRequestError: " in line


def test_nothing_that_is_sent_repeats_credentials_of_this_machine(stub, earlier, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    assert call(stub, "submit", "--of", "r1") == 0
    assert "hunter2" not in json.dumps([r.body for r in stub.requests])
