"""The trained network that a step is given, on the device of this machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from components.process.machine import core_count, device
from components.process.scratch import temporary_folder
from components.storage.places import is_remote, local_path
from components.storage.transfer import fetch_artifact
from san_core.model.saved import onnx_file, read_description

if TYPE_CHECKING:
    from san_core.inference.network import Network


@contextmanager
def local_model(place: str) -> Iterator[Path]:
    """The folder or ONNX file of a model; for one in a bucket, a copy until the block ends.

    Raises:
        OSError: it cannot be downloaded.
    """
    if not is_remote(place):
        yield local_path(place)
        return
    with temporary_folder() as room:
        yield fetch_artifact(place, room / "model")


def open_network(path: Path) -> "Network":
    """The network in a folder, run by torch, or in an ONNX file, run by onnxruntime.

    Raises:
        ModuleNotFoundError: onnxruntime is needed and not installed.
        FileNotFoundError: there is no network.
        ValueError: it is damaged, torch is needed and not installed, or a GPU cannot be used.
    """
    if (file := onnx_file(path)) is not None:
        read_description(path)  # it checks the checksum, if there is one
        from san_core.inference.onnx_network import OnnxNetwork

        return OnnxNetwork(file, threads=core_count())
    if find_spec("torch") is None:
        raise ValueError(
            f"{path} needs torch, which is not installed here; an ONNX file of it does not:"
            " `python -m components export --model PLACE --onnx FILE` writes one"
        )
    from san_core.inference.torch_network import TorchNetwork

    return TorchNetwork(path, device())


def open_encoder(path: Path) -> "Network":
    """An encoder, a network that embeds people.

    Raises:
        ValueError: it is a texture generator; or as `open_network`.
    """
    from san_core.inference.network import check_encoder

    network = open_network(path)
    check_encoder(network.recipe, path)
    return network


def averages_mirrored(word: str, network: "Network") -> bool:
    """Whether features are averaged with those of mirrored images.

    word: true, false, or auto for the choice of the network's recipe.

    Raises:
        ValueError: the word is none of these.
    """
    from san_core.recipe import check_mirrored

    check_mirrored(word)
    return network.recipe.mirrored if word == "auto" else word == "true"
