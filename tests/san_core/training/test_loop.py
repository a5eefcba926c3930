import dataclasses
import functools
import io
import itertools
import re

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from san_core.data.batches import augmentation, loader, sampler
from san_core.inference.features import embed
from san_core.model.onnx import export_encoder
from san_core.recipe import recipe_with_overrides
from san_core.recipes import RECIPES, get_recipe
from san_core.training import loop
from san_core.training.distributed import World
from san_core.training.optimisation import JointOptimisation
from tests.san_core.training.tiny_run import (
    DEMO_DECODER,
    TINY_OVERRIDES,
    left_right_mirror,
    tiny_data,
    tiny_model,
    tiny_recipe,
)


def run(
    settings, data=None, *, seed=5, model=None, state=None, states=None, epochs=None, **options
):
    """Trains, keeps every state as saved bytes, and returns model and reports."""
    model = model or tiny_model(settings)

    def keep(value):
        if states is not None:
            buffer = io.BytesIO()
            torch.save(value, buffer)
            states.append(buffer.getvalue())

    made = loop.fit(
        model,
        data or tiny_data(pit=settings.pit_every > 0, enlarged=settings.crop == "translate_stored"),
        settings,
        seed=seed,
        device="cpu",
        state=state,
        on_state=keep,
        **options,
    )
    reports = list(itertools.islice(made, epochs))
    return model, reports


def weights(model):
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


def read(state):
    return torch.load(io.BytesIO(state), weights_only=True)


pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ["demo", "demo-baseline", "demo-pg"]
# a generator that copies colours, and is told where from
COPYING = "texture_from=copy copy_queries=8 copy_dim=8 w_dense=1"
# a strong baseline's head and losses
STRONG = "embedding=bnneck pooling=gem triplet=weighted classifier=circle normalize_triplet=false"
# what the released run does otherwise
RELEASED = (
    "decoder_init=xavier tr_triplets=positions images_per_identity=4 two_step=true"
    " stale_gradients=true warmup=exponential crop=translate_stored flip_textures=keep"
    " erasing_style=released optimizer=amsgrad"
)


@pytest.mark.parametrize("name", NAMES)
def test_losses_fall(name):
    settings = tiny_recipe(name, "epochs=8 triplet_ramp_epochs=0")
    _, reports = run(settings)
    assert reports[-1].loss < reports[0].loss
    assert list(reports[0].terms) == list(settings.active_losses)
    assert [r.epoch for r in reports] == list(range(1, 9))
    assert all(r.images_per_second > 0 and r.seconds > 0 for r in reports)


def test_reports_tell_what_terms_count_and_how_many_pictures_are_known():
    _, reports = run(tiny_recipe("demo-baseline", "epochs=8 triplet_ramp_epochs=4"))
    first, last = reports[0], reports[-1]
    assert 0 < first.weights["tri"] < last.weights["tri"] == first.weights["id"] == 1
    assert 0 <= first.accuracy < last.accuracy <= 1
    _, (generator, *_) = run(tiny_recipe("demo-pg", "epochs=2"))
    assert generator.accuracy is None


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
        (f"optimizer=adam {DEMO_DECODER}", 2),
        ("optimizer=amsgrad", 1),
        ("optimizer=adamw", 2),
        (STRONG, 2),
        (RELEASED, 1),  # where another optimiser takes over
        (RELEASED, 2),
        pytest.param("arch=resnet18_ibn_a", 2, marks=pytest.mark.slow),
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


def test_a_generator_that_copies_learns_where_from():
    settings = tiny_recipe("demo-pg", f"{COPYING} epochs=8")
    data = tiny_data(labels=False, dense=True)
    _, reports = run(settings, data=data)
    assert list(reports[0].terms) == ["rec", "dense"]
    assert reports[-1].terms["dense"] < reports[0].terms["dense"]
    _, untold = run(settings, data=tiny_data(labels=False), epochs=1)
    assert list(untold[0].terms) == ["rec"]


