import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ids = NDArray[np.int64]

def squared_norms(matrix: Floats, index: Ids | None, out: Doubles) -> None: ...
def centred(
    matrix: Floats,
    index: Ids | None,
    first: int,
    scales: Doubles | None,
    centre: Doubles,
    out: Floats,
    squares: Doubles,
) -> None: ...
def nearest(
    query: Floats,
    squares: Doubles,
    matrix: Floats,
    index: Ids | None,
    first: int,
    stop: int,
    by_direction: bool,
    near: Doubles,
    who: Ids,
) -> int: ...
