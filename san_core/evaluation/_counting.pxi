# One query against one stretch of the gallery: how many are nearer than each right answer.
cdef extern from *:
    """
    /* In any order, which only a pragma allows: as vectors. NaN is never the least. */
    static inline float san_least(const float *values, int32_t n) {
        float least = __builtin_inff();
        #pragma omp simd reduction(min : least)
        for (int32_t i = 0; i < n; i++) least = values[i] < least ? values[i] : least;
        return least;
    }
    /* The same of sums of two values. */
    static inline float san_least_sum(const float *a, const float *b, int32_t n) {
        float least = __builtin_inff();
        #pragma omp simd reduction(min : least)
        for (int32_t i = 0; i < n; i++) {
            float value = a[i] + b[i];
            least = value < least ? value : least;
        }
        return least;
    }
    SAN_CLONES static void san_count_given(
        SanRow *, const SanGallery *, const float *, const float *, int32_t, int32_t);
    SAN_CLONES static void san_count_euclidean(
        SanRow *, const SanGallery *, const float *, const float *, int32_t, int32_t);
    SAN_CLONES static void san_count_cosine(
        SanRow *, const SanGallery *, const float *, const float *, int32_t, int32_t);
    """
    float least "san_least"(const float* values, int32_t n) noexcept nogil
    float least_sum "san_least_sum"(const float* a, const float* b, int32_t n) noexcept nogil

cdef enum:
    STRIDE = 256
    BLOCK = 64

cdef struct Block:
    float[64] value       # BLOCK; NaN where left out, where the query's person is, beyond the end
    double[64] distance   # of those in `settled`
    uint64_t absent       # the places of that NaN, as bits
    uint64_t settled
    int32_t first         # gallery index of the first


cdef void count_given "san_count_given"(
    Row* row, const Gallery* to, const float* values, const float* norms, int32_t n, int32_t first
) noexcept nogil:
    count(row, to, values, norms, n, first, GIVEN)


cdef void count_euclidean "san_count_euclidean"(
    Row* row, const Gallery* to, const float* values, const float* norms, int32_t n, int32_t first
) noexcept nogil:
    count(row, to, values, norms, n, first, EUCLIDEAN)


cdef void count_cosine "san_count_cosine"(
    Row* row, const Gallery* to, const float* values, const float* norms, int32_t n, int32_t first
) noexcept nogil:
    count(row, to, values, norms, n, first, COSINE)


cdef inline void count(
    Row* row, const Gallery* to, const float* values, const float* norms, int32_t n, int32_t first,
    int kind,
) noexcept nogil:
    """Count gallery images first to first + n by values, to which norms are added if not GIVEN."""
    cdef float[STRIDE] sums
    cdef const float* v
    cdef int32_t c, m, j
    for c in range(0, n, 256):  # STRIDE, spelt out: Cython wants a constant
        m = min(STRIDE, n - c)
        v = values + c
        if kind == GIVEN:
            if m == STRIDE and least(v, STRIDE) > row.limit:
                continue
        else:
            if m == STRIDE and least_sum(v, norms + c, STRIDE) > row.limit:
                continue
            for j in range(m):
                sums[j] = v[j] + norms[c + j]
            v = sums
        for j in range(0, m, 64):  # BLOCK
            if j + BLOCK > m or not (least(v + j, BLOCK) > row.limit):
                count_block(row, to, v + j, min(BLOCK, m - j), first + c + j, kind)


cdef inline void count_block(
    Row* row, const Gallery* to, const float* values, int32_t n, int32_t first, int kind
) noexcept nogil:
    cdef Block block
    fill(&block, row, values, n, first)
    if to.bins != NULL and row.right > 0:
        count_bins(to.bins, &block, row, kind)
    if least(block.value, BLOCK) > row.limit:
        return
    if row.top_k > 0:
        count_top(&block, row, to, kind)
    if kind == GIVEN:
        count_right_given(&block, row)
    else:
        count_right(&block, row, to, kind)


cdef inline void fill(
    Block* block, Row* row, const float* values, int32_t n, int32_t first
) noexcept nogil:
    """Copy values, and blot out what is left out and the query's own person."""
    cdef int32_t j
    block.first = first
    block.settled = 0
    block.absent = 0
    if n == BLOCK:
        memcpy(block.value, values, sizeof(block.value))
    else:
        block.absent = (~<uint64_t>0) << n
        for j in range(BLOCK):
            block.value[j] = values[j] if j < n else <float>NAN
    row.own = blot_out(block, row.own, row.own_end, n)
    row.out = blot_out(block, row.out, row.out_end, n)


cdef inline const int32_t* blot_out(
    Block* block, const int32_t* at, const int32_t* end, int32_t n
) noexcept nogil:
    while at < end and at[0] < block.first:
        at += 1
    while at < end and at[0] < block.first + n:
        block.value[at[0] - block.first] = <float>NAN
        block.absent |= (<uint64_t>1) << (at[0] - block.first)
        at += 1
    return at


