# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Inner loops of k-reciprocal re-ranking; `rerank` says what is computed.

Nothing is checked here: callers in this package pass contiguous arrays of the sizes stated, with
indices in range. All loops run without the GIL and touch no Python object.

A sparse matrix is (start, column, value): row i has the entries start[i] to start[i + 1], columns
ascending. Shapes: N images (queries, then gallery), G gallery images, D dimensions, K neighbours.
"""

from cython.parallel cimport prange, threadid
from libc.math cimport exp
from libc.stdint cimport int32_t, int64_t
from libc.string cimport memset

import numpy as np

include "_clones.pxi"

cdef extern from *:
    """
    SAN_CLONES static void san_scan_row(
        const float *, const float *, float, int32_t, int32_t, float *, int32_t *, int32_t, float *);
    SAN_CLONES static void san_scan_columns(
        const float *, int64_t, const float *, const float *, int32_t, int32_t, int32_t,
        float *, int32_t *, int32_t, float *);
    SAN_CLONES static double san_apart(
        const float *, const float *, double, double, int64_t);
    SAN_CLONES static void san_mix(float *, float *, int64_t, float);
    """

cdef enum:
    BLOCK = 64
    LANES = 16


# Neighbours: the K nearest of every image and the distance of the farthest


cdef inline void insert(
    float distance, int32_t index, float* near, int32_t* who, int32_t K
) noexcept nogil:
    """Into the K nearest, nearest first; indices come ascending, so tied ones are in order."""
    cdef int32_t place = K - 1
    while place > 0 and near[place - 1] > distance:
        near[place] = near[place - 1]
        who[place] = who[place - 1]
        place -= 1
    near[place] = distance
    who[place] = index


cdef void scan_row "san_scan_row"(
    const float* dots, const float* norms, float norm, int32_t n, int32_t first,
    float* near, int32_t* who, int32_t K, float* farthest
) noexcept nogil:
    cdef float[BLOCK] d
    cdef int32_t c, j, m, hits
    cdef float most = farthest[0]
    for c in range(0, n, 64):  # BLOCK
        m = min(BLOCK, n - c)
        hits = 0
        for j in range(m):
            d[j] = norm + norms[c + j] - 2 * dots[c + j]
        for j in range(m):
            hits += d[j] < near[K - 1]
        for j in range(m):
            most = d[j] if d[j] > most else most
        if hits:
            for j in range(m):
                if d[j] < near[K - 1]:
                    insert(d[j], first + c + j, near, who, K)
    farthest[0] = most


cdef void scan_columns "san_scan_columns"(
    const float* dots, int64_t stride, const float* row_norms, const float* norms, int32_t rows,
    int32_t n, int32_t first_row, float* near, int32_t* who, int32_t K,
    float* farthest
) noexcept nogil:
    """As `scan_row`, of n columns at once: near and who (n, K), farthest (n,)."""
    cdef float[BLOCK] d, limit
    cdef int32_t i, j, hits
    for j in range(n):
        limit[j] = near[<int64_t>j * K + K - 1]
    for i in range(rows):
        hits = 0
        for j in range(n):
            d[j] = row_norms[i] + norms[j] - 2 * dots[i * stride + j]
        for j in range(n):
            hits += d[j] < limit[j]
        for j in range(n):
            farthest[j] = d[j] if d[j] > farthest[j] else farthest[j]
        if hits:
            for j in range(n):
                if d[j] < limit[j]:
                    insert(d[j], first_row + i, near + <int64_t>j * K, who + <int64_t>j * K, K)
                    limit[j] = near[<int64_t>j * K + K - 1]


def scan(
    const float[:, ::1] dots, const float[::1] norms, int first_row, int first_column,
    float[:, ::1] near, int32_t[:, ::1] who, float[::1] farthest, *, bint both, int threads,
):
    """Take a tile of dot products into the neighbours of its rows and, if `both`, its columns.

    norms: (N,) |x|^2. near, who: (N, K) distances, infinite at first, and images. farthest: (N,),
    -infinite at first. A distance is |a|^2 + |b|^2 - 2 a.b. Tiles come in order of rows, then of
    columns, those on and above the diagonal, `both` above it.
    """
    cdef int32_t i, m = <int32_t>dots.shape[0], n = <int32_t>dots.shape[1]
    cdef int32_t K = <int32_t>near.shape[1]
    for i in prange(m, nogil=True, num_threads=threads, schedule="static"):
        scan_row(
            &dots[i, 0], &norms[first_column], norms[first_row + i], n, first_column,
            &near[first_row + i, 0], &who[first_row + i, 0], K, &farthest[first_row + i],
        )
    if both:
        for i in prange((n + 63) // 64, nogil=True, num_threads=threads, schedule="static"):
            scan_columns(
                &dots[0, 64 * i], n, &norms[first_row], &norms[first_column + 64 * i], m,
                min(64, n - 64 * i), first_row, &near[first_column + 64 * i, 0],
                &who[first_column + 64 * i, 0], K, &farthest[first_column + 64 * i],
            )


# Sets: k-reciprocal neighbours and their expansion


cdef inline bint has(const int32_t* row, int32_t k, int32_t image) noexcept nogil:
    cdef int32_t j
    cdef bint found = False
    for j in range(k):
        found = found | (row[j] == image)
    return found


def reciprocal(const int32_t[:, ::1] who, int k, *, int threads):
    """(N, k) neighbours among the k nearest that have the image among theirs, and how many."""
    cdef int64_t n = who.shape[0], i
    cdef int32_t j, other
    cdef int32_t[:, ::1] members = np.zeros((n, k), np.int32)
    cdef int32_t[::1] sizes = np.zeros(n, np.int32)
    for i in prange(n, nogil=True, num_threads=threads, schedule="static"):
        for j in range(k):
            other = who[i, j]
            if has(&who[other, 0], k, <int32_t>i):
                members[i, sizes[i]] = other
                sizes[i] += 1
    return np.asarray(members), np.asarray(sizes)


cdef inline void sort(int32_t* values, int32_t n) noexcept nogil:
    cdef int32_t gap = 1, i, j, value
    while gap < n // 9:
        gap = 3 * gap + 1
    while gap > 0:
        for i in range(gap, n):
            value = values[i]
            j = i
            while j >= gap and values[j - gap] > value:
                values[j] = values[j - gap]
                j -= gap
            values[j] = value
        gap = gap // 3


cdef int32_t expand_one(
    const int32_t* members, int32_t size, const int32_t* half, const int32_t* half_sizes,
    int32_t width, int32_t* stamp, int32_t i, int32_t* out
) noexcept nogil:
    """The expanded set of image i, ascending. stamp: below 2 i + 1; marks what is in the set."""
    cdef int32_t n = size, c, j, common, candidate, member
    cdef int32_t is_reciprocal = 2 * i + 1, is_added = 2 * i + 2
    for j in range(size):
        out[j] = members[j]
        stamp[members[j]] = is_reciprocal
    for c in range(size):
        candidate = members[c]
        common = 0
        for j in range(half_sizes[candidate]):
            member = half[<int64_t>candidate * width + j]
            common += stamp[member] == is_reciprocal
        if 3 * common > 2 * half_sizes[candidate]:
            for j in range(half_sizes[candidate]):
                member = half[<int64_t>candidate * width + j]
                if stamp[member] < is_reciprocal:
                    stamp[member] = is_added
                    out[n] = member
                    n += 1
    sort(out, n)
    return n


def expand(
    const int32_t[:, ::1] members, const int32_t[::1] sizes, const int32_t[:, ::1] half,
    const int32_t[::1] half_sizes, *, int threads,
):
    """(start, column) of the sets, each joined by its members' half sets that lie in it by 2/3."""
    cdef int64_t n = members.shape[0], i, k
    cdef int32_t width = <int32_t>half.shape[1], most = <int32_t>(members.shape[1] * (width + 1))
    cdef int32_t[:, ::1] stamp = np.zeros((threads, n), np.int32)
    cdef int32_t[:, ::1] room = np.empty((threads, most), np.int32)
    cdef int64_t[::1] start = np.zeros(n + 1, np.int64)
    cdef int32_t[::1] column
    cdef int t
    for i in prange(n, nogil=True, num_threads=threads, schedule="static"):
        t = threadid()
        start[i + 1] = expand_one(
            &members[i, 0], sizes[i], &half[0, 0], &half_sizes[0], width, &stamp[t, 0],
            <int32_t>i, &room[t, 0],
        )
    np.cumsum(start, out=np.asarray(start))
    column = np.empty(start[n], np.int32)
    stamp[:] = 0
    for i in prange(n, nogil=True, num_threads=threads, schedule="static"):
        t = threadid()
        expand_one(
            &members[i, 0], sizes[i], &half[0, 0], &half_sizes[0], width, &stamp[t, 0],
            <int32_t>i, &room[t, 0],
        )
        for k in range(start[i + 1] - start[i]):
            column[start[i] + k] = room[t, k]
    return np.asarray(start), np.asarray(column)


