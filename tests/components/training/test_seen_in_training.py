"""Models that are tested on people they were trained on."""

import csv
import json
import logging
import shutil

import pytest

from components.__main__ import main
from san_core.images.imageset import ImageSet, write_imageset
from san_core.images.shard import Item
from san_core.model.saved import read_description, write_sums
from tests.tiny import step_command, with_flags, with_outputs_in


@pytest.fixture
def mixed(tiny, tmp_path):
    """The tiny set with one of its people to train on among those to be searched for."""
    with ImageSet.open(tiny.root / "reid") as images:
        items = []
        for r in images.records:
            split = r.split
            if r.pid == 1:
                split = "query" if r.camid == 0 else "gallery"
            items.append(Item(r.name, images.read(r), r.pid, r.camid, split, r.fields))
        provenance = images.manifest["provenance"]
    write_imageset(tmp_path / "mixed", items, provenance=provenance)
    return tmp_path / "mixed"


def embed(tiny, tmp_path, dataset, model=None):
    command = with_outputs_in(step_command("extract_features", tiny), tmp_path)
    return main(with_flags(command, dataset=str(dataset), model=str(model or tiny.model)))


def test_a_model_and_a_generator_keep_whom_they_were_trained_on(tiny):
    model = read_description(tiny.root / "model").facts["trained_on"]
    assert [one["name"] for one in model["data_sets"]] == ["synthetic"]
    assert (len(model["images"]), len(model["people"])) == (6 * 4 * 12, 6 * 12)
    generator = read_description(tiny.root / "generator").facts["trained_on"]
    assert [one["name"] for one in generator["data_sets"]] == ["make_pit"]
    assert (len(generator["images"]), len(generator["people"])) == (5 * 3 * 12, 5 * 12)


def test_who_was_trained_on_is_told_with_counts_and_beside_the_headline(
    tiny, mixed, tmp_path, caplog
):
    assert embed(tiny, tmp_path, mixed) == 0
    told = "trained on 1 of the 4 identities (by their names) and 4 of the 16 images"
    assert f"the model was {told}: its scores will be too high" in caplog.text
    command = with_outputs_in(step_command("evaluate", tiny), tmp_path)
    flags = {"dataset": str(mixed), "features": str(tmp_path / "features")}
    assert main(with_flags(command, **flags)) == 0
    assert f"the model was {told}: its scores are too high" in caplog.text
    assert f"this model<small>{told}</small>" in (tmp_path / "report_page").read_text()
    figures = json.loads((tmp_path / "scores").read_text())
    assert (figures["num_people_trained_on"], figures["num_images_trained_on"]) == (1, 4)


def test_other_people_are_not_mentioned(tiny, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    assert embed(tiny, tmp_path, tiny.reid) == 0
    assert "trained on" not in caplog.text
    seen = json.loads((tmp_path / "features" / "features.json").read_text())["seen_in_training"]
    assert seen == {"images": 0, "of_images": 12, "people": 0, "of_people": 3}


def test_a_model_of_an_older_version_is_reported_as_unknown(tiny, tmp_path, caplog):
    older = tmp_path / "older"
    shutil.copytree(tiny.model, older)
    told = json.loads((older / "recipe.json").read_text())
    del told["facts"]["trained_on"]
    (older / "recipe.json").write_text(json.dumps(told))
    write_sums(older)
    assert embed(tiny, tmp_path, tiny.reid, older) == 0
    assert "older does not record whom it was trained on: these images may show them" in caplog.text


def test_the_table_of_features_has_the_names_of_people_and_cameras(tiny, tmp_path, mixed):
    with ImageSet.open(mixed) as images:
        items = [
            Item(r.name, images.read(r), r.pid, r.camid, r.split, {"person": f"no {r.pid}"})
            for r in images.records
        ]
    write_imageset(tmp_path / "named", items, provenance={})
    assert embed(tiny, tmp_path, tmp_path / "named") == 0
    with (tmp_path / "features" / "index.csv").open(encoding="utf-8") as file:
        row = next(csv.DictReader(file))
    assert (row["person"], row["camera"]) == (f"no {row['pid']}", row["camid"])
