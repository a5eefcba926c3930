"""Searches by the words of the command."""

import csv
import json
import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from components.__main__ import main
from components.command import search
from components.inference.pictures import open_pictures
from components.storage.places import open_storage
from components.storage.transfer import send_artifact
from tests.components.inference.test_onnx_models import run_without_torch
from tests.tiny import file_contents, step_command, with_outputs_in


@pytest.fixture(scope="module")
def crops(tiny, tmp_path_factory):
    """The gallery and the queries of the tiny run as files of two folders."""
    folder = tmp_path_factory.mktemp("crops")
    for split in ("gallery", "query"):
        words = ["--split", split, "--output", str(folder / split)]
        assert main(["imageset", "extract", tiny.reid, *words]) == 0
    return folder


@pytest.fixture
def searched(tiny, tmp_path, monkeypatch, capsys):
    """Searches with the tiny run's model; returns the rows of ranked.csv and the output."""
    monkeypatch.setenv("SAN_CACHE", str(tmp_path / "cache"))

    def run(gallery, *queries, words=(), model=tiny.model, output=tmp_path / "out"):
        asked = ["--query", *map(str, queries), "--output", str(output), *words]
        assert main(["search", "--model", str(model), "--gallery", str(gallery), *asked]) == 0
        with (output / "ranked.csv").open() as table:
            return list(csv.DictReader(table)), capsys.readouterr().out

    return run


def sorted_by_numpy(tiny, split_of_query, names):
    """Cosine distances of the features that extract_features made, sorted."""
    with Path(tiny.features, "index.csv").open() as table:
        rows = list(csv.DictReader(table))
    features = np.load(Path(tiny.features, "features.npy")).astype(np.float64)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    place = {row["name"]: i for i, row in enumerate(rows)}
    gallery = [row["name"] for row in rows if row["split"] == "gallery"]
    found = {}
    for name in names:
        far = 1 - features[[place[one] for one in gallery]] @ features[place[name]]
        order = np.argsort(far, kind="stable")[:3]
        found[name] = [(gallery[i], far[i]) for i in order]
    return found


def test_a_folder_is_searched_as_its_features_say(tiny, crops, searched):
    rows, told = searched(crops / "gallery", crops / "query", words=["--top", "3"])
    folder = f"{crops / 'query'}/"
    asked = list(dict.fromkeys(row["query"] for row in rows))
    expected = sorted_by_numpy(tiny, "query", [name.removeprefix(folder) for name in asked])
    for name in asked:
        mine = [row for row in rows if row["query"] == name]
        assert [row["rank"] for row in mine] == ["1", "2", "3"]
        best = expected[name.removeprefix(folder)]
        assert [float(row["distance"]) for row in mine] == pytest.approx(
            [distance for _, distance in best], abs=1e-4
        )
    assert f"{len(asked)} queries, the 3 nearest of" in told
    assert f"features of the gallery: kept in {crops / 'gallery.features'}" in told


def test_features_are_made_once_for_equal_model_and_images(crops, tmp_path, searched):
    gallery = tmp_path / "photographs"
    gallery.mkdir()
    files = sorted((crops / "gallery").rglob("*.*"))
    files = [file for file in files if file.is_file()]
    for file in files[:3]:
        (gallery / file.name).write_bytes(file.read_bytes())
    first, told = searched(gallery, files[0])
    assert "kept in" in told
    again, told = searched(gallery, files[0])
    assert "reused from" in told
    assert first == again
    assert first[0]["image"] == files[0].name
    assert float(first[0]["distance"]) == pytest.approx(0, abs=1e-5)
    (gallery / files[3].name).write_bytes(files[3].read_bytes())
    rows, told = searched(gallery, files[3])
    assert "kept in" in told
    assert rows[0]["image"] == files[3].name
    _, told = searched(gallery, files[3], words=["--mirrored", "true"])
    assert "kept in" in told


