"""Runs beside each other: their columns, figures, settings and queries, on one page."""

import csv
import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from components.__main__ import main
from components.experiments.compare import seed_groups
from components.experiments.record import Run, read_run
from components.storage.staging import image_set_digest
from san_core.images.imageset import write_imageset
from san_core.images.pixels import encode_jpeg
from san_core.images.shard import Item
from tests.components.experiments.made_runs import Fill, make_run

QUERIES = [f"q{n}.jpg" for n in range(4)]
GALLERY = [f"g{n}.jpg" for n in range(5)]


@pytest.fixture
def filled(picture):
    """What fills a run with images, and a report in which queries have these precisions."""

    def fill_with(precisions: list[float], *, seed: int = 0) -> Fill:
        def fill(name: str, folder: Path) -> None:
            if name == "reid":
                write_images(folder, seed)
            else:
                write_report(folder, precisions)

        return fill

    def write_images(folder: Path, seed: int) -> None:
        items = [
            Item(
                name=name,
                data=encode_jpeg(picture(seed + n), quality=90),
                pid=n,
                camid=0,
                split="query" if name in QUERIES else "gallery",
                fields={},
            )
            for n, name in enumerate([*QUERIES, *GALLERY])
        ]
        write_imageset(folder, items, total=len(items), shard_size=9, provenance={})

    return fill_with


def write_report(folder: Path, precisions: list[float]) -> None:
    (tested_on,) = folder.parents[2].glob("prepare_reid/*/reid")
    provenance = {"dataset": image_set_digest(tested_on)}
    told = {"cmc": [0.25, 0.5, *[1.0] * 18], "provenance": provenance}
    (folder / "report.json").write_text(json.dumps(told))
    with (folder / "queries.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(
            ["query", "person", "camera", "right_answers", "first_right_rank", "average_precision"]
        )
        for name, precision in zip(QUERIES, precisions, strict=True):
            first = 2 if precision else ""
            table.writerow([name, f"p{name[1]}", "c1", 1, first, precision or ""])
    with (folder / "ranked.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["query", "rank", "image", "distance", "right"])
        for name in QUERIES:
            table.writerows(
                [name, rank + 1, GALLERY[rank], rank, int(rank == 1)] for rank in (0, 1)
            )
            table.writerow([name, 40, GALLERY[4], 9, 1])  # the first correct match, further down


def compare(runs: Path, *words: str) -> int:
    return main(["compare", *words, "--runs", str(runs)])


def text_of(page: Path) -> str:
    """A page without its pictures and tags."""
    return re.sub(
        r"\s+", " ", re.sub(r"<style.*?</style>|<[^>]*>", " ", page.read_text(), flags=re.S)
    )


def test_page_has_figures_differences_settings_and_queries(tmp_path, filled, capsys):
    make_run(tmp_path / "a", {"rank1": 0.5, "mAP": 0.25}, fill=filled([0.5, 0.5, 0.5, 0.0]), lr=1)
    make_run(tmp_path / "b", {"rank1": 0.5, "mAP": 0.5}, fill=filled([0.25, 0.5, 1.0, 1.0]), lr=2)
    assert compare(tmp_path, "a", "b") == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split() for line in said[:2]] == [
        ["rank1", "50.0", "50.0"],
        ["mAP", "25.0", "50.0", "+25.0"],
    ]
    page = tmp_path / "compare-a-vs-b.html"
    assert said[2] == str(page)
    text = text_of(page)
    assert "Settings Only settings that differ are shown. a b lr 1 2 " in text
    gained, lost = text.split("Gained most: b")[1].split("Lost most: b")
    assert "q2.jpg a · average precision 50.0 %" in gained
    assert "b · average precision 100.0 % +50.0 · first correct match at rank 2" in gained
    assert "q0.jpg" in lost.split("Representative queries")[0]
    assert "q1.jpg" in lost.split("Representative queries")[1]
    assert "q3.jpg" not in text  # which a does not count
    # Of q0, q1 and q2 the query and, of each run, the two that stand in line.
    assert page.read_text().count("<img src") == 3 * (1 + 2 * 2)
    assert "http" not in re.sub(r'base64,[^"]*', "", page.read_text())
    curves = 'alt="CMC curves. a: 25.0% at rank 1; b: 25.0% at rank 1"'
    assert page.read_text().count(curves) == 1
    assert 'href="compare-a-vs-b.html"' in (tmp_path / "index.html").read_text()


