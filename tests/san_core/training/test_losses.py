import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from san_core.data.batches.augmentation import TextureTargets
from san_core.model.san import SANOutput
from san_core.training import losses
from san_core.training.distributed import ALONE
from san_core.training.finiteness import FiniteFlags, NonFiniteError
from san_core.training.objective import Batch, identity_accuracy, loss_terms
from tests.san_core.training.tiny_run import tiny_recipe

LABELS = torch.tensor([0, 0, 1, 1, 1, 2, 2])


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def reconstruction_loss(textures, targets, *, keep=None):
    return losses.mean_reconstruction(losses.reconstruction_errors(textures, targets), keep=keep)


def slow_triplet(embeddings, labels, margin):
    total = 0.0
    for a in range(len(labels)):
        distances = [math.dist(embeddings[a], e) for e in embeddings.tolist()]
        rest = [i for i in range(len(labels)) if i != a]
        positive = max(distances[i] for i in rest if labels[i] == labels[a])
        negative = min(distances[i] for i in rest if labels[i] != labels[a])
        total += max(0.0, positive - negative + margin)
    return total / len(labels)


def slow_soft_triplet(embeddings, labels, *, weighted):
    """By plain loops; weighted: every positive and negative by the softmax of its distance."""
    total = 0.0
    for a, anchor in enumerate(embeddings.tolist()):
        near, far = [], []
        for i, other in enumerate(embeddings.tolist()):
            if i != a:
                (far if labels[i] == labels[a] else near).append(math.dist(anchor, other))
        if weighted:
            positive = sum(d * math.exp(d) for d in far) / sum(math.exp(d) for d in far)
            negative = sum(d * math.exp(-d) for d in near) / sum(math.exp(-d) for d in near)
        else:
            positive, negative = max(far), min(near)
        total += math.log(1 + math.exp(positive - negative))
    return total / len(labels)


@pytest.mark.parametrize("kind", ["soft", "weighted"])
def test_the_triplets_without_a_margin_are_those_of_plain_loops(kind):
    embeddings = randn(7, 5)
    found = losses.triplet_loss(embeddings, LABELS, kind=kind, margin=0.3)
    expected = slow_soft_triplet(embeddings, LABELS, weighted=kind == "weighted")
    assert found.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["soft", "weighted"])
def test_identical_images_leave_the_gradient_finite(kind):
    embeddings = torch.zeros(4, 3, requires_grad=True)
    losses.triplet_loss(embeddings, torch.tensor([0, 0, 1, 1]), kind=kind, margin=0.3).backward()
    assert embeddings.grad.isfinite().all()


COSINES = torch.tensor([[0.5, -0.25, 0.1], [-0.9, 0.9, 0.0]])


def test_the_persons_own_cosine_is_lowered_by_the_margin():
    found = losses.cosine_logits(COSINES, torch.tensor([0, 1]), scale=10.0, margin=0.2)
    torch.testing.assert_close(found, torch.tensor([[3.0, -2.5, 1.0], [-9.0, 7.0, 0.0]]))


def test_circle_logits_by_hand():
    found = losses.circle_logits(COSINES, torch.tensor([0, 1]), scale=10.0, margin=0.2)
    # own: (1.2 - s) (s - 0.8); others: max(0, s + 0.2) (s - 0.2)
    expected = [
        [10 * 0.7 * -0.3, 10 * 0.0 * -0.45, 10 * 0.3 * -0.1],
        [10 * 0.0 * -1.1, 10 * 0.3 * 0.1, 10 * 0.2 * -0.2],
    ]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_circle_weights_take_no_gradient():
    cosines = COSINES.clone().requires_grad_()
    losses.circle_logits(cosines, torch.tensor([0, 1]), scale=10.0, margin=0.2).sum().backward()
    expected = [[10 * 0.7, 0.0, 10 * 0.3], [0.0, 10 * 0.3, 10 * 0.2]]
    torch.testing.assert_close(cosines.grad, torch.tensor(expected))


def slow_constraint(maps, labels, margin, keep):
    total = 0.0
    rows = [i for i in range(len(labels)) if keep[i]]
    for m in maps:
        anchors = []
        for a in rows:
            terms = [
                max(0.0, float(((m[a] - m[p]) ** 2).mean() - ((m[a] - m[n]) ** 2).mean()) + margin)
                for p in rows
                for n in rows
                if p != a and labels[p] == labels[a] and labels[n] != labels[a]
            ]
            if terms:
                anchors.append(sum(terms) / len(terms))
        total += sum(anchors) / len(anchors)
    return total


