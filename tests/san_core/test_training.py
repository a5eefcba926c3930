import dataclasses
import io
import itertools
import re

import numpy as np
import pytest
import torch
from torch import nn

from san_core import training
from san_core.data import augmentation
from tests.san_core.tiny_run import SHIPPED, left_for_right, tiny_data, tiny_model, tiny_recipe


def run(settings, data=None, *, seed=5, model=None, state=None, states=None, epochs=None):
    """Trains, keeps every state as saved bytes, and returns model and reports."""
    model = model or tiny_model(settings)

    def keep(value):
        if states is not None:
            buffer = io.BytesIO()
            torch.save(value, buffer)
            states.append(buffer.getvalue())

    made = training.fit(
        model, data or tiny_data(), settings, seed=seed, device="cpu", state=state, on_state=keep
    )
    reports = list(itertools.islice(made, epochs))
    return model, reports


def weights(model):
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


def read(state):
    return torch.load(io.BytesIO(state), weights_only=True)


NAMES = ["demo", "demo-baseline", "demo-pg"]


@pytest.mark.parametrize("name", NAMES)
def test_losses_fall(name):
    settings = tiny_recipe(name, "epochs=8 triplet_ramp_epochs=0")
    _, reports = run(settings)
    assert reports[-1].loss < reports[0].loss
    assert list(reports[0].terms) == list(settings.losses)
    assert [r.epoch for r in reports] == list(range(1, 9))
    assert all(r.images_per_second > 0 and r.seconds > 0 for r in reports)


@pytest.mark.parametrize("name", NAMES)
def test_two_runs_of_one_seed_give_the_same_bytes(name):
    settings = tiny_recipe(name, "w_tr=0.1" if name == "demo" else "")
    first, _ = run(settings)
    torch.manual_seed(99)
    np.random.seed(99)
    second, _ = run(settings)
    assert weights(first) == weights(second)
    other, _ = run(settings, seed=6)
    assert weights(other) != weights(first)


@pytest.mark.parametrize(
    ("words", "stopped_after"),
    [
        ("optimizer=adam", 1),
        ("optimizer=adam", 2),
        (f"optimizer=adam {SHIPPED}", 2),
        ("optimizer=amsgrad", 1),
        ("optimizer=adamw", 2),
    ],
)
def test_a_resumed_run_ends_with_the_same_bytes(words, stopped_after):
    settings = tiny_recipe("demo", f"w_tr=0.1 {words}")
    undisturbed, reports = run(settings)
    states = []
    run(settings, states=states, epochs=stopped_after)
    assert len(states) == stopped_after
    # the network a resumed process builds first has other weights
    resumed, rest = run(settings, model=tiny_model(settings, seed=77), state=read(states[-1]))
    assert weights(resumed) == weights(undisturbed)
    assert [r.terms for r in rest] == [r.terms for r in reports[stopped_after:]]
    assert rest[0].epoch == stopped_after + 1


def test_a_finished_run_has_nothing_left_to_do():
    settings, states = tiny_recipe("demo-baseline"), []
    model, _ = run(settings, states=states)
    resumed, reports = run(settings, model=tiny_model(settings, seed=77), state=read(states[-1]))
    assert reports == []
    assert weights(resumed) == weights(model)


def test_states_come_at_their_interval_and_at_the_end():
    states = []
    run(tiny_recipe("demo-baseline", "epochs=5 checkpoint_every=2"), states=states)
    assert [read(state)["epoch"] for state in states] == [2, 4, 5]


def test_training_leaves_the_global_generators_alone():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    run(tiny_recipe("demo", "epochs=2"))
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])


@pytest.mark.parametrize("plan", ["", SHIPPED])
def test_every_parameter_learns(plan):
    settings = tiny_recipe("demo", f"w_tr=0.1 epochs=2 {plan}")
    model = tiny_model(settings)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    run(settings, model=model)
    unmoved = [n for n, p in model.named_parameters() if torch.equal(before[n], p)]
    assert unmoved == []


def test_the_decoder_has_its_own_learning_rate():
    settings = tiny_recipe("demo", "decoder_lr=0 weight_decay=0 epochs=2")
    model = tiny_model(settings)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    run(settings, model=model)
    unmoved = {n for n, p in model.named_parameters() if torch.equal(before[n], p)}
    assert unmoved == {n for n in before if n.startswith("decoder.")}


def test_weights_scale_the_terms():
    settings = tiny_recipe("demo", "triplet_ramp_epochs=0 w_id=2 w_tri=3 w_rec=5 w_tr=7 epochs=2")
    _, reports = run(settings, epochs=1)
    terms = reports[0].terms
    expected = 2 * terms["id"] + 3 * terms["tri"] + 5 * terms["rec"] + 7 * terms["tr"]
    assert reports[0].loss == pytest.approx(expected, rel=1e-5)


