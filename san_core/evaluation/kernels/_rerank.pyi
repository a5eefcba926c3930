import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Codes = NDArray[np.int32]
Ids = NDArray[np.int64]

def scan(
    dots: Floats,
    norms: Floats,
    first_row: int,
    first_column: int,
    near: Floats,
    who: Codes,
    farthest: Floats,
    *,
    both: bool,
    threads: int,
) -> None: ...
def reciprocal(who: Codes, k: int, *, threads: int) -> tuple[Codes, Codes]: ...
def expand(
    members: Codes, sizes: Codes, half: Codes, half_sizes: Codes, *, threads: int
) -> tuple[Ids, Codes]: ...
def pair_distances(
    query: Floats,
    query_rows: Ids,
    gallery: Floats,
    rows: Ids,
    scales: NDArray[np.float64],
    start: Ids,
    column: Codes,
    out: Floats,
    *,
    threads: int,
) -> None: ...
def weigh(start: Ids, value: Floats) -> None: ...
def average(
    who: Codes, k: int, start: Ids, column: Codes, value: Floats, *, threads: int
) -> tuple[Ids, Codes, Floats]: ...
def transpose(
    start: Ids, column: Codes, value: Floats, first: int
) -> tuple[Ids, Codes, Floats]: ...
def jaccard(
    start: Ids,
    column: Codes,
    value: Floats,
    by_column: Ids,
    row: Codes,
    moved: Floats,
    first: int,
    out: Floats,
    weight: float,
    *,
    threads: int,
) -> None: ...
