"""Train SAN-PG, the texture generator."""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

from components.command.step import Input, Output
from components.storage.outputs import atomic_folder, check_succeeded, write_file, write_metrics

if TYPE_CHECKING:
    from components.training.inputs import DecodedPairs
    from components.training.loop import Validation
    from san_core.images.pixels import Pixels
    from san_core.model.san import SAN
    from san_core.pages.page import Section

log = logging.getLogger(__name__)


def train_san_pg(
    pit: Annotated[Path, Input("Dataset")],
    generator: Annotated[Path, Output("Model")],
    generator_page: Annotated[Path, Output("HTML")],
    generator_scores: Annotated[Path, Output("Metrics")],
    events: Annotated[Path | None, Output("Artifact")] = None,
    recipe: str = "pit",
    overrides: str = "",
    seed: int = 0,
    checkpoint: str = "",
    checkpoint_minutes: float = 10.0,
    precision: str = "auto",
    compiled: bool = False,
    tensorboard: bool = False,
) -> None:
    """Train SAN-PG, the texture generator, to regress a person's whole texture from one picture.

    To train on several GPUs, start a process for each with torchrun, on one node or several:
    `torchrun --nproc-per-node 4 -m components train_san_pg ...`. A recipe's batch size is the total
    over all GPUs.

    Args:
        pit: paired image-texture data, made by make_pit
        generator: weights, recipe and report.json with the PSNR on held-out textures. If the recipe
            validates (eval_every), the weights are those that score best on half of the held-out
            textures, the report is on the other half, and last.safetensors holds the last epoch's
            weights
        generator_page: page with loss curves, and held-out pictures with their true and generated
            textures
        generator_scores: psnr: PSNR in dB on held-out textures; psnr_gain: by how many dB it
            exceeds the PSNR of the mean training texture
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
        precision: auto, float32, tf32, bfloat16 or float16; auto is mixed precision on a GPU and
            float32 on a CPU; float32 uses no TF32
        compiled: whether to train through torch.compile; it is faster on a GPU, after some minutes
            of compiling
        tensorboard: whether to write event files; needs the package tensorboard and, by hand,
            --events
    """
    from components.command import recipes
    from components.process.machine import device
    from components.process.torchrun import is_first_rank
    from components.storage.staging import image_set_digest
    from components.training import loop, report
    from components.training.events import check_events, write_events
    from components.training.inputs import (
        PixelCache,
        check_atlases,
        initial_model,
        initial_weights_fingerprint,
        trained_on_pairs,
    )
    from components.training.meeting import meet
    from components.training.pg_examples import held_out_examples
    from san_core.inference.textures import predict_textures
    from san_core.model.saved import write_sums
    from san_core.pages import page

    chosen = recipes.resolve_recipe(recipe, overrides)
    if chosen.needs_identities or not chosen.needs_decoder:
        raise ValueError(
            f"recipe {recipe!r} does not train a texture generator: SAN-PG has w_id=0 w_tri=0"
            " and w_rec above 0, as the recipes pit and demo-pg"
        )
    check_events(events, wanted=tensorboard)
    settings = loop.TrainingSettings(
        step="train_san_pg",
        recipe=chosen,
        seed=seed,
        precision=precision,
        compiled=compiled,
        checkpoint=checkpoint,
        checkpoint_minutes=checkpoint_minutes,
    )
    check_atlases(chosen, pit=pit / "textures")
    outputs = {
        "generator": generator,
        "generator_page": generator_page,
        "generator_scores": generator_scores,
        "events": events,
    }
    with (
        meet("train_san_pg", outputs, checkpoint=checkpoint, settings=settings.decisive) as ranks,
        ranks.scratch_folder_of_node(generator) as room,
    ):
        model = initial_model(chosen, num_classes=0, seed=seed, folder=room, ranks=ranks)
        reader = PixelCache(room, chosen, ranks)
        seen, unseen = reader.decode_pairs(pit, "train"), reader.decode_pairs(pit, "val")
        watched = unseen
        if chosen.eval_every:
            watched, unseen = unseen.split_by_texture()
        inputs = {
            "images": image_set_digest(pit / "images"),
            "textures": image_set_digest(pit / "textures"),
            "dense": None if seen.dense is None else image_set_digest(pit / "dense"),
            **ranks.make_on_first(lambda: initial_weights_fingerprint(room, chosen, None)),
        }
        facts = {
            "atlas": seen.atlas,
            "seed": seed,
            "recipe": recipe,
            "trained_on": trained_on_pairs(pit),
        }
        trained = loop.train(
            model,
            seen.as_training_data(),
            settings,
            inputs=inputs,
            room=room,
            ranks=ranks,
            validation=_psnr_validation(watched) if chosen.eval_every else None,
            facts=facts,
        )
        if not is_first_rank():
            return
        with atomic_folder(generator) as folder:
            loop.save_model(folder, model, chosen, trained, facts=facts)
            generated = predict_textures(model, unseen.images, device=device())
            scores = _held_out_scores(generated, seen, unseen)
            summary = {**scores._asdict(), "held_out_images": len(generated)}
            write_file(folder / "report.json", json.dumps(summary, indent=2) + "\n")
            write_sums(folder)
        examples = held_out_examples(unseen, generated)
        sections = [
            *report.failure_sections(trained.failure),
            _scores_section(scores),
            report.training_section(
                trained,
                recipe=report.recipe_in_words(recipe, chosen),
                seed=seed,
                data=_pairs_in_words(seen, unseen),
            ),
            report.curves_section(trained.history),
            report.examples_section(examples),
        ]
        document = page.render_page("SAN-PG, the texture generator", sections, subtitle=recipe)
        write_events(events, trained.history, chosen, [examples], wanted=tensorboard)
        if failure := trained.failure_line:
            trained.keep_beside("page.html", document)
        del seen, unseen, watched, trained  # close their files before the scratch folder is deleted
    write_file(generator_page, document)
    write_metrics(generator_scores, {"psnr": scores.psnr, "psnr_gain": scores.gain})
    check_succeeded(failure)
    log.info(
        "held-out textures: PSNR %.2f dB, %.2f dB above the mean training texture",
        scores.psnr,
        scores.gain,
    )


