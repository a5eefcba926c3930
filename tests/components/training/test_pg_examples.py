"""Examples of held-out people on the page of train_san_pg."""

import numpy as np
import pytest

from components.training import pg_examples
from components.training.inputs import DecodedPairs
from san_core.synthesis.person.atlas import ATLAS_NAME


@pytest.mark.parametrize("atlas", [ATLAS_NAME, "another", None])
def test_only_textures_of_our_atlas_are_worn(monkeypatch, atlas):
    worn = []

    def wear(texture, size):
        worn.append(size)
        return [np.zeros((*size, 3), np.uint8)] * 2

    monkeypatch.setattr(pg_examples, "wear_texture", wear)
    pictures, textures = (np.zeros((2, 8, 8, 3), np.uint8) for _ in range(2))
    pairs = DecodedPairs(pictures, textures, np.arange(2), atlas, None)
    columns = pg_examples.held_out_examples(pairs, textures).columns
    is_ours = atlas == ATLAS_NAME
    assert len(worn) == (2 if is_ours else 0)
    assert ("on the body, front" in columns) == ("on the body, back" in columns) == is_ours
    assert [*columns][:3] == ["image", "true texture", "generated texture"]
