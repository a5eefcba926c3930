from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Codes = NDArray[np.int32]
Ids = NDArray[np.int64]

BINS: int

def instruction_set() -> str: ...
def squared_norms(features: Floats, index: Ids | None, out: NDArray[np.float64]) -> None: ...
def group(codes: Codes, start: Ids, members: Codes) -> None: ...

class Counter:
    def __init__(
        self,
        problem: Any,
        results: Any,
        *,
        first: int,
        size: int,
        top_k: int,
        bins: Ids | None,
        right_bins: Ids | None,
    ) -> None: ...
    def count_distances(
        self, distances: Floats, *, bins: NDArray[np.int64] | None, threads: int
    ) -> None: ...
    def open(
        self,
        query: Floats,
        squares: NDArray[np.float64],
        gallery: Floats,
        index: Ids | None,
        metric: str,
    ) -> None: ...
    def count(self, dots: Floats, norms: Floats, first: int, longest: float) -> None: ...
    def finish(self) -> None: ...
