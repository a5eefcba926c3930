import json
import logging
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import pytest

from components.command import run
from components.command.run import run_step
from components.command.step import Input, Output
from components.process import messages

ROOT = Path(__file__).parents[3]


def act(
    result: Annotated[Path, Output("Metrics")],
    extra: Annotated[Path | None, Input("Dataset")] = None,
    how: str = "well",
) -> None:
    """Act.

    Args:
        result: what comes of it
        extra: something
        how: in what way
    """
    logging.getLogger(__name__).info("acting %s – with %s", how, extra)
    result.with_name("seen").write_text(str(extra))
    if how == "no file":
        raise FileNotFoundError("textures/manifest.json is not there;\nrun seal_textures")
    if how == "no permission":
        raise PermissionError(13, "Permission denied", "/etc/shadow")
    if how == "two files":
        raise OSError(18, "Invalid cross-device link", "a", None, "b")
    if how == "damaged":
        raise ValueError(f"{extra}/recipe.json is damaged")
    if how == "full disk":
        raise OSError(28, "No space left on device", f"{extra}/copy")
    if how == "long":
        raise ValueError("ä" * 5000)
    if how == "wrong value":
        raise ValueError("index.csv row 17: camid 'c3' is not an integer")
    if how == "defect":
        int("three")
    if how.startswith("worker: "):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            pool.submit(work, how.removeprefix("worker: ")).result()
    if how == "no package":
        import a_package_nobody_has  # noqa: F401
    if how == "no module":
        import components.a_module_nobody_wrote  # noqa: F401
    if how == "memory":
        raise MemoryError("Unable to allocate 8.00 GiB for an array with shape (2, 3)")
    if how == "Ctrl-C":
        raise KeyboardInterrupt
    result.write_text('{"rank1": 0.5}')


def work(how: str) -> None:
    """What a worker process does, and how it fails."""
    if how == "wrong value":
        raise ValueError("a.jpg is no JPEG or PNG image")
    int("three")


@pytest.fixture
def termination_log(tmp_path, monkeypatch):
    """The file that Kubernetes gives a container, with what another one left in it."""
    log = tmp_path / "termination-log"
    log.write_text("an older and a much longer line, which must not shine through" * 2)
    monkeypatch.setattr("components.process.messages.TERMINATION_LOG", log)
    return log


@pytest.fixture(autouse=True)
def steps_run_in_no_container(monkeypatch):
    monkeypatch.setattr("components.process.messages.CONTAINER_MARKS", ())


@pytest.fixture(autouse=True)
def this_file_is_our_own_code(monkeypatch):
    monkeypatch.setattr("components.command.run.OWN_CODE", (Path(__file__).resolve(),))


def words(tmp_path: Path, how: str) -> list[str]:
    return ["--result", str(tmp_path / "deep" / "down" / "result"), "--how", how]


@pytest.mark.parametrize("rank", ["", "first"])
def test_process_that_does_not_know_its_rank_is_refused_in_a_line(
    tmp_path, capsys, monkeypatch, rank
):
    torchrun = {"RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    torchrun |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": rank}
    for name, value in torchrun.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("components.process.torchrun.MULTI_PROCESS_STEPS", {"act"})
    assert run_step(act, words(tmp_path, "well")) == 1
    found = f"is {rank!r}" if rank else "is not set"
    assert capsys.readouterr().err == (
        f"act: WORLD_SIZE is '2', and LOCAL_RANK {found};"
        " start the step with torchrun, which sets it, or unset WORLD_SIZE\n"
    )


@pytest.mark.parametrize("how", ["fetched", "made"])
def test_other_processes_learn_why_inputs_are_not_fetched_or_the_step_fails(
    tmp_path, capsys, monkeypatch, how
):
    told = []

    @contextmanager
    def company(step, *, keeps_state):
        try:
            yield
        except OSError as error:
            told.append((step, keeps_state, error.strerror))
            raise

    def fetch(uri, _path):
        raise OSError(5, "the bucket is away", uri)

    monkeypatch.setattr(run.transfer, "fetch_artifact", fetch)
    changes = ["--extra", "s3://bucket/extra"] if how == "fetched" else []
    line = [*words(tmp_path, "no permission"), *changes]
    assert run_step(act, line, company=company) == 1
    found = "the bucket is away" if how == "fetched" else "Permission denied"
    assert told == [("act", False, found)]
    assert found in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [["--hwo", "well"], ["--how"]])