def test_the_triplet_ramp_starts_at_nothing():
    settings = tiny_recipe("demo-baseline", "triplet_ramp_epochs=4 w_id=1 lr=1e-9")
    _, reports = run(settings)
    shares = [(r.loss - r.terms["id"]) / r.terms["tri"] for r in reports]
    steps = 6  # 48 images in batches of 8
    expected = [(epoch + (steps - 1) / steps / 2) / 4 for epoch in range(3)]  # means over steps
    assert shares == pytest.approx(expected, rel=0.1)


def test_one_step_agrees_with_the_obvious_one():
    settings = tiny_recipe(
        "demo-pg", "epochs=2 warmup_epochs=0 flip=0 erasing=0 decoder_lr=1e-3 batch_size=48"
    )
    data = tiny_data()
    model, twin = tiny_model(settings), tiny_model(settings)
    run(settings, data, model=model, epochs=1)
    images = augmentation.normalise(torch.tensor(data.images))
    targets = torch.tensor(data.textures[data.texture_index]).permute(0, 3, 1, 2) / 127.5 - 1
    optimizer = torch.optim.Adam(
        [
            {"params": twin.encoder.parameters(), "lr": settings.lr},
            {"params": twin.decoder.parameters(), "lr": settings.decoder_lr},
        ]
    )
    nn.functional.l1_loss(twin.train()(images).texture, targets).backward()
    optimizer.step()
    # Adam's first step is about lr whatever the gradient, so a gradient near 0 may go either way;
    # batch normalisation cancels the biases before it, whose gradient is nothing but rounding
    cancelled = re.compile(r"decoder\.(reduce|skips\.\d)\.0\.bias")
    close = [
        torch.isclose(value, twin.get_parameter(name), atol=1e-4, rtol=1e-4).flatten()
        for name, value in model.named_parameters()
        if not cancelled.fullmatch(name)
    ]
    assert torch.cat(close).float().mean() > 0.99


def test_flipped_images_without_a_mirror_do_not_count():
    settings = tiny_recipe("demo-pg", "flip=1")
    _, reports = run(settings, tiny_data(mirror=False), epochs=1)
    assert reports[0].terms["rec"] == 0
    _, reports = run(settings, tiny_data(mirror=True), epochs=1)
    assert reports[0].terms["rec"] > 0


def test_a_baseline_reads_no_textures():
    settings = tiny_recipe("demo-baseline")
    with_textures, _ = run(settings)
    without, _ = run(settings, tiny_data(textures=False, mirror=False))
    assert weights(with_textures) == weights(without)


def test_memory_maps_train_as_arrays_do(tmp_path):
    settings, data = tiny_recipe("demo", "epochs=2 warmup_epochs=0"), tiny_data()
    mapped = {}
    for name in ("images", "textures"):
        np.save(tmp_path / f"{name}.npy", getattr(data, name))
        mapped[name] = np.load(tmp_path / f"{name}.npy", mmap_mode="r")
    from_maps, _ = run(settings, dataclasses.replace(data, **mapped), epochs=1)
    from_arrays, _ = run(settings, data, epochs=1)
    assert weights(from_maps) == weights(from_arrays)


def test_learning_rates_by_hand():
    cosine = tiny_recipe("demo", "epochs=10 warmup_epochs=2")
    shares = [training.learning_rate(cosine, p) for p in (0, 1, 2, 6, 10)]
    assert shares == pytest.approx([0, 0.5, 1, 0.5, 0])
    steps = tiny_recipe("demo", "epochs=10 schedule=multistep milestones=4,6 gamma=0.5")
    shares = [training.learning_rate(steps, p) for p in (0.5, 3.9, 4, 5.5, 6, 9)]
    assert shares == pytest.approx([0.5, 1, 0.5, 0.5, 0.25, 0.25])


@pytest.mark.parametrize(
    ("name", "words", "poison", "message"),
    [
        ("demo", "", "classifier.weight", "epoch 1 batch 1: L_ID is not finite"),
        ("demo", "w_id=0", "encoder.head.0.weight", "epoch 1 batch 1: L_Triplet is not finite"),
        ("demo-pg", "", "decoder.head.1.weight", "epoch 1 batch 1: L_Rec is not finite"),
        ("demo", "w_rec=0 w_tr=1", "decoder.blocks.1.3.weight", "batch 1: L_TR on f_d2 is not fin"),
    ],
)
def test_a_loss_that_is_not_finite_stops_the_run(name, words, poison, message):
    settings = tiny_recipe(name, words)
    model = tiny_model(settings)
    with torch.no_grad():
        model.get_parameter(poison).fill_(float("nan"))
    with pytest.raises(ValueError, match=message):
        run(settings, model=model)


def test_a_run_that_breaks_later_names_its_epoch():
    settings = tiny_recipe("demo-pg")
    model = tiny_model(settings)
    made = training.fit(model, tiny_data(), settings, seed=0, device="cpu")
    next(made)
    with torch.no_grad():
        model.decoder.head[1].weight.fill_(float("inf"))
    with pytest.raises(ValueError, match="epoch 2 batch 1: L_Rec is not finite"):
        next(made)


