"""The four losses of SAN, as functions of tensors (paper, Figure 2).

Legend: B batch, D embedding, C channels, T texels a side. Labels are identities, (B,) int64;
positives and negatives depend only on labels, never on positions in the batch. With `flags` a loss
records whether its values are finite, and the host does not wait for the device. Without `flags` it
raises NonFiniteError, with its name, if a value is not finite.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from san_core.training.finiteness import FiniteFlags, check_finite


def identity_loss(
    logits: Tensor, labels: Tensor, *, smoothing: float, flags: FiniteFlags | None = None
) -> Tensor:
    """L_ID: cross entropy against labels smoothed by `smoothing` over all identities.

    The target is (1 - smoothing) on the person plus smoothing / identities on everyone, as in the
    official code (cross_entropy_loss.py:21). logits: (B, identities).

    Raises:
        ValueError: there is not one label per sample.
    """
    _check_labels("L_ID", logits, labels)
    loss = functional.cross_entropy(logits.float(), labels, label_smoothing=smoothing)
    return check_finite("L_ID", loss, flags)


def cosine_logits(cosines: Tensor, labels: Tensor, *, scale: float, margin: float) -> Tensor:
    """Logits of the identity loss by large-margin cosines: CosFace (Wang et al. 2018, eq. 4).

    cosines: (B, identities), in -1 ... 1; the person's own is lowered by the margin, then all are
    scaled.
    """
    return scale * (cosines - margin * _own_identity(cosines, labels))


def circle_logits(cosines: Tensor, labels: Tensor, *, scale: float, margin: float) -> Tensor:
    """Logits of the identity loss by circle loss on classes (Sun et al. 2020, eq. 8 and 9).

    Each cosine is weighted by how far it is from its optimum, 1 + margin for the person's own and
    -margin for the others; the weights take no gradient. cosines: (B, identities), in -1 ... 1.
    """
    fixed = cosines.detach()
    own = (1 + margin - fixed).clamp(min=0) * (cosines - (1 - margin))
    other = (fixed + margin).clamp(min=0) * (cosines - margin)
    return scale * torch.where(_own_identity(cosines, labels), own, other)


def _own_identity(logits: Tensor, labels: Tensor) -> Tensor:
    """(B, identities) bool; not one_hot, which reads labels of a GPU."""
    return labels[:, None] == torch.arange(logits.shape[1], device=labels.device)


def triplet_loss(
    embeddings: Tensor,
    labels: Tensor,
    *,
    kind: Literal["hard", "soft", "weighted"] = "hard",
    margin: float,
    normalize: bool = False,
    flags: FiniteFlags | None = None,
) -> Tensor:
    """L_Triplet: each anchor's images of its person against those of others.

    "hard" is the mean over anchors of max(0, d_positive - d_negative + margin), d the Euclidean
    distances to the farthest image of the person and to the nearest of another (Hermans et al.
    2017, eq. 5). "soft" takes ln(1 + exp(d_positive - d_negative)) instead (there, section 3.3).
    "weighted" does so with weighted means of all distances, by softmax of them: far positives and
    near negatives count most (Ye et al. 2021, eq. 6). embeddings: (B, D), L2-normalised first if
    `normalize`.

    Raises:
        ValueError: there is not one label per sample; labels on the host show one person alone, or
            a person once.
    """
    _check_labels("L_Triplet", embeddings, labels)
    same = _same_person("L_Triplet", labels)
    x = functional.normalize(embeddings.float()) if normalize else embeddings.float()
    # The floor keeps the gradient of the root finite for identical images (official: 1e-12).
    distances = _squared_distances(x).clamp(min=1e-12).sqrt()  # (B, B)
    check_finite("L_Triplet", distances, flags)
    others = ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    far = distances.masked_fill(~(same & others), -torch.inf)
    near = distances.masked_fill(same, torch.inf)
    if kind == "weighted":
        positive = (far.softmax(dim=1) * distances).sum(dim=1)
        negative = ((-near).softmax(dim=1) * distances).sum(dim=1)
    else:
        positive, negative = far.amax(dim=1), near.amin(dim=1)
    if kind == "hard":
        return functional.relu(positive - negative + margin).mean()
    return functional.softplus(positive - negative).mean()


def reconstruction_errors(textures: Tensor, targets: Tensor) -> Tensor:
    """Each sample's mean absolute difference over its texels and colours, (B,).

    textures, targets: (B, 3, T, T) in [-1, 1].

    Raises:
        ValueError: the shapes differ.
    """
    if textures.shape != targets.shape:
        raise ValueError(
            f"L_Rec: textures are {tuple(textures.shape)} but targets {tuple(targets.shape)}"
        )
    return (textures.float() - targets).abs().mean(dim=(1, 2, 3))


def feature_errors(features: Tensor, targets: Tensor) -> Tensor:
    """Each sample's mean squared difference, (B,), as of hints (Romero et al. 2015, eq. 3).

    That is their half of a sum, but for a factor that follows from the maps' size. features,
    targets: (B, C, rows, columns).

    Raises:
        ValueError: the shapes differ.
    """
    if features.shape != targets.shape:
        raise ValueError(
            f"L_Distill: features are {tuple(features.shape)} but targets {tuple(targets.shape)}"
        )
    return _mean_squares(features.float() - targets.float())


def mean_reconstruction(
    errors: Tensor, *, keep: Tensor | None, flags: FiniteFlags | None = None
) -> Tensor:
    """L_Rec: the mean of the errors (B,) of the kept samples, which several processes may compute.

    keep: (B,) bool, the samples that count (None: all); with none kept the loss is 0 and so are its
    gradients.
    """
    return mean_of_kept("L_Rec", errors, keep=keep, flags=flags)


def mean_of_kept(
    loss: str, errors: Tensor, *, keep: Tensor | None, flags: FiniteFlags | None = None
) -> Tensor:
    """The mean of the errors (B,) of the kept samples, as in `mean_reconstruction`, of any loss."""
    return check_finite(loss, _mean_of_kept(errors, keep), flags)


def triplet_reid_constraint(
    maps: Sequence[Tensor],
    labels: Tensor,
    *,
    margin: float,
    keep: Tensor | None = None,
    flags: FiniteFlags | None = None,
) -> Tensor:
    """L_TR: decoder maps of one person nearer than those of two people, summed over the maps.

    For each anchor, the mean over all its (positive, negative) pairs of
    max(0, MSE(anchor, positive) - MSE(anchor, negative) + margin), MSE over C, rows and columns;
    then the mean over anchors. maps: f_d1 ... f_dn, each (B, C, rows, columns). keep: (B,) bool,
    the samples that take part; anchors left without a pair do not count.

    Raises:
        ValueError: no maps, or not one label per sample; labels on the host show one person alone,
            or a person once.
    """
    if not maps:
        raise ValueError("L_TR: there are no decoder maps: the network has no decoder")
    _check_labels("L_TR", maps[0], labels)
    same = _same_person("L_TR", labels)
    kept = torch.ones_like(labels, dtype=torch.bool) if keep is None else keep
    both = kept[:, None] & kept[None, :]
    others = ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    positive, negative = same & others & both, ~same & both
    pairs = positive.sum(dim=1) * negative.sum(dim=1)  # (B,)
    total = maps[0].new_zeros((), dtype=torch.float32)
    for i, decoded in enumerate(maps):
        flat = decoded.float().flatten(1)
        mse = _squared_distances(flat) / flat.shape[1]
        check_finite(f"L_TR on f_d{i + 1}", mse, flags)
        hinges = _hinges_of_anchors(mse, positive, negative, margin)
        total = total + _mean_of_kept(hinges / pairs.clamp(min=1), pairs > 0)
    return total


def positional_triplets(
    maps: Sequence[Tensor],
    *,
    margin: float,
    keep: Tensor | None = None,
    flags: FiniteFlags | None = None,
) -> Tensor:
    """L_TR as in the official code: a sum of hinges at fixed positions of the batch.

    Of every person but the last, the map f_d1 has the anchor 0, the positive 1 and the next
    person's image 0; f_d2 has 1, 2 and 1; f_d3 has 2, 3 and 2; f_d4 has 3, 0 and 0 (main.py:415).
    Deeper decoders begin again. maps: f_d1 ... f_dn, each (B, C, rows, columns) of P people of 4
    images, one after another. keep: (B,) bool; triplets with another image do not count.

    Raises:
        ValueError: no maps, or B is not 4 P with P at least 2.
    """
    if not maps:
        raise ValueError("L_TR: there are no decoder maps: the network has no decoder")
    batch = len(maps[0])
    if batch < 8 or batch % 4:
        raise ValueError(
            f"L_TR at fixed positions needs 4 images of each of at least 2 people: {batch}"
        )
    first = torch.arange(0, batch - 4, 4, device=maps[0].device)  # (P - 1,)
    total = maps[0].new_zeros((), dtype=torch.float32)
    for i, decoded in enumerate(maps):
        places = first + i % 4, first + (i + 1) % 4, first + 4 + i % 4 % 3
        anchor, positive, negative = (decoded[rows].float() for rows in places)
        apart = _mean_squares(anchor - positive) - _mean_squares(anchor - negative)
        check_finite(f"L_TR on f_d{i + 1}", apart, flags)
        hinges = functional.relu(apart + margin)  # (P - 1,)
        counts = 1 if keep is None else torch.stack([keep[rows] for rows in places]).all(dim=0)
        total = total + (hinges * counts).sum()
    return total


def _mean_squares(differences: Tensor) -> Tensor:
    """(P, C, rows, columns) to (P,)."""
    return differences.square().mean(dim=(1, 2, 3))


def _hinges_of_anchors(mse: Tensor, positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """For each anchor, the sum of the hinges of all its pairs: (B,).

    mse: (B, B). positive, negative: (B, B) bool. A hinge that is not 0 is a positive's distance and
    the margin, its reach, less the distance of a negative within it. So it is enough to count how
    many negatives each positive reaches, and how many positives reach each negative; memory is that
    of some (B, B).
    """
    mse = mse.double()  # sums of many hinges would lose digits
    with torch.no_grad():
        reach = (mse + margin).masked_fill_(~positive, -torch.inf)
        level = mse.masked_fill(~negative, torch.inf)
        # (B, B): levels below a reach, and reaches up to a level
        reaches = torch.searchsorted(level.sort(dim=1).values, reach, out_int32=True)
        below = torch.searchsorted(reach.sort(dim=1).values, level, right=True, out_int32=True)
        factors = (reaches + below - len(mse)).double()  # (B, B): of each distance in the sum
    return ((factors * mse).sum(dim=1) + margin * reaches.sum(dim=1)).float()


def _mean_of_kept(values: Tensor, keep: Tensor | None) -> Tensor:
    if keep is None:
        return values.mean()
    return (values * keep).sum() / keep.sum().clamp(min=1)


def _squared_distances(x: Tensor) -> Tensor:
    """Squared Euclidean distances between the rows of x (B, D): (B, B), at least 0.

    Rows are centred first, which changes no distance but spares the digits that the matrix product
    would lose to a large common part.
    """
    with torch.autocast(x.device.type, enabled=False):
        x = x - x.mean(dim=0, keepdim=True).detach()
        squares = (x * x).sum(dim=1)
        return (squares[:, None] + squares[None, :] - 2 * (x @ x.T)).clamp(min=0)


def _check_labels(loss: str, samples: Tensor, labels: Tensor) -> None:
    if labels.shape != samples.shape[:1]:
        raise ValueError(
            f"{loss}: labels of shape {tuple(labels.shape)} for {len(samples)} samples, must be "
            "one identity per sample"
        )


def check_triplets(loss: str, labels: Tensor) -> None:
    """Raise ValueError unless labels on the host are of two people or more, each at least twice."""
    people, counts = torch.unique(labels, return_counts=True)
    if len(people) < 2:
        raise ValueError(f"{loss}: the batch shows {len(people)} person, triplets need at least 2")
    if counts.min() < 2:
        lonely = people[counts.argmin()].item()
        raise ValueError(
            f"{loss}: identity {lonely} appears once in the batch; every person needs at least 2 "
            "images (sample P identities of K >= 2 images)"
        )


def _same_person(loss: str, labels: Tensor) -> Tensor:
    """(B, B) bool: whether two samples show one person.

    Labels on a GPU are not looked at, as the host would wait for it: `identity_batches` draws none
    but good ones, and `check_triplets` may be asked on the host.
    """
    if labels.device.type == "cpu":
        check_triplets(loss, labels)
    return labels[:, None] == labels[None, :]