def test_kept_features_that_are_damaged_are_made_again(crops, tmp_path, searched, capsys, tiny):
    (tmp_path / "g").mkdir()
    file = next(file for file in sorted((crops / "gallery").rglob("*")) if file.is_file())
    (tmp_path / "g" / file.name).write_bytes(file.read_bytes())
    expected, _ = searched(tmp_path / "g", file)
    kept = next((tmp_path / "g.features").glob("*/features.npy"))
    kept.write_bytes(kept.read_bytes()[:-1] + b"x")
    words = ["--model", tiny.model, "--gallery", str(tmp_path / "g"), "--query", str(file)]
    assert main(["search", *words, "--output", str(tmp_path / "again")]) == 0
    assert f"are damaged and are computed again: {kept} is damaged" in capsys.readouterr().err
    rows, told = searched(tmp_path / "g", file)
    assert "reused from" in told
    assert rows == expected


def test_what_a_search_writes_into_its_gallery_is_none_of_it(
    crops, tmp_path, searched, monkeypatch
):
    gallery = tmp_path / "photographs"
    gallery.mkdir()
    file = next(file for file in sorted((crops / "gallery").rglob("*")) if file.is_file())
    (gallery / file.name).write_bytes(file.read_bytes())
    monkeypatch.chdir(gallery)
    for told in ("kept in", "reused from"):
        _, said = searched(".", file.name, output=gallery / "search")
        assert f"features of the gallery: {told} {gallery}.features" in said


def test_image_sets_and_archives_are_galleries_too(tiny, crops, tmp_path, searched):
    query = next(file for file in sorted((crops / "query").rglob("*")) if file.is_file())
    by_set, _ = searched(tiny.reid, query)
    with zipfile.ZipFile(tmp_path / "crops.zip", "w") as archive:
        for file in sorted((crops / "gallery").rglob("*")):
            archive.write(file, file.relative_to(crops / "gallery"))
    by_archive, _ = searched(tmp_path / "crops.zip", query)
    by_folder, _ = searched(crops / "gallery", query)
    assert by_archive == by_folder
    assert by_set[0]["image"] == query.relative_to(crops / "query").as_posix()


def test_where_nobody_may_write_features_are_kept_in_the_cache(
    crops, tmp_path, searched, monkeypatch
):
    query = next(file for file in sorted((crops / "query").rglob("*")) if file.is_file())
    monkeypatch.setattr("components.inference.kept.os.access", lambda *_: False)
    _, told = searched(crops / "query", query)
    assert f"kept in {tmp_path / 'cache' / 'features'}" in told


def test_the_page_shows_queries_with_what_was_found(crops, tmp_path, searched, monkeypatch):
    monkeypatch.setattr(search, "QUERIES_SHOWN", 2)
    rows, _ = searched(crops / "gallery", crops / "query", words=["--top", "4"])
    page = (tmp_path / "out" / "search.html").read_text("utf-8")
    assert page.count("<img ") == 2 * (1 + 4)
    assert f"{len({row['query'] for row in rows}) - 2} more queries are in ranked.csv" in page
    assert len(re.findall(r'src="(?!data:)', page)) == 0
    assert f"· {float(rows[0]['distance']):.3f}" in page


def test_the_page_shows_the_nearest_of_many_and_the_table_has_all(
    crops, tmp_path, searched, monkeypatch
):
    monkeypatch.setattr(search, "FOUND_SHOWN", 3)
    query = next(file for file in sorted((crops / "query").rglob("*")) if file.is_file())
    rows, _ = searched(crops / "gallery", query, words=["--top", "5"])
    page = (tmp_path / "out" / "search.html").read_text("utf-8")
    assert (len(rows), page.count("<img ")) == (5, 1 + 3)
    assert "2 more gallery images for each query are in ranked.csv" in page


