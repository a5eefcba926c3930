"""Python code of the documents, run as it stands there."""

import sys
from types import ModuleType

import numpy as np
from PIL import Image

from components.command.code import ROOT
from san_core.inference.crops import load_encoder
from san_core.model.weights import save_network
from tests.documents.markdown import python_blocks
from tests.san_core.training.tiny_run import tiny_model, tiny_recipe


def opencv() -> ModuleType:
    """What the code uses of OpenCV, which is no dependency: `imread` gives blue, green, red."""
    cv2 = ModuleType("cv2")
    cv2.imread = lambda file: np.asarray(Image.open(file).convert("RGB"))[:, :, ::-1]
    return cv2


def test_code_for_trackers_finds_the_same_people_in_the_gallery(monkeypatch, tmp_path):
    (code,) = (
        block for block in python_blocks(ROOT / "components/README.md") if "import cv2" in block
    )
    monkeypatch.setitem(sys.modules, "cv2", opencv())
    monkeypatch.chdir(tmp_path)
    recipe = tiny_recipe("demo-baseline")
    save_network(tmp_path / "work" / "model", tiny_model(recipe), recipe, facts={})
    colours = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    Image.fromarray(colours.repeat(10, axis=0).repeat(10, axis=1)).save("frame.jpg")
    frame = np.asarray(Image.open("frame.jpg"))  # red, green, blue
    boxes = [(0, 0, 40, 80), (50, 10, 30, 70), (100, 20, 60, 100)]  # x, y, width, height
    expected = load_encoder("work/model").embed_crops(
        [frame[0:80, 0:40], frame[10:80, 50:80], frame[20:120, 100:160]]
    )
    names = {"boxes": boxes, "gallery": expected[[1, 2, 0]]}
    exec(code, names)
    np.testing.assert_array_equal(names["features"], expected)
    assert names["nearest"].tolist() == [2, 0, 1]
