# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Inner loops of the ranking: how many wrong answers are nearer than each right one, unsorted.

Nothing is checked here: callers in this package pass contiguous arrays of the sizes stated, with
indices in range. All loops run without the GIL and touch no Python object.

A query is a `Row`. Its right answers stand farthest first, so that a block of the gallery which is
farther than the first of them is passed over after one look, and any other is done with at the
first right answer that is nearer than the whole block. Images that are left out, and the right
answers themselves, become NaN in a copy of the block: NaN is nearer than nothing.

Values come in three kinds. GIVEN values are distances as they are. EUCLIDEAN and COSINE ones are
dot products of a matrix product in float32, whose last bits depend on where in a tile a pair
stands. They only bound the distance: the error of a sum of D products is at most D u |q| |g| in any
order (Higham 2002, "Accuracy and Stability of Numerical Algorithms", eq. 3.5; u = 2^-24), and pairs
that this leaves undecided are settled by their distance in float64, added in one fixed order.

Shapes: Q queries, G gallery images, D dimensions, K top places, R most right answers of a query.
"""

from cython.parallel cimport prange, threadid
from libc.math cimport INFINITY, NAN, fabs, sqrt
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

import numpy as np

include "_clones.pxi"

cdef extern from *:
    """
    /* In any order, which only a pragma allows: as vectors. NaN is never the least. */
    static inline float san_least(const float *values, int32_t n) {
        float least = __builtin_inff();
        #pragma omp simd reduction(min : least)
        for (int32_t i = 0; i < n; i++) least = values[i] < least ? values[i] : least;
        return least;
    }
    /* The same of values that are made of dot products: of kind 1, else of kind 2. */
    static inline float san_least_made(
        const float *dots, const float *norms, int32_t n, int kind) {
        float least = __builtin_inff();
        #pragma omp simd reduction(min : least)
        for (int32_t i = 0; i < n; i++) {
            float value = kind == 1 ? norms[i] - 2 * dots[i] : -(dots[i] * norms[i]);
            least = value < least ? value : least;
        }
        return least;
    }
    typedef struct {
        int32_t group, right, widest, top_k, found;
        double *distance;
        int32_t *at, *nearer;
        double *top_distance;
        int32_t *top_at;
        const int32_t *own, *own_end, *out, *out_end;
        const float *query;
        double square, shift, slack;
        float limit;
    } SanRow;
    typedef struct {
        const int64_t *start;
        const int32_t *members;
        const float *gallery;
        const int64_t *index;
        int64_t dim;
        const float *norms;
        int64_t *bins;
    } SanGallery;
    SAN_CLONES static void san_count_given(
        SanRow *, const SanGallery *, const float *, int32_t, int32_t);
    SAN_CLONES static void san_count_euclidean(
        SanRow *, const SanGallery *, const float *, int32_t, int32_t);
    SAN_CLONES static void san_count_cosine(
        SanRow *, const SanGallery *, const float *, int32_t, int32_t);
    SAN_CLONES static double san_squared_distance(const float *, const float *, int64_t);
    SAN_CLONES static double san_dot(const float *, const float *, int64_t);
    """
    ctypedef struct Row "SanRow":
        int32_t group       # of the query's person among `Gallery.start`; -1 where absent
        int32_t right       # right answers
        int32_t widest      # R
        int32_t top_k       # K
        int32_t found       # wrong answers in `top_distance`, at most K
        double* distance    # (R,) of the right answers, farthest first
        int32_t* at         # (R,) their gallery indices
        int32_t* nearer     # (R,) wrong answers before each, so far
        double* top_distance  # (K,) of the nearest wrong answers, nearest first
        int32_t* top_at     # (K,) their gallery indices
        const int32_t* own  # the person's gallery indices, ascending, that are still to come
        const int32_t* own_end
        const int32_t* out  # those left out whoever they show, ascending, still to come
        const int32_t* out_end
        const float* query  # (D,)
        double square       # |q|^2
        double shift        # what a value lacks of the distance: |q|^2 for EUCLIDEAN, else 0
        double slack        # bound of the error of a value in the tile at hand
        float limit         # values beyond it change nothing; NaN: every value counts
    ctypedef struct Gallery "SanGallery":
        const int64_t* start    # group p is members[start[p]:start[p + 1]]
        const int32_t* members  # gallery indices, ascending in every group
        const float* gallery    # (N, D)
        const int64_t* index    # (G,) rows of `gallery`; NULL: all, in order
        int64_t dim             # D
        const float* norms      # (G,) |g|^2, or 1 / |g| for cosine
        int64_t* bins           # (2^19,) numbers of wrong answers by distance, or NULL
    float least "san_least"(const float* values, int32_t n) noexcept nogil
    float least_made "san_least_made"(
        const float* dots, const float* norms, int32_t n, int kind
    ) noexcept nogil
    const char* SAN_LEVEL

cdef enum:
    GIVEN = 0
    EUCLIDEAN = 1
    COSINE = 2
    BLOCK = 64
    STRIDE = 256
    LANES = 16
    BIN_SHIFT = 13
    BIN_OFFSET = 1 << 18

BINS = 1 << 19
_KINDS = {"euclidean": EUCLIDEAN, "cosine": COSINE}


def instruction_set():
    """The instruction set the hot loops run on: the best of those compiled that this CPU has."""
    return SAN_LEVEL.decode()


# Distances in float64, in one order whatever the instruction set


cdef double squared_distance "san_squared_distance"(
    const float* a, const float* b, int64_t n
) noexcept nogil:
    cdef double[LANES] sums
    cdef double difference
    cdef int64_t k
    cdef int lane
    for lane in range(LANES):
        sums[lane] = 0
    for k in range(0, n - LANES + 1, 16):  # LANES
        for lane in range(LANES):
            difference = <double>a[k + lane] - <double>b[k + lane]
            sums[lane] = sums[lane] + difference * difference
    for k in range(n - n % LANES, n):
        difference = <double>a[k] - <double>b[k]
        sums[0] = sums[0] + difference * difference
    return total(sums)


cdef double dot "san_dot"(const float* a, const float* b, int64_t n) noexcept nogil:
    cdef double[LANES] sums
    cdef int64_t k
    cdef int lane
    for lane in range(LANES):
        sums[lane] = 0
    for k in range(0, n - LANES + 1, 16):  # LANES
        for lane in range(LANES):
            sums[lane] = sums[lane] + <double>a[k + lane] * <double>b[k + lane]
    for k in range(n - n % LANES, n):
        sums[0] = sums[0] + <double>a[k] * <double>b[k]
    return total(sums)


cdef inline double total(double* sums) noexcept nogil:
    cdef int width = LANES // 2, lane
    while width > 0:
        for lane in range(width):
            sums[lane] = sums[lane] + sums[lane + width]
        width = width // 2
    return sums[0]


cdef inline double settled(const Row* row, const Gallery* to, int64_t g, int kind) noexcept nogil:
    """The distance of a pair of features: |q - g|^2, or -q.g / (|q| |g|)."""
    cdef const float* other = to.gallery + (to.index[g] if to.index != NULL else g) * to.dim
    if kind == EUCLIDEAN:
        return squared_distance(row.query, other, to.dim)
    return -dot(row.query, other, to.dim) / sqrt(row.square * dot(other, other, to.dim))


def squared_norms(const float[:, ::1] features, index, double[::1] out):
    """|x|^2 of every row of `features`, or of the rows that `index` (int64) names."""
    cdef const int64_t[::1] chosen
    cdef int64_t i
    cdef const int64_t* rows = NULL
    cdef const float* row
    if index is not None:
        chosen = index
        rows = &chosen[0]
    with nogil:
        for i in range(out.shape[0]):
            row = &features[rows[i] if rows != NULL else i, 0]
            out[i] = dot(row, row, features.shape[1])


def group(const int32_t[::1] codes, int64_t[::1] start, int32_t[::1] members):
    """Sort gallery indices by group, stably; -1 belongs to none.

    codes: (G,) group of each image. start: zeros, one more than there are groups; on return group
    p is members[start[p]:start[p + 1]].
    """
    cdef int64_t i
    cdef int64_t[::1] free_place
    for i in range(codes.shape[0]):
        if codes[i] >= 0:
            start[codes[i] + 1] += 1
    for i in range(1, start.shape[0]):
        start[i] += start[i - 1]
    free_place = np.array(start)
    for i in range(codes.shape[0]):
        if codes[i] >= 0:
            members[free_place[codes[i]]] = <int32_t>i
            free_place[codes[i]] += 1


# One query against one stretch of the gallery


cdef void count_given "san_count_given"(
    Row* row, const Gallery* to, const float* values, int32_t n, int32_t first
) noexcept nogil:
    count(row, to, values, n, first, GIVEN)


cdef void count_euclidean "san_count_euclidean"(
    Row* row, const Gallery* to, const float* values, int32_t n, int32_t first
) noexcept nogil:
    count(row, to, values, n, first, EUCLIDEAN)


cdef void count_cosine "san_count_cosine"(
    Row* row, const Gallery* to, const float* values, int32_t n, int32_t first
) noexcept nogil:
    count(row, to, values, n, first, COSINE)


cdef inline void count(
    Row* row, const Gallery* to, const float* values, int32_t n, int32_t first, int kind
) noexcept nogil:
    """Count gallery images first to first + n, whose values for this query are given."""
    cdef float[STRIDE] buffer
    cdef const float* v
    cdef const float* norms
    cdef int32_t c, m, j
    for c in range(0, n, 256):  # STRIDE, spelt out: Cython wants a constant
        m = min(STRIDE, n - c)
        v = values + c
        if kind != GIVEN:
            norms = to.norms + first + c
            if m == STRIDE and least_made(v, norms, STRIDE, kind) > row.limit:
                continue
            for j in range(m):
                if kind == EUCLIDEAN:
                    buffer[j] = norms[j] - 2 * v[j]
                else:
                    buffer[j] = -(v[j] * norms[j])
            v = buffer
        if any_within(v, m, row.limit):
            for j in range(0, m, 64):  # BLOCK
                if any_within(v + j, min(BLOCK, m - j), row.limit):
                    count_block(row, to, v + j, min(BLOCK, m - j), first + c + j, kind)


cdef inline bint any_within(const float* v, int32_t n, float limit) noexcept nogil:
    """Whether a value is within the limit; always if the limit is NaN."""
    if n == STRIDE:
        return not (least(v, STRIDE) > limit)
    if n == BLOCK:
        return not (least(v, BLOCK) > limit)
    return not (least(v, n) > limit)


cdef inline void count_block(
    Row* row, const Gallery* to, const float* values, int32_t n, int32_t first, int kind
) noexcept nogil:
    cdef float[BLOCK] v
    cdef uint64_t absent
    cdef int32_t p, found
    cdef float limit
    if n == BLOCK:
        memcpy(v, values, sizeof(v))
    else:
        for p in range(BLOCK):
            v[p] = values[p] if p < n else <float>NAN
    absent = leave_out(row, v, n, first)
    if to.bins != NULL and row.right > 0:
        count_bins(to.bins, v, absent, row.shift + (kind == COSINE))
    if not any_within(v, BLOCK, row.limit):
        return
    if row.top_k > 0:
        count_top(row, to, v, absent, first, kind)
    for p in range(row.right):
        if kind == GIVEN and row.distance[p] == INFINITY:  # stands for NaN, see `coded`
            row.nearer[p] += before_nan(v, absent, row.at[p] - first)
            continue
        limit = <float>(row.distance[p] - row.shift + row.slack)
        if kind == GIVEN:
            found = before(v, limit, row.at[p] - first)
            if found == 0 and up_to(v, limit) == 0:
                break  # none is as near as this one, so none is as near as the next
        else:
            found = up_to(v, limit)
            if found == 0:
                break
            found = before_settled(row, to, v, p, first, found, kind)
        row.nearer[p] += found


cdef inline uint64_t leave_out(
    Row* row, float* v, int32_t n, int32_t first
) noexcept nogil:
    """Set what is left out, and the query's person, to NaN; returns their places as bits."""
    cdef uint64_t absent = 0
    if n < BLOCK:
        absent = (~<uint64_t>0) << n
    row.own = hide(row.own, row.own_end, v, n, first, &absent)
    row.out = hide(row.out, row.out_end, v, n, first, &absent)
    return absent


