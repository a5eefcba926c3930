"""The local runner on a project of small steps; each test edits, breaks or kills something."""

import errno
import fcntl
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest.mock import Mock

import pytest

from components.experiments.keeping import recorded
from components.experiments.record import RUN_FILE, Request
from components.runner import local, state
from components.runner.folder import LOCK_FILE, PIPELINE_FILE, process_using, run_lock
from components.runner.ir import Task
from components.runner.keys import task_key
from components.runner.processes import ProcessLauncher
from components.runner.store import Store
from tests.components.runner.small_project import done, runner_program, skipped

ALL = ["make", "grow", "grow_2"]
GROWN = "grow ... done in T s"


def test_run_does_every_step_and_shows_pages_and_figures(go, project):
    assert go() == [
        "make ... done in T s",
        "grow ... done in T s",
        "grow_2 ... done in T s",
        "grow: /runs/small/grow/page.html",
        "  number 11  half 5.5",
        "grow_2: /runs/small/grow_2/page.html",
        "  number 111  half 55.5",
    ]
    folder = project / "runs" / "small" / "grow"
    assert (folder / "result" / "number").read_text() == "11"
    assert json.loads((folder / "size.json").read_text())["number"] == 11
    written = json.loads((folder / "executor_output.json").read_text())["artifacts"]
    assert written["size"]["artifacts"][0]["metadata"] == {"number": 11, "half": 5.5}
    assert (folder / "log.txt").is_file()


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "0.0 s"), (99.5, "99.5 s"), (100, "1 min 40 s"), (3719.6, "62 min 0 s")],
)
def test_durations_from_100_seconds_are_shown_in_minutes(seconds, said):
    assert local._format_duration(seconds) == said


def test_second_run_skips_everything_and_shows_the_same_figures(go):
    first = go()
    second = go()
    assert skipped(second) == ALL
    assert second[3:] == first[3:]


def test_what_a_step_warns_of_is_shown_under_its_line_and_again_when_it_is_skipped(go, tmp_path):
    (tmp_path / "flag").write_text("warn")
    options = {"arguments": {"flag": str(tmp_path / "flag"), "by": 1}}
    assert go(**options)[:4] == [
        "make ... done in T s",
        "grow ... done in T s",
        "  warning: the number is small 2",
        "grow_2 ... done in T s",
    ]
    assert go(**options)[:4] == [
        "make ... skipped (unchanged)",
        "grow ... skipped (unchanged)",
        "  warning: the number is small 2",
        "grow_2 ... skipped (unchanged)",
    ]


def test_of_many_warnings_the_first_are_shown_and_the_log_is_named(go, tmp_path):
    (tmp_path / "flag").write_text("warn often")
    lines = go(arguments={"flag": str(tmp_path / "flag"), "by": 1})
    assert lines[2:10] == [f"  warning: the number is small {n}" for n in range(2, 10)]
    assert lines[10] == "  and 12 more warnings in /runs/small/grow/log.txt"


def test_source_folder_is_read_again_when_a_file_in_it_changes(go, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "a").write_text("1")
    options = {"arguments": {"source": str(mine)}}
    assert done(go(**options)) == ALL
    assert skipped(go(**options)) == ALL
    (tmp_path / "disk").mkdir()
    (mine / "b").symlink_to(tmp_path / "disk")
    assert skipped(go(**options)) == ALL  # there is nothing in it yet
    (tmp_path / "disk" / "c").write_text("2")
    lines = go(**options)
    assert done(lines) == ALL
    assert "  number 113  half 56.5" in lines


def test_places_are_watched_however_they_are_named(go, tmp_path):
    mine = tmp_path / "my own"
    mine.mkdir()
    (mine / "a").write_text("1")
    weights = tmp_path / "weights.pth"
    weights.write_text("5")
    options = {"arguments": {"source": mine.as_uri(), "overrides": f"pretrained={weights}"}}
    assert "  number 117  half 58.5" in go(**options)
    assert skipped(go(**options)) == ALL
    (mine / "b").write_text("1")
    assert "  number 118  half 59" in go(**options)
    (tmp_path / "beside").touch()  # of a file that overrides name, the folder is not read
    assert skipped(go(**options)) == ALL
    weights.write_text("6")
    assert "  number 119  half 59.5" in go(**options)


