import dataclasses
import json
import re
import subprocess
import sys
from typing import Any

import pytest
import torch

from san_core.model.san import SAN
from san_core.model.weights import _ARCHITECTURE_FIELDS
from san_core.recipe import Recipe, from_fields, idle_settings, recipe_with_overrides
from san_core.recipes import RECIPES, get_recipe, overrides_of


def saved_fields(name):
    """The fields of a recipe as a file of JSON keeps them."""
    return json.loads(json.dumps(dataclasses.asdict(get_recipe(name))))


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_survives_json(name):
    assert from_fields(saved_fields(name)) == get_recipe(name)


def test_an_unknown_recipe_lists_what_exists():
    with pytest.raises(
        ValueError, match="no recipe 'cuhk'; there are agw, agw-san, bot, bot-san, cuhk03, c"
    ):
        get_recipe("cuhk")


def test_importing_recipes_does_not_import_torch():
    code = "import sys, san_core.recipes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_overrides_take_the_type_of_their_field():
    base = get_recipe("cuhk03")
    changed = recipe_with_overrides(
        base, "lr=1e-4  epochs=330 skips=false arch=resnet18 milestones=40,80"
    )
    assert changed == dataclasses.replace(
        base, lr=0.0001, epochs=330, skips=False, arch="resnet18", milestones=(40, 80)
    )
    assert type(changed.epochs) is int
    assert type(changed.lr) is float


def test_no_words_change_nothing():
    assert recipe_with_overrides(get_recipe("demo"), " ") == get_recipe("demo")


