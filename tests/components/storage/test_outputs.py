import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from kfp import dsl

from components.storage.outputs import (
    artifact_path,
    atomic_folder,
    check_replaceable,
    write_executor_output,
    write_file,
    write_metrics,
    write_roc,
)

ROOT = Path(__file__).parents[3]


def tree(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): file.read_text()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def names(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()]


def test_directory_appears_when_it_is_whole(tmp_path):
    with atomic_folder(tmp_path / "a" / "out") as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "file").write_text("x")
        assert folder.parent == tmp_path / "a"
        assert not (tmp_path / "a" / "out").exists()
    assert tree(tmp_path) == {"a/out/deep/file": "x"}


def test_older_directory_is_replaced(tmp_path):
    for text in ("old", "new"):
        with atomic_folder(tmp_path / "out") as folder:
            (folder / text).write_text(text)
    assert tree(tmp_path) == {"out/new": "new"}
    assert names(tmp_path) == ["out"]


def write_and_fail(folder: Path) -> None:
    (folder / "file").write_text("new")
    raise KeyError


def test_failure_leaves_the_older_directory_and_nothing_else(tmp_path):
    with atomic_folder(tmp_path / "out") as folder:
        (folder / "file").write_text("old")
    with pytest.raises(KeyError), atomic_folder(tmp_path / "out") as folder:
        write_and_fail(folder)
    assert tree(tmp_path) == {"out/file": "old"}
    assert names(tmp_path) == ["out"]


