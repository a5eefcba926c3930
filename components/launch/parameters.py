"""The parameters of a whole pipeline, their meaning and their defaults.

A graph takes the parameters of its steps. Each is written here once. The compiled pipeline, the
fields that Kubeflow shows and `--help` are made from it.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from components.command.step import Parameter
from san_core.shipped.generator import SHIPPED_GENERATOR

# The meaning of each parameter of a graph; Kubeflow shows it beside the field.
PARAMETER_MEANINGS = {
    "destination": "folder or URI for textures, shared by all workers; empty is san-textures in the"
    " pipeline root on Kubeflow, and runs/.store/textures on this machine",
    "checkpoint": "folder or URI for checkpoints of unfinished training; none writes none; empty is"
    " san-checkpoints in the pipeline root on Kubeflow, and runs/.store/checkpoints on this"
    " machine",
    "feature_parts": "folder or URI for the features of several workers until they are joined;"
    " empty is san-features in the pipeline root on Kubeflow, and runs/.store/features on this"
    " machine",
    "dataset": "the ReID data set: synthetic, market1501, cuhk03, msmt17, partial, csv, folders,"
    " file_names or vehicleid; several, such as market1501+cuhk03, are trained on together;"
    " NAME:all trains on the test images too",
    "source": "folder, archive or URI of the data set; for several, one each, separated by spaces;"
    " leave it empty for synthetic",
    "target": "the data set to test on, written as dataset is; several, such as market1501+msmt17,"
    " are scored one by one; if empty, dataset itself",
    "target_source": "folder, archive or URI of the target; for several, one each, separated by"
    " spaces",
    "skip_bad": "whether to leave out damaged images and duplicates; otherwise they stop the run",
    "difficulty": "how hard synthetic people are to tell apart: easy, normal or hard",
    "identities": "number of synthetic people",
    "image_height": "height of a synthetic picture in pixels; its width is half of that",
    "pit_textures": "number of identities in the paired image-texture data",
    "pit_meshes": "pictures per identity in the paired image-texture data",
    "dense": "whether to write dense maps with these pictures: the texel that each pixel shows;"
    " recipes with w_dense need them",
    "world": "where these pictures are taken: studio; or street, which varies like photographs and"
    " suits recipes that copy colours, such as pit-copy",
    "generator": "folder or URI of a texture generator; shipped is the package's own (128x128)",
    "model": "folder or URI of a trained encoder, written by train_san, or an ONNX file of it",
    "texture_source": "folder or URI of ready-made textures, matched to the images by file name",
    "texture_atlas": "name of the UV layout of ready-made textures, such as san-atlas-1; empty if"
    " it is unknown",
    "san_recipe": "recipe of the ReID training; `python -m components recipes` lists them",
    "pg_recipe": "recipe of the texture generator, such as pit",
    "san_overrides": 'fields of san_recipe to replace, such as "lr=1e-4 epochs=3"',
    "pg_overrides": "fields of pg_recipe to replace, written likewise",
    "seed": "seed of every random choice",
    "precision": "number format of training: auto (mixed precision on a GPU), float32, tf32,"
    " bfloat16 or float16",
    "compiled": "whether to train through torch.compile, which needs a C compiler",
    "onnx": "whether to write the trained encoder as ONNX too",
    "tensorboard": "whether training writes event files for TensorBoard, besides its page",
    "fuse": "none: one texture per image; person: one texture per person, fused from what each of"
    " the person's images shows",
    "verify": "how finished shards of textures are checked: none, size or sha256",
    "workers": 'workers that generate textures in parallel: ["0/2", "1/2"] is two workers',
    "feature_workers": "number of workers that embed the test images in parallel, such as 4; or"
    ' their names, such as ["0/2", "1/2"]',
    "protocol": "how queries are scored; auto is the data set's own protocol, or camera-free if it"
    " has no cameras",
    "rerank": "whether to score re-ranked distances too",
    "mirrored": "whether to average test features with those of the mirrored images: auto (as the"
    " recipe says), true or false",
    "references": "whether to score an untrained encoder and a colour histogram too",
}

# Their defaults; a parameter that is not here must be given.
_DEFAULT_VALUES: dict[str, Any] = {
    "destination": "",
    "checkpoint": "",
    "feature_parts": "",
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
    "dense": False,
    "world": "studio",
    "generator": SHIPPED_GENERATOR,
    "texture_atlas": "",
    "san_recipe": "cuhk03",
    "pg_recipe": "pit",
    "san_overrides": "",
    "pg_overrides": "",
    "seed": 0,
    "precision": "auto",
    "compiled": False,
    "onnx": False,
    "tensorboard": False,
    "fuse": "none",
    "verify": "size",
    "workers": ["0/1"],
    "protocol": "auto",
    "rerank": False,
    "mirrored": "auto",
    "references": False,
}

# Parameters of prepare_reid (which has a seed too), of textures, of several feature workers, of
# training, of every graph.
DATA_PARAMETERS = (
    *("dataset", "source", "target", "target_source", "skip_bad"),
    *("difficulty", "identities", "image_height"),
)
TEXTURE_PARAMETERS = ("destination", "workers", "fuse", "verify")
FEATURE_PARAMETERS = ("feature_workers", "feature_parts")
TRAINING_PARAMETERS = (
    *("san_recipe", "san_overrides", "seed", "checkpoint"),
    *("precision", "compiled", "onnx", "tensorboard"),
)
TEST_PARAMETERS = ("mirrored", "protocol", "rerank", "references")
COMMON_PARAMETERS = (*DATA_PARAMETERS, "seed", *TEST_PARAMETERS)


def graph_parameters(
    names: Sequence[str], defaults: Mapping[str, Any], *, trains: bool = True
) -> list[Parameter]:
    """The parameters of a graph: those of every graph, and `names`.

    Args:
        names: parameters besides `COMMON_PARAMETERS`.
        defaults: the graph's own defaults.
        trains: whether it takes those of training too.
    """
    names = (*COMMON_PARAMETERS, *(TRAINING_PARAMETERS if trains else ()), *names)
    assert {*names, *defaults} <= PARAMETER_MEANINGS.keys()
    default = {**_DEFAULT_VALUES, **defaults}
    return [
        Parameter(
            name,
            type=type(default.get(name, "")),
            help=meaning,
            default=default.get(name, inspect.Parameter.empty),
            artifact=None,
        )
        for name, meaning in PARAMETER_MEANINGS.items()
        if name in names
    ]


def parameters_help() -> str:
    """The parameters that `--param` sets, for the end of a help text."""
    width = max(map(len, PARAMETER_MEANINGS))
    rows = [f"  {name:{width}}  {meaning}" for name, meaning in PARAMETER_MEANINGS.items()]
    return "\n".join(
        ["parameters of a pipeline for --param; a graph takes those of its steps:", *rows]
    )
