"""Records of runs: parameters, final state, former results; the list and the index."""

import fcntl
import json
import os
import re
import shutil
from urllib.parse import unquote

import pytest

import pipeline
from components.experiments.history import former_results
from components.experiments.listing import age_in_words, list_lines, size_in_words
from components.experiments.record import RUN_FILE, read_run, read_runs
from components.runner.folder import LOCK_FILE
from components.runner.store import Store
from tests.components.experiments.made_runs import make_run

GOOD, BETTER = {"rank1": 0.5, "mAP": 0.25}, {"rank1": 0.75, "mAP": 0.5}


def test_a_finished_run_shows_figures_pages_and_parameters(tmp_path):
    make_run(tmp_path / "a", GOOD, seed=3)
    run = read_run(tmp_path / "a")
    assert (run.state, run.figures(), run.record.request.parameters) == ("done", GOOD, {"seed": 3})
    assert run.pages() == {"evaluate": [tmp_path / "a/evaluate/report_page.html"]}
    assert run.output("evaluate", "report") == tmp_path / "a/evaluate/report"
    assert run.output("train_san", "model") is None
    assert 0 < run.record.started <= run.record.ended
    assert (tmp_path / "a/pipeline.yaml").read_text() == "pipelineInfo: {}\n"


def test_run_that_fails_says_so_and_keeps_its_parameters(tmp_path):
    with pytest.raises(ValueError, match="it fails"):
        make_run(tmp_path / "a", GOOD, fails=True, seed=4)
    run = read_run(tmp_path / "a")
    assert (run.state, run.figures(), run.record.request.parameters) == ("failed", {}, {"seed": 4})
    assert "failed" in (tmp_path / "index.html").read_text()


def test_results_of_former_settings_are_not_shown_beside_new_ones(tmp_path):
    make_run(tmp_path / "a", GOOD)
    with pytest.raises(ValueError, match="it fails"):
        make_run(tmp_path / "a", BETTER, fails=True, seed=4)
    run = read_run(tmp_path / "a")
    assert (tmp_path / "a/evaluate/report").is_dir()
    assert (run.figures(), run.pages(), run.output("evaluate", "report")) == ({}, {}, None)
    assert run.output("prepare_reid", "reid") == tmp_path / "a/prepare_reid/reid"


def test_run_of_one_step_is_partial_and_no_former_result(tmp_path):
    make_run(tmp_path / "a", GOOD)
    for seed in (4, 5):
        make_run(tmp_path / "a", GOOD, only="prepare_reid", seed=seed)
        run = read_run(tmp_path / "a")
        assert (run.state, run.figures(), run.pages()) == ("partial", {}, {})
    kept = former_results(tmp_path / "a")
    assert [one.record.request.parameters["seed"] for one in kept] == [0]


def test_figures_that_cannot_be_read_are_none_and_stop_no_other_run(tmp_path, caplog):
    make_run(tmp_path / "a", GOOD)
    (tmp_path / "a/evaluate/scores.json").write_text('{"rank1"')
    make_run(tmp_path / "b", BETTER)
    assert "75.0%" in (tmp_path / "index.html").read_text()
    assert read_run(tmp_path / "a").figures() == {}
    assert "the metrics of run a cannot be read: " in caplog.text