def test_a_resumed_generator_that_copies_ends_with_the_same_bytes():
    settings, data = tiny_recipe("demo-pg", COPYING), tiny_data(labels=False, dense=True)
    undisturbed, _ = run(settings, data=data)
    states = []
    with pytest.raises(loop.TrainingStopped):
        run(settings, data=data, states=states, stop=after(8))
    model = tiny_model(settings, seed=77)
    resumed, _ = run(settings, data=data, model=model, state=read(states[-1]))
    assert weights(resumed) == weights(undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n, recipe in RECIPES.items() if recipe.needs_identities])
def test_every_recipe_trains_stops_resumes_and_is_exported(name, tmp_path):
    base = get_recipe(name)
    words = "arch=resnet10_quarter pretrained=none init=none " + TINY_OVERRIDES
    if base.tr_triplets == "positions":
        words = words.replace("images_per_identity=2", "images_per_identity=4")
    if base.schedule == "cosine" and base.cosine_from:
        words += " cosine_from=2 frozen_epochs=1"
    settings = recipe_with_overrides(base, words)
    undisturbed, reports = run(settings)
    assert list(reports[-1].terms) == list(settings.active_losses)
    states = []
    with pytest.raises(loop.TrainingStopped):
        run(settings, states=states, stop=after(3))
    resumed, _ = run(settings, model=tiny_model(settings, seed=77), state=read(states[-1]))
    assert weights(resumed) == weights(undisturbed)
    export_encoder(tmp_path / "encoder.onnx", undisturbed, settings)
    session = onnxruntime.InferenceSession(
        tmp_path / "encoder.onnx", providers=["CPUExecutionProvider"]
    )
    pictures = tiny_data().images[:5]
    (found,) = session.run(None, {"pixels": pictures})
    np.testing.assert_allclose(found, embed(undisturbed, pictures), rtol=1e-3, atol=1e-4)


def after(batches):
    """A `stop` that says yes after so many batches."""
    asked = itertools.count(1)
    return lambda: next(asked) == batches


# 6 batches an epoch: after its first, after one with a PIT batch, after its last, after the last
@pytest.mark.parametrize(
    ("words", "batches"),
    [
        ("pit_every=4", 1),
        ("pit_every=4", 8),
        ("pit_every=4 optimizer=amsgrad", 6),
        (f"two_step=true {STRONG}", 7),
        ("ema=0.9", 8),
        ("frozen_epochs=1 autoaugment=0.5", 2),
        ("two_step=true frozen_epochs=1", 8),
        ("", 18),
    ],
)
def test_a_run_stopped_after_any_batch_ends_with_the_same_bytes(words, batches):
    settings = tiny_recipe("demo", f"w_tr=0.1 checkpoint_every=9 {words}")
    undisturbed, reports = run(settings)
    states = []
    epoch, batch = divmod(batches - 1, 6)
    message = f"in epoch {epoch + 1} after batch {batch + 1}"
    with pytest.raises(loop.TrainingStopped, match=message):
        run(settings, states=states, stop=after(batches))
    assert len(states) == 1
    resumed, rest = run(settings, model=tiny_model(settings, seed=77), state=read(states[-1]))
    assert weights(resumed) == weights(undisturbed)
    expected = [(r.epoch, r.loss, r.terms, r.lr) for r in reports[epoch:]]
    assert [(r.epoch, r.loss, r.terms, r.lr) for r in rest] == expected


# after a batch with PIT behind it, in the middle, and where an epoch ends, which keeps no state
@pytest.mark.parametrize("batches", [1, 11])
def test_a_state_kept_in_the_middle_of_an_epoch_ends_with_the_same_bytes(batches):
    settings = tiny_recipe("demo", "w_tr=0.1 checkpoint_every=9 pit_every=4")
    undisturbed, reports = run(settings)
    states = []
    timed, _ = run(settings, states=states, state_due=after(batches))
    assert weights(timed) == weights(undisturbed)
    epoch, batch = divmod(batches, 6)
    kept = read(states[0])
    assert (kept["epoch"], kept["step"]) == (epoch, batch)
    resumed, rest = run(settings, model=tiny_model(settings, seed=77), state=kept)
    assert weights(resumed) == weights(undisturbed)
    expected = [(r.epoch, r.loss, r.terms, r.lr) for r in reports[epoch:]]
    assert [(r.epoch, r.loss, r.terms, r.lr) for r in rest] == expected


