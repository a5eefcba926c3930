"""The graphs of the SAN pipeline: which step feeds which.

    python pipeline.py compile --graph full --output pipeline.yaml
    python pipeline.py run --preset demo
    python pipeline.py submit --preset market1501 --host URL --param source=s3://BUCKET/market ...

Six graphs use the same steps. `full` makes paired image-texture data (PIT), trains the texture
generator SAN-PG on it and generates a texture for every training image. `ready` takes a trained
generator, such as the one that ships with this package. `textures` takes ready-made textures.
`pretrained` takes a trained generator too, but trains without textures: the ReID encoder starts as
the generator's. `baseline` trains without either. `score` takes a trained model and trains nothing.
In each of them, feature_workers lets several workers embed the test images. The steps are the files
of components/. components/launch/ has the presets, the commands and, in parameters.py, the meaning
of the parameters.
"""

import signal
import sys
from collections.abc import Sequence
from types import SimpleNamespace

if __name__ == "__main__":
    from components.process.signals import end_by_interrupt, hear_interrupt

    hear_interrupt(end_by_interrupt)  # while what follows is imported

from kfp import dsl
from kfp.dsl.pipeline_channel import PipelineChannel
from kfp.dsl.pipeline_task import PipelineTask

from components.launch import commands
from components.launch.graph import Graph
from components.launch.parameters import TEXTURE_PARAMETERS
from components.process.messages import open_standard_streams


def full_graph(steps: SimpleNamespace, p: SimpleNamespace) -> None:
    """Train SAN with textures made by its own generator, and score it."""
    pit = steps.make_pit(
        textures=p.pit_textures,
        meshes=p.pit_meshes,
        image_height=p.image_height,
        dense=p.dense,
        world=p.world,
        seed=p.seed,
    ).outputs["pit"]
    reid, checked = prepare_data(steps, p)
    trained = steps.train_san_pg(
        pit=pit,
        recipe=p.pg_recipe,
        overrides=p.pg_overrides,
        seed=p.seed,
        checkpoint=p.checkpoint,
        precision=p.precision,
        compiled=p.compiled,
        tensorboard=p.tensorboard,
    )
    generator = trained.after(checked).outputs["generator"]
    textures = generate_textures(steps, p, reid=reid, generator=generator, after=checked)
    train_and_score(
        steps, p, reid=reid, after=checked, textures=textures, generator=generator, pit=pit
    )


def ready_graph(steps: SimpleNamespace, p: SimpleNamespace) -> None:
    """Train SAN with textures made by a trained generator, and score it."""
    reid, checked = prepare_data(steps, p)
    generator = steps.take_generator(source=p.generator).outputs["generator"]
    textures = generate_textures(steps, p, reid=reid, generator=generator, after=checked)
    train_and_score(steps, p, reid=reid, after=checked, textures=textures, generator=generator)


def textures_graph(steps: SimpleNamespace, p: SimpleNamespace) -> None:
    """Train SAN with ready-made textures, and score it."""
    reid, checked = prepare_data(steps, p)
    sealed = steps.seal_textures(
        dataset=reid,
        destination=p.destination,
        source=p.texture_source,
        atlas=p.texture_atlas,
    ).after(checked)
    train_and_score(steps, p, reid=reid, after=checked, textures=sealed.outputs["textures"])


def pretrained_graph(steps: SimpleNamespace, p: SimpleNamespace) -> None:
    """Train the ReID encoder without textures, from the encoder of a generator, and score it."""
    reid, checked = prepare_data(steps, p)
    generator = steps.take_generator(source=p.generator).outputs["generator"]
    train_and_score(steps, p, reid=reid, after=checked, generator=generator)


def baseline_graph(steps: SimpleNamespace, p: SimpleNamespace) -> None:
    """Train the ReID encoder without textures, and score it."""
    reid, checked = prepare_data(steps, p)
    train_and_score(steps, p, reid=reid, after=checked)


def score_graph(steps: SimpleNamespace, p: SimpleNamespace) -> None:
    """Score a trained model."""
    reid = prepare_reid(steps, p)
    taken = steps.take_model(source=p.model)
    embed_and_score(steps, p, reid=reid, model=taken.outputs["model"])


def prepare_data(
    steps: SimpleNamespace, p: SimpleNamespace
) -> tuple[PipelineChannel, PipelineTask]:
    """The data set for training and test, and the task that checks its counts."""
    reid = prepare_reid(steps, p)
    return reid, steps.check_reid(dataset=reid, recipe=p.san_recipe, overrides=p.san_overrides)


