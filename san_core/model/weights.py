"""Saves and loads networks, and provides initial weights.

A saved network is a directory of weights.safetensors and recipe.json; `saved` describes it.
The bytes depend only on weights, recipe and facts: equal training gives equal files.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torchvision
from torch import Tensor

from san_core.disk import write_file
from san_core.model.encoder import Encoder
from san_core.model.san import SAN, build_network
from san_core.model.saved import (
    LAST_WEIGHTS_FILE,
    RECIPE_FILE,
    WEIGHTS_FILE,
    description_text,
    read_description,
)
from san_core.model.saved import fingerprint as fingerprint
from san_core.model.trunks.published import trunk_weights
from san_core.recipe import Recipe

# The fields that must be equal for a trunk to fit another network, and for trunk and decoder. The
# trunk of SAN-PG also fits another last stride, which has no weights (Luo et al. 2019).
_TRUNK_FIELDS = ("arch", "last_stride")
_ENCODER_FIELDS = (*_TRUNK_FIELDS, "pooling", "embedding", "embedding_dim")
_ARCHITECTURE_FIELDS = (
    *_TRUNK_FIELDS,
    "skips",
    "decoder_plan",
    "decoder_width",
    "texture_from",
    "copy_queries",
    "copy_dim",
    "texture_size",
    "image_height",
)


@dataclass(frozen=True)
class LoadedNetwork:
    """The result of `load_network`."""

    model: SAN
    recipe: Recipe
    facts: dict[str, Any]  # "num_classes" and whatever was given to `save_network`


def save_network(
    path: Path,
    model: SAN,
    recipe: Recipe,
    *,
    facts: Mapping[str, Any],
    best_weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Write weights, recipe and facts into the directory `path`, which is made if need be.

    Args:
        path: the directory.
        model: the network of `recipe`.
        recipe: what `load_network` builds the network from.
        facts: JSON-able, such as atlas and seed; no time, host or path, or the bytes would differ
            between equal runs. "num_classes" is added.
        best_weights: weights for `load_network` to find instead of the model's, such as the best of
            a training; the model's are stored beside them as last.safetensors.

    If the recipe's `pretrained` is a path or URI, it is written as it is.
    """
    save_weights(
        path,
        model.state_dict(),
        recipe,
        facts={**facts, "num_classes": model.num_classes},
        best_weights=best_weights,
    )


def save_weights(
    path: Path,
    weights: Mapping[str, Tensor],
    recipe: Recipe,
    *,
    facts: Mapping[str, Any],
    best_weights: Mapping[str, Tensor] | None = None,
) -> None:
    """As `save_network`, from weights without a model.

    facts: with "num_classes".
    """
    path.mkdir(parents=True, exist_ok=True)
    _write_safetensors(
        weights, path / (WEIGHTS_FILE if best_weights is None else LAST_WEIGHTS_FILE)
    )
    if best_weights is not None:
        _write_safetensors(best_weights, path / WEIGHTS_FILE)
    (path / RECIPE_FILE).write_text(description_text(recipe, facts))


def load_network(path: Path) -> LoadedNetwork:
    """The network saved in directory `path`, in evaluation mode on the CPU.

    Raises:
        FileNotFoundError: the directory lacks one of the two files.
        ValueError: recipe.json is damaged, or weights and recipe do not fit each other.
    """
    recipe, facts = read_description(path)
    where = str(path / WEIGHTS_FILE)
    tensors = _read_safetensors(path / WEIGHTS_FILE, where=where)
    _check_classes(tensors, facts["num_classes"], where=where)
    model = build_network(recipe, num_classes=facts["num_classes"], seed=0)
    _load_tensors(model, tensors, where=where)
    return LoadedNetwork(model.eval(), recipe, facts)


def _check_classes(tensors: Mapping[str, Tensor], count: int, *, where: str) -> None:
    """Raise ValueError if a classifier does not have `count` identities, before it is built."""
    found = len(tensors["classifier.weight"]) if "classifier.weight" in tensors else count
    if found != count:
        told = f"its classifier has {found} identities, but {RECIPE_FILE} says {count}"
        raise ValueError(f"{where}: {told}")


def load_pretrained(model: SAN, source: str, *, name: str = "") -> list[str]:
    """Load published weights into the encoder's trunk; head, decoder and classifier are untouched.

    Args:
        model: the network; the weights must have its architecture.
        source: "imagenet" for torchvision's own (downloaded by torch.hub, its hash checked), or the
            path of a state dict as `trunks.published` reads it, .pth, .pt, .pth.tar or
            .safetensors. Classifiers are left out; files from before torch 0.4.1 lack
            num_batches_tracked, which then stay unchanged.
        name: the weights' name in errors, if `source` is a copy of them.

    Returns:
        The names of the tensors of the file that are left out.

    Raises:
        FileNotFoundError: the path does not exist.
        ValueError: the file has another kind or architecture.
    """
    where = f"pretrained weights {name or source}"
    if source == "imagenet":
        content: object = _imagenet_weights(model.encoder.arch)
    else:
        content = _read_content(Path(source), where=where)
    own = model.encoder.state_dict()
    head = {name: t for name, t in own.items() if name.startswith(("pooling.", "head."))}
    found = trunk_weights(
        content, trunk=own.keys() - head, classifier=model.encoder.left_out, where=where
    )
    counters = {name: t for name, t in own.items() if name.endswith(".num_batches_tracked")}
    _load_tensors(model.encoder, {**counters, **found.tensors, **head}, where=where)
    return found.left_out