def test_time_that_is_over_with_the_last_batch_of_an_epoch_is_left_to_the_epochs_own_state():
    settings, states = tiny_recipe("demo", "checkpoint_every=9"), []
    run(settings, states=states, state_due=after(6))
    assert [state["epoch"] for state in map(read, states)] == [3]


def test_a_run_without_a_stop_request_continues():
    settings = tiny_recipe("demo-baseline")
    plain, _ = run(settings)
    asked, reports = run(settings, stop=lambda: False)
    assert len(reports) == 3
    assert weights(asked) == weights(plain)


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


@pytest.mark.parametrize("plan", ["", DEMO_DECODER])
def test_every_parameter_learns(plan):
    assert unmoved_parameters(plan) == []


def test_a_necks_offset_stays_zero():
    assert unmoved_parameters(STRONG) == ["encoder.head.bias"]


def unmoved_parameters(words):
    settings = tiny_recipe("demo", f"w_tr=0.1 epochs=2 {words}")
    model = tiny_model(settings)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    run(settings, model=model)
    return [n for n, p in model.named_parameters() if torch.equal(before[n], p)]


def test_the_decoder_has_its_own_learning_rate():
    settings = tiny_recipe("demo", "decoder_lr=0 weight_decay=0 epochs=2")
    model = tiny_model(settings)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    run(settings, model=model)
    unmoved = {n for n, p in model.named_parameters() if torch.equal(before[n], p)}
    assert unmoved == {n for n in before if n.startswith("decoder.")}


def test_scores_come_at_their_interval_and_the_best_weights_are_kept():
    settings = tiny_recipe("demo-baseline", "epochs=5 eval_every=2")
    scores, seen, states = iter([0.4, 0.6, 0.5]), [], []

    def evaluate(model):
        model.eval()
        seen.append(weights(model))
        return next(scores)

    model, reports = run(settings, evaluate=evaluate, states=states)
    assert [r.score for r in reports] == [None, 0.4, None, 0.6, 0.5]
    assert weights(model) == seen[2]
    bests = [read(state)["best"] for state in states]
    assert [best and best["epoch"] for best in bests] == [None, 2, 2, 4, 4]
    assert bests[-1]["score"] == 0.6
    kept = {name: value.numpy().tobytes() for name, value in bests[-1]["weights"].items()}
    assert kept == seen[1]


def test_scoring_changes_nothing_of_training():
    plain, _ = run(tiny_recipe("demo-baseline"))
    scored, _ = run(
        tiny_recipe("demo-baseline", "eval_every=1"), evaluate=lambda m: float(m.eval().training)
    )
    assert weights(scored) == weights(plain)


def test_the_best_survives_a_stop():
    settings = tiny_recipe("demo-baseline", "eval_every=1")
    states = []
    with pytest.raises(loop.TrainingStopped):
        run(settings, states=states, evaluate=lambda _: 0.9, stop=after(8))
    last = []
    run(settings, state=read(states[-1]), states=last, evaluate=lambda _: 0.1)
    assert read(last[-1])["best"]["epoch"] == 1


def test_a_score_that_is_not_finite_stops_the_run():
    settings = tiny_recipe("demo-baseline", "eval_every=1")
    with pytest.raises(ValueError, match="epoch 1: the validation score is nan"):
        run(settings, evaluate=lambda _: float("nan"))


@pytest.mark.parametrize(
    ("words", "evaluate", "message"),
    [
        ("eval_every=2", None, "recipe eval_every is 2, but there is no validation"),
        ("", lambda _: 0.0, "recipe eval_every is 0, but there is a validation"),
    ],
)
def test_a_validation_and_its_interval_come_together(words, evaluate, message):
    with pytest.raises(ValueError, match=message):
        run(tiny_recipe("demo-baseline", words), evaluate=evaluate)


