"""The SAN pipeline: which step feeds which, and the commands that compile, run and submit it.

    python pipeline.py compile --graph full --output pipeline.yaml
    python pipeline.py run --preset demo
    python pipeline.py submit --preset market1501 --host URL --param source=s3://BUCKET/market ...

Four graphs are made of the same steps: `full` makes paired image-texture data (PIT), trains the
texture generator SAN-PG on it and generates a texture for every training image; `ready` takes a
generator that is there, such as the one that ships; `textures` takes ready-made textures;
`baseline` trains without any.
"""

import argparse
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from kfp import dsl
from kfp.dsl.graph_component import GraphComponent
from kfp.dsl.pipeline_channel import PipelineChannel

from components.command import beforehand
from components.command.step import Parameter
from components.kubeflow import cluster, submission
from components.kubeflow.api import SubmissionError
from components.kubeflow.cluster import DEFAULTS, Cluster
from components.kubeflow.component import (
    check_pinned,
    compiled,
    pipeline_of,
    single,
    steps,
    with_commit,
    write_components,
)
from components.process.signals import Terminated
from components.runner import local
from components.runner.ir import check_arguments, parse_argument, pipeline_inputs, suggestion
from components.storage.sources import is_place
from san_core.shipped.generator import SHIPPED

# `{target}` is cpu or gpu, after the targets of docker/Dockerfile.
IMAGE = "san-pipeline:{target}"
# On a cluster the name of an image stands for one content for ever; `make images` makes these.
PINNED_IMAGE = "san-pipeline:{target}-{commit}"

# What each parameter of a graph means; Kubeflow shows it beside the field.
PARAMETERS = {
    "destination": "folder or URI under which textures are kept, shared by all workers",
    "checkpoint": "folder or URI for the state of unfinished training; empty keeps none",
    "dataset": "the ReID data set: synthetic, market1501, cuhk03, msmt17, partial, csv or folders",
    "source": "folder, archive or URI of the data set; not used for synthetic",
    "target": "the data set to test on, named as dataset is; empty for dataset itself",
    "target_source": "folder, archive or URI of the target",
    "skip_bad": "whether to leave out damaged images and duplicates instead of refusing the data",
    "difficulty": "how hard synthetic people are to tell apart: easy, normal or hard",
    "identities": "number of synthetic people",
    "image_height": "rows of a synthetic picture; it is half as wide",
    "pit_textures": "number of identities in the paired image-texture data",
    "pit_meshes": "pictures of each of them",
    "generator": "folder or URI of a texture generator; shipped is the package's own (64x64)",
    "texture_source": "folder or URI of ready-made textures, matched to the images by file name",
    "san_recipe": "recipe of the ReID training; `python -m components recipes` lists them",
    "pg_recipe": "recipe of the texture generator, such as pit",
    "san_overrides": 'fields of san_recipe to replace, such as "lr=1e-4 epochs=3"',
    "pg_overrides": "fields of pg_recipe to replace",
    "seed": "seed of every random choice",
    "onnx": "whether to write the trained encoder as ONNX too",
    "verify": "how finished shards of textures are checked: none, size or sha256",
    "workers": 'who generates textures: ["0/2", "1/2"] is two workers side by side',
    "protocol": "how queries are judged; auto is as the data set asks, camera-free without cameras",
    "rerank": "whether to score re-ranked distances too",
    "references": "whether to score an untrained encoder and a colour histogram too",
}

# What they are by default; one that is not here must be given.
_DEFAULTS: dict[str, Any] = {
    "dataset": "synthetic",
    "source": "",
    "target": "",
    "target_source": "",
    "skip_bad": False,
    "difficulty": "normal",
    "identities": 300,
    "image_height": 256,
    "pit_textures": 929,
    "pit_meshes": 10,
    "generator": SHIPPED,
    "san_recipe": "cuhk03",
    "pg_recipe": "pit",
    "san_overrides": "",
    "pg_overrides": "",
    "seed": 0,
    "onnx": False,
    "verify": "size",
    "workers": ["0/1"],
    "protocol": "auto",
    "rerank": False,
    "references": False,
}

# Those of prepare_reid, which has a seed too; of textures and of training; of every graph.
_DATA = (
    *("dataset", "source", "target", "target_source", "skip_bad"),
    *("difficulty", "identities", "image_height"),
)
_PAINTING = ("destination", "workers", "verify")
_TRAINING = ("san_recipe", "san_overrides", "seed", "checkpoint", "onnx")
_ALWAYS = (*_DATA, *_TRAINING, "protocol", "rerank", "references")