def test_the_order_of_overrides_does_not_matter():
    words = "schedule=multistep milestones=6,9"
    backwards = " ".join(reversed(words.split()))
    assert recipe_with_overrides(get_recipe("demo"), words) == recipe_with_overrides(
        get_recipe("demo"), backwards
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("lrr=1", "no recipe field 'lrr'; did you mean 'lr'?"),
        ("zzzzzz=1", "no recipe field 'zzzzzz'; fields: arch, last_stride"),
        ("lr", "recipe override 'lr' is not of the form field=value"),
        ("lr=1 lr=2", "recipe field 'lr' is overridden twice"),
        ("lr=fast", "recipe lr='fast': must be a number"),
        ("epochs=3.5", "recipe epochs='3.5': must be a whole number"),
        ("skips=1", "recipe skips='1': must be true or false"),
        ("milestones=4,x", "recipe milestones='4,x': must be whole numbers like 40,80"),
        ("arch=vgg", "recipe arch is 'vgg': must be one of resnet10_quarter, resnet18"),
        ("flip=1.5", "recipe flip is 1.5: must be between 0 and 1"),
        ("lr=nan", "recipe lr is nan: must be between 0 and 10"),
        (
            "embedding_dim=1000000000",
            "recipe embedding_dim is 1000000000: must be between 1 and 65536",
        ),
        ("images_per_identity=1", "recipe images_per_identity is 1: must be between 2 and 4096"),
        ("w_id=0 w_tri=0 w_rec=0", "all loss weights are 0"),
        ("lr=0", "lr is 0, nothing would be learned"),
        ("schedule=multistep milestones=9,6", "milestones (9, 6) must be increasing"),
        ("schedule=multistep", "schedule 'multistep' needs milestones"),
        ("milestones=4", "milestones have no effect with schedule 'cosine'"),
        ("epochs=2", "warmup_epochs 2 must be fewer than epochs 2"),
        ("init=generator w_rec=0", "init 'generator' starts a decoder, but w_rec and w_tr are 0"),
        ("pretrained=imagenet", "pretrained 'imagenet' does not exist for arch 'resnet10_quarter'"),
        ("pretrained=", "pretrained is empty"),
        ("arch=swin_t", "arch 'swin_t' has no last stride of 1: set last_stride=2"),
        ("drop_path=0.1", "drop_path has no effect with arch 'resnet10_quarter'"),
        (
            "arch=convnext_tiny last_stride=2 pooling=gem",
            "pooling 'gem' needs maps without negative values, and those of arch 'convnext_tiny' "
            "have some",
        ),
        ("crop_pad=32", "crop_pad 32 must be below image_height and image_width (64x32)"),
        ("w_id=0 w_tri=0 w_tr=1", "w_tr needs identities"),
        (
            "two_step=true w_rec=0",
            "two_step separates ReID losses from texture losses: it needs w_id or w_t",
        ),
        ("two_step=true w_id=0 w_tri=0", "two_step separates ReID losses from texture losses"),
        (
            "schedule=multistep milestones=4 cosine_from=3",
            "cosine_from has no effect with schedule",
        ),
        ("cosine_from=1", "cosine_from 1 must lie between the end of warm-up, 2, and epochs 10"),
        ("cosine_from=10", "cosine_from 10 must lie between the end of warm-up, 2, and epochs 10"),
        ("frozen_epochs=10", "frozen_epochs 10 must be fewer than epochs 10"),
        (
            "frozen_epochs=1 w_id=0 w_tri=0",
            "frozen_epochs trains only the layers on top of the encoder",
        ),
        ("autoaugment=0.1 crop=translate_stored", "autoaugment needs images of one size"),
        ("stale_gradients=true", "stale_gradients has no effect without two_step"),
        ("warmup=exponential warmup_epochs=2.5", "warmup_epochs 2.5 must be a whole number from 1"),
        ("warmup=exponential warmup_epochs=0", "warmup 'exponential' reaches lr in 20 epochs"),
        ("warmup=exponential warmup_epochs=21 epochs=99", "warmup_epochs 21 must be a whole num"),
        ("copy_dim=8", "copy_queries and copy_dim have no effect with texture_from 'regress'"),
        ("texture_from=copy w_rec=0", "texture_from 'copy' has no effect: w_rec and w_tr are 0"),
        ("texture_from=copy copy_queries=12", "copy_queries 12 must divide texture_size 32"),
        ("w_dense=1", "w_dense trains where colours are copied from: it needs texture_from 'co"),
        ("texture_from=copy w_dense=1", "w_dense needs w_rec and no identity losses"),
        (
            "texture_from=copy w_dense=1 w_id=0 w_tri=0 normalize_triplet=false",
            "w_dense needs crop 'none', flip_textures 'mirror' and erasing_style 'mean'",
        ),
        (
            "texture_from=copy w_dense=1 w_id=0 w_tri=0 normalize_triplet=false crop=none"
            " autoaugment=0.1",
            "autoaugment rotates and shears images but not their dense maps: not with w_dense",
        ),
        ("texture_every=2 w_rec=0", "texture_every has no effect: w_rec and w_tr are 0"),
        ("texture_every=2 w_id=0 w_tri=0", "texture_every leaves pictures without any loss: it n"),
        ("w_distill=1 w_id=0 w_tri=0", "w_distill is for ReID training: it needs w_id or w_tri"),
        ("texture_share=0.5 w_rec=0", "texture_share has no effect: w_rec and w_tr are 0"),
        (
            "texture_share=0.02 identities_per_batch=8",
            "texture_share 0.02 of 8 identities a batch is 0: must be 1 to 7",
        ),
        (
            "texture_share=0.99 identities_per_batch=8 w_tr=1",
            "texture_share 0.99 of 8 identities a batch is 8: must be 2 to 7",
        ),
        (
            "texture_share=0.002 w_tri=0 normalize_triplet=false",
            "texture_share 0.002 of 64 images a batch is 0: must be 1 to 63",
        ),
        ("texture_epochs=2 w_rec=0", "texture_epochs has no effect: w_rec and w_tr are 0"),
        ("texture_epochs=10", "texture_epochs 10 must be fewer than epochs 10"),
        (
            "texture_epochs=2 frozen_epochs=2",
            "texture_epochs 2 must be more than frozen_epochs 2, or no texture reaches the trunk",
        ),
        (
            "train_decoder=false",
            "train_decoder=false keeps the decoder of SAN-PG: it needs init 'g",
        ),
        (
            "train_decoder=false init=generator frozen_epochs=1",
            "train_decoder=false and frozen_epochs leave texture losses nothing to train",
        ),
        ("train_decoder=false init=encoder", "it needs init 'generator', not 'encoder'"),
        ("validation_draw=2", "validation_draw has no effect: eval_every is 0"),
        ("tr_triplets=positions", "tr_triplets 'positions' has no effect: w_tr is 0"),
        (
            "tr_triplets=positions w_tr=1 images_per_identity=8",
            "tr_triplets 'positions' needs 4 images per person: images_per_identity is 8",
        ),
        ("crop=translate_stored pit_every=1", "crop 'translate_stored' is for ReID images only"),
        ("crop=translate_stored w_id=0 w_tri=0", "crop 'translate_stored' is for ReID images on"),
        ("pit_every=1 w_rec=0 w_tr=1", "pit_every adds batches of L_Rec to ReID training: it nee"),
        ("pit_every=1 w_id=0 w_tri=0", "pit_every adds batches of L_Rec to ReID training"),
        ("init=encoder w_id=0 w_tri=0", "init 'encoder' is for ReID training: it has no effect"),
        ("decoder_plan=dark", "recipe decoder_plan is 'dark': must be one of published, light"),
    ],
)
def test_a_wrong_override_is_named(words, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        recipe_with_overrides(get_recipe("demo"), words)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 3.0}, "recipe epochs is 3.0: must be of type int"),
        ({"epochs": True}, "recipe epochs is True: must be of type int"),
        ({"skips": 1}, "recipe skips is 1: must be of type bool"),
        ({"milestones": (1.5,)}, "recipe milestones is (1.5,): must be whole numbers"),
    ],
)
def test_construction_checks_types(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        dataclasses.replace(get_recipe("demo"), **change)


def test_settings_without_effect_are_reported():
    assert idle_settings(get_recipe("cuhk03")) == []
    assert idle_settings(recipe_with_overrides(get_recipe("cuhk03"), "epochs=150")) == [
        "milestones 180, 220, 260, 300 have no effect: training ends after 150 epochs"
    ]
    started = recipe_with_overrides(get_recipe("cuhk03"), "init=generator")
    assert idle_settings(started) == ["pretrained 'imagenet' is not used: init is 'generator'"]
    frozen = recipe_with_overrides(get_recipe("cuhk03"), "frozen_epochs=2")
    assert idle_settings(frozen) == []
    assert idle_settings(recipe_with_overrides(frozen, "pretrained=none")) == [
        "frozen_epochs=2 freezes a trunk of random weights: pretrained and init are none"
    ]


def test_padding_that_is_not_used_may_be_anything():
    assert recipe_with_overrides(get_recipe("demo"), "crop=none crop_pad=32").crop_pad == 32
    assert recipe_with_overrides(get_recipe("demo"), "crop_pad=31").crop_pad == 31


def test_a_whole_number_serves_as_a_float():
    assert Recipe(arch="resnet18", lr=1) == Recipe(arch="resnet18", lr=1.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lrr": 1}, "recipe has unknown fields lrr"),
        ({"lr": 0.1}, "recipe lacks the fields arch"),
    ],
)
def test_fields_that_make_no_recipe_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        from_fields(fields)


