"""The named recipes, with the sources of their values.

Sources as in `recipe`: "paper" is Jin et al., AAAI 2020; "official" is the authors' released code
and README.
"""

import dataclasses
from typing import Any

from san_core.recipe import Recipe

# The README command of the official repository: `-a resnet50_fc512 --height 256 --width 128
# --optim amsgrad --lr 8e-4 --max-epoch 300 --stepsize 40 80 120 160 200 240 280 --gamma 0.5
# --train-batch-size 64 --num-instances 4 --label-smooth`, after its 20 warm-up epochs.
_CUHK03 = Recipe(
    arch="resnet50",
    pretrained="imagenet",
    w_tr=1.0,  # official weight 1, of a sum over 15 anchors; here a mean (san_core/README.md)
    epochs=320,  # 20 (--warm-up-epoch) + 300 (--max-epoch)
    checkpoint_every=5,
    optimizer="amsgrad",
    lr=8e-4,
    decoder_lr=8e-4,  # official 1e-5, constant and outside the schedule (san_core/README.md)
    schedule="multistep",
    milestones=(60, 100, 140, 180, 220, 260, 300),  # --stepsize, counted from the first epoch
    gamma=0.5,
    warmup_epochs=20.0,
)

# The official run as released: the settings in which the recipe above differs from it (see
# san_core/README.md).
_CUHK03_OFFICIAL = dataclasses.replace(
    _CUHK03,
    decoder_init="xavier",
    tr_triplets="positions",
    warmup="exponential",
    two_step=True,
    stale_gradients=True,
    full_precision=True,
    crop="translate_stored",
    flip_textures="keep",
    erasing_style="released",
)

# How SAN was trained on Market-1501 and MSMT17 is in no source we could read; the official code
# reads CUHK03 alone. An epoch has 1.8 and 4.4 times CUHK03's images, so fewer epochs are enough:
# the schedule is that of Luo et al. (Bag of Tricks, CVPR workshops 2019) for Market-1501: 120
# epochs of Adam with 10 epochs of warm-up to 3.5e-4, which is divided by 10 after epochs 40 and 70.
_MARKET1501 = dataclasses.replace(
    _CUHK03,
    epochs=120,
    optimizer="adam",
    lr=3.5e-4,
    decoder_lr=3.5e-4,
    milestones=(40, 70),
    gamma=0.1,
    warmup_epochs=10.0,
)
_MSMT17 = _MARKET1501


# The usual strong baselines, on the schedule above. "bot" is the Bag of Tricks (Luo
# et al. 2019) without its center loss; "agw" adds generalised-mean pooling and the weighted triplet
# (Ye et al. 2021), without its non-local blocks.
_BOT = dataclasses.replace(
    _MARKET1501, w_rec=0.0, w_tr=0.0, embedding="bnneck", crop="pad", crop_pad=10
)
_AGW = dataclasses.replace(_BOT, pooling="gem", triplet="weighted")
# fast-reid's SBS (configs/Base-SBS.yml), without its non-local blocks. Its 2,000 batches of warm-up
# and 1,000 of a frozen trunk are 10 and 5 epochs of Market-1501. Its warm-up begins at lr / 10 and
# its decay ends at 7e-7; here both begin and end at 0.
_SBS = dataclasses.replace(
    _BOT,
    pooling="gem",
    classifier="circle",
    triplet="soft",
    image_height=384,
    identities_per_batch=4,
    images_per_identity=16,
    epochs=60,
    schedule="cosine",
    milestones=(),
    gamma=Recipe.gamma,
    cosine_from=30.0,
    frozen_epochs=5,
    autoaugment=0.1,
)
# The decoder of 256x256 textures needs images of 256 rows. The baseline is `sbs` with
# image_height=256.
_SBS_SAN = dataclasses.replace(_SBS, image_height=256, w_rec=1.0, w_tr=1.0)


def _recipe_with_ablations(name: str, full: Recipe) -> dict[str, Recipe]:
    """SAN under its name, the baseline without textures, and SAN without L_TR (SAN-basic)."""
    return {
        name: full,
        f"{name}-baseline": dataclasses.replace(full, w_rec=0.0, w_tr=0.0),
        f"{name}-rec": dataclasses.replace(full, w_tr=0.0),
    }


# Small images, trained from scratch on a CPU. Normalised embeddings and the ramp of w_tri prevent
# the collapse of the triplet loss early in training; measured on rendered people at 64x32. Without
# skips, as in the paper's figure, the decoder sees only f_e4, from which the embedding is pooled.
# Half of the decoder's channels are enough for textures of this size.
_DEMO = Recipe(
    arch="resnet10_quarter",
    embedding_dim=128,
    skips=False,
    decoder_width=0.5,
    image_height=64,
    image_width=32,
    texture_size=32,
    w_rec=5.0,
    normalize_triplet=True,
    triplet_ramp_epochs=4.0,
    identities_per_batch=8,
    epochs=10,
    optimizer="adam",
    lr=3e-3,
    decoder_lr=3e-3,
    warmup_epochs=2.0,
    crop="pad",
    crop_pad=3,
)