def test_two_steps_are_not_for_several_processes(monkeypatch):
    monkeypatch.setattr(loop, "current_world", lambda: World(rank=0, size=2))
    with pytest.raises(ValueError, match="two_step trains in one process: its two gradients"):
        run(tiny_recipe("demo", "two_step=true"))


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        (
            "demo-baseline",
            "",
            "a batch of 4 identities of 2 images cannot be divided equally among 3 proc",
        ),
        ("demo-pg", "", "a batch of 8 images cannot be divided equally among 3 processes"),
        (
            "demo",
            "identities_per_batch=6 pit_every=1",
            "a batch of 8 images cannot be divided equally",
        ),
    ],
)
def test_batches_without_equal_shares_are_refused_by_the_call(monkeypatch, name, words, message):
    settings = tiny_recipe(name, words)
    data, model = tiny_data(pit=settings.pit_every > 0), tiny_model(settings)
    monkeypatch.setattr(loop, "current_world", lambda: World(rank=0, size=3))
    with pytest.raises(ValueError, match=message):
        loop.fit(model, data, settings, seed=0, device="cpu")


def test_pit_batches_come_in_between_and_bring_their_own_term():
    settings = tiny_recipe("demo", "pit_every=4 epochs=2")
    plain, before = run(tiny_recipe("demo", "epochs=2"))
    mixed, reports = run(settings)
    assert "pit" not in before[0].terms
    assert all(0 < r.terms["pit"] < 2 for r in reports)
    # 6 batches an epoch: the first epoch has one PIT batch, the second two
    assert weights(mixed) != weights(plain)
    assert mixed.encoder.bn1.num_batches_tracked == 12 + 3
    assert mixed.encoder.head[1].num_batches_tracked == 12  # the embedding sees ReID images alone


def test_pit_batches_weigh_as_the_recipe_says_and_show_every_pair_in_turn(monkeypatch):
    settings = tiny_recipe("demo", "pit_every=1 epochs=2 w_rec=5")  # 6 PIT batches an epoch
    data, shown, weighed = tiny_data(pit=True), [], []
    wanted, step = loop._TrainingRun._wanted, JointOptimisation.step

    def noted(its_run, source, its, rows, *arguments):
        if source == "pit":
            assert its is data.pit
            shown.append(rows.tolist())
        return wanted(its_run, source, its, rows, *arguments)

    def stepped(optimisation, terms, weights, flags):
        if terms.keys() == {"rec"}:
            weighed.append(weights["rec"])
        return step(optimisation, terms, weights, flags)

    monkeypatch.setattr(loop._TrainingRun, "_wanted", noted)
    monkeypatch.setattr(JointOptimisation, "step", stepped)
    run(settings, data)
    assert weighed == [5] * 12
    for round_ in (shown[:6], shown[6:]):
        assert sorted(itertools.chain.from_iterable(round_)) == list(range(48))
    assert shown[:6] != shown[6:]


def test_a_pit_batch_that_is_not_finite_is_named():
    settings = tiny_recipe("demo", "pit_every=1")
    model, data = tiny_model(settings), tiny_data(pit=True)
    step = loop._TrainingRun._train_pit_batch

    def poisoned(run, *arguments):
        with torch.no_grad():
            model.decoder.head[1].weight.fill_(float("nan"))
        step(run, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._TrainingRun, "_train_pit_batch", poisoned)
        with pytest.raises(ValueError, match="epoch 1 batch 1: PIT batch: L_Rec is not finite"):
            run(settings, data, model=model)


@pytest.mark.parametrize(
    ("words", "pit", "message"),
    [
        ("pit_every=2", None, "recipe pit_every is 2, but there are none"),
        ("", tiny_data(), "recipe pit_every is 0, but PIT data were given"),
        ("pit_every=2", tiny_data(textures=False, mirror=False), "PIT data: .* need textures"),
        (
            "pit_every=2",
            dataclasses.replace(tiny_data(), images=np.zeros((48, 8, 8, 3), np.uint8)),
            "PIT data: images are 8x8, but the recipe says 32x16",
        ),
    ],
)
def test_pit_data_and_pit_every_are_needed_together(words, pit, message):
    data = dataclasses.replace(tiny_data(), pit=pit)
    with pytest.raises(ValueError, match=message):
        run(tiny_recipe("demo", words), data)