def test_every_table_that_one_of_several_data_sets_is_split_by_decides(project, tmp_path):
    tables = [tmp_path / name for name in ("a.csv", "b.csv")]
    for table in tables:
        table.write_text("1")
    named = f"folders:split={tables[0]}+csv:split={tables[1]}"
    task = Task("make", "make", ("python", "-m", "components", "make"), {"dataset": named})
    store = Store.of_runs(project / "runs")
    keys = {task_key(task, store, code="1", inputs={})}
    for table in tables:
        table.write_text("22")
        keys.add(task_key(task, store, code="1", inputs={}))
    assert len(keys) == 3


def test_where_checkpoints_are_kept_decides_nothing(go, tmp_path):
    assert done(go(arguments={"checkpoint": str(tmp_path / "here")})) == ALL
    assert skipped(go(arguments={"checkpoint": str(tmp_path / "there")})) == ALL


def test_changed_parameter_reruns_its_step_and_what_follows(go):
    go()
    lines = go(arguments={"by": 20})
    assert (skipped(lines), done(lines)) == (["make"], ["grow", "grow_2"])
    assert "  number 121  half 60.5" in lines


def test_edited_code_reruns_what_uses_it(go, project):
    go()
    code = project / "san_core" / "numbers.py"
    code.write_text(code.read_text() + "# a remark\n")
    lines = go()
    # The same bytes come out of make, so what follows is skipped again.
    assert (done(lines), skipped(lines)) == (["make"], ["grow", "grow_2"])
    code.write_text("def text(number):\n    return str(number + 1)\n")
    assert done(go()) == ALL


def test_runs_in_another_folder_are_of_their_own(go, project, compiled):
    go()
    terminal = io.StringIO()
    folder = project / "elsewhere" / "small"
    launcher = ProcessLauncher(project)
    local.run_pipeline(compiled["chain"], {}, folder=folder, launcher=launcher, terminal=terminal)
    assert len(done(terminal.getvalue().splitlines())) == 3


def damage_by_deleting(file: Path) -> None:
    file.unlink()


def damage_by_writing(file: Path) -> None:
    file.write_text("7")


def damage_by_adding(file: Path) -> None:
    file.with_name("another").write_text("7")


def test_damaged_output_is_made_again(go, project):
    go()
    for damage in (damage_by_deleting, damage_by_writing, damage_by_adding):
        damage(project / "runs" / "small" / "grow" / "result" / "number")
        lines = go()
        # grow makes the same bytes as before, so grow_2 is unchanged.
        assert (done(lines), skipped(lines)) == (["grow"], ["make", "grow_2"]), damage


def test_record_that_cannot_be_read_counts_as_none(go, project):
    go()
    for text in ("", "{}", "[1]"):
        (project / "runs" / "small" / "grow" / "state.json").write_text(text)
        assert done(go()) == ["grow"], text


def test_failure_stops_the_run_and_says_where_to_read(go, project):
    flag = project / "flag"
    flag.write_text("fail")
    with pytest.raises(local.RunError) as error:
        go(arguments={"flag": str(flag)})
    log = project / "runs" / "small" / "grow" / "log.txt"
    assert str(error.value) == (
        f"grow failed with exit code 1: the number is too small\n  log: {log}\n"
        "  finished work is kept; the next run continues from there"
    )
    assert "grow: the number is too small" in log.read_text()
    assert not (project / "runs" / "small" / "grow_2").exists()
    flag.unlink()
    lines = go(arguments={"flag": str(flag)})
    assert (skipped(lines), done(lines)) == (["make"], ["grow", "grow_2"])


def test_defect_shows_the_end_of_its_traceback(go, project):
    (project / "flag").write_text("crash")
    with pytest.raises(local.RunError, match=r"(?s)code 1:\n  \| .*RuntimeError: out of luck\n"):
        go(arguments={"flag": str(project / "flag")})