def test_identity_loss_by_hand():
    logits = torch.tensor([[math.log(2.0), 0.0, 0.0]])  # probabilities 1/2, 1/4, 1/4
    target = [0.9 + 0.1 / 3, 0.1 / 3, 0.1 / 3]
    expected = target[0] * math.log(2) + (target[1] + target[2]) * math.log(4)
    found = losses.identity_loss(logits, torch.tensor([0]), smoothing=0.1)
    assert found.item() == pytest.approx(expected)


def slow_identity(logits, labels, smoothing):
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        normaliser = math.log(sum(math.exp(value) for value in row))
        for i, value in enumerate(row):
            target = (1 - smoothing) * (i == label) + smoothing / len(row)
            total -= target * (value - normaliser)
    return total / len(labels)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_identity_loss_agrees_with_its_slow_twin(smoothing):
    logits = randn(7, 5)
    found = losses.identity_loss(logits, LABELS, smoothing=smoothing)
    assert found.item() == pytest.approx(slow_identity(logits, LABELS, smoothing), rel=1e-5)


def test_identity_loss_ignores_what_all_logits_share():
    logits = randn(7, 5)
    first = losses.identity_loss(logits, LABELS, smoothing=0.1)
    second = losses.identity_loss(logits + 3, LABELS, smoothing=0.1)
    torch.testing.assert_close(first, second)


def test_smoothed_identities_are_learned_when_the_person_is_as_likely_as_its_target():
    # 3 identities, smoothing 0.3: the target is 0.8, 0.1, 0.1, where the gradient vanishes
    logits = torch.tensor([0.8, 0.1, 0.1]).log()[None].requires_grad_()
    losses.identity_loss(logits, torch.tensor([0]), smoothing=0.3).backward()
    torch.testing.assert_close(logits.grad, torch.zeros(1, 3))


def test_triplet_by_hand():
    # On a line: person 0 at 0 and 3, person 1 at 5 and 9.
    embeddings = torch.tensor([[0.0], [3.0], [5.0], [9.0]])
    labels = torch.tensor([0, 0, 1, 1])
    # anchors 0, 3, 5, 9: positives 3, 3, 4, 4; negatives 5, 2, 2, 6; margin 0.5
    expected = (0 + (3 - 2 + 0.5) + (4 - 2 + 0.5) + 0) / 4
    found = losses.triplet_loss(embeddings, labels, margin=0.5)
    assert found.item() == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_triplet_agrees_with_its_slow_twin(seed):
    embeddings = randn(7, 5, seed=seed) + 3  # a common part, as embeddings after a ReLU have
    found = losses.triplet_loss(embeddings, LABELS, margin=0.3)
    assert found.item() == pytest.approx(slow_triplet(embeddings, LABELS, 0.3), rel=1e-5)


def test_normalised_triplet_ignores_lengths():
    embeddings, lengths = randn(7, 5), torch.arange(1, 8)[:, None]
    first = losses.triplet_loss(embeddings, LABELS, margin=0.3, normalize=True)
    second = losses.triplet_loss(embeddings * lengths, LABELS, margin=0.3, normalize=True)
    torch.testing.assert_close(first, second)
    unit = embeddings / embeddings.norm(dim=1, keepdim=True)
    assert first.item() == pytest.approx(slow_triplet(unit, LABELS, 0.3), rel=1e-5)


def test_triplet_sees_distances_alone():
    embeddings = randn(7, 5)
    rotation, _ = torch.linalg.qr(randn(5, 5, seed=1))
    first = losses.triplet_loss(embeddings, LABELS, margin=0.3)
    moved = losses.triplet_loss(embeddings @ rotation + 2, LABELS, margin=0.3)
    torch.testing.assert_close(first, moved)


def test_triplet_gradients_agree_with_its_slow_twin():
    embeddings = randn(7, 5).double().requires_grad_()
    anchors = []
    for a, label in enumerate(LABELS):
        distances = [(embeddings[a] - e).norm() for e in embeddings]
        positive = max(d for i, d in enumerate(distances) if i != a and LABELS[i] == label)
        negative = min(d for i, d in enumerate(distances) if LABELS[i] != label)
        anchors.append((positive - negative + 0.3).relu())
    (expected,) = torch.autograd.grad(torch.stack(anchors).mean(), embeddings)
    found = embeddings.detach().float().requires_grad_()
    losses.triplet_loss(found, LABELS, margin=0.3).backward()
    torch.testing.assert_close(found.grad.double(), expected, rtol=1e-4, atol=1e-6)


