"""The SAN pipeline: which step feeds which, and the commands that compile and run it.

    python pipeline.py compile --graph full --output pipeline.yaml
    python pipeline.py run --preset demo

Three graphs are made of the same steps: `full` makes paired image-texture data (PIT), trains the
texture generator SAN-PG on it and generates a texture for every training image; `textures` takes
ready-made textures instead; `baseline` trains without any.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from kfp import compiler, dsl
from kfp.dsl.base_component import BaseComponent
from kfp.dsl.graph_component import GraphComponent
from kfp.dsl.pipeline_channel import PipelineChannel

from components import local, recipes
from components.__main__ import STEPS
from components.interruption import Terminated
from components.ir import parse_argument, pipeline_inputs, suggestion
from components.kubeflow import component, image_of

# `{target}` is cpu or gpu, after the targets of docker/Dockerfile.
IMAGE = "san-pipeline:{target}"

# What each parameter of a graph means; Kubeflow shows it beside the field.
PARAMETERS = {
    "destination": "folder or URI under which textures are kept, shared by all workers",
    "checkpoint": "folder or URI for the state of unfinished training; empty keeps none",
    "dataset": "the ReID data set to prepare: synthetic or market1501",
    "source": "folder or URI of the data set; not used for synthetic",
    "difficulty": "how hard synthetic people are to tell apart: easy, normal or hard",
    "identities": "number of synthetic people",
    "image_height": "rows of a synthetic picture; it is half as wide",
    "pit_textures": "number of identities in the paired image-texture data",
    "pit_meshes": "pictures of each of them",
    "texture_source": "folder or URI of ready-made textures, matched to the images by file name",
    "san_recipe": "recipe of the ReID training, a name in san_core/recipe.py",
    "pg_recipe": "recipe of the texture generator, a name in san_core/recipe.py",
    "san_overrides": 'fields of san_recipe to replace, such as "lr=1e-4 epochs=3"',
    "pg_overrides": "fields of pg_recipe to replace",
    "seed": "seed of every random choice",
    "onnx": "whether to write the trained encoder as ONNX too",
    "verify": "how finished shards of textures are checked: none, size or sha256",
    "workers": 'who generates textures: ["0/2", "1/2"] is two workers side by side',
    "references": "whether to score an untrained encoder and a colour histogram too",
}

# The parameters that may name a folder.
PLACES = ("destination", "checkpoint", "source", "texture_source")


class Preset(NamedTuple):
    """A graph and the parameters to run it with."""

    graph: str
    values: dict[str, Any]


_SYNTHETIC = {"dataset": "synthetic", "difficulty": "normal", "seed": 0, "references": True}
_DEMO = {**_SYNTHETIC, "identities": 192, "image_height": 128}
_TWO_WORKERS = ["0/2", "1/2"]


def _with_baseline(name: str, data: Mapping[str, Any], **full: Any) -> dict[str, Preset]:
    """SAN and its baseline on one data set, each with the recipe of its name."""
    baseline = f"{name}-baseline"
    return {
        name: Preset("full", {**data, **full, "san_recipe": name, "workers": _TWO_WORKERS}),
        baseline: Preset("baseline", {**data, "san_recipe": baseline}),
    }


PRESETS = {
    # Small people, networks and epochs: the whole pipeline on a laptop's processor.
    **_with_baseline("demo", _DEMO, pit_textures=400, pit_meshes=6, pg_recipe="demo-pg"),
    # Rendered people in hundreds and small networks: an hour or so on a processor.
    **_with_baseline(
        "synthetic",
        {**_SYNTHETIC, "identities": 900, "image_height": 128},
        pg_recipe="demo-pg",
        pg_overrides="epochs=40",
    ),
    # The paper's networks; add --param source=FOLDER, the data set in its published layout.
    **_with_baseline("market1501", {"dataset": "market1501"}, pg_recipe="pit"),
}


def full(image: str = IMAGE) -> GraphComponent:
    """The graph `full`: PIT, SAN-PG, textures by several workers, SAN, evaluation."""
    step = _steps(image)

    def graph(
        destination: str,
        checkpoint: str,
        dataset: str = "synthetic",
        source: str = "",
        difficulty: str = "normal",
        identities: int = 300,
        image_height: int = 256,
        pit_textures: int = 929,
        pit_meshes: int = 10,
        san_recipe: str = "cuhk03",
        pg_recipe: str = "pit",
        san_overrides: str = "",
        pg_overrides: str = "",
        seed: int = 0,
        workers: list = ["0/1"],  # type: ignore[type-arg]  # noqa: B006 - as KFP reads it
        verify: str = "size",
        onnx: bool = False,
        references: bool = False,
    ) -> None:
        pit = step["make_pit"](
            textures=pit_textures, meshes=pit_meshes, image_height=image_height, seed=seed
        )
        reid = step["prepare_reid"](
            dataset=dataset,
            source=source,
            difficulty=difficulty,
            identities=identities,
            image_height=image_height,
            seed=seed,
        ).outputs["reid"]
        generator = step["train_san_pg"](
            pit=pit.outputs["pit"],
            recipe=pg_recipe,
            overrides=pg_overrides,
            seed=seed,
            checkpoint=checkpoint,
        ).outputs["generator"]
        with dsl.ParallelFor(items=workers, name="workers") as worker:
            generated = step["generate_textures"](
                dataset=reid,
                generator=generator,
                destination=destination,
                worker=worker,
                verify=verify,
            ).set_caching_options(False)
        # Both look into the store themselves, where finished work is found again; a cached
        # manifest would be believed even if its shards are gone.
        sealed = step["seal_textures"](
            dataset=reid, generator=generator, destination=destination, verify=verify
        )
        sealed.set_caching_options(False).after(generated)
        trained = step["train_san"](
            dataset=reid,
            textures=sealed.outputs["textures"],
            generator=generator,
            pit=pit.outputs["pit"],
            recipe=san_recipe,
            overrides=san_overrides,
            seed=seed,
            checkpoint=checkpoint,
            onnx=onnx,
        )
        _judge(step, reid, trained.outputs["model"], references)

    return _pipeline(
        "full", "Train SAN with textures made by its own generator, and score it.", graph
    )


def textures(image: str = IMAGE) -> GraphComponent:
    """The graph `textures`: ready-made textures, SAN, evaluation."""
    step = _steps(image)

    def graph(
        destination: str,
        checkpoint: str,
        texture_source: str,
        dataset: str = "synthetic",
        source: str = "",
        difficulty: str = "normal",
        identities: int = 300,
        image_height: int = 256,
        san_recipe: str = "cuhk03",
        san_overrides: str = "",
        seed: int = 0,
        onnx: bool = False,
        references: bool = False,
    ) -> None:
        reid = step["prepare_reid"](
            dataset=dataset,
            source=source,
            difficulty=difficulty,
            identities=identities,
            image_height=image_height,
            seed=seed,
        ).outputs["reid"]
        sealed = step["seal_textures"](
            dataset=reid, destination=destination, source=texture_source
        ).set_caching_options(False)
        trained = step["train_san"](
            dataset=reid,
            textures=sealed.outputs["textures"],
            recipe=san_recipe,
            overrides=san_overrides,
            seed=seed,
            checkpoint=checkpoint,
            onnx=onnx,
        )
        _judge(step, reid, trained.outputs["model"], references)

    return _pipeline("textures", "Train SAN with ready-made textures, and score it.", graph)


def baseline(image: str = IMAGE) -> GraphComponent:
    """The graph `baseline`: the encoder alone, evaluation."""
    step = _steps(image)

    def graph(
        checkpoint: str,
        dataset: str = "synthetic",
        source: str = "",
        difficulty: str = "normal",
        identities: int = 300,
        image_height: int = 256,
        san_recipe: str = "cuhk03-baseline",
        san_overrides: str = "",
        seed: int = 0,
        onnx: bool = False,
        references: bool = False,
    ) -> None:
        reid = step["prepare_reid"](
            dataset=dataset,
            source=source,
            difficulty=difficulty,
            identities=identities,
            image_height=image_height,
            seed=seed,
        ).outputs["reid"]
        trained = step["train_san"](
            dataset=reid,
            recipe=san_recipe,
            overrides=san_overrides,
            seed=seed,
            checkpoint=checkpoint,
            onnx=onnx,
        )
        _judge(step, reid, trained.outputs["model"], references)

    return _pipeline("baseline", "Train the ReID encoder without textures, and score it.", graph)


GRAPHS: dict[str, Callable[[str], GraphComponent]] = {
    "full": full,
    "textures": textures,
    "baseline": baseline,
}


def _steps(image: str) -> dict[str, BaseComponent]:
    """Every step as a KFP component, in its image."""
    return {name: component(step, image_of(step, image)) for name, step in STEPS.items()}


def _judge(
    step: Mapping[str, BaseComponent],
    reid: PipelineChannel,
    model: PipelineChannel,
    references: PipelineChannel | bool,
) -> None:
    """The end of every graph: embed the test images and score the embeddings."""
    extracted = step["extract_features"](dataset=reid, model=model, references=references)
    step["evaluate"](features=extracted.outputs["features"], dataset=reid, references=references)


def _pipeline(name: str, description: str, graph: Callable[..., None]) -> GraphComponent:
    """A KFP pipeline of a graph, its parameters described."""
    names = graph.__code__.co_varnames[: graph.__code__.co_argcount]
    lines = [f"    {one}: {PARAMETERS[one]}" for one in names]
    graph.__doc__ = "\n".join([description, "", "Args:", *lines])
    return dsl.pipeline(name=f"san-{name}")(graph)


def compile_graph(graph: str, output: Path, *, image: str = IMAGE) -> dict[str, Any]:
    """Compile a graph into a YAML file, and return its content."""
    output.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(GRAPHS[graph](image), str(output))
    document: dict[str, Any] = yaml.safe_load(output.read_text("utf-8"))
    return document


def arguments_of(
    preset: Preset, document: Mapping[str, Any], words: Sequence[str], *, folder: Path
) -> dict[str, Any]:
    """The pipeline's arguments: what is given in words, then the preset's, then folders of a run.

    Args:
        preset: those of its values that the graph does not take are left out
        document: the compiled pipeline
        words: `name=value` each
        folder: where this run keeps textures and checkpoints unless told otherwise
    """
    folders = {"destination": "textures", "checkpoint": "checkpoints"}
    values = {
        **{name: str(folder.resolve() / where) for name, where in folders.items()},
        **preset.values,
    }
    declared = pipeline_inputs(document)
    chosen = {
        **{name: value for name, value in values.items() if name in declared},
        **dict(parse_argument(word, document) for word in words),
    }
    return {name: _absolute(value) if name in PLACES else value for name, value in chosen.items()}


def _absolute(place: str) -> str:
    """A relative folder is meant from where the command is given; the steps run elsewhere."""
    return str(Path(place).resolve()) if place and "://" not in place else place


def _command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python pipeline.py", description="Compile the SAN pipeline, or run it here."
    )
    commands = parser.add_subparsers(dest="command", required=True)

    compiling = commands.add_parser("compile", help="write the pipeline for Kubeflow")
    compiling.add_argument("--graph", choices=GRAPHS, default="full", help="default: full")
    compiling.add_argument(
        "--output", type=Path, default=Path("pipeline.yaml"), help="default: pipeline.yaml"
    )
    compiling.add_argument(
        "--image",
        default=IMAGE,
        help="image of the steps; {target} in it stands for cpu or gpu (default: %(default)s)",
    )

    running = commands.add_parser(
        "run",
        help="run it on this machine, a process per step",
        description="Run the pipeline on this machine; what is unchanged since the last run of "
        "the same name is skipped.",
    )
    running.add_argument("--preset", required=True, help=f"one of {', '.join(PRESETS)}")
    running.add_argument("--graph", choices=GRAPHS, help="default: the graph of the preset")
    running.add_argument(
        "--param",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set one parameter of the pipeline; may be repeated",
    )
    running.add_argument("--name", help="folder of the run (default: the name of the preset)")
    running.add_argument(
        "--runs", type=Path, default=Path("runs"), help="folder of all runs (default: runs)"
    )
    rerun = running.add_mutually_exclusive_group()
    rerun.add_argument(
        "--from",
        dest="start",
        metavar="STEP",
        help="run this step again and all that follow it; finished training is taken from "
        "its checkpoint",
    )
    rerun.add_argument("--only", metavar="STEP", help="run this step again and nothing else")
    running.add_argument("--verbose", action="store_true", help="show what the steps log")
    return parser


def _run(options: argparse.Namespace) -> None:
    """The command `run`."""
    if options.preset not in PRESETS:
        raise ValueError(f"no preset {options.preset!r}{suggestion(options.preset, PRESETS)}")
    preset = PRESETS[options.preset]
    name = options.name or options.preset
    if Path(name).name != name or name in ("", ".."):
        raise ValueError(f"--name {name} is not the name of a folder in {options.runs}")
    folder = options.runs / name
    document = compile_graph(options.graph or preset.graph, folder / "pipeline.yaml")
    arguments = arguments_of(preset, document, options.param, folder=folder)
    _check(arguments, document)
    local.run(
        document,
        arguments,
        folder=folder,
        start=options.start,
        only=options.only,
        verbose=options.verbose,
    )


def _check(arguments: Mapping[str, Any], document: Mapping[str, Any]) -> None:
    """Find mistakes that the last step would find only after all others have run.

    Raises:
        ValueError: there is no such recipe or recipe field, or a data set has no folder.
    """
    defaults = {n: d.get("defaultValue") for n, d in pipeline_inputs(document).items()}
    value = {**defaults, **arguments}
    for which in ("pg", "san"):
        if f"{which}_recipe" in value:
            recipes.chosen(value[f"{which}_recipe"], value[f"{which}_overrides"])
    if value["dataset"] != "synthetic" and not value["source"]:
        raise ValueError(f"dataset {value['dataset']} needs --param source=FOLDER, where it is")


def main(argv: Sequence[str] | None = None) -> int:
    """Compile or run; return the exit status: 1 for a failed run, 2 for wrong usage."""
    parser = _command_line()
    options = parser.parse_args(argv)
    try:
        if options.command == "compile":
            compile_graph(options.graph, options.output, image=options.image)
        else:
            _run(options)
    except ValueError as error:
        parser.error(str(error))
    except (local.RunError, OSError) as error:
        print(f"pipeline.py: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, Terminated) as stop:
        print("pipeline.py: stopped; the same command goes on from here", file=sys.stderr)
        return 130 if isinstance(stop, KeyboardInterrupt) else 143
    return 0


if __name__ == "__main__":
    sys.exit(main())