def test_step_that_forgets_an_output_has_failed(go, project):
    (project / "flag").write_text("forget")
    with pytest.raises(local.RunError, match="grow succeeded, but its output page is missing"):
        go(arguments={"flag": str(project / "flag")})


def test_failure_after_success_does_not_leave_the_old_record(go, project):
    flag = project / "flag"
    go(arguments={"flag": str(flag)})
    flag.write_text("fail")
    with pytest.raises(local.RunError):
        go(arguments={"flag": str(flag)}, start="grow")
    flag.unlink()
    lines = go(arguments={"flag": str(flag)})
    assert (skipped(lines), done(lines)) == (["make", "grow_2"], ["grow"])


def test_failed_run_shows_no_result_of_former_settings(go, project):
    run, flag = project / "runs" / "small", project / "flag"
    go(arguments={"flag": str(flag)})
    former = (run / "grow_2").resolve()
    flag.write_text("fail")
    with pytest.raises(local.RunError):
        go(arguments={"flag": str(flag), "by": 20})
    assert not (run / "grow_2").exists()
    assert former in Store.of_runs(run.parent).links()  # so that nobody prunes it
    flag.unlink()
    lines = go(arguments={"flag": str(flag)})
    assert lines[2] == "grow_2 ... skipped (unchanged)"
    assert (run / "grow_2").resolve() == former
    assert not list(run.glob(".*.former"))


def test_result_out_of_sight_goes_as_soon_as_there_is_another(go, project):
    run, flag = project / "runs" / "small", project / "flag"
    go()
    flag.write_text("fail")
    with pytest.raises(local.RunError):
        go(arguments={"flag": str(flag), "by": 20})
    flag.unlink()
    assert done(go(arguments={"flag": str(flag), "by": 20})) == ["grow", "grow_2"]
    assert not list(run.glob(".*.former"))


def test_from_forces_a_step_and_what_follows(go):
    go()
    lines = go(start="grow")
    assert (skipped(lines), done(lines)) == (["make"], ["grow", "grow_2"])


def test_only_forces_one_step(go):
    go()
    lines = go(only="grow-2")
    assert (skipped(lines), done(lines)) == ([], ["grow_2"])


@pytest.fixture
def noted() -> list[str]:
    """The tasks that a run says are as it was asked for."""
    return []


@pytest.fixture
def record(noted):
    return lambda _: nullcontext(noted.append)


def test_run_notes_each_task_that_is_as_it_asks(go, noted, record):
    go(record=record)
    assert noted == ALL
    go(record=record)
    assert noted == [*ALL, *ALL]


def test_only_notes_other_steps_that_are_the_same_and_names_those_made_stale(go, noted, record):
    go()
    go(only="grow", record=record)
    assert noted == ["grow", "make", "grow_2"]
    noted.clear()
    lines = go(only="grow", arguments={"by": 20}, record=record)
    assert noted == ["grow", "make"]
    stale = (
        "grow_2 ... is out of date, from earlier inputs or settings; run without --only to renew"
    )
    assert stale in lines
    noted.clear()
    assert stale in go(only="grow", arguments={"by": 20, "number": 2}, record=record)
    assert noted == ["grow"]


def test_only_keeps_what_has_changed_and_says_so(go):
    go()
    lines = go(only="grow_2", arguments={"by": 20})
    assert lines[0] == "grow ... kept, although its settings or code have changed"
    assert done(lines) == ["grow_2"]
    assert "  number 111  half 55.5" in lines


def test_only_needs_finished_inputs(go):
    with pytest.raises(
        local.RunError, match=r"grow_2 needs grow, which is not finished in .*small"
    ):
        go(only="grow_2")


def test_logs_of_former_tries_are_kept(go, project):
    folder, flag = project / "runs" / "small" / "grow", project / "flag"
    options = {"arguments": {"by": 20, "flag": str(flag)}}
    flag.write_text("fail")
    with pytest.raises(local.RunError):
        go(**options)
    first = (folder / "log.txt").read_text()
    flag.unlink()
    go(**options)
    second = (folder / "log.txt").read_text()
    go(**options, start="grow")
    assert (folder / "log-1.txt").read_text() == first
    assert (folder / "log-2.txt").read_text() == second
    assert "adding 20" in (folder / "log.txt").read_text()
    assert len(list(folder.glob("log*"))) == 3


