import copy
from itertools import islice

import pytest
import torch
from torch import nn

from san_core.training import optimisation
from san_core.training.finiteness import FiniteFlags
from san_core.training.loop import fit
from tests.san_core.training.tiny_run import tiny_data, tiny_model, tiny_recipe

pytestmark = pytest.mark.usefixtures("one_thread")

IMAGES = torch.randn(4, 3, 32, 16, generator=torch.Generator().manual_seed(0))
WEIGHTS = {"id": 1.0, "tri": 0.5, "rec": 2.0, "tr": 0.1}
# Biases before a batch normalisation have no gradient but rounding: Adam makes whole steps of it.
CANCELLED = ("encoder.head.0.bias", "decoder.reduce.0.bias", "decoder.skips")


def made(words, *, scale=None):
    """Model and optimisation, with the learning rates at their peak; losses scaled if asked."""
    settings = tiny_recipe("demo", f"w_tr=0.1 {words}")
    model = tiny_model(settings).train()
    scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)
    steps = optimisation.make_optimisation(model, settings, scaler)
    steps.set_progress(settings.warmup_epochs)
    return settings, model, steps


def terms_of(model):
    """Four smooth terms that need all of the network, in place of the real losses."""
    output = model(IMAGES)
    return {
        "id": output.logits.square().mean(),
        "tri": output.compared.square().mean(),
        "rec": output.texture.square().mean(),
        "tr": sum(m.square().mean() for m in output.maps),
    }


