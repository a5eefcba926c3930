# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Inner loops over rows of features: their lengths, tiles of them as they are multiplied, and the
nearest of them.

Nothing is checked here: callers in this package pass contiguous arrays of the sizes stated, with
indices in range. All loops run without the GIL and touch no Python object.

Shapes: N rows of the matrix, G those that an index names (all without one), D dimensions, Q queries,
K nearest.
"""

from libc.math cimport sqrt
from libc.stdint cimport int64_t

include "_clones.pxi"
include "_float64.pxi"

cdef extern from *:
    """
    SAN_CLONES static void san_centre(const float *, double, const double *, float *, int64_t);
    """

cdef double NO_DIRECTION = 1e-70  # |x|^2 of less is that of no direction, as `rows` says


def squared_norms(const float[:, ::1] matrix, index, double[::1] out):
    """|x|^2 of the rows of `matrix` (N, D) that `index` (G,) int64 names: out (G,)."""
    cdef const int64_t[::1] chosen
    cdef const int64_t* rows = NULL
    cdef const float* x
    cdef int64_t i
    if index is not None:
        chosen = index
        rows = &chosen[0]
    with nogil:
        for i in range(out.shape[0]):
            x = &matrix[rows[i] if rows != NULL else i, 0]
            out[i] = dot(x, x, matrix.shape[1])


def centred(
    const float[:, ::1] matrix, index, int64_t first, scales, const double[::1] centre,
    float[:, ::1] out, double[::1] squares,
):
    """Rows scaled and moved, s x - c, rounded once: out (n, D), and squares (n,), |.|^2 of them.

    They are n rows from the `first` on of those that `index` names. scales: (G,) s of each, or
    None for 1. centre: (D,) c.
    """
    cdef const int64_t[::1] chosen
    cdef const double[::1] factors
    cdef const int64_t* rows = NULL
    cdef const double* scale = NULL
    cdef int64_t i, row
    if index is not None:
        chosen = index
        rows = &chosen[0]
    if scales is not None:
        factors = scales
        scale = &factors[0]
    with nogil:
        for i in range(out.shape[0]):
            row = rows[first + i] if rows != NULL else first + i
            centre_row(
                &matrix[row, 0], scale[first + i] if scale != NULL else 1, &centre[0], &out[i, 0],
                out.shape[1],
            )
            squares[i] = dot(&out[i, 0], &out[i, 0], out.shape[1])


cdef void centre_row "san_centre"(
    const float* x, double scale, const double* centre, float* out, int64_t n
) noexcept nogil:
    cdef int64_t k
    for k in range(n):
        out[k] = <float>(scale * x[k] - centre[k])


def nearest(
    const float[:, ::1] query, const double[::1] squares, const float[:, ::1] matrix, index,
    int64_t first, int64_t stop, bint by_direction, double[:, ::1] near, int64_t[:, ::1] who,
):
    """Take rows first to stop, of those that an index names, into the K nearest of each query.

    query: (Q, D); squares: (Q,) |q|^2. near, who: (Q, K) their distances, nearest first, infinite at
    first, and their places; places come ascending, so tied ones are in order. A distance is
    |q - g|^2 or, by direction, minus the cosine, which counts as 0 where one is all zeros. Returns
    the first place whose feature is not finite, else -1.
    """
    cdef const int64_t[::1] chosen
    cdef const int64_t* rows = NULL
    cdef const float* g
    cdef int64_t i, q, dim = matrix.shape[1], K = near.shape[1]
    cdef double distance, square = 0
    if index is not None:
        chosen = index
        rows = &chosen[0]
    with nogil:
        for i in range(first, stop):
            g = &matrix[rows[i] if rows != NULL else i, 0]
            if by_direction:
                square = dot(g, g, dim)
            for q in range(query.shape[0]):
                if not by_direction:
                    distance = squared_distance(&query[q, 0], g, dim)
                elif square < NO_DIRECTION or squares[q] < NO_DIRECTION:
                    distance = 0
                else:
                    distance = -dot(&query[q, 0], g, dim) / sqrt(squares[q] * square)
                if not distance - distance == 0:
                    with gil:
                        return i
                if distance < near[q, K - 1]:
                    insert(distance, i, &near[q, 0], &who[q, 0], K)
    return -1


cdef inline void insert(
    double distance, int64_t at, double* near, int64_t* who, int64_t K
) noexcept nogil:
    cdef int64_t place = K - 1
    while place > 0 and near[place - 1] > distance:
        near[place] = near[place - 1]
        who[place] = who[place - 1]
        place -= 1
    near[place] = distance
    who[place] = at