cdef inline const int32_t* hide(
    const int32_t* at, const int32_t* end, float* v, int32_t n, int32_t first, uint64_t* absent
) noexcept nogil:
    while at < end and at[0] < first:
        at += 1
    while at < end and at[0] < first + n:
        v[at[0] - first] = <float>NAN
        absent[0] |= (<uint64_t>1) << (at[0] - first)
        at += 1
    return at


cdef inline int32_t below(const float* v, float limit) noexcept nogil:
    cdef int32_t found = 0
    cdef int j
    for j in range(BLOCK):
        found += v[j] < limit
    return found


cdef inline int32_t up_to(const float* v, float limit) noexcept nogil:
    cdef int32_t found = 0
    cdef int j
    for j in range(BLOCK):
        found += v[j] <= limit
    return found


cdef inline int32_t before(const float* v, float limit, int64_t place) noexcept nogil:
    """How many values come before the one at `place`, tied ones in gallery order."""
    cdef int32_t found, j
    if place <= 0:
        return below(v, limit)
    if place >= BLOCK:
        return up_to(v, limit)
    found = 0
    for j in range(BLOCK):
        found += v[j] <= limit if j < place else v[j] < limit
    return found


cdef inline int32_t before_nan(const float* v, uint64_t absent, int64_t place) noexcept nogil:
    """As `before`, for a right answer that is NaN: after all numbers, NaNs in gallery order."""
    cdef int32_t found = 0, j
    for j in range(BLOCK):
        if not (absent >> j) & 1:
            found += v[j] == v[j] or j < place
    return found


