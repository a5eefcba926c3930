# One query against one stretch of the gallery: how many are nearer than each right answer.
cdef extern from *:
    """
    SAN_CLONES static void san_count_given(
        SanRow *, const SanGallery *, const float *, const float *, int32_t, int32_t);
    SAN_CLONES static void san_count_euclidean(
        SanRow *, const SanGallery *, const float *, const float *, int32_t, int32_t);
    SAN_CLONES static void san_count_cosine(
        SanRow *, const SanGallery *, const float *, const float *, int32_t, int32_t);
    """

cdef enum:
    WORD = 64
    STRETCH = 256  # values looked at before those near are counted, while more are on their way
    FEW = 4  # of a word that are counted one by one; more where right answers are many

cdef struct Block:
    const float* values   # of WORD gallery images; `norms` are added to them unless NULL
    const float* norms
    int32_t first         # gallery index of the first
    uint64_t present      # bits of those that are neither left out nor of the query's person
    uint64_t settled      # bits of those whose `distance` is known
    double[64] distance   # WORD, spelt out here and below: Cython wants constants
    float[64] padded      # where there are fewer: their values, and zeros


cdef void count_given "san_count_given"(
    Row* row, const Gallery* to, const float* values, const float* norms, int32_t n, int32_t first
) noexcept nogil:
    count(row, to, values, NULL, n, first, GIVEN)


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
    """Count gallery images first to first + n by values, to which norms are added unless NULL.

    Most words say that nothing is near enough to matter. Bins count all, before.
    """
    cdef uint64_t[4] near  # STRETCH / WORD
    cdef int32_t c = 0, words, w
    if to.bins != NULL and row.right > 0:
        count_bins(row, to, values, norms, n, first, kind)
    if row.top_k > 0 and row.limit != row.limit:
        bound_top(row, to, values, norms, n, first, kind)
    while c + WORD <= n:
        words = 1
        near[0] = ~<uint64_t>0
        if row.limit == row.limit:
            words = min(STRETCH, n - c) // WORD
            at_most(values + c, from_place(norms, c), words, row.limit, near)
        for w in range(words):
            if near[w]:
                count_word(
                    row, to, values + c, from_place(norms, c), WORD, first + c, near[w], kind
                )
            c += WORD
    if c < n:
        count_word(
            row, to, values + c, from_place(norms, c), n - c, first + c, ~<uint64_t>0, kind
        )


cdef inline const float* from_place(const float* norms, int32_t place) noexcept nogil:
    return norms + place if norms != NULL else norms


cdef inline void count_word(
    Row* row, const Gallery* to, const float* values, const float* norms, int32_t n, int32_t first,
    uint64_t near, int kind,
) noexcept nogil:
    """Count those of n gallery images whose bits are set in `near`."""
    cdef Block block
    open_block(&block, values, norms, n, first)
    block.present &= ~members(&row.own, row.own_end, first, n)
    block.present &= ~members(&row.out, row.out_end, first, n)
    near &= block.present
    if near and row.top_k > 0:
        count_top(&block, row, to, near, kind)
    if near == 0 or row.right == 0:
        return
    # Infinity stands for NaN, see `coded`: no vector compares with that.
    if popcount(near) <= FEW + row.right // 8 or row.distance[0] == INFINITY:
        count_each(&block, row, to, near, kind)
    elif kind == GIVEN:
        count_many_given(&block, row)
    else:
        count_many(&block, row, to, kind)


cdef inline void open_block(
    Block* block, const float* values, const float* norms, int32_t n, int32_t first
) noexcept nogil:
    cdef int32_t j
    block.values, block.norms, block.first = values, norms, first
    block.settled = 0
    block.present = ~<uint64_t>0
    if n < WORD:  # what lies beyond must not be read
        for j in range(64):
            block.padded[j] = value_at(block, j) if j < n else 0
        block.values, block.norms = block.padded, NULL
        block.present = ((<uint64_t>1) << n) - 1


cdef inline uint64_t members(
    const int32_t** at, const int32_t* end, int32_t first, int32_t n
) noexcept nogil:
    """The bits of those of n images that are in an ascending list, which is followed to them."""
    cdef uint64_t bits = 0
    while at[0] < end and at[0][0] < first:
        at[0] += 1
    while at[0] < end and at[0][0] < first + n:
        bits |= (<uint64_t>1) << (at[0][0] - first)
        at[0] += 1
    return bits


cdef inline float value_at(const Block* block, int32_t j) noexcept nogil:
    return value_of_pair(block.values, block.norms, j)


cdef inline uint64_t bits_at_most(const Block* block, float limit) noexcept nogil:
    cdef uint64_t bits
    at_most(block.values, block.norms, 1, limit, &bits)
    return bits & block.present