def test_a_run_without_a_process_was_killed(tmp_path):
    make_run(tmp_path / "a", GOOD)
    file = tmp_path / "a" / RUN_FILE
    file.write_text(file.read_text().replace('"state": "done"', '"state": "running"'))
    assert read_run(tmp_path / "a").state == "killed"
    with (tmp_path / "a" / LOCK_FILE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert read_run(tmp_path / "a").state == "running"


@pytest.mark.parametrize("text", ["", "{}", '{"format": "san-run"}'])
def test_record_of_another_kind_is_none(tmp_path, text):
    (tmp_path / RUN_FILE).write_text(text)
    assert read_run(tmp_path) is None


@pytest.mark.parametrize("how", ["empty", "unreadable"])
def test_record_that_cannot_be_read_is_left_out_with_a_word_and_stops_no_other(
    tmp_path, capsys, caplog, how
):
    for name in ("a", "b"):
        make_run(tmp_path / name, GOOD)
    record = tmp_path / "a" / RUN_FILE
    record.unlink()
    if how == "empty":
        record.touch()
    else:
        record.symlink_to(RUN_FILE)
    assert pipeline.main(["runs", "list", "--runs", str(tmp_path)]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["run", "b"]
    (message,) = {one.message for one in caplog.records}
    assert message.startswith(f"{tmp_path}/a is left out: ")
    make_run(tmp_path / "c", GOOD)
    assert 'href="c"' in (tmp_path / "index.html").read_text()


def test_former_result_of_a_name_is_kept_as_files_of_its_own(tmp_path):
    make_run(tmp_path / "a", GOOD)
    make_run(tmp_path / "a", BETTER, seed=1)
    shutil.rmtree(Store.of_runs(tmp_path).root)
    (former,) = former_results(tmp_path / "a")
    assert (former.figures(), former.record.request.parameters) == (GOOD, {"seed": 0})
    assert json.loads(former.output("evaluate", "report").joinpath("content.json").read_text())
    assert not (former.folder / "prepare_reid").exists()  # data is not copied


def test_equal_result_is_not_kept_twice_and_a_failure_between_loses_none(tmp_path):
    make_run(tmp_path / "a", GOOD)
    make_run(tmp_path / "a", GOOD)
    assert not (tmp_path / "a" / "history").exists()
    with pytest.raises(ValueError, match="it fails"):
        make_run(tmp_path / "a", BETTER, fails=True)
    make_run(tmp_path / "a", BETTER)
    assert [run.figures() for run in former_results(tmp_path / "a")] == [GOOD]


@pytest.mark.parametrize("broken", ["", None], ids=["empty record", "no record"])
def test_former_result_whose_record_cannot_be_read_is_never_replaced(tmp_path, broken):
    make_run(tmp_path / "a", GOOD)
    make_run(tmp_path / "a", BETTER, lr=1)
    former = tmp_path / "a" / "history" / "1"
    (former / RUN_FILE).unlink()
    if broken is not None:
        (former / RUN_FILE).write_text(broken)
    make_run(tmp_path / "a", GOOD, lr=2)
    assert json.loads((former / "evaluate" / "scores.json").read_text()) == GOOD
    assert [run.name for run in former_results(tmp_path / "a")] == ["2"]
    # An equal result removes its own copy, and the folder stays for the other one.
    shutil.rmtree(former.with_name("2"))
    make_run(tmp_path / "a", GOOD, lr=2)
    assert [one.name for one in former.parent.iterdir()] == ["1"]


def test_names_of_folders_that_are_no_text_are_listed_and_linked(tmp_path):
    names = ["new\nline", os.fsdecode(b"caf\xe9"), "<b> \"&amp;'#?%41"]
    for name in names:
        make_run(tmp_path / name, GOOD)
    text = (tmp_path / "index.html").read_text("utf-8")
    links = [unquote(link, errors="surrogateescape") for link in re.findall('href="([^"]*)"', text)]
    assert {*names, *(f"{name}/evaluate/report_page.html" for name in names)} == {*links}
    assert "<b>" not in text
    first = [line.split("  ")[0] for line in list_lines(read_runs(tmp_path), now=0)]
    assert sorted(first) == sorted(["run", "new line", r"caf\udce9", names[2]])


def test_links_of_tasks_that_a_run_no_longer_has_go_and_nothing_else(tmp_path):
    make_run(tmp_path / "a", GOOD)
    (tmp_path / "a/make_pit").symlink_to("../.store/prepare_reid")
    (tmp_path / "a/mine").symlink_to("/tmp")
    make_run(tmp_path / "a", GOOD)
    assert not (tmp_path / "a/make_pit").is_symlink()
    assert (tmp_path / "a/mine").is_symlink()


def test_list_has_a_line_a_run_the_newest_first(tmp_path):
    make_run(tmp_path / "a", GOOD)
    make_run(tmp_path / "better", BETTER)
    runs = read_runs(tmp_path)
    lines = list_lines(runs, now=runs[0].record.started + 7200)
    assert lines[0].split() == ["run", "state", "age", "size", "figures"]
    assert re.fullmatch(r"better  done   2 h ago  \d+ B  rank1 75.0%  mAP 50.0%", lines[1])
    assert re.fullmatch(r"a       done   2 h ago  \d+ B  rank1 50.0%  mAP 25.0%", lines[2])


@pytest.mark.parametrize(
    ("seconds", "words"), [(-1, "0 s"), (59, "59 s"), (61, "1 min"), (7000, "2 h"), (90000, "1 d")]
)
def test_age_is_in_its_largest_unit(seconds, words):
    assert age_in_words(seconds) == words


def test_sizes_are_in_the_unit_that_people_read():
    assert [size_in_words(n) for n in (12, 1200, 3_400_000, 5_600_000_000)] == [
        "12 B",
        "1.2 kB",
        "3.4 MB",
        "5.6 GB",
    ]


def test_index_links_every_page_and_shows_what_differs(tmp_path):
    make_run(tmp_path / "a", GOOD, workers=["0/1"], rerank=False)
    make_run(tmp_path / "b & c", GOOD, workers=["0/2", "1/2"], rerank=False)
    make_run(tmp_path / "a", BETTER, workers=["0/1"], rerank=False)
    (tmp_path / "compare-a-b.html").touch()
    page = (tmp_path / "index.html").read_text()
    make_run(tmp_path / "a", BETTER, workers=["0/1"], rerank=False)
    page = (tmp_path / "index.html").read_text()
    links = re.findall(r'href="([^"]+)"', page)
    assert {"a/evaluate/report_page.html", "b%20%26%20c", "compare-a-b.html"} <= set(links)
    assert "a/history/1/evaluate/report_page.html" in links
    assert all((tmp_path / link.replace("%20%26%20", " & ")).exists() for link in links)
    assert "0/2, 1/2" in page
    assert "rerank" not in page
    assert "75.0%" in page


def test_index_names_the_commit_of_each_run(tmp_path, monkeypatch):
    for name, commit in (("a", "1" * 40), ("b", "2" * 12 + "-dirty")):
        monkeypatch.setattr("components.experiments.record.git_commit", lambda one=commit: one)
        make_run(tmp_path / name, GOOD)
    page = (tmp_path / "index.html").read_text()
    assert re.findall(r"done<small>(.*?)</small>", page) == ["2" * 12, "1" * 12]