def _psnr_validation(watched: "DecodedPairs") -> "Validation":
    """The PSNR on held-out textures, in dB."""
    from components.process.machine import device
    from components.training.loop import Validation
    from san_core.inference.textures import predict_textures, psnr

    def score(model: "SAN") -> float:
        generated = predict_textures(model, watched.images, device=device())
        return psnr(generated, watched.textures[watched.texture_index])

    return Validation("psnr", score)


def _pairs_in_words(seen: "DecodedPairs", unseen: "DecodedPairs") -> str:
    """The numbers of pictures and textures for training, and those held out, in words."""
    return (
        f"{len(seen.images):,} images with {len(seen.textures):,} textures;"
        f" {len(unseen.images):,} of {len(unseen.textures):,} are held out"
    )


class _Scores(NamedTuple):
    """PSNR in dB on held-out identities, squared errors pooled over all their images."""

    psnr: float
    psnr_of_mean_texture: float  # predicting the mean training texture for everybody

    @property
    def gain(self) -> float:
        return self.psnr - self.psnr_of_mean_texture


def _held_out_scores(generated: "Pixels", seen: "DecodedPairs", unseen: "DecodedPairs") -> _Scores:
    """A section with the PSNR of generated textures on held-out people."""
    import numpy as np

    from san_core.inference.textures import psnr

    true = unseen.textures[unseen.texture_index]
    mean = np.rint(seen.textures.mean(axis=0, dtype=np.float64)).astype(np.uint8)
    return _Scores(psnr(generated, true), psnr(np.broadcast_to(mean, true.shape), true))


def _scores_section(scores: _Scores) -> "Section":
    from san_core.pages import page

    rows = [
        ("SAN-PG", f"{scores.psnr:.2f}"),
        ("the mean training texture", f"{scores.psnr_of_mean_texture:.2f}"),
    ]
    return page.Section(
        "Held-out textures",
        page.table(["", "PSNR in dB"], rows, strong=0),
        "The generator has not seen these people. Each texture is generated from a single image.",
    )
