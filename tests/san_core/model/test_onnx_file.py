"""Metadata of an ONNX file, against the library of the format."""

import onnx
import pytest
from onnx import TensorProto, helper

from san_core.model.onnx_file import read_metadata


@pytest.fixture
def saved(tmp_path):
    """A file with metadata, and its path."""

    def write(metadata):
        value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
        node = helper.make_node("Identity", ["x"], ["y"])
        out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
        model = helper.make_model(helper.make_graph([node], "g", [value], [out]))
        helper.set_model_props(model, metadata)
        onnx.save(model, tmp_path / "x.onnx")
        return tmp_path / "x.onnx"

    return write


TOLD = {"description": "ä" * 300, "sha256": "", "layout": "nchw-float"}


def test_metadata_is_read_as_the_library_reads_it(saved):
    file = saved(TOLD)
    library = {one.key: one.value for one in onnx.load(file).metadata_props}
    assert read_metadata(file) == library == TOLD


def test_every_truncated_file_is_damaged_or_incomplete(saved):
    file = saved(TOLD)
    data = file.read_bytes()
    for size in range(0, len(data) - 1, 7):
        file.write_bytes(data[:size])
        with pytest.raises(ValueError, match=r"x\.onnx (is damaged|does not record)"):
            read_metadata(file)


def test_a_file_with_incomplete_metadata_is_named(saved):
    with pytest.raises(ValueError, match=r"does not record description, sha256, unlike files that"):
        read_metadata(saved({"layout": "nchw-float"}))
    with pytest.raises(ValueError, match="does not record a known layout"):
        read_metadata(saved({**TOLD, "layout": "nhwc-float"}))