def test_other_processes_learn_that_a_command_line_is_wrong(tmp_path, wrong):
    told = []

    @contextmanager
    def company(step, *, keeps_state):
        try:
            yield
        except ValueError as error:
            told.append((step, keeps_state, str(error)))
            raise

    assert run_step(act, [*words(tmp_path, "well"), *wrong], company=company) == 2
    assert told == [("act", False, "its command line is wrong, as its log says")]
    assert run_step(act, ["--help"], company=company) == 0
    assert len(told) == 1


def test_success_is_0_and_folders_of_outputs_are_made(tmp_path, capsys):
    assert run_step(act, words(tmp_path, "well")) == 0
    assert (tmp_path / "deep" / "down" / "result").is_file()
    where, said, last = capsys.readouterr().err.splitlines()
    assert re.match(r"\d\d:\d\d:\d\d act computes on the processor; \d+ thread", where)
    assert re.fullmatch(r"\d\d:\d\d:\d\d acting well – with None", said)
    result = tmp_path / "deep" / "down" / "result"
    assert re.fullmatch(rf"\d\d:\d\d:\d\d wrote result: {result}", last)


@pytest.mark.parametrize(
    ("how", "status", "line"),
    [
        ("no file", 1, "act: textures/manifest.json is not there; run seal_textures"),
        (
            "no permission",
            1,
            f"act: /etc/shadow: Permission denied for user {os.getuid()}",
        ),
        ("two files", 1, "act: a -> b: Invalid cross-device link"),
        ("wrong value", 1, "act: index.csv row 17: camid 'c3' is not an integer"),
        (
            "no package",
            1,
            "act: needs the Python package a_package_nobody_has, which is not installed here",
        ),
        ("memory", 1, "act: out of memory; 8.00 GiB more were requested"),
        ("Ctrl-C", 130, "act: stopped by Ctrl-C"),
    ],
)
def test_users_mistake_is_one_line(tmp_path, capsys, how, status, line):
    assert run_step(act, words(tmp_path, how)) == status
    assert capsys.readouterr().err.splitlines()[2:] == [line]  # after where it computes, and acts


def test_gpu_that_cannot_be_used_ends_the_step_unless_the_processor_is_asked_for(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", "GPU-1f2e")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("components.process.start_line.gpu.GPU_STEPS", {"act"})
    monkeypatch.setattr("components.command.step.GPU_STEPS", {"act"})
    monkeypatch.setattr("components.command.run.OWN_CODE", (ROOT / "components",))
    assert run_step(act, words(tmp_path, "well")) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("act: a GPU is here (NVIDIA_VISIBLE_DEVICES=GPU-1f2e), but ")
    assert run_step(act, [*words(tmp_path, "well"), "--device", "cpu"]) == 0
    assert "act computes on the processor (no GPU" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["no file", "wrong value", "no package", "Ctrl-C"])
def test_line_of_a_failure_is_left_for_kubernetes(tmp_path, capsys, termination_log, how):
    run_step(act, words(tmp_path, how))
    assert termination_log.read_text() + "\n" == capsys.readouterr().err.splitlines(True)[-1]


def test_line_of_wrong_usage_is_left_for_kubernetes(tmp_path, capsys, termination_log):
    run_step(act, [*words(tmp_path, "well"), "--hw", "well"])
    assert termination_log.read_text() + "\n" == capsys.readouterr().err.splitlines(True)[-1]


def test_defect_leaves_its_kind_for_kubernetes(tmp_path, termination_log):
    with pytest.raises(ModuleNotFoundError):
        run_step(act, words(tmp_path, "no module"))
    left = termination_log.read_text()
    assert left.startswith("act: ModuleNotFoundError: No module named 'components.a_module_no")


def test_success_leaves_nothing_for_kubernetes(tmp_path, termination_log):
    before = termination_log.read_text()
    assert run_step(act, words(tmp_path, "well")) == 0
    assert termination_log.read_text() == before


def test_long_line_is_cut_between_two_characters(tmp_path, termination_log):
    run_step(act, words(tmp_path, "long"))
    assert termination_log.stat().st_size == 4095  # 5 of "act: ", 2 of every ä
    assert termination_log.read_text() == "act: " + "ä" * 2045