def test_identical_images_have_finite_triplet_gradients():
    embeddings = torch.ones(4, 3, requires_grad=True)
    losses.triplet_loss(embeddings, torch.tensor([0, 0, 1, 1]), margin=0.3).backward()
    assert torch.isfinite(embeddings.grad).all()


def test_reconstruction_by_hand():
    textures = torch.zeros(2, 3, 1, 2)
    targets = torch.tensor([[1.0, -1.0], [0.5, 0.0]])[:, None, None, :].expand(2, 3, 1, 2)
    found = reconstruction_loss(textures, targets)
    assert found.item() == pytest.approx(((1 + 1) / 2 + (0.5 + 0) / 2) / 2)
    kept = reconstruction_loss(textures, targets, keep=torch.tensor([False, True]))
    assert kept.item() == pytest.approx((0.5 + 0) / 2)


def test_reconstruction_of_nothing_is_zero_with_zero_gradients():
    textures = torch.ones(2, 3, 2, 2, requires_grad=True)
    loss = reconstruction_loss(textures, torch.zeros(2, 3, 2, 2), keep=torch.zeros(2).bool())
    loss.backward()
    assert loss == 0
    assert torch.equal(textures.grad, torch.zeros(2, 3, 2, 2))


def test_reconstruction_agrees_with_its_slow_twin():
    textures, targets = randn(3, 3, 4, 4), randn(3, 3, 4, 4, seed=1)
    pairs = list(zip(textures.flatten().tolist(), targets.flatten().tolist(), strict=True))
    expected = sum(abs(a - b) for a, b in pairs) / len(pairs)
    assert reconstruction_loss(textures, targets).item() == pytest.approx(expected, rel=1e-5)
    swapped = reconstruction_loss(targets, textures)
    assert torch.equal(swapped, reconstruction_loss(textures, targets))


def test_left_out_samples_have_no_reconstruction_gradient():
    textures = torch.ones(3, 3, 2, 2, requires_grad=True)
    keep = torch.tensor([True, False, True])
    reconstruction_loss(textures, torch.zeros(3, 3, 2, 2), keep=keep).backward()
    assert textures.grad.abs().sum(dim=(1, 2, 3)).gt(0).tolist() == keep.tolist()


def test_constraint_by_hand():
    # One map of one value: person 0 at 0 and 1, person 1 at 3 and 3; MSE is the squared difference.
    decoded = torch.tensor([0.0, 1.0, 3.0, 3.0]).reshape(4, 1, 1, 1)
    labels = torch.tensor([0, 0, 1, 1])
    # anchor 0: positive 1, negatives 9, 9; anchor 1: positive 1, negatives 4, 4;
    # anchors 2, 3: positive 0, negatives 9, 4; margin 5
    per_anchor = [0, (1 - 4 + 5), (0 + (0 - 4 + 5)) / 2, (0 + (0 - 4 + 5)) / 2]
    found = losses.triplet_reid_constraint([decoded], labels, margin=5.0)
    assert found.item() == pytest.approx(sum(per_anchor) / 4)
    twice = losses.triplet_reid_constraint([decoded, decoded], labels, margin=5.0)
    assert twice.item() == pytest.approx(2 * sum(per_anchor) / 4)


@pytest.mark.parametrize("keep", [[1, 1, 1, 1, 1, 1, 1], [1, 1, 0, 1, 1, 0, 1]])
def test_constraint_agrees_with_its_slow_twin(keep):
    maps = [randn(7, 4, 6, 3) + 2, randn(7, 2, 12, 6, seed=1)]
    keep = torch.tensor(keep, dtype=torch.bool)
    found = losses.triplet_reid_constraint(maps, LABELS, margin=0.3, keep=keep)
    assert found.item() == pytest.approx(slow_constraint(maps, LABELS, 0.3, keep), rel=1e-5)


def test_constraint_gradients_agree_with_its_slow_twin():
    decoded = randn(7, 2, 3, 2).double().requires_grad_()
    squares = ((decoded[:, None] - decoded[None]) ** 2).mean(dim=(2, 3, 4))
    anchors = []
    for a, label in enumerate(LABELS):
        positives = [i for i in range(7) if i != a and LABELS[i] == label]
        negatives = [i for i in range(7) if LABELS[i] != label]
        terms = [(squares[a, p] - squares[a, n] + 0.3).relu() for p in positives for n in negatives]
        anchors.append(torch.stack(terms).mean())
    (expected,) = torch.autograd.grad(torch.stack(anchors).mean(), decoded)
    found = decoded.detach().float().requires_grad_()
    losses.triplet_reid_constraint([found], LABELS, margin=0.3).backward()
    torch.testing.assert_close(found.grad.double(), expected, rtol=1e-4, atol=1e-6)