cdef inline int32_t before_settled(
    const Row* row, const Gallery* to, const float* v, int32_t p, int32_t first, int32_t most,
    int kind,
) noexcept nogil:
    """As `before`, where a value is known up to `row.slack`; `most` may be nearer."""
    cdef float low = <float>(row.distance[p] - row.shift - row.slack)
    cdef float high = <float>(row.distance[p] - row.shift + row.slack)
    cdef int32_t found = below(v, low), j
    cdef double distance
    if most > found:
        for j in range(BLOCK):
            if low <= v[j] <= high:
                distance = settled(row, to, first + j, kind)
                found += distance < row.distance[p] or (
                    distance == row.distance[p] and first + j < row.at[p]
                )
    return found


cdef inline void count_top(
    Row* row, const Gallery* to, const float* v, uint64_t absent, int32_t first, int kind
) noexcept nogil:
    """Take those into the nearest wrong answers that belong there; indices come ascending."""
    cdef double distance, most = top_bound(row), reach = row.slack - row.shift
    cdef int32_t j
    if most < INFINITY and up_to(v, <float>(most + reach)) == 0:
        return
    for j in range(BLOCK):
        if (absent >> j) & 1 or coded(v[j]) > most + reach:
            continue
        distance = coded(v[j]) if kind == GIVEN else settled(row, to, first + j, kind)
        if distance <= most:
            insert_top(row, distance, first + j)
            most = top_bound(row)
    set_limit(row, to)