cdef inline uint64_t bits_below(const Block* block, float limit) noexcept nogil:
    cdef uint64_t bits
    below(block.values, block.norms, 1, limit, &bits)
    return bits & block.present


cdef inline double settle(
    Block* block, const Row* row, const Gallery* to, int32_t j, int kind
) noexcept nogil:
    """The distance of the j-th of a block in float64, computed once."""
    if kind == GIVEN:
        return coded(value_at(block, j))
    if not (block.settled >> j) & 1:
        block.distance[j] = settled(row, to, block.first + j, kind)
        block.settled |= (<uint64_t>1) << j
    return block.distance[j]


# Few at a time: how many right answers is each nearer than?


cdef inline void count_each(
    Block* block, Row* row, const Gallery* to, uint64_t near, int kind
) noexcept nogil:
    cdef int32_t j, p
    while near:
        j = lowest(near)
        near &= near - 1
        p = right_after(block, row, to, j, kind)
        if p > 0:
            row.nearer[p - 1] += 1


cdef inline int32_t right_after(
    Block* block, const Row* row, const Gallery* to, int32_t j, int kind
) noexcept nogil:
    """How many right answers come after the j-th of a block: the first of them."""
    cdef double distance
    cdef int32_t p
    if kind != GIVEN:
        distance = distance_of(row, value_at(block, j), row.slack, kind)
        p = farther(row, distance, INT32_MAX)
        distance = distance_of(row, value_at(block, j), -row.slack, kind)
        if p == row.right or row.distance[p] < distance:
            return p  # whatever the exact distance is
    return farther(row, settle(block, row, to, j, kind), block.first + j)


# Many at a time: how many are nearer than each right answer?


cdef inline void count_many_given(Block* block, Row* row) noexcept nogil:
    cdef int32_t p, found, before_last = 0
    for p in range(row.right):
        found = popcount(bits_before(block, <float>row.distance[p], row.at[p] - block.first))
        note(row, p, found, before_last)
        if found == 0:
            return  # none is nearer than this one, so none is than the next
        before_last = found
    row.nearer[row.right - 1] += before_last


cdef inline uint64_t bits_before(
    const Block* block, float limit, int64_t place
) noexcept nogil:
    """Which come before a right answer at `place`: tied ones do in gallery order."""
    cdef uint64_t earlier
    if place <= 0:
        return bits_below(block, limit)
    if place >= WORD:
        return bits_at_most(block, limit)
    earlier = ((<uint64_t>1) << place) - 1
    return (bits_at_most(block, limit) & earlier) | (bits_below(block, limit) & ~earlier)


cdef inline void count_many(Block* block, Row* row, const Gallery* to, int kind) noexcept nogil:
    """By features, where a value is known up to `row.slack`."""
    cdef int32_t p, j, found, before_last = 0
    cdef uint64_t nearer, unsure
    for p in range(row.right):
        nearer = bits_below(block, value_of(row, row.distance[p], -row.slack, kind))
        unsure = bits_at_most(block, value_of(row, row.distance[p], row.slack, kind)) & ~nearer
        found = popcount(nearer)
        while unsure:
            j = lowest(unsure)
            unsure &= unsure - 1
            found += comes_after(row, p, settle(block, row, to, j, kind), block.first + j)
        note(row, p, found, before_last)
        if found == 0:
            return
        before_last = found
    row.nearer[row.right - 1] += before_last


cdef inline void note(Row* row, int32_t p, int32_t found, int32_t before_last) noexcept nogil:
    """`found` are before right answer p, so the rest of those before the last one are not."""
    if p > 0:
        row.nearer[p - 1] += before_last - found


# Values and distances, the top, the limit, and bins


cdef inline float value_of(
    const Row* row, double distance, double more, int kind
) noexcept nogil:
    """The value that a distance would have, and some more."""
    return <float>((2 if kind == COSINE else 1) * distance - row.shift + more)


cdef inline double distance_of(
    const Row* row, float value, double more, int kind
) noexcept nogil:
    """The distance that a value, and some more, stands for."""
    return (value + row.shift + more) * (0.5 if kind == COSINE else 1)


cdef inline void count_top(
    Block* block, Row* row, const Gallery* to, uint64_t near, int kind
) noexcept nogil:
    """Take those into the nearest wrong answers that belong there; indices come ascending."""
    cdef float limit = top_limit(row, kind)
    cdef double distance
    cdef int32_t j
    if top_bound(row) < INFINITY:
        near &= bits_at_most(block, limit)
    while near:
        j = lowest(near)
        near &= near - 1
        if value_at(block, j) > limit:
            continue
        distance = settle(block, row, to, j, kind)
        if distance <= top_bound(row):
            insert_top(row, distance, block.first + j)
            limit = top_limit(row, kind)
    set_limit(row, to, kind)