KILLED = """
import os, signal, sys
from pathlib import Path
from components.storage.outputs import atomic_folder
with atomic_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_writer_leaves_nothing_that_lasts(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "out")], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    assert len(names(tmp_path)) == 1
    with atomic_folder(tmp_path / "out") as folder:
        (folder / "whole").write_text("whole")
    assert tree(tmp_path) == {"out/whole": "whole"}
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("data", ["zwölf", "zwölf".encode()])
def test_file_is_written_with_its_folders(tmp_path, data):
    write_file(tmp_path / "a" / "b", data)
    assert (tmp_path / "a" / "b").read_text("utf-8") == "zwölf"
    assert names(tmp_path / "a") == ["b"]


def test_file_is_replaced_as_a_whole(tmp_path):
    write_file(tmp_path / "file", "old")
    with (tmp_path / "file").open() as reader:
        write_file(tmp_path / "file", "new")
        assert reader.read() == "old"
    assert (tmp_path / "file").read_text() == "new"


def test_metrics_are_a_json_object_in_order(tmp_path):
    write_metrics(tmp_path / "metrics", {"rank1": 0.5, "queries": 7, "atlas": "san-atlas-1"})
    found = json.loads((tmp_path / "metrics").read_text())
    assert list(found.items()) == [("rank1", 0.5), ("queries", 7), ("atlas", "san-atlas-1")]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_metric_that_is_no_number_is_refused(tmp_path, value):
    with pytest.raises(ValueError, match=f"metric 'loss' is {value}, which is not a finite number"):
        write_metrics(tmp_path / "metrics", {"loss": value})


def test_roc_is_what_kfps_own_class_would_write(tmp_path):
    write_roc(tmp_path / "roc", confidence=[2.0, 0.5], fpr=[0, 0.25], tpr=[0, 1])
    theirs = dsl.ClassificationMetrics()
    theirs.log_roc_curve(fpr=[0.0, 0.25], tpr=[0.0, 1.0], threshold=[2.0, 0.5])
    assert json.loads((tmp_path / "roc").read_bytes()) == theirs.metadata


def test_roc_without_points_is_an_empty_object(tmp_path):
    write_roc(tmp_path / "roc", confidence=[], fpr=[], tpr=[])
    assert json.loads((tmp_path / "roc").read_bytes()) == {}


def test_threshold_that_is_not_finite_is_refused(tmp_path):
    with pytest.raises(ValueError, match="confidenceThreshold is inf, which is not a finite"):
        write_roc(tmp_path / "roc", confidence=[float("inf")], fpr=[0], tpr=[0])


def artifact(name: str, kind: str, uri: str) -> dict[str, object]:
    return {"artifacts": [{"name": name, "uri": uri, "type": {"schemaTitle": f"system.{kind}"}}]}


def test_kfp_gets_metrics_and_facts_of_manifests(tmp_path):
    manifest = b'{"count": 7, "uri": "s3://bucket/textures", "shards": []}'
    write_file(tmp_path / "textures" / "manifest.json", manifest)
    write_file(tmp_path / "model" / "weights", "w")
    write_file(tmp_path / "html", "<p>")
    write_metrics(tmp_path / "metrics", {"mAP": 0.25})
    write_roc(tmp_path / "roc", confidence=[0.5], fpr=[0.25], tpr=[1])
    kinds = {"textures": "Dataset", "model": "Model", "html": "HTML", "metrics": "Metrics"}
    kinds["roc"] = "ClassificationMetrics"
    executor_input = {
        "outputs": {
            "artifacts": {
                name: artifact(name, kind, f"s3://b/{name}") for name, kind in kinds.items()
            },
            "outputFile": str(tmp_path / "deep" / "executor_output.json"),
        }
    }
    write_executor_output(executor_input, {name: tmp_path / name for name in kinds})
    written = json.loads((tmp_path / "deep" / "executor_output.json").read_text())["artifacts"]
    assert {name: one["artifacts"][0]["metadata"] for name, one in written.items()} == {
        "textures": {
            "count": 7,
            "uri": "s3://bucket/textures",
            "sha256": hashlib.sha256(manifest).hexdigest(),
        },
        "model": {},
        "html": {},
        "metrics": {"mAP": 0.25},
        "roc": {
            "confidenceMetrics": [
                {"confidenceThreshold": 0.5, "falsePositiveRate": 0.25, "recall": 1.0}
            ]
        },
    }
    assert written["model"]["artifacts"][0]["uri"] == "s3://b/model"
    assert written["model"]["artifacts"][0]["name"] == "model"


def test_kfp_gets_no_artifacts_of_a_step_without_any(tmp_path):
    write_executor_output({"outputs": {"outputFile": str(tmp_path / "out.json")}}, {})
    assert json.loads((tmp_path / "out.json").read_text()) == {"artifacts": {}}


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("gs://b/x", "/gcs/b/x"),
        ("minio://b/x", "/minio/b/x"),
        ("s3://b/x", "/s3/b/x"),
        ("file:///d/x", "/d/x"),
        ("/d/x", "/d/x"),
    ],
)
def test_artifacts_lie_where_kfp_mounts_them(uri, path):
    assert artifact_path({"uri": uri}) == Path(path)


def test_full_disk_says_what_was_being_written(tmp_path):
    with pytest.raises(OSError) as found, atomic_folder(tmp_path / "model"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert found.value.filename == str(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_older_output_that_is_in_use_on_nfs_is_replaced_with_a_warning(tmp_path, nfs, caplog):
    write_file(tmp_path / "out" / "file", "old")
    with (tmp_path / "out" / "file").open() as reader:
        with atomic_folder(tmp_path / "out") as folder:
            (folder / "file").write_text("new")
        assert reader.read() == "old"
    assert tree(tmp_path / "out") == {"file": "new"}
    assert "/.out.replaced cannot be removed ([Errno 39] Directory not empty" in caplog.text


def test_the_first_error_is_reported_and_not_remains_on_nfs(tmp_path, nfs):
    with pytest.raises(KeyError), atomic_folder(tmp_path / "out") as folder:  # noqa: PT012
        kept = (folder / "file").open("w")
        raise KeyError
    kept.close()
    assert not (tmp_path / "out").exists()


def test_older_output_that_is_still_in_use_on_nfs_does_not_stop_the_next(tmp_path, nfs):
    for content in ("one", "two", "three", "four"):
        with atomic_folder(tmp_path / "out") as folder:
            (folder / "a").write_text(content)
        if content == "one":
            file = (tmp_path / "out" / "a").open()
    assert (tmp_path / "out" / "a").read_text() == "four"
    assert file.read() == "one"
    file.close()


@pytest.mark.parametrize("is_file", [True, False])
def test_an_output_that_is_not_there_yet_replaces_nothing(tmp_path, is_file):
    check_replaceable(tmp_path / "out", is_file=is_file)
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    kept, refused = ("file", "folder") if is_file else ("folder", "file")
    check_replaceable(tmp_path / kept, is_file=is_file)
    with pytest.raises(ValueError, match=f"is a {refused}, but the output is a {kept}"):
        check_replaceable(tmp_path / refused, is_file=is_file)


@pytest.mark.parametrize("is_file", [True, False])
def test_no_output_takes_the_place_of_a_device_or_a_pipe(tmp_path, is_file):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/null")
    for place in (tmp_path / "pipe", tmp_path / "link", Path("/dev/null")):
        with pytest.raises(
            ValueError, match=f"{place} is a device or a pipe, and an output must not rep"
        ):
            check_replaceable(place, is_file=is_file)
