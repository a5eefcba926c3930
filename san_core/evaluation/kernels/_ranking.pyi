from typing import Any

import numpy as np
from numpy.typing import NDArray

from san_core.evaluation.kernels.operands import Operand

Floats = NDArray[np.float32]
Codes = NDArray[np.int32]
Ids = NDArray[np.int64]

BINS: int

def instruction_set() -> str: ...
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
        self, query: Operand, gallery: Operand, centred: NDArray[np.float64], metric: str
    ) -> None: ...
    def count(self, products: Floats, norms: Floats, first: int) -> None: ...
    def finish(self) -> None: ...
