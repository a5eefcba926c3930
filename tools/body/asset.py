"""The file: shapes as principal components, bones and weights, faces and atlas."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tools.body.charts import CHART_NAMES, ChartedMesh
from tools.body.layout import Layout
from tools.body.people import Array, People

COMPONENTS = 12
BONES = (  # those that the synthesiser poses; others move with the nearest of these above them
    *("root", "spine04", "spine02", "spine01", "neck01", "head"),
    *("clavicle.L", "upperarm01.L", "lowerarm01.L", "wrist.L"),
    *("clavicle.R", "upperarm01.R", "lowerarm01.R", "wrist.R"),
    *("upperleg01.L", "lowerleg01.L", "foot.L", "upperleg01.R", "lowerleg01.R", "foot.R"),
)


def write_asset(
    path: Path, people: People, cut: ChartedMesh, laid: Layout, atlas: str
) -> dict[str, float]:
    """Write the asset; returns what to look at: errors in millimetres and shares of faces."""
    source = cut.mesh.source
    shapes = np.stack([source @ person for person in people.vertices])  # (S, V, 3)
    joints = people.heads[:, [people.bones.index(bone) for bone in BONES]]
    parts = _principal_components(np.concatenate([_flatten(shapes), _flatten(joints)], axis=1))
    mean, components, coefficients = parts
    size = shapes.shape[1] * 3
    bones, weights = _vertex_weights(people, source)
    np.savez_compressed(
        path,
        atlas=np.array(atlas),
        mean=mean[:size].reshape(-1, 3).astype(np.float32),
        comp=components[:, :size].reshape(COMPONENTS, -1, 3).astype(np.float16),
        jmean=mean[size:].reshape(-1, 3).astype(np.float32),
        jcomp=components[:, size:].reshape(COMPONENTS, -1, 3).astype(np.float32),
        names=np.array(BONES),
        parents=np.array([_parent_index(people, bone) for bone in BONES], np.int8),
        wi=bones.astype(np.uint8),
        ww=weights.astype(np.float16),
        F=cut.mesh.faces.astype(np.uint16),
        UV=laid.uv.astype(np.float32),
        FU=laid.faces.astype(np.uint16),
        chart=cut.chart.astype(np.uint8),
        charts=np.array(CHART_NAMES),
        coefs=coefficients.astype(np.float16),
        ph=people.phenotypes.astype(np.float16),
    )
    rebuilt = (mean + coefficients @ components)[:, :size].reshape(shapes.shape)
    error = 1000 * np.linalg.norm(rebuilt - shapes, axis=2)
    return {
        "vertices": float(shapes.shape[1]),
        "faces": float(len(cut.mesh.faces)),
        "mean error of a shape, mm": float(error.mean()),
        "largest error of a shape, mm": float(error.max()),
        "share of faces flat or turned over": _flipped_share(laid),
    }


def _flatten(values: Array) -> Array:
    return values.reshape(len(values), -1)


def _principal_components(people: Array) -> tuple[Array, Array, Array]:
    """Mean, components (K, n) and coefficients (S, K) of unit variance."""
    mean = people.mean(axis=0)
    centred = people - mean
    strength, directions = np.linalg.eigh(centred @ centred.T)
    strength, directions = strength[::-1][:COMPONENTS], directions[:, ::-1][:, :COMPONENTS]
    components = (directions.T @ centred) / np.sqrt(strength)[:, None]
    coefficients = centred @ components.T
    spread = coefficients.std(axis=0)
    return mean, components * spread[:, None], coefficients / spread


def _vertex_weights(people: People, source: object) -> tuple[NDArray[np.int64], Array]:
    """The four bones that move each vertex most, (V, 4), and their weights, (V, 4)."""
    owner = np.array(
        [BONES.index(_nearest_kept_bone(people, number)) for number in range(len(people.bones))]
    )
    full = np.zeros((len(people.template), len(BONES)))
    rows = np.arange(len(full))
    for column in range(people.weights.shape[1]):
        of_bone = owner[people.weight_bones[:, column]]
        np.add.at(full, (rows, of_bone), people.weights[:, column])
    full = source @ full  # type: ignore[operator]
    most = np.argsort(-full, axis=1, kind="stable")[:, :4]
    weights = np.take_along_axis(full, most, axis=1)
    return most, weights / weights.sum(axis=1, keepdims=True)


def _nearest_kept_bone(people: People, number: int) -> str:
    """The nearest bone above, or the bone itself, that is among BONES."""
    while people.bones[number] not in BONES:
        number = people.parents[number]
    return people.bones[number]


def _parent_index(people: People, bone: str) -> int:
    above = people.parents[people.bones.index(bone)]
    return -1 if above < 0 else BONES.index(_nearest_kept_bone(people, above))


def _flipped_share(laid: Layout) -> float:
    a, b, c = np.moveaxis(laid.uv[laid.faces], 1, 0)
    area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    return float(min((area <= 0).mean(), (area >= 0).mean()))