def test_runs_that_differ_in_their_seed_alone_are_one_column(tmp_path, filled, capsys):
    for seed, precision in enumerate((0.25, 0.75)):
        figures = {"mAP": precision, "loss": precision}
        make_run(tmp_path / f"a{seed}", figures, fill=filled([precision] * 4), seed=seed)
    make_run(tmp_path / "b", {"mAP": 0.75}, fill=filled([1, 1, 1, 1]), lr=2)
    assert compare(tmp_path, "a0", "a1", "b", "--output", str(tmp_path / "x.html")) == 0
    # The deviation of 25 and 75 is 50 / sqrt(2).
    assert capsys.readouterr().out.split()[:5] == ["mAP", "50.0", "±", "35.4", "75.0"]
    text = text_of(tmp_path / "x.html")
    assert "a0 (2 seeds) b mAP 50.0 ± 35.4 75.0 +25.0 loss 0.5 ± 0.3536 –" in text
    assert "a0 · average precision 50.0 %" in text
    assert "runs a0, a1 b" in text
    assert "seed 0, 1 0" in text


def test_seeds_alone_have_no_queries_to_compare(tmp_path, filled):
    for seed in (0, 1):
        make_run(tmp_path / f"a{seed}", {"mAP": 0.5 + seed}, fill=filled([1] * 4), seed=seed)
    assert compare(tmp_path, "a0", "a1") == 0
    text = text_of(tmp_path / "compare-a0-vs-a1.html")
    assert "There is one column, as the runs differ only in their seed." in text


def test_runs_of_one_seed_are_columns_of_their_own(tmp_path):
    for name in ("a", "b"):
        make_run(tmp_path / name, {"mAP": 0.5})
    groups = seed_groups([read_run(tmp_path / name) for name in ("a", "b")])
    assert [group.name for group in groups] == ["a", "b"]


def test_former_result_is_compared_with_the_one_that_replaced_it(tmp_path, filled):
    make_run(tmp_path / "a", {"mAP": 0.25}, fill=filled([0.25] * 4), lr=1)
    make_run(tmp_path / "a", {"mAP": 0.5}, fill=filled([0.5] * 4), lr=2)
    assert compare(tmp_path, "a/history/1", "a") == 0
    text = text_of(tmp_path / "compare-a-history-1-vs-a.html")
    assert "a (history 1) a mAP 25.0 50.0 +25.0" in text
    assert "Gained most: a" in text


def test_run_whose_name_is_no_text_is_compared(tmp_path, filled):
    names = ["a", os.fsdecode(b"caf\xe9")]
    for name in names:
        make_run(tmp_path / name, {"mAP": 0.25}, fill=filled([0.25] * 4), lr=repr(name))
    assert compare(tmp_path, *names, "--output", str(tmp_path / "x.html")) == 0
    assert r"a caf\udce9 mAP 25.0" in text_of(tmp_path / "x.html")


def test_folder_of_all_runs_may_be_called_history(tmp_path, filled):
    for name, precision in (("a", 0.25), ("b", 0.5)):
        made = tmp_path / "history" / name
        make_run(made, {"mAP": precision}, fill=filled([precision] * 4), lr=precision)
    assert compare(tmp_path / "history", "a", "b") == 0
    text = text_of(tmp_path / "history" / "compare-a-vs-b.html")
    assert " a b mAP 25.0 50.0 +25.0" in text
    assert "Gained most: b" in text


def test_runs_on_other_images_are_compared_by_their_figures(tmp_path, filled):
    make_run(tmp_path / "a", {"mAP": 0.25}, fill=filled([0.5] * 4))
    other = tmp_path / "elsewhere"
    make_run(other / "b", {"mAP": 0.5}, fill=filled([0.5] * 4, seed=9), lr=2)
    (tmp_path / "b").symlink_to(other / "b")
    assert compare(tmp_path, "a", "b") == 0
    text = text_of(tmp_path / "compare-a-vs-b.html")
    assert "The runs were not tested on the same images, so their queries are not" in text


def test_former_result_on_data_that_have_changed_has_no_pictures(tmp_path, filled):
    make_run(tmp_path / "a", {"mAP": 0.25}, fill=filled([0.25] * 4), lr=1)
    make_run(tmp_path / "a", {"mAP": 0.5}, fill=filled([0.5] * 4), lr=2)
    report = tmp_path / "a" / "history" / "1" / "evaluate" / "report" / "report.json"
    told = json.loads(report.read_text())
    report.write_text(json.dumps({**told, "provenance": {"dataset": "0" * 64}}))
    assert compare(tmp_path, "a", "a/history/1") == 0
    page = tmp_path / "compare-a-vs-a-history-1.html"
    assert "The runs were not tested on the same images, so their queries" in text_of(page)
    report.write_text(json.dumps({**told, "provenance": {"file": "distances.npy"}}))
    assert compare(tmp_path, "a", "a/history/1") == 0
    assert "test images of a run no longer exist." in text_of(page)


