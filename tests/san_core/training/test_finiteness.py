import pytest
import torch

from san_core.training.finiteness import FiniteFlags, LateCheck, NonFiniteError, check_finite

CPU = torch.device("cpu")


def noted(**values):
    flags = FiniteFlags()
    for name, value in values.items():
        flags.note(name, torch.tensor(value))
    return flags


def test_one_value_of_many_is_enough():
    flags = noted(a=[1.0, 2.0], b=[1.0, float("inf")], c=[float("nan"), 0.0])
    assert flags.stacked().tolist() == [True, False, False]
    assert not flags.all_finite()
    assert noted(a=[1.0]).all_finite()


def test_a_step_is_read_after_the_next_one():
    late = LateCheck(CPU)
    late.add("batch 1", noted(L_ID=1.0, L_Rec=float("nan"), L_TR=float("nan")))
    late.read(but_last=1)
    late.add("batch 2", noted(L_ID=float("nan")))
    with pytest.raises(ValueError, match=r"^batch 1: L_Rec is not finite$"):
        late.read(but_last=1)


def test_the_last_step_is_read_when_all_are():
    late = LateCheck(CPU)
    late.add("batch 1", noted(L_ID=1.0))
    late.add("batch 2", noted(L_ID=float("inf")))
    late.read(but_last=1)
    with pytest.raises(ValueError, match=r"^batch 2: L_ID is not finite$"):
        late.read()


def test_without_flags_values_are_looked_at_here():
    values = torch.tensor([1.0, float("nan")])
    with pytest.raises(NonFiniteError, match="L_ID is not finite"):
        check_finite("L_ID", values, None)
    flags = FiniteFlags()
    assert check_finite("L_ID", values, flags) is values
    assert not flags.all_finite()


def test_flags_are_taken_over_behind_a_prefix():
    flags = noted(L_ID=1.0)
    flags.take(noted(L_Rec=float("nan")), prefix="PIT batch: ")
    assert flags.stacked().tolist() == [True, False]
    assert flags.name_of(1) == "PIT batch: L_Rec"
