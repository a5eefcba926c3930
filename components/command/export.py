"""`python -m components export`: a model from a checkpoint, or an ONNX file of a model.

python -m components export --from-state work/kept --model work/model
python -m components export --model work/model --onnx reid.onnx --layout nchw-float
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.command.once import OnceParser, status_of
from components.process.messages import os_error_message, printable
from components.process.scratch import temporary_folder
from components.storage.outputs import atomic_folder, check_replaceable, write_file
from components.storage.places import is_remote, local_path, written_path

if TYPE_CHECKING:
    import argparse

    import numpy as np
    from numpy.typing import NDArray

    from san_core.model.weights import LoadedNetwork

_MOST_DIFFERENCE = 1e-4  # between torch and onnxruntime, as a share of the largest output
_PARITY_IMAGES = 5


def export_parser() -> "argparse.ArgumentParser":
    """The parser of the command line."""
    parser = OnceParser(
        prog="python -m components export",
        description="Write the model of a training checkpoint, or an ONNX file of a model.",
    )
    parser.add_argument(
        "--from-state",
        metavar="PLACE",
        help="folder or URI of the checkpoint of a training, finished or not; its model is written"
        " to --model",
    )
    parser.add_argument(
        "--model",
        metavar="PLACE",
        required=True,
        help="folder of the model; or its URI, if it is only read",
    )
    parser.add_argument("--onnx", metavar="FILE", help="file for the model in ONNX format")
    parser.add_argument(
        "--layout",
        choices=("nhwc-uint8", "nchw-float"),
        default="nhwc-uint8",
        help="input of the ONNX model: pixels, uint8 (N, H, W, 3) RGB, which it normalises itself"
        " (default: nhwc-uint8); or normalised images, float32 (N, 3, H, W) RGB, as trackers such"
        " as boxmot pass them",
    )
    return parser


def run_export(words: Sequence[str]) -> int:
    """The command `export`; returns the exit status."""
    try:
        options = export_parser().parse_args(words)
    except SystemExit as stop:
        return status_of(stop)
    try:
        named = options.onnx
        file = None if named is None else written_path(named, option="--onnx", kind="file")
        if options.from_state is not None:
            export_state(options.from_state, options.model)
        elif file is None:
            raise ValueError("give --from-state or --onnx")
        if file is not None:
            export_onnx(options.model, file, options.layout)
    except ModuleNotFoundError as error:
        return _fail(f"needs the Python package {error.name}, which is not installed here")
    except BrokenPipeError:
        raise
    except OSError as error:
        return _fail(os_error_message(error))
    except ValueError as error:
        return _fail(str(error))
    return 0


def export_state(place: str, model: str) -> None:
    """Write the model of a training checkpoint.

    Args:
        place: folder or URI of the checkpoint.
        model: the folder to write.

    Raises:
        OSError: there is no checkpoint, or no disk space.
        ValueError: the checkpoint is not of a network, or the folder must not be replaced.
    """
    from components.storage.checkpoint import fetch_any_state, read_state
    from san_core.model import weights
    from san_core.model.kept import network_of_state
    from san_core.model.saved import HISTORY_FILE, write_sums

    if is_remote(model):
        raise ValueError(
            f"--model {model} is not a local folder; name one for the model of a state"
        )
    path = local_path(model)
    check_replaceable(path)
    with temporary_folder() as room:
        kept = network_of_state(read_state(fetch_any_state(place, room)), where=place)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(path) as folder:
            weights.save_weights(
                folder, kept.last, kept.recipe, facts=kept.facts, best_weights=kept.best
            )
            lines = "".join(json.dumps(record) + "\n" for record in kept.history)
            write_file(folder / HISTORY_FILE, lines)
            write_sums(folder)
            weights.load_network(folder)  # raises if something does not fit
        which = f"best, of epoch {kept.facts['best_epoch']}" if kept.best else "last"
        told = f"{len(kept.history)} of {kept.recipe.epochs} epochs, the weights are the {which}"
    print(f"{path}: {told}")


def export_onnx(model: str, file: Path, layout: str) -> None:
    """Write a model as an ONNX file, after a check that it computes the same as torch.

    Args:
        model: folder or URI of the model.
        file: the file to write.
        layout: layout of its input.

    Raises:
        OSError: the model does not exist, or there is no disk space.
        ValueError: the model is damaged, the file computes something else, or it would replace a
            file of another kind.
    """
    from components.storage.transfer import fetch_artifact
    from san_core.model.onnx import (
        check_onnx_installed,
        export_encoder,
        export_generator,
        model_metadata,
    )
    from san_core.model.saved import fingerprint, onnx_file
    from san_core.model.weights import load_network

    check_onnx_installed()
    _check_file(file)
    with temporary_folder() as room:
        folder = fetch_artifact(model, room / "model") if is_remote(model) else local_path(model)
        if onnx_file(folder):
            raise ValueError(f"{model} is an ONNX file; give the folder of the model")
        loaded = load_network(folder)
        write = export_encoder if loaded.recipe.needs_identities else export_generator
        made = room / "made.onnx"
        metadata = model_metadata(loaded.recipe, loaded.facts, fingerprint(folder))
        write(made, loaded.model, loaded.recipe, layout=layout, metadata=metadata)
        difference = _check_parity(made, loaded, layout)
        write_file(file, made.read_bytes())
    print(f"{file}: {layout}, differs from torch by {difference:.1e} at most")


def _check_file(file: Path) -> None:
    """Check that an export replaces at most an older export.

    Raises:
        ValueError: it would replace a file of another kind, such as weights.
    """
    check_replaceable(file, is_file=True)
    if file.exists() and file.suffix.lower() != ".onnx":
        raise ValueError(
            f"--onnx {file} exists and its name does not end in .onnx; name another file"
        )


def _check_parity(file: Path, loaded: "LoadedNetwork", layout: str) -> float:
    """The largest difference between the outputs of a file and of torch on random pictures.

    Raises:
        ValueError: it is more than rounding.
    """
    import numpy as np
    import torch

    from san_core.data.batches.augmentation import normalise_by_torch

    size = (_PARITY_IMAGES, *loaded.recipe.image_size, 3)
    pixels = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    with torch.inference_mode():
        images = normalise_by_torch(torch.from_numpy(pixels))
        expected = _outcome(loaded, images)
    given = pixels if layout == "nhwc-uint8" else images.contiguous().numpy()
    found = _run_file(file, given)
    difference = float(np.abs(found - expected).max())
    largest = float(np.abs(expected).max())
    if not difference <= _MOST_DIFFERENCE * max(largest, 1e-6):
        raise ValueError(
            f"the ONNX file does not compute the same as torch: outputs differ by {difference:.1e},"
            f" and the largest is {largest:.1e}; the file is not kept"
        )
    return difference


def _outcome(loaded: "LoadedNetwork", images: Any) -> "NDArray[np.float32]":
    """The output of torch for normalised images: embeddings, or textures."""
    model = loaded.model.eval()
    if loaded.recipe.needs_identities:
        found = model.encoder(images).embedding
    else:
        assert model.decoder is not None  # every generator has one
        found = model.decoder(model.encoder.stage_maps(images), images).texture
    outcome: NDArray[np.float32] = found.numpy()
    return outcome


def _run_file(file: Path, given: "NDArray[Any]") -> "NDArray[np.float32]":
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: given})
    outcome: NDArray[np.float32] = found
    return outcome


def _fail(message: str) -> int:
    """Print an error in one line; return the exit status."""
    print(printable(f"export: {' '.join(message.split())}"), file=sys.stderr)
    return 1