# The demo's network, trained longer: for several hundred rendered identities on a CPU. It has the
# parts of strong baselines whose mean gain was highest in equal CPU time (san_core/README.md). A
# start as the encoder of a generator gained too. Texture losses lost against that start, in every
# fourth batch less than in every batch (tests/README.md).
_SYNTHETIC = dataclasses.replace(
    _DEMO,
    embedding="bnneck",
    pooling="gem",
    triplet="soft",
    mirrored=True,
    epochs=34,
    checkpoint_every=2,
    init="encoder",
    w_tr=0.1,
    texture_every=4,
)
_NO_TEXTURES: dict[str, Any] = {"w_rec": 0.0, "w_tr": 0.0, "texture_every": 1}

# The same for photographs of 128x64; the shipped generator fits it.
_SMALL = dataclasses.replace(
    _SYNTHETIC,
    last_stride=2,
    image_height=128,
    image_width=64,
    texture_size=64,
    crop_pad=5,
)

# SAN-PG is the same network with the reconstruction loss alone (official README). How it was
# trained is in no source we could read: sizes are the published ones, the schedule is ours.
_GENERATOR: dict[str, Any] = {
    "embedding": "pool",
    "w_id": 0.0,
    "w_tri": 0.0,
    "w_rec": 1.0,
    "w_tr": 0.0,
    "triplet_ramp_epochs": 0.0,
    "erasing": 0.0,
    "crop": "none",
}
_SMALL_GENERATOR: dict[str, Any] = {
    **_GENERATOR,
    "arch": "resnet10_quarter",
    "last_stride": 2,
    "skips": False,
    "erasing": 0.3,
    "image_height": 128,
    "image_width": 64,
    "batch_size": 32,
    "lr": 3e-3,
    "decoder_lr": 3e-3,
    "weight_decay": 0.0,
    "warmup_epochs": 0.5,
}

# SAN-PG as published, but for its schedule
_PIT = Recipe(
    arch="resnet50",
    pretrained="imagenet",
    **_GENERATOR,
    epochs=40,
    lr=5e-4,
    decoder_lr=5e-4,
    weight_decay=0.0,
    warmup_epochs=2.0,
)

RECIPES: dict[str, Recipe] = {
    "demo": _DEMO,
    "demo-baseline": dataclasses.replace(_DEMO, w_rec=0.0),
    "demo-pg": dataclasses.replace(
        _DEMO,
        **{**_GENERATOR, "erasing": 0.3},  # against overfitting to the demo's few images
        batch_size=32,
        epochs=20,
        warmup_epochs=0.5,
        weight_decay=0.0,
    ),
    "synthetic": _SYNTHETIC,
    "synthetic-baseline": dataclasses.replace(_SYNTHETIC, **_NO_TEXTURES, init="none"),
    "small": _SMALL,
    "small-baseline": dataclasses.replace(_SMALL, **_NO_TEXTURES),
    **_recipe_with_ablations("cuhk03", _CUHK03),
    "cuhk03-official": _CUHK03_OFFICIAL,
    # The same without its error: both gradients are taken before any step
    "cuhk03-two-step": dataclasses.replace(_CUHK03_OFFICIAL, stale_gradients=False),
    **_recipe_with_ablations("market1501", _MARKET1501),
    **_recipe_with_ablations("msmt17", _MSMT17),
    "bot": _BOT,
    "bot-san": dataclasses.replace(_BOT, w_rec=1.0, w_tr=1.0),
    "agw": _AGW,
    "agw-san": dataclasses.replace(_AGW, w_rec=1.0, w_tr=1.0),
    "sbs": _SBS,
    "sbs-san": _SBS_SAN,
    # A quarter of an hour on a CPU. In equal time, a last stride of 2, with a third up-block in the
    # decoder, gives better textures than a last stride of 1: after 40 s of CPU time those of
    # held-out people were 1.4 dB above the mean texture instead of 0.7.
    "pit-small": Recipe(**_SMALL_GENERATOR, texture_size=64, epochs=12),
    # SAN-PG that copies colours from the image; dense maps supervise where from
    "pit-copy": Recipe(
        **_SMALL_GENERATOR,
        texture_from="copy",
        w_dense=1.0,
        texture_size=128,
        epochs=40,
        ema=0.998,
    ),
    "pit": _PIT,
    # The same network, copying: on photographs, regressed textures lose greens and purples
    "pit-copy-resnet50": dataclasses.replace(
        _PIT, texture_from="copy", copy_queries=32, copy_dim=64, w_dense=1.0, ema=0.998
    ),
}


def get_recipe(name: str) -> Recipe:
    """The recipe called `name`. Raises ValueError listing what exists."""
    if name not in RECIPES:
        raise ValueError(f"no recipe {name!r}; there are {', '.join(sorted(RECIPES))}")
    return RECIPES[name]


def overrides_of(name: str, recipe: Recipe) -> str:
    """The overrides that turn the recipe called `name` into this one, such as "epochs=3 lr=0.001".

    The words are those of `recipe_with_overrides`, in the order of the fields; empty if nothing
    was. Raises ValueError as `get_recipe`.
    """
    base = get_recipe(name)
    return " ".join(
        f"{field.name}={_field_word(value)}"
        for field in dataclasses.fields(Recipe)
        if (value := getattr(recipe, field.name)) != getattr(base, field.name)
    )


def _field_word(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return str(value).lower() if isinstance(value, bool) else str(value)
