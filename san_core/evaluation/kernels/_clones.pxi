# Hot functions are compiled for several instruction sets, and the loader takes the best one the
# machine has. A function is marked by a C prototype before Cython's own, which inherits it.
cdef extern from *:
    """
    #include <stdint.h>
    #if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__)
    #define SAN_BY_CPU 1
    #define SAN_CLONES __attribute__((flatten, \\
        target_clones("avx512f", "avx2", "default")))
    #define SAN_LEVEL (__builtin_cpu_supports("avx512f") ? "AVX-512" : \\
        __builtin_cpu_supports("avx2") ? "AVX2" : "SSE2")
    #else
    #define SAN_CLONES
    #define SAN_LEVEL "the compiler's target"
    #endif
    """