@pytest.mark.parametrize("kind", ["absent", "of somebody else"])
def test_failure_is_on_stderr_without_a_termination_log(tmp_path, capsys, termination_log, kind):
    termination_log.unlink()
    if kind == "of somebody else":
        termination_log.mkdir()  # cannot be opened for writing, not even by root
    assert run_step(act, words(tmp_path, "no file")) == 1
    assert capsys.readouterr().err.endswith("is not there; run seal_textures\n")
    assert termination_log.exists() == (kind == "of somebody else")


def test_defect_shows_its_traceback(tmp_path):
    with pytest.raises(ModuleNotFoundError, match="a_module_nobody_wrote"):
        run_step(act, words(tmp_path, "no module"))


def test_value_error_that_no_statement_of_ours_raises_is_a_defect(tmp_path, monkeypatch):
    monkeypatch.setattr("components.command.run.OWN_CODE", (Path(__file__).parent,))
    with pytest.raises(ValueError, match="invalid literal for int"):
        run_step(act, words(tmp_path, "defect"))


def test_what_a_worker_raises_is_judged_by_what_raised_it_there(tmp_path, capsys):
    assert run_step(act, words(tmp_path, "worker: wrong value")) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "act: a.jpg is no JPEG or PNG image"
    with pytest.raises(ValueError, match="invalid literal for int"):
        run_step(act, words(tmp_path, "worker: defect"))


@pytest.mark.parametrize(
    "wrong",
    [["--hw", "well"], ["--executor-input", "{"], ["--executor-input", '{"inputs": {}}']],
    ids=["flag", "JSON", "outputs"],
)
def test_wrong_usage_is_2(tmp_path, capsys, wrong):
    assert run_step(act, [*words(tmp_path, "well"), *wrong]) == 2
    assert "usage: python -m components act" in capsys.readouterr().err


def test_help_is_0(capsys):
    assert run_step(act, ["--help"]) == 0
    assert "--how STR" in capsys.readouterr().out


def test_process_is_left_as_it_was_found(tmp_path):
    root = logging.getLogger()
    before = (list(root.handlers), root.level, signal.getsignal(signal.SIGTERM))
    run_step(act, words(tmp_path, "wrong value"))
    assert (list(root.handlers), root.level, signal.getsignal(signal.SIGTERM)) == before


def executor_input(tmp_path: Path, artifacts: dict[str, object]) -> str:
    kind = {"schemaTitle": "system.Metrics", "schemaVersion": "0.0.1"}
    result = {"name": "result", "uri": "minio://bucket/result", "type": kind, "metadata": {}}
    return json.dumps(
        {
            "inputs": {"parameterValues": {"how": "well"}, "artifacts": artifacts},
            "outputs": {
                "artifacts": {"result": {"artifacts": [result]}},
                "outputFile": str(tmp_path / "executor_output.json"),
            },
        }
    )


def test_outputs_are_reported_to_kfp(tmp_path):
    given = ["--executor-input", executor_input(tmp_path, {})]
    assert run_step(act, [*words(tmp_path, "well"), *given]) == 0
    assert json.loads((tmp_path / "executor_output.json").read_text()) == {
        "artifacts": {
            "result": {
                "artifacts": [
                    {
                        "name": "result",
                        "uri": "minio://bucket/result",
                        "metadata": {"rank1": 0.5},
                    }
                ]
            }
        }
    }


def test_failures_are_not_reported_to_kfp(tmp_path):
    given = ["--executor-input", executor_input(tmp_path, {})]
    assert run_step(act, [*words(tmp_path, "wrong value"), *given]) == 1
    assert not (tmp_path / "executor_output.json").exists()


@pytest.mark.parametrize(
    ("artifacts", "seen"),
    [
        ({"extra": {"artifacts": [{"name": "e", "uri": "minio://b/e"}]}}, "/minio/b/e"),
        ({"extra": {"artifacts": [{"name": "e", "uri": "/data/e"}]}}, "/data/e"),
        ({"extra": {"artifacts": [{"uri": "s3://b/e", "customPath": "/mnt/e"}]}}, "/mnt/e"),
        ({"extra": {"artifacts": []}}, "None"),
        ({"extra": None}, "None"),
        ({}, "None"),
    ],
    ids=["in a bucket", "on a disk", "elsewhere", "empty", "null", "absent"],
)
def test_optional_input_is_read_from_what_kfp_passes(tmp_path, artifacts, seen):
    given = ["--executor-input", executor_input(tmp_path, artifacts)]
    assert run_step(act, [*words(tmp_path, "well"), *given]) == 0
    assert (tmp_path / "deep" / "down" / "seen").read_text() == seen