def test_a_recipe_from_before_a_field_was_is_still_read():
    saved = saved_fields("pit-small")
    del saved["pit_every"]
    assert from_fields(saved) == get_recipe("pit-small")


def test_losses_decide_what_a_recipe_needs():
    san, baseline, generator = (
        get_recipe("demo"),
        get_recipe("demo-baseline"),
        get_recipe("demo-pg"),
    )
    assert san.active_losses == ("id", "tri", "rec")
    assert [r.needs_decoder for r in (san, baseline, generator)] == [True, False, True]
    assert [r.needs_identities for r in (san, baseline, generator)] == [True, True, False]
    assert [r.forms_triplets for r in (san, baseline, generator)] == [True, True, False]
    assert [r.images_per_batch for r in (san, baseline, generator)] == [8 * 4, 8 * 4, 32]


def test_a_demo_generator_can_start_the_demo():
    for field in (*_ARCHITECTURE_FIELDS, "image_width"):
        assert getattr(get_recipe("demo"), field) == getattr(get_recipe("demo-pg"), field)
        assert getattr(get_recipe("synthetic"), field) == getattr(get_recipe("demo-pg"), field)
        for name in ("cuhk03", "market1501", "msmt17"):
            assert getattr(get_recipe(name), field) == getattr(get_recipe("pit"), field)


@pytest.mark.parametrize("name", ["cuhk03", "market1501", "msmt17"])
def test_ablations_differ_in_their_losses_alone(name):
    full, without_tr, baseline = (
        get_recipe(name),
        get_recipe(f"{name}-rec"),
        get_recipe(f"{name}-baseline"),
    )
    assert full.active_losses == ("id", "tri", "rec", "tr")
    assert without_tr == dataclasses.replace(full, w_tr=0.0)
    assert baseline == dataclasses.replace(full, w_rec=0.0, w_tr=0.0)


def test_on_synthetic_people_san_starts_as_an_encoder_and_the_baseline_from_nothing():
    san, baseline = get_recipe("synthetic"), get_recipe("synthetic-baseline")
    assert (san.init, san.w_rec, san.w_tr, san.texture_every) == ("encoder", 5, 0.1, 4)
    assert baseline == dataclasses.replace(san, **NO_TEXTURES, init="none")


