"""Every step, run as `python -m components STEP ...` would run it, on a tiny data set."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from components.__main__ import main
from san_core.images.imageset import ImageSet, read_manifest, write_imageset
from san_core.images.pixels import decode, encode_png
from san_core.synthesis.mannequin import texture_strip
from san_core.synthesis.person.atlas import ATLAS_NAME
from tests.tiny import STEPS, file_contents, step_command, with_flags, with_outputs_in


def test_pit_pairs_every_picture_with_a_texture(tiny):
    images = ImageSet.open(Path(tiny.pit, "images"))
    textures = ImageSet.open(Path(tiny.pit, "textures"))
    assert len(images.records) == 6 * 3
    assert {r.fields["texture"] for r in images.records} == {r.name for r in textures.records}
    assert decode(textures.read(textures.records[0])).shape == (32, 32, 3)
    of_split = {
        s: {r.pid for r in images.records if r.split == s} for s in images.manifest["splits"]
    }
    assert not of_split["train"] & of_split["val"]


def test_pairs_are_drawn_side_by_side(tiny):
    sheet = decode(Path(tiny.pit, "images", "preview", "pairs.png").read_bytes())
    images = ImageSet.open(Path(tiny.pit, "images"))
    textures = ImageSet.open(Path(tiny.pit, "textures"))
    # 18 pairs, four a row: picture, texture, and two bodies that wear it, with a label under them
    assert sheet.shape == (5 * (130 + 12) + 2, 4 * (326 + 2) + 2, 3)
    texture = {r.name: r for r in textures.records}[images.records[5].fields["texture"]]
    picture = decode(images.read(images.records[5]))
    painted = decode(textures.read(texture))
    cell = sheet[144 : 144 + 128, 330 : 330 + 326]  # the second row's second
    assert (cell == texture_strip(picture, painted, atlas=ATLAS_NAME)).all()
    assert (sheet[144 + 128 : 144 + 140, 330 : 330 + 326] < 128).any()


def test_reid_set_keeps_test_people_apart(tiny):
    images = ImageSet.open(Path(tiny.reid))
    people = {
        s: {r.pid for r in images.records_in_splits(s)} for s in ("train", "query", "gallery")
    }
    assert (len(people["train"]), len(people["query"]), len(people["gallery"])) == (6, 3, 3)
    assert people["query"] == people["gallery"]
    assert not people["train"] & people["query"]
    assert min(people["train"]) >= 1  # 0 and -1 are distractors and junk


@pytest.mark.parametrize(("step", "made"), [("prepare_reid", "reid"), ("make_pit", "pit")])
def test_two_processes_make_the_people_that_one_makes(tiny, tmp_path, monkeypatch, step, made):
    monkeypatch.setattr("components.process.machine.core_count", lambda: 2)
    assert main(with_outputs_in(step_command(step, tiny), tmp_path)) == 0
    assert file_contents(tmp_path / made) == file_contents(Path(tiny.root, made))


def test_generator_reports_its_psnr_and_that_of_the_mean_texture(tiny):
    report = json.loads(Path(tiny.generator, "report.json").read_bytes())
    assert report["held_out_images"] == 3  # one of six identities, three pictures
    images = ImageSet.open(Path(tiny.pit, "images"))
    textures = ImageSet.open(Path(tiny.pit, "textures"))
    stack = {r.name: decode(textures.read(r)).astype(float) for r in textures.records}
    train = [stack[r.name] for r in textures.records_in_splits("train")]
    true = [stack[r.fields["texture"]] for r in images.records_in_splits("val")]
    mse = np.mean([(np.rint(np.mean(train, axis=0)) - t) ** 2 for t in true])
    assert report["psnr_of_mean_texture"] == pytest.approx(10 * np.log10(255**2 / mse), abs=1e-6)
    assert 5 < report["psnr"] < 40


def test_every_training_image_has_its_texture(tiny):
    sealed = read_manifest(Path(tiny.textures))
    textures = ImageSet.open(Path(sealed["uri"].removeprefix("file://")))
    people = ImageSet.open(Path(tiny.reid)).records_in_splits("train")
    assert [r.fields["image"] for r in textures.records] == [r.name for r in people]
    assert [r.pid for r in textures.records] == [r.pid for r in people]
    assert decode(textures.read(textures.records[0])).shape == (32, 32, 3)
    assert sealed["count"] == len(people) == 24
    assert len(sealed["shards"]) == 3


def test_features_are_those_of_query_and_gallery(tiny):
    features = np.load(Path(tiny.features, "features.npy"))
    people = ImageSet.open(Path(tiny.reid)).records_in_splits("query", "gallery")
    lines = Path(tiny.features, "index.csv").read_text().splitlines()
    assert features.shape == (len(people), 128)
    assert features.dtype == np.float32
    assert [line.split(",")[0] for line in lines[1:]] == [r.name for r in people]


def test_report_holds_scores_and_references_as_fractions(tiny):
    report = json.loads(Path(tiny.report, "report.json").read_bytes())
    assert set(report["references"]) == {"untrained encoder", "colour histogram"}
    for scores in (report, *report["references"].values()):
        assert all(0 <= scores[name] <= 1 for name in ("rank1", "rank5", "rank10", "mAP", "mINP"))
    assert (report["num_query"], report["num_gallery"], report["num_identities"]) == (6, 6, 3)
    assert json.loads(Path(tiny.root, "evaluate.json").read_bytes())["mAP"] == report["mAP"]


def test_lists_of_all_queries_lie_beside_the_report(tiny):
    assert file_contents(Path(tiny.report)).keys() == {"report.json", "ranked.csv", "queries.csv"}
    rows = Path(tiny.report, "ranked.csv").read_text().splitlines()
    # Each of the 6 queries has 6 gallery images but for the one of its own person and camera.
    assert len(rows) == 1 + 6 * 5
    page = Path(tiny.root, "evaluate.html").read_text()
    assert (
        "demo with identities_per_batch=4 images_per_identity=2 epochs=3 warmup_epochs=1</td>"
        in page
    )


def test_evaluation_follows_several_protocols_and_reranks(tiny, tmp_path, capsys):
    command = with_outputs_in(step_command("evaluate", tiny), tmp_path)
    protocols = "camera-free,multi-query,single-gallery-shot,market1501"
    assert main(with_flags(command, protocol=protocols, rerank="true")) == 0
    assert "multi-query: the data set has no images of split multi" in capsys.readouterr().err
    report = json.loads((tmp_path / "report" / "report.json").read_bytes())
    assert report["protocol"] == "camera-free"
    others = ["multi-query", "single-gallery-shot", "market1501"]
    assert [(p["protocol"], p["reranked"]) for p in report["protocols"]] == [
        *((name, False) for name in others),
        *((name, True) for name in ["camera-free", *others]),
    ]
    assert report["protocols"][1]["leaves_out_as"] == "market1501"
    usual = json.loads(Path(tiny.report, "report.json").read_bytes())
    market = report["protocols"][2]
    assert (market["rank1"], market["mAP"]) == (usual["rank1"], usual["mAP"])
    assert report["camera_pairs"]
    assert set(report["roc"]["tpr_at_fpr"]) == {"0.0001", "0.001", "0.01", "0.1"}
    scores = json.loads((tmp_path / "scores").read_bytes())
    assert scores["mAP_multi_query"] == report["protocols"][0]["mAP"]
    assert (
        scores["mAP_of_draw_single_gallery_shot_reranked"]
        == (report["protocols"][5]["mAP_of_draw"])
    )
    assert "Pairs of cameras" in (tmp_path / "report_page").read_text()


def test_scores_that_are_compared_are_the_models_alone(tiny):
    scores = json.loads(Path(tiny.root, "evaluate.json").read_bytes())
    assert list(scores) == ["rank1", "rank5", "rank10", "mAP", "mINP", "num_skipped"]
    losses = json.loads(Path(tiny.root, "train_san.json").read_bytes())
    told = {"loss": "loss", "loss_identity": "id", "loss_triplet": "tri", "loss_texture": "rec"}
    told["accuracy_identity"] = "accuracy"
    last = json.loads(Path(tiny.model, "history.jsonl").read_text().splitlines()[-1])
    assert losses == {name: last[field] for name, field in told.items()}
    assert list(losses) == list(told)
    generator = json.loads(Path(tiny.root, "train_san_pg.json").read_bytes())
    report = json.loads(Path(tiny.generator, "report.json").read_bytes())
    gain = report["psnr"] - report["psnr_of_mean_texture"]
    assert generator == {"psnr": report["psnr"], "psnr_gain": gain}


def test_roc_has_the_share_of_pairs_that_are_at_least_so_similar(tiny):
    points = json.loads((tiny.root / "roc.json").read_bytes())["confidenceMetrics"]
    assert 2 < len(points) <= 100
    right, wrong = (np.array(pairs) for pairs in _similarities(tiny))
    for point in points:
        threshold = point["confidenceThreshold"]
        # a distance that is at the threshold may be rounded to either side
        slack = 1e-5
        assert (right >= threshold + slack).mean() <= point["recall"]
        assert point["recall"] <= (right >= threshold - slack).mean()
        assert (wrong >= threshold + slack).mean() <= point["falsePositiveRate"]
        assert point["falsePositiveRate"] <= (wrong >= threshold - slack).mean()
    first, last = ((p["falsePositiveRate"], p["recall"]) for p in (points[0], points[-1]))
    assert (first, last) == ((0, 0), (1, 1))


def _similarities(tiny):
    """The cosines of right and of wrong pairs of query and gallery, one by one."""
    rows = np.load(f"{tiny.features}/features.npy").astype(float)
    names = [line.split(",")[0] for line in Path(tiny.features, "index.csv").read_text().split()]
    with ImageSet.open(Path(tiny.reid)) as images:
        known = {record.name: record for record in images.records}
    shown = [(known[name], row) for name, row in zip(names[1:], rows, strict=True)]
    pairs = {True: [], False: []}
    for asked, a in shown:
        for found, b in shown:
            is_own = (asked.pid, asked.camid) == (found.pid, found.camid)
            if (asked.split, found.split) == ("query", "gallery") and not is_own:
                cosine = a @ b / np.sqrt((a @ a) * (b @ b))
                pairs[asked.pid == found.pid].append(cosine)
    return pairs[True], pairs[False]


def test_evaluation_reads_features_from_their_file_as_it_goes(tiny, tmp_path):
    # Rows of queries and gallery lie mixed in the file, and are found by the index.
    copy = tmp_path / "features"
    shutil.copytree(tiny.features, copy)
    head, *lines = (copy / "index.csv").read_text().splitlines()
    shuffled = np.random.default_rng(0).permutation(len(lines))
    (copy / "index.csv").write_text("\n".join([head, *(lines[i] for i in shuffled)]))
    for name in ("features.npy", "untrained.npy"):
        np.save(copy / name, np.load(copy / name)[shuffled])
    _remove_sums(copy)
    command = with_outputs_in(step_command("evaluate", tiny), tmp_path / "out")
    assert main(with_flags(command, features=str(copy))) == 0
    found, usual = (  # means are taken in the order of the rows, so their last digit may differ
        json.loads(
            Path(folder, "report.json").read_bytes(), parse_float=lambda t: round(float(t), 12)
        )
        for folder in (tmp_path / "out" / "report", tiny.report)
    )
    assert found == {**usual, "provenance": found["provenance"]}


def _remove_sums(features):
    """Let features be as older versions wrote them, and as anybody may write them."""
    told = json.loads((features / "features.json").read_bytes())
    del told["sha256"]
    (features / "features.json").write_text(json.dumps(told))


def test_features_without_sums_are_scored_with_a_warning(own_features, capsys):
    assert main(own_features(lambda rows, lines: (rows, lines))) == 0
    assert "features records no sha256 of its files, so damage cannot" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["features.npy", "untrained.npy", "index.csv"])
def test_a_flipped_bit_of_features_is_noticed(tiny, tmp_path, capsys, name):
    copy = shutil.copytree(tiny.features, tmp_path / "features")
    data = bytearray((copy / name).read_bytes())
    data[-3] ^= 1
    (copy / name).write_bytes(data)
    command = with_outputs_in(step_command("evaluate", tiny), tmp_path / "out")
    assert main(with_flags(command, features=str(copy))) == 1
    message = f"{name} is damaged: its sha256 is not that of features.json"
    _check_one_line("evaluate", message, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("step", "artifact"), [("train_san_pg", "generator"), ("train_san", "model")]
)
def test_training_writes_the_sums_of_all_its_files(tiny, step, artifact):
    folder = Path(getattr(tiny, artifact))
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    told = dict(reversed(line.split("  ")) for line in lines)
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    del files["SHA256SUMS"]
    assert told == {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    assert {"recipe.json", "weights.safetensors", "history.jsonl"} <= told.keys()


@pytest.mark.parametrize("has_sums", [True, False])
def test_a_flipped_bit_of_weights_is_noticed_where_there_are_sums(tiny, tmp_path, capsys, has_sums):
    copy = shutil.copytree(tiny.model, tmp_path / "model")
    data = bytearray((copy / "weights.safetensors").read_bytes())
    data[-3] ^= 1
    (copy / "weights.safetensors").write_bytes(data)
    if not has_sums:  # as older versions wrote it
        (copy / "SHA256SUMS").unlink()
    command = with_outputs_in(step_command("extract_features", tiny), tmp_path / "out")
    assert main(with_flags(command, model=str(copy))) == (1 if has_sums else 0)
    said = capsys.readouterr().err
    if has_sums:
        message = "weights.safetensors is damaged: its sha256 is not that of SHA256SUMS"
        _check_one_line("extract_features", message, said)
    else:
        assert said.count("model has no SHA256SUMS, so damage cannot be detected") == 1


@pytest.fixture
def own_features(tiny, tmp_path):
    """Makes a copy of the features, changed: their rows, and the lines of the index."""

    def make(change):
        copy = tmp_path / "features"
        shutil.copytree(tiny.features, copy)
        head, *lines = (copy / "index.csv").read_text().splitlines()
        rows, lines = change(np.load(copy / "features.npy"), lines)
        np.save(copy / "features.npy", rows)
        (copy / "index.csv").write_text("\n".join([head, *lines]))
        _remove_sums(copy)
        command = _without(
            with_outputs_in(step_command("evaluate", tiny), tmp_path / "out"), "--references"
        )
        return with_flags(command, features=str(copy))

    return make


def test_features_of_a_part_of_the_images_are_refused(own_features, capsys):
    # With half of the gallery gone, every score would be better than it is.
    assert main(own_features(lambda rows, lines: (rows[:-3], lines[:-3]))) == 1
    message = "index.csv lacks 3 of the 12 images of splits query, gallery, multi, such as "
    _check_one_line("evaluate", message, capsys.readouterr().err)


def test_image_with_two_rows_of_features_is_refused(own_features, capsys):
    assert main(own_features(lambda rows, lines: (rows[[0, *range(12)]], lines[:1] + lines))) == 1
    err = capsys.readouterr().err
    _check_one_line("evaluate", "index.csv names ", err)
    assert " more than once" in err


@pytest.mark.parametrize("split", ["query", "gallery"])
def test_image_whose_feature_is_not_finite_is_named(own_features, capsys, split):
    named = []

    def spoil(rows, lines):
        row = [i for i, line in enumerate(lines) if split in line.split(",")][2]
        named.append(lines[row].split(",")[0])
        rows[row, 5] = np.nan
        return rows, lines

    assert main(own_features(spoil)) == 1
    message = f"{split} feature 2 is not finite (NaN, infinite, or beyond 1e18); its image is "
    _check_one_line("evaluate", message + named[0], capsys.readouterr().err)


def test_model_that_tells_nobody_apart_is_warned_of(own_features, capsys):
    assert main(own_features(lambda rows, lines: (np.ones_like(rows), lines))) == 0
    assert "all distances are equal to 1 part in 1,024" in capsys.readouterr().err


@pytest.mark.parametrize("protocol", ["sysu-mm01", "market1501,sampled-gallery-shot:sysu-mm01"])
def test_protocol_of_other_cameras_is_refused_before_anything_is_scored(
    tiny, tmp_path, capsys, protocol
):
    assert (
        main(
            with_flags(with_outputs_in(step_command("evaluate", tiny), tmp_path), protocol=protocol)
        )
        == 1
    )
    err = capsys.readouterr().err
    message = "query 0 is by camera 0, but by protocol sysu-mm01 the query is by cameras 2, 5"
    _check_one_line("evaluate", message, err)
    assert "this model" not in err


@pytest.mark.parametrize("step", ["train_san_pg", "train_san", "evaluate"])
def test_page_fetches_nothing(tiny, step):
    page = Path(tiny.root, f"{step}.html").read_text()
    assert page.lower().startswith("<!doctype html>")
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert "<script" not in page


def test_training_again_gives_the_same_bytes(tiny, tmp_path):
    assert main(with_outputs_in(step_command("train_san", tiny), tmp_path)) == 0
    assert file_contents(tmp_path / "model") == file_contents(Path(tiny.model))
    assert (tmp_path / "training_page").read_bytes() == Path(
        tiny.root, "train_san.html"
    ).read_bytes()


def test_two_workers_make_what_one_makes(tiny, tmp_path):
    two = str(tmp_path / "two")
    for worker in ("1/2", "0/2"):
        command = with_outputs_in(step_command("generate_textures", tiny), tmp_path / worker[0])
        assert main(with_flags(command, destination=two, worker=worker)) == 0
    seal = with_outputs_in(step_command("seal_textures", tiny), tmp_path)
    assert main(with_flags(seal, destination=two)) == 0
    assert file_contents(tmp_path / "two") == file_contents(Path(tiny.destination))


def test_shards_that_are_there_are_kept(tiny, tmp_path):
    command = with_outputs_in(step_command("generate_textures", tiny), tmp_path)
    command = with_flags(command, destination=str(tmp_path / "d"))
    assert main(command) == 0
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "d").rglob("*") if p.is_file()}
    gone = next(p for p in before if p.name.startswith("00001-of") and p.suffix == ".tar")
    gone.unlink()
    assert main(command) == 0
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "d").rglob("*") if p.is_file()}
    assert set(after) == set(before)
    assert {p.name[:5] for p in before if before[p] != after[p]} == {"00001"}


def test_retrained_generator_never_meets_old_textures(tiny, tmp_path, capsys):
    retrain = with_outputs_in(step_command("train_san_pg", tiny), tmp_path)
    assert main(with_flags(retrain, seed="1")) == 0
    seal = with_outputs_in(step_command("seal_textures", tiny), tmp_path)
    assert main(with_flags(seal, generator=str(tmp_path / "generator"))) == 1
    assert "3 of 3 shards of textures are missing (0, 1, 2)" in capsys.readouterr().err


def test_damaged_texture_never_reaches_training_and_is_made_again(tiny, tmp_path, capsys):
    destination = str(tmp_path / "d")
    generate = with_outputs_in(step_command("generate_textures", tiny), tmp_path)
    generate = with_flags(generate, destination=destination)
    seal = with_flags(
        with_outputs_in(step_command("seal_textures", tiny), tmp_path), destination=destination
    )
    train = with_outputs_in(step_command("train_san", tiny), tmp_path)
    train = with_flags(train, textures=str(tmp_path / "textures"))
    assert main(generate) == 0
    assert main(seal) == 0
    tar = next((tmp_path / "d").rglob("00002*.tar"))
    data = bytearray(tar.read_bytes())
    data[700] ^= 1
    tar.write_bytes(data)

    assert main(train) == 1
    assert re.search(rf"^train_san: .*{tar.name} is damaged.*image ", capsys.readouterr().err, re.M)
    assert not (tmp_path / "model").exists()
    assert main(with_flags(seal, verify="sha256")) == 1
    assert "1 of 3 shards of textures are missing (2)" in capsys.readouterr().err
    assert main(with_flags(generate, verify="sha256")) == 0
    assert main(with_flags(seal, verify="sha256")) == 0
    assert main(train) == 0
    assert file_contents(tmp_path / "model") == file_contents(Path(tiny.model))


def test_baseline_needs_no_textures(tiny, tmp_path):
    command = _without(with_outputs_in(step_command("train_san", tiny), tmp_path), "--textures")
    assert main(with_flags(command, recipe="demo-baseline")) == 0
    record = json.loads((tmp_path / "model" / "history.jsonl").read_text().splitlines()[-1])
    assert set(record) == {"epoch", "loss", "id", "tri", "lr", "accuracy"}


def _without(command, flag):
    at = command.index(flag)
    return command[:at] + command[at + 2 :]


def test_training_can_start_from_the_generator(tiny, tmp_path):
    still = "init=generator lr=1e-12 decoder_lr=1e-12 weight_decay=0 epochs=1 warmup_epochs=0"
    still += " identities_per_batch=4 images_per_identity=2"
    command = with_outputs_in(step_command("train_san", tiny), tmp_path)
    assert main(with_flags(command, generator=tiny.generator, overrides=still)) == 0
    trained = load_file(tmp_path / "model" / "weights.safetensors")
    started = load_file(Path(tiny.generator, "weights.safetensors"))
    compared = [n for n in trained if n.startswith("decoder.") and n.endswith("weight")]
    assert len(compared) > 5
    for name in compared:
        assert torch.allclose(trained[name], started[name], atol=1e-9), name


def test_training_can_learn_the_features_of_the_generator(tiny, tmp_path):
    words = "init=none w_rec=0 w_distill=1 epochs=1 warmup_epochs=0"
    words += " identities_per_batch=4 images_per_identity=2"
    command = _without(with_outputs_in(step_command("train_san", tiny), tmp_path), "--textures")
    assert main(with_flags(command, generator=tiny.generator, overrides=words)) == 0
    (record,) = (tmp_path / "model" / "history.jsonl").read_text().splitlines()
    assert json.loads(record)["distill"] > 0


def test_training_does_not_start_from_a_reid_network(tiny, tmp_path, capsys):
    command = with_outputs_in(step_command("train_san", tiny), tmp_path)
    assert main(with_flags(command, generator=tiny.model, overrides="init=encoder")) == 1
    message = f"{tiny.model} is not a texture generator; train_san_pg makes one"
    _check_one_line("train_san", message, capsys.readouterr().err)


# Ready-made textures


@pytest.fixture
def folder_of_textures(tiny, texture, tmp_path):
    """A texture for every training image, in a folder of another origin."""
    folder = tmp_path / "ready"
    folder.mkdir()
    for i, record in enumerate(ImageSet.open(Path(tiny.reid)).records_in_splits("train")):
        (folder / f"{Path(record.name).stem}.png").write_bytes(texture(i))
    return folder


def _seal_folder(tiny, folder, tmp_path):
    return [
        *("seal_textures", "--dataset", tiny.reid, "--source", str(folder)),
        *("--textures", str(tmp_path / "textures"), "--destination", str(tmp_path / "d")),
    ]


def test_folder_of_textures_is_matched_by_name(tiny, folder_of_textures, texture, tmp_path):
    assert main(_seal_folder(tiny, folder_of_textures, tmp_path)) == 0
    (place,) = (tmp_path / "d").iterdir()
    textures = ImageSet.open(place)
    people = ImageSet.open(Path(tiny.reid)).records_in_splits("train")
    assert [r.fields["image"] for r in textures.records] == [r.name for r in people]
    for i, record in enumerate(textures.records):
        assert np.array_equal(decode(textures.read(record)), decode(texture(i)))
    (sheet,) = (decode(file.read_bytes()) for file in (place / "preview").iterdir())
    # Two rows of pictures, or more, each beside a texture whose layout is not known
    assert sheet.shape[0] > 128
    assert (sheet.shape[1] - 2) % 4 == 0
    assert sheet.std() > 5


def test_layout_of_ready_made_textures_is_told_by_hand(tiny, folder_of_textures, tmp_path, capsys):
    assert main(_seal_folder(tiny, folder_of_textures, tmp_path)) == 0
    first = read_manifest(tmp_path / "textures")
    assert main([*_seal_folder(tiny, folder_of_textures, tmp_path), "--atlas", ATLAS_NAME]) == 0
    again = read_manifest(tmp_path / "textures")
    assert [m["provenance"]["atlas"] for m in (first, again)] == [None, ATLAS_NAME]
    assert first["uri"] != again["uri"]  # the sealed set of others stays what it was
    capsys.readouterr()
    generated = with_outputs_in(step_command("seal_textures", tiny), tmp_path / "generated")
    assert main([*generated, "--atlas", ATLAS_NAME]) == 1
    assert "--atlas san-atlas-1 needs --source" in capsys.readouterr().err


def test_missing_textures_are_counted_and_named(tiny, folder_of_textures, tmp_path, capsys):
    first = min(folder_of_textures.iterdir())
    first.unlink()
    assert main(_seal_folder(tiny, folder_of_textures, tmp_path)) == 1
    assert f"1 of 24 images have no texture: {first.stem}." in capsys.readouterr().err


def test_textures_of_two_sizes_are_refused(tiny, folder_of_textures, picture, tmp_path, capsys):
    first = min(folder_of_textures.iterdir())
    first.write_bytes(encode_png(picture(1, 32, 32)))
    assert main(_seal_folder(tiny, folder_of_textures, tmp_path)) == 1
    message = f"must be of one size; most are 16x16, but 32x32: {first.name}\n"
    assert message in capsys.readouterr().err


def test_textures_that_are_not_square_are_refused(
    tiny, folder_of_textures, picture, tmp_path, capsys
):
    for path in folder_of_textures.iterdir():
        path.write_bytes(encode_png(picture(1, 16, 32)))
    assert main(_seal_folder(tiny, folder_of_textures, tmp_path)) == 1
    assert "textures must be square, and these are 32x16" in capsys.readouterr().err


def test_two_images_do_not_share_a_texture(tmp_path, items, texture, capsys):
    pictures = [item._replace(name=f"day{i}/x.jpg") for i, item in enumerate(items(2))]
    write_imageset(tmp_path / "reid", pictures, total=2, provenance={})
    (tmp_path / "ready").mkdir()
    (tmp_path / "ready" / "x.png").write_bytes(texture(0))
    seal = ["seal_textures", "--dataset", f"{tmp_path}/reid", "--source", f"{tmp_path}/ready"]
    seal += ["--textures", f"{tmp_path}/textures", "--destination", f"{tmp_path}/d"]
    assert main(seal) == 1
    message = "x.png would be the texture of both day0/x.jpg and day1/x.jpg"
    assert message in capsys.readouterr().err
    (tmp_path / "ready" / "x.png").unlink()
    for i in range(2):
        (tmp_path / "ready" / f"day{i}").mkdir()
        (tmp_path / "ready" / f"day{i}" / "x.png").write_bytes(texture(i))
    assert main(seal) == 0  # matched by their paths
    with ImageSet.open(next((tmp_path / "d").iterdir())) as made:
        for i, record in enumerate(made.records):
            assert np.array_equal(decode(made.read(record)), decode(texture(i)))


def test_two_ready_textures_of_one_image_are_refused(tmp_path, items, texture, capsys):
    write_imageset(tmp_path / "reid", items(1), provenance={})
    (tmp_path / "ready").mkdir()
    (tmp_path / "ready" / "0000.png").write_bytes(texture(0))
    (tmp_path / "ready" / "0000.jpg").write_bytes(texture(1))
    seal = ["seal_textures", "--dataset", f"{tmp_path}/reid", "--source", f"{tmp_path}/ready"]
    seal += ["--textures", f"{tmp_path}/textures", "--destination", f"{tmp_path}/d"]
    assert main(seal) == 1
    assert "0000.jpg and 0000.png have the same name" in capsys.readouterr().err


def test_images_are_embedded_as_they_are_read(tiny, tmp_path, monkeypatch):
    """No picture is kept on disk, decoded, and the features are the same."""

    def refuse(*_, **__):
        raise AssertionError("decoded pictures were written")

    monkeypatch.setattr("san_core.data.batches.cache._write_cache", refuse)
    assert main(with_outputs_in(step_command("extract_features", tiny), tmp_path)) == 0
    assert file_contents(tmp_path / "features") == file_contents(Path(tiny.features))


def test_features_of_mirrored_images_count_as_the_recipe_or_the_caller_says(tiny, tmp_path):
    copy = shutil.copytree(tiny.model, tmp_path / "model")
    told = json.loads((copy / "recipe.json").read_text())
    told["recipe"]["mirrored"] = True
    (copy / "recipe.json").write_text(json.dumps(told))
    (copy / "SHA256SUMS").unlink()  # which are of the other recipe
    found = {}
    for model, word in ((tiny.model, "auto"), (tiny.model, "true"), (copy, "auto")):
        folder = tmp_path / f"{Path(model).parent.name}-{word}"
        command = with_outputs_in(step_command("extract_features", tiny), folder)
        assert main(with_flags(command, model=str(model), mirrored=word)) == 0
        about = json.loads((folder / "features" / "features.json").read_text())
        rows = {
            n: (folder / "features" / f"{n}.npy").read_bytes() for n in ("features", "untrained")
        }
        found[model, word] = (about["mirrored"], rows)
    once, twice, by_recipe = found.values()
    assert (once[0], twice[0], by_recipe[0]) == (False, True, True)
    assert by_recipe[1] == twice[1]
    assert all(once[1][name] != twice[1][name] for name in once[1])


def test_an_unknown_way_of_mirroring_is_refused(tiny, tmp_path, capsys):
    command = with_outputs_in(step_command("extract_features", tiny), tmp_path)
    assert main(with_flags(command, mirrored="yes")) == 1
    message = "mirrored 'yes' is not one of auto, true, false"
    _check_one_line("extract_features", message, capsys.readouterr().err)


def test_many_missing_textures_are_all_listed(tiny, folder_of_textures, tmp_path, capsys):
    gone = sorted(folder_of_textures.iterdir())[:12]
    for path in gone:
        path.unlink()
    assert main(_seal_folder(tiny, folder_of_textures, tmp_path)) == 1
    err = capsys.readouterr().err
    assert "12 of 24 images have no texture: " in err
    assert "and 2 more, listed above" in err
    assert all(f"{path.stem}.jpg" in err for path in gone)


def test_flipped_images_learn_no_texture_where_the_atlas_is_unknown(
    tiny, folder_of_textures, tmp_path
):
    assert main(_seal_folder(tiny, folder_of_textures, tmp_path)) == 0
    overrides = "texture_size=16 flip=1 epochs=1 warmup_epochs=0"
    overrides += " identities_per_batch=4 images_per_identity=2"
    command = with_outputs_in(step_command("train_san", tiny), tmp_path)
    command = with_flags(command, textures=str(tmp_path / "textures"), overrides=overrides)
    assert main(command) == 0
    record = json.loads((tmp_path / "model" / "history.jsonl").read_text())
    assert record["rec"] == 0  # every image is flipped, none has a texture to be compared with


# Wrong input: one clear line, and the exit status that belongs to it


@pytest.mark.parametrize("step", STEPS)
def test_missing_required_argument_is_a_usage_error(step, capsys):
    assert main([step]) == 2
    assert "the following arguments are required: --" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("", "argument --pit: a place is needed"),
        ("ftp://x/y", "argument --pit: 'ftp://x/y' is neither a folder nor"),
    ],
)
def test_artifact_in_an_impossible_place_is_a_usage_error(place, message, capsys):
    assert main(["make_pit", "--pit", place]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("step", "flag", "value", "message"),
    [
        ("make_pit", "--textures", "0", "textures is 0; it must be at least 2"),
        ("make_pit", "--texture-size", "48", "texture size 48 does not divide 256"),
        ("make_pit", "--image-height", "8", "image size 8x4 is too small"),
        (
            "prepare_reid",
            "--dataset",
            "nope",
            "no data set 'nope'; there are synthetic, market1501",
        ),
        ("prepare_reid", "--dataset", "market1501", "dataset market1501 needs --source"),
        ("prepare_reid", "--difficulty", "absurd", "no difficulty 'absurd'; there are: easy"),
        ("train_san_pg", "--pit", "/nowhere", "/nowhere/textures has no manifest.json"),
        ("train_san_pg", "--recipe", "nope", "no recipe 'nope'; there are"),
        (
            "train_san_pg",
            "--recipe",
            "cuhk03",
            "recipe 'cuhk03' does not train a texture generator",
        ),
        ("train_san_pg", "--overrides", "lrr=1", "no recipe field 'lrr'; did you mean 'lr'?"),
        ("generate_textures", "--worker", "2/2", "worker '2/2' is not i/n"),
        ("generate_textures", "--generator", "/nowhere", "/nowhere holds no model"),
        ("generate_textures", "--generator", "{model}", "is not a texture generator; train_san_pg"),
        ("generate_textures", "--destination", "ftp://x/y", "is neither a folder nor a file:///"),
        ("generate_textures", "--split", "val", "has no images in split val; it has gallery,"),
        ("generate_textures", "--shard-size", "1001", "a shard holds 1 to 1000 images, not 1001"),
        ("generate_textures", "--precision", "bfloat16", "needs a GPU"),
        ("seal_textures", "--source", "/nowhere", "give either a generator or a source"),
        ("seal_textures", "--generator", "{model}", "is not a texture generator; train_san_pg"),
        ("seal_textures", "--destination", "{tmp}/none", "3 of 3 shards of textures are missing"),
        ("train_san", "--dataset", "/nowhere", "/nowhere has no manifest.json"),
        (
            "train_san",
            "--recipe",
            "demo-pg",
            "has no identity losses; it is a recipe for",
        ),
        ("train_san", "--overrides", "epochs=3 init=generator", "starts from a generator"),
        ("train_san", "--overrides", "epochs=3 w_distill=1", "distils a generator's features"),
        (
            "train_san",
            "--overrides",
            "epochs=3 identities_per_batch=2 texture_size=24",
            "texture_size 24 cannot be re",
        ),
        ("train_san", "--overrides", "epochs=3 identities_per_batch=7", "there are 6 identities"),
        ("extract_features", "--model", "/nowhere", "/nowhere holds no model"),
        ("evaluate", "--features", "/nowhere", "/nowhere holds no features"),
        ("evaluate", "--protocol", "market", "no protocol 'market'; there are auto, market1501"),
        ("evaluate", "--protocol", "auto,auto", "protocol market1501 is given twice"),
        ("evaluate", "--dataset", "{pit}/images", "holds features of another data set than "),
        ("prepare_reid", "--identities", "5", "identities is 5: at least 6 are needed, 2 of them"),
        ("extract_features", "--model", "{tmp}/../nowhere", "holds no model"),
        ("make_pit", "--pit", "/", "is not a name for an output"),
        ("prepare_reid", "--dataset", "images", "dataset images needs --source"),
        ("generate_textures", "--limit", "-1", "limit -1 is negative; 0 makes all shards"),
        ("generate_textures", "--verify", "md5", "verify 'md5' is none of none, size, sha256"),
        ("generate_textures", "--worker", "/2", "reads its number from JOB_COMPLETION_INDEX"),
        ("seal_textures", "--verify", "md5", "verify 'md5' is none of none, size, sha256"),
    ],
)
def test_wrong_input_ends_in_one_clear_line(tiny, tmp_path, capsys, step, flag, value, message):
    command = with_outputs_in(step_command(step, tiny), tmp_path)
    places = {"pit": tiny.pit, "reid": tiny.reid, "model": tiny.model, "tmp": tmp_path}
    given = {flag.removeprefix("--"): value.format(**places)}
    before = file_contents(tiny.root)
    assert main(with_flags(command, **given)) == 1
    _check_one_line(step, message, capsys.readouterr().err)
    assert file_contents(tiny.root) == before  # and nothing is lost


def _check_one_line(step, message, err):
    said = [line for line in err.splitlines() if line.startswith(f"{step}: ")]
    assert len(said) == 1
    assert message in said[0]
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("step", "damaged", "content", "message"),
    [
        ("train_san", "reid/manifest.json", b"{", "is not JSON"),
        (
            "train_san",
            "reid/manifest.json",
            b'{"format": "san-imageset", "version": 1}',
            "manifest.json: it has no count",
        ),
        ("train_san", "textures/manifest.json", b"[]", "is not the manifest of an image set"),
        ("generate_textures", "generator/recipe.json", b"{}", "recipe.json"),
        ("generate_textures", "generator/weights.safetensors", b"x", "safetensors is damaged"),
        ("extract_features", "model/recipe.json", b"[", "recipe.json"),
        ("evaluate", "features/features.json", b"{", "features.json is not JSON"),
        ("evaluate", "features/features.json", b"{}", "features.json: it has no dataset"),
        ("evaluate", "features/features.npy", b"junk", "features.npy is damaged"),
        ("evaluate", "features/features.json", b"[]", "it is a list; it must be an object"),
        ("evaluate", "features/features.json", b"[" * 200_000, "is nested too deep to be read"),
        (
            "evaluate",
            "features/features.json",
            b'{"dataset": 5, "metric": "cosine"}',
            "dataset is 5; it must be text",
        ),
        ("evaluate", "features/features.npy", b"", "features.npy is damaged"),
        ("evaluate", "features/index.csv", b"\xff\xfe", "index.csv is damaged"),
    ],
)
def test_damaged_input_ends_in_one_clear_line(
    tiny, tmp_path, capsys, step, damaged, content, message
):
    artifact, _, name = damaged.partition("/")
    copy = tmp_path / artifact
    shutil.copytree(tiny.root / artifact, copy)
    (copy / name).write_bytes(content)
    command = with_outputs_in(step_command(step, tiny), tmp_path / "outputs")
    flag = {"reid": "dataset"}.get(artifact, artifact)
    assert main(with_flags(command, **{flag: str(copy)})) == 1
    _check_one_line(step, message, capsys.readouterr().err)


def test_output_never_replaces_what_no_step_has_written(tiny, tmp_path, capsys):
    (tmp_path / "reid").mkdir()
    (tmp_path / "reid" / "thesis.txt").write_text("years of work")
    assert main(with_outputs_in(step_command("prepare_reid", tiny), tmp_path)) == 1
    _check_one_line("prepare_reid", "is a folder that no step has written", capsys.readouterr().err)
    assert (tmp_path / "reid" / "thesis.txt").read_text() == "years of work"


def test_output_never_replaces_a_file_or_a_foreign_manifest(tiny, tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("years of work")
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "manifest.json").write_text('{"name": "an app"}')
    before = file_contents(tmp_path)
    for name, message in (
        ("thesis.txt", "is a file, but the output is a folder"),
        ("app", "is a folder that no step has written"),
    ):
        command = with_flags(step_command("prepare_reid", tiny), reid=str(tmp_path / name))
        assert main(command) == 1
        _check_one_line("prepare_reid", message, capsys.readouterr().err)
    assert file_contents(tmp_path) == before


def test_page_is_not_written_over_a_folder(tiny, tmp_path, capsys):
    command = with_outputs_in(step_command("evaluate", tiny), tmp_path)
    assert main(with_flags(command, report_page=str(tmp_path))) == 1
    _check_one_line("evaluate", "is a folder, but the output is a file", capsys.readouterr().err)
    assert not (tmp_path / "report").exists()


def test_textures_are_not_kept_in_the_data_set_they_are_made_from(tiny, tmp_path, capsys):
    command = with_outputs_in(step_command("generate_textures", tiny), tmp_path)
    assert main(with_flags(command, destination=f"{tiny.reid}/textures")) == 1
    _check_one_line("generate_textures", "--destination", capsys.readouterr().err)
    assert not Path(tiny.reid, "textures").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("prepare_reid", "--reid", "OWN/reid", "--dataset", "images", "--source", "URI"),
        ("make_pit", "--pit", "OWN/pit", "--backgrounds", "OWN"),
        ("make_pit", "--pit", "OWN", "--body", "OWN/body.npz"),
        ("make_pit", "--pit", "OWN/pit", "--backgrounds", "URI"),
    ],
)
def test_output_in_what_a_parameter_names_is_refused(tmp_path, capsys, words):
    own = tmp_path / "my own"
    own.mkdir()
    (own / "body.npz").touch()
    words = [word.replace("OWN", str(own)).replace("URI", own.as_uri()) for word in words]
    assert main(words) == 1
    assert "must not contain each other" in capsys.readouterr().err
    assert [file.name for file in own.iterdir()] == ["body.npz"]


@pytest.mark.parametrize("page", ["report/report.json", "report", "scores.json"])
def test_outputs_that_would_replace_each_other_are_refused(tiny, tmp_path, capsys, page):
    command = with_outputs_in(step_command("evaluate", tiny), tmp_path)
    places = {"report": "report", "scores": "scores.json", "report_page": page}
    command = with_flags(command, **{name: str(tmp_path / at) for name, at in places.items()})
    assert main(command) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "--report-page" in line
    assert "must not contain each other" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["photograph.jpg", "photograph.jpg/states"])
def test_checkpoint_that_cannot_be_a_folder_is_refused_before_training(
    tiny, tmp_path, capsys, place
):
    photograph = tmp_path / "photograph.jpg"
    photograph.write_bytes(b"\xff\xd8\xff")
    command = with_outputs_in(step_command("train_san", tiny), tmp_path / "out")
    assert main(with_flags(command, checkpoint=str(tmp_path / place))) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f"{photograph} is a file; a folder is needed")


@pytest.mark.parametrize("flag", ["report_page", "scores"])
def test_file_that_no_step_has_written_is_not_replaced(tiny, tmp_path, capsys, flag):
    photograph = tmp_path / "photograph.jpg"
    photograph.write_bytes(b"\xff\xd8\xff")
    command = with_outputs_in(step_command("evaluate", tiny), tmp_path / "out")
    assert main(with_flags(command, **{flag: str(photograph)})) == 1
    told = f"{photograph} is no page and no JSON that a step has written; name another"
    assert told in capsys.readouterr().err
    assert photograph.read_bytes() == b"\xff\xd8\xff"


@pytest.mark.parametrize("place", ["", "/shards", "/.."])
def test_output_in_an_input_or_around_it_is_refused(tiny, tmp_path, capsys, place):
    copy = tmp_path / "around" / "reid"
    shutil.copytree(tiny.reid, copy)
    before = file_contents(tmp_path)
    command = with_flags(
        with_outputs_in(step_command("train_san", tiny), tmp_path / "outputs"), dataset=str(copy)
    )
    assert main(with_flags(command, model=f"{copy}{place}")) == 1
    assert re.search(
        "must not contain each other|not a name for an output", capsys.readouterr().err
    )
    assert file_contents(tmp_path) == before


def test_train_san_without_textures_says_what_is_missing(tiny, tmp_path, capsys):
    command = _without(with_outputs_in(step_command("train_san", tiny), tmp_path), "--textures")
    assert main(command) == 1
    assert "recipe 'demo' needs textures; give them with --textures" in capsys.readouterr().err


def test_textures_of_another_data_set_are_refused(tiny, tmp_path, capsys):
    prepare = with_outputs_in(step_command("prepare_reid", tiny), tmp_path)
    assert main(with_flags(prepare, identities="12")) == 0
    train = with_outputs_in(step_command("train_san", tiny), tmp_path)
    assert main(with_flags(train, dataset=str(tmp_path / "reid"))) == 1
    assert "holds the textures of another data set" in capsys.readouterr().err
