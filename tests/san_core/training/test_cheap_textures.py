"""Fields of a recipe by which texture losses cost less: what is left out, and that nothing else is.

The tiny run has 6 batches an epoch.
"""

import io
import itertools

import pytest
import torch

from san_core.data.batches.augmentation import TextureTargets, normalise_images
from san_core.data.batches.loader import TexturedPart
from san_core.training import loop
from san_core.training.distributed import ALONE
from san_core.training.finiteness import FiniteFlags
from san_core.training.losses import feature_errors
from san_core.training.objective import Batch, loss_terms
from tests.san_core.training.tiny_run import tiny_data, tiny_model, tiny_recipe, tiny_teacher

pytestmark = pytest.mark.usefixtures("one_thread")


def train(settings, *, model=None, epochs=None, **options):
    """The network, and the reports of its training."""
    model = model or tiny_model(settings)
    if settings.w_distill:
        options = {"teacher": tiny_teacher(), **options}
    data = tiny_data(pit=settings.pit_every > 0)
    made = loop.fit(model, data, settings, seed=5, device="cpu", **options)
    return model, list(itertools.islice(made, epochs))


def weights(model):
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


def count_decoded(model):
    """A list that gets the number of images of every pass through the decoder."""
    counts = []
    model.decoder.register_forward_hook(lambda _, given, __: counts.append(len(given[0][3])))
    return counts


def test_a_share_of_the_batches_has_textures():
    settings = tiny_recipe("demo", "w_tr=0.1 texture_every=4")
    model = tiny_model(settings)
    counts = count_decoded(model)
    _, reports = train(settings, model=model, epochs=2)
    assert counts == [8] * 3  # batches 0, 4 and 8 of 12
    assert [list(r.terms) for r in reports] == [["id", "tri", "rec", "tr"]] * 2


def test_the_loss_is_a_mean_over_all_batches_and_a_term_over_those_that_have_it():
    settings = tiny_recipe("demo", "texture_every=2 triplet_ramp_epochs=0")
    _, (report, *_) = train(settings, epochs=1)
    terms = report.terms
    expected = settings.w_id * terms["id"] + settings.w_tri * terms["tri"]
    assert report.loss == pytest.approx(expected + settings.w_rec * terms["rec"] / 2, abs=1e-5)


def test_textures_count_in_the_first_epochs_alone():
    settings = tiny_recipe("demo", "texture_epochs=1 pit_every=2")
    model, decoders = tiny_model(settings), []
    counts = count_decoded(model)
    made = loop.fit(model, tiny_data(pit=True), settings, seed=5, device="cpu")
    terms = []
    for report in made:
        terms.append(list(report.terms))
        decoders.append(weights(model.decoder))
    assert terms == [["id", "tri", "rec", "pit"], ["id", "tri"], ["id", "tri"]]
    assert counts == [8] * 9  # 6 batches and 3 of PIT
    assert decoders[0] == decoders[1] == decoders[2]


def test_the_decoder_runs_on_a_share_of_the_identities():
    settings = tiny_recipe("demo", "w_tr=0.1 texture_share=0.5 pit_every=6")
    model = tiny_model(settings)
    counts = count_decoded(model)
    _, (report, *_) = train(settings, model=model, epochs=1)
    assert counts == [4] * 6 + [8]  # of PIT all
    assert list(report.terms) == ["id", "tri", "rec", "tr", "pit"]


@pytest.mark.parametrize("words", ["", "texture_from=copy copy_queries=8 copy_dim=8"])
def test_the_textures_of_a_share_are_those_of_its_images(words):
    model = tiny_model(tiny_recipe("demo", words)).eval()
    images = torch.randn(6, 3, 32, 16, generator=torch.Generator().manual_seed(0))
    rows = torch.tensor([1, 4])
    part, whole = model(images, textured=rows), model(images)
    torch.testing.assert_close(part.texture, whole.texture[rows])
    torch.testing.assert_close(part.maps[-1], whole.maps[-1][rows])
    torch.testing.assert_close(part.logits, whole.logits)


def test_texture_losses_of_a_share_are_those_of_its_images_alone():
    settings = tiny_recipe("demo", "w_tr=0.1")
    data, flags, rows = tiny_data(), FiniteFlags(), torch.tensor([2, 3, 6, 7])
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    images = torch.randn(8, 3, 32, 16, generator=torch.Generator().manual_seed(0))
    textures = normalise_images(
        torch.from_numpy(data.textures[labels.numpy()[rows.numpy()]].copy())
    )
    targets = TextureTargets(textures, torch.ones(4, dtype=torch.bool))
    part = TexturedPart(rows, rows[:0], labels[rows])
    model = tiny_model(settings).eval()
    found = loss_terms(
        model(images, textured=rows),
        Batch(images, labels, targets, part=part),
        settings,
        ALONE,
        flags,
    )
    alone = loss_terms(
        model(images[rows]), Batch(images[rows], labels[rows], targets), settings, ALONE, flags
    )
    for term in ("rec", "tr"):
        torch.testing.assert_close(found[term], alone[term])
    assert found["id"] != alone["id"]