def test_for_small_photographs_the_baseline_differs_in_its_losses_alone():
    san, baseline = get_recipe("small"), get_recipe("small-baseline")
    assert (san.init, san.w_rec, san.w_tr, san.texture_every) == ("encoder", 5, 0.1, 4)
    assert baseline == dataclasses.replace(san, **NO_TEXTURES)


NO_TEXTURES: dict[str, Any] = {"w_rec": 0.0, "w_tr": 0.0, "texture_every": 1}


# The demo's recorded results stand for these values.
DEMO = {
    "arch": "resnet10_quarter",
    "embedding_dim": 128,
    "decoder_plan": "published",
    "decoder_width": 0.5,
    "w_rec": 5.0,
    "w_tr": 0.0,
    "epochs": 10,
    "optimizer": "adam",
    "lr": 3e-3,
    "clip_norm": 0.0,
    "two_step": False,
    "pit_every": 0,
    "eval_every": 0,
}


def test_the_demo_is_what_its_recorded_results_are_of():
    assert {name: getattr(get_recipe("demo"), name) for name in DEMO} == DEMO


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_makes_a_network(name):
    settings = get_recipe(name)
    with torch.device("meta"):  # sizes without arithmetic
        model = SAN(settings, num_classes=3 if settings.needs_identities else 0)
    assert (model.decoder is not None) == settings.needs_decoder


@pytest.mark.parametrize("name", ["bot", "agw", "sbs"])
def test_texture_losses_come_on_top_of_a_strong_baseline(name):
    changed = dataclasses.replace(get_recipe(f"{name}-san"), w_rec=0.0, w_tr=0.0)
    # textures of 256 rows come of images of 256 rows
    assert changed == dataclasses.replace(get_recipe(name), image_height=256)
    assert get_recipe(name).metric == "cosine"


# JDAI-CV/fast-reid, configs/Base-SBS.yml and Base-bagtricks.yml; batches as epochs of Market-1501,
# whose 12,936 images make 202 batches of 64
PUBLISHED_SBS = {
    "image_size": (384, 128),
    "embedding": "bnneck",
    "pooling": "gem",
    "classifier": "circle",
    "classifier_scale": 64,
    "classifier_margin": 0.35,
    "label_smoothing": 0.1,
    "triplet": "soft",
    "images_per_identity": 16,
    "images_per_batch": 64,
    "epochs": 60,
    "lr": 3.5e-4,
    "weight_decay": 5e-4,
    "schedule": "cosine",
    "cosine_from": 30,
    "warmup_epochs": round(2000 / 202),
    "frozen_epochs": round(1000 / 202),
    "autoaugment": 0.1,
    "erasing": 0.5,
    "crop": "pad",
    "needs_decoder": False,
}


def test_sbs_is_as_it_was_published():
    assert {name: getattr(get_recipe("sbs"), name) for name in PUBLISHED_SBS} == PUBLISHED_SBS


def test_a_margin_without_effect_is_refused():
    with pytest.raises(ValueError, match=r"margin 0\.5 has no effect with triplet 'weighted'"):
        recipe_with_overrides(get_recipe("agw"), "margin=0.5")


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("agw", "w_id=0", "embedding 'bnneck' needs the identity loss"),
        ("demo", "w_id=0 classifier=circle", "classifier 'circle' has no effect: w_id is 0"),
        ("demo", "w_tri=0 triplet=soft", "triplet 'soft' has no effect: w_tri is 0"),
        ("demo", "classifier_scale=30", "have no effect with classifier 'linear'"),
    ],
)
def test_fields_of_a_strong_baseline_without_effect_are_refused(name, words, message):
    with pytest.raises(ValueError, match=message):
        recipe_with_overrides(get_recipe(name), words)


def test_changes_of_a_recipe_are_reported_as_overrides():
    words = "lr=1e-4 warmup_epochs=2 milestones=10,20 mirrored=true epochs=30"
    changed = recipe_with_overrides(get_recipe("cuhk03"), words)
    told = overrides_of("cuhk03", changed)
    assert told == "epochs=30 lr=0.0001 milestones=10,20 warmup_epochs=2 mirrored=true"
    assert recipe_with_overrides(get_recipe("cuhk03"), told) == changed
    assert overrides_of("cuhk03", get_recipe("cuhk03")) == ""
    with pytest.raises(ValueError, match="no recipe 'mine'"):
        overrides_of("mine", changed)
