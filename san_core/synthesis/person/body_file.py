"""A body as data: the arrays of a person in one npz file.

Write these arrays to use another body and another texture layout, such as SMPL's if you have a
licence. No change of code is needed. Pose and wardrobe refer to bones and charts by name, so all of
BONES and CHARTS must exist. They use metres, so the person must have human size. At rest it stands
with its arms out and down, and its origin is near the pelvis. The mean person must be nearly
symmetric about x = 0, because `atlas.mirror_index` swaps its sides.

    key     shape        meaning
    atlas   ()           name of the layout; textures of different layouts cannot be mixed
    mean    (V, 3)       rest positions of the mean person
    comp    (K, V, 3)    principal components of shape, for coefficients of unit variance
    jmean   (B, 3)       joints where the mean person's bones begin
    jcomp   (K, B, 3)    the components for these
    names   (B,)         names of the bones, a parent before its children
    parents (B,)         index of each bone's parent, -1 for the root
    wi, ww  (V, 4)       the bones that move a vertex, and their weights
    F       (F, 3)       faces, with outward normals
    UV      (U, 2)       column and row in texel centres of a 256x256 texture
    FU      (F, 3)       the faces as UV vertices
    chart   (F,)         the chart of a face
    charts  (12,)        names of the charts
    coefs   (S, K)       shapes of people to sample from
    ph      (S, 2..)     their sex (above 0.5: female) and age (above 0.6: adult)

The charts of the legs must fill upright rectangles with the hip at the top, because skirts use
them. Other charts may have any outline. Texels that no face covers get the nearest covered texel.

Legend: V vertices, U UV vertices, F faces, B bones, K shape components, S sampled shapes.
"""

import hashlib
import io
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

