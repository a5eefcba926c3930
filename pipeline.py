"""The graphs of the SAN pipeline: which step feeds which.

    python pipeline.py compile --graph full --output pipeline.yaml
    python pipeline.py run --preset demo
    python pipeline.py submit --preset market1501 --host URL --param source=s3://BUCKET/market ...

Five graphs are made of the same steps: `full` makes paired image-texture data (PIT), trains the
texture generator SAN-PG on it and generates a texture for every training image; `ready` takes a
generator that is there, such as the one that ships; `textures` takes ready-made textures;
`baseline` trains without any; `score` takes a model that is there, and trains nothing. The steps
are the files of components/; what the parameters mean is in components/launch/parameters.py, and
the presets and the three commands are beside it.
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
    """Train SAN with textures made by a generator that is there, and score it."""
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


def baseline_graph(steps: SimpleNamespace, p: SimpleNamespace) -> None:
    """Train the ReID encoder without textures, and score it."""
    reid, checked = prepare_data(steps, p)
    train_and_score(steps, p, reid=reid, after=checked)


def score_graph(steps: SimpleNamespace, p: SimpleNamespace) -> None:
    """Score a model that is there."""
    reid = prepare_reid(steps, p)
    taken = steps.take_model(source=p.model)
    embed_and_score(steps, p, reid=reid, model=taken.outputs["model"])


def prepare_data(
    steps: SimpleNamespace, p: SimpleNamespace
) -> tuple[PipelineChannel, PipelineTask]:
    """The data set that every graph trains on and tests on, and the task that checks its counts."""
    reid = prepare_reid(steps, p)
    return reid, steps.check_reid(dataset=reid, recipe=p.san_recipe, overrides=p.san_overrides)


def prepare_reid(steps: SimpleNamespace, p: SimpleNamespace) -> PipelineChannel:
    """The data set in the one image format."""
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
    """The sealed textures that a generator makes of a data set, by several workers."""
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
    """The end of every graph that trains: train with what more there is, embed and score."""
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
    """Embed the test images by a model, and score them."""
    extracted = steps.extract_features(
        dataset=reid,
        model=model,
        references=p.references,
        mirrored=p.mirrored,
    )
    steps.evaluate(
        features=extracted.outputs["features"],
        dataset=reid,
        protocol=p.protocol,
        rerank=p.rerank,
        references=p.references,
    )


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
            # As the generator that ships makes them.
            defaults={"san_overrides": "texture_size=64 decoder_plan=light"},
        ),
        Graph("textures", textures_graph, ("destination", "texture_source", "texture_atlas")),
        Graph("baseline", baseline_graph, defaults={"san_recipe": "cuhk03-baseline"}),
        Graph("score", score_graph, ("model",), trains=False),
    )
}


def main(argv: Sequence[str] | None = None) -> int:
    """Compile, run or submit a graph, as the words of the command line say."""
    return commands.main(GRAPHS, argv)


if __name__ == "__main__":
    hear_interrupt(signal.default_int_handler)
    sys.exit(main())