class LargestTensor(TorchDispatchMode):
    """Notes the most elements that any operation gives."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.elements = max(self.elements, made.numel())
        return made


def test_constraint_holds_no_tensor_of_all_triplets():
    decoded, labels = randn(48, 2, 2, 2).requires_grad_(), torch.arange(12).repeat_interleave(4)
    with LargestTensor() as seen:
        losses.triplet_reid_constraint([decoded], labels, margin=0.3).backward()
    assert seen.elements == 48 * 48


def test_constraint_without_valid_triplets_is_zero():
    decoded = randn(4, 2, 2, 2).requires_grad_()
    keep = torch.tensor([True, False, True, False])
    loss = losses.triplet_reid_constraint(
        [decoded], torch.tensor([0, 0, 1, 1]), margin=0.3, keep=keep
    )
    loss.backward()
    assert loss == 0
    assert torch.equal(decoded.grad, torch.zeros_like(decoded))


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(7)), st.integers(0, 100))
def test_the_order_of_the_batch_does_not_matter(order, seed):
    order = list(order)
    embeddings, maps = randn(7, 4, seed=seed), [randn(7, 2, 4, 2, seed=seed + 1)]
    shuffled = [m[order] for m in maps]
    torch.testing.assert_close(
        losses.triplet_loss(embeddings, LABELS, margin=0.3),
        losses.triplet_loss(embeddings[order], LABELS[order], margin=0.3),
    )
    torch.testing.assert_close(
        losses.triplet_reid_constraint(maps, LABELS, margin=0.3),
        losses.triplet_reid_constraint(shuffled, LABELS[order], margin=0.3),
    )


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(3)))
def test_the_names_of_people_do_not_matter(names):
    renamed = torch.tensor(names)[LABELS]
    embeddings = randn(7, 4)
    assert torch.equal(
        losses.triplet_loss(embeddings, LABELS, margin=0.3),
        losses.triplet_loss(embeddings, renamed, margin=0.3),
    )


def triplet(labels, values=None):
    x = torch.zeros(len(labels), 2) if values is None else values
    return losses.triplet_loss(x, torch.tensor(labels), margin=0.3)


def constraint(labels, values=None):
    x = torch.zeros(len(labels), 1, 2, 2) if values is None else values
    return losses.triplet_reid_constraint([x], torch.tensor(labels), margin=0.3)


@pytest.mark.parametrize(("loss", "name"), [(triplet, "L_Triplet"), (constraint, "L_TR")])
def test_triplet_losses_refuse_batches_without_triplets(loss, name):
    with pytest.raises(ValueError, match=f"{name}: identity 8 appears once in the batch"):
        loss([7, 7, 8])
    with pytest.raises(ValueError, match=f"{name}: the batch shows 1 person"):
        loss([7, 7, 7])


def test_the_constraint_sees_differences_alone():
    decoded, offset = randn(7, 2, 4, 2), randn(2, 4, 2, seed=1)
    first = losses.triplet_reid_constraint([decoded], LABELS, margin=0.3)
    shifted = losses.triplet_reid_constraint([decoded + offset], LABELS, margin=0.3)
    torch.testing.assert_close(first, shifted)


@pytest.mark.parametrize("name", ["L_ID", "L_Triplet", "L_TR"])
def test_losses_want_one_label_a_sample(name):
    loss = {
        "L_ID": lambda: losses.identity_loss(randn(4, 3), LABELS, smoothing=0.1),
        "L_Triplet": lambda: losses.triplet_loss(randn(4, 3), LABELS, margin=0.3),
        "L_TR": lambda: losses.triplet_reid_constraint([randn(4, 1, 2, 2)], LABELS, margin=0.3),
    }[name]
    with pytest.raises(ValueError, match=rf"{name}: labels of shape \(7,\) for 4 samples"):
        loss()


def test_the_constraint_needs_maps():
    with pytest.raises(ValueError, match="L_TR: there are no decoder maps"):
        losses.triplet_reid_constraint([], LABELS, margin=0.3)


def test_reconstruction_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"L_Rec: textures are \(1, 3, 4, 4\) but targets \(1, 3"):
        reconstruction_loss(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_each_loss_names_itself_when_not_finite(bad):
    labels = torch.tensor([0, 0, 1, 1])
    with pytest.raises(NonFiniteError, match="L_ID is not finite"):
        losses.identity_loss(torch.full((4, 2), bad), labels, smoothing=0.1)
    with pytest.raises(NonFiniteError, match="L_Triplet is not finite"):
        triplet([0, 0, 1, 1], torch.full((4, 2), bad))
    with pytest.raises(NonFiniteError, match="L_Rec is not finite"):
        reconstruction_loss(torch.full((1, 3, 2, 2), bad), torch.zeros(1, 3, 2, 2))
    with pytest.raises(NonFiniteError, match="L_TR on f_d1 is not finite"):
        constraint([0, 0, 1, 1], torch.full((4, 1, 2, 2), bad))


def test_flags_take_the_place_of_the_error():
    labels, flags = torch.tensor([0, 0, 1, 1]), FiniteFlags()
    wrong = torch.full((4, 2), math.nan)
    losses.identity_loss(wrong, labels, smoothing=0.1, flags=flags)
    losses.triplet_loss(wrong, labels, margin=0.3, flags=flags)
    maps = [torch.zeros(4, 1, 2, 2), torch.full((4, 1, 2, 2), math.inf)]
    losses.triplet_reid_constraint(maps, labels, margin=0.3, flags=flags)
    assert flags.stacked().tolist() == [False, False, True, False]
    assert [flags.name_of(i) for i in range(4)] == [
        "L_ID",
        "L_Triplet",
        "L_TR on f_d1",
        "L_TR on f_d2",
    ]


TWO_PEOPLE = torch.tensor([0, 0, 0, 1, 1, 1])
KNOWN = torch.tensor([True, True, False, True, True, False])


def test_losses_of_textures_leave_out_images_whose_texture_is_unknown():
    recipe, draw = tiny_recipe("demo", "w_tr=1 tr_margin=1.0"), torch.Generator().manual_seed(0)
    texture, truth = torch.rand(2, 6, 3, 16, 16, generator=draw)
    maps = tuple(torch.rand(6, 2, n, n, generator=draw) for n in (2, 4))
    output, targets = SANOutput(None, None, texture, maps), TextureTargets(truth, KNOWN)
    batch = Batch(torch.zeros(6, 3, 8, 4), TWO_PEOPLE, targets)
    terms = loss_terms(output, batch, recipe, ALONE, FiniteFlags())
    assert terms.keys() == {"rec", "tr"}
    assert terms["rec"].item() == pytest.approx((texture - truth).abs()[KNOWN].mean().item())
    known = [of[KNOWN] for of in maps]
    expected, of_all = (
        losses.triplet_reid_constraint(of, labels, margin=1.0).item()
        for of, labels in ((known, TWO_PEOPLE[KNOWN]), (maps, TWO_PEOPLE))
    )
    assert terms["tr"].item() == pytest.approx(expected)
    assert terms["tr"].item() != pytest.approx(of_all, rel=1e-3)


def test_an_anchor_with_a_single_pair_counts_it_whole():
    values = torch.tensor([0.0, 1.0, 2.0, 9.0])
    maps = [values[:, None, None, None]]
    keep = torch.tensor([True, True, True, False])
    # Anchor 0: 1 - 4 + m, and anchor 1: 1 - 1 + m; anchor 2 has no positive, and 3 is not kept.
    found = losses.triplet_reid_constraint(maps, torch.tensor([0, 0, 1, 1]), margin=3.5, keep=keep)
    assert found.item() == pytest.approx(((1 - 4 + 3.5) + (1 - 1 + 3.5)) / 2)


def test_squared_distances_are_never_below_0_by_rounding():
    x = torch.randn(64, 5, generator=torch.Generator().manual_seed(0)).repeat(2, 1)
    found = losses._squared_distances(x)
    assert found.min() == 0


def test_accuracy_is_the_share_of_pictures_whose_own_identity_comes_first():
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 3.0], [0.0, 5.0, 4.0], [0.0, 1.0, 2.0]])
    output = SANOutput(None, logits, None, ())
    found = identity_accuracy(output, torch.tensor([0, 1, 1, 2]), ALONE)
    assert found.item() == 3 / 4
    assert identity_accuracy(SANOutput(None, None, None, ()), None, ALONE) is None