@pytest.mark.parametrize("option", ["start", "only"])
def test_unknown_step_is_refused(go, option):
    with pytest.raises(
        ValueError, match=r"no step 'gro'; did you mean 'grow'\?? there are make, gr"
    ):
        go(**{option: "gro"})


def test_missing_argument_is_refused(go):
    with pytest.raises(ValueError, match="the pipeline needs a value for its parameter store"):
        go("loop")


def test_optional_input_arrives_when_it_is_passed(go):
    lines = go("extra")
    assert "  number 6  half 3" in lines  # 1 + 5
    assert "  number 8  half 4" in go("extra", arguments={"other": 7})


def test_optional_input_that_was_not_there_before_counts_as_a_change(go):
    go(arguments={"by": 0})
    lines = go("extra")
    assert (skipped(lines), done(lines)) == (["make"], ["make_2", "grow"])


@pytest.fixture
def store(tmp_path) -> Path:
    return tmp_path / "a store"  # its URI has %20 in it


def test_loop_runs_once_for_each_item(go, store, monkeypatch):
    monkeypatch.setattr(local, "core_count", lambda: 4)
    lines = go("loop", arguments={"store": str(store)})
    assert lines[0] == "make ... done in T s"
    assert sorted(done(lines)[1:3]) == ["part-0", "part-1"]
    assert done(lines)[3] == "grow"
    # Each of the two items gets half of the four cores.
    assert (store / "shards" / "0-2.json").read_text() == "2"
    assert (store / "shards" / "1-2.json").read_text() == "2"
    assert skipped(go("loop", arguments={"store": str(store)})) == [
        "make",
        "part-0",
        "part-1",
        "grow",
    ]


def test_threads_do_not_depend_on_what_is_left_to_do(go, store, monkeypatch):
    monkeypatch.setattr(local, "core_count", lambda: 4)
    go("loop", arguments={"store": str(store)})
    (store / "shards" / "1-2.tar").unlink()
    lines = go("loop", arguments={"store": str(store)})
    assert (done(lines), skipped(lines)) == (["part-1"], ["make", "part-0", "grow"])
    assert (store / "shards" / "1-2.json").read_text() == "2"


def test_threads_do_not_depend_on_which_iterations_are_asked_for(go, store, monkeypatch):
    monkeypatch.setattr(local, "core_count", lambda: 4)
    go("loop", arguments={"store": str(store)})
    (store / "shards" / "1-2.json").unlink()
    go("loop", arguments={"store": str(store)}, only="part-1")
    assert (store / "shards" / "1-2.json").read_text() == "2"


@pytest.mark.parametrize("suffix", ["tar", "json"])
def test_shard_that_vanished_from_the_store_is_noticed(go, store, suffix):
    go("loop", arguments={"store": str(store)})
    (store / "shards" / f"0-2.{suffix}").unlink()
    assert done(go("loop", arguments={"store": str(store)})) == ["part-0"]
    assert (store / "shards" / f"0-2.{suffix}").exists()


def test_step_whose_shards_cannot_be_seen_from_here_is_not_skipped(go, project, store):
    go("loop", arguments={"store": str(store)})
    folder = project / "runs" / "small" / "part-0"
    manifest = folder / "written" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("file://", "s3://bucket"))
    kept = state.read_state(folder)
    state.record_state(folder, kept.key, {"written": folder / "written"})
    assert done(go("loop", arguments={"store": str(store)})) == ["part-0"]


def test_loop_over_nothing_does_nothing(go, store):
    lines = go("loop", arguments={"store": str(store), "workers": []})
    assert done(lines) == ["make", "grow"]


def test_from_a_looped_step_forces_all_its_items(go, store):
    go("loop", arguments={"store": str(store)})
    lines = go("loop", arguments={"store": str(store)}, start="part")
    assert sorted(done(lines)) == ["grow", "part-0", "part-1"]


