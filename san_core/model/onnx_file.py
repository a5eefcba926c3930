"""Reading a network's ONNX file: its metadata, and a session that runs it.

Running it needs onnxruntime and no torch; reading its metadata needs neither. `onnx` writes such
files.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import onnxruntime

# The kinds of input: pixels, uint8 (N, H, W, 3) RGB; or normalised images, float32 (N, 3, H, W)
# RGB.
PIXEL_LAYOUT, IMAGE_LAYOUT = "nhwc-uint8", "nchw-float"
LAYOUTS = (PIXEL_LAYOUT, IMAGE_LAYOUT)
# The metadata that holds what recipe.json does, and the sha256 of the weights.
DESCRIPTION, WEIGHTS_SHA256 = "description", "sha256"

# Of the wire format of protocol buffers (protobuf.dev/programming-guides/encoding), and of ONNX's
# messages (onnx.proto): ModelProto.metadata_props, with a key and a value each.
_METADATA_FIELD, _KEY_FIELD, _VALUE_FIELD = 14, 1, 2
_FIXED_SIZES = {1: 8, 5: 4}
_MOST_METADATA_BYTES = 1 << 28


class OnnxFile(NamedTuple):
    """A network that onnxruntime runs.

    Attributes:
        metadata: the file's metadata, with DESCRIPTION and WEIGHTS_SHA256.
        session: runs it.
    """

    metadata: dict[str, str]
    session: "onnxruntime.InferenceSession"

    def run(self, images: Any) -> Any:
        """The output for a batch in its layout."""
        (made,) = self.session.run(None, {self.session.get_inputs()[0].name: images})
        return made


def open_onnx(path: Path, *, threads: int = 0) -> OnnxFile:
    """The network in an ONNX file, ready to run on the processor.

    threads: cores to use; 0 for all of the machine.

    Raises:
        ModuleNotFoundError: onnxruntime is not installed.
        ValueError: the file is damaged, or lacks its metadata.
    """
    import onnxruntime

    metadata = read_metadata(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors, which are raised too
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of classes of its own, which it does not export
        raise ValueError(f"{path} is damaged, or no ONNX file: {error}") from error
    return OnnxFile(metadata, session)


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of an ONNX file that `python -m components export` wrote.

    Raises:
        ValueError: the file is damaged, or lacks its metadata.
    """
    try:
        with path.open("rb") as file:
            metadata = dict(_metadata_entries(file))
    except (EOFError, UnicodeDecodeError, OverflowError, MemoryError) as error:
        raise ValueError(f"{path} is damaged, or no ONNX file") from error
    missing = [key for key in (DESCRIPTION, WEIGHTS_SHA256, "layout") if key not in metadata]
    if missing or metadata["layout"] not in LAYOUTS:
        raise ValueError(
            f"{path} does not record {', '.join(missing) or 'a known layout'}, unlike files that"
            " `python -m components export --model PLACE --onnx FILE` writes; export it again"
        )
    return metadata


def _metadata_entries(file: IO[bytes]) -> Iterator[tuple[str, str]]:
    """Every key and value of a model's metadata; the graph is skipped."""
    while (head := _varint(file, may_end=True)) is not None:
        field, kind = head >> 3, head & 7
        if kind == 0:
            _varint(file)
        elif kind in _FIXED_SIZES:
            file.seek(_FIXED_SIZES[kind], 1)
        elif kind != 2:
            raise EOFError
        elif field == _METADATA_FIELD:
            yield _entry(file)
        else:
            file.seek(_varint(file) or 0, 1)


def _entry(file: IO[bytes]) -> tuple[str, str]:
    """A key and its value; either may be left out where it is empty."""
    end = (_varint(file) or 0) + file.tell()
    found = {_KEY_FIELD: "", _VALUE_FIELD: ""}
    while file.tell() < end:
        head = _varint(file) or 0
        size = _varint(file) or 0
        if head & 7 != 2 or size > _MOST_METADATA_BYTES:
            raise EOFError
        data = file.read(size)
        if len(data) < size:
            raise EOFError
        found[head >> 3] = data.decode()
    return found[_KEY_FIELD], found[_VALUE_FIELD]


def _varint(file: IO[bytes], *, may_end: bool = False) -> int | None:
    """A number in groups of 7 bits, the lowest first; None at the end of the file, if it may be."""
    number, shift = 0, 0
    while byte := file.read(1):
        number |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:
            return number
        if shift > 63:
            break
    if may_end and shift == 0:
        return None
    raise EOFError
