from typing import Any

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.int32]
Doubles = NDArray[np.float64]

class Draws:
    def __init__(
        self,
        problem: Any,
        *,
        person: Codes,
        kept: Codes,
        nodes: Doubles,
        weights: Doubles,
        cmc: Doubles,
        precision: Doubles,
        threads: int,
    ) -> None: ...
    def add(self, distances: NDArray[np.float32], first: int) -> None: ...