def prepare_reid(steps: SimpleNamespace, p: SimpleNamespace) -> PipelineChannel:
    """The data set as an image set."""
    prepared = steps.prepare_reid(
        dataset=p.dataset,
        source=p.source,
        target=p.target,
        target_source=p.target_source,
        skip_bad=p.skip_bad,
        difficulty=p.difficulty,
        identities=p.identities,
        image_height=p.image_height,
        seed=p.seed,
    )
    return prepared.outputs["reid"]


def generate_textures(
    steps: SimpleNamespace,
    p: SimpleNamespace,
    *,
    reid: PipelineChannel,
    generator: PipelineChannel,
    after: PipelineTask,
) -> PipelineChannel:
    """The sealed textures of a data set, generated by several workers."""
    settings = {
        "dataset": reid,
        "generator": generator,
        "destination": p.destination,
        "fuse": p.fuse,
        "verify": p.verify,
    }
    with dsl.ParallelFor(items=p.workers, name="workers") as worker:
        generated = steps.generate_textures(**settings, worker=worker).after(after)
    return steps.seal_textures(**settings).after(generated).outputs["textures"]


def train_and_score(
    steps: SimpleNamespace,
    p: SimpleNamespace,
    *,
    reid: PipelineChannel,
    after: PipelineTask,
    **more: PipelineChannel,
) -> None:
    """The last tasks of every graph that trains: train, embed and score.

    `more` are the optional inputs of train_san that a graph has.
    """
    trained = steps.train_san(
        dataset=reid,
        **more,
        recipe=p.san_recipe,
        overrides=p.san_overrides,
        seed=p.seed,
        checkpoint=p.checkpoint,
        precision=p.precision,
        compiled=p.compiled,
        onnx=p.onnx,
        tensorboard=p.tensorboard,
    ).after(after)
    embed_and_score(steps, p, reid=reid, model=trained.outputs["model"])


def embed_and_score(
    steps: SimpleNamespace, p: SimpleNamespace, *, reid: PipelineChannel, model: PipelineChannel
) -> None:
    """Embed the test images with a model, and score them."""
    steps.evaluate(
        features=embed(steps, p, reid=reid, model=model),
        dataset=reid,
        protocol=p.protocol,
        rerank=p.rerank,
        references=p.references,
    )


def embed(
    steps: SimpleNamespace, p: SimpleNamespace, *, reid: PipelineChannel, model: PipelineChannel
) -> PipelineChannel:
    """The features of the test images, by one worker or by as many as the graph is made for."""
    settings = {
        "dataset": reid,
        "model": model,
        "references": p.references,
        "mirrored": p.mirrored,
    }
    if "feature_workers" not in vars(p):
        return steps.extract_features(**settings).outputs["features"]
    settings["feature_parts"] = p.feature_parts
    with dsl.ParallelFor(items=p.feature_workers, name="feature-workers") as worker:
        extracted = steps.extract_features(**settings, worker=worker)
    return steps.seal_features(**settings).after(extracted).outputs["features"]


GRAPHS = {
    graph.name: graph
    for graph in (
        Graph(
            "full",
            full_graph,
            (
                *TEXTURE_PARAMETERS,
                *("pit_textures", "pit_meshes", "dense", "world", "pg_recipe", "pg_overrides"),
            ),
        ),
        Graph(
            "ready",
            ready_graph,
            (*TEXTURE_PARAMETERS, "generator"),
            # The size that the shipped generator makes.
            defaults={"san_overrides": "texture_size=64 decoder_plan=light"},
        ),
        Graph("textures", textures_graph, ("destination", "texture_source", "texture_atlas")),
        Graph(
            "pretrained",
            pretrained_graph,
            ("generator",),
            # A network that the shipped generator fits, and pictures of its size.
            defaults={"san_recipe": "small-baseline", "image_height": 128},
        ),
        Graph("baseline", baseline_graph, defaults={"san_recipe": "cuhk03-baseline"}),
        Graph("score", score_graph, ("model",), trains=False),
    )
}


def main(argv: Sequence[str] | None = None) -> int:
    """Compile, run or submit a graph, as the words of the command line say."""
    return commands.main(GRAPHS, argv)


if __name__ == "__main__":
    open_standard_streams()
    hear_interrupt(signal.default_int_handler)
    sys.exit(main())
