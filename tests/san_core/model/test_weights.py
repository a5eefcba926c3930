import errno
import hashlib
import json
import os
import re
from urllib.error import URLError

import pytest
import safetensors.torch
import torch
import torchvision

from san_core.model import saved as files
from san_core.model import weights
from san_core.model.san import build_network
from san_core.recipe import Recipe, recipe_with_overrides
from san_core.recipes import get_recipe
from san_core.shipped.generator import SHIPPED_FOLDER
from tests.san_core.training.tiny_run import tiny_model, tiny_recipe

SETTINGS = tiny_recipe()
NAMES = (files.WEIGHTS_FILE, files.RECIPE_FILE)


@pytest.fixture
def saved(tmp_path):
    weights.save_network(
        tmp_path / "model", tiny_model(SETTINGS), SETTINGS, facts={"atlas": "a", "seed": 3}
    )
    return tmp_path / "model"


def test_a_saved_network_is_loaded_whole(saved):
    loaded = weights.load_network(saved)
    assert loaded.recipe == SETTINGS
    assert loaded.facts == {"atlas": "a", "seed": 3, "num_classes": 8}
    assert not loaded.model.training
    expected = tiny_model(SETTINGS).state_dict()
    assert all(torch.equal(expected[n], t) for n, t in loaded.model.state_dict().items())


def test_equal_networks_give_equal_bytes(saved, tmp_path):
    model = tiny_model(SETTINGS).to(memory_format=torch.channels_last)
    weights.save_network(tmp_path / "again", model, SETTINGS, facts={"seed": 3, "atlas": "a"})
    for name in (files.WEIGHTS_FILE, files.RECIPE_FILE):
        assert (saved / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_the_fingerprint_is_the_sha256_of_the_weights(saved):
    expected = hashlib.sha256((saved / "weights.safetensors").read_bytes()).hexdigest()
    assert files.fingerprint(saved) == expected


@pytest.mark.parametrize("name", ["weights.safetensors", "recipe.json"])
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"holds no model: {name} is missing"):
        weights.load_network(saved)


def test_a_directory_without_weights_has_no_fingerprint(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no model: weights.safetensors is missing"):
        files.fingerprint(tmp_path)


def test_truncated_weights_are_refused(saved):
    path = saved / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"weights.safetensors: not a complete safetensors file"):
        weights.load_network(saved)


def test_files_are_compared_with_the_sums_beside_them(saved):
    lines = [f"{files.fingerprint(saved, name)}  {name}\n" for name in NAMES]
    (saved / files.SUMS_FILE).write_text("".join(lines))
    assert weights.load_network(saved).recipe == SETTINGS
    recipe = (saved / files.RECIPE_FILE).read_text()
    (saved / files.RECIPE_FILE).write_text(recipe.replace('"seed": 3', '"seed": 4'))
    with pytest.raises(ValueError, match=r"recipe\.json is damaged: its sha256 is not that of SHA"):
        weights.load_network(saved)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0123  weights.safetensors\n", r"SHA256SUMS: '0123  weights.*' is not the sha256 of a"),
        (f"{'0' * 64}  ../recipe.json\n", r"SHA256SUMS: '0{64}  \.\./.*' is not the sha256 of a"),
        (f"{'0' * 64}  history.jsonl\n", r"SHA256SUMS has no sha256 of recipe\.json"),
        ("", r"SHA256SUMS has no sha256 of recipe\.json"),
    ],
)
def test_sums_that_are_none_are_refused(saved, text, message):
    (saved / files.SUMS_FILE).write_text(text)
    with pytest.raises(ValueError, match=message):
        files.read_description(saved)