@pytest.mark.parametrize(
    ("settings", "data", "message"),
    [
        (tiny_recipe("demo", "image_height=64"), {}, "images are 32x16, the recipe says 64x16"),
        (tiny_recipe(), {"textures": False}, "losses id, tri, rec need textures, there are none"),
        (tiny_recipe("demo", "texture_size=32"), {}, "textures are 16x16, the recipe says texture"),
        (tiny_recipe(), {"labels": False}, "losses id, tri, rec need labels, there are none"),
        (
            tiny_recipe("demo", "identities_per_batch=9"),
            {},
            "identities_per_batch is 9, but there are 8 identities",
        ),
    ],
)
def test_data_that_do_not_fit_the_recipe_are_refused_by_the_call(settings, data, message):
    model = tiny_model(settings)
    with pytest.raises(ValueError, match=re.escape(message)):
        training.fit(model, tiny_data(**data), settings, seed=0, device="cpu")


def test_a_model_of_another_recipe_is_refused():
    settings = tiny_recipe("demo-baseline")
    with pytest.raises(ValueError, match="not of this recipe: only one of them has a decoder"):
        training.fit(tiny_model(tiny_recipe()), tiny_data(), settings, seed=0, device="cpu")


def test_a_model_of_other_identities_is_refused():
    settings, data = tiny_recipe("demo-baseline"), tiny_data()
    fewer = dataclasses.replace(data, labels=data.labels % 7)
    with pytest.raises(ValueError, match="the model has 8 classes, the data 7 identities"):
        training.fit(tiny_model(settings), fewer, settings, seed=0, device="cpu")


@pytest.mark.parametrize(
    ("words", "seed", "message"),
    [
        ("lr=1e-3", 5, "the state is of another recipe: lr 0.003 there, 0.001 here"),
        ("", 6, "the state is of another run: seed 5 there, 6 here"),
    ],
)
def test_a_state_of_another_run_is_refused(words, seed, message):
    states = []
    run(tiny_recipe("demo-baseline"), states=states, epochs=1)
    changed = tiny_recipe("demo-baseline", words)
    with pytest.raises(ValueError, match=message):
        run(changed, seed=seed, state=read(states[0]))


def test_a_state_of_another_precision_is_refused(monkeypatch):
    settings, states = tiny_recipe("demo-baseline"), []
    run(settings, states=states, epochs=1)
    monkeypatch.setattr(training, "_precision", lambda _: torch.bfloat16)
    message = "another run: precision 'torch.float32' there, 'torch.bfloat16' here"
    with pytest.raises(ValueError, match=message):
        run(settings, state=read(states[0]))


# float16 on the smallest network alone: processors are very slow with it
@pytest.mark.parametrize(
    ("name", "half"),
    [*((name, torch.bfloat16) for name in NAMES), ("demo-baseline", torch.float16)],
)
def test_training_in_half_precision_goes_as_in_full(monkeypatch, name, half):
    settings = tiny_recipe(name, "epochs=2 triplet_ramp_epochs=0" + " w_tr=0.1" * (name == "demo"))
    data = tiny_data()
    rows = slice(None, None, 3)  # two images a person
    data = dataclasses.replace(
        data,
        images=data.images[rows],
        labels=data.labels[rows],
        texture_index=data.texture_index[rows],
    )
    _, full = run(settings, data)
    monkeypatch.setattr(training, "_precision", lambda _: half)
    states = []
    model, reports = run(settings, data, states=states)
    resumed, _ = run(settings, data, model=tiny_model(settings, seed=77), state=read(states[0]))
    assert [r.loss for r in reports] == pytest.approx([r.loss for r in full], rel=0.2)
    assert [r.loss for r in reports] != [r.loss for r in full]
    assert weights(resumed) == weights(model)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert read(states[1])["optimizer"]["state"][0]["step"] > 1  # float16 skips some at first
    assert bool(read(states[0])["scaler"]) == (half is torch.float16)


def test_gpus_compute_in_bfloat16_only_where_it_is_not_emulated(monkeypatch):
    def old_gpu(including_emulation=True):
        return including_emulation

    def new_gpu(including_emulation=True):
        return True

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", old_gpu)
    assert training._precision(torch.device("cuda")) is torch.float16
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", new_gpu)
    assert training._precision(torch.device("cuda")) is torch.bfloat16
    assert training._precision(torch.device("cpu")) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"texture_index": None}, "textures and texture_index come together"),
        ({"labels": np.zeros(3, np.int64)}, "3 labels for 48 images"),
        ({"labels": np.full(48, 4)}, r"labels must be 0 ... C-1, found \[4\]"),
        ({"texture_index": np.zeros(3, np.int64)}, "3 texture rows for 48 images"),
        ({"texture_index": np.full(48, 8)}, "image 0 has texture row 8, but there are 8 textures"),
        ({"mirror": left_for_right(3)}, "the mirror is of 9 texels, textures have 256"),
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(tiny_data(), **change)
