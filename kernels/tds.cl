// One pass over the pixels: TDS model, its derivatives, and per-blob Gram sums of the separable fit.
//
// S = Σ_n Qᵀ(Γ + n²a)⁻¹Q with Γ = Christoffel matrix of q; cut at |n| = n_max, the rest as a series in Γ/a (the tail).
// With ε the Voigt strain of (u, q), u = (Γ + n²a)⁻¹Q:  ∂S/∂C_IJ = −ε_I ε_J (doubled for I ≠ J); with the stress
// σ = Cε as a 3×3 matrix, ∂S/∂Q = 2u at fixed q and ∂S/∂q = −2σu at fixed Q.
//
// Prepended by the host (see tds2el.model.source): VEC, DOUBLE, LOCAL; the columns, of which there are N_COLUMNS, in
// their order: N_CONSTANTS, SCALE, TURNS, PLANES, BEAMS, LAMBDA, NODE, CENTRE, then S and 1, SLOPE, TAU, residual; MOTION
// and BACKGROUND; the macro DERIVATIVES(OUT, M) that combines the strain products into ∂S/∂p for the tensor at hand,
// PRODUCTS(X), which lists the products ε_I ε_J that it needs; and RELATIVE_ERROR.

#define AFTER_CONSTANTS (N_CONSTANTS + SCALE)
#define AFTER_GEOMETRY (AFTER_CONSTANTS + TURNS + PLANES + BEAMS + LAMBDA)
#define SIGNAL (AFTER_GEOMETRY + 3 * NODE + 3 * CENTRE)
#define N_GRAM (N_COLUMNS * (N_COLUMNS + 1) / 2)
#define N_SUMS (N_GRAM + 2)  // + half the deviance, + pixels below the floor
#define GRADIENT (AFTER_GEOMETRY > AFTER_CONSTANTS || NODE || CENTRE)

// Per blob: node (3), shift of q (3), factor, baseline, floor of the model, τ, slope (3).
#define BLOB_SIZE 13

typedef struct {
    real x, y, z;
} vec3;

typedef struct {
    real xx, yy, zz, yz, xz, xy;
} sym3;

inline vec3 times(sym3 m, vec3 v) {
    vec3 r;
    r.x = m.xx * v.x + m.xy * v.y + m.xz * v.z;
    r.y = m.xy * v.x + m.yy * v.y + m.yz * v.z;
    r.z = m.xz * v.x + m.yz * v.y + m.zz * v.z;
    return r;
}

inline real dot3(vec3 a, vec3 b) { return a.x * b.x + a.y * b.y + a.z * b.z; }

inline vec3 cross3(vec3 a, vec3 b) {
    vec3 r;
    r.x = a.y * b.z - a.z * b.y;
    r.y = a.z * b.x - a.x * b.z;
    r.z = a.x * b.y - a.y * b.x;
    return r;
}

// a + s·b
inline vec3 plus(vec3 a, real s, vec3 b) {
    vec3 r;
    r.x = a.x + s * b.x;
    r.y = a.y + s * b.y;
    r.z = a.z + s * b.z;
    return r;
}

inline vec3 constant3(__constant const float *v) {
    vec3 r;
    r.x = REAL(v[0]);
    r.y = REAL(v[1]);
    r.z = REAL(v[2]);
    return r;
}

// Solves m·u = v by the adjugate; m is symmetric and positive definite.
inline vec3 solve(sym3 m, vec3 v) {
    sym3 adjugate;
    adjugate.xx = m.yy * m.zz - m.yz * m.yz;
    adjugate.xy = m.xz * m.yz - m.xy * m.zz;
    adjugate.xz = m.xy * m.yz - m.xz * m.yy;
    adjugate.yy = m.xx * m.zz - m.xz * m.xz;
    adjugate.yz = m.xy * m.xz - m.xx * m.yz;
    adjugate.zz = m.xx * m.yy - m.xy * m.xy;
    real determinant = m.xx * adjugate.xx + m.xy * adjugate.xy + m.xz * adjugate.xz;
    real inverse = REAL(1.0f) / determinant;
    vec3 u = times(adjugate, v);
    u.x *= inverse;
    u.y *= inverse;
    u.z *= inverse;
    return u;
}

