"""The scientific settings of a training run as one frozen value.

A recipe says what is learned and how. Seeds, machines and paths are not part of it, with one
exception: `pretrained` may be a path or URI, and is saved as given. It is built in Python
(`recipes.RECIPES`), changed by overrides (`recipe_with_overrides`), and saved with the weights.
Sources: "paper" is Jin et al., AAAI 2020; "official" is the authors' released code and README.
"""

import dataclasses
import difflib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

ResNet = Literal[
    "resnet10_quarter",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "wide_resnet50_2",
    "wide_resnet101_2",
    "resnet18_ibn_a",
    "resnet50_ibn_a",
    "resnet101_ibn_a",
]
ConvNeXt = Literal["convnext_tiny", "convnext_small", "convnext_base"]
Swin = Literal["swin_t", "swin_s", "swin_b", "swin_v2_t", "swin_v2_s", "swin_v2_b"]
Arch = Literal[ResNet, ConvNeXt, Swin]
MIRRORED = ("auto", "true", "false")  # auto: as in the recipe
NO_IMAGENET = ("resnet10_quarter", "resnet18_ibn_a", "resnet50_ibn_a", "resnet101_ibn_a")
Pooling = Literal["mean", "gem"]
Embedding = Literal["fc512", "pool", "bnneck"]
Classifier = Literal["linear", "cosine", "circle"]
Triplet = Literal["hard", "soft", "weighted"]
Optimizer = Literal["amsgrad", "adamw", "adam"]
Schedule = Literal["multistep", "cosine"]
Warmup = Literal["linear", "exponential"]
Crop = Literal["none", "pad", "translate", "translate_stored"]
FlipTextures = Literal["mirror", "keep", "omit"]
ErasingStyle = Literal["mean", "released"]
TextureTriplets = Literal["labels", "positions"]
DecoderInit = Literal["torch", "xavier"]
Init = Literal["none", "generator", "encoder", "model"]
DecoderPlan = Literal["published", "light"]
TextureFrom = Literal["regress", "copy"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One training run. Every field is checked on construction (ValueError naming the field)."""

    # Network
    arch: Arch  # SA-Enc; the paper's is resnet50
    # stride of the last stage, 1 or 2; official resnet50_fc512: 1; ConvNeXt and Swin: 2
    last_stride: int = 1
    # stochastic depth: probability of dropping the residual branch of the last block, falling
    # linearly to 0 at the first (ConvNeXt and Swin; published for ImageNet: 0.1 to 0.5)
    drop_path: float = 0.0
    pooling: Pooling = "mean"  # of f_e4; "gem": generalised mean (Radenovic et al. 2018)
    # "fc512": pooled f_e4 -> Linear + BN + ReLU, as official; "pool": pooled f_e4, as in the paper;
    # "bnneck": pooled f_e4 -> BN, with the triplet loss before BN, the identity loss and the test
    # feature after it, and cosine distance (Luo et al. 2019)
    embedding: Embedding = "fc512"
    embedding_dim: int = 512  # length of the fc512 embedding (official 512); else unused
    skips: bool = (
        True  # add encoder maps into the decoder: official code yes, the paper's figure no
    )
    # "published": 512-256-64-32-16 channels for ResNet-50; "light": 256-128-64-32-16, as most of
    # the decoder's multiply-adds are in its widest layers
    decoder_plan: DecoderPlan = "published"
    decoder_width: float = 1.0  # multiplies every channel count of the plan
    # initial weights of the decoder: "torch": the defaults of torch; "xavier": Xavier normal with
    # gain 0.02, biases 0, weights of batch normalisation 1 +- 0.02, as official
    decoder_init: DecoderInit = "torch"
    # "regress": the decoder regresses every texel, as in the paper; "copy": visible texels copy
    # their colours from the image by attention
    texture_from: TextureFrom = "regress"
    copy_queries: int = 16  # with "copy": attention queries along each side; else unused
    copy_dim: int = 32  # with "copy": channels of queries and keys; else unused
    pretrained: str = "none"  # "none", "imagenet", or path or URI of published weights
    # initial weights: "generator": SAN-PG's encoder and decoder; "encoder": SAN-PG's encoder, also
    # for a baseline or another decoder; "model": the encoder of a trained model, and its decoder if
    # both have one
    init: Init = "none"

    # Sizes
    image_height: int = 256  # pixels
    image_width: int = 128  # pixels
    # rows and columns of the square texture, in texels; official 256. Textures that are larger by
    # an integer factor are averaged down; small textures cost little time
    texture_size: int = 256

    # Losses: L = w_id L_ID + w_tri L_Triplet + w_rec L_Rec + w_tr L_TR
    w_id: float = 1.0  # weight of the identity loss L_ID; official 1
    w_tri: float = 1.0  # weight of the triplet loss L_Triplet; official 1
    # weight of the reconstruction loss L_Rec; official 1. With texture_from "copy" the loss has two
    # more L1 terms at the queries' resolution: 0.5 x attended colours, 0.2 x regressed colours
    w_rec: float = 1.0
    w_tr: float = 0.0  # weight of the triplet ReID constraint L_TR on decoder maps
    # weight of the supervision by dense maps of PIT with texture_from "copy": the place of each
    # texel in the image, its visibility, and the person mask
    w_dense: float = 0.0
    # weight of feature distillation: a learned 1x1 convolution of f_e4 regresses f_e4 of the
    # generator's encoder, by mean squared error (hints, Romero et al. 2015, eq. 3); needs a
    # generator, but neither decoder nor textures
    w_distill: float = 0.0
    # n: only every n-th ReID batch, from the first, has texture losses; the others do not run the
    # decoder (lazy regularisation, Karras et al. 2020, section 3.1). Loss weights are not rescaled
    texture_every: int = 1
    # number of epochs, from the first, with texture losses and PIT batches; 0: all (companion
    # losses that are later switched off, Lee et al. 2015)
    texture_epochs: int = 0
    # share of the identities of a ReID batch (of its images, if no triplets are formed) that have
    # texture losses, evenly spaced in the batch; the decoder runs on these alone
    texture_share: float = 1.0
    # false: SAN-PG's decoder is frozen, batch normalisation included, and passes the gradient of
    # texture losses to the encoder (like the fixed loss network of Johnson et al. 2016);
    # `decoder_lr` is not used
    train_decoder: bool = True
    # "linear": a linear layer; "cosine": large-margin cosine softmax (CosFace); "circle": circle
    # loss on classes
    classifier: Classifier = "linear"
    classifier_scale: float = 64.0  # scale of the cosines; fast-reid's SBS 64
    classifier_margin: float = 0.35  # margin of the cosines; fast-reid's SBS 0.35
    label_smoothing: float = 0.1  # share of probability spread over all identities; official 0.1
    # "hard": batch-hard with `margin`; "soft": batch-hard with the soft margin ln(1 + exp(.));
    # "weighted": the weighted regularization triplet, a soft margin of all pairs weighted by
    # distance (Ye et al. 2021)
    triplet: Triplet = "hard"
    margin: float = 0.3  # of the batch-hard triplet, in embedding distance; official 0.3
    tr_margin: float = 0.3  # of L_TR, in mean squared difference; official 0.3
    # L_TR is, with "labels", the mean over all anchors and their pairs; with "positions", as in the
    # official code, the sum over one triplet for each map and each person but the last, at fixed
    # positions in batches of P x 4
    tr_triplets: TextureTriplets = "labels"
    normalize_triplet: bool = False  # L2-normalise embeddings for the triplet; official no
    triplet_ramp_epochs: float = 0.0  # epochs over which w_tri grows linearly from 0

    # Batches and length
    identities_per_batch: int = 16  # P; official 64 / 4
    images_per_identity: int = 4  # K; official --num-instances 4
    batch_size: int = 64  # images in a batch if no triplets are formed (SAN-PG); shuffled
    epochs: int = 60  # passes over the training set, warm-up included
    checkpoint_every: int = 1  # epochs between checkpoints
    eval_every: int = 0  # epochs between validations; 0: none
    # share of the training identities that is held out if the data set has no split "val"
    validation_share: float = 0.1
    # number of the draw of these identities: train with several draws to see the variance. A hash
    # of names decides, so nobody changes sides when a data set grows
    validation_draw: int = 0
    # n: after every n ReID batches one batch of PIT (batch_size images, L_Rec only); 0: none. Used
    # in the paper (from memory), not in the official code
    pit_every: int = 0

    # Optimisation
    optimizer: Optimizer = "adam"  # official amsgrad
    lr: float = 3.5e-4  # maximum, of encoder and classifier
    decoder_lr: float = 3.5e-4  # maximum, of the decoder, on the same schedule
    weight_decay: float = 5e-4  # L2 on every weight (decoupled with adamw); official 5e-4
    schedule: Schedule = "cosine"  # decay of lr after warm-up; official multistep
    milestones: tuple[int, ...] = ()  # epochs, warm-up included, at which multistep multiplies lr
    gamma: float = 0.1  # factor of lr at each milestone
    warmup_epochs: float = 0.0  # epochs of learning-rate warm-up
    # "linear": from 0, updated in every batch; "exponential": lr / 100 x 1.259^epoch for 20 epochs,
    # by a separate Adam whose moments are then discarded, as official
    warmup: Warmup = "linear"
    # with cosine: epoch at which the decay begins, from a constant lr; 0: at the end of warm-up;
    # fast-reid's SBS: 30 of 60
    cosine_from: float = 0.0
    # first epochs with a frozen trunk, batch normalisation included, in which only head, classifier
    # and decoder learn; fast-reid's SBS: 1,000 batches
    frozen_epochs: int = 0
    clip_norm: float = 0.0  # maximum L2 norm of the gradient of all weights; 0: no clipping
    ema: float = 0.0  # decay of the moving average of weights, which is saved; 0: none
    # two steps in a batch, as official: L_ID and L_Triplet by `optimizer`, then L_Rec and L_TR by a
    # separate Adam on encoder and decoder. For comparison; `decoder_lr` is not used with it
    two_step: bool = False
    texture_lr: float = 1e-5  # learning rate of that Adam, constant; official 1e-5
    # with two_step: the second gradient is computed after the first step, from old activations and
    # new weights, as the official code did on torch before 1.5; since then it raises an error
    stale_gradients: bool = False
    full_precision: bool = False  # float32 on GPUs too if precision is auto; as official
    # batch statistics over all processes; if false, each process normalises its own share
    sync_batchnorm: bool = True
    # on a GPU, use deterministic, slower operations, so that equal seeds give equal bytes (not
    # tested on a GPU). On a CPU operations are always deterministic
    deterministic: bool = False

    # Augmentation, drawn independently for every image
    flip: float = 0.5  # probability of a horizontal flip; official 0.5
    # "pad": pad and crop; "translate": enlarge by 1.125 and crop, for half of the images (official
    # Random2DTranslation); "translate_stored": the same, enlarged from the size of the image file
    # as official, which takes 2.3 times the memory
    crop: Crop = "translate"
    crop_pad: int = 10  # pixels of padding on each side with crop="pad"; unused otherwise
    # texture of a flipped image: "mirror" it, or leave it out if the atlas is unknown; "keep" it
    # unflipped, as official; "omit" it always
    flip_textures: FlipTextures = "mirror"
    erasing: float = 0.5  # probability of random erasing; official 0.5
    # "mean": erased pixels take the ImageNet mean colour, a box too large is cut; "released": they
    # take 0.485, 0.456, 0.406 after normalisation, a box too large is drawn again, as official
    erasing_style: ErasingStyle = "mean"
    # colour jitter: saturation, brightness and contrast of an image change by up to this share; its
    # texture does not change
    jitter: float = 0.0
    greyscale: float = 0.0  # probability of a greyscale image; its texture keeps its colours
    # probability of AutoAugment (Cubuk et al. 2019, ImageNet policies) on an image; its texture
    # does not change; fast-reid's SBS 0.1
    autoaugment: float = 0.0

    # Test
    mirrored: bool = False  # flip test: average features of image and mirror image; official no

    def __post_init__(self) -> None:
        for name, kind in _FIELD_TYPES.items():
            object.__setattr__(self, name, _coerce_field(name, kind, getattr(self, name)))
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"recipe {name} is {value}: must be between {low:g} and {high:g}")
        for problem, wrong in self._contradictions().items():
            if wrong:
                raise ValueError(f"recipe: {problem}")

    def _contradictions(self) -> dict[str, bool]:
        steps = self.milestones
        return {
            "all loss weights are 0, nothing would be learned": self.active_losses == (),
            "lr is 0, nothing would be learned": self.lr == 0,
            f"milestones {steps} must be increasing": any(
                b <= a for a, b in itertools.pairwise(steps)
            ),
            "schedule 'multistep' needs milestones": self.schedule == "multistep" and not steps,
            "milestones have no effect with schedule 'cosine'": self.schedule == "cosine"
            and steps != (),
            f"warmup_epochs {self.warmup_epochs:g} must be fewer than epochs {self.epochs}": (
                self.warmup_epochs >= self.epochs
            ),
            "init 'generator' starts a decoder, but w_rec and w_tr are 0": (
                self.init == "generator" and not self.needs_decoder
            ),
            f"pretrained 'imagenet' does not exist for arch {self.arch!r}; give a file": (
                self.pretrained == "imagenet" and self.arch in NO_IMAGENET
            ),
            f"arch {self.arch!r} has no last stride of 1: set last_stride=2": (
                self.family != "resnet" and self.last_stride == 1
            ),
            f"drop_path has no effect with arch {self.arch!r}, which has no stochastic depth": (
                self.family == "resnet" and self.drop_path > 0
            ),
            f"pooling 'gem' needs maps without negative values, and those of arch {self.arch!r} "
            f"have some: set pooling=mean": self.family != "resnet" and self.pooling == "gem",
            "pretrained is empty: give 'none', 'imagenet', a path or a URI": not self.pretrained,
            f"crop_pad {self.crop_pad} must be below image_height and image_width "
            f"({self.image_height}x{self.image_width}), or a crop may show nothing of the image": (
                self.crop == "pad" and self.crop_pad >= min(self.image_size)
            ),
            "two_step separates ReID losses from texture losses: it needs w_id or w_tri, and "
            "w_rec or w_tr": (self.two_step and not (self.needs_identities and self.needs_decoder)),
            "cosine_from has no effect with schedule 'multistep'": (
                self.cosine_from > 0 and self.schedule == "multistep"
            ),
            f"cosine_from {self.cosine_from:g} must lie between the end of warm-up, "
            f"{self.warmup_epochs:g}, and epochs {self.epochs}": (
                self.cosine_from > 0 and not self.warmup_epochs <= self.cosine_from < self.epochs
            ),
            f"frozen_epochs {self.frozen_epochs} must be fewer than epochs {self.epochs}": (
                self.frozen_epochs >= self.epochs
            ),
            "frozen_epochs trains only the layers on top of the encoder: it needs w_id or w_tri": (
                self.frozen_epochs > 0 and not self.needs_identities
            ),
            "autoaugment needs images of one size, which crop 'translate_stored' does not give": (
                self.autoaugment > 0 and self.crop == "translate_stored"
            ),
            "stale_gradients has no effect without two_step": (
                self.stale_gradients and not self.two_step
            ),
            f"warmup 'exponential' reaches lr in 20 epochs: warmup_epochs {self.warmup_epochs:g} "
            "must be a whole number from 1 to 20": (
                self.warmup == "exponential" and self.warmup_epochs not in range(1, 21)
            ),
            "tr_triplets 'positions' has no effect: w_tr is 0": (
                self.tr_triplets == "positions" and self.w_tr == 0
            ),
            "tr_triplets 'positions' needs 4 images per person: images_per_identity is "
            f"{self.images_per_identity}": (
                self.tr_triplets == "positions" and self.images_per_identity != 4
            ),
            "crop 'translate_stored' is for ReID images only: it needs w_id or w_tri, and "
            "pit_every 0": (
                self.crop == "translate_stored"
                and (not self.needs_identities or self.pit_every > 0)
            ),
            "pit_every adds batches of L_Rec to ReID training: it needs w_rec, and w_id or w_tri": (
                self.pit_every > 0 and not (self.needs_identities and self.w_rec > 0)
            ),
            f"init '{self.init}' is for ReID training: it has no effect without w_id and w_tri": (
                self.init != "none" and not self.needs_identities
            ),
            "embedding 'bnneck' needs the identity loss, which trains it: w_id is 0": (
                self.embedding == "bnneck" and self.w_id == 0
            ),
            f"classifier {self.classifier!r} has no effect: w_id is 0": (
                self.classifier != "linear" and self.w_id == 0
            ),
            f"triplet {self.triplet!r} has no effect: w_tri is 0": (
                self.triplet != "hard" and self.w_tri == 0
            ),
            "classifier_scale and classifier_margin have no effect with classifier 'linear'": (
                self.classifier == "linear"
                and (self.classifier_scale, self.classifier_margin)
                != (Recipe.classifier_scale, Recipe.classifier_margin)
            ),
            f"margin {self.margin:g} has no effect with triplet {self.triplet!r}": (
                self.triplet != "hard" and self.margin != Recipe.margin
            ),
            "validation_draw has no effect: eval_every is 0": (
                self.validation_draw > 0 and not self.eval_every
            ),
            "texture_from 'copy' has no effect: w_rec and w_tr are 0": (
                self.texture_from == "copy" and not self.needs_decoder
            ),
            f"copy_queries {self.copy_queries} must divide texture_size {self.texture_size}": (
                self.texture_from == "copy" and self.texture_size % self.copy_queries != 0
            ),
            "copy_queries and copy_dim have no effect with texture_from 'regress'": (
                self.texture_from != "copy"
                and (self.copy_queries, self.copy_dim) != (Recipe.copy_queries, Recipe.copy_dim)
            ),
            "w_dense trains where colours are copied from: it needs texture_from 'copy'": (
                self.w_dense > 0 and self.texture_from != "copy"
            ),
            "w_dense needs w_rec and no identity losses: only PIT images have dense maps": (
                self.w_dense > 0 and (self.w_rec == 0 or self.needs_identities)
            ),
            f"w_dense needs a texture_size that divides 256, not {self.texture_size}": (
                self.w_dense > 0 and 256 % self.texture_size != 0
            ),
            "w_dense needs crop 'none', flip_textures 'mirror' and erasing_style 'mean'": (
                self.w_dense > 0
                and (self.crop, self.flip_textures, self.erasing_style)
                != ("none", "mirror", "mean")
            ),
            "autoaugment rotates and shears images but not their dense maps: not with w_dense": (
                self.w_dense > 0 and self.autoaugment > 0
            ),
            "w_tr needs identities: it needs w_id or w_tri": (
                self.w_tr > 0 and not self.needs_identities
            ),
            "w_distill is for ReID training: it needs w_id or w_tri": (
                self.w_distill > 0 and not self.needs_identities
            ),
            **self._texture_contradictions(),
        }

    def _texture_contradictions(self) -> dict[str, bool]:
        """The checks of fields that make texture losses cheaper."""
        changed = [name for name in _CHEAP_TEXTURES if getattr(self, name) != getattr(Recipe, name)]
        first = changed[0] if changed else ""
        groups, chosen = self.groups_per_batch, round(self.texture_share * self.groups_per_batch)
        least = 2 if self.w_tr else 1
        return {
            f"texture_share {self.texture_share:g} of {groups} "
            f"{'identities' if self.forms_triplets else 'images'} a batch is {chosen}: must be "
            f"{least} to {groups - 1}": (self.texture_share < 1 and not least <= chosen < groups),
            f"{first} has no effect: w_rec and w_tr are 0": (
                changed != [] and not self.needs_decoder
            ),
            f"{first} leaves pictures without any loss: it needs w_id or w_tri": (
                changed != [] and not self.needs_identities
            ),
            "train_decoder=false keeps the decoder of SAN-PG: it needs init 'generator', not "
            f"{self.init!r}": not self.train_decoder and self.init != "generator",
            "train_decoder=false and frozen_epochs leave texture losses nothing to train": (
                not self.train_decoder and self.frozen_epochs > 0
            ),
            f"texture_epochs {self.texture_epochs} must be fewer than epochs {self.epochs}": (
                self.texture_epochs >= self.epochs
            ),
            f"texture_epochs {self.texture_epochs} must be more than frozen_epochs "
            f"{self.frozen_epochs}, or no texture reaches the trunk": (
                0 < self.texture_epochs <= self.frozen_epochs
            ),
        }

    @property
    def family(self) -> Literal["resnet", "convnext", "swin"]:
        """Which kind of network SA-Enc is."""
        if self.arch in get_args(ConvNeXt):
            return "convnext"
        return "swin" if self.arch in get_args(Swin) else "resnet"

    @property
    def active_losses(self) -> tuple[str, ...]:
        """The terms that count, of "id", "tri", "distill", "rec", "tr" and "dense"."""
        terms = ("id", "tri", "distill", "rec", "tr", "dense")
        return tuple(t for t in terms if getattr(self, f"w_{t}") > 0)

    @property
    def needs_decoder(self) -> bool:
        """Whether a loss needs the decoder: SAN and SAN-PG yes, a baseline no."""
        return self.w_rec > 0 or self.w_tr > 0

    @property
    def needs_generator(self) -> bool:
        """Whether ReID training starts from SAN-PG or learns from its features."""
        return self.init in ("generator", "encoder") or self.w_distill > 0

    @property
    def needs_identities(self) -> bool:
        """Whether a loss needs identity labels: SAN and a baseline yes, SAN-PG no."""
        return self.w_id > 0 or self.w_tri > 0

    @property
    def forms_triplets(self) -> bool:
        """Whether batches are P identities of K images, which triplets need."""
        return self.w_tri > 0 or self.w_tr > 0

    @property
    def images_per_batch(self) -> int:
        """P * K where triplets are formed, else `batch_size`."""
        return (
            self.identities_per_batch * self.images_per_identity
            if self.forms_triplets
            else self.batch_size
        )

    @property
    def groups_per_batch(self) -> int:
        """P where triplets are formed, else `batch_size`: the units that a batch divides into."""
        return self.identities_per_batch if self.forms_triplets else self.batch_size

    @property
    def metric(self) -> Literal["cosine", "euclidean"]:
        """The distance for comparing embeddings."""
        by_angle = self.normalize_triplet or self.embedding == "bnneck"
        return "cosine" if by_angle or self.classifier != "linear" else "euclidean"

    @property
    def decoded_size(self) -> int:
        """Texels a side of what the decoder regresses: of the texture, or a texel a query."""
        return self.copy_queries if self.texture_from == "copy" else self.texture_size

    @property
    def image_size(self) -> tuple[int, int]:
        """(rows, columns) in pixels."""
        return self.image_height, self.image_width


_FIELD_TYPES: dict[str, Any] = get_type_hints(Recipe)
# Fields that leave some images without texture losses
_CHEAP_TEXTURES = ("texture_every", "texture_epochs", "texture_share")

_RANGES: dict[str, tuple[float, float]] = {
    "last_stride": (1, 2),
    "drop_path": (0, 0.9),
    "embedding_dim": (1, 65_536),
    "decoder_width": (0.05, 4),
    "image_height": (8, 4096),
    "image_width": (8, 4096),
    "texture_size": (2, 4096),
    "w_id": (0, 1e6),
    "w_tri": (0, 1e6),
    "w_rec": (0, 1e6),
    "w_tr": (0, 1e6),
    "w_dense": (0, 1e6),
    "w_distill": (0, 1e6),
    "texture_share": (0, 1),
    "texture_every": (1, 1_000_000),
    "texture_epochs": (0, 100_000),
    "copy_queries": (4, 128),
    "copy_dim": (8, 256),
    "label_smoothing": (0, 0.99),
    "classifier_scale": (1, 1e4),
    "classifier_margin": (0, 1),
    "margin": (0, 1e6),
    "tr_margin": (0, 1e6),
    "triplet_ramp_epochs": (0, 1e6),
    "identities_per_batch": (2, 4096),
    "images_per_identity": (2, 4096),
    "batch_size": (2, 65536),
    "epochs": (1, 100_000),
    "checkpoint_every": (1, 100_000),
    "eval_every": (0, 100_000),
    "validation_share": (0.01, 0.9),
    "validation_draw": (0, 1_000_000),
    "pit_every": (0, 1_000_000),
    "lr": (0, 10),
    "decoder_lr": (0, 10),
    "weight_decay": (0, 10),
    "gamma": (0, 1),
    "warmup_epochs": (0, 100_000),
    "clip_norm": (0, 1e6),
    "ema": (0, 0.99999),
    "cosine_from": (0, 100_000),
    "frozen_epochs": (0, 100_000),
    "texture_lr": (0, 10),
    "flip": (0, 1),
    "crop_pad": (0, 512),
    "erasing": (0, 1),
    "jitter": (0, 1),
    "greyscale": (0, 1),
    "autoaugment": (0, 1),
}


def _coerce_field(name: str, kind: Any, value: Any) -> Any:
    """`value` in the field's own type; whole numbers are accepted where a float is meant."""
    choices = get_args(kind) if get_origin(kind) is Literal else None
    if choices is not None:
        if value not in choices:
            raise ValueError(f"recipe {name} is {value!r}: must be one of {', '.join(choices)}")
        return value
    if get_origin(kind) is tuple:
        if isinstance(value, tuple | list) and all(type(item) is int for item in value):
            return tuple(value)
        raise ValueError(f"recipe {name} is {value!r}: must be whole numbers")
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"recipe {name} is {value!r}: must be of type {kind.__name__}")
    return value