def test_a_search_that_finds_no_memory_says_what_needs_less(
    tiny, crops, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("SAN_CACHE", str(tmp_path / "cache"))

    def fail(*_words, **_options):
        raise MemoryError("Unable to allocate 50 GiB")

    monkeypatch.setattr("san_core.search.nearest.nearest", fail)
    place, output = str(crops / "query"), str(tmp_path / "out")
    words = ["--gallery", place, "--query", place, "--output", output]
    assert main(["search", "--model", tiny.model, *words]) == 1
    assert capsys.readouterr().err.endswith(
        "search: not enough memory (Unable to allocate 50 GiB); a smaller --top or fewer queries"
        " need less\n"
    )


def test_the_threshold_is_that_of_the_models_own_evaluation(tiny, crops, tmp_path, searched):
    gallery, query = crops / "gallery", crops / "query"
    command = with_outputs_in(step_command("evaluate", tiny), tmp_path / "scored")
    assert main(command) == 0
    file = tmp_path / "scored" / "report" / "report.json"
    content = json.loads(file.read_text())
    # As of 2,000 wrong pairs: too few for a rate of 0.1 %, enough for 1 %.
    content["roc"] |= {"num_wrong": 2000}
    content["roc"]["threshold_at_fpr"] |= {"0.001": 0.01, "0.01": 0.0625}
    content["roc"]["tpr_at_fpr"] |= {"0.01": 0.5}
    file.write_text(json.dumps(content))
    rows, told = searched(gallery, query, words=["--report", str(file.parent)])
    assert (
        "suggested threshold 0.0625: 1.0% of the pictures of other people were nearer, and 50.0% of"
        f" those of the same person, in {file.parent}\n"
    ) in told
    page = (tmp_path / "out" / "search.html").read_text("utf-8")
    assert "within the suggested threshold 0.0625" in page
    near = sum(float(row["distance"]) <= 0.0625 for row in rows)
    assert page.count('<figure class="near"') == near


def test_a_report_beside_the_model_is_found_if_it_is_the_models(tiny, crops, tmp_path, searched):
    query = next(file for file in sorted((crops / "query").rglob("*")) if file.is_file())
    (tmp_path / "train_san").mkdir()
    (tmp_path / "train_san" / "model").symlink_to(tiny.model)
    command = with_outputs_in(step_command("evaluate", tiny), tmp_path / "evaluate")
    assert main(command) == 0
    file = tmp_path / "evaluate" / "report" / "report.json"
    content = json.loads(file.read_text())
    content["roc"] |= {"num_wrong": 10**6}
    content["roc"]["threshold_at_fpr"] |= {"0.001": 0.125}
    file.write_text(json.dumps(content))
    model = tmp_path / "train_san" / "model"
    _, told = searched(crops / "query", query, model=model)
    assert f"in {tmp_path / 'evaluate' / 'report'}" in told
    content["provenance"]["model"] = "0" * 64
    file.write_text(json.dumps(content))
    _, told = searched(crops / "query", query, model=model)
    assert "no threshold is suggested: no report of this model was found" in told


def test_names_that_are_no_unicode_are_shown(crops, tmp_path, searched):
    gallery = tmp_path / os.fsdecode(b"caf\xe9s")
    gallery.mkdir()
    file = next(file for file in sorted((crops / "gallery").rglob("*")) if file.is_file())
    picture = gallery / os.fsdecode(b"caf\xe9.png")
    picture.write_bytes(file.read_bytes())
    rows, _ = searched(gallery, picture)
    assert [row["image"] for row in rows] == ["caf\\udce9.png"]
    page = (tmp_path / "out" / "search.html").read_text("utf-8")
    assert 'alt="caf\\udce9.png"' in page
    assert f"{tmp_path}/caf\\udce9s, 1 " in page


def test_a_search_that_ends_without_a_page_leaves_the_older_one_whole(
    tiny, crops, tmp_path, searched, monkeypatch
):
    def fail(*_, **__):
        raise ValueError("a picture is damaged")

    searched(crops / "query", crops / "query", words=["--top", "1"])
    before = file_contents(tmp_path / "out")
    monkeypatch.setattr(search, "_shown_queries", fail)
    words = ["--model", tiny.model, "--gallery", str(crops / "query"), "--top", "2"]
    words += ["--query", str(crops / "query"), "--output", str(tmp_path / "out")]
    assert main(["search", *words]) == 1
    assert file_contents(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("report.json", "{}", "--output {out} holds report.json, which a search does not write"),
        (
            "ranked.csv",
            "query,rank,image,distance,right\n",
            "{out}/ranked.csv is not from a search;",
        ),
        ("search.html/x", "", "{out}/search.html is a folder, but the output is a file;"),
    ],
)
def test_files_of_something_else_are_not_replaced(tmp_path, capsys, name, content, message):
    file = tmp_path / "out" / name
    file.parent.mkdir(parents=True)
    file.write_text(content)
    words = ["--model", "m", "--gallery", "g", "--query", "q", "--output", str(tmp_path / "out")]
    assert main(["search", *words]) == 1
    assert message.format(out=tmp_path / "out") in capsys.readouterr().err
    assert file.read_text() == content


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gallery", "{none}"], "there is no folder {none}, and no archive of that name"),
        (["--gallery", "{empty}"], "{empty} holds no image; images end in .jpg"),
        (["--query", "{none}"], "there is no folder {none}, and no archive of that name"),
        (["--model", "{empty}"], "{empty} holds no model: recipe.json is missing"),
        (["--model", "{generator}"], "has learned no identities: it is a texture generator"),
        (["--top", "0"], "--top 0: give 1 or more"),
        (["--output", "s3://bucket/out"], "--output s3://bucket/out: name a local folder"),
        (["--report", "{report}"], "--report {report} is of another model"),
    ],
)
def test_wrong_input_is_one_line(tiny, crops, tmp_path, capsys, words, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.json").write_text('{"provenance": {"model": "1"}}')
    places = {name: tmp_path / name for name in ("none", "empty", "report")}
    places["generator"] = tiny.generator
    defaults = {
        "--model": tiny.model,
        "--gallery": str(crops / "query"),
        "--query": str(crops / "query"),
        "--output": str(tmp_path / "out"),
    }
    defaults |= {words[0]: words[1].format(**places)}
    assert main(["search", *(word for pair in defaults.items() for word in pair)]) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("search: ")
    assert message.format(**places) in told


def test_words_that_are_missing_are_wrong_usage(capsys):
    assert main(["search", "--model", "m"]) == 2
    assert "required: --gallery, --query" in capsys.readouterr().err
    assert main(["search", "--help"]) == 0


def test_pictures_of_a_place_have_a_fingerprint_that_changes_with_them(tmp_path, crops):
    file = next(file for file in sorted((crops / "query").rglob("*")) if file.is_file())
    (tmp_path / "one.png").write_bytes(file.read_bytes())
    fingerprints = set()
    for _ in range(2):
        with open_pictures(str(tmp_path)) as pictures:
            fingerprints.add(pictures.fingerprint)
            assert list(pictures.names) == ["one.png"]
            assert pictures.open_files([0])[0].read() == file.read_bytes()
    (tmp_path / "one.png").write_bytes(file.read_bytes() + b" ")
    with open_pictures(str(tmp_path)) as pictures:
        fingerprints.add(pictures.fingerprint)
    assert len(fingerprints) == 2


@pytest.mark.s3
def test_model_gallery_and_query_may_lie_in_a_bucket(tiny, crops, tmp_path, searched, s3):
    query = next(file for file in sorted((crops / "query").rglob("*")) if file.is_file())
    expected, _ = searched(crops / "gallery", query)
    send_artifact(Path(tiny.model), f"{s3}/model")
    storage = open_storage(s3)
    for file in (crops / "gallery").rglob("*"):
        if file.is_file():
            name = file.relative_to(crops / "gallery").as_posix()
            storage.put_file(f"photographs/{name}", file)
    storage.put_file("asked/person.png", query)
    place = f"{s3}/asked/person.png"
    rows, told = searched(f"{s3}/photographs", place, model=f"{s3}/model")
    assert [row["image"] for row in rows] == [row["image"] for row in expected]
    assert {row["query"] for row in rows} == {place}
    assert f"kept in {tmp_path / 'cache' / 'features'}" in told
    send_artifact(Path(tiny.reid), f"{s3}/reid")
    rows, _ = searched(f"{s3}/reid", query, model=f"{s3}/model")
    assert rows[0]["image"] == query.relative_to(crops / "query").as_posix()


@pytest.mark.slow
def test_an_exported_model_searches_without_torch(tiny, crops, tmp_path, searched):
    file = tmp_path / "reid.onnx"
    assert main(["export", "--model", tiny.model, "--onnx", str(file)]) == 0
    expected, _ = searched(crops / "gallery", crops / "query")
    words = ["--gallery", str(crops / "gallery"), "--query", str(crops / "query")]
    done = run_without_torch(
        "search", "--model", str(file), *words, "--output", str(tmp_path / "by-onnx")
    )
    assert done.returncode == 0, done.stderr
    with (tmp_path / "by-onnx" / "ranked.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert [float(row["distance"]) for row in rows] == pytest.approx(
        [float(row["distance"]) for row in expected], abs=1e-4
    )
