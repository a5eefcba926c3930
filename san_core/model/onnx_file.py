"""An ONNX file of a network as it is read: what it says of itself, and a session that runs it.

Needs onnxruntime, and no torch. `onnx` writes such files.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import onnxruntime

# What goes in: pixels, uint8 (N, H, W, 3) RGB; or normalised images, float32 (N, 3, H, W) RGB.
PIXEL_LAYOUT, IMAGE_LAYOUT = "nhwc-uint8", "nchw-float"
LAYOUTS = (PIXEL_LAYOUT, IMAGE_LAYOUT)
# The metadata that holds what recipe.json does, and the sha256 of the weights.
DESCRIPTION, WEIGHTS_SHA256 = "description", "sha256"


class OnnxFile(NamedTuple):
    """A network that onnxruntime runs.

    Attributes:
        description: what recipe.json says of the model it was made of.
        weights_sha256: the fingerprint of that model.
        layout: what goes in, one of LAYOUTS.
        metadata: all that the file tells of itself.
        session: runs it.
    """

    description: str
    weights_sha256: str
    layout: str
    metadata: dict[str, str]
    session: "onnxruntime.InferenceSession"

    def run(self, images: Any) -> Any:
        """What it makes of a batch in its layout."""
        (made,) = self.session.run(None, {self.session.get_inputs()[0].name: images})
        return made


def open_onnx(path: Path, *, threads: int = 0) -> OnnxFile:
    """The network in an ONNX file, ready to run on the processor.

    threads: cores to use; 0 for all of the machine.

    Raises:
        ModuleNotFoundError: onnxruntime is not installed.
        ValueError: the file is damaged, or does not tell what it is of.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors, which are raised too
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of classes of its own, which it does not export
        raise ValueError(f"{path} is damaged, or no ONNX file: {error}") from error
    metadata = dict(session.get_modelmeta().custom_metadata_map)
    missing = [key for key in (DESCRIPTION, WEIGHTS_SHA256, "layout") if key not in metadata]
    if missing or metadata["layout"] not in LAYOUTS:
        raise ValueError(
            f"{path} does not tell {', '.join(missing) or 'a known layout'}, as files do that"
            " `python -m components export --model PLACE --onnx FILE` writes; export it again"
        )
    return OnnxFile(
        metadata[DESCRIPTION], metadata[WEIGHTS_SHA256], metadata["layout"], metadata, session
    )
