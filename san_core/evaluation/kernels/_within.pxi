# Which values of a word of 64 are at most a limit, or below it, as bits. By intrinsics: compilers
# make no bits of a loop.
cdef extern from *:
    """
    /* Bit i of out[w]: values[64 w + i], plus added[64 w + i] unless that is NULL, is within the
       limit, which NaN never is. Memory is asked for 4 KiB ahead: the processor does not by itself
       run on from one page to the next. */
    #define SAN_WITHIN(name, target, lanes, load, add, is_within) \\
        target static inline void name(const float *values, const float *added, int32_t words, \\
                                       float limit, uint64_t *out) { \\
            for (int32_t w = 0; w < words; w++) { \\
                uint64_t bits = 0; \\
                for (int i = 0; i < 64; i += 16) __builtin_prefetch(values + 64 * w + 1024 + i); \\
                _Pragma("GCC unroll 16") \\
                for (int i = 0; i < 64; i += lanes) { \\
                    bits |= (uint64_t)is_within(added ? \\
                        add(load(values + 64 * w + i), load(added + 64 * w + i)) : \\
                        load(values + 64 * w + i), limit) << i; \\
                } \\
                out[w] = bits; \\
            } \\
        }
    #ifdef SAN_BY_CPU
    #include <immintrin.h>
    #define SAN_AT_MOST4(v, x) _mm_movemask_ps(_mm_cmple_ps(v, _mm_set1_ps(x)))
    #define SAN_BELOW4(v, x) _mm_movemask_ps(_mm_cmplt_ps(v, _mm_set1_ps(x)))
    #define SAN_AT_MOST8(v, x) \\
        (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(v, _mm256_set1_ps(x), _CMP_LE_OQ))
    #define SAN_BELOW8(v, x) \\
        (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(v, _mm256_set1_ps(x), _CMP_LT_OQ))
    #define SAN_AT_MOST16(v, x) _mm512_cmp_ps_mask(v, _mm512_set1_ps(x), _CMP_LE_OQ)
    #define SAN_BELOW16(v, x) _mm512_cmp_ps_mask(v, _mm512_set1_ps(x), _CMP_LT_OQ)
    #define SAN_BY_CPU_WITHIN(name, is4, is8, is16) \\
        SAN_WITHIN(name##4, , 4, _mm_loadu_ps, _mm_add_ps, is4) \\
        SAN_WITHIN(name##8, __attribute__((target("avx2"))), 8, \\
                   _mm256_loadu_ps, _mm256_add_ps, is8) \\
        SAN_WITHIN(name##16, __attribute__((target("avx512f"))), 16, \\
                   _mm512_loadu_ps, _mm512_add_ps, is16) \\
        static inline void name(const float *values, const float *added, int32_t words, \\
                                float limit, uint64_t *out) { \\
            if (__builtin_cpu_supports("avx512f")) name##16(values, added, words, limit, out); \\
            else if (__builtin_cpu_supports("avx2")) name##8(values, added, words, limit, out); \\
            else name##4(values, added, words, limit, out); \\
        }
    SAN_BY_CPU_WITHIN(san_at_most, SAN_AT_MOST4, SAN_AT_MOST8, SAN_AT_MOST16)
    SAN_BY_CPU_WITHIN(san_below, SAN_BELOW4, SAN_BELOW8, SAN_BELOW16)
    #else
    #define SAN_LOAD1(p) (*(p))
    #define SAN_ADD1(a, b) ((a) + (b))
    #define SAN_AT_MOST1(v, x) ((v) <= (x))
    #define SAN_BELOW1(v, x) ((v) < (x))
    SAN_WITHIN(san_at_most, , 1, SAN_LOAD1, SAN_ADD1, SAN_AT_MOST1)
    SAN_WITHIN(san_below, , 1, SAN_LOAD1, SAN_ADD1, SAN_BELOW1)
    #endif
    """
    void at_most "san_at_most"(
        const float* values, const float* added, int32_t words, float limit, uint64_t* out
    ) noexcept nogil
    void below "san_below"(
        const float* values, const float* added, int32_t words, float limit, uint64_t* out
    ) noexcept nogil
    void prefetch "__builtin_prefetch"(const void* place) noexcept nogil
    int32_t popcount "__builtin_popcountll"(uint64_t bits) noexcept nogil
    int32_t lowest "__builtin_ctzll"(uint64_t bits) noexcept nogil
