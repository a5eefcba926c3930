# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Inner loops of the synthesiser: rasteriser, sensor, skinning, normals, noise, baking.

Nothing is checked here: callers in this package pass contiguous arrays of the sizes stated, with
indices in range. All loops run without the GIL and touch no Python object.
"""

from libc.math cimport ceilf, floorf, sqrtf

cdef float EDGE = 1e-5  # share of a face: no sample between two faces is lost by rounding


def rasterise(
    const float[:, ::1] points, const float[:, ::1] light, const float[:, ::1] uv,
    const int[:, ::1] faces, const int[:, ::1] uv_faces, const unsigned char[:, :, ::1] texture,
    unsigned char[:, :, ::1] rgba, float[:, ::1] nearest, float[:, :, ::1] uv_pass,
):
    """Draw a textured mesh with a z-buffer; faces turned away are left out.

    points: (V, 3) column, row and inverse depth in pixels. light: (V, 3) factor per channel.
    uv: (U, 2) in texel centres. rgba: (H, W, 4), alpha 255 on the mesh. nearest: (H, W) inverse
    depth, zeros at first. uv_pass: (H, W, 2) texel coordinates, or (0, 0, 2) for none.
    """
    cdef int n_faces = faces.shape[0], H = rgba.shape[0], W = rgba.shape[1]
    cdef int last_row = texture.shape[0] - 1, last_column = texture.shape[1] - 1
    cdef bint keep_uv = uv_pass.shape[0] > 0
    cdef int i, j, a, b, c, x, y, x0, x1, y0, y1, k, iu, iv
    cdef float ax, ay, bx, by, cx, cy, area, inverse, w0, w1, w2, p0, p1, p2, px, py
    cdef float az, bz, cz, z, u, v, fu, fv, colour, low, high, q00, q01, q10, q11
    cdef float dw0, dw1
    # Copies of a face's corners: writing bytes makes the compiler read everything else anew.
    cdef float[3] fu_, fv_
    cdef float[9] lit
    cdef const unsigned char *upper
    cdef const unsigned char *lower
    cdef unsigned char *pixel
    cdef float *depth
    cdef int right
    with nogil:
        for i in range(n_faces):
            a = faces[i, 0]; b = faces[i, 1]; c = faces[i, 2]
            ax = points[a, 0]; ay = points[a, 1]
            bx = points[b, 0]; by = points[b, 1]
            cx = points[c, 0]; cy = points[c, 1]
            area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
            if area >= 0:
                continue
            low = min(ax, bx, cx); high = max(ax, bx, cx)
            x0 = max(<int>ceilf(low - 0.5), 0); x1 = min(<int>floorf(high - 0.5), W - 1)
            low = min(ay, by, cy); high = max(ay, by, cy)
            y0 = max(<int>ceilf(low - 0.5), 0); y1 = min(<int>floorf(high - 0.5), H - 1)
            if x0 > x1 or y0 > y1:
                continue
            inverse = 1 / area
            az = points[a, 2]; bz = points[b, 2]; cz = points[c, 2]
            for j in range(3):
                fu_[j] = uv[uv_faces[i, j], 0]; fv_[j] = uv[uv_faces[i, j], 1]
                for k in range(3):
                    lit[3 * j + k] = light[faces[i, j], k]
            dw0 = (by - cy) * inverse; dw1 = (cy - ay) * inverse  # from one pixel to the next
            for y in range(y0, y1 + 1):
                py = y + 0.5
                px = x0 + 0.5
                w0 = ((bx - px) * (cy - py) - (by - py) * (cx - px)) * inverse - dw0
                w1 = ((cx - px) * (ay - py) - (cy - py) * (ax - px)) * inverse - dw1
                depth = &nearest[y, 0]
                pixel = &rgba[y, x0, 0] - 4
                for x in range(x0, x1 + 1):
                    w0 += dw0; w1 += dw1; pixel += 4
                    w2 = 1 - w0 - w1
                    if w0 < -EDGE or w1 < -EDGE or w2 < -EDGE:
                        continue
                    z = w0 * az + w1 * bz + w2 * cz
                    if z <= depth[x]:
                        continue
                    depth[x] = z
                    # Texel coordinates are linear in the scene, not on the screen.
                    p0 = w0 * az / z; p1 = w1 * bz / z; p2 = 1 - p0 - p1
                    u = p0 * fu_[0] + p1 * fu_[1] + p2 * fu_[2]
                    v = p0 * fv_[0] + p1 * fv_[1] + p2 * fv_[2]
                    u = min(max(u, 0.0), <float>last_column); v = min(max(v, 0.0), <float>last_row)
                    if keep_uv:
                        uv_pass[y, x, 0] = u; uv_pass[y, x, 1] = v
                    iu = <int>u; iv = <int>v
                    fu = u - iu; fv = v - iv
                    upper = &texture[iv, iu, 0]
                    lower = &texture[min(iv + 1, last_row), iu, 0]
                    right = 3 if iu < last_column else 0
                    q00 = (1 - fu) * (1 - fv); q01 = fu * (1 - fv)
                    q10 = (1 - fu) * fv; q11 = fu * fv
                    for k in range(3):
                        colour = (
                            upper[k] * q00 + upper[right + k] * q01
                            + lower[k] * q10 + lower[right + k] * q11
                        ) * (w0 * lit[k] + w1 * lit[3 + k] + w2 * lit[6 + k])
                        pixel[k] = <unsigned char>min(colour, 255.0)
                    pixel[3] = 255


def composite(
    const unsigned char[:, :, ::1] rgba, const float[:, :, ::1] background,
    const float[:, ::1] shade, float[:, :, ::1] out, float[:, ::1] alpha,
):
    """Average 2x2 pixels of a drawn mesh and lay them over a background darkened by `shade`.

    rgba: (2H, 2W, 4), zero off the mesh. background, out: (H, W, 3). shade, alpha: (H, W), 0-1.
    """
    cdef int H = background.shape[0], W = background.shape[1], y, x, k, r, c
    cdef float cover, rest
    with nogil:
        for y in range(H):
            r = 2 * y
            for x in range(W):
                c = 2 * x
                cover = (
                    <int>rgba[r, c, 3] + rgba[r, c + 1, 3] + rgba[r + 1, c, 3] + rgba[r + 1, c + 1, 3]
                ) * <float>(0.25 / 255)
                alpha[y, x] = cover
                rest = (1 - cover) * shade[y, x]
                for k in range(3):
                    out[y, x, k] = (
                        <int>rgba[r, c, k] + rgba[r, c + 1, k]
                        + rgba[r + 1, c, k] + rgba[r + 1, c + 1, k]
                    ) * <float>0.25 + background[y, x, k] * rest


def expose(
    const float[:, :, ::1] image, float red, float green, float blue, unsigned char[:, :, ::1] out,
):
    """Light times a gain per channel, cut off at 0 and 255. image, out: (H, W, 3)."""
    cdef int H = image.shape[0], W = image.shape[1], y, x, k
    cdef float[3] gain
    gain[0] = red; gain[1] = green; gain[2] = blue
    with nogil:
        for y in range(H):
            for x in range(W):
                for k in range(3):
                    out[y, x, k] = <unsigned char>min(max(image[y, x, k] * gain[k], 0.0), 255.0)


def develop(
    const unsigned char[:, :, ::1] picture, const float[::1] grain, int start, float amplitude,
    const unsigned char[::1] curve, unsigned char[:, :, ::1] out,
):
    """Add grain and bend tones. picture, out: (H, W, 3). curve: (256,).

    grain: (n,) values, n a power of two, taken in turn from `start` and again from the beginning.
    """
    cdef int size = picture.shape[0] * picture.shape[1] * picture.shape[2], mask = grain.shape[0] - 1
    cdef int i
    cdef const unsigned char *source = &picture[0, 0, 0]
    cdef unsigned char *target = &out[0, 0, 0]
    cdef float value
    with nogil:
        for i in range(size):
            value = source[i] + grain[(start + i) & mask] * amplitude
            target[i] = curve[<int>min(max(value, 0.0), 255.0)]


def vertex_normals(const float[:, ::1] vertices, const int[:, ::1] faces, float[:, ::1] out):
    """Area-weighted unit normals (V, 3) of a mesh; `out` is zeros at first."""
    cdef int n_faces = faces.shape[0], n_vertices = vertices.shape[0], i, j, k, a, b, c
    cdef float ux, uy, uz, vx, vy, vz, length
    cdef float[3] n
    with nogil:
        for i in range(n_faces):
            a = faces[i, 0]; b = faces[i, 1]; c = faces[i, 2]
            ux = vertices[b, 0] - vertices[a, 0]; vx = vertices[c, 0] - vertices[a, 0]
            uy = vertices[b, 1] - vertices[a, 1]; vy = vertices[c, 1] - vertices[a, 1]
            uz = vertices[b, 2] - vertices[a, 2]; vz = vertices[c, 2] - vertices[a, 2]
            n[0] = uy * vz - uz * vy; n[1] = uz * vx - ux * vz; n[2] = ux * vy - uy * vx
            for j in range(3):
                for k in range(3):
                    out[faces[i, j], k] += n[k]
        for i in range(n_vertices):
            length = sqrtf(out[i, 0] * out[i, 0] + out[i, 1] * out[i, 1] + out[i, 2] * out[i, 2])
            for k in range(3):
                out[i, k] /= max(length, <float>1e-12)


def skin(
    const float[:, ::1] vertices, const int[:, ::1] bones, const float[:, ::1] weights,
    const float[:, :, ::1] transforms, float[:, ::1] out,
):
    """Linear blend skinning with four bones per vertex.

    vertices, out: (V, 3). bones, weights: (V, 4). transforms: (B, 3, 4) rest to posed.
    """
    cdef int n_vertices = vertices.shape[0], i, j, k, bone
    cdef float w
    with nogil:
        for i in range(n_vertices):
            for k in range(3):
                out[i, k] = 0
            for j in range(4):
                w = weights[i, j]
                if w == 0:
                    continue
                bone = bones[i, j]
                for k in range(3):
                    out[i, k] += w * (
                        transforms[bone, k, 0] * vertices[i, 0]
                        + transforms[bone, k, 1] * vertices[i, 1]
                        + transforms[bone, k, 2] * vertices[i, 2]
                        + transforms[bone, k, 3]
                    )


def lattice_noise(
    const float[:, :, ::1] lattice, const float[:, ::1] points,
    float sx, float sy, float sz, float[::1] out,
):
    """Trilinear values of a cubic lattice, repeated through space, at points scaled per axis.

    lattice: (n, n, n). points: (N, 3), any position within a million cells of 0. out: (N,).
    """
    cdef int n = lattice.shape[0], n_points = points.shape[0], i, a, b, c, a1, b1, c1
    cdef float x, y, z, fx, fy, fz, near, far
    with nogil:
        for i in range(n_points):
            x = points[i, 0] * sx; y = points[i, 1] * sy; z = points[i, 2] * sz
            a = <int>floorf(x); b = <int>floorf(y); c = <int>floorf(z)
            fx = x - a; fy = y - b; fz = z - c
            a = (a % n + n) % n; b = (b % n + n) % n; c = (c % n + n) % n
            a1 = (a + 1) % n; b1 = (b + 1) % n; c1 = (c + 1) % n
            near = (
                (lattice[a, b, c] * (1 - fx) + lattice[a1, b, c] * fx) * (1 - fy)
                + (lattice[a, b1, c] * (1 - fx) + lattice[a1, b1, c] * fx) * fy
            )
            far = (
                (lattice[a, b, c1] * (1 - fx) + lattice[a1, b, c1] * fx) * (1 - fy)
                + (lattice[a, b1, c1] * (1 - fx) + lattice[a1, b1, c1] * fx) * fy
            )
            out[i] = near * (1 - fz) + far * fz


def bake(
    const float[:, ::1] uv, const int[:, ::1] uv_faces, int[:, ::1] face,
    float[:, :, ::1] barycentric,
):
    """Write at every texel centre the face that covers it and where in the face it lies.

    uv: (U, 2) in texel centres. face: (T, T), -1 where nothing covers. barycentric: (T, T, 3).
    Edges belong to both their faces and the later face wins.
    """
    cdef int n_faces = uv_faces.shape[0], H = face.shape[0], W = face.shape[1]
    cdef int i, x, y, x0, x1, y0, y1, a, b, c
    cdef float ax, ay, bx, by, cx, cy, area, inverse, w0, w1, w2
    cdef float slack = 1e-3
    with nogil:
        for i in range(n_faces):
            a = uv_faces[i, 0]; b = uv_faces[i, 1]; c = uv_faces[i, 2]
            ax = uv[a, 0]; ay = uv[a, 1]
            bx = uv[b, 0]; by = uv[b, 1]
            cx = uv[c, 0]; cy = uv[c, 1]
            area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
            if area == 0:
                continue
            inverse = 1 / area
            x0 = max(<int>ceilf(min(ax, bx, cx) - slack), 0)
            x1 = min(<int>floorf(max(ax, bx, cx) + slack), W - 1)
            y0 = max(<int>ceilf(min(ay, by, cy) - slack), 0)
            y1 = min(<int>floorf(max(ay, by, cy) + slack), H - 1)
            for y in range(y0, y1 + 1):
                for x in range(x0, x1 + 1):
                    w0 = ((bx - x) * (cy - y) - (by - y) * (cx - x)) * inverse
                    w1 = ((cx - x) * (ay - y) - (cy - y) * (ax - x)) * inverse
                    w2 = 1 - w0 - w1
                    if w0 < -slack or w1 < -slack or w2 < -slack:
                        continue
                    face[y, x] = i
                    barycentric[y, x, 0] = w0
                    barycentric[y, x, 1] = w1
                    barycentric[y, x, 2] = w2