# Right answers by given distances


cdef inline void count_right_given(Block* block, Row* row) noexcept nogil:
    cdef int32_t p, found
    for p in range(row.right):
        if row.distance[p] == INFINITY:  # stands for NaN, see `coded`
            row.nearer[p] += before_nan(block, row.at[p] - block.first)
            continue
        found = before(block, <float>row.distance[p], row.at[p] - block.first)
        if found == 0 and up_to(block, <float>row.distance[p]) == 0:
            break  # none is as near as this one, so none is as near as the next
        row.nearer[p] += found


cdef inline int32_t below(const Block* block, float limit) noexcept nogil:
    cdef int32_t found = 0, j
    for j in range(BLOCK):
        found += block.value[j] < limit
    return found


cdef inline int32_t up_to(const Block* block, float limit) noexcept nogil:
    cdef int32_t found = 0, j
    for j in range(BLOCK):
        found += block.value[j] <= limit
    return found


cdef inline int32_t before(const Block* block, float limit, int64_t place) noexcept nogil:
    """How many values come before the one at `place`, tied ones in gallery order."""
    cdef int32_t found = 0, j
    if place <= 0:
        return below(block, limit)
    if place >= BLOCK:
        return up_to(block, limit)
    for j in range(BLOCK):
        found += block.value[j] <= limit if j < place else block.value[j] < limit
    return found


cdef inline int32_t before_nan(const Block* block, int64_t place) noexcept nogil:
    """As `before`, for a right answer that is NaN: after all numbers, NaNs in gallery order."""
    cdef int32_t found = 0, j
    for j in range(BLOCK):
        if not (block.absent >> j) & 1:
            found += block.value[j] == block.value[j] or j < place
    return found


# Right answers by features, where a value is known up to `row.slack`


cdef inline void count_right(
    Block* block, Row* row, const Gallery* to, int kind
) noexcept nogil:
    cdef int32_t p, j, found, within
    cdef float low, high
    cdef double distance
    for p in range(row.right):
        low = value_of(row, row.distance[p], -row.slack, kind)
        high = value_of(row, row.distance[p], row.slack, kind)
        within = up_to(block, high)
        if within == 0:
            break
        found = below(block, low)
        if within > found:
            for j in range(BLOCK):
                if low <= block.value[j] <= high:
                    distance = settle(block, row, to, j, kind)
                    found += distance < row.distance[p] or (
                        distance == row.distance[p] and block.first + j < row.at[p]
                    )
        row.nearer[p] += found


cdef inline float value_of(
    const Row* row, double distance, double more, int kind
) noexcept nogil:
    """The value that a distance would have, and some more."""
    return <float>((2 if kind == COSINE else 1) * distance - row.shift + more)


cdef inline double settle(
    Block* block, const Row* row, const Gallery* to, int32_t j, int kind
) noexcept nogil:
    """The distance of the j-th of a block in float64, computed once for all right answers."""
    if not (block.settled >> j) & 1:
        block.distance[j] = settled(row, to, block.first + j, kind)
        block.settled |= (<uint64_t>1) << j
    return block.distance[j]


# The top, the limit, and bins


cdef inline void count_top(Block* block, Row* row, const Gallery* to, int kind) noexcept nogil:
    """Take those into the nearest wrong answers that belong there; indices come ascending."""
    cdef double distance, most = top_bound(row)
    cdef float limit = value_of(row, most, row.slack, kind)
    cdef int32_t j
    if most < INFINITY and up_to(block, limit) == 0:
        return
    for j in range(BLOCK):
        if (block.absent >> j) & 1 or block.value[j] > limit:
            continue
        if kind == GIVEN:
            distance = coded(block.value[j])
        else:
            distance = settle(block, row, to, j, kind)
        if distance <= most:
            insert_top(row, distance, block.first + j)
            most = top_bound(row)
            limit = value_of(row, most, row.slack, kind)
    set_limit(row, to, kind)


cdef inline void set_limit(Row* row, const Gallery* to, int kind) noexcept nogil:
    """The value beyond which nothing changes: no rank, not the top, no bin."""
    cdef double most = -INFINITY
    if row.right > 0:
        most = row.distance[0]
    if row.top_k > 0:
        most = max(most, top_bound(row))
    if most == INFINITY or to.bins != NULL:
        row.limit = <float>NAN
    else:
        row.limit = value_of(row, most, row.slack, kind)


cdef inline void count_bins(
    int64_t* bins, const Block* block, const Row* row, int kind
) noexcept nogil:
    """Count wrong answers by distance: |a - b|^2, half of it for cosine."""
    cdef int32_t j
    for j in range(BLOCK):
        if not (block.absent >> j) & 1:
            bins[bin_of((block.value[j] + row.centred) * (0.5 if kind == COSINE else 1))] += 1
