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


@pytest.fixture
def changes_with(monkeypatch):
    """Whether the key of features, by torch or from ONNX, changes if a module is edited."""

    def changes(module: str, *, is_onnx: bool) -> bool:
        before, edited = embedding_code(is_onnx=is_onnx), ROOT / f"{module.replace('.', '/')}.py"
        assert edited.is_file()
        assert embedding_code(is_onnx=is_onnx) == before
        read = Path.read_bytes
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_bytes", lambda f: read(f) + b"# x\n" * (f == edited))
            return embedding_code(is_onnx=is_onnx) != before

    return changes


@pytest.mark.parametrize(
    ("module", "by_torch", "from_onnx"),
    [
        ("components.inference.embedding", True, True),
        ("san_core.images.pixels", True, True),
        ("san_core.inference.features", True, False),
        ("san_core.model.encoder", True, False),
        ("san_core.model.trunks.resnet", True, False),
        ("san_core.inference.onnx_network", False, True),
        ("san_core.model.onnx_file", True, True),  # a saved model reads its description by it
        ("components.process.progress", False, False),
        ("components.process.torchrun", False, False),
        ("components.process.limits", False, False),
        ("san_core.images.sheet", False, False),
        ("san_core.disk", False, False),
    ],
)
def test_features_are_kept_unless_code_that_makes_them_is_edited(
    changes_with, module, by_torch, from_onnx
):
    assert changes_with(module, is_onnx=False) == by_torch
    assert changes_with(module, is_onnx=True) == from_onnx


@pytest.mark.parametrize(
    ("library", "by_torch", "from_onnx"),
    [("PIL", True, True), ("torch", True, False), ("onnxruntime", False, True)],
)
def test_features_of_another_version_of_a_library_are_not_reused(
    monkeypatch, library, by_torch, from_onnx
):
    before = [embedding_code(is_onnx=is_onnx) for is_onnx in (False, True)]
    monkeypatch.setattr(f"{library}.__version__", "0")
    after = [embedding_code(is_onnx=is_onnx) for is_onnx in (False, True)]
    assert [one != other for one, other in zip(before, after, strict=True)] == [by_torch, from_onnx]


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
