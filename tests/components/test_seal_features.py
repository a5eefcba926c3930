"""Features that several workers embed, joined."""

import shutil
from pathlib import Path

import pytest

from components.__main__ import main
from tests.tiny import file_contents, step_command, with_flags


@pytest.fixture
def batches_of_four(monkeypatch):
    monkeypatch.setattr("components.inference.embedding.BATCH", 4)


@pytest.fixture
def extract(tiny, tmp_path, batches_of_four):
    """Embeds the part of a worker; gives the folder it lies in."""

    def run(worker, name="", **flags):
        place = tmp_path / "parts" / (name or worker.partition("/")[0])
        command = with_flags(step_command("extract_features", tiny), features=str(place))
        assert main(with_flags(command, worker=worker, **flags)) == 0
        return place

    return run


@pytest.fixture
def seal(tiny, tmp_path, capsys):
    """Joins the parts; gives the folder of all features, or the line that says why not."""

    def run(source=None, dataset=tiny.reid):
        place = tmp_path / "sealed"
        words = ["--source", str(source or tmp_path / "parts"), "--features", str(place)]
        status = main(["seal_features", "--dataset", str(dataset), *words])
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
        line == f"evaluate: {part} holds the features of one of 3 workers: seal_features joins them"
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
    assert "--source is empty; give the folder or URI of" in capsys.readouterr().err


def test_more_workers_than_batches_are_refused(extract, tiny, tmp_path, capsys):
    command = with_flags(step_command("extract_features", tiny), features=str(tmp_path / "f"))
    assert main(with_flags(command, worker="0/9")) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "extract_features: 9 workers are too many: 12 images are 3 batches of 4, work for 3 at most"
    )


def test_parts_are_embedded_for_the_worker_of_an_indexed_job(extract, monkeypatch):
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    assert '"number": 1' in (extract("/2", "any") / "features.json").read_text()
