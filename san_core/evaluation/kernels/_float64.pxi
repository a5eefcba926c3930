# Sums in float64, added in one order whatever the instruction set. Includes what `_clones.pxi` has.
cdef extern from *:
    """
    SAN_CLONES static double san_squared_distance(const float *, const float *, int64_t);
    SAN_CLONES static double san_dot(const float *, const float *, int64_t);
    """

cdef enum:
    LANES = 16


cdef double squared_distance "san_squared_distance"(
    const float* a, const float* b, int64_t n
) noexcept nogil:
    cdef double[LANES] sums
    cdef double difference
    cdef int64_t k
    cdef int lane
    for lane in range(LANES):
        sums[lane] = 0
    for k in range(0, n - LANES + 1, 16):  # LANES, spelt out: Cython wants a constant
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