def recipe_with_overrides(base: Recipe, words: str) -> Recipe:
    """`base` with the fields of `words` replaced, as in "lr=1e-4 epochs=3 milestones=40,80".

    Values are read as the field's type; booleans are spelt true and false. The new recipe is
    checked as a whole, so the order of the words does not matter.

    Raises:
        ValueError: a word is not `field=value`, names no field or a field twice, or its value
            does not parse.
    """
    changes: dict[str, Any] = {}
    for word in words.split():
        name, equals, text = word.partition("=")
        if not equals:
            raise ValueError(f"recipe override {word!r} is not of the form field=value")
        if name not in _FIELD_TYPES:
            close = difflib.get_close_matches(name.lower(), _FIELD_TYPES, n=1)
            hint = (
                f"; did you mean {close[0]!r}?" if close else f"; fields: {', '.join(_FIELD_TYPES)}"
            )
            raise ValueError(f"no recipe field {name!r}{hint}")
        if name in changes:
            raise ValueError(f"recipe field {name!r} is overridden twice")
        changes[name] = _parse_field(name, text)
    return dataclasses.replace(base, **changes)


def _parse_field(name: str, text: str) -> Any:
    kind = _FIELD_TYPES[name]
    if kind is bool:
        if text not in ("true", "false"):
            raise ValueError(f"recipe {name}={text!r}: must be true or false")
        return text == "true"
    try:
        if get_origin(kind) is tuple:
            return tuple(int(part) for part in text.split(",") if part)
        return kind(text) if kind in (int, float) else text
    except ValueError:
        wanted = {int: "a whole number", float: "a number"}.get(kind, "whole numbers like 40,80")
        raise ValueError(f"recipe {name}={text!r}: must be {wanted}") from None