def test_the_sums_of_all_files_are_written(saved):
    (saved / "history.jsonl").write_text("{}\n")
    files.write_sums(saved)
    names = [line.split("  ")[1] for line in (saved / files.SUMS_FILE).read_text().splitlines()]
    assert names == ["history.jsonl", "recipe.json", "weights.safetensors"]
    assert weights.load_network(saved).recipe == SETTINGS


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.full((16,), float("nan")), "encoder.bn1.weight has values that are not finite"),
        (torch.ones(16, dtype=torch.float64), "bn1.weight is torch.float64, must be torch.float3"),
        (torch.ones(16, dtype=torch.bfloat16), "bn1.weight is torch.bfloat16, must be torch.floa"),
        (torch.ones(16, dtype=torch.int32), "encoder.bn1.weight is torch.int32, must be torch.fl"),
    ],
)
def test_weights_of_another_kind_are_refused(saved, value, message):
    path = saved / "weights.safetensors"
    tensors = safetensors.torch.load_file(path)
    safetensors.torch.save_file({**tensors, "encoder.bn1.weight": value}, path)
    with pytest.raises(ValueError, match=message):
        weights.load_network(saved)


def test_half_floats_are_read_as_what_they_are(saved):
    path = saved / "weights.safetensors"
    tensors = safetensors.torch.load_file(path)
    half = tensors["encoder.bn1.weight"].half()
    safetensors.torch.save_file({**tensors, "encoder.bn1.weight": half}, path)
    read = weights.load_network(saved).model.state_dict()["encoder.bn1.weight"]
    assert read.dtype == torch.float32
    assert torch.equal(read, half.float())


def test_a_classifier_of_more_people_than_there_are_weights_is_never_made(saved):
    path = saved / "recipe.json"
    document = json.loads(path.read_text())
    document["facts"]["num_classes"] = 9_000_000
    path.write_text(json.dumps(document))
    with pytest.raises(
        ValueError,
        match=r"classifier has \d+ identities, but recipe.json says "
        r"9000000",
    ):
        weights.load_network(saved)


def test_weights_are_for_whoever_may_read_what_is_beside_them(saved):
    modes = {file.stat().st_mode for file in saved.iterdir()}
    assert len(modes) == 1


