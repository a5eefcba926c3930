"""The launcher of containers, with a made-up docker command; tests/docker has a real one."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pipeline
from components.command.code import ROOT
from components.process.signals import Terminated
from components.runner import local, processes
from components.runner.containers import (
    FILE_VARIABLES,
    PASSED_PREFIXES,
    ContainerLauncher,
    bind_places,
)
from components.runner.folder import RunError
from components.storage.sources import READ_PARAMETERS
from tests.components.runner import fake_docker
from tests.components.runner.small_project import done, runner_program, skipped
from tests.components.runner.test_local import ALL, is_running, pid_of_hanging, wait_for


@pytest.fixture(autouse=True)
def plain_environment(tmp_path, monkeypatch) -> None:
    """The environment of whoever tests names no servers, certificates and GPUs."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in list(os.environ):
        if name.startswith(PASSED_PREFIXES):
            monkeypatch.delenv(name)


@pytest.fixture
def engine(tmp_path, project, monkeypatch) -> Path:
    """The folder of the made-up docker command, which is the one on PATH."""
    folder = tmp_path / "engine"
    (folder / "containers").mkdir(parents=True)
    (folder / "layers").write_text('["sha256:1"]')
    command = folder / "bin" / "docker"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -S {fake_docker.__file__} "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_DOCKER", str(folder))
    monkeypatch.setenv("FAKE_ROOT", str(project))
    return folder


@pytest.fixture
def go(engine, project, compiled) -> Callable[..., list[str]]:
    """Run a pipeline in containers; the lines a person sees."""

    def run(name: str = "chain", *, arguments: dict[str, Any] = {}, **options: Any) -> list[str]:  # noqa: B006
        terminal = io.StringIO()
        folder = project / "runs" / "small"
        local.run_pipeline(
            compiled[name],
            arguments,
            folder=folder,
            launcher=ContainerLauncher(arguments, folder),
            terminal=terminal,
            **options,
        )
        return terminal.getvalue().splitlines()

    return run


def calls(engine: Path, command: str) -> list[list[str]]:
    asked = [json.loads(line) for line in (engine / "calls").read_text().splitlines()]
    return [words for words in asked if words[0] == command]


def test_every_step_runs_in_a_container_of_its_image(go, engine, project):
    lines = go()
    assert done(lines) == ALL
    assert lines[-1] == "  number 111  half 55.5"
    runs = calls(engine, "run")
    assert [words[words.index("small:1") + 4] for words in runs] == ["make", "grow", "grow"]
    assert not list((engine / "containers").iterdir())  # they are removed
    assert "adding 10" in (project / "runs" / "small" / "grow" / "log.txt").read_text()


def test_unchanged_steps_are_skipped_until_the_content_of_the_image_changes(go, engine):
    go()
    assert skipped(go()) == ALL
    assert (skipped(lines := go(arguments={"by": 20})), done(lines)) == (ALL[:1], ALL[1:])
    (engine / "layers").write_text('["sha256:2"]')
    # The same bytes come out of make and grow, but each has run in the new image.
    assert done(go(arguments={"by": 20})) == ALL


def test_steps_are_chosen_as_with_processes(go):
    go()
    assert done(go(start="grow")) == ["grow", "grow_2"]
    assert done(go(only="grow_2")) == ["grow_2"]


def test_containers_side_by_side_divide_the_cores(go, tmp_path, monkeypatch):
    monkeypatch.setattr(local, "core_count", lambda: 4)
    go("loop", arguments={"store": str(tmp_path / "store")})
    assert (tmp_path / "store" / "shards" / "1-2.json").read_text() == "2"


def test_failed_step_ends_the_run_and_says_where_to_read(go, engine, project):
    (project / "flag").write_text("fail")
    with pytest.raises(RunError) as error:
        go(arguments={"flag": str(project / "flag")})
    log = project / "runs" / "small" / "grow" / "log.txt"
    assert str(error.value).splitlines() == [
        "grow failed with exit code 1: the number is too small",
        f"  log: {log}",
        "  finished work is kept; the next run continues from there",
    ]
    assert len(calls(engine, "run")) == 2  # grow_2 is not begun
    assert not list((engine / "containers").iterdir())


HANGING = "runs/small/grow/result/hanging"


@pytest.fixture
def act_while_it_hangs(project, start_process) -> Callable[[str], subprocess.Popen]:
    """Let a process run some code as soon as the container of `grow` hangs, whose id is `pid`."""
    file = project / HANGING

    def act(action: str) -> subprocess.Popen:
        (project / "flag").write_text("hang")
        file.unlink(missing_ok=True)
        code = f"""
import os, signal, sys, time
from pathlib import Path
file = Path({str(file)!r})
while not (file.exists() and file.read_text()):
    time.sleep(0.02)
pid = int(file.read_text())
{action}
"""
        return start_process([sys.executable, "-S", "-c", code])

    return act


