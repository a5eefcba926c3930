"""Checks of parameters before anything runs, as a late step would find a mistake hours later.

The parameters may be those of a graph or of one step; their names decide what is checked.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from components.command import recipes
from components.storage.places import is_remote, local_path
from components.storage.sources import (
    STORE_PARAMETERS,
    check_place,
    keeps_nothing,
    names_place,
    read_places,
)
from components.storage.texture_store import check_verify
from san_core.data.readers import sources
from san_core.data.readers.sources import SYNTHETIC
from san_core.images.texture_set import check_fuse, check_generator, units_of_worker
from san_core.model.saved import ONNX_SUFFIX, onnx_file, read_description
from san_core.model.sizes import check_sizes
from san_core.recipe import NO_IMAGENET, Recipe, check_mirrored
from san_core.seeds import check_seed
from san_core.shipped.generator import SHIPPED_FOLDER, SHIPPED_GENERATOR
from san_core.synthesis.difficulty import difficulty_by_name
from san_core.synthesis.world import check_world

# Prefixes of recipe parameters, in a step and in a graph that trains two networks, each with the
# step that trains it.
_RECIPE_PREFIXES = {"": "", "pg_": "train_san_pg", "san_": "train_san"}
# A graph that has textures has this parameter: where they are stored.
_TEXTURE_STORE = "destination"
# What a network must have in common with the generator that it starts from, by its init: as
# `weights.start_from_generator` says, which needs torch.
_FIELDS_OF_START = {
    "encoder": ("arch",),
    "generator": (
        "arch",
        "last_stride",
        "skips",
        "decoder_plan",
        "decoder_width",
        "texture_from",
        "copy_queries",
        "copy_dim",
        "texture_size",
        "image_height",
    ),
}
PRECISIONS = ("auto", "float32", "tf32", "bfloat16", "float16")


class Processes(NamedTuple):
    """The number of processes that train together: on each node, and the number of nodes."""

    per_node: int = 1
    nodes: int = 1

    @property
    def total(self) -> int:
        """The number on all nodes."""
        return self.per_node * self.nodes

    def asked_by(self, step: str) -> str:
        """The options of the command line that ask for them."""
        of = f"{step}=" if step else ""
        gpus = f"--gpus {of}{self.per_node}"
        return f"--nodes {of}{self.nodes} with {gpus}" if self.nodes > 1 else gpus


def check_parameters(
    values: Mapping[str, Any], processes: Mapping[str, Processes] | None = None
) -> None:
    """Refuse parameter values, defaults included, with which a step would fail.

    Args:
        values: values by parameter, of a graph or of one step.
        processes: the processes that train, by step; one for a step that is absent. The
            only step of a pipeline is called "".

    Raises:
        ValueError: a recipe, field, data set, difficulty, seed, world, precision, protocol,
            `mirrored` or `verify` is unknown; a recipe's sizes do not fit its network; its batch
            cannot be divided equally among the processes; several processes were to compile it; it
            needs an artifact that the graph does not make; a data set has no source or too few
            people; the workers do not cover every shard exactly once; features of several workers
            are stored nowhere; or an ONNX file is to be compared with its untrained encoder.
    """
    for which, step in _RECIPE_PREFIXES.items():
        if f"{which}recipe" in values:
            recipe = recipes.resolve_recipe(values[f"{which}recipe"], values[f"{which}overrides"])
            check_sizes(recipe)
            count = (processes or {}).get(step, Processes())
            _check_processes(recipe, count, step)
            _check_compiled(values, count, step)
    if values.get("precision", "auto") not in PRECISIONS:
        raise ValueError(f"precision {values['precision']!r} is not one of {', '.join(PRECISIONS)}")
    check_mirrored(values.get("mirrored", "auto"))
    if "san_recipe" in values and _TEXTURE_STORE not in values:
        _check_needs_no_textures(values)
        if "generator" in values:
            _check_uses_generator(values)
    if "generator" in values or "texture_source" in values:
        _check_untrained_generator(values)
    if "san_recipe" in values:
        _check_starts_from_no_model(values)
    if "dense" in values and "pg_recipe" in values:
        _check_dense(values)
    if "san_recipe" in values and not {"generator", "pg_recipe"} & set(values):
        _check_init(values)
    if values.get("references") and is_onnx_model(str(values.get("model") or "")):
        raise ValueError(
            f"references=true compares a model with its untrained encoder, and {values['model']} is"
            " an ONNX file, which has none; leave references out, or give the folder of the model"
        )
    if "dataset" in values:
        _check_data_sets(values)
    if "difficulty" in values:
        difficulty_by_name(values["difficulty"])
    if "seed" in values:
        check_seed(values["seed"])
    if "world" in values:
        check_world(values["world"])
    if "verify" in values:
        check_verify(values["verify"])
    if values.get("fuse", "none") != "none":
        _check_fuse(values)
    if "protocol" in values:
        _check_protocol(values["protocol"])
    for name in ("workers", "feature_workers"):
        if name in values:
            check_workers(values[name], what=name)
    if "feature_workers" in values and keeps_nothing("feature_parts", values.get("feature_parts")):
        raise ValueError(
            "feature_parts=none stores no features of several workers, so they cannot be joined;"
            " leave it out, or name a folder or URI"
        )
    if not values.get("worker", "/").startswith("/"):  # else only its pod knows its number
        units_of_worker(values["worker"], [])


def _check_processes(recipe: Recipe, count: Processes, step: str) -> None:
    """Check that the processes of a step, one per GPU, get equal shares of a batch."""
    from san_core.data.batches.shares import check_shares_of_full_batches

    try:
        check_shares_of_full_batches(recipe, count.total)
    except ValueError as error:
        raise ValueError(f"{count.asked_by(step)}: {error}") from error


def _check_compiled(values: Mapping[str, Any], count: Processes, step: str) -> None:
    """Check that a network is compiled in one process only."""
    if values.get("compiled") and count.total > 1:
        raise ValueError(
            f"{count.asked_by(step)}: compiled=true trains in one process; set compiled=false, or"
            " use one GPU of one node"
        )


def _check_needs_no_textures(values: Mapping[str, Any]) -> None:
    """Check that a graph without textures trains without them."""
    recipe = recipes.resolve_recipe(values["san_recipe"], values["san_overrides"])
    if recipe.needs_decoder:
        raise ValueError(
            f"recipe {values['san_recipe']!r} needs textures (w_rec={recipe.w_rec:g},"
            f" w_tr={recipe.w_tr:g}), and this graph has none; {_without_textures(values)}, or"
            " use another graph"
        )


def _check_uses_generator(values: Mapping[str, Any]) -> None:
    """Check that a graph whose generator makes no textures uses it for something else."""
    recipe = recipes.resolve_recipe(values["san_recipe"], values["san_overrides"])
    if not recipe.needs_generator:
        raise ValueError(
            f"recipe {values['san_recipe']!r} takes nothing from a generator (init={recipe.init},"
            " w_distill=0), and this graph makes no textures with it; use the graph baseline, or"
            f" {_without_textures(values)}"
        )


def _without_textures(values: Mapping[str, Any]) -> str:
    """Which recipe to choose for a graph without textures."""
    if "generator" not in values:
        return "choose a recipe that ends in -baseline"
    named = "small-baseline, or " if values["generator"] == SHIPPED_GENERATOR else ""
    return f"choose {named}a -baseline recipe of the generator's arch with init=encoder"


def _check_data_sets(values: Mapping[str, Any]) -> None:
    named = sources.parse_dataset_and_target(
        values["dataset"],
        values["target"],
        source=values["source"],
        target_source=values["target_source"],
    )
    if "san_recipe" in values:  # a graph trains on the data set; prepare_reid alone does not
        for one in named.learned:
            sources.check_trainable(one.name)
        if named.leaves_nobody:
            raise ValueError(
                f"dataset {values['dataset']} uses all its people for training, so nobody is left"
                " to test on; name a target"
            )
    if lacking := lacking_places(values):
        raise ValueError("; ".join(lacking))
    if named.has_synthetic:
        sources.check_synthetic_identities(values["identities"])


def is_onnx_model(place: str) -> bool:
    """Whether a model is an ONNX file: by its name or, on this machine, by its folder."""
    if place.endswith(ONNX_SUFFIX):
        return True
    return bool(place) and not is_remote(place) and onnx_file(local_path(place)) is not None


def lacking_places(values: Mapping[str, Any]) -> list[str]:
    """A line for each data set whose source is missing, with the parameter to give.

    Raises:
        ValueError: a data set is unknown.
    """
    lines = []
    for name, place in (("dataset", "source"), ("target", "target_source")):
        placed = sources.parse_placed_datasets(values.get(name) or SYNTHETIC, "")
        keys = [one.name.key for one in placed if one.name.key != SYNTHETIC]
        if keys and not values.get(place):
            wanted = " ".join(["PLACE"] * len(keys))
            wanted = f'"{place}={wanted}"' if len(keys) > 1 else f"{place}={wanted}"
            where = "where they are" if len(keys) > 1 else "where it is"
            lines.append(f"{name} {'+'.join(keys)} needs --param {wanted}, {where}")
    return lines


def check_places(values: Mapping[str, Any]) -> None:
    """Open every place that the parameters of a graph name, weights in overrides of recipes too.

    Raises:
        OSError: a place does not exist, or may not be read or written.
        ValueError: a value is not a place.
    """
    for name in STORE_PARAMETERS:
        if names_place(name, values.get(name)):
            check_place(name, values[name])
    for place in read_places(values):
        check_place(place.name, place.uri)


def _check_untrained_generator(values: Mapping[str, Any]) -> None:
    """Check a recipe for a graph that trains no generator: no PIT, and what ships must fit it."""
    recipe = recipes.resolve_recipe(values["san_recipe"], values["san_overrides"])
    if recipe.pit_every:
        raise ValueError(
            f"the recipe mixes in PIT batches (pit_every={recipe.pit_every}), and a graph that"
            " trains no generator makes no PIT; set pit_every=0, or use the graph full"
        )
    if values.get("generator") == SHIPPED_GENERATOR:
        _check_shipped_fits(recipe, read_description(SHIPPED_FOLDER).recipe)


def _check_shipped_fits(recipe: Recipe, shipped: Recipe) -> None:
    fields = _FIELDS_OF_START.get(recipe.init, ())
    differing = [name for name in fields if getattr(recipe, name) != getattr(shipped, name)]
    settings = _settings_that_fit(recipe, shipped)
    if differing:
        here, there = (
            ", ".join(f"{name}={str(getattr(of, name)).lower()}" for name in differing)
            for of in (recipe, shipped)
        )
        raise ValueError(
            f"the recipe starts from SAN-PG (init={recipe.init}) with {here}, and the shipped"
            f" generator has {there}; name a generator that fits, or set {settings}"
        )
    size = shipped.texture_size
    if recipe.needs_decoder and size % recipe.texture_size:
        raise ValueError(
            f"the recipe learns textures of {recipe.texture_size}x{recipe.texture_size}, and"
            f" the shipped generator makes {size}x{size}; set for example"
            f' --param san_overrides="{settings}"'
        )


def _settings_that_fit(recipe: Recipe, shipped: Recipe) -> str:
    """Overrides with which a recipe starts at most as the encoder of the shipped generator."""
    settings: dict[str, Any] = {}
    if recipe.init == "generator":
        settings["init"] = "encoder"
        if not recipe.train_decoder:
            settings["train_decoder"] = "true"
    if recipe.init in _FIELDS_OF_START and recipe.arch != shipped.arch:
        settings["arch"] = shipped.arch
        if recipe.pretrained == "imagenet" and shipped.arch in NO_IMAGENET:
            settings["pretrained"] = "none"
    if recipe.needs_decoder and shipped.texture_size % recipe.texture_size:
        settings |= {"texture_size": shipped.texture_size, "decoder_plan": "light"}
    return " ".join(f"{name}={value}" for name, value in settings.items())


def _check_fuse(values: Mapping[str, Any]) -> None:
    """Check that `fuse` is known, and that the generator outputs visibility if it needs it."""
    check_fuse(values["fuse"])
    if "pg_recipe" in values:
        recipe = recipes.resolve_recipe(values["pg_recipe"], values["pg_overrides"])
        check_generator(recipe, f"recipe {values['pg_recipe']!r}", fuse=values["fuse"])
    elif values.get("generator") == SHIPPED_GENERATOR:
        recipe = read_description(SHIPPED_FOLDER).recipe
        check_generator(recipe, "the shipped generator", fuse=values["fuse"])


def _check_dense(values: Mapping[str, Any]) -> None:
    """Check that PIT has dense maps if the texture generator learns from them."""
    weight = recipes.resolve_recipe(values["pg_recipe"], values["pg_overrides"]).w_dense
    if weight and not values["dense"]:
        raise ValueError(
            f"recipe {values['pg_recipe']!r} learns from dense maps (w_dense={weight:g}), and this"
            " run makes none; set dense=true, or w_dense=0 in pg_overrides"
        )


def _check_starts_from_no_model(values: Mapping[str, Any]) -> None:
    """Check that a graph starts from no trained model: only the step alone takes one."""
    if recipes.resolve_recipe(values["san_recipe"], values["san_overrides"]).init == "model":
        raise ValueError(
            "the recipe starts from a model (init=model), which no graph provides; run train_san"
            " alone, with --start-from"
        )


def _check_init(values: Mapping[str, Any]) -> None:
    """Check that a graph without a generator neither starts from SAN-PG nor distils from it."""
    recipe = recipes.resolve_recipe(values["san_recipe"], values["san_overrides"])
    if recipe.init != "none":
        raise ValueError(
            f"the recipe starts from SAN-PG (init={recipe.init}), and this graph has no generator;"
            ' set for example --param san_overrides="init=none"'
        )
    if recipe.w_distill:
        raise ValueError(
            f"the recipe distils SAN-PG's features (w_distill={recipe.w_distill:g}), and this graph"
            " has no generator; leave w_distill out, or use another graph"
        )


def _check_protocol(text: str) -> None:
    """Check protocol names; what `auto` means is known only with the images."""
    import numpy as np

    from san_core.evaluation.labels import Labels
    from san_core.evaluation.protocols import scoring

    words = text.replace(",", " ").split()
    named = [word for word in words if word != scoring.AUTO]
    scoring.parse_protocols(" ".join(named or words), Labels(np.empty(0, np.int64), None))


def check_workers(workers: Sequence[Any], *, what: str = "workers") -> None:
    """Check that every part of the work has one worker: the workers are 0/n to n-1/n, in any order.

    what: the parameter, for the message.

    Raises:
        ValueError: they are not.
    """
    count = len(workers)
    wanted = [f"{number}/{count}" for number in range(count)]
    if not workers or sorted(map(str, workers), key=_worker_number) != wanted:
        example = ", ".join(wanted[:2] + ["..."] * (count > 2)) if count else "0/1"
        found = ", ".join(map(str, workers)) or "none"
        raise ValueError(f"{what} are {found}; {count or 1} of them must be {example}")


def _worker_number(worker: str) -> int:
    match = re.match(r"\d+", worker)
    return int(match[0]) if match else -1