def test_a_disk_without_room_for_weights_is_named(saved, tmp_path, monkeypatch):
    def no_room(*_arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    model = weights.load_network(saved).model
    monkeypatch.setattr(os, "posix_fallocate", no_room)
    with pytest.raises(OSError, match=r"no space left \(needs \d+\.\d MB, has [\d,.]+ MB\).*weigh"):
        weights.save_network(tmp_path / "full", model, SETTINGS, facts={})


def test_tensors_that_do_not_fit_are_listed(saved):
    path = saved / "weights.safetensors"
    tensors = safetensors.torch.load_file(path)
    tensors["extra"] = tensors.pop("classifier.bias")
    tensors["encoder.bn1.weight"] = torch.ones(3)
    safetensors.torch.save_file(tensors, path)
    message = (
        "3 tensors do not fit: classifier.bias is missing; extra does not belong to this network; "
        "encoder.bn1.weight is (3,), must be (16,)"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        weights.load_network(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2, this version reads 1"),
        ({"recipe": {"lrr": 1}}, "recipe has unknown fields lrr"),
        ({"recipe": 5}, "recipe.json: recipe is 5; it must be an object"),
        ({"facts": {}}, "recipe.json: facts has no num_classes"),
        ({"facts": {"num_classes": "8"}}, "facts.num_classes is '8'; it must be a whole number"),
        ({"facts": {"num_classes": 10**12}}, "facts.num_classes is 10{12}; .* 0 to 10,000,000"),
        ({"facts": 3}, "recipe.json: facts is 3; it must be an object"),
    ],
)
def test_a_damaged_recipe_file_is_named(saved, change, message):
    path = saved / "recipe.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=message):
        weights.load_network(saved)


def test_a_recipe_file_larger_than_memory_is_not_read(saved):
    (saved / "SHA256SUMS").unlink(missing_ok=True)
    os.truncate(saved / "recipe.json", 1 << 42)
    with pytest.raises(ValueError, match=r"recipe\.json has 67,108,865 bytes; at most"):
        weights.load_network(saved)


RESNET18 = Recipe(arch="resnet18", texture_size=64, image_height=64, image_width=32)


def imagenet_like(arch="resnet18"):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return torchvision.models.get_model(arch, weights=None).state_dict()


# torchvision's first files, such as resnet50-19c8e357.pth, count no batches.
@pytest.mark.parametrize("without", ["nothing", "num_batches_tracked"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_torchvision_file_fills_the_trunk_and_nothing_else(tmp_path, suffix, without):
    path = tmp_path / f"resnet18{suffix}"
    tensors = {n: t for n, t in imagenet_like().items() if not n.endswith(without)}
    if suffix == ".pth":
        torch.save(tensors, path)
    else:
        safetensors.torch.save_file(tensors, path)
    model = build_network(RESNET18, num_classes=3, seed=0)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    weights.load_pretrained(model, str(path))
    after = model.state_dict()
    trunk = {f"encoder.{n}" for n in tensors if not n.startswith("fc.")}
    assert all(torch.equal(after[n], tensors[n.removeprefix("encoder.")]) for n in trunk)
    assert all(torch.equal(after[n], before[n]) for n in after if n not in trunk)


def test_without_internet_the_field_that_takes_a_file_is_named(monkeypatch):
    def fetch(*_, **__):
        raise URLError("Name or service not known")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    model = build_network(RESNET18, num_classes=3, seed=0)
    message = (
        r"the ImageNet weights of resnet18 cannot be fetched from https://download\.pytorch\.org/.*"
        r"\.pth \(.*Name or service not known.*pretrained takes the file instead: pretrained=FILE"
    )
    with pytest.raises(ConnectionError, match=message):
        weights.load_pretrained(model, "imagenet")


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_imagenet_means_torchvisions_first_weights_with_their_hash_checked(monkeypatch, arch):
    asked, published = [], torchvision.models.get_model_weights(arch)

    def fake(self, *args, **kwargs):
        asked.append((self, kwargs))
        return imagenet_like(arch)

    monkeypatch.setattr(published, "get_state_dict", fake)
    settings = recipe_with_overrides(RESNET18, f"arch={arch} w_rec=0")
    model = build_network(settings, num_classes=3, seed=0)
    weights.load_pretrained(model, "imagenet")
    assert [weight for weight, _ in asked] == [published.IMAGENET1K_V1]
    assert asked[0][1]["check_hash"] is True
    expected = imagenet_like(arch)["conv1.weight"]
    assert torch.equal(model.state_dict()["encoder.conv1.weight"], expected)


def test_a_file_that_lacks_weights_is_refused(tmp_path):
    tensors = imagenet_like()
    del tensors["bn1.running_mean"]
    torch.save(tensors, tmp_path / "r18.pth")
    model = build_network(RESNET18, num_classes=3, seed=0)
    with pytest.raises(ValueError, match=r"1 tensors do not fit: bn1.running_mean is missing"):
        weights.load_pretrained(model, str(tmp_path / "r18.pth"))


def test_pretrained_weights_of_another_architecture_are_refused(tmp_path):
    torch.save(imagenet_like(), tmp_path / "r18.pth")
    model = build_network(recipe_with_overrides(RESNET18, "arch=resnet34"), num_classes=3, seed=0)
    with pytest.raises(ValueError, match=r"r18.pth: \d+ tensors do not fit: layer1.2.conv1.weight"):
        weights.load_pretrained(model, str(tmp_path / "r18.pth"))


def test_pretrained_files_that_are_none_are_named(tmp_path):
    model = build_network(RESNET18, num_classes=3, seed=0)
    with pytest.raises(FileNotFoundError, match=r"pretrained weights .*none.pth do not exist"):
        weights.load_pretrained(model, str(tmp_path / "none.pth"))
    (tmp_path / "a.bin").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"a.bin: must be a .pth, .pt, .pth.tar or .saf"):
        weights.load_pretrained(model, str(tmp_path / "a.bin"))
    (tmp_path / "b.pth").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"b.pth cannot be read"):
        weights.load_pretrained(model, str(tmp_path / "b.pth"))
    torch.save([1, 2], tmp_path / "c.pth")
    with pytest.raises(ValueError, match=r"c.pth: must be a state dict, names to tensors"):
        weights.load_pretrained(model, str(tmp_path / "c.pth"))


def loaded(settings):
    return weights.LoadedNetwork(tiny_model(settings, seed=9), settings, {})


def test_san_starts_from_its_generator():
    model, generator = tiny_model(SETTINGS), loaded(tiny_recipe("demo-pg"))
    first = {n: t.clone() for n, t in model.state_dict().items()}
    own = weights.start_from_generator(model, generator, recipe=SETTINGS)
    assert {n.rsplit(".", 1)[0] for n in own} == {
        "encoder.head.0",
        "encoder.head.1",
        "classifier",
    }
    theirs = generator.model.state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, first[name] if name in own else theirs[name])