#define ROW6(g, k, a, b, c, d, e, f) \
    (g[6 * (k)] * (a) + g[6 * (k) + 1] * (b) + g[6 * (k) + 2] * (c) + g[6 * (k) + 3] * (d) + g[6 * (k) + 4] * (e) + g[6 * (k) + 5] * (f))

// Γ(q) from its 6 × 6 coefficients: rows xx yy zz yz xz xy of Γ, columns the same products of q.
inline sym3 christoffel(__constant const float *g, vec3 q) {
    real xx = q.x * q.x, yy = q.y * q.y, zz = q.z * q.z, yz = q.y * q.z, xz = q.x * q.z, xy = q.x * q.y;
    sym3 m;
    m.xx = ROW6(g, 0, xx, yy, zz, yz, xz, xy);
    m.yy = ROW6(g, 1, xx, yy, zz, yz, xz, xy);
    m.zz = ROW6(g, 2, xx, yy, zz, yz, xz, xy);
    m.yz = ROW6(g, 3, xx, yy, zz, yz, xz, xy);
    m.xz = ROW6(g, 4, xx, yy, zz, yz, xz, xy);
    m.xy = ROW6(g, 5, xx, yy, zz, yz, xz, xy);
    return m;
}

inline void strain(vec3 u, vec3 q, real *e) {
    e[0] = u.x * q.x;
    e[1] = u.y * q.y;
    e[2] = u.z * q.z;
    e[3] = u.y * q.z + u.z * q.y;
    e[4] = u.x * q.z + u.z * q.x;
    e[5] = u.x * q.y + u.y * q.x;
}

// σ = Cε; c holds the 6 × 6 tensor.
inline sym3 stress(__constant const float *c, const real *e) {
    sym3 m;
    m.xx = ROW6(c, 0, e[0], e[1], e[2], e[3], e[4], e[5]);
    m.yy = ROW6(c, 1, e[0], e[1], e[2], e[3], e[4], e[5]);
    m.zz = ROW6(c, 2, e[0], e[1], e[2], e[3], e[4], e[5]);
    m.yz = ROW6(c, 3, e[0], e[1], e[2], e[3], e[4], e[5]);
    m.xz = ROW6(c, 4, e[0], e[1], e[2], e[3], e[4], e[5]);
    m.xy = ROW6(c, 5, e[0], e[1], e[2], e[3], e[4], e[5]);
    return m;
}

// t − log(1 + t), accurate for small t too. Called with t > −1.
inline real minus_log1p(real t) {
    real series = t * t * (REAL(0.5f) + t * (REAL(-1.0f / 3) + t * (REAL(0.25f) + t * (REAL(-0.2f) + t * (REAL(1.0f / 6)
                  + t * (REAL(-1.0f / 7) + t * REAL(0.125f)))))));
    real direct = t - log(REAL(1.0f) + t);
    return WHERE(t * t < REAL(0.01f), series, direct);
}

#if MOTION
// Where a pixel is: row and column on the detector, and cos φ, sin φ of its frame.
typedef struct {
    real row, column, c, s;
} place;

// Layout of `motion`: M₀ M₁ M₂ (27), their change (27), P (9), its change (9), b (3), its change (3), 1/λ, its change, then
// 9 floats w₀ w₁ w₂ for each of TURNS, 9 floats ∂P/∂p for each of PLANES, 3 floats ∂b/∂p for each of BEAMS.
#define M_TURN 0
#define M_TURN_CHANGE 27
#define M_PLANE 54
#define M_PLANE_CHANGE 63
#define M_BEAM 72
#define M_BEAM_CHANGE 75
#define M_WAVE 78
#define M_TURNS 80
#define M_PLANES (M_TURNS + 9 * TURNS)
#define M_BEAMS (M_PLANES + 9 * PLANES)