cdef inline double top_bound(const Row* row) noexcept nogil:
    """Wrong answers farther than this are not among the K nearest of all answers."""
    cdef double most = INFINITY
    if row.found == row.top_k:
        most = row.top_distance[row.top_k - 1]
    if row.right >= row.top_k:
        most = min(most, row.distance[row.right - row.top_k])
    return most


cdef inline void insert_top(Row* row, double distance, int32_t at) noexcept nogil:
    cdef int32_t place = row.found
    if row.found == row.top_k:
        if distance >= row.top_distance[row.top_k - 1]:
            return
        place = row.top_k - 1
    else:
        row.found += 1
    while place > 0 and row.top_distance[place - 1] > distance:
        row.top_distance[place] = row.top_distance[place - 1]
        row.top_at[place] = row.top_at[place - 1]
        place -= 1
    row.top_distance[place] = distance
    row.top_at[place] = at


cdef inline void set_limit(Row* row, const Gallery* to) noexcept nogil:
    """The value beyond which nothing changes: no rank, not the top, no bin."""
    cdef double most = -INFINITY
    if row.right > 0:
        most = row.distance[0]
    if row.top_k > 0:
        most = max(most, top_bound(row))
    if most == INFINITY or to.bins != NULL:
        row.limit = <float>NAN
    else:
        row.limit = <float>(most - row.shift + row.slack)


