"""The runner of containers, with an engine that is made up; tests/docker has a real one."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker
import pytest
import requests
from kfp.local import docker_task_handler

import pipeline
from components.command.code import ROOT
from components.process.machine import core_count
from components.process.signals import Terminated
from components.runner import containers
from components.runner.containers import (
    RunError,
    _bind_mounts,
    _container_options,
    _Containers,
    _ensure_images,
    _failure_message,
    _split_lines,
)
from components.runner.ir import Task
from components.storage.sources import READ_PARAMETERS

COMMAND = ["python", "-m", "components", "evaluate", "--report-page", "/x", "--rerank", "false"]


class Container:
    """A container that says its lines and ends with its status."""

    def __init__(self, *, status: int = 0, said: bytes = b"", state: dict | None = None) -> None:
        self.id = "1"
        self.status, self.said = status, said
        self.attrs = {"State": {"OOMKilled": False, **(state or {})}}
        self.is_removed = False

    def start(self) -> None:
        pass

    def logs(self, **_: Any) -> list[bytes]:
        return [self.said[:5], self.said[5:]]

    def wait(self) -> dict[str, int]:
        return {"StatusCode": self.status}

    def reload(self) -> None:
        pass

    def remove(self, *, force: bool) -> None:
        self.is_removed = force


@pytest.fixture(autouse=True)
def no_certificates(monkeypatch):
    """The environment of whoever tests names no certificates, which would be mounted."""
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)


@pytest.fixture
def run(tmp_path):
    """Run a made-up container; its status, and the runner that ran it."""

    def run(container: Any, *, plan: list[Task] | None = None) -> tuple[int, _Containers, dict]:
        created: dict[str, Any] = {}

        def create(image: str, command: list[str], **options: Any) -> Any:
            created.update(options, image=image, command=command)
            if isinstance(container, Exception):
                raise container
            return container

        client = SimpleNamespace(containers=SimpleNamespace(create=create))
        runner = _Containers(
            client, plan or [Task("evaluate", "evaluate")], tmp_path, io.StringIO(), verbose=False
        )
        return runner.run_container(client, "san:1", COMMAND, {}), runner, created

    return run


@pytest.mark.parametrize("status", [0, 1, 9, 143])
def test_exit_status_is_the_containers(run, status):
    container = Container(status=status)
    got, runner, _ = run(container)
    assert got == status
    assert container.is_removed
    assert bool(runner.failure) is (status != 0)


def test_what_a_container_warns_of_is_shown_under_its_line(run):
    said = b"12:00:00 reading\n12:00:01 warning: 61 images are left out\nwarning: not a log's\n"
    _, runner, _ = run(Container(said=said))
    first, *others = runner.screen.stream.getvalue().splitlines()
    assert first.startswith("evaluate ... done in ")
    assert others == ["  warning: 61 images are left out"]


def test_container_that_is_gone_is_no_success(run):
    container = Container()

    def gone() -> dict[str, int]:
        raise docker.errors.NotFound("No such container")

    container.wait = gone
    status, runner, _ = run(container)
    assert status == containers.KILLED_STATUS
    assert runner.failure.startswith("evaluate was killed by SIGKILL\n  log: ")


def test_container_that_cannot_be_made_is_told(run):
    status, runner, _ = run(docker.errors.APIError("500", explanation="no such device"))
    assert status == 1
    assert runner.failure == "evaluate could not be started: no such device"


BROKEN = [
    (docker.errors.APIError("500", explanation="driver\nfailed"), "driver failed"),
    (requests.exceptions.ConnectionError("Connection aborted"), "Connection aborted"),
    (requests.exceptions.ReadTimeout("Read timed out"), "Read timed out"),
    (requests.exceptions.ChunkedEncodingError("Response ended early"), "Response ended early"),
]


@pytest.mark.parametrize(("error", "why"), BROKEN)
@pytest.mark.parametrize("where", ["start", "logs", "wait", "reload"])
def test_engine_that_breaks_off_is_told_and_the_log_is_kept(run, error, why, where):
    container = Container(said=b"12:00:00 looking\n")

    def broken(**_: Any) -> Any:
        raise error

    setattr(container, where, broken)
    status, runner, _ = run(container)
    assert status == 1
    first, second = runner.failure.splitlines()
    assert first == f"evaluate: the docker engine failed: {why}"
    said = b"" if where in ("start", "logs") else b"12:00:00 looking"
    assert Path(second.removeprefix("  log: ")).read_bytes().strip() == said
    assert container.is_removed
    assert runner.running == {}


@pytest.mark.parametrize(("error", "why"), BROKEN[1:])
def test_engine_that_breaks_off_before_a_container_is_made_is_told(run, error, why):
    status, runner, _ = run(error)
    assert status == 1
    assert runner.failure == f"evaluate could not be started: {why}"


def test_engine_that_is_gone_at_the_end_takes_no_result_away(run):
    container = Container()

    def gone(*, force: bool) -> None:
        raise requests.exceptions.ConnectionError("refused")

    container.remove = gone
    status, runner, _ = run(container)
    assert (status, runner.failure) == (0, "")


def test_command_that_is_not_in_the_image_is_told(run):
    container = Container()

    def missing() -> None:
        raise docker.errors.NotFound("404", explanation="exec: python: executable file not found")

    container.start = missing
    _, runner, _ = run(container)
    first = runner.failure.splitlines()[0]
    assert first == "evaluate: the docker engine failed: exec: python: executable file not found"


def test_last_line_of_the_step_is_why_it_failed(run):
    said = b"12:00:00 looking\nevaluate: no image 7\n"
    _, runner, _ = run(Container(status=1, said=said))
    first, second = runner.failure.splitlines()
    assert first == "evaluate failed with exit code 1: no image 7"
    assert Path(second.removeprefix("  log: ")).read_bytes() == said


def test_memory_that_ran_out_is_told_apart_from_being_killed(run):
    _, runner, _ = run(Container(status=137, state={"OOMKilled": True}))
    assert runner.failure.startswith("evaluate was killed: its container was out of memory\n")
    _, runner, _ = run(Container(status=137))
    assert runner.failure.startswith("evaluate was killed by SIGKILL\n")


def test_end_of_a_traceback_is_shown():
    lines = ["Traceback", *"abcd", "KeyError: 1", ""]
    told = _failure_message("evaluate", 1, lines, Path("/l"), is_out_of_memory=False)
    assert told.splitlines() == [
        "evaluate failed with exit code 1:",
        *("  | a", "  | b", "  | c", "  | d", "  | KeyError: 1", "  log: /l"),
    ]


def test_steps_side_by_side_divide_the_cores(run):
    two = [Task(f"evaluate-{i}", "evaluate") for i in range(2)]
    _, _, options = run(Container(), plan=two)
    assert options["environment"]["OMP_NUM_THREADS"] == str(max(1, core_count() // 2))


def test_pages_and_scores_are_shown_whatever_they_are_called(tmp_path):
    made = {"a_page": "system.HTML", "scores": "system.Metrics", "model": "system.Model"}
    words = {"step": "train"}
    for name, content in (("a_page", "<p>"), ("scores", '{"mAP": 0.5}'), ("model", "")):
        (tmp_path / f"made-{name}").write_text(content)
        words[f"--{name.replace('_', '-')}"] = str(tmp_path / f"made-{name}")
    plan = [Task("train-0", "train", outputs=made)]
    runner = _Containers(None, plan, tmp_path, io.StringIO(), verbose=False)
    runner.finished_steps.append(words)
    runner.show_results()
    page = tmp_path / "train.html"
    assert page.read_text() == "<p>"
    assert runner.screen.stream.getvalue() == f"train: {page}\n  mAP 0.5\n"


def test_lines_come_whole_out_of_pieces():
    assert list(_split_lines([b"a\nb", b"c\n", b"", b"d\xff"])) == ["a", "bc", "d\ufffd"]


def test_kfp_runs_containers_here_and_only_within_the_block(tmp_path):
    theirs = docker_task_handler.run_docker_container
    runner = _Containers(None, [], tmp_path, io.StringIO(), verbose=False)
    with runner.replace_kfp_runner():
        assert docker_task_handler.run_docker_container == runner.run_container
    assert docker_task_handler.run_docker_container is theirs


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)]
)
def test_signal_removes_what_runs(tmp_path, number, error):
    runner = _Containers(None, [], tmp_path, io.StringIO(), verbose=False)
    container = Container()
    runner.running["1"] = container
    with pytest.raises(error), runner.replace_kfp_runner():
        signal.raise_signal(number)
    assert container.is_removed
    assert signal.getsignal(number) != runner._stop


@pytest.mark.parametrize("name", READ_PARAMETERS)
def test_data_is_mounted_read_only_under_its_own_path(tmp_path, name):
    data = tmp_path / "data"
    data.mkdir()
    run = tmp_path / "run"
    arguments = {name: str(data), "destination": f"file://{run}/textures", "checkpoint": ""}
    (mount,) = _bind_mounts(arguments, run)
    assert (mount["Source"], mount["Target"], mount["ReadOnly"]) == (str(data), str(data), True)


@pytest.mark.parametrize(
    ("name", "mounted"), [("people.csv", "."), ("people.zip", "people.zip"), (".", ".")]
)
def test_table_is_mounted_with_its_folder_and_an_archive_alone(tmp_path, name, mounted):
    data = tmp_path / "data"
    data.mkdir()
    (data / "people.csv").touch()
    (data / "people.zip").touch()
    (mount,) = _bind_mounts({"source": str(data / name)}, tmp_path / "run")
    assert mount["Source"] == mount["Target"] == str(data / mounted)


def test_folder_that_is_named_twice_is_mounted_once(tmp_path):
    (tmp_path / "a.csv").touch()
    (tmp_path / "b.csv").touch()
    arguments = {
        "source": str(tmp_path / "a.csv"),
        "target_source": f"file://{tmp_path}/b.csv",
        "texture_source": f"{tmp_path}/",
    }
    (mount,) = _bind_mounts(arguments, tmp_path / "run")
    assert mount["Source"] == str(tmp_path)


def test_data_in_the_folder_of_the_run_is_not_mounted_again(tmp_path):
    (tmp_path / "data").mkdir()
    assert _bind_mounts({"target_source": str(tmp_path / "data")}, tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target_source": "/no/such/folder"}, "target_source /no/such/folder does not exist"),
        ({"destination": "/elsewhere"}, "destination /elsewhere is not in"),
        ({"checkpoint": "/elsewhere"}, "checkpoint /elsewhere is not in"),
        ({"source": "/no/such/folder"}, "source /no/such/folder does not exist"),
    ],
)
def test_place_that_containers_cannot_reach_is_refused(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        _bind_mounts(arguments, tmp_path)


def test_file_of_certificates_is_mounted_where_its_variable_says(tmp_path, monkeypatch):
    (tmp_path / "bundle.pem").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_CA_BUNDLE", "bundle.pem")
    (mount,) = _bind_mounts({}, tmp_path / "run")
    assert mount["Source"] == mount["Target"] == str(tmp_path / "bundle.pem")
    client = SimpleNamespace(info=dict)
    passed = _container_options(client, tmp_path / "run")["environment"]
    assert passed["AWS_CA_BUNDLE"] == mount["Target"]
    monkeypatch.setenv("AWS_CA_BUNDLE", "none.pem")
    with pytest.raises(ValueError, match=r"AWS_CA_BUNDLE \S+none.pem does not exist"):
        _bind_mounts({}, tmp_path / "run")


def test_word_none_is_no_folder_that_containers_would_have_to_reach(tmp_path):
    assert _bind_mounts({"checkpoint": "none"}, tmp_path) == []


def test_places_in_buckets_are_reached_from_anywhere(tmp_path):
    assert _bind_mounts({"destination": "s3://b/t", "source": "s3://b/s"}, tmp_path) == []


def images(pull: Any) -> Any:
    def get(name: str) -> None:
        raise docker.errors.ImageNotFound("no such image")

    return SimpleNamespace(images=SimpleNamespace(get=get, pull=pull))


def test_image_without_a_registry_is_never_pulled():
    with pytest.raises(RunError, match="there is no image san:cpu here; `make images` builds it"):
        _ensure_images(images(lambda _: pytest.fail("pulled")), {"san:cpu"})


def test_image_of_a_registry_is_pulled():
    pulled: list[str] = []
    _ensure_images(images(pulled.append), {"r.example/san:cpu-1"})
    assert pulled == ["r.example/san:cpu-1"]


def test_steps_are_not_chosen_with_docker(tmp_path, capsys):
    words = ["run", "--preset", "demo", "--runs", str(tmp_path), "--runner", "docker"]
    with pytest.raises(SystemExit) as stop:
        pipeline.main([*words, "--only", "evaluate"])
    assert stop.value.code == 2
    assert "--from and --only are for the process runner" in capsys.readouterr().err


def test_image_without_docker_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        pipeline.main(["run", "--preset", "demo", "--runs", str(tmp_path), "--image", "san:1"])
    assert stop.value.code == 2
    assert "--image is for --runner docker" in capsys.readouterr().err


def test_engine_that_does_not_answer_is_one_line(tmp_path):
    """In a process of its own: the package docker leaves its socket to the garbage collector."""
    words = ["run", "--preset", "demo", "--runs", str(tmp_path), "--runner", "docker"]
    done = subprocess.run(
        [sys.executable, "pipeline.py", *words],
        cwd=ROOT,
        env={**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/docker.sock"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("pipeline.py: no docker engine answers here: ")
