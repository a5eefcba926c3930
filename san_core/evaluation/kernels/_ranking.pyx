# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Inner loops of the ranking: how many wrong answers are nearer than each right one, unsorted.

Nothing is checked here: callers in this package pass contiguous arrays of the sizes stated, with
indices in range. All loops run without the GIL and touch no Python object.

A query is a `Row`. Its right answers stand farthest first, and the first of them is the limit: what
lies beyond it changes nothing. So values are compared with the limit alone, 64 of them to a word of
bits; to a good model most words are 0. What is within is counted one by one where there is little,
and by vectors, against one right answer after the other, where there is much.

Values come in three kinds. GIVEN values are distances as they are. EUCLIDEAN and COSINE ones are
|b|^2 - 2 a.b, of a query a and a gallery image b as `operands` moves them, from a matrix product in
float32 whose last bits depend on where in a tile a pair stands. They only bound the distance
(`slack_of`). A pair that this leaves undecided is settled by its distance in float64, of the
features as they were, added in one fixed order.

Shapes: Q queries, G gallery images, D dimensions, K top places, R most right answers of a query.
"""

from cython.parallel cimport prange, threadid
from libc.math cimport INFINITY, NAN, sqrt
from libc.stdint cimport INT32_MAX, int32_t, int64_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

import numpy as np

include "_clones.pxi"
include "_float64.pxi"
include "_row.pxi"
include "_within.pxi"
include "_counting.pxi"

cdef extern from *:
    const char* SAN_LEVEL

BINS = 1 << 19
_KINDS = {"euclidean": EUCLIDEAN, "cosine": COSINE}


def instruction_set():
    """The instruction set the hot loops run on: the best of those compiled that this CPU has."""
    return SAN_LEVEL.decode()


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


cdef class Counter:
    """Some queries of a problem, and what was counted of them so far.

    problem: `protocol.RankingProblem`. first, size: which of its queries. top_k: K, may be 0.
    results: `ranking.QueryResults`, written by `count_distances` and `finish`. bins: (2^19,) int64 to
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
        cdef int64_t[:, ::1] counts
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
            set_limit(&self.rows[i], to, GIVEN)
            count_given(&self.rows[i], to, distances, NULL, n, 0)

    def open(self, query, gallery, const double[::1] centred, str metric):
        """Take the features and list the right answers.

        query, gallery: `operands.Operand`, of all queries. centred: (size,) |a|^2 of these.
        """
        cdef const float[:, ::1] asked = query.rows.matrix, searched = gallery.rows.matrix
        cdef const double[::1] squares = query.squares, gallery_squares = gallery.squares
        cdef const int64_t[::1] rows
        cdef const int64_t* asking = NULL
        cdef int32_t i
        cdef int64_t q
        self.kind = _KINDS[metric]
        self.kept += [query, gallery]
        self.to.features, self.to.dim = &searched[0, 0], searched.shape[1]
        self.to.squares = &gallery_squares[0]
        if gallery.rows.index is not None:
            rows = gallery.rows.index
            self.to.index = &rows[0]
        if query.rows.index is not None:
            rows = query.rows.index
            asking = &rows[0]
        with nogil:
            for i in range(self.size):
                q = self.first + i
                self.rows[i].query = &asked[asking[q] if asking != NULL else q, 0]
                self.rows[i].square = squares[q]
                self.rows[i].centred = centred[i]
                self.rows[i].shift = centred[i] - (2 if self.kind == COSINE else 0)
                open_row(&self.rows[i], &self.to, NULL, self.camera[self.first + i],
                         self.barred[self.first + i], &self.cameras[0], self.kind)

    def count(self, const float[:, ::1] products, const float[::1] norms, int first):
        """Count the gallery from `first` on: -2 a.b (size, n), and |b|^2 of those n."""
        cdef int32_t i, n = <int32_t>products.shape[1]
        cdef double longest = sqrt(largest(&norms[0], n))
        with nogil:
            for i in range(self.size):
                if not self.must_count(i):
                    continue
                self.rows[i].slack = slack_of(&self.rows[i], self.to.dim, longest, self.kind)
                set_limit(&self.rows[i], &self.to, self.kind)
                if self.kind == EUCLIDEAN:
                    count_euclidean(&self.rows[i], &self.to, &products[i, 0], &norms[0], n, first)
                else:
                    count_cosine(&self.rows[i], &self.to, &products[i, 0], &norms[0], n, first)

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
                    bins[bin_of_right(&self.rows[i], p, self.kind)] += 1


cdef inline float largest(const float* values, int32_t n) noexcept nogil:
    cdef float most = 0
    cdef int32_t i
    for i in range(n):
        most = max(most, values[i])
    return most


cdef inline double slack_of(const Row* row, int64_t dim, double longest, int kind) noexcept nogil:
    """How far a value may be from the one that the distance in float64 would have.

    With u = 2^-24, the sum of D products is off by at most D u / (1 - D u) |a| |b| in any order
    (Higham 2002, "Accuracy and Stability of Numerical Algorithms", eq. 3.5), twice that here; each
    of a and b by u of its length, so |a - b|^2 by 2 u (|a| + |b|)^2; |b|^2 and the value by u each.
    What is over covers second-order terms. 2^-126 is lost where products underflow; and the
    directions and the cosine of float64 err too.
    """
    cdef double u = 2.0 ** -24, a = sqrt(row.centred), b = longest
    cdef double sums = 2 * dim * u / (1 - dim * u) * a * b
    cdef double rounding = u * (3 * a * a + 10 * a * b + 6 * b * b)
    return sums + rounding + 8 * dim * 2.0 ** -126 + (
        (dim + 16) * 2.0 ** -49 if kind == COSINE else 0
    )