def idle_settings(recipe: Recipe) -> list[str]:
    """Warnings about settings of a recipe that have no effect, a line each."""
    lines = []
    if late := [epoch for epoch in recipe.milestones if epoch >= recipe.epochs]:
        lines.append(
            f"milestones {', '.join(map(str, late))} have no effect: training ends after "
            f"{recipe.epochs} epochs"
        )
    if recipe.frozen_epochs and recipe.init == recipe.pretrained == "none":
        lines.append(
            f"frozen_epochs={recipe.frozen_epochs} freezes a trunk of random weights: pretrained"
            " and init are none"
        )
    if recipe.init != "none" and recipe.pretrained != "none":
        lines.append(f"pretrained {recipe.pretrained!r} is not used: init is {recipe.init!r}")
    return lines


def check_mirrored(word: str) -> None:
    """Raise ValueError unless a word is allowed for the setting of mirrored features."""
    if word not in MIRRORED:
        raise ValueError(f"mirrored {word!r} is not one of {', '.join(MIRRORED)}")


def from_fields(fields: Mapping[str, Any]) -> Recipe:
    """The recipe from JSON fields, saved by this version or an older one.

    An absent field takes its default, which keeps the older behaviour.

    Raises:
        ValueError: a field is unknown, one without a default is missing, or a value is wrong.
    """
    if unknown := sorted(set(fields) - set(_FIELD_TYPES)):
        raise ValueError(f"recipe has unknown fields {', '.join(unknown)}")
    required = {f.name for f in dataclasses.fields(Recipe) if f.default is dataclasses.MISSING}
    if missing := sorted(required - set(fields)):
        raise ValueError(f"recipe lacks the fields {', '.join(missing)}")
    return Recipe(**fields)
