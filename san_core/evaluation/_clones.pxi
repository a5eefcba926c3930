# Hot functions are compiled for several instruction sets, and the loader takes the best one the
# machine has. A function is marked by a C prototype before Cython's own, which inherits it.
cdef extern from *:
    """
    #include <stdint.h>
    #if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__)
    #define SAN_CLONES __attribute__((flatten, \\
        target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
    #define SAN_LEVEL (__builtin_cpu_supports("x86-64-v4") ? "x86-64-v4" : \\
        __builtin_cpu_supports("x86-64-v3") ? "x86-64-v3" : "x86-64")
    #else
    #define SAN_CLONES
    #define SAN_LEVEL "the compiler's target"
    #endif
    """