# Weights


cdef double apart "san_apart"(
    const float* a, const float* b, double a_scale, double b_scale, int64_t n
) noexcept nogil:
    """|a_scale a - b_scale b|^2 in float64."""
    cdef double[LANES] sums
    cdef double difference, added = 0
    cdef int64_t k
    cdef int lane
    for lane in range(LANES):
        sums[lane] = 0
    for k in range(0, n - LANES + 1, 16):  # LANES
        for lane in range(LANES):
            difference = a_scale * a[k + lane] - b_scale * b[k + lane]
            sums[lane] = sums[lane] + difference * difference
    for k in range(n - n % LANES, n):
        difference = a_scale * a[k] - b_scale * b[k]
        added = added + difference * difference
    for lane in range(LANES):
        added = added + sums[lane]
    return added


cdef inline const float* row_of(
    const float[:, ::1] query, const float[:, ::1] gallery, const int64_t[::1] query_rows,
    const int64_t[::1] rows, int64_t image
) noexcept nogil:
    cdef int64_t Q = query_rows.shape[0]
    if image < Q:
        return &query[query_rows[image], 0]
    return &gallery[rows[image - Q], 0]


def pair_distances(
    const float[:, ::1] query, const int64_t[::1] query_rows, const float[:, ::1] gallery,
    const int64_t[::1] rows, const double[::1] scales, const int64_t[::1] start,
    const int32_t[::1] column, float[::1] out, *, int threads,
):
    """The squared distance of each pair of a sparse matrix; rows of features scaled as stated."""
    cdef int64_t i, e, n = start.shape[0] - 1
    for i in prange(n, nogil=True, num_threads=threads, schedule="dynamic", chunksize=16):
        for e in range(start[i], start[i + 1]):
            out[e] = <float>apart(
                row_of(query, gallery, query_rows, rows, i),
                row_of(query, gallery, query_rows, rows, column[e]),
                scales[i], scales[column[e]], query.shape[1],
            )


