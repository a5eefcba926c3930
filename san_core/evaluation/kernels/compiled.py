"""The compiled loops, or one clear error line if they were never compiled.

There is no silent fallback. `reference` computes the same in NumPy, for tests and readers, and must
be imported by name.
"""

try:
    from san_core.evaluation.kernels import _features, _ranking, _rerank, _single_shot
except ImportError as error:
    raise ImportError(
        f"san_core.evaluation is not compiled for this Python ({error}): run `make install`, or "
        "`pip install .` in the project's folder with a C compiler; "
        "`python -m san_core.evaluation.check` then proves it"
    ) from error

__all__ = ["_features", "_ranking", "_rerank", "_single_shot"]