# What a person who stops a command should know.
STOPPED = {
    "compile": "nothing was compiled",
    "run": "the same command goes on from here",
    "submit": "a run that was started goes on at the server",
}


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
    data = {**data, "san_overrides": ""}  # as the recipe is, also in `ready`, which has its own
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
    # The paper's networks; add --param source=FOLDER, the data set as it was published.
    **_with_baseline("cuhk03", {"dataset": "cuhk03"}, pg_recipe="pit"),
    **_with_baseline("market1501", {"dataset": "market1501"}, pg_recipe="pit"),
    **_with_baseline("msmt17", {"dataset": "msmt17"}, pg_recipe="pit"),
}


Steps = Mapping[str, Callable[..., dsl.PipelineTask]]
Values = Mapping[str, Any]  # of a graph's parameters, by name


def full(image: str = IMAGE, cluster: Cluster = DEFAULTS) -> GraphComponent:
    """The graph `full`: PIT, SAN-PG, textures by several workers, SAN, evaluation."""
    step = steps(image, cluster)

    def graph(given: Values) -> None:
        pit = step["make_pit"](
            textures=given["pit_textures"],
            meshes=given["pit_meshes"],
            image_height=given["image_height"],
            seed=given["seed"],
        ).outputs["pit"]
        reid = _prepared(step, given)
        generator = step["train_san_pg"](
            pit=pit,
            recipe=given["pg_recipe"],
            overrides=given["pg_overrides"],
            seed=given["seed"],
            checkpoint=given["checkpoint"],
        ).outputs["generator"]
        sealed = _painted(step, given, reid, generator)
        _train_and_judge(step, given, reid, textures=sealed, generator=generator, pit=pit)

    return _pipeline(
        "full",
        "Train SAN with textures made by its own generator, and score it.",
        graph,
        (*_PAINTING, "pit_textures", "pit_meshes", "pg_recipe", "pg_overrides"),
    )


def ready(image: str = IMAGE, cluster: Cluster = DEFAULTS) -> GraphComponent:
    """The graph `ready`: a generator that is there, textures by workers, SAN, evaluation."""
    step = steps(image, cluster)

    def graph(given: Values) -> None:
        reid = _prepared(step, given)
        generator = step["take_generator"](source=given["generator"]).outputs["generator"]
        sealed = _painted(step, given, reid, generator)
        _train_and_judge(step, given, reid, textures=sealed, generator=generator)

    return _pipeline(
        "ready",
        "Train SAN with textures made by a generator that is there, and score it.",
        graph,
        (*_PAINTING, "generator"),
        san_overrides="texture_size=64 decoder_plan=light",  # as SHIPPED makes them
    )


def textures(image: str = IMAGE, cluster: Cluster = DEFAULTS) -> GraphComponent:
    """The graph `textures`: ready-made textures, SAN, evaluation."""
    step = steps(image, cluster)

    def graph(given: Values) -> None:
        reid = _prepared(step, given)
        sealed = step["seal_textures"](
            dataset=reid, destination=given["destination"], source=given["texture_source"]
        ).set_caching_options(False)
        _train_and_judge(step, given, reid, textures=sealed.outputs["textures"])

    return _pipeline(
        "textures",
        "Train SAN with ready-made textures, and score it.",
        graph,
        ("destination", "texture_source"),
    )


def baseline(image: str = IMAGE, cluster: Cluster = DEFAULTS) -> GraphComponent:
    """The graph `baseline`: the encoder alone, evaluation."""
    step = steps(image, cluster)

    def graph(given: Values) -> None:
        _train_and_judge(step, given, _prepared(step, given))

    return _pipeline(
        "baseline",
        "Train the ReID encoder without textures, and score it.",
        graph,
        san_recipe="cuhk03-baseline",
    )


GRAPHS: dict[str, Callable[[str, Cluster], GraphComponent]] = {
    "full": full,
    "ready": ready,
    "textures": textures,
    "baseline": baseline,
}


def _prepared(step: Steps, given: Values) -> PipelineChannel:
    """The data set that every graph learns and is tested on."""
    return step["prepare_reid"](**{name: given[name] for name in (*_DATA, "seed")}).outputs["reid"]