// (h₀ + h₁ cos φ + h₂ sin φ) v of 3 × 3 matrices
inline vec3 turned(__constant const float *h, place at, vec3 v) {
    vec3 r;
#define ENTRY(i) (h[i] + h[9 + (i)] * at.c + h[18 + (i)] * at.s)
    r.x = ENTRY(0) * v.x + ENTRY(1) * v.y + ENTRY(2) * v.z;
    r.y = ENTRY(3) * v.x + ENTRY(4) * v.y + ENTRY(5) * v.z;
    r.z = ENTRY(6) * v.x + ENTRY(7) * v.y + ENTRY(8) * v.z;
#undef ENTRY
    return r;
}

// Pixel → 3 × 3 matrix times (row, column, 1).
inline vec3 on_plane(__constant const float *m, place at) {
    vec3 r;
    r.x = m[0] * at.row + m[1] * at.column + m[2];
    r.y = m[3] * at.row + m[4] * at.column + m[5];
    r.z = m[6] * at.row + m[7] * at.column + m[8];
    return r;
}

// Q − Q of the harvest, without cancellation; also Q in the lab, and the unit vector to the pixel and 1/distance.
inline vec3 change_of_q(__constant const float *motion, place at, vec3 *lab, vec3 *direction, real *inverse) {
    vec3 p = on_plane(motion + M_PLANE, at), change = on_plane(motion + M_PLANE_CHANGE, at);
    vec3 before = plus(p, REAL(-1.0f), change);
    real length = sqrt(dot3(p, p)), length_before = sqrt(dot3(before, before));
    real longer = dot3(plus(p, REAL(1.0f), before), change) / (length + length_before);
    *inverse = REAL(1.0f) / length;
    vec3 zero = {REAL(0.0f), REAL(0.0f), REAL(0.0f)};
    *direction = plus(zero, *inverse, p);
    vec3 moved = plus(constant3(motion + M_BEAM_CHANGE), REAL(1.0f) / length_before, plus(change, -longer, *direction));
    vec3 sum = plus(*direction, REAL(1.0f), constant3(motion + M_BEAM));
    real wave = REAL(motion[M_WAVE]), wave_change = REAL(motion[M_WAVE + 1]);
    *lab = plus(zero, wave, sum);
    vec3 lab_change = plus(plus(zero, wave - wave_change, moved), wave_change, sum);
    vec3 lab_before = plus(*lab, REAL(-1.0f), lab_change);
    vec3 first = turned(motion + M_TURN_CHANGE, at, lab_before), second = turned(motion + M_TURN, at, lab_change);
    return plus(first, REAL(1.0f), second);
}
#endif

// The model of one step of VEC pixels and, where `columns` is wanted, its derivatives.
typedef struct {
    real s;
    real columns[N_COLUMNS];
} pixel_model;

#if MOTION
#define PLACE_ARGUMENT , __constant const float *motion, place at
#define PLACE_VALUE , motion, at
#else
#define PLACE_ARGUMENT
#define PLACE_VALUE
#endif

