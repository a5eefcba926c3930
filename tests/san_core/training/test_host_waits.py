"""A training step does not make the host wait for the device: counted without a GPU."""

import pytest
import torch

from tests.benchmarks.host_waits import count_backward_waits, count_step_waits, counting_waits
from tests.san_core.training.tiny_run import tiny_recipe

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("words", ["w_tr=0.1 clip_norm=1", "crop=translate optimizer=amsgrad"])
def test_a_step_waits_for_nothing_but_the_flags_of_the_step_before(words):
    found = count_step_waits(tiny_recipe("demo", words))
    assert found == [["Event.synchronize"]] * 2


def test_a_backward_pass_reads_no_value():
    assert count_backward_waits(tiny_recipe("demo", "w_tr=0.1 epochs=2")) == []


def on_device(*shape):
    return torch.ones(shape, device="cuda")


def masked(x):
    return x[x > 0]


# what a step used to do, and what it may do
@pytest.mark.parametrize(
    ("work", "waits"),
    [
        (lambda: on_device(3).sum().item(), 1),
        (lambda: bool(torch.isfinite(on_device(3)).all()), 1),
        (lambda: torch.zeros(3).to("cuda"), 1),
        (lambda: torch.zeros(3).to("cuda", non_blocking=True), 1),  # the memory is not pinned
        (lambda: torch.zeros(3).pin_memory().to("cuda"), 1),
        (lambda: torch.zeros(3).pin_memory().to("cuda", non_blocking=True), 0),
        (lambda: torch.tensor([1.0, 2.0], device="cuda"), 1),
        (lambda: torch.empty(3, pin_memory=True).copy_(on_device(3)), 1),
        (lambda: torch.empty(3, pin_memory=True).copy_(on_device(3), non_blocking=True), 0),
        (lambda: on_device(3).relu().index_select(0, torch.arange(2, device="cuda")), 0),
        (lambda: on_device(3).half(), 0),
    ],
)
def test_waits_are_counted(work, waits):
    with counting_waits() as counter:
        work()
    assert len(counter.waits) == waits, counter.waits


@pytest.mark.parametrize(
    "work",
    [
        lambda: on_device(3).nonzero(),
        lambda: torch.unique(on_device(3), return_counts=True),
        lambda: torch.masked_select(on_device(3), on_device(3) > 0),
        lambda: masked(on_device(3)),
    ],
)
def test_shapes_that_depend_on_values_are_counted_and_fail(work):
    with counting_waits() as counter, pytest.raises(Exception, match=r"output_shape|aten\."):
        work()
    assert len(counter.waits) == 1