TEXTURE_SIZE = 256  # texels on a side of the painted texture
_SPINE = ("root", "spine04", "spine02", "spine01", "neck01", "head")
_LIMBS = ("clavicle", "upperarm01", "lowerarm01", "wrist", "upperleg01", "lowerleg01", "foot")
BONES = frozenset(_SPINE) | {f"{bone}.{side}" for bone in _LIMBS for side in "LR"}
_TRUNK_CHARTS = ("torso_front", "torso_back", "head_front", "head_back")
_LIMB_CHARTS = ("arm", "hand", "leg", "foot")
CHARTS = frozenset(_TRUNK_CHARTS) | {f"{chart}.{side}" for chart in _LIMB_CHARTS for side in "LR"}
_SHAPES = {
    "mean": "V 3",
    "comp": "K V 3",
    "jmean": "B 3",
    "jcomp": "K B 3",
    "names": "B",
    "parents": "B",
    "wi": "V 4",
    "ww": "V 4",
    "F": "F 3",
    "UV": "U 2",
    "FU": "F 3",
    "chart": "F",
    "charts": "C",
    "coefs": "S K",
    "ph": "S *",
    "atlas": "",
}
_TEXT_KEYS, _INTEGER_KEYS = ("names", "charts", "atlas"), ("parents", "wi", "F", "FU", "chart")
_HEIGHT_RANGE = (1.2, 2.5)  # metres of the mean person, shortest and tallest
_Arrays = dict[str, NDArray[Any]]
_MOST_BYTES = 256 << 20  # of all arrays; those of the body that ships have 6 MB
_READ_ERRORS = (
    *(ValueError, TypeError, OSError, EOFError, NotImplementedError, RuntimeError, MemoryError),
    *(SyntaxError, zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)


@dataclass(frozen=True, eq=False)
class Body:
    """The arrays of a body, read-only."""

    atlas: str  # the name of the layout
    sha256: str  # of the file
    mean: Floats  # (V, 3) rest positions of the mean person
    components: Floats  # (K, V, 3), scaled so that coefficients have unit variance
    joints: Floats  # (B, 3)
    joint_components: Floats  # (K, B, 3)
    bones: tuple[str, ...]  # B names, a parent before its children
    parents: tuple[int, ...]  # -1 for the root
    weight_bones: Ints  # (V, 4)
    weights: Floats  # (V, 4), rows sum to 1
    faces: Ints  # (F, 3), wound so that normals point outwards
    uv: Floats  # (U, 2) column and row in texel centres of a 256x256 texture
    uv_faces: Ints  # (F, 3)
    face_chart: NDArray[np.intp]  # (F,) index into charts
    charts: tuple[str, ...]
    shapes: Floats  # (S, K) coefficients of sampled people
    female: NDArray[np.bool_]  # (S,)
    adult: NDArray[np.bool_]  # (S,)

    def bone(self, name: str) -> int:
        """The index of a bone."""
        return self.bones.index(name)

    def joint(self, name: str) -> Floats:
        """The joint (3,) where a bone of the mean person begins."""
        joint: Floats = self.joints[self.bone(name)]
        return joint


def read_body(file: IO[bytes], *, name: str) -> Body:
    """The body of an npz file.

    Args:
        file: the file, open for reading bytes.
        name: its name in errors.

    Raises:
        ValueError: it is not an npz file, or not a body that can be dressed and posed.
    """
    data = file.read(_MOST_BYTES + 1)
    arrays = _load_arrays(data, name)
    _check_shapes(arrays, name)
    _check_values(arrays, name)
    _check_content(arrays, name)
    _check_person(arrays, name)
    weights = arrays["ww"].astype(np.float32)
    return Body(
        atlas=str(arrays["atlas"]),
        sha256=hashlib.sha256(data).hexdigest(),
        mean=_read_only_copy(arrays["mean"], np.float32),
        components=_read_only_copy(arrays["comp"], np.float32),
        joints=_read_only_copy(arrays["jmean"], np.float32),
        joint_components=_read_only_copy(arrays["jcomp"], np.float32),
        bones=tuple(str(bone) for bone in arrays["names"]),
        parents=tuple(int(parent) for parent in arrays["parents"]),
        weight_bones=_read_only_copy(arrays["wi"], np.int32),
        weights=_read_only_copy(weights / weights.sum(axis=1, keepdims=True), np.float32),
        faces=_read_only_copy(arrays["F"], np.int32),
        uv=_read_only_copy(arrays["UV"], np.float32),
        uv_faces=_read_only_copy(arrays["FU"], np.int32),
        face_chart=_read_only_copy(arrays["chart"], np.intp),
        charts=tuple(str(chart) for chart in arrays["charts"]),
        shapes=_read_only_copy(arrays["coefs"], np.float32),
        female=_read_only_copy(arrays["ph"][:, 0] > 0.5, np.bool_),
        adult=_read_only_copy(arrays["ph"][:, 1] > 0.6, np.bool_),
    )


def _load_arrays(data: bytes, name: str) -> _Arrays:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            size = sum(info.file_size for info in packed.infolist())
        if max(size, len(data)) > _MOST_BYTES:
            raise ValueError(f"{size:,} bytes are packed in it; at most {_MOST_BYTES:,} are read")
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = dict(archive)
    except _READ_ERRORS as error:
        # numpy advises to allow pickles, which run what they hold.
        told = "it holds Python objects" if "pickle" in str(error) else error
        raise ValueError(f"{name} is not an npz file with a body: {told}") from error
    if missing := sorted(set(_SHAPES) - set(arrays)):
        raise ValueError(f"{name}: array {missing[0]!r} is missing")
    return arrays


def _check_shapes(arrays: _Arrays, name: str) -> None:
    """Check the shapes: each letter of _SHAPES must have one value, and each number must match."""
    sizes: dict[str, int] = {"C": len(CHARTS)}
    for key, text in _SHAPES.items():
        shape, letters = arrays[key].shape, text.split()
        expected = [
            int(letter) if letter.isdecimal() else sizes.setdefault(letter, size)
            for letter, size in zip(letters, shape, strict=False)
        ]
        free = [letter == "*" for letter in letters]
        agrees = len(shape) == len(letters) and all(
            any_ or size == want for any_, size, want in zip(free, shape, expected, strict=True)
        )
        if not agrees:
            raise ValueError(
                f"{name}: array {key!r} has the shape {shape}; expected ({', '.join(letters)})"
                + "".join(f", {x} = {sizes[x]}" for x in letters if x in sizes)
            )


def _check_values(arrays: _Arrays, name: str) -> None:
    """Check the types of the arrays, and that all numbers are finite and valid."""
    for key in _SHAPES:
        array, wanted = arrays[key], "numbers"
        if key in _TEXT_KEYS:
            agrees, wanted = array.dtype.kind == "U", "text"
        elif key in _INTEGER_KEYS:
            agrees, wanted = array.dtype.kind in "iu", "whole numbers"
        else:
            agrees = array.dtype.kind in "fiu"
        if not agrees:
            raise ValueError(f"{name}: array {key!r} is {array.dtype}; it must hold {wanted}")
        if not array.size:
            raise ValueError(f"{name}: array {key!r} is empty")
        if key not in _TEXT_KEYS and not np.isfinite(array).all():
            raise ValueError(f"{name}: array {key!r} has values that are not finite")


def _check_content(arrays: _Arrays, name: str) -> None:
    for key, wanted in (("names", BONES), ("charts", CHARTS)):
        found = {str(word) for word in arrays[key]}
        if missing := sorted(wanted - found):
            raise ValueError(f"{name}: {key!r} lacks {', '.join(missing)}")
        if unknown := sorted(found - wanted):
            raise ValueError(f"{name}: {key!r} has {', '.join(unknown)}, which is unknown")
    parents = arrays["parents"].astype(int)
    if (parents >= np.arange(len(parents))).any() or (parents[1:] < 0).any():
        raise ValueError(f"{name}: in 'parents' a bone comes before its parent")
    limits = {"F": len(arrays["mean"]), "FU": len(arrays["UV"]), "wi": len(parents), "chart": 12}
    for key, limit in limits.items():
        if arrays[key].min() < 0 or arrays[key].max() >= limit:
            raise ValueError(f"{name}: {key!r} has indices outside 0 to {limit - 1}")
    if arrays["UV"].min() < -0.5 or arrays["UV"].max() > TEXTURE_SIZE - 0.5:
        raise ValueError(
            f"{name}: 'UV' lies outside the {TEXTURE_SIZE}x{TEXTURE_SIZE} texels of a texture"
        )
    if (arrays["ww"].astype(np.float32).sum(axis=1) <= 0).any():
        raise ValueError(f"{name}: 'ww' leaves vertices without a bone")
    if arrays["ph"].shape[1] < 2:
        raise ValueError(f"{name}: 'ph' must have two columns, sex and age")
    adult, female = arrays["ph"][:, 1] > 0.6, arrays["ph"][:, 0] > 0.5
    if not ((adult & female).any() and (adult & ~female).any()):
        raise ValueError(f"{name}: 'ph' must have adults of both sexes")


def _check_person(arrays: _Arrays, name: str) -> None:
    """Check that the mean person stands upright, in metres, about the pelvis, normals outwards."""
    mean = arrays["mean"].astype(np.float64)
    low, high = mean[:, 2].min(), mean[:, 2].max()
    if not _HEIGHT_RANGE[0] <= high - low <= _HEIGHT_RANGE[1]:
        raise ValueError(
            f"{name}: the mean person is {high - low:.3g} high along z, the third axis; it must "
            f"be {_HEIGHT_RANGE[0]} to {_HEIGHT_RANGE[1]} metres"
        )
    if not 0.3 <= -low / (high - low) <= 0.7:
        raise ValueError(
            f"{name}: the mean person's z runs from {low:.2f} to {high:.2f} metres; 0 must be near"
            " the pelvis"
        )
    first, second, third = (mean[arrays["F"][:, k]] for k in range(3))
    if np.einsum("fi,fi->", first, np.cross(second, third)) <= 0:  # six times the volume
        raise ValueError(f"{name}: 'F' is wound so that normals point inwards; swap two columns")


def _read_only_copy(array: NDArray[Any], dtype: type[np.generic]) -> NDArray[Any]:
    """A contiguous, read-only copy, because all callers share the arrays."""
    fixed = np.ascontiguousarray(array, dtype)
    fixed.setflags(write=False)
    return fixed