cdef inline void count_bins(
    int64_t* bins, const float* v, uint64_t absent, double lacking
) noexcept nogil:
    cdef int j
    for j in range(BLOCK):
        if not (absent >> j) & 1:
            bins[bin_of(v[j] + lacking)] += 1


cdef inline int32_t bin_of(double distance) noexcept nogil:
    """The bin of a distance: its sign, exponent and 10 bits of its mantissa; NaN in the last."""
    cdef float single = <float>distance + <float>0.0  # -0 becomes 0
    cdef int32_t bits
    if single != single:
        return (1 << 19) - 1
    memcpy(&bits, &single, 4)
    bits ^= (bits >> 31) & 0x7fffffff  # ordered as the numbers are
    return (bits >> BIN_SHIFT) + BIN_OFFSET


cdef inline double coded(float distance) noexcept nogil:
    """A float32 as a float64 of the same order: NaN as infinity, infinity as a number below it."""
    if distance != distance:
        return INFINITY
    return 1e300 if distance == <float>INFINITY else distance


# A query's right answers, and its figures


cdef inline void open_row(Row* row, const Gallery* to, const float* values, int32_t camera,
                          int32_t barred, const int32_t* cameras, int kind) noexcept nogil:
    """List the right answers, farthest first: the query's person in another camera."""
    cdef int64_t e
    cdef int32_t g
    row.right = 0
    row.found = 0
    row.own = row.own_end = NULL
    if row.group >= 0:
        row.own = to.members + to.start[row.group]
        row.own_end = to.members + to.start[row.group + 1]
        for e in range(to.start[row.group], to.start[row.group + 1]):
            g = to.members[e]
            if cameras[g] != camera and cameras[g] != barred:
                row.distance[row.right] = (
                    coded(values[g]) if kind == GIVEN else settled(row, to, g, kind)
                )
                row.at[row.right] = g
                row.nearer[row.right] = 0
                row.right += 1
    sort_farthest_first(row)


cdef inline void sort_farthest_first(Row* row) noexcept nogil:
    """Shell sort by (distance, gallery index), descending."""
    cdef int32_t gap = 1, i, j, at
    cdef double distance
    while gap < row.right // 9:
        gap = 3 * gap + 1
    while gap > 0:
        for i in range(gap, row.right):
            distance = row.distance[i]
            at = row.at[i]
            j = i
            while j >= gap and (row.distance[j - gap] < distance or (
                row.distance[j - gap] == distance and row.at[j - gap] < at
            )):
                row.distance[j] = row.distance[j - gap]
                row.at[j] = row.at[j - gap]
                j -= gap
            row.distance[j] = distance
            row.at[j] = at
        gap = gap // 3


cdef inline void close_row(Row* row, int64_t* ranks, double* precision, double* penalty,
                           int64_t* counted) noexcept nogil:
    """From counts to ranks (first, last), average precision and inverse negative penalty."""
    cdef int32_t p, place
    cdef int64_t rank = 0
    cdef double added = 0
    counted[0] = row.right
    if row.right == 0:
        return
    for p in range(row.right):
        place = row.right - p  # this is the place-th nearest right answer
        rank = <int64_t>row.nearer[p] + place
        if p == 0:
            penalty[0] = <double>row.right / <double>rank
        added = added + <double>place / <double>rank
    ranks[0] = rank
    precision[0] = added / row.right