def weigh(const int64_t[::1] start, float[::1] value):
    """Distances become weights exp(-d), which add up to 1 in each row; in place."""
    cdef int64_t i, e
    cdef double added
    with nogil:
        for i in range(start.shape[0] - 1):
            added = 0
            for e in range(start[i], start[i + 1]):
                value[e] = <float>exp(-value[e])
                added = added + value[e]
            for e in range(start[i], start[i + 1]):
                value[e] = <float>(value[e] / added)


cdef inline int32_t gather(
    const int32_t* who, int32_t k, const int64_t* start, const int32_t* column, const float* value,
    int32_t* stamp, int32_t mark, float* added, int32_t* out
) noexcept nogil:
    """Add up the rows of the k nearest; their columns, in no order."""
    cdef int32_t n = 0, j, c
    cdef int64_t e
    for j in range(k):
        for e in range(start[who[j]], start[who[j] + 1]):
            c = column[e]
            if stamp[c] != mark:
                stamp[c] = mark
                added[c] = 0
                out[n] = c
                n += 1
            added[c] += value[e]
    return n


def average(
    const int32_t[:, ::1] who, int k, const int64_t[::1] start, const int32_t[::1] column,
    const float[::1] value, *, int threads,
):
    """(start, column, value): each row the mean of those of the k nearest, itself among them."""
    cdef int64_t n = who.shape[0], i, e
    cdef int32_t most = <int32_t>(k * np.diff(start).max())
    cdef int32_t[:, ::1] stamp = np.zeros((threads, n), np.int32)
    cdef int32_t[:, ::1] room = np.empty((threads, most), np.int32)
    cdef float[:, ::1] added = np.empty((threads, n), np.float32)
    cdef int64_t[::1] new_start = np.zeros(n + 1, np.int64)
    cdef int32_t[::1] new_column
    cdef float[::1] new_value
    cdef int32_t size
    cdef int t
    for i in prange(n, nogil=True, num_threads=threads, schedule="static"):
        t = threadid()
        new_start[i + 1] = gather(
            &who[i, 0], k, &start[0], &column[0], &value[0], &stamp[t, 0], <int32_t>(i + 1),
            &added[t, 0], &room[t, 0],
        )
    np.cumsum(new_start, out=np.asarray(new_start))
    new_column = np.empty(new_start[n], np.int32)
    new_value = np.empty(new_start[n], np.float32)
    stamp[:] = 0
    for i in prange(n, nogil=True, num_threads=threads, schedule="static"):
        t = threadid()
        size = gather(
            &who[i, 0], k, &start[0], &column[0], &value[0], &stamp[t, 0], <int32_t>(i + 1),
            &added[t, 0], &room[t, 0],
        )
        sort(&room[t, 0], size)
        for e in range(size):
            new_column[new_start[i] + e] = room[t, e]
            new_value[new_start[i] + e] = added[t, room[t, e]] / k
    return np.asarray(new_start), np.asarray(new_column), np.asarray(new_value)