// `tensor`: 36 coefficients of Γ, then the 36 entries of C. Returns q at the current geometry and centre.
inline vec3 evaluate(vec3 q, vec3 node, __constant const float *tensor, __constant const float *quantum,
                     int n_max, pixel_model *out PLACE_ARGUMENT) {
#if MOTION
    vec3 lab, direction;
    real inverse;
    q = plus(q, REAL(1.0f), change_of_q(motion, at, &lab, &direction, &inverse));
#endif
    vec3 Q = plus(node, REAL(1.0f), q);
    sym3 gamma = christoffel(tensor, q);
    float a = quantum[0], t0 = quantum[1], t1 = quantum[2], t2 = quantum[3];

    real e[6], E[6], V[6];
    vec3 u = solve(gamma, Q), v = times(gamma, Q);
    strain(u, q, e);
    strain(Q, q, E);
    strain(v, q, V);
    real QQ = dot3(Q, Q), QGQ = dot3(Q, v), GQGQ = dot3(v, v);
    real s = dot3(Q, u) + t0 * QQ + t1 * QGQ + t2 * GQGQ;
#define FIRST(I, J) real M##I##J = t1 * E[I] * E[J] + t2 * (V[I] * E[J] + E[I] * V[J]) - e[I] * e[J];
    PRODUCTS(FIRST)
#if SCALE
    real scale = t0 * QQ + 2.0f * t1 * QGQ + 3.0f * t2 * GQGQ;
#endif
#if GRADIENT
    // Half of ∂S/∂Q at fixed q, and of ∂S/∂q at fixed Q.
    __constant const float *c = tensor + 36;
    sym3 sigma = stress(c, E);
    vec3 by_big = plus(plus(plus(u, REAL(t0), Q), REAL(t1), v), REAL(t2), times(gamma, v));
    vec3 zero = {REAL(0.0f), REAL(0.0f), REAL(0.0f)};
    vec3 by_small = plus(plus(zero, REAL(t1), times(sigma, Q)), REAL(t2), times(sigma, v));
    by_small = plus(by_small, REAL(t2), times(stress(c, V), Q));
    by_small = plus(by_small, REAL(-1.0f), times(stress(c, e), u));
#endif
    for (int n = 1; n <= n_max; ++n) {
        float shift = a * n * n;
        sym3 shifted = gamma;
        shifted.xx += shift;
        shifted.yy += shift;
        shifted.zz += shift;
        u = solve(shifted, Q);
        strain(u, q, e);
        s += 2.0f * dot3(Q, u);
#define NEXT(I, J) M##I##J -= 2.0f * e[I] * e[J];
        PRODUCTS(NEXT)
#if SCALE
        scale += 2.0f * shift * dot3(u, u);
#endif
#if GRADIENT
        by_big = plus(by_big, REAL(2.0f), u);
        by_small = plus(by_small, REAL(-2.0f), times(stress(c, e), u));
#endif
    }
    out->s = s;
    DERIVATIVES(out->columns)
#if SCALE
    out->columns[N_CONSTANTS] = scale;
#endif
#if AFTER_GEOMETRY > AFTER_CONSTANTS
    {
        int column = AFTER_CONSTANTS;
        vec3 both = plus(by_big, REAL(1.0f), by_small);
        vec3 torque = cross3(turned(motion + M_TURN, at, lab), both);  // (w×Q)·g = w·(Q×g)
        for (int k = 0; k < TURNS; ++k) {
            __constant const float *w = motion + M_TURNS + 9 * k;
            vec3 axis;
            axis.x = w[0] + w[3] * at.c + w[6] * at.s;
            axis.y = w[1] + w[4] * at.c + w[7] * at.s;
            axis.z = w[2] + w[5] * at.c + w[8] * at.s;
            out->columns[column++] = 2.0f * dot3(axis, torque);
        }
        for (int k = 0; k < PLANES; ++k) {
            vec3 moved = on_plane(motion + M_PLANES + 9 * k, at);
            vec3 across = plus(moved, -dot3(direction, moved), direction);
            out->columns[column++] = 2.0f * motion[M_WAVE] * inverse * dot3(turned(motion + M_TURN, at, across), both);
        }
        for (int k = 0; k < BEAMS; ++k) {
            vec3 moved = turned(motion + M_TURN, at, constant3(motion + M_BEAMS + 3 * k));
            out->columns[column++] = 2.0f * motion[M_WAVE] * dot3(moved, both);
        }
#if LAMBDA
        out->columns[column] = -2.0f * motion[M_WAVE] * dot3(turned(motion + M_TURN, at, lab), both);
#endif
    }
#endif
#if NODE
    out->columns[AFTER_GEOMETRY] = -2.0f * by_small.x;
    out->columns[AFTER_GEOMETRY + 1] = -2.0f * by_small.y;
    out->columns[AFTER_GEOMETRY + 2] = -2.0f * by_small.z;
#endif
#if CENTRE
    out->columns[SIGNAL - 3] = -2.0f * (by_big.x + by_small.x);
    out->columns[SIGNAL - 2] = -2.0f * (by_big.y + by_small.y);
    out->columns[SIGNAL - 1] = -2.0f * (by_big.z + by_small.z);
#endif
    out->columns[SIGNAL] = s;
    out->columns[SIGNAL + 1] = REAL(1.0f);
#if SLOPE
    out->columns[SIGNAL + 2] = q.x;
    out->columns[SIGNAL + 3] = q.y;
    out->columns[SIGNAL + 4] = q.z;
#endif
    return q;
}

