"""The parameters of a whole pipeline, what they mean and what they are by default.

A graph takes those of its steps. Each is written down here once: the compiled pipeline, the fields
that Kubeflow shows and `--help` are made from it.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from components.command.step import Parameter
from san_core.shipped.generator import SHIPPED_GENERATOR

# What each parameter of a graph means; Kubeflow shows it beside the field.
PARAMETER_MEANINGS = {
    "destination": "folder or URI under which textures are kept, shared by all workers; empty is "
    "san-textures in the pipeline root, or runs/.store/textures on this machine",
    "checkpoint": "folder or URI for the state of unfinished training, or none; empty is "
    "san-checkpoints in the pipeline root, or runs/.store/checkpoints on this machine",
    "dataset": "the ReID data set: synthetic, market1501, cuhk03, msmt17, partial, csv, folders,"
    " file_names or vehicleid, or several to train on together, such as market1501+cuhk03;"
    " NAME:all trains on all of one",
    "source": "folder, archive or URI of the data set; of several one each, in one word; none for"
    " synthetic",
    "target": "the data set to test on, named as dataset is, or several such as market1501+msmt17;"
    " empty for dataset itself",
    "target_source": "folder, archive or URI of the target; of several one each, in one word",
    "skip_bad": "whether to leave out damaged images and duplicates instead of refusing the data",
    "difficulty": "how hard synthetic people are to tell apart: easy, normal or hard",
    "identities": "number of synthetic people",
    "image_height": "rows of a synthetic picture; it is half as wide",
    "pit_textures": "number of identities in the paired image-texture data",
    "pit_meshes": "pictures of each of them",
    "dense": "whether those pictures tell which texel every pixel shows, as recipes with w_dense "
    "need",
    "world": "where those pictures are taken: studio, or street, which varies as photographs do; "
    "for recipes that copy colours, such as pit-copy",
    "generator": "folder or URI of a texture generator; shipped is the package's own (128x128)",
    "model": "folder or URI of a trained encoder, as train_san writes it, or of an ONNX file of it",
    "texture_source": "folder or URI of ready-made textures, matched to the images by file name",
    "texture_atlas": "name of the layout of ready-made textures, such as san-atlas-1; empty where "
    "it is not known",
    "san_recipe": "recipe of the ReID training; `python -m components recipes` lists them",
    "pg_recipe": "recipe of the texture generator, such as pit",
    "san_overrides": 'fields of san_recipe to replace, such as "lr=1e-4 epochs=3"',
    "pg_overrides": "fields of pg_recipe to replace",
    "seed": "seed of every random choice",
    "precision": "arithmetic of training: auto (by the GPU), float32, tf32, bfloat16 or float16",
    "compiled": "whether to train through torch.compile, which needs a C compiler",
    "onnx": "whether to write the trained encoder as ONNX too",
    "tensorboard": "whether the trainings write event files for TensorBoard, beside their pages",
    "fuse": "person gives all images of a person one texture, fused by what each shows; or none",
    "verify": "how finished shards of textures are checked: none, size or sha256",
    "workers": 'who generates textures: ["0/2", "1/2"] is two workers side by side',
    "protocol": "how queries are judged; auto is as the data set asks, camera-free without cameras",
    "rerank": "whether to score re-ranked distances too",
    "mirrored": "whether test features are averaged with the mirrored images': auto (as the recipe "
    "says), true or false",
    "references": "whether to score an untrained encoder and a colour histogram too",
}

# What they are by default; one that is not here must be given.
_DEFAULT_VALUES: dict[str, Any] = {
    "destination": "",
    "checkpoint": "",
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

# Those of prepare_reid, which has a seed too; of textures, of training, of every graph.
DATA_PARAMETERS = (
    *("dataset", "source", "target", "target_source", "skip_bad"),
    *("difficulty", "identities", "image_height"),
)
TEXTURE_PARAMETERS = ("destination", "workers", "fuse", "verify")
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
        names: what the graph takes beside `COMMON_PARAMETERS`.
        defaults: where the graph has defaults of its own.
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
    """What `--param` sets, for the end of a help text."""
    width = max(map(len, PARAMETER_MEANINGS))
    rows = [f"  {name:{width}}  {meaning}" for name, meaning in PARAMETER_MEANINGS.items()]
    return "\n".join(["parameters of a whole pipeline; a graph takes those of its steps:", *rows])
