"""Features that are kept beside a gallery, where several searches need them."""

import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from components.command.code import ROOT
from components.command.search import embedding_code
from components.inference import kept
from components.inference.pictures import Pictures

PICTURES = Pictures(["a.png", "b.png"], "1", lambda _: [])
NETWORK = SimpleNamespace(recipe=SimpleNamespace(metric="cosine"))


@pytest.fixture
def features_in(tmp_path):
    """The features of two pictures, kept in a folder."""

    def features(code: str = "1") -> kept.KeptFeatures:
        return kept.gallery_features(
            PICTURES, NETWORK, "m", code=[code], mirrored=False, under=tmp_path
        )

    return features


def test_of_two_searches_at_once_one_embeds_and_the_other_waits(features_in, monkeypatch):
    embedded, found = [], []
    other = threading.Thread(target=lambda: found.append(features_in()))

    def embed(*_, **__):
        embedded.append(1)
        if len(embedded) == 1:
            other.start()
            other.join(timeout=0.2)  # it waits, so this gives it the time to do harm
        yield np.arange(6, dtype=np.float32).reshape(2, 3)

    monkeypatch.setattr(kept, "embed_pictures", embed)
    found.append(features_in())
    other.join()
    assert len(embedded) == 1
    assert [one.is_reused for one in found] in ([False, True], [True, False])
    assert all(np.array_equal(one.features, [[0, 1, 2], [3, 4, 5]]) for one in found)


def test_features_that_other_code_made_are_not_reused(features_in, monkeypatch):
    matrix = np.ones((2, 3), np.float32)
    monkeypatch.setattr(kept, "embed_pictures", lambda *_, **__: iter([matrix]))
    found = [features_in(code).is_reused for code in ("1", "1", "2", "1")]
    assert found == [False, True, False, True]


@pytest.mark.parametrize(
    "module", ["san_core.images.pixels", "san_core.inference.features", "san_core.model.encoder"]
)
def test_code_that_embeds_is_told_from_edited_code(monkeypatch, module):
    before, edited = embedding_code(), ROOT / f"{module.replace('.', '/')}.py"
    assert embedding_code() == before
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda file: read(file) + b"# x\n" * (file == edited))
    assert embedding_code() != before


@pytest.mark.parametrize("lost", ["features.npy", "features.json"])
def test_features_that_are_not_whole_are_made_again(features_in, monkeypatch, caplog, lost):
    matrix = np.ones((2, 3), np.float32)
    monkeypatch.setattr(kept, "embed_pictures", lambda *_, **__: iter([matrix]))
    first = features_in()
    (first.folder / lost).unlink()
    again = features_in()
    assert not again.is_reused
    assert np.array_equal(again.features, matrix)
    warned = f"features in {first.folder} are damaged and are computed again: a file is missing"
    assert (warned in caplog.text) == (lost == "features.npy")
    assert "extract_features" not in caplog.text
    assert features_in().is_reused
