"""Which images are embedded."""

import csv
from pathlib import Path

import numpy as np
import pytest

from components.__main__ import main
from san_core.images.imageset import ImageSet
from tests.tiny import step_command, with_flags


@pytest.fixture
def extract(tiny, tmp_path):
    """Embeds some splits; gives the rows of index.csv and the features."""

    def run(splits, *, dataset=tiny.reid):
        command = with_flags(
            step_command("extract_features", tiny),
            dataset=str(dataset),
            features=str(tmp_path / "features"),
            references="false",
            splits=splits,
        )
        assert main(command) == 0
        with (tmp_path / "features" / "index.csv").open() as table:
            return list(csv.DictReader(table)), np.load(tmp_path / "features" / "features.npy")

    return run


def test_any_split_is_embedded(extract, tiny):
    rows, features = extract("train,gallery")
    assert {row["split"] for row in rows} == {"train", "gallery"}
    assert len(features) == len(rows)
    rows, features = extract("all")
    with ImageSet.open(Path(tiny.reid)) as images:
        assert [row["name"] for row in rows] == [record.name for record in images.records]


def test_photographs_without_identities_are_embedded(extract, tiny, tmp_path):
    photographs, reid = tmp_path / "photographs", tmp_path / "reid"
    words = ["--split", "gallery", "--output", str(photographs)]
    assert main(["imageset", "extract", tiny.reid, *words]) == 0
    prepare = ["--dataset", "images", "--source", str(photographs), "--reid", str(reid)]
    assert main(["prepare_reid", *prepare]) == 0
    expected = {row["name"]: one for row, one in zip(*extract("gallery"), strict=True)}
    rows, features = extract("images", dataset=reid)
    assert [row["pid"] for row in rows] == [""] * len(expected)
    for row, feature in zip(rows, features, strict=True):
        np.testing.assert_allclose(feature, expected[row["name"]], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ("gallary", "splits 'gallary': 'gallary' is not one of "),
        ("", "splits '': '' is not one of"),
        ("images", "has no images in split images; it has gallery, query, train"),
    ],
)
def test_splits_that_are_not_there_are_named(tiny, tmp_path, capsys, splits, message):
    command = with_flags(
        step_command("extract_features", tiny), features=str(tmp_path / "f"), splits=splits
    )
    assert main(command) == 1
    assert message in capsys.readouterr().err
