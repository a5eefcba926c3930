"""Presets: a graph with values for its parameters, to begin with."""

import argparse
import itertools
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from components.command import beforehand
from components.command.beforehand import Processes
from components.command.suggestion import suggestion
from components.kubeflow.follow import write_line
from components.runner.ir import missing_parameters, parse_arguments, pipeline_parameters
from components.runner.store import Store
from components.storage.places import real_path
from components.storage.sources import change_places
from san_core.shipped.generator import SHIPPED_GENERATOR


class Preset(NamedTuple):
    """A graph and the parameters to run it with."""

    graph: str
    values: dict[str, Any]


_SYNTHETIC = {"dataset": "synthetic", "difficulty": "normal", "seed": 0, "references": True}
_DEMO = {**_SYNTHETIC, "identities": 192, "image_height": 128}
_SMALL = {
    **_SYNTHETIC,
    "image_height": 128,
    "generator": SHIPPED_GENERATOR,
    "san_overrides": "",
}
_TWO_WORKERS = ["0/2", "1/2"]
_PUBLISHED_SETS = ("cuhk03", "market1501", "msmt17")
_STRONG_BASELINES = ("bot", "agw", "sbs")
# A generator that copies colours, and pictures that vary as photographs do
_FOR_PHOTOGRAPHS = {"pg_recipe": "pit-copy-resnet50", "dense": True, "world": "street"}


def _preset_pair(name: str, data: Mapping[str, Any], **full: Any) -> dict[str, Preset]:
    """Presets for SAN and its baseline on one data set, each with the recipe of its name."""
    baseline = f"{name}-baseline"
    data = {
        **data,
        "san_overrides": "",
    }  # those of the recipe, also in `ready_graph`, which has other defaults
    return {
        name: Preset("full", {**data, **full, "san_recipe": name, "workers": _TWO_WORKERS}),
        baseline: Preset("baseline", {**data, "san_recipe": baseline}),
    }


def _strong_presets() -> dict[str, Preset]:
    """The strong baselines on each published data set, with and without the texture losses."""
    made = {}
    for name, recipe in itertools.product(_PUBLISHED_SETS, _STRONG_BASELINES):
        data = {"dataset": name, "san_overrides": ""}
        made[f"{name}-{recipe}"] = Preset("baseline", {**data, "san_recipe": recipe})
        textures = {**_FOR_PHOTOGRAPHS, "workers": _TWO_WORKERS}
        made[f"{name}-{recipe}-san"] = Preset(
            "full", {**data, **textures, "san_recipe": f"{recipe}-san"}
        )
    return made


PRESETS = {
    # Small people, networks and epochs: the whole pipeline on a laptop's processor.
    # Fewer epochs for its generator, as each takes longer when colours are copied.
    **_preset_pair(
        "demo",
        _DEMO,
        pit_textures=400,
        pit_meshes=6,
        dense=True,
        pg_recipe="demo-pg",
        pg_overrides="texture_from=copy w_dense=1 epochs=14",
    ),
    # Hundreds of synthetic people and small networks: about an hour on a CPU.
    **_preset_pair(
        "synthetic",
        {**_SYNTHETIC, "identities": 900, "image_height": 128},
        pg_recipe="demo-pg",
        pg_overrides="epochs=40",
    ),
    # A first model of one's own people, on a processor: add dataset and source. A start as the
    # encoder of the shipped generator, without textures and with them.
    "small": Preset("pretrained", {**_SMALL, "san_recipe": "small-baseline"}),
    "small-san": Preset("ready", {**_SMALL, "san_recipe": "small", "workers": _TWO_WORKERS}),
    # The networks of the paper; add --param source=FOLDER, the data set as published.
    **_preset_pair("cuhk03", {"dataset": "cuhk03"}, **_FOR_PHOTOGRAPHS),
    **_preset_pair("market1501", {"dataset": "market1501"}, **_FOR_PHOTOGRAPHS),
    **_preset_pair("msmt17", {"dataset": "msmt17"}, **_FOR_PHOTOGRAPHS),
    # The run of the authors' code, with the textures that they published: add texture_source too.
    "cuhk03-official": Preset(
        "textures", {"dataset": "cuhk03", "san_recipe": "cuhk03-official", "san_overrides": ""}
    ),
    **_strong_presets(),
}


