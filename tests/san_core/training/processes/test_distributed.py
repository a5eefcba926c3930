import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from san_core.training import distributed
from san_core.training.distributed import (
    ALONE,
    broadcast_from_first,
    current_world,
    distribute_network,
    gather_batch,
    largest_of_processes,
)
from tests.san_core.training.processes import two_processes
from tests.san_core.training.tiny_run import tiny_model, tiny_recipe

ROOT = Path(__file__).parents[4]

# Networks in double precision, so that real differences stand out: Adam takes whole steps for
# gradients that are nothing but rounding, which would hide them. Losses are in single precision.
EQUAL = {
    "san": {"recipe": "demo", "words": "w_tr=0.1 optimizer=amsgrad clip_norm=1"},
    "generator": {"recipe": "demo-pg", "words": "eval_every=1"},
    "no mirror": {"recipe": "demo", "words": "w_tr=0.1 optimizer=adamw", "mirror": False},
    "parts unused": {"recipe": "demo", "words": "w_id=0 w_rec=0 w_tr=0.1"},
    "strong": {
        "recipe": "demo-baseline",
        "words": "embedding=bnneck pooling=gem triplet=weighted classifier=circle ema=0.5 "
        "jitter=0.2 greyscale=0.3 autoaugment=0.5",
    },
    "generator with gem": {"recipe": "demo-pg", "words": "pooling=gem"},
    "frozen": {"recipe": "demo", "words": "frozen_epochs=1 epochs=2"},
    "with PIT": {"recipe": "demo", "words": "pit_every=2"},
    "decoder kept": {"recipe": "demo", "words": "init=generator train_decoder=false w_tr=0.1"},
    "distilled": {"recipe": "demo-baseline", "words": "w_distill=1"},
    "textures of some": {"recipe": "demo", "words": "texture_share=0.5 w_tr=0.1"},
    "textures of some images": {"recipe": "demo", "words": "texture_share=0.25 w_tri=0"},
    "textures in some batches": {"recipe": "demo", "words": "w_tr=0.1 texture_every=4"},
    "textures at first": {"recipe": "demo", "words": "texture_epochs=1 epochs=2"},
}
OTHERS = {
    "single": {"recipe": "demo", "words": "w_tr=0.1 optimizer=amsgrad", "dtype": "float32"},
    "shares apart": {"recipe": "demo-baseline", "words": "sync_batchnorm=false"},
    "poisoned": {"recipe": "demo", "words": "", "poisoned": "decoder.head.1.weight"},
    "stopped": {"recipe": "demo-baseline", "words": "", "stops": True},
}
# Batch normalisation takes this bias out again, so its gradient is the rounding of the losses.
CANCELLED = ("encoder.head.0.bias", "encoder.head.1.running_mean")


EVERY_DAY = ("san", "generator", "poisoned", "stopped")  # the others are of test-slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What the runs of every day came to, trained by one process and by two."""
    return _train_twice(tmp_path_factory.mktemp("runs"), lambda name: name in EVERY_DAY)


@pytest.fixture(scope="module")
def more_runs(tmp_path_factory):
    """The same of the other runs."""
    return _train_twice(tmp_path_factory.mktemp("runs"), lambda name: name not in EVERY_DAY)


def _train_twice(folder, is_asked):
    asked = [{"name": n, "dtype": "float64", **r} for n, r in EQUAL.items()]
    asked += [{"name": n, **r} for n, r in OTHERS.items()]
    asked = [run for run in asked if is_asked(run["name"])]
    for run in asked:
        epochs = "" if "epochs=2" in run["words"] else "epochs=1"  # of six steps
        run["words"] += f" {epochs} warmup_epochs=0.9"
    (folder / "runs.json").write_text(json.dumps(asked))
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [
        sys.executable,
        "-m",
        *launch,
        "-m",
        "tests.san_core.training.processes.two_processes",
        str(folder),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    two_processes.main(folder)
    return {
        run["name"]: [torch.load(folder / f"{run['name']}-{size}.pt") for size in (1, 2)]
        for run in asked
    }


@pytest.mark.parametrize("name", sorted(EQUAL.keys() & set(EVERY_DAY)))
def test_two_processes_train_as_one(runs, name):
    _check_equal(*runs[name], epochs=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(EQUAL.keys() - set(EVERY_DAY)))
def test_two_processes_train_every_loss_and_layer_as_one(more_runs, name):
    _check_equal(*more_runs[name], epochs=2 if "epochs=2" in EQUAL[name]["words"] else 1)


def _check_equal(one, two, *, epochs):
    assert len(one["reports"]) == len(two["reports"]) == epochs
    for (loss, terms, _), (their_loss, their_terms, _) in zip(
        one["reports"], two["reports"], strict=True
    ):
        assert their_loss == pytest.approx(loss, abs=1e-5)
        assert their_terms == pytest.approx(terms, abs=1e-5)
    for tensor, weight in one["weights"].items():
        if tensor not in CANCELLED:
            torch.testing.assert_close(two["weights"][tensor], weight, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_two_processes_train_as_one_in_single_precision(more_runs):
    one, two = more_runs["single"]
    for (loss, _, _), (theirs, _, _) in zip(one["reports"], two["reports"], strict=True):
        assert theirs == pytest.approx(loss, abs=1e-5)


@pytest.mark.slow
def test_processes_that_normalise_their_own_shares_train_otherwise(more_runs):
    one, two = more_runs["shares apart"]
    assert two["ended"] == ""
    assert two["reports"][0][0] != pytest.approx(one["reports"][0][0], abs=1e-3)


def test_the_first_process_scores_for_all(runs):
    assert [score for _, _, score in runs["generator"][1]["reports"]] == [0.5]


def test_what_goes_wrong_in_one_process_stops_all(runs):
    assert runs["poisoned"][0]["ended"] == ""
    assert runs["poisoned"][1]["ended"] == (
        "TrainingFailedError: epoch 1 batch 1: L_Rec is not finite"
    )


def test_a_stopped_process_stops_all(runs):
    assert runs["stopped"][0]["ended"] == ""
    assert runs["stopped"][1]["ended"] == "TrainingStopped: in epoch 1 after batch 4"
    assert runs["stopped"][1]["place"] == (0, 4)


def test_a_process_alone_needs_no_other():
    share, model = torch.ones(3), nn.Linear(2, 2)
    device = torch.device("cpu")
    assert current_world() == ALONE
    assert gather_batch(share, ALONE) is share
    assert largest_of_processes(2, ALONE, device) == 2
    assert broadcast_from_first(0.1, ALONE, device) == 0.1
    assert distribute_network(model, tiny_recipe(), ALONE, device) is model


def test_batch_norm_over_processes_keeps_names_weights_and_inference():
    settings = tiny_recipe()
    plain, shared = tiny_model(settings), tiny_model(settings)
    distributed._replace_batchnorms(shared, torch.device("cpu"))
    kinds = {type(m).__name__ for m in shared.modules() if "Norm" in type(m).__name__}
    assert kinds == {"_DistributedBatchNorm"}
    assert list(shared.state_dict()) == list(plain.state_dict())
    images = torch.randn(2, 3, 32, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(shared.eval()(images).texture, plain.eval()(images).texture)


def test_gpus_use_torchs_own_batch_norm_over_processes():
    model = tiny_model(tiny_recipe())
    distributed._replace_batchnorms(model, torch.device("cuda"))
    kinds = {type(m) for m in model.modules() if "Norm" in type(m).__name__}
    assert kinds == {nn.SyncBatchNorm}