def start_from_generator(model: SAN, generator: LoadedNetwork, *, recipe: Recipe) -> list[str]:
    """Copy a trained SAN-PG into a network of `recipe`: encoder trunk and, by its init, decoder.

    Returns:
        The names of the tensors that keep their own initial weights: pooling, head, classifier and
        the distillation layer, which SAN-PG does not train, and with init="encoder" the decoder.

    Raises:
        ValueError: the architectures differ (the line names each field), or the generator has no
            decoder.
    """
    trunk_alone = recipe.init == "encoder"
    fields = ("arch",) if trunk_alone else _ARCHITECTURE_FIELDS
    if differing := _differing(generator.recipe, recipe, fields):
        raise ValueError(f"the generator has another architecture: {differing}")
    if generator.model.decoder is None:
        raise ValueError("the generator has no decoder: it was not trained to make textures")
    mine, theirs = model.state_dict(), generator.model.state_dict()
    untaught = ("encoder.head.", "encoder.pooling.", "classifier.", "regressor.") + (
        ("decoder.",) if trunk_alone else ()
    )
    own = [n for n in mine if n.startswith(untaught)]
    copied = {name: theirs[name] for name in mine if name not in own}
    model.load_state_dict({**mine, **copied})
    return own


def start_from_model(model: SAN, start: LoadedNetwork, *, recipe: Recipe) -> list[str]:
    """Copy a trained model's encoder and, if both have one, its decoder into a network of `recipe`.

    Returns:
        The names of the tensors that keep their own initial weights: the classifier, always, and
        the decoder if the model has none.

    Raises:
        ValueError: the architectures differ; the line names each field.
    """
    has_decoder = model.decoder is not None and start.model.decoder is not None
    fields = dict.fromkeys((*_ENCODER_FIELDS, *(_ARCHITECTURE_FIELDS if has_decoder else ())))
    if differing := _differing(start.recipe, recipe, fields):
        raise ValueError(f"the model to start from has another architecture: {differing}")
    mine, theirs = model.state_dict(), start.model.state_dict()
    parts = ("encoder.", "decoder.") if has_decoder else ("encoder.",)
    copied = {name: theirs[name] for name in mine if name.startswith(parts)}
    model.load_state_dict({**mine, **copied})
    return [name for name in mine if name not in copied]


def _differing(there: Recipe, here: Recipe, fields: Iterable[str]) -> str:
    """The fields in which two recipes differ, in words; empty if in none."""
    return "; ".join(
        f"{name} {getattr(there, name)!r} there, {getattr(here, name)!r} here"
        for name in fields
        if getattr(there, name) != getattr(here, name)
    )


def _write_safetensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    whole = {name: value.cpu().contiguous() for name, value in tensors.items()}
    # Not `save_file`: its files are readable by the owner only, and on a full disk it reports a
    # panic.
    write_file(path, safetensors.torch.save(whole))


def _read_safetensors(path: Path, *, where: str) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{where}: not a complete safetensors file: {error}") from error


def _read_content(path: Path, *, where: str) -> object:
    if not path.is_file():
        raise FileNotFoundError(f"{where} do not exist")
    if path.suffix == ".safetensors":
        return _read_safetensors(path, where=where)
    if path.suffix not in (".pth", ".pt", ".tar"):
        raise ValueError(f"{where}: must be a .pth, .pt, .pth.tar or .safetensors file")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # anything from EOFError to UnpicklingError, and advice to unpickle
        raise ValueError(
            f"{where} cannot be read: not a complete file that holds tensors only"
        ) from error


def _imagenet_weights(arch: str) -> dict[str, Tensor]:
    """The weights that torchvision published first, as in the official code."""
    first = torchvision.models.get_model_weights(arch).IMAGENET1K_V1
    try:
        return first.get_state_dict(progress=False, check_hash=True)  # type: ignore[no-any-return]
    except OSError as error:
        raise ConnectionError(
            f"the ImageNet weights of {arch} cannot be fetched from {first.url} ({error}); the"
            " recipe's field pretrained takes the file instead: pretrained=FILE, or pretrained=none"
        ) from error


def _load_tensors(module: SAN | Encoder, tensors: Mapping[str, Tensor], *, where: str) -> None:
    """Load every tensor by name, or raise ValueError that lists all tensors that do not fit.

    Files may hold half floats, which become float32 without loss.
    """
    own = module.state_dict()
    problems = [f"{name} is missing" for name in own if name not in tensors]
    problems += [f"{name} does not belong to this network" for name in tensors if name not in own]
    problems += [
        f"{name} is {tuple(tensors[name].shape)}, must be {tuple(value.shape)}"
        for name, value in own.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    problems += [
        f"{name} is {tensors[name].dtype}, must be {value.dtype}"
        for name, value in own.items()
        if name in tensors and not _is_kept_as(tensors[name].dtype, value.dtype)
    ]
    problems += [
        f"{name} has values that are not finite"
        for name, tensor in tensors.items()
        if not tensor.isfinite().all()
    ]
    if problems:
        shown = "; ".join(problems[:8]) + ("; ..." if len(problems) > 8 else "")
        raise ValueError(f"{where}: {len(problems)} tensors do not fit: {shown}")
    module.load_state_dict(dict(tensors))


def _is_kept_as(kept: torch.dtype, used: torch.dtype) -> bool:
    """Whether a tensor of one type may be stored as another."""
    return kept == used or (kept == torch.float16 and used == torch.float32)
