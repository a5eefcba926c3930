"""Train the ReID encoder, with or without texture supervision."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from components.command.step import Input, Output
from components.storage.outputs import atomic_folder, check_succeeded, write_file, write_metrics

if TYPE_CHECKING:
    from san_core.recipe import Recipe

log = logging.getLogger(__name__)


def train_san(
    dataset: Annotated[Path, Input("Dataset")],
    model: Annotated[Path, Output("Model")],
    training_page: Annotated[Path, Output("HTML")],
    losses: Annotated[Path, Output("Metrics")],
    textures: Annotated[Path | None, Input("Dataset")] = None,
    generator: Annotated[Path | None, Input("Model")] = None,
    pit: Annotated[Path | None, Input("Dataset")] = None,
    start_from: Annotated[Path | None, Input("Model", may_be_checkpoint=True)] = None,
    events: Annotated[Path | None, Output("Artifact")] = None,
    recipe: str = "cuhk03",
    overrides: str = "",
    seed: int = 0,
    checkpoint: str = "",
    checkpoint_minutes: float = 10.0,
    precision: str = "auto",
    compiled: bool = False,
    onnx: bool = False,
    tensorboard: bool = False,
) -> None:
    """Train SAN: the ReID encoder, jointly with a decoder that regresses each person's texture.

    To train on several GPUs, start a process for each with torchrun, on one node or several:
    `torchrun --nproc-per-node 4 -m components train_san ...`. A recipe's batch size is the total
    over all GPUs.

    Args:
        dataset: the person images, an image set; its train split is used
        model: weights, recipe and history.jsonl (one line per epoch). If the recipe validates
            (eval_every), the weights are the best ones, and last.safetensors holds the last epoch's
            weights
        training_page: page with the recipe, a curve of every loss and score, and pictures of
            held-out and training people with their textures and decoded textures
        losses: loss, loss_identity, loss_triplet, loss_texture ... of the epoch whose weights are
            kept, and val_mAP if the recipe validates
        textures: sealed textures of the training images; a recipe without texture losses needs none
        generator: SAN-PG: to start from, for recipes with init=generator or init=encoder; or to
            distil features from, for recipes with w_distill
        pit: paired image-texture data to mix into training, for recipes with pit_every
        start_from: a model to train further, or the checkpoint of a finished or stopped training,
            for recipes with init=model; its encoder is taken, and its decoder if both models have
            one
        events: TensorBoard event files with history, curves, examples and recipe; written if
            tensorboard is true
        recipe: training recipe; `python -m components recipes` lists all of them
        overrides: recipe fields to replace, such as "lr=1e-4 epochs=3"; `python -m components
            recipes NAME` lists the fields
        seed: seed of every random choice
        checkpoint: folder or URI for checkpoints of unfinished training. On Kubeflow, empty is
            san-checkpoints in the pipeline root, and none writes no checkpoints; by hand, empty
            writes none either
        checkpoint_minutes: minutes between checkpoints within an epoch, besides those that the
            recipe asks for; 0 writes none within an epoch
        precision: auto, float32, tf32, bfloat16 or float16; auto is mixed precision on a GPU
            (unless the recipe sets full_precision) and float32 on a CPU; float32 uses no TF32
        compiled: whether to train through torch.compile; it is faster on a GPU, after some minutes
            of compiling
        onnx: whether to write encoder.onnx too, for use without torch
        tensorboard: whether to write event files; needs the package tensorboard and, by hand,
            --events
    """
    from components.command import recipes
    from components.process.torchrun import is_first_rank
    from components.storage.staging import image_set_digest
    from components.training import loop, report
    from components.training.events import check_events, write_events
    from components.training.inputs import (
        PixelCache,
        check_atlases,
        initial_model,
        initial_weights_fingerprint,
        open_on_ranks,
    )
    from components.training.meeting import meet
    from components.training.san_examples import find_examples
    from components.training.san_inputs import (
        check_textures_of,
        people_in_words,
        training_data,
        validation_by_map,
        whom_trained_on,
    )
    from san_core.data.batches.identities import (
        rare_textures_warning,
        split_identities,
        unseen_images_warning,
    )
    from san_core.images.texture_set import check_generator
    from san_core.model.onnx import check_onnx_installed, export_encoder, model_metadata
    from san_core.model.saved import fingerprint, read_description, write_sums
    from san_core.model.weights import load_network
    from san_core.pages import page
    from san_core.training.loop import check_batches_divide

    chosen = recipes.resolve_recipe(recipe, overrides)
    check_events(events, wanted=tensorboard)
    _check_inputs(chosen, recipe, textures=textures, generator=generator, pit=pit)
    _check_start(chosen, recipe, start_from)
    settings = loop.TrainingSettings(
        step="train_san",
        recipe=chosen,
        seed=seed,
        precision=precision,
        compiled=compiled,
        checkpoint=checkpoint,
        checkpoint_minutes=checkpoint_minutes,
        has_start_from=True,
    )
    if onnx:
        check_onnx_installed()
    learned_from = generator if chosen.needs_generator else None
    if learned_from:
        check_generator(read_description(learned_from).recipe, learned_from)
    check_atlases(
        chosen,
        textures=textures if chosen.needs_decoder else None,
        pit=pit / "textures" if pit and chosen.pit_every else None,
        generator=learned_from if chosen.init == "generator" else None,
    )
    if textures and chosen.needs_decoder:
        check_textures_of(textures, dataset)
    outputs = {
        "model": model,
        "training_page": training_page,
        "losses": losses,
        "events": events,
    }
    with (
        meet("train_san", outputs, checkpoint=checkpoint, settings=settings.decisive) as ranks,
        ranks.scratch_folder_of_node(model) as room,
        open_on_ranks(dataset, ("train", "val")) as images,
    ):
        people = split_identities(images, chosen)
        network = initial_model(
            chosen,
            num_classes=people.num_classes,
            seed=seed,
            folder=room,
            generator=learned_from,
            start_from=start_from,
            ranks=ranks,
        )
        taught = load_network(learned_from) if learned_from and chosen.w_distill else None
        for warning in (unseen_images_warning, rare_textures_warning):
            if line := warning(people.labels, chosen):
                log.warning("%s", line)
        check_batches_divide(chosen, images=len(people.train_records))
        reader = PixelCache(room, chosen, ranks)
        validation = validation_by_map(reader, images, people) if chosen.eval_every else None
        data = training_data(reader, images, people, textures=textures, pit=pit)
        used = textures if chosen.needs_decoder else None
        inputs = {
            "dataset": image_set_digest(dataset),
            "textures": image_set_digest(used) if used else None,
            "pit": _identity_of_pit(pit) if pit and chosen.pit_every else None,
            **ranks.make_on_first(lambda: initial_weights_fingerprint(room, chosen, learned_from)),
            **({"start_from": fingerprint(start_from)} if start_from else {}),
        }
        learned = whom_trained_on(
            dataset,
            images,
            people,
            pit=pit if chosen.pit_every else None,
            starts_from=(learned_from, start_from),
        )
        facts = {"seed": seed, "recipe": recipe, "trained_on": learned}
        trained = loop.train(
            network,
            data,
            settings,
            inputs=inputs,
            room=room,
            ranks=ranks,
            validation=validation,
            facts=facts,
            teacher=None if taught is None else taught.model.encoder,
        )
        if not is_first_rank():
            return
        with atomic_folder(model) as folder:
            loop.save_model(folder, network, chosen, trained, facts=facts)
            if onnx and not trained.failure:
                metadata = model_metadata(*read_description(folder), fingerprint(folder))
                export_encoder(folder / "encoder.onnx", network, chosen, metadata=metadata)
            write_sums(folder)
        examples = find_examples(
            network, chosen, data, images=images, people=people, textures=textures
        )
        sections = [
            *report.failure_sections(trained.failure),
            report.training_section(
                trained,
                recipe=report.recipe_in_words(recipe, chosen),
                seed=seed,
                data=people_in_words(people),
            ),
            report.curves_section(trained.history),
            *map(report.examples_section, examples),
        ]
        document = page.render_page("SAN", sections, subtitle=recipe)
        write_events(events, trained.history, chosen, examples, wanted=tensorboard)
        figures, failure = loop.loss_metrics(trained.kept_record), trained.failure_line
        if failure:
            trained.keep_beside("page.html", document)
        del data, validation, trained  # close their files before the scratch folder is deleted
    write_file(training_page, document)
    write_metrics(losses, figures)
    check_succeeded(failure)


def _check_start(recipe: "Recipe", name: str, start_from: Path | None) -> None:
    """Check the model that a recipe starts from.

    Raises:
        ValueError: it is missing, or has no effect, or is an ONNX file or a generator.
    """
    from san_core.inference.network import check_encoder
    from san_core.model.saved import onnx_file, read_description

    if recipe.init == "model" and start_from is None:
        raise ValueError(f"recipe {name!r} starts from a model; give one with --start-from")
    if start_from is None:
        return
    if recipe.init != "model":
        raise ValueError(
            f"--start-from {start_from} has no effect with init={recipe.init}; add init=model to"
            " --overrides"
        )
    if onnx_file(start_from):
        raise ValueError(f"{start_from} is an ONNX file; give the folder of the model")
    check_encoder(read_description(start_from).recipe, start_from)


def _check_inputs(
    recipe: "Recipe",
    name: str,
    *,
    textures: Path | None,
    generator: Path | None,
    pit: Path | None,
) -> None:
    """Check that a recipe is for this step and has every artifact that it needs.

    Textures without use cause a warning. A generator or PIT without use is only noted: the graph
    full passes both whatever the recipe, and a step does not know whether a graph runs it.

    Raises:
        ValueError: it has no identity losses, or an artifact that it needs was not given.
    """
    if not recipe.needs_identities:
        raise ValueError(f"recipe {name!r} has no identity losses; it is a recipe for train_san_pg")
    if recipe.needs_decoder and textures is None:
        raise ValueError(f"recipe {name!r} needs textures; give them with --textures")
    if recipe.init in ("generator", "encoder") and generator is None:
        raise ValueError(f"recipe {name!r} starts from a generator; give one with --generator")
    if recipe.w_distill and generator is None:
        raise ValueError(
            f"recipe {name!r} distils a generator's features (w_distill={recipe.w_distill:g});"
            " give one with --generator"
        )
    if recipe.pit_every and pit is None:
        raise ValueError(
            f"recipe {name!r} mixes in PIT batches (pit_every={recipe.pit_every}); give paired"
            " data with --pit"
        )
    if textures is not None and not recipe.needs_decoder:
        log.warning("recipe %r has no texture losses: the textures are not used", name)
    if generator is not None and not recipe.needs_generator:
        log.info("recipe %r uses no generator: the given one is not used", name)
    if pit is not None and not recipe.pit_every:
        log.info("recipe %r has pit_every=0: the paired data are not used", name)


def _identity_of_pit(pit: Path) -> list[str]:
    from components.storage.staging import image_set_digest

    return [image_set_digest(pit / part) for part in ("images", "textures")]
