import pytest
import torch

from san_core.training.sums import LossSums

CPU = torch.device("cpu")
YES, NO = torch.tensor(True), torch.tensor(False)


def test_means_are_of_the_steps_that_count():
    sums = LossSums(CPU)
    sums.add(("loss", "id"), torch.tensor([1.0, 2.0]), counts=YES)
    sums.add(("loss", "id"), torch.tensor([float("nan"), 9.0]), counts=NO)
    sums.add(("loss", "id"), torch.tensor([2.0, 6.0]), counts=YES)
    sums.add(("pit",), torch.tensor([0.5]), counts=YES)
    assert sums.means() == {"loss": (1 + 2) / 2, "id": (2 + 6) / 2, "pit": 0.5}


def test_restored_sums_go_on_to_the_same_bits():
    values = torch.rand(9, 2, generator=torch.Generator().manual_seed(0))
    whole, first, second = LossSums(CPU), LossSums(CPU), LossSums(CPU)
    for row in values:
        whole.add(("loss", "id"), row, counts=YES)
    for row in values[:4]:
        first.add(("loss", "id"), row, counts=YES)
    second.load_state_dict(first.state_dict())
    for row in values[4:]:
        second.add(("loss", "id"), row, counts=YES)
    assert second.means() == whole.means()


def test_a_mean_of_no_step_is_an_error():
    sums = LossSums(CPU)
    sums.add(("loss",), torch.tensor([1.0]), counts=NO)
    with pytest.raises(ZeroDivisionError):
        sums.means()