def transpose(
    const int64_t[::1] start, const int32_t[::1] column, const float[::1] value, int64_t first
):
    """(start, column, value) of rows `first` on, by column; its columns count from `first`."""
    cdef int64_t n = start.shape[0] - 1, i, e
    cdef int64_t[::1] place = np.zeros(n + 1, np.int64)
    cdef int32_t[::1] row = np.empty(start[n] - start[first], np.int32)
    cdef float[::1] moved = np.empty(start[n] - start[first], np.float32)
    with nogil:
        for e in range(start[first], start[n]):
            place[column[e] + 1] += 1
        for i in range(n):
            place[i + 1] += place[i]
    new_start = np.array(place)
    with nogil:
        for i in range(first, n):
            for e in range(start[i], start[i + 1]):
                row[place[column[e]]] = <int32_t>(i - first)
                moved[place[column[e]]] = value[e]
                place[column[e]] += 1
    return new_start, np.asarray(row), np.asarray(moved)


cdef void mix "san_mix"(float* shared, float* out, int64_t n, float weight) noexcept nogil:
    cdef int64_t g
    for g in range(n):
        out[g] = (1 - shared[g] / (2 - shared[g])) * (1 - weight) + out[g] * weight
    memset(shared, 0, n * sizeof(float))


def jaccard(
    const int64_t[::1] start, const int32_t[::1] column, const float[::1] value,
    const int64_t[::1] by_column, const int32_t[::1] row, const float[::1] moved, int64_t first,
    float[:, ::1] out, float weight, *, int threads,
):
    """out: (m, G) distances of queries from `first` on; each becomes a mix with the Jaccard one.

    With S the sum over columns of the smaller of two rows' weights, whose rows add up to 1, the
    Jaccard distance is 1 - S / (2 - S). weight: of the distance that stands in `out`.
    """
    cdef int64_t i, e, f
    cdef float[:, ::1] shared = np.zeros((threads, out.shape[1]), np.float32)
    cdef float v
    cdef int t
    for i in prange(out.shape[0], nogil=True, num_threads=threads, schedule="dynamic", chunksize=8):
        t = threadid()
        for e in range(start[first + i], start[first + i + 1]):
            v = value[e]
            for f in range(by_column[column[e]], by_column[column[e] + 1]):
                shared[t, row[f]] += moved[f] if moved[f] < v else v
        mix(&shared[t, 0], &out[i, 0], out.shape[1], weight)
