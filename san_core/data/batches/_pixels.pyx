# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Inner loops of a processor's batches: bytes become floats in one pass over memory.

Nothing is checked here: callers in this package pass contiguous arrays of the sizes stated, with
indices in range. All loops run without the GIL and touch no Python object.
"""

cdef extern from *:
    """
    #include <math.h>
    #include <stddef.h>
    #include <stdint.h>
    #if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__)
    #define SAN_CLONES __attribute__((target_clones("avx512f", "arch=haswell", "default")))
    #else
    #define SAN_CLONES
    #endif
    SAN_CLONES static void normalise_row(const uint8_t *restrict bytes,
                                         const float *restrict factor,
                                         const float *restrict offset, float *restrict out,
                                         ptrdiff_t length) {
        for (ptrdiff_t i = 0; i < length; i++)
            out[i] = fmaf(factor[i], bytes[i], offset[i]);
    }
    SAN_CLONES static void scale_bytes(const uint8_t *restrict bytes, float *restrict out,
                                       ptrdiff_t length) {
        for (ptrdiff_t i = 0; i < length; i++)
            out[i] = (bytes[i] - 127.5f) * (1 / 127.5f);
    }
    """
    void normalise_row(
        const unsigned char *, const float *, const float *, float *, Py_ssize_t
    ) nogil
    void scale_bytes(const unsigned char *, float *, Py_ssize_t) nogil


def normalise_rows(
    const unsigned char[:, ::1] rows, const float[::1] factor, const float[::1] offset,
    float[:, ::1] out,
):
    """out = factor * rows + offset, rounded once as torch does.

    rows and out: (N, W). factor and offset: (W,).
    """
    cdef Py_ssize_t i
    with nogil:
        for i in range(rows.shape[0]):
            normalise_row(&rows[i, 0], &factor[0], &offset[0], &out[i, 0], rows.shape[1])


def scale_texture(const unsigned char[::1] texture, float[::1] out):
    """Bytes 0 ... 255 as -1 ... 1. texture and out: (n,)."""
    with nogil:
        scale_bytes(&texture[0], &out[0], texture.shape[0])


def move_texels(const unsigned char[::1] texture, const int[::1] texels, float[::1] out):
    """Texel i becomes texel texels[i], scaled so. texture and out: (3 * n,)."""
    cdef Py_ssize_t i
    cdef int level
    cdef float[256] scaled
    cdef const unsigned char *texel
    for level in range(256):
        scaled[level] = (level - <float>127.5) * (1 / <float>127.5)
    with nogil:
        for i in range(texels.shape[0]):
            texel = &texture[3 * texels[i]]
            out[3 * i] = scaled[texel[0]]
            out[3 * i + 1] = scaled[texel[1]]
            out[3 * i + 2] = scaled[texel[2]]


def average_texels(
    const unsigned char[::1] texture, const int[::1] texels, const float[::1] weights,
    const long long[::1] starts, float[::1] out,
):
    """Texel i becomes a weighted sum of texels[starts[i]:starts[i + 1]], scaled so.

    texels and weights: (m,). starts: (n + 1,). texture and out: (3 * n,).
    """
    cdef Py_ssize_t i, k, c
    cdef float total
    with nogil:
        for i in range(starts.shape[0] - 1):
            for c in range(3):
                total = 0
                for k in range(starts[i], starts[i + 1]):
                    total += weights[k] * texture[3 * texels[k] + c]
                out[3 * i + c] = (total - <float>127.5) * (1 / <float>127.5)
