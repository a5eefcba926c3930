"""Weights as others publish them fill a trunk, whatever they are wrapped in."""

import numpy as np
import pytest
import torch

from san_core.model import weights
from san_core.model.san import build_network
from san_core.model.trunks.published import left_out_in_words
from tests.san_core.model.test_weights import RESNET18, imagenet_like


def moco(tensors, *, prefix="module."):
    """A checkpoint of MoCo v2: two encoders with a classifier of two layers each, and a queue."""
    trunk = {name: one for name, one in tensors.items() if not name.startswith("fc.")}
    head = {f"fc.{n}.{kind}": torch.ones(3) for n in (0, 2) for kind in ("weight", "bias")}
    encoders = {
        f"{prefix}encoder_{which}.{name}": one + (which == "k")
        for which in "qk"
        for name, one in {**trunk, **head}.items()
    }
    return {**encoders, f"{prefix}queue": torch.ones(2, 2), f"{prefix}queue_ptr": torch.zeros(1)}


WRAPPED = {
    "of DataParallel": lambda tensors: {f"module.{n}": t for n, t in tensors.items()},
    "under state_dict": lambda tensors: {"epoch": 3, "state_dict": tensors, "arch": "resnet18"},
    "under model": lambda tensors: {"model": tensors, "optimizer": {"state": {}}},
    "of DataParallel under state_dict": lambda tensors: {
        "state_dict": {f"module.{n}": t for n, t in tensors.items()}
    },
    "of MoCo": lambda tensors: {"epoch": 200, "state_dict": moco(tensors)},
    "of MoCo without DataParallel": lambda tensors: moco(tensors, prefix=""),
    "with the classifier of a ReID network": lambda tensors: {
        **{n: t for n, t in tensors.items() if not n.startswith("fc.")},
        "classifier.weight": torch.ones(7, 512),
    },
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".pth.tar"])
def test_the_trunk_is_filled(tmp_path, wrap, suffix):
    tensors = imagenet_like()
    torch.save(wrap(tensors), tmp_path / f"published{suffix}")
    model = build_network(RESNET18, num_classes=3, seed=0)
    weights.load_pretrained(model, str(tmp_path / f"published{suffix}"))
    own = model.state_dict()
    for name, tensor in tensors.items():
        if not name.startswith("fc."):
            assert torch.equal(own[f"encoder.{name}"], tensor), name


def test_what_is_left_out_is_named(tmp_path):
    torch.save(moco(imagenet_like()), tmp_path / "moco.pth")
    model = build_network(RESNET18, num_classes=3, seed=0)
    left = weights.load_pretrained(model, str(tmp_path / "moco.pth"))
    count = sum("encoder_k" in name for name in moco(imagenet_like()))
    assert left_out_in_words(left) == f"encoder_k ({count}), fc (4), queue (1), queue_ptr (1)"


def test_a_tensor_that_belongs_to_nothing_is_refused(tmp_path):
    torch.save({**imagenet_like(), "neck.weight": torch.ones(1)}, tmp_path / "other.pth")
    model = build_network(RESNET18, num_classes=3, seed=0)
    with pytest.raises(ValueError, match=r"neck\.weight does not belong to this network"):
        weights.load_pretrained(model, str(tmp_path / "other.pth"))


@pytest.mark.parametrize(
    "content", [{"state_dict": 3}, {"weights": {"a": 1}}, {}, {"model": {"model": {}}}]
)
def test_a_file_without_a_state_dict_is_named(tmp_path, content):
    torch.save(content, tmp_path / "none.pth")
    model = build_network(RESNET18, num_classes=3, seed=0)
    with pytest.raises(ValueError, match=r"none\.pth: must be a state dict, names to tensors"):
        weights.load_pretrained(model, str(tmp_path / "none.pth"))


def test_nothing_is_unpickled(tmp_path):
    torch.save({"state_dict": imagenet_like(), "lr": np.float64(0.1)}, tmp_path / "pickled.pth")
    model = build_network(RESNET18, num_classes=3, seed=0)
    with pytest.raises(
        ValueError,
        match=r"cannot be read: not a complete file that holds tensors "
        r"only",
    ):
        weights.load_pretrained(model, str(tmp_path / "pickled.pth"))