def _painted(
    step: Steps, given: Values, reid: PipelineChannel, generator: PipelineChannel
) -> PipelineChannel:
    """The sealed textures that a generator makes of a data set, by several workers."""
    made_of = {
        "dataset": reid,
        "generator": generator,
        "destination": given["destination"],
        "verify": given["verify"],
    }
    with dsl.ParallelFor(items=given["workers"], name="workers") as worker:
        generated = step["generate_textures"](**made_of, worker=worker).set_caching_options(False)
    # Both look into the store themselves, where finished work is found again; a cached
    # manifest would be believed even if its shards are gone.
    sealed = step["seal_textures"](**made_of)
    sealed.set_caching_options(False).after(generated)
    return sealed.outputs["textures"]


def _train_and_judge(
    step: Steps, given: Values, reid: PipelineChannel, **more: PipelineChannel
) -> None:
    """The end of every graph: train with what more there is, embed the test images, score them."""
    trained = step["train_san"](
        dataset=reid,
        **more,
        recipe=given["san_recipe"],
        overrides=given["san_overrides"],
        seed=given["seed"],
        checkpoint=given["checkpoint"],
        onnx=given["onnx"],
    )
    extracted = step["extract_features"](
        dataset=reid, model=trained.outputs["model"], references=given["references"]
    )
    step["evaluate"](
        features=extracted.outputs["features"],
        dataset=reid,
        protocol=given["protocol"],
        rerank=given["rerank"],
        references=given["references"],
    )


def _pipeline(
    name: str,
    text: str,
    graph: Callable[[Values], None],
    more: Sequence[str] = (),
    **defaults: Any,
) -> GraphComponent:
    """A KFP pipeline of a graph, which takes what all take and `more`, with defaults of its own."""
    assert {*more, *defaults} <= PARAMETERS.keys()
    default = _DEFAULTS | defaults
    settings = [
        Parameter(
            one,
            type=type(default.get(one, "")),
            help=meaning,
            default=default.get(one, inspect.Parameter.empty),
            artifact=None,
        )
        for one, meaning in PARAMETERS.items()
        if one in (*_ALWAYS, *more)
    ]
    return pipeline_of(name, text, settings, graph)


def compile_graph(
    graph: str, output: Path, *, image: str = IMAGE, asked: Cluster = DEFAULTS
) -> dict[str, Any]:
    """Compile a graph into a YAML file, and return its definition."""
    return compiled(GRAPHS[graph](image, asked), output)[0]


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
    return {n: _absolute(value) if is_place(n, value) else value for n, value in chosen.items()}


def _absolute(place: str) -> str:
    """A relative folder is meant from where the command is given; the steps run elsewhere."""
    return str(Path(place).resolve()) if place and "://" not in place else place