def test_messages_name_the_uris_that_kubeflow_shows(tmp_path, capsys, termination_log):
    extra = {"extra": {"artifacts": [{"name": "e", "uri": "minio://b/e"}]}}
    given = ["--executor-input", executor_input(tmp_path, extra)]
    assert run_step(act, [*words(tmp_path, "damaged"), *given]) == 1
    told = capsys.readouterr().err
    assert "with minio://b/e\n" in told
    assert told.endswith("act: minio://b/e/recipe.json is damaged\n")
    assert termination_log.read_text() == "act: minio://b/e/recipe.json is damaged"


def test_flag_of_an_optional_input_goes_before_what_kfp_passes(tmp_path, capsys):
    artifacts = {"extra": {"artifacts": [{"name": "e", "uri": "/data/e"}]}}
    given = ["--executor-input", executor_input(tmp_path, artifacts), "--extra", "/mine"]
    assert run_step(act, [*words(tmp_path, "well"), *given]) == 0
    assert "with /mine\n" in capsys.readouterr().err


def test_full_disk_is_that_of_this_machine(tmp_path, capsys):
    extra = {"extra": {"artifacts": [{"name": "e", "uri": "minio://b/e"}]}}
    given = ["--executor-input", executor_input(tmp_path, extra)]
    assert run_step(act, [*words(tmp_path, "full disk"), *given]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(r"act: /minio/b/e/copy: no space left \(has [\d,.]+ MB\)", last)


SLOW_STEP = '''
import concurrent.futures, signal, sys, time
from pathlib import Path
from typing import Annotated
from components.command.run import run_step
from components.command.step import Output

def slow(result: Annotated[Path, Output("Dataset")]) -> None:
    """Take long.

    Args:
        result: nothing
    """
    try:
        with concurrent.futures.ProcessPoolExecutor(1) as pool:
            work = [pool.submit(time.sleep, 600) for _ in range(2)]
            result.write_text("started")
            work[0].result()
    finally:
        result.with_name("cleaned").touch()

if __name__ == "__main__":
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where tests outlive their connection
    sys.exit(run_step(slow, sys.argv[1:]))
'''


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=["SIGTERM", "SIGHUP"]
)
def test_signal_to_stop_is_heard_soon_and_cleans_up(start_process, tmp_path, number, status):
    script, result = tmp_path / "slow.py", tmp_path / "result"
    script.write_text(SLOW_STEP)
    step = start_process(
        [sys.executable, str(script), "--result", str(result)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 120
    while not result.exists():
        assert time.monotonic() < deadline, "it did not start in two minutes"
        time.sleep(0.02)
    step.send_signal(number)
    _, said = step.communicate(timeout=120)  # its pool alone would sleep for ten minutes
    assert step.returncode == status
    assert said.splitlines()[1:] == [f"slow: stopped by {number.name}"]
    assert (tmp_path / "cleaned").exists()


@pytest.mark.parametrize(("is_first", "level"), [(True, logging.INFO), (False, logging.ERROR)])
def test_of_several_processes_the_first_alone_warns(monkeypatch, is_first, level):
    monkeypatch.setattr(messages, "is_first_rank", lambda: is_first)
    with messages.log_to_stderr():
        assert logging.getLogger().level == level


@pytest.mark.parametrize("stopped_by", [ConnectionError("the line is dead"), KeyboardInterrupt()])
def test_all_that_is_not_sent_when_sending_ends_is_kept(tmp_path, monkeypatch, caplog, stopped_by):
    made = {tmp_path / name: f"s3://san/{name}" for name in ("model", "page", "losses")}
    for path in made:
        path.write_text(path.name)

    def send(path, _uri):
        if path.name == "page":
            raise stopped_by

    monkeypatch.setenv("SAN_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setattr("components.storage.transfer.send_artifact", send)
    with pytest.raises((OSError, KeyboardInterrupt)) as e:
        run._send_or_keep(made)
    (folder,) = (tmp_path / "scratch").iterdir()
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "page": "page",
        "losses": "losses",
    }
    said = f"{e.value} {caplog.text}"
    for name in ("page", "losses"):
        told = f"the upload to s3://san/{name} is kept as {folder / name}"
        assert told in said
