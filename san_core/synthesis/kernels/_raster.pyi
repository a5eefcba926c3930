import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Bytes = NDArray[np.uint8]

def rasterise(
    points: Floats,
    light: Floats,
    uv: Floats,
    faces: Ints,
    uv_faces: Ints,
    texture: Bytes,
    rgba: Bytes,
    nearest: Floats,
    uv_pass: Floats,
) -> None: ...
def composite(
    rgba: Bytes, background: Floats, shade: Floats, out: Floats, alpha: Floats
) -> None: ...
def expose(image: Floats, red: float, green: float, blue: float, out: Bytes) -> None: ...
def develop(
    picture: Bytes, grain: Floats, start: int, amplitude: float, curve: Bytes, out: Bytes
) -> None: ...
def vertex_normals(vertices: Floats, faces: Ints, out: Floats) -> None: ...
def skin(
    vertices: Floats, bones: Ints, weights: Floats, transforms: Floats, out: Floats
) -> None: ...
def lattice_noise(
    lattice: Floats, points: Floats, sx: float, sy: float, sz: float, out: Floats
) -> None: ...
def bake(uv: Floats, uv_faces: Ints, face: Ints, barycentric: Floats) -> None: ...
