# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Inner loops of the single-gallery-shot expectation; `single_shot` says what is computed.

Nothing is checked here: callers in this package pass contiguous arrays of the sizes stated, with
indices in range. All loops run without the GIL and touch no Python object.

Shapes: Q queries, G gallery images, J people of the gallery, K ranks, N nodes, T threads.
"""

from cython.parallel cimport prange, threadid
from libc.math cimport pow
from libc.stdint cimport int32_t, int64_t

import numpy as np

include "_clones.pxi"

cdef extern from *:
    """
    SAN_CLONES static void san_draw_ranks(const double *, int32_t, int32_t, double *, int32_t);
    SAN_CLONES static double san_draw_precision(
        const double *, int32_t, int32_t, const double *, const double *, double *, int32_t);
    """


cdef void draw_ranks "san_draw_ranks"(
    const double* f, int32_t n, int32_t certain, double* chance, int32_t K
) noexcept nogil:
    """chance[k]: that k of the people are nearer, for k < K; each independently so with f.

    `certain` of them are so for sure. A Poisson-binomial distribution, cut at K.
    """
    cdef int32_t j, k
    for k in range(K):
        chance[k] = 0
    if certain >= K:
        return
    chance[certain] = 1
    for j in range(n):
        for k in range(K - 1, certain, -1):
            chance[k] = chance[k] * (1 - f[j]) + chance[k - 1] * f[j]
        chance[certain] = chance[certain] * (1 - f[j])


cdef double draw_precision "san_draw_precision"(
    const double* f, int32_t n, int32_t certain, const double* nodes, const double* weights,
    double* product, int32_t N
) noexcept nogil:
    """E[1 / (1 + X)] of the same X: the integral over z from 0 to 1 of E[z^X], by quadrature."""
    cdef int32_t j, k
    cdef double added = 0
    if n == 0:
        return 1.0 / (1 + certain)
    for k in range(N):
        product[k] = weights[k]
    for j in range(n):
        for k in range(N):
            product[k] = product[k] * (1 - f[j] * (1 - nodes[k]))
    for k in range(N):
        added = added + product[k] * (pow(nodes[k], certain) if certain else 1)
    return added


cdef class Draws:
    """The expectation for queries of a problem, and room for every thread.

    problem: `protocol.RankingProblem`. person: (G,) group of each gallery image, -1 junk. kept: (lists, J)
    images of each person that each list of `problem` leaves. nodes, weights: (N,) of a quadrature
    from 0 to 1. cmc: (Q, K) and precision: (Q,), both zeros, are written.
    """

    cdef object keep
    cdef const int64_t[::1] start
    cdef const int32_t[::1] members, group, query_camera, barred, gallery_camera, out_list, person
    cdef const int32_t[:, ::1] kept
    cdef const double[::1] nodes, weights
    cdef double[:, ::1] cmc, chance, share, product
    cdef double[::1] precision
    cdef int32_t[:, ::1] at, nearer, bucket, count, active
    cdef float[:, ::1] right

    def __init__(self, problem, *, person, kept, nodes, weights, cmc, precision, int threads):
        J, G, width = kept.shape[1], len(person), max(1, problem.widest)
        self.start, self.members, self.group = problem.start, problem.members, problem.group
        self.query_camera, self.barred = problem.query_camera, problem.barred
        self.gallery_camera, self.out_list = problem.gallery_camera, problem.out_list
        self.person, self.kept = person, kept
        self.nodes, self.weights = nodes, weights
        self.cmc, self.precision = cmc, precision
        self.chance = np.empty((threads, cmc.shape[1]))
        self.product = np.empty((threads, len(nodes)))
        self.share = np.empty((threads, J))
        self.right = np.empty((threads, width), np.float32)
        self.at = np.empty((threads, width), np.int32)
        self.nearer = np.empty((threads, G), np.int32)
        self.bucket = np.empty((threads, G), np.int32)
        self.count = np.zeros((threads, J), np.int32)
        self.active = np.empty((threads, J), np.int32)

    def add(self, const float[:, ::1] distances, int first):
        """Take the distances (n, G) of queries from `first` on."""
        cdef int32_t i, threads = <int32_t>self.chance.shape[0]
        for i in prange(
            distances.shape[0], nogil=True, num_threads=threads, schedule="dynamic", chunksize=4
        ):
            self.one(&distances[i, 0], first + i, threadid())

    cdef void one(self, const float* d, int32_t q, int t) noexcept nogil:
        cdef int32_t P = self.sort_right(d, q, t), n, p, i, j, active = 0
        if P == 0:
            return
        n = self.list_nearer(d, q, t, P)
        for p in range(P):
            for i in range(n):
                if self.bucket[t, i] == p:
                    j = self.person[self.nearer[t, i]]
                    if self.count[t, j] == 0:
                        self.active[t, active] = j
                        active += 1
                    self.count[t, j] += 1
            self.expect(q, t, active)
        self.precision[q] /= P
        for i in range(<int32_t>self.cmc.shape[1]):
            self.cmc[q, i] /= P
        for i in range(active):
            self.count[t, self.active[t, i]] = 0

    cdef int32_t sort_right(self, const float* d, int32_t q, int t) noexcept nogil:
        """The query's right answers, nearest first, tied ones in gallery order."""
        cdef int32_t P = 0, g, place, group = self.group[q]
        cdef int64_t e
        if group < 0:
            return 0
        for e in range(self.start[group], self.start[group + 1]):
            g = self.members[e]
            if self.gallery_camera[g] in (self.query_camera[q], self.barred[q]):
                continue
            place = P
            while place > 0 and self.right[t, place - 1] > d[g]:
                self.right[t, place] = self.right[t, place - 1]
                self.at[t, place] = self.at[t, place - 1]
                place -= 1
            self.right[t, place] = d[g]
            self.at[t, place] = g
            P += 1
        return P

    cdef int32_t list_nearer(self, const float* d, int32_t q, int t, int32_t P) noexcept nogil:
        """Images of others nearer than the farthest right answer: which, and nearer than which."""
        cdef int32_t n = 0, g, p
        cdef float farthest = self.right[t, P - 1]
        for g in range(self.person.shape[0]):
            if d[g] > farthest or self.person[g] < 0 or self.person[g] == self.group[q]:
                continue
            if self.gallery_camera[g] == self.barred[q]:
                continue
            p = 0
            while p < P and (
                self.right[t, p] < d[g] or (self.right[t, p] == d[g] and self.at[t, p] < g)
            ):
                p += 1
            if p < P:
                self.nearer[t, n] = g
                self.bucket[t, n] = p
                n += 1
        return n

    cdef void expect(self, int32_t q, int t, int32_t active) noexcept nogil:
        """Add the expectation over draws in which one certain right answer was drawn."""
        cdef int32_t i, j, n = 0, certain = 0, k, K = <int32_t>self.cmc.shape[1]
        cdef double added = 0
        for i in range(active):
            j = self.active[t, i]
            if self.count[t, j] == self.kept[self.out_list[q], j]:
                certain += 1
            else:
                self.share[t, n] = <double>self.count[t, j] / self.kept[self.out_list[q], j]
                n += 1
        draw_ranks(&self.share[t, 0], n, certain, &self.chance[t, 0], K)
        for k in range(K):
            added = added + self.chance[t, k]
            self.cmc[q, k] += added
        self.precision[q] += draw_precision(
            &self.share[t, 0], n, certain, &self.nodes[0], &self.weights[0], &self.product[t, 0],
            <int32_t>self.nodes.shape[0],
        )