@pytest.mark.parametrize(
    "change",
    [{"commit": "b"}, {"runner": "docker"}, {"runner": "docker", "image": "san:2"}],
)
def test_runs_of_other_code_are_columns_of_their_own(tmp_path, change):
    runs = []
    for seed in (0, 1):
        make_run(tmp_path / f"a{seed}", {"mAP": 0.5 + seed}, seed=seed)
        runs.append(read_run(tmp_path / f"a{seed}"))
    assert len(seed_groups(runs)) == 1
    record = runs[1].record
    request = {name: value for name, value in change.items() if name != "commit"}
    told = {name: value for name, value in change.items() if name == "commit"}
    other = replace(record, request=replace(record.request, **request), **told)
    assert len(seed_groups([runs[0], Run(runs[1].folder, other)])) == 2
    as_other = replace(record, request=replace(record.request, image="san:2"))
    assert len(seed_groups([runs[0], Run(runs[1].folder, as_other)])) == 1  # in no container


def test_parameter_that_one_run_lacks_is_among_the_settings(tmp_path, filled):
    make_run(tmp_path / "a", {"mAP": 0.5}, fill=filled([1] * 4), pit_copies=3)
    make_run(tmp_path / "b", {"mAP": 0.25}, fill=filled([1] * 4))
    assert compare(tmp_path, "a", "b") == 0
    text = text_of(tmp_path / "compare-a-vs-b.html")
    assert "settings that differ are shown. a b pit_copies 3 – " in text


def test_commits_that_differ_are_among_the_settings(tmp_path, filled, monkeypatch):
    for name, commit in (("a", "1" * 40), ("b", "2" * 40)):
        monkeypatch.setattr("components.experiments.record.git_commit", lambda one=commit: one)
        make_run(tmp_path / name, {"mAP": 0.5}, fill=filled([1] * 4))
    assert compare(tmp_path, "a", "b") == 0
    text = text_of(tmp_path / "compare-a-vs-b.html")
    assert f"settings that differ are shown. a b commit {'1' * 12} {'2' * 12} " in text


def test_person_with_a_name_is_called_by_it_alone(tmp_path, filled):
    make_run(tmp_path / "a", {"mAP": 0.5}, fill=filled([0.5] * 4), lr=1)
    make_run(tmp_path / "b", {"mAP": 0.25}, fill=filled([1] * 4), lr=2)
    assert compare(tmp_path, "a", "b") == 0
    text = text_of(tmp_path / "compare-a-vs-b.html")
    assert "p0" in text
    assert "person p0" not in text


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a"], "name two runs or more, each once"),
        (["a", "a/"], "name two runs or more, each once"),
        (["a", "c"], "there is no run c in .*; runs there: a"),
    ],
)
def test_wrong_names_are_refused(tmp_path, capsys, names, message):
    make_run(tmp_path / "a", {"mAP": 0.25})
    with pytest.raises(SystemExit) as stop:
        compare(tmp_path, *names)
    assert stop.value.code == 2
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "s3://bucket/x.html"], "--output s3://bucket/x.html: name a local file"),
        (["--runs", "minio://bucket/runs"], "--runs minio://bucket/runs: name a local folder"),
        (["--output", "gs://bucket/x.html"], "'gs://bucket/x.html' is neither a folder nor a"),
    ],
)
def test_pages_are_written_on_this_machine(tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        make_run(tmp_path / "runs" / name, {"mAP": 0.25})
    with pytest.raises(SystemExit) as stop:
        main(["compare", "a", "b", *words])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_run_without_a_report_is_named_with_what_continues_it(tmp_path, monkeypatch, capsys):
    make_run(tmp_path / "a", {"mAP": 0.25})
    with pytest.raises(ValueError, match="it fails"):
        make_run(tmp_path / "b", {"mAP": 0.25}, fails=True)
    monkeypatch.setattr(sys, "executable", "/env/bin/python")
    assert compare(tmp_path, "a", "b") == 1
    said = capsys.readouterr().err
    assert "has no report (failed); `/env/bin/python pipeline.py run --name b` continues it" in said