@pytest.mark.parametrize(
    ("words", "enlarged", "message"),
    [
        ("crop=translate_stored", None, "recipe crop is 'translate_stored', but there are no"),
        ("", np.zeros((48, 36, 18, 3), np.uint8), "recipe crop is 'pad', but there are enlarged"),
        (
            "crop=translate_stored",
            np.zeros((48, 32, 16, 3), np.uint8),
            r"enlarged images are \(48, 32, 16, 3\), must be \(48, 36, 18, 3\)",
        ),
    ],
)
def test_enlarged_images_and_their_crop_come_together(words, enlarged, message):
    data = dataclasses.replace(tiny_data(), enlarged=enlarged)
    with pytest.raises(ValueError, match=message):
        run(tiny_recipe("demo", words), data)


def test_stale_gradients_are_not_for_half_precision(monkeypatch):
    monkeypatch.setattr(loop, "autocast_type", lambda *_: torch.bfloat16)
    with pytest.raises(ValueError, match="stale_gradients needs float32 weights, but precision b"):
        run(tiny_recipe("demo", RELEASED + " w_tr=1"), precision="bfloat16")


def test_a_compiled_network_trains_as_it_is(monkeypatch):
    settings = tiny_recipe("demo", "epochs=1 warmup_epochs=0.9")
    asked, plain = [], run(settings)[1]
    compiler = torch.compile

    def quick(network):  # the same graphs, without a compiler's minutes
        asked.append(network)
        return compiler(network, backend="eager")

    monkeypatch.setattr(torch, "compile", quick)
    model, reports = run(settings, compiled=True)
    assert asked == [model]
    assert reports[0].loss == pytest.approx(plain[0].loss, rel=1e-4)
    assert set(model.state_dict()) == set(tiny_model(settings).state_dict())


@pytest.mark.slow
def test_a_compiled_network_trains_as_it_is_with_a_real_compiler():
    settings = tiny_recipe("demo", "epochs=1 warmup_epochs=0.9 pit_every=3")
    plain, compiled = run(settings)[1], run(settings, compiled=True)[1]
    assert compiled[0].loss == pytest.approx(plain[0].loss, rel=1e-4)
    assert compiled[0].terms == pytest.approx(plain[0].terms, rel=1e-3)


def test_a_gradient_that_is_not_finite_stops_a_clipped_run():
    settings = tiny_recipe("demo-pg", "clip_norm=1")
    model = tiny_model(settings)
    model.decoder.head[1].weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(ValueError, match="epoch 1 batch 1: the gradient is not finite"):
        run(settings, model=model)


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
    images = augmentation.normalise_images(torch.tensor(data.images))
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
    made = loop.fit(model, tiny_data(), settings, seed=0, device="cpu")
    next(made)
    with torch.no_grad():
        model.decoder.head[1].weight.fill_(float("inf"))
    with pytest.raises(ValueError, match="epoch 2 batch 1: L_Rec is not finite"):
        next(made)