KEPT = "init=generator train_decoder=false"


@pytest.mark.parametrize("words", ["", "two_step=true", "ema=0.5 pit_every=2"])
def test_a_decoder_that_is_not_trained_stays_as_it_is_and_teaches_the_encoder(words):
    settings = tiny_recipe("demo", f"w_tr=0.1 {KEPT} {words}")
    before = weights(tiny_model(settings).decoder)
    model, _ = train(settings, epochs=1)
    assert weights(model.decoder) == before
    assert all(p.grad is None for p in model.decoder.parameters())
    lighter, _ = train(tiny_recipe("demo", f"w_tr=0.1 w_rec=0.01 {KEPT} {words}"), epochs=1)
    assert weights(lighter.encoder) != weights(model.encoder)


@pytest.mark.parametrize("kind", ["two_step=false", "two_step=true"])
def test_a_decoder_that_is_not_trained_has_no_optimiser(kind):
    states = []
    settings = tiny_recipe("demo", f"{KEPT} {kind} epochs=2")
    model, _ = train(settings, epochs=1, on_state=states.append)
    decoder, every = ([*part.parameters()] for part in (model.decoder, model))
    moved = states[0]["optimisation"]["optimizer"]["state"]
    assert len(moved) == len(every) - len(decoder)


@pytest.mark.parametrize("words", ["w_rec=0", "two_step=true", "pit_every=2"])
def test_features_of_a_teacher_are_learned_and_it_stays_as_it_is(words):
    settings = tiny_recipe("demo", f"w_distill=20 epochs=4 {words}")
    teacher = tiny_teacher()
    before = weights(teacher)
    model, reports = train(settings, teacher=teacher)
    assert weights(teacher) == before
    assert all(p.grad is None for p in teacher.parameters())
    assert reports[-1].terms["distill"] < 0.5 * reports[0].terms["distill"]
    assert weights(model.regressor) != weights(tiny_model(settings).regressor)
    plain, _ = train(tiny_recipe("demo", f"epochs=4 {words}"))
    assert weights(plain.encoder) != weights(model.encoder)


def test_a_network_that_is_its_own_teacher_has_nothing_to_learn():
    settings = tiny_recipe("demo-baseline", "w_distill=1")
    model, flags = tiny_model(settings).eval(), FiniteFlags()
    with torch.no_grad():
        model.regressor.weight.copy_(torch.eye(model.encoder.channels[3])[:, :, None, None])
        model.regressor.bias.zero_()
    images = torch.randn(4, 3, 32, 16, generator=torch.Generator().manual_seed(0))
    hints = model.encoder.stage_maps(images)[3]
    batch = Batch(images, torch.tensor([0, 0, 1, 1]), None, hints=hints)
    found = loss_terms(model(images), batch, settings, ALONE, flags)["distill"]
    assert found.item() == pytest.approx(0, abs=1e-12)
    apart = loss_terms(model(images), batch._replace(hints=hints + 2), settings, ALONE, flags)
    assert apart["distill"].item() == pytest.approx(2**2)


@pytest.mark.parametrize(
    ("words", "teacher", "message"),
    [
        ("w_distill=1", None, "recipe w_distill is 1, but there is no teacher"),
        ("", "", "recipe w_distill is 0, but there is a teacher"),
        (
            "w_distill=1",
            "arch=resnet18 image_height=64 image_width=32",
            r"maps of one size: resnet18 \(f_e4 512 channels, stride 16\) there, resnet10_quarter",
        ),
    ],
)
def test_a_teacher_and_its_weight_come_together(words, teacher, message):
    settings = tiny_recipe("demo-baseline", words)
    with pytest.raises(ValueError, match=message):
        train(settings, teacher=None if teacher is None else tiny_teacher(teacher))


def test_features_of_other_sizes_are_no_pair():
    with pytest.raises(ValueError, match=r"L_Distill: features are \(2, 3, 4, 4\) but targets"):
        feature_errors(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 5))


@pytest.mark.parametrize("batches", [2, 8])
@pytest.mark.parametrize(
    "words",
    [
        "texture_every=4 ema=0.9",
        "texture_epochs=1 two_step=true",
        f"{KEPT} texture_share=0.5",
        "w_distill=1",
    ],
)
def test_a_run_that_was_stopped_ends_with_the_same_bytes(words, batches):
    settings = tiny_recipe("demo", f"w_tr=0.1 {words}")
    undisturbed, reports = train(settings)
    states, asked = [], itertools.count(1)

    def keep(state):
        torch.save(state, buffer := io.BytesIO())
        states.append(io.BytesIO(buffer.getvalue()))

    with pytest.raises(loop.TrainingStopped):
        train(settings, on_state=keep, stop=lambda: next(asked) == batches)
    state = torch.load(states[-1], weights_only=True)
    resumed, rest = train(settings, model=tiny_model(settings, seed=77), state=state)
    assert weights(resumed) == weights(undisturbed)
    assert [(r.loss, r.terms) for r in rest] == [(r.loss, r.terms) for r in reports[-len(rest) :]]
