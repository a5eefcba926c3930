import math

import pytest
import torch

from san_core.data.batches.dense import DenseTargets
from san_core.model.copying import Copied
from san_core.training import places

SIDE, TEXELS, ROWS, COLUMNS = 4, 8, 8, 4  # queries and texels a side; the picture's rows, columns
CELLS = (4, 2)


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def copied(batch=2):
    return Copied(
        texture=torch.zeros(batch, 3, TEXELS, TEXELS),
        attended=torch.zeros(batch, 3, SIDE, SIDE),
        regressed=torch.zeros(batch, 3, SIDE, SIDE),
        weights=noise(batch, SIDE * SIDE, CELLS[0] * CELLS[1]).softmax(dim=2),
        places=noise(batch, 2, TEXELS, TEXELS),
        seen=noise(batch, 1, SIDE, SIDE),
        person=noise(batch, 1, *CELLS),
    )


def targets(batch=2):
    generator = torch.Generator().manual_seed(4)
    return DenseTargets(
        texels=torch.randint(0, 256 * 256, (batch, ROWS, COLUMNS), generator=generator),
        covered=torch.rand(batch, ROWS, COLUMNS, generator=generator),
        keep=torch.ones(batch, dtype=torch.bool),
    )


def cross_entropy(logit, target):
    share = 1 / (1 + math.exp(-logit))
    return -(target * math.log(share) + (1 - target) * math.log(1 - share))


def slow_error(made, dense, i):
    """The error of sample i, pixel by pixel."""
    attention, place, pixels, asked = 0.0, 0.0, 0, set()
    covered = torch.zeros(CELLS)
    for row in range(ROWS):
        for column in range(COLUMNS):
            cell = (row // 2, column // 2)
            covered[cell] += float(dense.covered[i, row, column]) / 4
            if dense.covered[i, row, column] < places.COVERED:
                continue
            v, u = divmod(int(dense.texels[i, row, column]), 256)
            query, pixels = (v // 64) * SIDE + u // 64, pixels + 1
            asked.add(query)
            paid = made.weights[i, query, cell[0] * CELLS[1] + cell[1]]
            attention -= math.log(float(paid) + 1e-6)
            x, y = made.places[i, :, v // 32, u // 32].tolist()
            off = abs(x - ((column + 0.5) / 2 - 1)) * COLUMNS / ROWS + abs(
                y - ((row + 0.5) / 4 - 1)
            )
            place += off
    seen = [
        cross_entropy(logit, float(query in asked))
        for query, logit in enumerate(made.seen[i].flatten().tolist())
    ]
    person = map(cross_entropy, made.person[i].flatten().tolist(), covered.flatten().tolist())
    return (
        places.ATTENTION * attention / pixels
        + places.PLACE * place / pixels
        + places.SEEN * sum(seen) / len(seen)
        + places.PERSON * sum(person) / (CELLS[0] * CELLS[1])
    )


def test_errors_are_those_of_every_pixel_taken_by_itself():
    made, dense = copied(), targets()
    expected = [slow_error(made, dense, i) for i in range(2)]
    assert places.place_errors(made, dense).tolist() == pytest.approx(expected, rel=1e-5)


def test_a_picture_without_a_person_trains_only_the_masks():
    made, dense = copied(1), targets(1)._replace(covered=torch.zeros(1, ROWS, COLUMNS))
    expected = places.SEEN * sum(cross_entropy(v, 0) for v in made.seen.flatten().tolist()) / 16
    expected += places.PERSON * sum(cross_entropy(v, 0) for v in made.person.flatten().tolist()) / 8
    assert places.place_errors(made, dense).item() == pytest.approx(expected, rel=1e-5)
