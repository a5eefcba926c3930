"""Features that several workers embed, joined."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from components.__main__ import main
from tests.tiny import file_contents, step_command, with_flags


@pytest.fixture
def batches_of_four(monkeypatch):
    monkeypatch.setattr("components.inference.embedding.BATCH", 4)


@pytest.fixture
def extract(tiny, tmp_path, batches_of_four):
    """Embeds the part of a worker; returns its folder."""

    def run(worker, name="", **flags):
        place = tmp_path / "parts" / (name or worker.partition("/")[0])
        command = with_flags(step_command("extract_features", tiny), features=str(place))
        assert main(with_flags(command, worker=worker, **flags)) == 0
        return place

    return run


@pytest.fixture
def seal(tiny, tmp_path, capsys):
    """Joins the parts; gives the folder of all features, or the line that says why not."""

    def run(parts=None, dataset=tiny.reid, **flags):
        place = tmp_path / "sealed"
        words = ["seal_features", "--dataset", str(dataset), "--features", str(place)]
        if not flags:
            flags = {"source": str(parts or tmp_path / "parts")}
        status = main(with_flags(words, **flags))
        if status:
            return capsys.readouterr().err.splitlines()[-1]
        return place

    return run


def test_joined_features_are_the_bytes_of_one_worker(extract, seal, tiny, tmp_path):
    for number in (2, 0, 1):
        extract(f"{number}/3")
    whole = tmp_path / "whole"
    command = with_flags(step_command("extract_features", tiny), features=str(whole))
    assert main(command) == 0
    assert file_contents(seal()) == file_contents(whole)


def test_part_is_not_scored_as_if_it_were_all(extract, tiny, tmp_path, capsys):
    part = extract("1/3")
    command = with_flags(step_command("evaluate", tiny), features=str(part))
    assert main(with_flags(command, report=str(tmp_path / "report"))) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert (
        line == f"evaluate: {part} holds the features of one of 3 workers; seal_features joins them"
    )


def test_parts_that_are_missing_are_named(extract, seal, tmp_path):
    extract("1/3")
    assert seal() == (
        f"seal_features: {tmp_path / 'parts'} holds 1 of 3 parts; missing: worker 0, 2"
    )


def test_part_that_is_there_twice_is_refused(extract, seal, tmp_path):
    first = extract("0/2")
    shutil.copytree(first, tmp_path / "parts" / "copy")
    assert seal().endswith(f"{first} and {tmp_path / 'parts' / 'copy'} are both part 0; delete one")


def test_parts_of_different_features_are_refused(extract, seal):
    first, second = extract("0/2"), extract("1/2", mirrored="true")
    assert seal().endswith(f"{first} and {second} are parts of different features: mirrored")


def test_part_of_other_matrices_is_refused(extract, seal):
    extract("0/2"), extract("1/2", references="false")
    assert seal().endswith("hold different matrices: references")


def test_whole_features_are_no_part(extract, seal):
    whole = extract("0/1")
    assert seal().endswith(f"{whole} is not a part: it holds the features of all images")


def test_features_of_another_data_set_are_refused(extract, seal, tiny):
    part = extract("0/2")
    other = Path(tiny.pit) / "images"
    assert seal(dataset=other).endswith(f"{part} holds features of another data set than {other}")


def test_damaged_part_is_refused(extract, seal):
    part, _ = extract("0/2"), extract("1/2")
    data = bytearray((part / "features.npy").read_bytes())
    data[-1] ^= 1
    (part / "features.npy").write_bytes(data)
    assert "features.npy is damaged" in seal()


def test_place_without_parts_is_refused(seal, tmp_path, tiny, capsys):
    (tmp_path / "nowhere").mkdir()
    told = seal(tmp_path / "nowhere")
    assert "holds no folder with features.json, which extract_features" in told
    words = ["--dataset", tiny.reid, "--features", str(tmp_path / "f")]
    assert main(["seal_features", *words]) == 1
    assert "or where they were kept by --feature-parts; none of them are" in capsys.readouterr().err


def test_more_workers_than_batches_are_refused(extract, tiny, tmp_path, capsys):
    command = with_flags(step_command("extract_features", tiny), features=str(tmp_path / "f"))
    assert main(with_flags(command, worker="0/9")) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "extract_features: 9 workers are too many: 12 images make 3 batches of 4,"
        " enough for 3 at most"
    )


def test_parts_are_embedded_for_the_worker_of_an_indexed_job(extract, monkeypatch):
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    assert '"number": 1' in (extract("/2", "any") / "features.json").read_text()


@pytest.fixture
def whole(tiny, tmp_path, batches_of_four):
    """What one worker writes, file by file."""
    place = tmp_path / "whole"
    assert main(with_flags(step_command("extract_features", tiny), features=str(place))) == 0
    return file_contents(place)


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.s3)])
def kept(request, tmp_path):
    """Where workers keep their parts."""
    if request.param == "bucket":
        return f"{request.getfixturevalue('s3')}/kept"
    return str(tmp_path / "kept")


def by_settings(tiny, kept, **flags):
    """The flags that identify the parts in a place."""
    return {"feature_parts": kept, "model": tiny.model, "references": "true", **flags}


@pytest.mark.parametrize("count", [1, 3])
def test_kept_parts_are_joined_to_the_bytes_of_one_worker(extract, seal, tiny, kept, whole, count):
    for number in range(count):
        extract(f"{number}/{count}", feature_parts=kept)
    assert file_contents(seal(**by_settings(tiny, kept))) == whole


def test_finished_part_is_taken_and_not_made_again(extract, seal, tiny, kept, monkeypatch, caplog):
    first = file_contents(extract("0/2", feature_parts=kept))
    monkeypatch.setattr("components.inference.embedding.decoded_batches", None)
    with caplog.at_level(logging.INFO):
        again = extract("0/2", "again", feature_parts=kept)
    assert file_contents(again) == first
    assert "where it is finished" in caplog.text


@pytest.mark.parametrize("how", ["damaged", "unfinished", "of another range"])
def test_part_that_is_not_whole_is_made_again(extract, seal, tiny, tmp_path, whole, how, caplog):
    kept = str(tmp_path / "kept")
    for number in (0, 1):
        extract(f"{number}/2", feature_parts=kept)
    (part,) = Path(kept).glob("*/of-2/0")
    if how == "damaged":
        (part / "features.npy").write_bytes(b"x")
    elif how == "unfinished":
        (part / "features.json").unlink()
    else:
        shutil.copytree(part.with_name("1"), part, dirs_exist_ok=True)
    extract("0/2", "again", feature_parts=kept)
    assert ("is made again" in caplog.text) == (how != "unfinished")
    assert file_contents(seal(**by_settings(tiny, kept))) == whole


def test_kept_parts_that_are_missing_are_named(extract, seal, tiny, tmp_path):
    extract("1/3", feature_parts=str(tmp_path / "kept"))
    line = seal(**by_settings(tiny, str(tmp_path / "kept")))
    assert line.endswith("of-3 holds 1 of 3 parts; missing: worker 0, 2")


def test_parts_of_other_settings_are_not_found(extract, seal, tiny, tmp_path):
    kept = str(tmp_path / "kept")
    for number in (0, 1):
        extract(f"{number}/2", feature_parts=kept)
    for flags in ({"mirrored": "true"}, {"references": "false"}, {"splits": "query"}):
        line = seal(**by_settings(tiny, kept, **flags))
        assert "holds no part of these features: run extract_features for every worker" in line


def test_whole_set_of_another_number_of_workers_is_taken(extract, seal, tiny, tmp_path, whole):
    kept = str(tmp_path / "kept")
    for worker in ("0/3", "0/2", "1/2"):
        extract(worker, feature_parts=kept)
    assert file_contents(seal(**by_settings(tiny, kept))) == whole


def test_kept_part_is_not_scored_as_if_it_were_all(extract, tiny, tmp_path, capsys):
    part = extract("0/1", feature_parts=str(tmp_path / "kept"))
    command = with_flags(step_command("evaluate", tiny), features=str(part))
    assert main(with_flags(command, report=str(tmp_path / "report"))) == 1
    assert "seal_features joins them" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"feature_parts": "/kept"}, "--feature-parts needs --model, by which the features are"),
        ({"feature_parts": "/kept", "source": "/parts"}, "by --feature-parts; both are given"),
        ({"source": "/parts", "model": "MODEL"}, "--model is of --feature-parts; a --source holds"),
    ],
)
def test_parts_are_in_one_place(seal, tiny, flags, message):
    found = {name: tiny.model if place == "MODEL" else place for name, place in flags.items()}
    assert message in seal(**found)


def test_sealed_features_are_scored_from_a_memory_map(extract, seal, tiny, tmp_path, monkeypatch):
    from components.scoring import given

    for number in (0, 1):
        extract(f"{number}/2")
    sealed, maps = seal(), []
    rows = given.FeatureFiles.rows
    monkeypatch.setattr(
        given.FeatureFiles, "rows", lambda *words: maps.append(rows(*words)) or maps[-1]
    )
    command = with_flags(step_command("evaluate", tiny), features=str(sealed))
    outputs = {"report": "r", "report_page": "p.html", "scores": "s.json", "roc": "o.json"}
    places = {name: str(tmp_path / file) for name, file in outputs.items()}
    assert main(with_flags(command, **places)) == 0
    assert [type(one) for one in maps] == [np.memmap, np.memmap]
