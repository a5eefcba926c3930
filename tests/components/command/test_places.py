"""The default places of a step."""

import json

import pytest

from components.__main__ import main
from components.command.executor_input import parse_executor_input
from components.command.places import pipeline_root, settle_places

RUN = "6c1b4f0e-2d3a-4b5c-8d9e-0f1a2b3c4d5e"
ID = "0f1a2b3c-4d5e-6f70-8192-a3b4c5d6e7f8"
ROOT = "minio://mlpipeline/v2/artifacts"
OUTPUT = f"{ROOT}/san-full/{RUN}/train-san/{ID}/model"
EMPTY = {"destination": "", "checkpoint": "", "feature_parts": ""}


def executor_input(*uris):
    """What KFP tells a task whose outputs lie there."""
    artifacts = {f"out{i}": {"artifacts": [{"uri": uri}]} for i, uri in enumerate(uris)}
    return {"outputs": {"artifacts": artifacts, "outputFile": "/tmp/kfp_outputs/o.json"}}


@pytest.mark.parametrize(
    ("uri", "root"),
    [
        (OUTPUT, ROOT),
        (OUTPUT.replace(f"{ID}/", ""), ROOT),  # of a backend before 2.3
        (OUTPUT.replace("san-full", "pipeline/san-full"), ROOT),
        (OUTPUT.replace("san-full", "namespace/anna/pipeline/san-full"), ROOT),
        (f"s3://bucket/san-full/{RUN}/train-san/{ID}/model", "s3://bucket"),
        (f"s3://bucket/{RUN}/san-full/{RUN}/task/{ID}/model", f"s3://bucket/{RUN}"),
        (
            f"minio://mlpipeline/private-artifacts/anna/v2/artifacts/x/{RUN}/task/{ID}/model",
            "minio://mlpipeline/private-artifacts/anna/v2/artifacts",
        ),
    ],
)
def test_pipeline_root_is_the_front_of_the_outputs(uri, root):
    assert pipeline_root(executor_input(uri)) == root


def test_empty_places_are_folders_in_the_pipeline_root():
    assert settle_places({**EMPTY, "seed": 0}, executor_input(OUTPUT)) == {
        "destination": f"{ROOT}/san-textures",
        "checkpoint": f"{ROOT}/san-checkpoints",
        "feature_parts": f"{ROOT}/san-features",
        "seed": 0,
    }


def test_empty_places_are_the_same_for_all_tasks_runs_and_tries():
    other = f"{ROOT}/san-ready/{ID}/generate-textures/{RUN}/written"
    assert settle_places(EMPTY, executor_input(other)) == settle_places(
        EMPTY, executor_input(OUTPUT)
    )


def test_places_that_are_given_are_taken_whatever_the_root_is():
    given = {"destination": "s3://b/t", "checkpoint": "/state"}
    for uri in (OUTPUT, "gs://bucket/x", "/runs/model"):
        assert settle_places(given, executor_input(uri)) == given
    assert settle_places(given, None) == given


@pytest.mark.parametrize("name", ["checkpoint", "feature_parts"])
def test_word_none_keeps_nothing(name):
    for told in (executor_input(OUTPUT), executor_input("gs://bucket/x"), None):
        assert settle_places({name: "none"}, told) == {name: ""}


@pytest.mark.parametrize(
    "told", [None, executor_input("/runs/a/model"), executor_input("file:///r")]
)
def test_without_a_pipeline_root_an_empty_checkpoint_keeps_none_and_a_destination_is_needed(told):
    assert settle_places({"checkpoint": ""}, told) == {"checkpoint": ""}
    with pytest.raises(ValueError, match="destination is needed, a folder or URI such as s3://"):
        settle_places({"destination": ""}, told)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        (OUTPUT.replace("minio", "gs"), "the pipeline root is at gs://, where steps cannot store"),
        (OUTPUT + "?endpoint=x:9000", "the pipeline root is unknown"),
        ("s3://bucket/somewhere/model", "as s3://bucket/somewhere/model is not below one"),
    ],
)
@pytest.mark.parametrize("name", ["destination", "checkpoint"])
def test_root_that_steps_cannot_use_asks_for_both_places(uri, message, name):
    asked = r"; give both destination=URI and checkpoint=URI \(or checkpoint=none\)"
    with pytest.raises(ValueError, match=message) as raised:
        settle_places({name: ""}, executor_input(uri))
    raised.match(asked)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["destination", "checkpoint", "source", "texture_source"])
@pytest.mark.parametrize(
    "place", ["s3://KEY:hunter2@bucket/x", "minio://KEY:hun/ter2@bucket", "https://u:hunter2@h/x"]
)
def test_credentials_in_a_place_are_refused_and_not_shown(name, place):
    with pytest.raises(
        ValueError, match=f"{name}: a URI must not contain a user, key or"
    ) as raised:
        settle_places({name: place}, None)
    assert "ter2" not in str(raised.value)


def test_step_ends_with_one_line_and_status_2_where_it_cannot_keep_things(tmp_path, capsys):
    """As a task on a cluster whose pipeline root is at gs:// would."""
    words = ["--executor-input", json.dumps(executor_input(OUTPUT.replace("minio", "gs")))]
    for name in ("dataset", "generator", "written"):
        words += [f"--{name}", str(tmp_path / name)]
    assert main(["generate_textures", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_step_refuses_credentials_in_a_place_before_it_does_anything(tmp_path, capsys):
    words = ["--pit", str(tmp_path / "pit"), "--source", "s3://KEY:hunter2@bucket/x"]
    assert main(["make_pit", *words]) == 2
    assert "hunter2" not in capsys.readouterr().err
    assert main(["make_pit", "--pit", "s3://KEY:hunter2@bucket/x"]) == 2
    assert "hunter2" not in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["", "/tmp/\\u0000x"])
@pytest.mark.parametrize("what", ["outputFile", "uri"])
def test_a_place_that_kfp_would_never_name_is_refused(what, place):
    named = {"outputFile": "/tmp/o.json", "uri": "/tmp/reid", what: place}
    text = (
        f'{{"outputs": {{"outputFile": "{named["outputFile"]}", "artifacts": {{"reid":'
        f' {{"artifacts": [{{"uri": "{named["uri"]}"}}]}}}}}}}}'
    )
    with pytest.raises(ValueError, match=r"outputs.* is .*; it must be "):
        parse_executor_input(text)