@pytest.fixture
def killed_while_it_hangs(go, project, act_while_it_hangs) -> Callable[..., str]:
    """The output of a run whose hanging container is killed after `action`."""

    def said(action: str = "") -> str:
        killer = act_while_it_hangs(f"{action}\nos.kill(pid, signal.SIGKILL)")
        with pytest.raises(RunError) as error:
            go(arguments={"flag": str(project / "flag")})
        killer.wait()
        return str(error.value)

    return said


def test_out_of_memory_and_kill_are_distinguished(killed_while_it_hangs, engine):
    assert killed_while_it_hangs().startswith("grow was killed by SIGKILL:")
    (engine / "oom").touch()
    said = killed_while_it_hangs()
    assert said.startswith("grow was killed: its container ran out of memory:")


def test_a_removed_container_is_reported_as_killed(killed_while_it_hangs, engine):
    remove = f"os.unlink(f'{engine}/containers/{{pid}}')"
    said = killed_while_it_hangs(remove)
    assert said.startswith("grow was killed by SIGKILL:")
    assert len(calls(engine, "inspect")) == 1


def test_engine_that_cannot_start_a_container_is_reported(go, engine):
    (engine / "refuse-run").write_text("docker: Error response from daemon: no such device.\n")
    with pytest.raises(RunError, match=r"make ended: the docker engine failed:\n  \| docker: Err"):
        go()


RUNNER = runner_program(
    "components.runner.containers", "ContainerLauncher(arguments, Path(folder))"
)


