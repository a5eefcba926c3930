import numpy as np
import pytest

from components.__main__ import main
from components.storage.staging import open_image_set
from san_core.images import texture_set
from san_core.images.imageset import write_imageset
from san_core.images.pixels import decode, resize
from san_core.inference.fusion import fuse_textures
from san_core.inference.textures import stream_seen_textures
from san_core.model.weights import load_network, save_network
from tests.san_core.training.tiny_run import tiny_model, tiny_recipe

COPYING = "texture_from=copy copy_queries=8 copy_dim=8"
PEOPLE = [1, 2, 1, None, 2, 1]


@pytest.fixture
def places(tmp_path, items):
    """Six images of two people and of one who is not known, and a generator that copies."""
    shown = [one._replace(pid=pid) for one, pid in zip(items(6), PEOPLE, strict=True)]
    write_imageset(tmp_path / "reid", shown, provenance={"made_by": "a test"})
    settings = tiny_recipe("demo-pg", COPYING)
    model = tiny_model(settings)
    save_network(tmp_path / "generator", model, settings, facts={"atlas": "san-atlas-1"})
    return tmp_path


def command(places, step, output, *words):
    made = {"generate_textures": "written", "seal_textures": "textures"}[step]
    return [
        *(step, "--dataset", f"{places}/reid", "--generator", f"{places}/generator"),
        *("--destination", f"{places}/store", f"--{made}", f"{places}/{output}", *words),
    ]


def fused_textures(places, *words):
    """The textures of the images, by name, made by two workers and sealed."""
    for worker in ("1/2", "0/2"):
        generate = command(places, "generate_textures", "written", "--worker", worker)
        assert main([*generate, "--fuse", "person", *words]) == 0
    assert main(command(places, "seal_textures", "textures", "--fuse", "person", *words)) == 0
    with open_image_set(places / "textures") as made:
        return {record.named("image"): decode(made.read(record)) for record in made.records}


def expected_textures(places):
    """The same, taken one person after another in this process."""
    generator = load_network(places / "generator")
    with open_image_set(places / "reid") as images:
        records = list(images.records)
        pictures = [
            resize(decode(images.read(record)), generator.recipe.image_size) for record in records
        ]
    views = list(stream_seen_textures(generator.model, pictures, device="cpu"))
    return {
        record.name: fuse_textures(
            [v for v, r in zip(views, records, strict=True) if r.pid == record.pid]
        )
        for record in records
    }


@pytest.mark.parametrize("size", ["4", "2"])  # of shards: whole people, and one who fits into none
def test_all_images_of_a_person_get_one_texture(places, size):
    made, expected = fused_textures(places, "--shard-size", size), expected_textures(places)
    assert made.keys() == expected.keys()
    for name, texture in expected.items():
        assert np.array_equal(made[name], texture), name


def test_the_images_with_most_visible_texels_are_fused(places, monkeypatch, capsys):
    monkeypatch.setattr(texture_set, "MOST_FUSED", 2)
    made = fused_textures(places, "--shard-size", "2")
    assert "person 1 has 3 images; the 2 that show most are fused" in capsys.readouterr().err
    assert np.array_equal(made["0000.jpg"], made["0005.jpg"])


def test_a_person_of_several_shards_is_fused_and_reported_once(places, monkeypatch, capsys):
    monkeypatch.setattr(texture_set, "MOST_FUSED", 2)
    generate = command(places, "generate_textures", "written", "--shard-size", "1")
    assert main([*generate, "--fuse", "person"]) == 0
    told = capsys.readouterr().err
    assert told.count("person 1 has 3 images; the 2 that show most are fused") == 1
    assert "6 of its 6 shards are done" in told


def test_fused_textures_need_a_generator_with_visibility(places, capsys):
    settings = tiny_recipe("demo-pg")
    save_network(places / "generator", tiny_model(settings), settings, facts={})
    for step in ("generate_textures", "seal_textures"):
        assert main(command(places, step, "out", "--fuse", "person")) == 1
        assert (
            "fuse 'person' weights textures by the texels that each picture shows"
            in capsys.readouterr().err
        )
