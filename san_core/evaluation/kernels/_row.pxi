# A query while it is ranked: its right answers, its nearest wrong ones, and the figures they make.
cdef extern from *:
    """
    typedef struct {
        int32_t group, right, top_k, found;
        double *distance;
        int32_t *at, *nearer;
        double *top_distance;
        int32_t *top_at;
        const int32_t *own, *own_end, *out, *out_end;
        const float *query;
        double square, centred, shift, slack, bound;
        float limit;
    } SanRow;
    typedef struct {
        const int64_t *start;
        const int32_t *members;
        const float *features;
        const int64_t *index;
        const double *squares;
        int64_t dim;
        int64_t *bins;
    } SanGallery;
    """
    ctypedef struct Row "SanRow":
        int32_t group       # of the query's person among `Gallery.start`; -1 where absent
        int32_t right       # right answers
        int32_t top_k       # K
        int32_t found       # wrong answers in `top_distance`, at most K
        double* distance    # (R,) of the right answers, farthest first
        int32_t* at         # (R,) their gallery indices
        int32_t* nearer     # (R,) wrong answers before each but not before the next, so far
        double* top_distance  # (K,) of the nearest wrong answers, nearest first
        int32_t* top_at     # (K,) their gallery indices
        const int32_t* own  # the person's gallery indices, ascending, that are still to come
        const int32_t* own_end
        const int32_t* out  # those left out whoever they show, ascending, still to come
        const int32_t* out_end
        const float* query  # (D,)
        double square       # |q|^2
        double centred      # |a|^2 of the query as it is multiplied; 0 for GIVEN
        double shift        # what a value lacks: it is SCALE distance - shift
        double slack        # bound of the error of a value in the tile at hand; 0 for GIVEN
        double bound        # wrong answers farther than this are not in the top; infinite at first
        float limit         # values beyond it change nothing; NaN: every value counts
    ctypedef struct Gallery "SanGallery":
        const int64_t* start    # group p is members[start[p]:start[p + 1]]
        const int32_t* members  # gallery indices, ascending in every group
        const float* features   # (N, D)
        const int64_t* index    # (G,) rows of `features`; NULL: all, in order
        const double* squares   # (G,) |g|^2
        int64_t dim             # D
        int64_t* bins           # (2^19,) numbers of wrong answers by distance, or NULL

cdef enum:
    GIVEN = 0
    EUCLIDEAN = 1
    COSINE = 2
    BIN_SHIFT = 13
    BIN_OFFSET = 1 << 18
    LAST_BIN = (1 << 19) - 1


cdef inline double settled(const Row* row, const Gallery* to, int64_t g, int kind) noexcept nogil:
    """The distance of a pair of features: |q - g|^2, or -q.g / (|q| |g|)."""
    cdef const float* other = to.features + (to.index[g] if to.index != NULL else g) * to.dim
    if kind == EUCLIDEAN:
        return squared_distance(row.query, other, to.dim)
    return -dot(row.query, other, to.dim) / sqrt(row.square * to.squares[g])


cdef inline double coded(float distance) noexcept nogil:
    """A float32 as a float64 of the same order: NaN as infinity, infinity as a number below it."""
    if distance != distance:
        return INFINITY
    return 1e300 if distance == <float>INFINITY else distance


# Right answers


cdef inline void open_row(
    Row* row, const Gallery* to, const float* values, int32_t camera, int32_t barred,
    const int32_t* cameras, int kind,
) noexcept nogil:
    """List the right answers, farthest first: the query's person in another camera."""
    cdef int64_t e
    cdef int32_t g
    row.right = 0
    row.found = 0
    row.bound = INFINITY
    row.own = row.own_end = NULL
    if row.group < 0:
        return
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


cdef inline void close_row(
    Row* row, int64_t* ranks, double* precision, double* penalty, int64_t* counted
) noexcept nogil:
    """From counts to the first rank, average precision and inverse negative penalty."""
    cdef int32_t p, place
    cdef int64_t wrong = 0, rank = 0
    cdef double added = 0
    counted[0] = row.right
    if row.right == 0:
        return
    for place in range(1, row.right + 1):
        p = row.right - place  # the place-th nearest right answer
        wrong += row.nearer[p]
        rank = wrong + place
        if place == 1:
            ranks[0] = rank
        added = added + <double>place / <double>rank
    precision[0] = added / row.right
    penalty[0] = <double>row.right / <double>rank


cdef inline int32_t farther(const Row* row, double distance, int32_t at) noexcept nogil:
    """How many right answers come after an image; those are the first, as the farthest are."""
    cdef int32_t p = 0, end = row.right, middle
    while p < end and comes_after(row, p, distance, at):
        p += 1
        if p == 16:  # unusual: most are farther than all right answers but a few
            break
    else:
        return p
    while p < end:
        middle = (p + end) // 2
        if comes_after(row, middle, distance, at):
            p = middle + 1
        else:
            end = middle
    return p


cdef inline bint comes_after(const Row* row, int32_t p, double distance, int32_t at) noexcept nogil:
    return row.distance[p] > distance or (row.distance[p] == distance and row.at[p] > at)


# The top: the K nearest wrong answers, merged with the right ones in the end


cdef inline double top_bound(const Row* row) noexcept nogil:
    """Wrong answers farther than this are not among the K nearest of all answers."""
    cdef double most = row.bound
    if row.found == row.top_k:
        most = min(most, row.top_distance[row.top_k - 1])
    if row.right >= row.top_k:
        most = min(most, row.distance[row.right - row.top_k])
    return most


cdef inline void insert_top(Row* row, double distance, int32_t at) noexcept nogil:
    """Take a wrong answer in; they come in gallery order, so tied ones are."""
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


# Bins of distances, for the ROC curve


cdef inline int32_t bin_of(float distance) noexcept nogil:
    """The bin of a distance: its sign, exponent and 10 bits of its mantissa; NaN in the last."""
    cdef float single = distance + <float>0.0  # -0 becomes 0
    cdef int32_t bits, place
    memcpy(&bits, &single, 4)
    bits ^= (bits >> 31) & 0x7fffffff  # ordered as the numbers are
    place = (bits >> BIN_SHIFT) + BIN_OFFSET
    return place if single == single else LAST_BIN


cdef inline int32_t bin_of_right(const Row* row, int32_t p, int kind) noexcept nogil:
    if kind == GIVEN and row.distance[p] == INFINITY:
        return bin_of(NAN)
    return bin_of(<float>(row.distance[p] + (kind == COSINE)))
