"""What synthetic sets cost, how whole the atlas is, and how hard people are to tell apart.

CPU time is user and system time of all processes; a rate per core is a count over it. The histogram
matcher sees 100 people once on each of 6 cameras: every image is a query among all the others, but
for those of the same person on the same camera.
"""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from san_core.evaluation import histogram
from san_core.evaluation.labels import Labels
from san_core.evaluation.ranking import rank
from san_core.images.pixels import Pixels, decode
from san_core.synthesis.camera.render import NO_UV, SAMPLES_PER_SIDE, View, frame_mesh
from san_core.synthesis.dataset import make_reid_identity
from san_core.synthesis.difficulty import DIFFICULTIES
from san_core.synthesis.kernels import _raster
from san_core.synthesis.person.atlas import TEXTURE_SIZE
from san_core.synthesis.person.body import current_body, pose_vertices
from san_core.synthesis.person.identity import sample_identity
from san_core.synthesis.person.pose import sample_pose
from san_core.synthesis.person.skirt import clothed_mesh
from san_core.synthesis.spec import ReidSpec
from san_core.synthesis.wardrobe.painter import paint_outfit
from tests.benchmarks.figure import Figure
from tests.benchmarks.measuring import StepCost, one_thread, run_step

SEED, PEOPLE_COUNT, CAMERA_COUNT = 0, 100, 6  # of the histogram matcher
MATCHER_IMAGE_SIZE = (256, 128)
FRAMES = 60


def figures() -> Iterator[Figure]:
    """All figures of the group."""
    with one_thread():
        yield from _atlas_figures()
        yield Figure("synthesis.raster_ms", _raster_ms(), "ms")
    yield from _histogram_figures()
    pit = _run_into_scratch("make_pit", "--pit", "--textures", "929", "--meshes", "10")
    yield Figure("synthesis.pit_set_seconds", pit.wall, "s")
    yield Figure("synthesis.pit_pairs_per_core_second", 9290 / pit.cpu, "1/s")
    street = _run_into_scratch(
        "make_pit", "--pit", "--textures", "300", "--meshes", "10", "--world", "street"
    )
    yield Figure("synthesis.street_pairs_per_core_second", 3000 / street.cpu, "1/s")
    reid = _run_into_scratch(
        "prepare_reid", "--reid", "--identities", "300", "--difficulty", "hard"
    )
    yield Figure("synthesis.reid_shots_per_core_second", 300 * 6 * 3 / reid.cpu, "1/s")


def _atlas_figures() -> Iterator[Figure]:
    """How much of the texture is covered by faces, and how many of these are flat or turned."""
    people = current_body()
    face = np.full((TEXTURE_SIZE, TEXTURE_SIZE), -1, np.int32)
    _raster.bake(
        people.uv, people.uv_faces, face, np.zeros((TEXTURE_SIZE, TEXTURE_SIZE, 3), np.float32)
    )
    yield Figure("synthesis.atlas_coverage", float((face >= 0).mean()), "fraction")
    a, b, c = np.moveaxis(people.uv[people.uv_faces], 1, 0)
    area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    wrong = min((area <= 0).sum(), (area >= 0).sum())
    yield Figure("synthesis.atlas_flipped_faces", float(wrong / len(area)), "fraction")


def _raster_ms() -> float:
    """Drawing a dressed body at 512x256 samples, the least of many: others only add to it."""
    rng = np.random.default_rng(0)
    outfit = paint_outfit(sample_identity(rng, DIFFICULTIES["easy"]))
    shape = current_body().shapes[0]
    pose = sample_pose(rng, current_body().joints)
    vertices = pose_vertices(shape, pose.rotations, thickness=outfit.thickness, hang=outfit.hang)
    view = View(azimuth=0.5, elevation=0.15, distance=6.0, fill=0.95)
    framed = frame_mesh(clothed_mesh(vertices, outfit.skirt), view, MATCHER_IMAGE_SIZE)
    mesh, light = framed.mesh, np.ones_like(framed.mesh.vertices)
    points = framed.screen * np.array([SAMPLES_PER_SIDE, SAMPLES_PER_SIDE, 1], np.float32)
    seconds = []
    for _ in range(FRAMES):
        rgba = np.zeros(
            (MATCHER_IMAGE_SIZE[0] * SAMPLES_PER_SIDE, MATCHER_IMAGE_SIZE[1] * SAMPLES_PER_SIDE, 4),
            np.uint8,
        )
        near = np.zeros(rgba.shape[:2], np.float32)
        corners = (points, light, mesh.uv, mesh.faces, mesh.uv_faces)
        started = time.perf_counter()
        _raster.rasterise(*corners, outfit.texture, rgba, near, NO_UV)
        seconds.append(time.perf_counter() - started)
    return 1000 * min(seconds)


def _histogram_figures() -> Iterator[Figure]:
    """The mAP of a colour histogram at each level, and at `hard` as a perfect sensor sees it."""
    for name in DIFFICULTIES:
        yield Figure(f"synthesis.histogram_map_{name}", _histogram_map(name), "fraction")
    clear = replace(DIFFICULTIES["hard"], blur=0.0, low_resolution=1.0, occlusion=0.0)
    with patch.dict(DIFFICULTIES, {"clear": clear}):
        yield Figure("synthesis.histogram_map_hard_sharp", _histogram_map("clear"), "fraction")


def _histogram_map(level: str) -> float:
    seen = matcher_set(level)
    return mean_average_precision(histogram.histogram_features(seen.images), seen.labels)


class MatcherSet(NamedTuple):
    """What every matcher is asked to tell apart."""

    images: list[Pixels]  # (H, W, 3)
    labels: Labels


def matcher_set(level: str) -> MatcherSet:
    """The 100 people at a level of difficulty."""
    spec = ReidSpec(
        seed=SEED,
        train_identities=0,
        test_identities=PEOPLE_COUNT,
        cameras=CAMERA_COUNT,
        shots=1,
        image_size=MATCHER_IMAGE_SIZE,
        difficulty=level,
    )
    shots = [shot for pid in range(PEOPLE_COUNT) for shot in make_reid_identity(spec, pid).shots]
    labels = Labels(
        np.array([shot.pid for shot in shots]), np.array([shot.camid for shot in shots])
    )
    return MatcherSet([decode(shot.data) for shot in shots], labels)


def mean_average_precision(features: NDArray[np.float32], labels: Labels) -> float:
    """Of every image among all the others, by the cosine of their features (N, D)."""
    return rank(features, features, query=labels, gallery=labels, metric="cosine").mAP


def _run_into_scratch(step: str, output: str, *words: str) -> StepCost:
    with tempfile.TemporaryDirectory() as folder:
        return run_step(step, output, str(Path(folder, "out")), *words)