def assert_same(model, twin):
    for (name, value), (_, expected) in zip(
        model.named_parameters(), twin.named_parameters(), strict=True
    ):
        if not (name.startswith(CANCELLED) and name.endswith("bias")):
            torch.testing.assert_close(value, expected, atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize(
    ("name", "optimizer", "options"),
    [
        ("adam", torch.optim.Adam, {}),
        ("amsgrad", torch.optim.Adam, {"amsgrad": True}),
        ("adamw", torch.optim.AdamW, {}),
    ],
)
def test_a_joint_step_is_one_optimiser_on_the_weighted_sum(name, optimizer, options):
    settings, model, steps = made(f"optimizer={name} decoder_lr=1e-4 weight_decay=0.01")
    _, twin, _ = made("")
    decoder = {id(p) for p in twin.decoder.parameters()}
    theirs = optimizer(
        [
            {"params": [p for p in twin.parameters() if id(p) not in decoder], "lr": settings.lr},
            {"params": list(twin.decoder.parameters()), "lr": 1e-4},
        ],
        weight_decay=0.01,
        foreach=False,
        **options,
    )
    for _ in range(2):
        loss = steps.step(terms_of(model), WEIGHTS, FiniteFlags())
        found = terms_of_sum(twin)
        theirs.zero_grad()
        found.backward()
        theirs.step()
        assert loss.item() == pytest.approx(found.item(), rel=1e-4)
    assert_same(model, twin)


def terms_of_sum(model):
    return sum(WEIGHTS[name] * term for name, term in terms_of(model).items())


def test_two_steps_take_both_gradients_at_the_same_weights():
    settings, model, steps = made("two_step=true texture_lr=1e-4 optimizer=amsgrad")
    _, twin, _ = made("two_step=true")
    decoder = list(twin.decoder.parameters())
    encoder = list(twin.encoder.parameters())
    reid = torch.optim.Adam(
        [*encoder, *twin.classifier.parameters()],
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        amsgrad=True,
    )
    of_encoder = torch.optim.Adam(encoder, lr=1e-4, betas=(0.5, 0.999))
    of_decoder = torch.optim.Adam(decoder, lr=1e-4, betas=(0.5, 0.999))
    for _ in range(3):
        steps.step(terms_of(model), WEIGHTS, FiniteFlags())
        # the obvious way: a network for each loss, before any weight moves
        other = copy.deepcopy(twin)
        first, second = terms_of(twin), terms_of(other)
        twin.zero_grad()
        (WEIGHTS["id"] * first["id"] + WEIGHTS["tri"] * first["tri"]).backward()
        other.zero_grad()
        (WEIGHTS["rec"] * second["rec"] + WEIGHTS["tr"] * second["tr"]).backward()
        reid.step()
        for parameter, same in zip(twin.parameters(), other.parameters(), strict=True):
            parameter.grad = same.grad
        of_encoder.step()
        of_decoder.step()
    assert_same(model, twin)


class Chain(nn.Module):
    """Two numbers that an encoder multiplies with, one after the other, and a decoder's."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.ParameterList([nn.Parameter(torch.tensor(2.0)) for _ in range(2)])
        self.decoder = nn.ParameterList([nn.Parameter(torch.tensor(5.0))])


@pytest.mark.parametrize("is_stale", [True, False])
def test_stale_gradients_are_of_old_activations_and_of_weights_that_moved(is_stale):
    settings = tiny_recipe("demo", f"two_step=true stale_gradients={str(is_stale).lower()}")
    model = Chain()
    (first, second), (last,) = model.encoder, model.decoder
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    steps = optimisation.TwoStepOptimisation(model, settings, scaler)
    steps.set_progress(settings.warmup_epochs)
    inner = 3 * first
    outer = inner * second
    steps.step({"id": outer, "rec": outer * last}, {"id": 1.0, "rec": 1.0}, FiniteFlags())
    # Adam's first step is one learning rate long: 2 becomes 2 - lr by the identity loss
    moved = 2 - settings.lr if is_stale else 2
    by_textures = steps._texture.moved
    assert by_textures[0].grad.item() == pytest.approx(3 * moved * 5, rel=1e-6)  # 3 x second x last
    assert by_textures[1].grad.item() == pytest.approx(3 * 2 * 5)  # what second was multiplied with
    assert first.item() == pytest.approx(2 - settings.lr - settings.texture_lr, rel=1e-6)


def test_the_learning_rate_of_textures_is_constant_in_two_steps():
    _, model, steps = made("two_step=true texture_lr=1e-3 weight_decay=0")
    steps.set_progress(0.0)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    steps.step(terms_of(model), WEIGHTS, FiniteFlags())
    moved = {n for n, p in model.named_parameters() if not torch.equal(before[n], p)}
    trunk = {n for n in before if n.startswith(("encoder.", "decoder."))}
    head = {n for n in before if n.startswith("encoder.head.")}
    assert moved == trunk - head  # textures teach neither the embedding nor the classifier


def test_a_batch_of_textures_alone_is_the_texture_step_of_two():
    _, model, steps = made("two_step=true texture_lr=1e-3")
    before = model.classifier.weight.detach().clone()
    loss = steps.step({"rec": terms_of(model)["rec"]}, WEIGHTS, FiniteFlags())
    assert loss.item() > 0
    assert torch.equal(before, model.classifier.weight)


@pytest.mark.parametrize("words", ["", "two_step=true"])
def test_clipped_gradients_are_at_most_as_long_as_asked(words):
    _, model, steps = made(f"clip_norm=1e-3 {words}")
    steps.step(terms_of(model), WEIGHTS, FiniteFlags())
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = torch.stack([g.norm() for g in gradients]).norm()
    assert norm.item() == pytest.approx(1e-3, rel=1e-3)


def test_gradients_shorter_than_that_are_left_alone():
    _, clipped, steps = made("clip_norm=1000")
    _, plain, others = made("")
    steps.step(terms_of(clipped), WEIGHTS, FiniteFlags())
    others.step(terms_of(plain), WEIGHTS, FiniteFlags())
    for one, other in zip(clipped.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("words", ["", "two_step=true"])
@pytest.mark.parametrize("clip", ["clip_norm=0", "clip_norm=0.01"])
def test_losses_scaled_for_float16_give_the_same_steps(words, clip):
    _, model, steps = made(f"{words} {clip}", scale=1024.0)
    _, twin, plain = made(f"{words} {clip}")
    for _ in range(2):
        loss = steps.step(terms_of(model), WEIGHTS, FiniteFlags())
        assert loss.item() == pytest.approx(
            plain.step(terms_of(twin), WEIGHTS, FiniteFlags()).item(), rel=1e-4
        )
    assert_same(model, twin)


@pytest.mark.parametrize("words", ["", "two_step=true", "clip_norm=1"])
def test_gradients_that_overflow_float16_are_skipped_and_the_scale_is_halved(words):
    _, model, steps = made(words, scale=1024.0)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    huge = {name: term * 1e38 for name, term in terms_of(model).items()}
    steps.step(huge, WEIGHTS, FiniteFlags())
    assert all(torch.equal(before[n], p) for n, p in model.named_parameters())
    assert steps.state_dict()["scaler"]["scale"] == 512.0


@pytest.mark.parametrize("words", ["", "two_step=true"])
def test_a_restored_optimisation_goes_on_alike(words):
    _, model, steps = made(words)
    steps.step(terms_of(model), WEIGHTS, FiniteFlags())
    _, other, fresh = made(words)
    other.load_state_dict(model.state_dict())
    fresh.load_state_dict(copy.deepcopy(steps.state_dict()))
    for network, its in ((model, steps), (other, fresh)):
        its.step(terms_of(network), WEIGHTS, FiniteFlags())
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    assert all(torch.equal(one, another) for one, another in pairs)


def test_parameters_belong_to_one_group():
    _, model, _ = made("")
    rest, decoder = optimisation._split_parameters(model)
    assert {id(p) for p in rest} | {id(p) for p in decoder} == {id(p) for p in model.parameters()}
    assert not {id(p) for p in rest} & {id(p) for p in decoder}
    assert all(isinstance(p, nn.Parameter) for p in rest)


@pytest.mark.parametrize("words", ["", "two_step=true"])
def test_a_gradient_that_lies_otherwise_than_its_weight_is_no_step(monkeypatch, words):
    _, model, steps = made(words)
    weight = model.encoder.layer4[0].conv1.weight
    before = weight.detach().clone()
    other = torch.empty(weight.shape).to(memory_format=torch.channels_last)
    assert other.stride() != weight.stride()

    def lay_otherwise(parameters, *_):
        for parameter in parameters:
            if parameter is weight:
                parameter.grad = other.copy_(parameter.grad)

    monkeypatch.setattr(optimisation, "_clip_gradients", lay_otherwise)
    with pytest.raises(AssertionError, match="gradient of strides"):
        steps.step(terms_of(model), WEIGHTS, FiniteFlags())
    assert torch.equal(weight, before)


def test_dimensions_of_one_element_have_no_order():
    weight = nn.Parameter(torch.zeros(4, 3, 1, 1))
    weight.grad = torch.zeros(4, 3, 1, 1).to(memory_format=torch.channels_last)
    assert weight.grad.stride() != weight.stride()
    optimisation._check_strides([weight])


def test_a_clipped_gradient_that_is_not_finite_is_noted():
    _, model, steps = made("clip_norm=1")
    flags = FiniteFlags()
    huge = {name: term * float("inf") for name, term in terms_of(model).items()}
    steps.step(huge, WEIGHTS, flags)
    assert flags.stacked().tolist() == [False]
    assert flags.name_of(0) == "the gradient"


def is_trunk(name):
    return name.startswith("encoder.") and not name.startswith(
        ("encoder.head.", "encoder.pooling.")
    )


def copied(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("words", ["w_tr=0.1", "two_step=true", "embedding=bnneck pooling=gem"])
def test_a_frozen_trunk_stays_as_it_is_while_all_else_learns_and_then_learns_too(words):
    settings = tiny_recipe("demo", f"frozen_epochs=1 warmup_epochs=0 {words}")
    model = tiny_model(settings)
    reports = fit(model, tiny_data(), settings, seed=5, device="cpu")
    begin, frozen, free = copied(model), *(copied(model) for _ in islice(reports, 2))
    moved = {name for name in begin if not torch.equal(begin[name], frozen[name])}
    assert moved
    assert not any(is_trunk(name) for name in moved)  # running statistics neither
    learned = {name for name, _ in model.named_parameters() if not is_trunk(name)}
    fixed = {"encoder.head.bias"} if "bnneck" in words else set()
    assert learned - moved == fixed
    later = {name for name in begin if not torch.equal(frozen[name], free[name])}
    assert {name for name in begin if is_trunk(name)} <= later


def test_a_trunk_that_learns_is_in_the_mode_of_its_encoder():
    encoder = tiny_model(tiny_recipe()).eval().encoder
    optimisation.set_trunk_frozen(encoder, frozen=False)
    assert not encoder.layer1.training
    encoder.train()
    optimisation.set_trunk_frozen(encoder, frozen=True)
    assert encoder.head.training
    assert not encoder.layer1.training
    assert not any(p.requires_grad for p in encoder.layer4.parameters())
    optimisation.set_trunk_frozen(encoder, frozen=False)
    assert encoder.layer1.training
    assert all(p.requires_grad for p in encoder.parameters())