cdef inline void bound_top(
    Row* row, const Gallery* to, const float* values, const float* norms, int32_t n, int32_t first,
    int kind,
) noexcept nogil:
    """Bound the top by the K nearest wrong answers of these images, before any is settled."""
    cdef float[64] nearest  # WORD, the most that K may be here
    cdef const int32_t* own = row.own
    cdef const int32_t* out = row.out
    cdef uint64_t near
    cdef int32_t c, found = 0, j
    if row.top_k > WORD:
        return
    for c in range(0, n - WORD + 1, 64):  # WORD
        near = ~<uint64_t>0
        if found == row.top_k:
            below(values + c, from_place(norms, c), 1, nearest[found - 1], &near)
        near &= ~members(&own, row.own_end, first + c, WORD)
        near &= ~members(&out, row.out_end, first + c, WORD)
        while near:
            j = c + lowest(near)
            near &= near - 1
            insert_nearest(nearest, &found, row.top_k, value_of_pair(values, norms, j))
    if found == row.top_k:
        row.bound = distance_of(row, nearest[found - 1], row.slack, kind)
        set_limit(row, to, kind)


cdef inline void insert_nearest(
    float* nearest, int32_t* found, int32_t most, float value
) noexcept nogil:
    """Take a value into those found, at most `most`, the least first; NaN is left out."""
    cdef int32_t place = found[0]
    if place == most:
        if not value < nearest[place - 1]:
            return
        place -= 1
    elif value == value:
        found[0] += 1
    else:
        return
    while place > 0 and nearest[place - 1] > value:
        nearest[place] = nearest[place - 1]
        place -= 1
    nearest[place] = value


cdef inline float top_limit(const Row* row, int kind) noexcept nogil:
    """The value beyond which nothing belongs into the top."""
    return value_of(row, top_bound(row), row.slack, kind)


cdef inline void set_limit(Row* row, const Gallery* to, int kind) noexcept nogil:
    """The value beyond which nothing changes: no rank, and not the top."""
    cdef double most = -INFINITY
    if row.right > 0:
        most = row.distance[0]
    if row.top_k > 0:
        most = max(most, top_bound(row))
    if most == INFINITY:
        row.limit = <float>NAN
    else:
        row.limit = value_of(row, most, row.slack, kind)


cdef inline void count_bins(
    const Row* row, const Gallery* to, const float* values, const float* norms, int32_t n,
    int32_t first, int kind,
) noexcept nogil:
    """Count wrong answers by distance: |a - b|^2, half of it for cosine.

    Of each word all are counted, then those taken off that are no wrong answers. Whole words have
    loops of their own, of a length that the compiler knows; memory is asked for ahead, as in
    `at_most`, since nothing has read these values before.
    """
    cdef int32_t[64] place  # WORD
    cdef const int32_t* own = row.own
    cdef const int32_t* out = row.out
    cdef int64_t* bins = to.bins
    cdef float scale = 0.5 if kind == COSINE else 1, more = <float>row.centred
    cdef uint64_t others
    cdef int32_t c, j
    for c in range(0, n - WORD + 1, 64):  # WORD
        for j in range(0, 64, 16):
            prefetch(values + c + 1024 + j)
        if norms == NULL:
            for j in range(64):
                place[j] = bin_of((values[c + j] + more) * scale)
        else:
            for j in range(64):
                place[j] = bin_of((values[c + j] + norms[c + j] + more) * scale)
        others = members(&own, row.own_end, first + c, WORD)
        others |= members(&out, row.out_end, first + c, WORD)
        count_places(bins, place, WORD, others)
    c = n - n % WORD
    for j in range(n - c):
        place[j] = bin_of((value_of_pair(values, norms, c + j) + more) * scale)
    others = members(&own, row.own_end, first + c, n - c)
    others |= members(&out, row.out_end, first + c, n - c)
    count_places(bins, place, n - c, others)


cdef inline void count_places(
    int64_t* bins, const int32_t* place, int32_t size, uint64_t others
) noexcept nogil:
    """Add one to the bin of each place, but for the places whose bits are set in `others`."""
    cdef int32_t j
    for j in range(size):
        bins[place[j]] += 1
    while others:
        bins[place[lowest(others)]] -= 1
        others &= others - 1


cdef inline float value_of_pair(const float* values, const float* norms, int32_t j) noexcept nogil:
    return values[j] if norms == NULL else values[j] + norms[j]