def test_import_is_refused_by_name(go):
    with pytest.raises(
        ValueError, match="task importer imports an artifact, which is not supported"
    ):
        go("importing", arguments={"uri": "s3://bucket/data"})


def test_verbose_run_shows_the_log(go):
    lines = go(verbose=True)
    assert re.fullmatch(r"grow \| \d\d:\d\d:\d\d adding 10", lines[lines.index(GROWN) - 1])
    assert not any("|" in line for line in go(start="make"))


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_terminal_shows_the_newest_log_line_until_the_step_is_done(project, compiled, quick_steps):
    terminal = Terminal()
    folder = project / "runs" / "small"
    launcher = ProcessLauncher(project)
    local.run_pipeline(compiled["chain"], {}, folder=folder, launcher=launcher, terminal=terminal)
    shown = re.sub(r"\d\d:\d\d:\d\d", "TIME", terminal.getvalue())
    assert "\r\x1b[Kstep 2/3 grow  adding 10\r\x1b[Kgrow ... done in " in shown


def test_second_run_in_one_folder_is_refused(go, project):
    folder = project / "runs" / "small"
    folder.mkdir(parents=True)
    with (folder / ".lock").open("w") as lock:
        lock.write("1234")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(local.RunError, match=r"small is in use by another run \(process 1234"):
            go()
    assert done(go()) == ALL


@pytest.fixture
def record_as(project):
    """The record of runs/small for a pipeline of this text."""
    request = Request("chain", {}, "process", "san:{target}")
    folder = project / "runs" / "small"
    return lambda source: lambda plan: recorded(plan, folder=folder, request=request, source=source)


def test_refused_start_leaves_the_record_of_the_running_run(go, project, record_as):
    go(record=record_as("the: first\n"))
    files = [project / "runs" / "small" / name for name in (PIPELINE_FILE, RUN_FILE)]
    before = [file.read_bytes() for file in files]
    assert before[0] == b"the: first\n"
    with (
        run_lock(project / "runs" / "small"),
        pytest.raises(local.RunError, match="small is in use by another run"),
    ):
        go(record=record_as("the: second\n"))
    assert [file.read_bytes() for file in files] == before


def test_of_simultaneous_starts_one_runs_and_the_others_end_with_one_line(go, project, record_as):
    go()
    together, refused = threading.Barrier(3), threading.Semaphore(0)
    shown, told = {}, []

    @contextmanager
    def record_and_wait(plan, source):
        with record_as(source)(plan) as note:
            assert all(refused.acquire(timeout=60) for _ in range(2))
            yield note

    def start(source):
        together.wait(timeout=60)
        try:
            shown[source] = go(record=lambda plan: record_and_wait(plan, source))
        except local.RunError as error:
            told.append(str(error))
            refused.release()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(start, ["the: first\n", "the: second\n", "the: third\n"]))
    folder = project / "runs" / "small"
    ((source, lines),) = shown.items()
    assert skipped(lines) == ALL
    assert (folder / PIPELINE_FILE).read_text() == source
    line = (
        f"{folder} is in use by another run (process {os.getpid()}); wait for it, or choose"
        " another --name"
    )
    assert told == [line, line]


def test_look_at_who_uses_a_run_keeps_it_from_no_start(tmp_path, monkeypatch):
    """The lock of a look is shared, as NFS asks for, and over when it is asked for once more."""
    with (tmp_path / LOCK_FILE).open("w") as look:
        fcntl.flock(look, fcntl.LOCK_SH)
        assert process_using(tmp_path) is None
        monkeypatch.setattr(time, "sleep", lambda _: look.close())
        with run_lock(tmp_path):
            assert process_using(tmp_path) == os.getpid()
    assert process_using(tmp_path / "none") is None


def test_unavailable_locks_do_not_count_as_unlocked(tmp_path, monkeypatch):
    (tmp_path / LOCK_FILE).touch()
    refused = OSError(errno.ENOLCK, "no locks available")
    monkeypatch.setattr(fcntl, "flock", Mock(side_effect=refused))
    with pytest.raises(OSError, match="no locks available"):
        process_using(tmp_path)


