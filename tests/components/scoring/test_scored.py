"""evaluate on given results: features and distances in plain files, several test sets."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from components.__main__ import main
from san_core.evaluation.matrix import rank
from san_core.images.imageset import ImageSet, write_imageset
from san_core.images.shard import Item
from tests.tiny import step_command, with_flags, with_outputs_in


def evaluation(tiny, out, *words):
    """The words of an evaluation of what `words` give."""
    command = with_outputs_in(step_command("evaluate", tiny), out)
    for flag in ("--features", "--references"):
        place = command.index(flag)
        del command[place : place + 2]
    return [*command, *map(str, words)]


def read_report(out):
    return json.loads((out / "report" / "report.json").read_bytes())


def index_of(tiny):
    with Path(tiny.features, "index.csv").open() as file:
        return list(csv.DictReader(file))


def write_table(file, rows):
    file.write_text("\n".join(["name", *(row["name"] for row in rows)]) + "\n")


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_features_of_ones_own_are_scored_as_those_of_the_model(tiny, tmp_path, capsys, dtype):
    shuffled = np.random.default_rng(0).permutation(12)
    rows = np.load(Path(tiny.features, "features.npy"))[shuffled]
    np.save(tmp_path / "mine.npy", 4 * rows.astype(dtype))  # cosine looks at no length
    write_table(tmp_path / "mine.csv", [index_of(tiny)[i] for i in shuffled])
    assert main(evaluation(tiny, tmp_path, "--features", tmp_path / "mine.npy")) == 0
    assert "mine.npy records no metric, so cosine is used" in capsys.readouterr().err
    found, expected = (
        read_report(tmp_path),
        json.loads(Path(tiny.report, "report.json").read_text()),
    )
    assert found["metric"] == expected["metric"] == "cosine"
    assert found["mAP"] == pytest.approx(expected["mAP"], abs=0.02 if dtype == np.float16 else 1e-9)
    assert found["provenance"]["file"] == "mine.npy"


def test_the_metric_can_be_chosen_for_features(tiny, tmp_path):
    words = ("--features", tiny.features, "--metric", "euclidean", "--references", "true")
    assert main(evaluation(tiny, tmp_path, *words)) == 0
    assert read_report(tmp_path)["metric"] == "euclidean"
    assert set(read_report(tmp_path)["references"]) == {"untrained encoder", "colour histogram"}


def test_distances_are_scored_as_they_are_given(tiny, tmp_path):
    rows = index_of(tiny)[::-1]
    asked, searched = ([r for r in rows if r["split"] == s] for s in ("query", "gallery"))
    matrix = np.random.default_rng(1).random((6, 6))
    np.save(tmp_path / "far.npy", matrix)
    write_table(tmp_path / "far.csv", rows)
    words = ("--distances", tmp_path / "far.npy", "--protocol", "market1501,single-gallery-shot")
    assert main(evaluation(tiny, tmp_path, *words, "--references", "true")) == 0
    ids = [[int(r["pid"]) for r in each] for each in (asked, searched)]
    cameras = [[int(r["camid"]) for r in each] for each in (asked, searched)]
    found = read_report(tmp_path)
    assert found["mAP"] == pytest.approx(rank(matrix, *ids, *cameras).mAP)
    assert (found["metric"], set(found["references"])) == ("given", {"colour histogram"})
    assert found["protocols"][0]["protocol"] == "single-gallery-shot"
    alone = {(pair["query_camera"], pair["gallery_camera"]) for pair in found["camera_pairs"]}
    assert alone == {(0, 1), (1, 0)}
    assert (
        "compared with every gallery image by the given distance."
        in (tmp_path / "report_page").read_text()
    )


def test_distances_without_a_table_are_in_the_order_of_the_data_set(tiny, tmp_path, capsys):
    matrix = np.random.default_rng(1).random((6, 6))
    (tmp_path / "given").mkdir()
    np.save(tmp_path / "given" / "distances.npy", matrix)
    words = ("--distances", tmp_path / "given")
    assert main(evaluation(tiny, tmp_path / "out", *words)) == 0
    assert "its rows are the queries and its columns the gallery" in capsys.readouterr().err
    images = ImageSet.open(Path(tiny.reid))
    asked, searched = (list(images.records_in_splits(s)) for s in ("query", "gallery"))
    ids = [[r.pid for r in each] for each in (asked, searched)]
    cameras = [[r.camid for r in each] for each in (asked, searched)]
    assert read_report(tmp_path / "out")["mAP"] == pytest.approx(rank(matrix, *ids, *cameras).mAP)


@pytest.mark.parametrize(
    ("shape", "table", "words", "message"),
    [
        ((12, 4), False, ["--features"], "mine.npy has no mine.csv or index.csv beside it, which"),
        ((11, 4), True, ["--features"], "is float64 (11, 4); expected float32, float64 or float16"),
        (
            (6, 5),
            True,
            ["--distances"],
            "is float64 (6, 5); expected numbers of shape (6, 6): a row",
        ),
        (
            (6, 6),
            True,
            ["--metric", "cosine", "--distances"],
            "metric cosine has no effect on dist",
        ),
        ((12, 4), True, ["--metric", "l2", "--features"], "no metric 'l2'; there are auto, euclid"),
        (
            (6, 6),
            True,
            ["--rerank", "true", "--distances"],
            "re-ranking needs distances within the gallery, and distances of queries",
        ),
    ],
)
def test_files_that_do_not_fit_end_in_one_line(
    tiny, tmp_path, capsys, shape, table, words, message
):
    np.save(tmp_path / "mine.npy", np.random.default_rng(0).random(shape))
    if table:
        write_table(tmp_path / "mine.csv", index_of(tiny))
    assert main(evaluation(tiny, tmp_path, *words, tmp_path / "mine.npy")) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("evaluate: ")
    assert message in line


def test_either_features_or_distances_are_scored(tiny, tmp_path, capsys):
    assert main(evaluation(tiny, tmp_path)) == 1
    assert "give one of --features and --distances; none of them were" in capsys.readouterr().err
    both = ("--features", tiny.features, "--distances", tiny.features)
    assert main(evaluation(tiny, tmp_path, *both)) == 1
    assert "--distances; both were given" in capsys.readouterr().err


def test_features_of_zeros_tie_and_are_counted(tiny, tmp_path, capsys):
    rows = np.load(Path(tiny.features, "features.npy"))
    rows[[0, 7, 8]] = 0
    np.save(tmp_path / "mine.npy", rows)
    write_table(tmp_path / "mine.csv", index_of(tiny))
    assert main(evaluation(tiny, tmp_path, "--features", tmp_path / "mine.npy")) == 0
    assert (
        "3 of 12 features are all zeros: they cannot distinguish people" in capsys.readouterr().err
    )


@pytest.fixture
def two_sets(tiny, tmp_path):
    """The tiny test set twice, as the parts of one set that two targets make."""
    images = ImageSet.open(Path(tiny.reid))
    records = images.records_in_splits("query", "gallery")
    counts = {s: {"images": 6} for s in ("query", "gallery")}
    parts = [
        {"name": "csv", "prefix": "a/", "protocol": "market1501", "counts": counts},
        {"name": "msmt17", "prefix": "b/", "protocol": "camera-free", "counts": counts},
        {"name": "train", "prefix": "c/", "protocol": "", "counts": {"train": {}}},
    ]
    items = [
        Item(f"{folder}/{r.name}", images.read(r), r.pid + by, r.camid, r.split)
        for folder, by in (("a", 0), ("b", 100))
        for r in records
    ]
    write_imageset(tmp_path / "two", items, provenance={"parts": parts, "warnings": ["seen"]})
    return tmp_path / "two"


def test_each_of_several_test_sets_is_scored_by_itself(tiny, two_sets, tmp_path, capsys):
    extract = step_command("extract_features", tiny)
    extract = with_flags(extract, dataset=str(two_sets), features=str(tmp_path / "features"))
    assert main(extract) == 0
    words = ("--features", tmp_path / "features", "--references", "true")
    command = with_flags(evaluation(tiny, tmp_path, *words), dataset=str(two_sets))
    assert main(command) == 0
    single = json.loads(Path(tiny.report, "report.json").read_bytes())
    found = read_report(tmp_path)
    assert (found["target"], found["mAP"], found["num_gallery"]) == ("csv", single["mAP"], 6)
    (further,) = found["further_targets"].values()
    assert (further["protocol"], further["num_gallery"]) == ("camera-free", 6)
    assert further["references"]["colour histogram"]["rank1"] <= 1
    scores = json.loads((tmp_path / "scores").read_bytes())
    assert (scores["mAP"], scores["mAP_msmt17"]) == (found["mAP"], further["mAP"])
    said = capsys.readouterr().err
    assert "csv: this model, market1501: rank1" in said
    assert "msmt17: this model, camera-free: rank1" in said
    page = (tmp_path / "report_page").read_text()
    assert "msmt17: Ranked lists" in page