@pytest.mark.parametrize(
    ("settings", "data", "message"),
    [
        (tiny_recipe("demo", "image_height=64"), {}, "images are 32x16, but the recipe says 64x16"),
        (
            tiny_recipe(),
            {"textures": False},
            "losses id, tri, rec need textures, and there are none",
        ),
        (tiny_recipe("demo", "texture_size=32"), {}, "textures are 16x16, the recipe says texture"),
        (tiny_recipe(), {"labels": False}, "losses id, tri, rec need labels, and there are none"),
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
        loop.fit(model, tiny_data(**data), settings, seed=0, device="cpu")


def test_a_model_of_another_recipe_is_refused():
    settings = tiny_recipe("demo-baseline")
    with pytest.raises(
        ValueError, match="does not match the recipe: only one of them has a decoder"
    ):
        loop.fit(tiny_model(tiny_recipe()), tiny_data(), settings, seed=0, device="cpu")


def test_a_model_of_other_identities_is_refused():
    settings, data = tiny_recipe("demo-baseline"), tiny_data()
    fewer = dataclasses.replace(data, labels=data.labels % 7)
    with pytest.raises(ValueError, match="the model has 8 classes, the data 7 identities"):
        loop.fit(tiny_model(settings), fewer, settings, seed=0, device="cpu")


@pytest.mark.parametrize(
    ("words", "seed", "message"),
    [
        ("lr=1e-3", 5, "the state belongs to another recipe: lr 0.003 there, 0.001 here"),
        ("", 6, "the state belongs to another run: seed 5 there, 6 here"),
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
    with monkeypatch.context() as half:
        half.setattr(loop, "autocast_type", lambda *_: torch.bfloat16)
        run(settings, states=states, epochs=1)
    message = "another run: precision 'torch.bfloat16' there, 'torch.float32' here"
    with pytest.raises(ValueError, match=message):
        fit_on(settings, read(states[0]), precision="float32")


def test_automatic_precision_goes_on_as_it_was_begun_on_another_device(monkeypatch):
    settings, states = tiny_recipe("demo-baseline", "epochs=2"), []
    with monkeypatch.context() as half:
        half.setattr(loop, "autocast_type", lambda *_: torch.bfloat16)
        model, _ = run(settings, states=states)
    later = []
    resumed = fit_on(settings, read(states[0]), precision="auto", on_state=later.append)
    assert weights(resumed) == weights(model)
    assert later[-1]["precision"] == "torch.bfloat16"


def fit_on(settings, state, **more):
    """A network with other weights, trained on from a state."""
    model = tiny_model(settings, seed=77)
    for _ in loop.fit(model, tiny_data(), settings, seed=5, device="cpu", state=state, **more):
        pass
    return model


def test_of_several_processes_the_first_validates_for_all(monkeypatch):
    settings = tiny_recipe("demo-baseline", "eval_every=1")
    told = []

    def broadcast(value, *_):
        told.append(value)
        return 0.5

    monkeypatch.setattr(loop, "broadcast_from_first", broadcast)
    model = tiny_model(settings)
    made = loop._TrainingRun(model, tiny_data(), settings, 5, torch.device("cpu"), "float32")
    made.world = World(rank=1, size=2)
    assert made._validate(lambda _: pytest.fail("validated once more")) == 0.5
    made.world = World(rank=0, size=2)
    assert made._validate(lambda _: 0.25) == 0.5
    assert told[1] == 0.25


def test_a_training_of_one_batch_with_a_warm_up_is_refused():
    short = "epochs=1 identities_per_batch=8 images_per_identity=6 warmup_epochs=0.5"
    with pytest.raises(ValueError, match="training has only one batch, and warm-up"):
        run(tiny_recipe("demo-baseline", short))
    run(tiny_recipe("demo-baseline", short.replace("0.5", "0")))


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
    monkeypatch.setattr(loop, "autocast_type", lambda *_: half)
    states = []
    model, reports = run(settings, data, states=states)
    resumed, _ = run(settings, data, model=tiny_model(settings, seed=77), state=read(states[0]))
    assert [r.loss for r in reports] == pytest.approx([r.loss for r in full], rel=0.2)
    assert [r.loss for r in reports] != [r.loss for r in full]
    assert weights(resumed) == weights(model)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    kept = read(states[1])["optimisation"]
    assert kept["optimizer"]["state"][0]["step"] > 1  # float16 skips some at first
    assert bool(kept["scaler"]) == (half is torch.float16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"texture_index": None}, "textures and texture_index come together"),
        ({"labels": np.zeros(3, np.int64)}, "3 labels for 48 images"),
        ({"labels": np.full(48, 4)}, r"labels must be 0 ... C-1, found \[4\]"),
        ({"texture_index": np.zeros(3, np.int64)}, "3 texture rows for 48 images"),
        ({"texture_index": np.full(48, 8)}, "image 0 has texture row 8, but there are 8 textures"),
        ({"mirror": left_right_mirror(3)}, "the mirror index has 9 texels, textures have 256"),
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(tiny_data(), **change)


def test_everything_of_a_batch_is_where_the_network_is():
    settings = tiny_recipe("demo", "pit_every=1")
    data = tiny_data(mirror=False, pit=True)
    made = loop._TrainingRun(
        tiny_model(settings), data, settings, 5, torch.device("cpu"), "float32"
    )
    buffers = loader.make_buffers(torch.device("meta"))  # tensors of two devices do not mix
    main, pit = made._wanted_batches(made._epoch_batches())[:2]
    assert (main.source, pit.source) == ("main", "pit")
    for wanted in (main, pit):
        batch = made._augment(buffers.load(wanted, settings), None)
        parts = [batch.images, batch.targets.textures, batch.targets.keep]
        parts += [] if batch.labels is None else [batch.labels]
        assert {part.device.type for part in parts} == {"meta"}


def test_gradient_that_destroys_the_weights_is_not_kept():
    settings = tiny_recipe("demo-baseline", "epochs=1 warmup_epochs=0")
    model = tiny_model(settings)
    weight = next(model.encoder.parameters())
    calls = iter(range(1000))
    last = len(
        sampler.identity_batches(tiny_data().labels, identities=4, images=2, seed=5, epoch=0)
    )
    weight.register_hook(lambda g: g * float("nan") if next(calls) == last - 1 else g)
    states = []
    with pytest.raises(ValueError, match=rf"epoch 1 batch {last}: encoder.* is no longer finite"):
        run(settings, model=model, states=states)
    assert states == []


def overflow_in(model, batches):
    """Lets the forward pass of these batches, counted from 0, come to infinity."""
    calls = itertools.count()

    def overflow(_module, _inputs, output):
        return output * float("inf") if next(calls) in batches else output

    model.encoder.conv1.register_forward_hook(overflow)


def test_a_forward_pass_that_overflows_float16_is_left_out(monkeypatch):
    settings = tiny_recipe("demo-baseline", "epochs=2")
    monkeypatch.setattr(loop, "autocast_type", lambda *_: torch.float16)
    model, states = tiny_model(settings), []
    overflow_in(model, {2, 3})
    _, reports = run(settings, model=model, states=states)
    assert all(np.isfinite([r.loss, *r.terms.values()]).all() for r in reports)
    assert all(torch.isfinite(t).all() for t in model.state_dict().values())
    assert model.encoder.bn1.num_batches_tracked == 12 - 2  # no trace of the two in statistics
    assert read(states[-1])["optimisation"]["scaler"]["scale"] <= 65536 / 4  # halved each time


def test_an_epoch_that_overflows_in_every_batch_ends_the_run(monkeypatch):
    settings = tiny_recipe("demo-baseline", "epochs=2")
    monkeypatch.setattr(loop, "autocast_type", lambda *_: torch.float16)
    model, states = tiny_model(settings), []
    overflow_in(model, range(6))
    with pytest.raises(ValueError, match="epoch 1: every batch overflowed float16; train with"):
        run(settings, model=model, states=states)
    assert states == []


def test_the_same_overflow_ends_a_run_in_float32():
    settings = tiny_recipe("demo-baseline", "epochs=2")
    model = tiny_model(settings)
    overflow_in(model, {2, 3})
    with pytest.raises(ValueError, match="epoch 1 batch 3: L_ID is not finite"):
        run(settings, model=model)


def test_a_stop_after_a_bad_batch_leaves_no_state():
    settings = tiny_recipe("demo-baseline")
    model, states = tiny_model(settings), []
    overflow_in(model, {1})
    with pytest.raises(ValueError, match="epoch 1 batch 2: L_ID is not finite"):
        run(settings, model=model, states=states, stop=after(2))
    assert states == []


def test_several_processes_compile_nothing(monkeypatch):
    monkeypatch.setattr(loop, "current_world", lambda: World(rank=0, size=2))
    with pytest.raises(ValueError, match="compiled needs a single process"):
        run(tiny_recipe("demo"), compiled=True)


def test_reports_tell_how_long_training_waited_for_its_batches():
    _, reports = run(tiny_recipe("demo-baseline", "epochs=2"))
    assert all(0 <= r.waiting_share < 1 for r in reports)


def test_deterministic_training_adds_up_in_one_order():
    seen = []

    class Watched(nn.Module):
        def forward(self, x):
            seen.append(torch.are_deterministic_algorithms_enabled())
            return x

    settings = tiny_recipe("demo", "epochs=1 warmup_epochs=0 deterministic=true")
    model = tiny_model(settings)
    model.encoder.conv1 = nn.Sequential(model.encoder.conv1, Watched())
    run(settings, model=model)
    assert seen
    assert all(seen)
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_average_of_weights_becomes_the_model_and_is_what_is_scored():
    settings = tiny_recipe("demo-baseline", "ema=0.5 epochs=1 warmup_epochs=0 eval_every=1")
    steps, scored, states = [], [], []

    def stop():  # asked after every batch
        steps.append({n: t.clone() for n, t in model.state_dict().items()})
        return False

    def score(network):
        scored.append({n: t.clone() for n, t in network.state_dict().items()})
        return 0.5

    model = tiny_model(settings)
    expected = {n: t.clone() for n, t in model.state_dict().items()}
    run(settings, model=model, evaluate=score, stop=stop, states=states)
    for weights_now in steps:
        for name, value in weights_now.items():
            whole = not value.is_floating_point()
            expected[name] = value if whole else (expected[name] + value) / 2
    for found in (model.state_dict(), scored[0], read(states[-1])["best"]["weights"]):
        torch.testing.assert_close(dict(found), expected, rtol=1e-5, atol=1e-6)
    kept = read(states[-1])["model"]  # training goes on from the weights, not from their average
    assert all(torch.equal(kept[name], value) for name, value in steps[-1].items())


@functools.cache
def kept_state():
    """The recipe of a training of two epochs, and its state after the first, as saved."""
    settings, states = tiny_recipe("demo-baseline", "epochs=2 warmup_epochs=0 ema=0.5"), []
    run(settings, states=states)
    return settings, states[0]


def first_of(tensors):
    return next(iter(tensors))


def break_optimiser(state):
    moments = state["optimisation"]["optimizer"]["state"]
    moments[0]["exp_avg"] = torch.zeros(7)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda s: s.pop("epoch"), "the training state: it has no epoch"),
        (lambda s: s.update(precision=[]), "precision is a list; it must be text"),
        (lambda s: s.update(epoch=-1), "epoch is -1; it must be a whole number from 0"),
        (
            lambda s: s.update(epoch=9),
            "was saved in epoch 10 after batch 0, which this training does",
        ),
        (
            lambda s: s.update(step=10**6),
            "was saved in epoch 2 after batch 1000000, which this train",
        ),
        (lambda s: s.update(sums={"loss": "x"}), r"sums\.loss is 'x'; it must be a list"),
        (lambda s: s.update(best={"epoch": 1}), "best has no score"),
        (
            lambda s: s.update(best={"epoch": 9, "score": 1.0}),
            "the best weights of an epoch that has not e",
        ),
        (lambda s: s.update(model=3), "the network's weights in this state do not fit: "),
        (lambda s: s["model"].popitem(), "weights in this state do not fit: classifier"),
        (lambda s: s["model"].update(x=torch.zeros(1)), "weights in this state do not fit: x"),
        (lambda s: s["model"].update({first_of(s["model"]): torch.zeros(1)}), "do not fit: enc"),
        (
            lambda s: s["model"][first_of(s["model"])].fill_(torch.nan),
            "in this state are not finite: ",
        ),
        (lambda s: s.update(optimisation={}), "belongs to another optimiser than"),
        (break_optimiser, "belongs to another optimiser than"),
        (
            lambda s: s.update(best={"epoch": 1, "score": 1.0, "weights": {}}),
            "the best network's weights in this state do not fit: ",
        ),
        (lambda s: s.update(average={}), "the averaged network's weights in this state"),
    ],
)
def test_a_state_of_something_else_is_refused_in_words(spoil, told):
    settings, saved = kept_state()
    state = read(saved)
    spoil(state)
    with pytest.raises(ValueError, match=told):
        run(settings, model=tiny_model(settings, seed=77), state=state)