@pytest.mark.parametrize("name", ["demo", "demo-baseline"])
def test_a_network_with_another_decoder_or_none_starts_from_the_generators_encoder(name):
    settings = tiny_recipe(name, "init=encoder decoder_plan=light")
    model, generator = tiny_model(settings), loaded(tiny_recipe("demo-pg"))
    first = {n: t.clone() for n, t in model.state_dict().items()}
    own = weights.start_from_generator(model, generator, recipe=settings)
    assert {n.split(".")[0] for n in own} - {"decoder"} == {"encoder", "classifier"}
    theirs = generator.model.state_dict()
    for name, value in model.state_dict().items():
        taken = name.startswith("encoder.") and not name.startswith("encoder.head.")
        assert (name not in own) == taken
        assert torch.equal(value, theirs[name] if taken else first[name])


def test_an_encoder_of_another_architecture_is_refused():
    settings = tiny_recipe("demo-baseline", "init=encoder")
    other = loaded(tiny_recipe("demo-pg", "arch=resnet18"))
    message = "another architecture: arch 'resnet18' there, 'resnet10_quarter' here"
    with pytest.raises(ValueError, match=message):
        weights.start_from_generator(tiny_model(settings), other, recipe=settings)


def test_an_encoder_starts_one_of_another_last_stride():
    settings = tiny_recipe("demo-baseline", "init=encoder last_stride=2 image_height=64")
    model, generator = tiny_model(settings), loaded(tiny_recipe("demo-pg"))
    weights.start_from_generator(model, generator, recipe=settings)
    theirs = generator.model.encoder.state_dict()
    mine = model.encoder.state_dict()
    assert all(torch.equal(mine[n], theirs[n]) for n in mine if not n.startswith("head."))


def test_a_generator_of_another_architecture_is_refused():
    generator = loaded(tiny_recipe("demo-pg", "decoder_width=0.5 skips=false"))
    message = "another architecture: skips False there, True here; decoder_width 0.5 there, 1.0 h"
    with pytest.raises(ValueError, match=message):
        weights.start_from_generator(tiny_model(SETTINGS), generator, recipe=SETTINGS)


def test_a_baseline_is_no_generator():
    generator = loaded(tiny_recipe("demo-baseline"))
    with pytest.raises(ValueError, match="the generator has no decoder"):
        weights.start_from_generator(tiny_model(SETTINGS), generator, recipe=SETTINGS)


def test_large_seeds_give_different_networks():
    seeds = (0, 1, 2**32, 2**40 + 1, 2**63 - 1)
    first = [build_network(RESNET18, num_classes=2, seed=n).encoder for n in seeds]
    weights = {next(encoder.parameters()).detach().numpy().tobytes() for encoder in first}
    assert len(weights) == 4  # 2**32 is folded upon 1


@pytest.mark.parametrize("name", ["small", "small-baseline"])
def test_the_generator_that_ships_is_a_start_for_small_recipes(name):
    settings = get_recipe(name)
    model = build_network(settings, num_classes=5, seed=1)
    generator = weights.load_network(SHIPPED_FOLDER)
    own = weights.start_from_generator(model, generator, recipe=settings)
    assert not any(tensor.startswith("encoder.layer") for tensor in own)
    assert torch.equal(model.encoder.conv1.weight, generator.model.encoder.conv1.weight)