cdef inline void merge_top(const Row* row, int64_t* top, unsigned char* right) noexcept nogil:
    """The nearest of right and wrong answers together."""
    cdef int32_t p = row.right - 1, w = 0, place
    cdef bint take_right
    for place in range(row.top_k):
        if p < 0 and w == row.found:
            return
        take_right = w == row.found or (p >= 0 and (
            row.distance[p] < row.top_distance[w]
            or (row.distance[p] == row.top_distance[w] and row.at[p] < row.top_at[w])
        ))
        right[place] = take_right
        if take_right:
            top[place] = row.at[p]
            p -= 1
        else:
            top[place] = row.top_at[w]
            w += 1


cdef class Counter:
    """Some queries of a problem, and what was counted of them so far.

    problem: `protocol.Problem`. first, size: which of its queries. top_k: K, may be 0.
    results: `ranking.Results`, written by `count_distances` and `finish`. bins: (2^19,) int64 to
    which distances of wrong answers are added, or None. right_bins: the same of right answers.
    """

    cdef Row* rows
    cdef Gallery to
    cdef int32_t first, size
    cdef int kind
    cdef object kept, results, right_bins
    cdef const int32_t[::1] camera, barred, cameras

    def __cinit__(self, problem, results, *, int first, int size, int top_k, bins, right_bins):
        cdef const int64_t[::1] start = problem.start
        cdef const int64_t[::1] out_start = problem.out_start
        cdef const int32_t[::1] members = problem.members
        cdef const int32_t[::1] out = problem.out
        cdef const int32_t[::1] groups = problem.group
        cdef const int32_t[::1] out_list = problem.out_list
        cdef int64_t[::1] counts
        cdef int64_t width = max(1, problem.widest), depth = max(1, top_k), i, o
        cdef double[:, ::1] distance = np.empty((size, width))
        cdef int32_t[:, ::1] at = np.empty((size, width), np.int32)
        cdef int32_t[:, ::1] nearer = np.empty((size, width), np.int32)
        cdef double[:, ::1] top_distance = np.empty((size, depth))
        cdef int32_t[:, ::1] top_at = np.empty((size, depth), np.int32)
        self.rows = <Row*>calloc(size, sizeof(Row))
        if self.rows == NULL:
            raise MemoryError
        self.kept = [problem, distance, at, nearer, top_distance, top_at, bins]
        self.results, self.right_bins = results, right_bins
        self.first, self.size = first, size
        self.camera, self.barred = problem.query_camera, problem.barred
        self.cameras = problem.gallery_camera
        self.to.start = &start[0]
        self.to.members = &members[0] if members.shape[0] else NULL
        if bins is not None:
            counts = bins
            self.to.bins = &counts[0]
        for i in range(size):
            o = out_list[first + i]
            self.rows[i].group = groups[first + i]
            self.rows[i].top_k = top_k
            self.rows[i].distance = &distance[i, 0]
            self.rows[i].at = &at[i, 0]
            self.rows[i].nearer = &nearer[i, 0]
            self.rows[i].top_distance = &top_distance[i, 0]
            self.rows[i].top_at = &top_at[i, 0]
            self.rows[i].out = &out[0] + out_start[o] if out.shape[0] else NULL
            self.rows[i].out_end = self.rows[i].out + (out_start[o + 1] - out_start[o])

    def __dealloc__(self):
        free(self.rows)

    def count_distances(self, const float[:, ::1] distances, *, bins, int threads):
        """Count a whole matrix of distances (size, G), and finish.

        bins: (threads, 2^19) int64, to which each thread adds its wrong answers; or None.
        """
        cdef int32_t i, n = <int32_t>distances.shape[1]
        cdef const int32_t* cameras = &self.cameras[0]
        cdef int64_t[:, :] counts
        cdef Gallery* to = <Gallery*>calloc(threads, sizeof(Gallery))
        if to == NULL:
            raise MemoryError
        if bins is not None:
            counts = bins
        for i in range(threads):
            to[i] = self.to
            to[i].bins = &counts[i, 0] if bins is not None else NULL
        self.kind = GIVEN
        for i in prange(self.size, nogil=True, num_threads=threads, schedule="dynamic", chunksize=8):
            self.count_row(i, &to[threadid()], &distances[i, 0], n, cameras)
        free(to)
        self.finish()

    cdef inline void count_row(self, int32_t i, const Gallery* to, const float* distances,
                               int32_t n, const int32_t* cameras) noexcept nogil:
        open_row(&self.rows[i], to, distances, self.camera[self.first + i],
                 self.barred[self.first + i], cameras, GIVEN)
        if self.must_count(i):
            set_limit(&self.rows[i], to)
            count_given(&self.rows[i], to, distances, n, 0)

    def open(
        self, const float[:, ::1] query, const double[::1] squares,
        const float[:, ::1] gallery, index, str metric,
    ):
        """Take the features: query (size, D), |q|^2 of them, gallery (N, D) and its rows (G,)."""
        cdef const int64_t[::1] rows
        cdef int32_t i
        self.kind = _KINDS[metric]
        self.kept += [query, gallery, index]
        self.to.gallery, self.to.dim = &gallery[0, 0], gallery.shape[1]
        if index is not None:
            rows = index
            self.to.index = &rows[0]
        with nogil:
            for i in range(self.size):
                self.rows[i].query = &query[i, 0]
                self.rows[i].square = squares[i]
                self.rows[i].shift = squares[i] if self.kind == EUCLIDEAN else 0
                open_row(&self.rows[i], &self.to, NULL, self.camera[self.first + i],
                         self.barred[self.first + i], &self.cameras[0], self.kind)

    def count(self, const float[:, ::1] dots, const float[::1] norms, int first, float longest):
        """Count the gallery from `first` on by dot products (size, n).

        norms: (G,) |g|^2, or 1 / |g| for cosine. longest: the largest |g| of these n.
        """
        cdef int32_t i, n = <int32_t>dots.shape[1]
        self.to.norms = &norms[0]
        with nogil:
            for i in range(self.size):
                if not self.must_count(i):
                    continue
                self.rows[i].slack = slack_of(&self.rows[i], self.to.dim, longest, self.kind)
                set_limit(&self.rows[i], &self.to)
                if self.kind == EUCLIDEAN:
                    count_euclidean(&self.rows[i], &self.to, &dots[i, 0], n, first)
                else:
                    count_cosine(&self.rows[i], &self.to, &dots[i, 0], n, first)

    cdef inline bint must_count(self, int32_t i) noexcept nogil:
        return self.rows[i].right > 0 or self.rows[i].top_k > 0

    def finish(self):
        """Write the results of these queries."""
        cdef int64_t[::1] first_rank = self.results.first_rank, right = self.results.num_right
        cdef double[::1] precision = self.results.average_precision
        cdef double[::1] penalty = self.results.inverse_penalty
        cdef int64_t[:, ::1] top = self.results.top
        cdef unsigned char[:, ::1] hits = self.results.right
        cdef int64_t[::1] bins
        cdef int32_t i, p
        cdef int64_t q
        for i in range(self.size):
            q = self.first + i
            close_row(&self.rows[i], &first_rank[q], &precision[q], &penalty[q], &right[q])
            if self.rows[i].top_k > 0:
                merge_top(&self.rows[i], &top[q, 0], &hits[q, 0])
        if self.right_bins is not None:
            bins = self.right_bins
            for i in range(self.size):
                for p in range(self.rows[i].right):
                    bins[self.bin_of_right(i, p)] += 1

    cdef inline int32_t bin_of_right(self, int32_t i, int32_t p) noexcept:
        cdef double distance = self.rows[i].distance[p]
        if self.kind == GIVEN and distance == INFINITY:
            return bin_of(NAN)
        return bin_of(distance + (self.kind == COSINE))


cdef inline double slack_of(const Row* row, int64_t dim, double longest, int kind) noexcept nogil:
    """How far a value in float32 may be from the true one; see the head of this file.

    2^-24 for each of D products and for the roundings around them; 2^-126 where they underflow.
    """
    cdef double u = 2.0 ** -24, tiny = dim * 2.0 ** -126, q = sqrt(row.square)
    if kind == EUCLIDEAN:
        return u * ((2 * dim + 16) * q * longest + 8 * longest * longest) + 4 * tiny
    return u * (dim + 16) + tiny * longest  # of unit vectors; `longest` is the largest 1 / |g|