def find_preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        ValueError: it is unknown; the message lists the known ones.
    """
    if name not in PRESETS:
        raise ValueError(f"no preset {name!r}{suggestion(name, PRESETS)}")
    return PRESETS[name]


def choose_graph(options: argparse.Namespace, preset: Preset) -> str:
    """The graph that the options name; a given model or generator selects one that trains none."""
    given = {word.partition("=")[0] for word in options.param}
    if options.graph or "model" in given:
        return options.graph or "score"
    return "ready" if preset.graph == "full" and "generator" in given else preset.graph


def pipeline_arguments(
    preset: Preset, document: Mapping[str, Any], words: Sequence[str], *, folder: Path
) -> dict[str, Any]:
    """The pipeline's arguments: those given in words, then the preset's, then shared folders.

    An empty destination or checkpoint becomes a shared folder. All runs in one folder share it, as
    each finds its files there by their fingerprint.

    Args:
        preset: its values; those that the graph does not take are left out
        document: the compiled pipeline
        words: `name=value` each
        folder: the folder of the run; the store with the shared folders is beside it
    """
    declared = pipeline_parameters(document)
    chosen = chosen_values(preset.values, parse_arguments(words, document), declared)
    for name, shared in _shared_places(folder).items():
        if name in declared:
            chosen[name] = chosen.get(name) or shared
    return change_places(chosen, _absolute_place)


def chosen_values(
    values: Mapping[str, Any], given: Mapping[str, Any], declared: Container[str]
) -> dict[str, Any]:
    """The given values, and those of a preset or an earlier run where none is given.

    Without `references` of the latter for an ONNX file, which has no untrained encoder; a line
    says so.

    Args:
        values: those of the preset or run
        given: those of the command line
        declared: what the graph takes
    """
    chosen = {name: value for name, value in values.items() if name in declared} | dict(given)
    model = str(chosen.get("model") or "")
    is_left_out = "references" not in given and beforehand.is_onnx_model(model)
    if is_left_out and chosen.pop("references", False):
        write_line(f"left out, as the ONNX file {model} has no untrained encoder: references")
    return chosen


def _shared_places(folder: Path) -> dict[str, str]:
    """The default places for textures and checkpoints of the runs beside a folder."""
    store = Store.of_runs(real_path(folder).parent).root
    return {
        "destination": str(store / "textures"),
        "checkpoint": str(store / "checkpoints"),
        "feature_parts": str(store / "features"),
    }


def kept_parameters(
    arguments: Mapping[str, Any], document: Mapping[str, Any], *, folder: Path
) -> dict[str, Any]:
    """All parameters of a run, for its record; without places that have their default."""
    shared = _shared_places(folder)
    return {
        name: value
        for name, value in _with_defaults(arguments, document).items()
        if value is not None and value != shared.get(name)
    }


def check_beforehand(
    arguments: Mapping[str, Any],
    document: Mapping[str, Any],
    processes: Mapping[str, Processes] | None = None,
) -> None:
    """Refuse mistakes in parameters that a late step would find only hours later.

    processes: as for `beforehand.check_parameters`.

    Raises:
        ValueError: there is a mistake.
    """
    check_complete(arguments, document)
    beforehand.check_parameters(_with_defaults(arguments, document), processes)


def check_complete(arguments: Mapping[str, Any], document: Mapping[str, Any]) -> None:
    """Refuse parameters without a value; then also name every data set without a source.

    Raises:
        ValueError: a parameter has no value; the message lists all that is missing.
    """
    if missing := missing_parameters(document, arguments):
        lines = [f"--param {name}=VALUE is needed" for name in missing]
        lines += beforehand.lacking_places(_with_defaults(arguments, document))
        raise ValueError("; ".join(lines))


def check_places(arguments: Mapping[str, Any], document: Mapping[str, Any]) -> None:
    """Open every place that a run on this machine reads or writes.

    Raises:
        OSError: a place does not exist, or may not be read or written.
        ValueError: a value is not a place.
    """
    beforehand.check_places(_with_defaults(arguments, document))


def _with_defaults(arguments: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    declared = pipeline_parameters(document)
    return {**{name: _default_value(spec) for name, spec in declared.items()}, **arguments}


def _default_value(spec: Mapping[str, Any]) -> Any:
    """The default of a parameter; compiled pipelines keep every number as a float."""
    value = spec.get("defaultValue")
    is_whole = spec["parameterType"] == "NUMBER_INTEGER"
    return int(value) if is_whole and value is not None else value


def _absolute_place(place: str) -> str:
    """A relative folder as an absolute one, as the steps run in another working directory.

    Links stay, so that the path of a run's result leads to the newest result of that run. Only
    links before a ".." are followed.
    """
    if not place or "://" in place:
        return place
    parts = Path(place).absolute().parts
    up = len(parts) - parts[::-1].index("..") if ".." in parts else 0
    return str(real_path(Path(*parts[:up])).joinpath(*parts[up:]))