@pytest.fixture
def hanging(engine, project, compiled, start_process) -> subprocess.Popen:
    """A run of which the container of `grow` hangs, in a process of its own."""
    (project / "flag").write_text("hang")
    arguments = [compiled["chain"], {"flag": str(project / "flag")}, str(project / "runs/small")]
    runner = start_process(
        [sys.executable, "-c", RUNNER, json.dumps(arguments)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    wait_for(lambda: pid_of_hanging(project) > 0)
    return runner


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_signal_stops_what_runs_and_starts_nothing(go, engine, project, hanging, number, status):
    step = pid_of_hanging(project)
    os.kill(hanging.pid, number)
    assert hanging.wait(timeout=60) == status
    wait_for(lambda: not is_running(step))
    assert len(calls(engine, "run")) == 2
    assert not list((engine / "containers").iterdir())
    (project / "flag").unlink()
    lines = go(arguments={"flag": str(project / "flag")})
    assert (skipped(lines), done(lines)) == (["make"], ["grow", "grow_2"])


def test_second_signal_does_not_keep_containers_from_being_removed(engine, project, hanging):
    """A connection that drops sends two: one by the shell, one by the kernel."""
    step = pid_of_hanging(project)
    os.kill(hanging.pid, signal.SIGHUP)
    time.sleep(0.05)
    os.kill(hanging.pid, signal.SIGHUP)
    assert hanging.wait(timeout=60) == 129
    wait_for(lambda: not is_running(step))
    assert not list((engine / "containers").iterdir())


def test_container_that_ignores_sigterm_is_removed(
    go, engine, project, monkeypatch, act_while_it_hangs
):
    monkeypatch.setattr(processes, "SECONDS_TO_STOP", 0.2)
    (engine / "deaf").touch()
    stopper = act_while_it_hangs(f"os.kill({os.getpid()}, signal.SIGTERM)")
    with pytest.raises(Terminated):
        go(arguments={"flag": str(project / "flag")})
    stopper.wait()
    wait_for(lambda: not is_running(pid_of_hanging(project)))
    assert not list((engine / "containers").iterdir())


def test_container_that_a_killed_run_left_is_removed_by_the_next(go, engine, project, hanging):
    step = pid_of_hanging(project)
    hanging.kill()
    hanging.wait()
    assert is_running(step)
    (project / "flag").unlink()
    lines = go(arguments={"flag": str(project / "flag")})
    assert not is_running(step)
    assert (skipped(lines), done(lines)) == (["make"], ["grow", "grow_2"])


def test_processes_do_not_run_beside_a_container_that_a_killed_run_left(
    go, engine, project, compiled, hanging
):
    hanging.kill()
    hanging.wait()
    (project / "flag").unlink()
    folder = project / "runs" / "small"
    mark = folder / "grow" / "container"
    with pytest.raises(RunError, match=f"rm --force {mark.read_text()}; rm {mark}"):
        local.run_pipeline(
            compiled["chain"], {}, folder=folder, launcher=processes.ProcessLauncher(project)
        )
    assert is_running(pid_of_hanging(project))
    assert done(go()) == ["grow", "grow_2"]
    assert not list(folder.glob("*/container"))


def test_container_that_the_engine_does_not_remove_is_not_forgotten(go, engine, project):
    (engine / "refuse-rm").write_text("Error: device or resource busy\n")
    go(only="make")
    mark = project / "runs" / "small" / "make" / "container"
    with pytest.raises(
        RunError,
        match=f"container {mark.read_text()} could not be removed: Error: device or resource",
    ):
        go()


def test_missing_place_is_reported_before_the_run(go, engine):
    with pytest.raises(ValueError, match="source /no/such/folder does not exist"):
        go(arguments={"source": "/no/such/folder"})
    assert not (engine / "calls").exists()


@pytest.mark.parametrize(
    ("says", "line"),
    [
        ("Cannot connect to the Docker daemon.\n", "Cannot connect to the Docker daemon."),
        ("", "docker version failed"),
    ],
)
def test_engine_that_does_not_answer_is_one_line(go, engine, says, line):
    (engine / "refuse-version").write_text(says)
    with pytest.raises(RunError) as error:
        go()
    assert str(error.value) == f"no docker engine answers here: {line}"


def test_missing_docker_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    words = ["run", "--preset", "demo", "--runs", str(tmp_path / "runs"), "--runner", "docker"]
    assert pipeline.main(words) == 1
    assert capsys.readouterr().err == (
        "pipeline.py: no docker engine answers here: the docker command is not installed\n"
    )


def test_image_without_a_registry_is_never_pulled(go, engine):
    (engine / "images").touch()
    with pytest.raises(RunError, match="there is no image small:1 here; `make images` builds it"):
        go()
    assert calls(engine, "pull") == []


def test_image_of_a_registry_is_pulled(go, engine, compiled, monkeypatch):
    document = json.loads(json.dumps(compiled["chain"]).replace("small:1", "r.example/small:1"))
    monkeypatch.setitem(compiled, "chain", document)
    (engine / "images").touch()
    (engine / "refuse-pull").write_text("Error: not found\n")
    with pytest.raises(RunError, match=r"r.example/small:1 is missing and cannot be pulled: Error"):
        go()
    (engine / "refuse-pull").unlink()
    assert done(go()) == ALL
    assert calls(engine, "pull")[-1] == ["pull", "--quiet", "r.example/small:1"]


def options_of_run(engine: Path, name: str) -> list[str]:
    """The values of an option of the first container."""
    words = calls(engine, "run")[0]
    words = words[: words.index("small:1")]
    pairs = zip(words, [*words[1:], ""], strict=True)
    inline = (word.partition("=")[2] for word in words if word.startswith(f"{name}="))
    return [value for word, value in pairs if word == name] + list(inline)


def test_secrets_are_handed_on_by_name_alone(go, engine, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    go()
    assert "hunter2" not in (engine / "calls").read_text()
    environment = options_of_run(engine, "--env")
    assert {"AWS_SECRET_ACCESS_KEY", "CUDA_VISIBLE_DEVICES", "HOME=/tmp"} <= set(environment)
    assert options_of_run(engine, "--user") == [
        f"{os.getuid()}:{os.getgid()}" if os.getuid() else "1000:1000"
    ]


def test_network_and_gpus_are_those_that_this_machine_needs(go, engine, monkeypatch):
    go(only=None)
    assert options_of_run(engine, "--network") == options_of_run(engine, "--gpus") == []
    (engine / "calls").unlink()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:8333")
    monkeypatch.setenv("FAKE_RUNTIMES", '{"runc": {}, "nvidia": {}}')
    go(start="make")
    assert options_of_run(engine, "--network") == ["host"]
    assert options_of_run(engine, "--gpus") == ["all"]


def test_places_are_mounted_read_only_under_their_own_path(go, engine, tmp_path, project):
    data = tmp_path / "my, data"
    data.mkdir()
    go(arguments={"source": data.as_uri()})
    run, store, place = (next(csv.reader([one])) for one in options_of_run(engine, "--mount"))
    folder = project / "runs" / "small"
    assert run == ["type=bind", f"source={folder}", f"target={folder}"]
    folder = project / "runs" / ".store"
    assert store == ["type=bind", f"source={folder}", f"target={folder}"]
    assert place == ["type=bind", f"source={data}", f"target={data}", "readonly"]


@pytest.mark.parametrize("name", READ_PARAMETERS)
def test_every_parameter_that_names_a_place_mounts_it(tmp_path, name):
    data = tmp_path / "data"
    data.mkdir()
    run = tmp_path / "run"
    arguments = {name: str(data), "destination": f"file://{run}/textures", "checkpoint": ""}
    assert bind_places(arguments, [run]) == [data]


@pytest.mark.parametrize(
    ("name", "mounted"), [("people.csv", "."), ("people.zip", "people.zip"), (".", ".")]
)
def test_table_is_mounted_with_its_folder_and_an_archive_alone(tmp_path, name, mounted):
    data = tmp_path / "data"
    data.mkdir()
    (data / "people.csv").touch()
    (data / "people.zip").touch()
    assert bind_places({"source": str(data / name)}, [tmp_path / "run"]) == [data / mounted]


def test_file_that_overrides_name_is_mounted_alone(tmp_path):
    (tmp_path / "w.pth").touch()
    arguments = {"san_overrides": f"epochs=3 pretrained={tmp_path}/w.pth"}
    assert bind_places(arguments, [tmp_path / "run"]) == [tmp_path / "w.pth"]
    arguments = {"pg_overrides": f"pretrained={tmp_path}/x.pth"}
    with pytest.raises(ValueError, match=r"pg_overrides pretrained /\S+/x.pth does not exist"):
        bind_places(arguments, [tmp_path / "run"])
    assert bind_places({"overrides": "pretrained=imagenet"}, [tmp_path / "run"]) == []


def test_the_table_that_a_data_set_is_split_by_is_mounted_alone(tmp_path):
    (tmp_path / "split.csv").touch()
    arguments = {"dataset": f"folders:split={tmp_path}/split.csv,camera-free"}
    assert bind_places(arguments, [tmp_path / "run"]) == [tmp_path / "split.csv"]
    arguments = {"target": "csv:split=/nowhere/split.csv"}
    with pytest.raises(ValueError, match=r"target split /nowhere/split\.csv does not exist"):
        bind_places(arguments, [tmp_path / "run"])


def test_folder_that_is_named_twice_is_mounted_once(tmp_path):
    (tmp_path / "a.csv").touch()
    (tmp_path / "b.csv").touch()
    arguments = {
        "source": str(tmp_path / "a.csv"),
        "target_source": f"file://{tmp_path}/b.csv",
        "texture_source": f"{tmp_path}/",
    }
    assert bind_places(arguments, [tmp_path / "run"]) == [tmp_path]


def test_data_in_the_folder_of_the_run_is_not_mounted_again(tmp_path):
    (tmp_path / "data").mkdir()
    assert bind_places({"target_source": str(tmp_path / "data")}, [tmp_path]) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target_source": "/no/such/folder"}, "target_source /no/such/folder does not exist"),
        ({"destination": "/elsewhere"}, "destination /elsewhere is not in"),
        ({"checkpoint": "/elsewhere"}, "checkpoint /elsewhere is not in"),
    ],
)
def test_place_that_containers_cannot_reach_is_refused(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        bind_places(arguments, [tmp_path])


@pytest.mark.parametrize("name", FILE_VARIABLES)
def test_file_is_mounted_where_its_variable_says(go, engine, tmp_path, monkeypatch, name):
    (tmp_path / "bundle.pem").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, "bundle.pem")
    seen = []
    start = processes.TaskProcess.__init__

    def look(self, task, words, log, env, root):
        seen.append(env[name])
        start(self, task, words, log, env, root)

    monkeypatch.setattr(processes.TaskProcess, "__init__", look)
    go(only="make")
    bundle = str(tmp_path / "bundle.pem")
    assert set(seen) == {bundle}
    assert f"source={bundle}" in options_of_run(engine, "--mount")[2]
    assert name in options_of_run(engine, "--env")
    monkeypatch.setenv(name, "none.pem")
    with pytest.raises(ValueError, match=rf"{name} \S+none.pem does not exist"):
        bind_places({}, [tmp_path / "run"])


def test_credentials_in_the_home_and_proxies_reach_containers(go, engine, tmp_path, monkeypatch):
    file = tmp_path / ".aws" / "credentials"
    file.parent.mkdir()
    file.touch()
    monkeypatch.setenv("https_proxy", "http://me:hunter2@proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "store.example")
    go(only="make")
    assert f"source={file}" in options_of_run(engine, "--mount")[2]
    handed_on = {"AWS_SHARED_CREDENTIALS_FILE", "https_proxy", "NO_PROXY"}
    assert handed_on <= set(options_of_run(engine, "--env"))
    assert "hunter2" not in (engine / "calls").read_text()


def test_words_and_buckets_need_no_mount(tmp_path):
    arguments = {"checkpoint": "none", "destination": "s3://b/t", "source": "s3://b/s"}
    assert bind_places(arguments | {"generator": "shipped"}, [tmp_path]) == []


def test_image_without_docker_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        pipeline.main(["run", "--preset", "demo", "--runs", str(tmp_path), "--image", "san:1"])
    assert stop.value.code == 2
    assert "--image needs --runner docker" in capsys.readouterr().err