def test_a_folder_of_something_else_is_refused_and_nothing_in_it_is_touched(go, project):
    kept = project / "runs" / "small" / "make" / "thesis.txt"
    kept.parent.mkdir(parents=True)
    kept.write_text("precious")
    with pytest.raises(local.RunError, match=r"small is not of a run: it has make, but no pipe"):
        go()
    assert [path.name for path in (project / "runs" / "small").iterdir()] == ["make"]
    assert kept.read_text() == "precious"


RUNNER = runner_program("components.runner.processes", "ProcessLauncher(Path.cwd())")


@pytest.fixture
def hanging(project, compiled, start_process) -> subprocess.Popen:
    """A run of which the step `grow` hangs, in a process of its own."""
    (project / "flag").write_text("hang")
    arguments = [compiled["chain"], {"flag": str(project / "flag")}, str(project / "runs/small")]
    runner = start_process(
        [sys.executable, "-c", RUNNER, json.dumps(arguments)],
        cwd=project,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    wait_for(lambda: pid_of_hanging(project) > 0)
    return runner


def pid_of_hanging(project: Path) -> int:
    file = project / "runs" / "small" / "grow" / "result" / "hanging"
    return int(file.read_text() or 0) if file.exists() else 0


def wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGINT, 130),
        (signal.SIGTERM, 143),
        (signal.SIGHUP, 129),
        (signal.SIGKILL, -signal.SIGKILL),
    ],
    ids=["Ctrl-C", "SIGTERM", "SIGHUP", "SIGKILL"],
)
def test_stopped_run_leaves_no_process_and_nothing_believed(go, project, hanging, number, status):
    step = pid_of_hanging(project)
    os.kill(hanging.pid, number)
    assert hanging.wait(timeout=120) == status
    wait_for(lambda: not is_running(step))
    # Asked first, so that what trains can keep its state; who is killed can ask nobody.
    said = (project / "runs" / "small" / "grow" / "log.txt").read_text()
    assert ("stopped by SIGTERM" in said) == (number != signal.SIGKILL), said
    assert state.read_state(project / "runs" / "small" / "grow") is None
    (project / "flag").unlink()
    lines = go(arguments={"flag": str(project / "flag")})
    assert (skipped(lines), done(lines)) == (["make"], ["grow", "grow_2"])
    assert "  number 111  half 55.5" in lines


def test_what_a_step_leaves_behind_ends_with_it(go, project):
    (project / "flag").write_text("leave")
    go(arguments={"flag": str(project / "flag")})
    left = int((project / "runs" / "small" / "grow" / "result" / "left").read_text())
    wait_for(lambda: not is_running(left))


def test_killed_step_is_named_with_its_signal(project, hanging):
    os.kill(pid_of_hanging(project), signal.SIGKILL)
    _, said = hanging.communicate(timeout=120)
    assert hanging.returncode == 1
    assert "RunError: grow was killed by SIGKILL:" in said


def test_shards_that_a_manifest_names_by_any_file_uri_are_watched(tmp_path):
    shards, task = tmp_path / "shards", tmp_path / "task"
    for folder in (shards, task / "set"):
        folder.mkdir(parents=True)
    for name in ("0.tar", "0.json"):
        (shards / name).touch()
    listed = [{"tar": "0.tar", "sidecar": "0.json"}]
    manifest = {"uri": f"file://localhost{shards}", "shards": listed}
    (task / "set" / "manifest.json").write_text(json.dumps(manifest))
    found = state.record_state(task, "key", {"set": task / "set"})
    assert state.outputs_unchanged(found, {"set": task / "set"})
    (shards / "0.tar").write_bytes(b"other")
    assert not state.outputs_unchanged(found, {"set": task / "set"})
    (task / "set" / "manifest.json").write_text('{"uri": "ftp://host/shards"}')
    with pytest.raises(ValueError, match="'ftp://host/shards' is neither a folder nor a file:///"):
        state.record_state(task, "key", {"set": task / "set"})