// chunks: (blob, first pixel, number of pixels), the last two in multiples of VEC.
// centres: N_COLUMNS − 1 floats per blob. Padding, and pixels that are not used, have correction 0.
__kernel void gram(__global const float *qx, __global const float *qy, __global const float *qz,
                   __global const float *counts, __global const float *correction,
#if BACKGROUND
                   __global const float *background, __global const float *share,
#endif
#if MOTION
                   __global const float *rows, __global const float *column_numbers, __global const float *cosines,
                   __global const float *sines, __constant const float *motion,
#endif
                   __global const ulong *chunks, __global const float *blobs, __global const float *centres,
                   __constant const float *tensor, __constant const float *quantum, int n_max,
                   __global sum_t *sums) {
    size_t chunk = get_group_id(0);
    ulong blob = chunks[3 * chunk];
    ulong first = chunks[3 * chunk + 1] / VEC, count = chunks[3 * chunk + 2] / VEC;
    __global const float *b = blobs + BLOB_SIZE * blob;
    vec3 node, shift;
    node.x = REAL(b[0]);
    node.y = REAL(b[1]);
    node.z = REAL(b[2]);
    shift.x = REAL(b[3]);
    shift.y = REAL(b[4]);
    shift.z = REAL(b[5]);
    float factor = b[6], baseline = b[7], floor_ = b[8];

    wide total[N_SUMS];
    for (int k = 0; k < N_SUMS; ++k) total[k] = 0;

    for (ulong i = first + get_local_id(0); i < first + count; i += LOCAL) {
        vec3 q;
        q.x = LOAD(i, qx);
        q.y = LOAD(i, qy);
        q.z = LOAD(i, qz);
        q = plus(q, REAL(1.0f), shift);
        real N = LOAD(i, counts), kappa = LOAD(i, correction);
        pixel_model model;
#if MOTION
        place at = {LOAD(i, rows), LOAD(i, column_numbers), LOAD(i, cosines), LOAD(i, sines)};
#endif
        q = evaluate(q, node, tensor, quantum, n_max, &model PLACE_VALUE);
        mask good = kappa > 0.0f;

        real intensity = factor * model.s + baseline;
#if SLOPE
        intensity += b[10] * q.x + b[11] * q.y + b[12] * q.z;
#endif
#if BACKGROUND
        real B = LOAD(i, background);
        real m = kappa * intensity + b[9] * B;
#if TAU
        model.columns[N_COLUMNS - 2] = B / WHERE(good, kappa, REAL(1.0f));
#endif
#else
        real m = kappa * intensity;
#endif
        mask low = (m < floor_) & good;
        real mc = WHERE(m < floor_, REAL(floor_), m);  // below the floor ln m is a parabola at the floor
        real under = m - mc, t = under / mc;
        // Variance m + (ε m)²; the deviance of counts with that variance (negative binomial) is D(N|m) below.
        real tc = (mc - N) / WHERE(N > 0.0f, N, REAL(1.0f));
        real half_deviance = WHERE(N > 0.0f, N * minus_log1p(tc), mc) + under - N * t * (1.0f - 0.5f * t);
#ifdef RELATIVE_ERROR
        real e2 = REAL(RELATIVE_ERROR * RELATIVE_ERROR);
        real variance = mc * (1.0f + e2 * mc);
        real slope = (1.0f + e2 * N) / (1.0f + e2 * mc);  // of the second logarithm, continued by its tangent
        real residual = variance * (N * (1.0f - t) / mc - slope);
        real size = N + 1.0f / e2;
        half_deviance -= size * minus_log1p((mc - N) / size) + under * (1.0f - slope);
#else
        real variance = mc;
        real residual = N * (1.0f - t) - mc;
#endif
        real weight = WHERE(good, REAL(1.0f) / variance, REAL(0.0f));
#if BACKGROUND
        real part = LOAD(i, share);  // of the information, which the background's own variance leaves
        weight *= part;
        half_deviance *= part;
#endif
        half_deviance = WHERE(good, half_deviance, REAL(0.0f));

        wide column[N_COLUMNS];
        for (int k = 0; k < N_COLUMNS - 1; ++k) {
            // A pixel that is not used may lie where the model has its pole.
            real value = WHERE(good, model.columns[k], REAL(0.0f));
#if DOUBLE
            column[k] = WIDE(value * kappa);
#else
            column[k] = (value - centres[blob * (N_COLUMNS - 1) + k]) * kappa;
#endif
        }
        column[N_COLUMNS - 1] = WIDE(WHERE(good, residual, REAL(0.0f)));
        wide w = WIDE(weight);
        int sum = 0;
#pragma unroll
        for (int k = 0; k < N_COLUMNS; ++k) {
            wide weighted = column[k] * w;
#pragma unroll
            for (int l = 0; l <= k; ++l) {
                total[sum] += weighted * column[l];
                ++sum;
            }
        }
        total[N_GRAM] += WIDE(half_deviance);
        total[N_GRAM + 1] += WIDE(WHERE(low, REAL(1.0f), REAL(0.0f)));
    }

#if LOCAL == 1
    for (int k = 0; k < N_SUMS; ++k) sums[chunk * N_SUMS + k] = lane_sum(total[k]);
#else
    __local sum_t shared[LOCAL];
    size_t lane = get_local_id(0);
    for (int k = 0; k < N_SUMS; ++k) {
        shared[lane] = lane_sum(total[k]);
        for (int half_ = LOCAL / 2; half_ > 0; half_ /= 2) {
            barrier(CLK_LOCAL_MEM_FENCE);
            if (lane < half_) shared[lane] += shared[lane + half_];
        }
        if (lane == 0) sums[chunk * N_SUMS + k] = shared[0];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
#endif
}

// S of the pixels of one blob, which start at `offset`; the host applies factor, baseline and correction.
__kernel void intensity(__global const float *qx, __global const float *qy, __global const float *qz,
#if MOTION
                        __global const float *rows, __global const float *column_numbers,
                        __global const float *cosines, __global const float *sines, __constant const float *motion,
#endif
                        __global const ulong *chunks, __global const float *blobs, __constant const float *tensor,
                        __constant const float *quantum, int n_max, ulong offset, __global float *s) {
    size_t chunk = get_group_id(0);
    ulong first = chunks[3 * chunk + 1] / VEC, count = chunks[3 * chunk + 2] / VEC;
    __global const float *b = blobs + BLOB_SIZE * chunks[3 * chunk];
    vec3 node, shift;
    node.x = REAL(b[0]);
    node.y = REAL(b[1]);
    node.z = REAL(b[2]);
    shift.x = REAL(b[3]);
    shift.y = REAL(b[4]);
    shift.z = REAL(b[5]);
    for (ulong i = first + get_local_id(0); i < first + count; i += LOCAL) {
        vec3 q;
        q.x = LOAD(i, qx);
        q.y = LOAD(i, qy);
        q.z = LOAD(i, qz);
        pixel_model model;
#if MOTION
        place at = {LOAD(i, rows), LOAD(i, column_numbers), LOAD(i, cosines), LOAD(i, sines)};
#endif
        evaluate(plus(q, REAL(1.0f), shift), node, tensor, quantum, n_max, &model PLACE_VALUE);
        STORE(model.s, i - offset / VEC, s);
    }
}
