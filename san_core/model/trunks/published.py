"""Published weights of a trunk: the wrappings and prefixes of such files.

It reads torchvision's files, files with the weights under a key or from DataParallel, and MoCo's
files, such as LUPerson's (Fu et al. 2021, "Unsupervised Pre-training for Person
Re-identification"), of which only the query encoder is used.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import NamedTuple

from torch import Tensor

_WRAPPINGS = ("state_dict", "model")  # keys of the weights in a file that has more
_PARALLEL = "module."  # what DataParallel puts before every name
_QUERY_ENCODER = "encoder_q."  # MoCo's, of which the others are copies and a queue
_CLASSIFIERS = ("fc", "classifier", "head")


class TrunkWeights(NamedTuple):
    """Tensors by the names they have in the trunk, and the names of those that are left out."""

    tensors: dict[str, Tensor]
    left_out: list[str]


def trunk_weights(
    content: object, *, trunk: Collection[str], classifier: str, where: str
) -> TrunkWeights:
    """The weights in the content of a file; those of classifiers and of other encoders left out.

    Args:
        content: what the file holds.
        trunk: the names of the trunk's own tensors.
        classifier: the name of the published network's classifier.
        where: the file's name in errors.

    Raises:
        ValueError: it holds no state dict.
    """
    tensors = _unwrap(content, where)
    if all(name.startswith(_PARALLEL) for name in tensors):
        tensors = {name.removeprefix(_PARALLEL): tensor for name, tensor in tensors.items()}
    left_out = []
    if any(name.startswith(_QUERY_ENCODER) for name in tensors):
        left_out = [name for name in tensors if not name.startswith(_QUERY_ENCODER)]
        tensors = {
            name.removeprefix(_QUERY_ENCODER): tensor
            for name, tensor in tensors.items()
            if name.startswith(_QUERY_ENCODER)
        }
    ends = (classifier, *_CLASSIFIERS)
    unfit = [
        name
        for name in tensors
        if name not in trunk and any(name.startswith(f"{end}.") for end in ends)
    ]
    kept = {name: tensor for name, tensor in tensors.items() if name not in unfit}
    return TrunkWeights(kept, [*left_out, *unfit])


def left_out_in_words(names: Collection[str]) -> str:
    """The tensors left out of a file, counted by the first part of their names."""
    counts = Counter(name.partition(".")[0] for name in names)
    return ", ".join(f"{part} ({count})" for part, count in sorted(counts.items()))


def _unwrap(content: object, where: str) -> dict[str, Tensor]:
    """The state dict in the content of a file.

    Raises:
        ValueError: there is none.
    """
    while isinstance(content, Mapping):
        if content and all(isinstance(value, Tensor) for value in content.values()):
            return dict(content)
        inner = [content[key] for key in _WRAPPINGS if isinstance(content.get(key), Mapping)]
        content = inner[0] if inner else None
    raise ValueError(
        f"{where}: must be a state dict, names to tensors, alone or under"
        f" {' or '.join(map(repr, _WRAPPINGS))}"
    )