def _command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python pipeline.py",
        description="Compile the SAN pipeline, run it here, or submit it to Kubeflow.",
    )
    commands = parser.add_subparsers(dest="command", required=True)

    compiling = commands.add_parser("compile", help="write the pipeline for Kubeflow")
    compiling.add_argument("--graph", choices=GRAPHS, help="default: full")
    compiling.add_argument("--output", type=Path, help="default: pipeline.yaml")
    compiling.add_argument(
        "--components",
        type=Path,
        metavar="DIR",
        help="write DIR/STEP/component.yaml of every step instead, to compose pipelines of",
    )
    submitting = commands.add_parser(
        "submit",
        help="run it on Kubeflow Pipelines",
        epilog=_parameters(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    submission.add_options(submitting, graphs=GRAPHS, presets=PRESETS)
    for one in (compiling, submitting):
        _add_image(one, PINNED_IMAGE)
        cluster.add_options(one)

    running = commands.add_parser(
        "run",
        help="run it on this machine, a process or a container per step",
        description="Run the pipeline on this machine; what is unchanged since the last run of\n"
        "the same name is skipped, by the process runner.",
        epilog=_parameters(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    running.add_argument(
        "--runner",
        choices=("process", "docker"),
        default="process",
        help="what runs each step (default: %(default)s)",
    )
    _add_image(running, IMAGE)
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


def _parameters() -> str:
    """What `--param` sets, for the end of a help text."""
    width = max(map(len, PARAMETERS))
    rows = [f"  {name:{width}}  {meaning}" for name, meaning in PARAMETERS.items()]
    return "\n".join(["parameters of a whole pipeline; a graph takes those of its steps:", *rows])


def _add_image(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--image",
        default=default,
        help="image of the steps; {target} in it stands for cpu or gpu, {commit} for this "
        "checkout; or cpu=NAME,gpu=NAME (default: %(default)s)",
    )


def _compile(options: argparse.Namespace) -> None:
    """The command `compile`."""
    image, asked = with_commit(options.image), cluster.cluster_of(options)
    check_pinned(image)
    if options.components:
        for given in ("graph", "output"):
            if getattr(options, given) is not None:
                raise ValueError(
                    f"--{given} has no effect with --components, which writes every step"
                )
        cluster.check_no_pods(options)
        write_components(options.components, image, asked)
    else:
        output = options.output or Path("pipeline.yaml")
        compile_graph(options.graph or "full", output, image=image, asked=asked)


def _submit(options: argparse.Namespace) -> None:
    """The command `submit`."""
    server = submission.server_of(options)
    image, asked = with_commit(options.image), cluster.cluster_of(options)
    check_pinned(image)
    preset = _preset(options.preset) if options.preset else Preset("full", {})
    submission.check_only(options)
    if options.only:
        pipeline = single(options.only, submission.inputs_of(options), image, asked)
    else:
        pipeline = GRAPHS[_graph(options, preset)](image, asked)
    with TemporaryDirectory() as folder:
        documents = compiled(pipeline, Path(folder, "pipeline.yaml"))
    declared = pipeline_inputs(documents[0])
    arguments = {name: value for name, value in preset.values.items() if name in declared}
    arguments |= dict(parse_argument(word, documents[0]) for word in options.param)
    check_arguments(documents[0], arguments)
    places = {name: value for name, value in arguments.items() if is_place(name, value)}
    submission.check_places(places, asked.volumes.values())
    _check(arguments, documents[0])
    submission.submit(server, documents, arguments, options)


def _graph(options: argparse.Namespace, preset: Preset) -> str:
    """The graph that is asked for; with a generator that is there, none is trained."""
    has_generator = any(word.partition("=")[0] == "generator" for word in options.param)
    return options.graph or ("ready" if preset.graph == "full" and has_generator else preset.graph)


def _preset(name: str) -> Preset:
    if name not in PRESETS:
        raise ValueError(f"no preset {name!r}{suggestion(name, PRESETS)}")
    return PRESETS[name]


def _run(options: argparse.Namespace) -> None:
    """The command `run`."""
    preset = _preset(options.preset)
    name = options.name or options.preset
    if Path(name).name != name or name in ("", ".."):
        raise ValueError(f"--name {name} is not the name of a folder in {options.runs}")
    if options.runner == "process" and options.image != IMAGE:
        raise ValueError("--image is for --runner docker")
    folder = options.runs / name
    graph, image = _graph(options, preset), with_commit(options.image)
    document = compile_graph(graph, folder / "pipeline.yaml", image=image)
    arguments = arguments_of(preset, document, options.param, folder=folder)
    _check(arguments, document)
    if options.runner == "docker":
        _run_in_containers(options, GRAPHS[graph](image, DEFAULTS), document, arguments, folder)
        return
    local.run(
        document,
        arguments,
        folder=folder,
        start=options.start,
        only=options.only,
        verbose=options.verbose,
    )


def _run_in_containers(
    options: argparse.Namespace,
    pipeline: GraphComponent,
    document: Mapping[str, Any],
    arguments: Mapping[str, Any],
    folder: Path,
) -> None:
    """The command `run --runner docker`, which runs every step."""
    from components.runner import containers  # needs the package docker, and nothing else does

    if options.start or options.only:
        raise ValueError("--from and --only are for the process runner; docker runs every step")
    containers.run(
        pipeline,
        document,
        arguments,
        folder=folder,
        terminal=sys.stdout,
        verbose=options.verbose,
    )


def _check(arguments: Mapping[str, Any], document: Mapping[str, Any]) -> None:
    """Find mistakes that the last step would find only after all others have run.

    Raises:
        ValueError: there is one.
    """
    defaults = {n: d.get("defaultValue") for n, d in pipeline_inputs(document).items()}
    beforehand.check({**defaults, **arguments})


def main(argv: Sequence[str] | None = None) -> int:
    """Do as told; return the exit status: 1 for a failed run, 2 for wrong usage."""
    parser = _command_line()
    options = parser.parse_args(argv)
    try:
        {"compile": _compile, "submit": _submit, "run": _run}[options.command](options)
    except ValueError as error:
        parser.error(str(error))
    except (local.RunError, SubmissionError, OSError) as error:
        print(f"pipeline.py: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, Terminated) as stop:
        print(f"pipeline.py: stopped; {STOPPED[options.command]}", file=sys.stderr)
        return 130 if isinstance(stop, KeyboardInterrupt) else 143
    return 0


if __name__ == "__main__":
    sys.exit(main())
