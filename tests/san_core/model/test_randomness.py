import torch
from torch import nn

from san_core.model.randomness import drawing_from

CPU = torch.device("cpu")


def test_what_is_drawn_follows_from_the_seed_and_leaves_the_generator_alone():
    before = torch.get_rng_state()
    drawn = []
    for seed in (1, 1, 2**40 + 1):
        with drawing_from(seed, CPU):
            drawn.append(nn.functional.dropout(torch.ones(64)))
        torch.manual_seed(9)
        torch.set_rng_state(before)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    with drawing_from(1, CPU):
        torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)
