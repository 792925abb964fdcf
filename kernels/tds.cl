// One pass over the pixels: TDS model, its derivatives, and per-blob Gram sums of the separable fit.
//
// S = Σ_n Qᵀ(Γ + n²a)⁻¹Q with Γ = Christoffel matrix of q; cut at |n| = n_max, the rest as a series in Γ/a (the tail).
// With ε the Voigt strain of (u, q), u = (Γ + n²a)⁻¹Q:  ∂S/∂C_IJ = −ε_I ε_J (doubled for I ≠ J).
//
// Prepended by the host (see tds2el.model.source): VEC, DOUBLE, LOCAL, N_COLUMNS (derivatives, [ln s,] S, 1, residual),
// the macro DERIVATIVES(OUT, M) that combines the strain products into ∂S/∂p for the tensor at hand, PRODUCTS(X), which
// lists the products ε_I ε_J that it needs, SCALE_COLUMN, and RELATIVE_ERROR.

#define N_GRAM (N_COLUMNS * (N_COLUMNS + 1) / 2)
#define N_SUMS (N_GRAM + 2)  // + half the deviance, + pixels below the floor

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

// Γ(q) from its 6 × 6 coefficients: rows xx yy zz yz xz xy of Γ, columns the same products of q.
inline sym3 christoffel(__constant const float *g, vec3 q) {
    real xx = q.x * q.x, yy = q.y * q.y, zz = q.z * q.z, yz = q.y * q.z, xz = q.x * q.z, xy = q.x * q.y;
    sym3 m;
#define ROW(k) (g[6 * k] * xx + g[6 * k + 1] * yy + g[6 * k + 2] * zz + g[6 * k + 3] * yz + g[6 * k + 4] * xz + g[6 * k + 5] * xy)
    m.xx = ROW(0);
    m.yy = ROW(1);
    m.zz = ROW(2);
    m.yz = ROW(3);
    m.xz = ROW(4);
    m.xy = ROW(5);
#undef ROW
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

// t − log(1 + t), accurate for small t too. Called with t > −1.
inline real minus_log1p(real t) {
    real series = t * t * (REAL(0.5f) + t * (REAL(-1.0f / 3) + t * (REAL(0.25f) + t * (REAL(-0.2f) + t * (REAL(1.0f / 6)
                  + t * (REAL(-1.0f / 7) + t * REAL(0.125f)))))));
    real direct = t - log(REAL(1.0f) + t);
    return WHERE(t * t < REAL(0.01f), series, direct);
}

// The model of one step of VEC pixels and, where `columns` is wanted, its derivatives with respect to the constants.
typedef struct {
    real s;
    real columns[N_COLUMNS];
} pixel_model;

inline void evaluate(vec3 q, vec3 node, __constant const float *g, __constant const float *quantum, int n_max,
                     pixel_model *out) {
    vec3 Q;
    Q.x = node.x + q.x;
    Q.y = node.y + q.y;
    Q.z = node.z + q.z;
    sym3 gamma = christoffel(g, q);
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
#if SCALE_COLUMN
    real scale = t0 * QQ + 2.0f * t1 * QGQ + 3.0f * t2 * GQGQ;
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
#if SCALE_COLUMN
        scale += 2.0f * shift * dot3(u, u);
#endif
    }
    out->s = s;
    DERIVATIVES(out->columns)
#if SCALE_COLUMN
    out->columns[N_COLUMNS - 4] = scale;
#endif
    out->columns[N_COLUMNS - 3] = s;
    out->columns[N_COLUMNS - 2] = REAL(1.0f);
}

// chunks: (blob, first pixel, number of pixels), the last two in multiples of VEC.
// blobs: per blob 6 floats: node (3), factor, baseline, floor of the model; centres: N_COLUMNS − 1 floats per blob.
// Padding has correction 0.
__kernel void gram(__global const float *qx, __global const float *qy, __global const float *qz,
                   __global const float *counts, __global const float *correction, __global const ulong *chunks,
                   __global const float *blobs, __global const float *centres, __constant const float *g, __constant const float *quantum, int n_max,
                   __global sum_t *sums) {
    size_t chunk = get_group_id(0);
    ulong blob = chunks[3 * chunk];
    ulong first = chunks[3 * chunk + 1] / VEC, count = chunks[3 * chunk + 2] / VEC;
    __global const float *b = blobs + 6 * blob;
    vec3 node;
    node.x = REAL(b[0]);
    node.y = REAL(b[1]);
    node.z = REAL(b[2]);
    float factor = b[3], baseline = b[4], floor_ = b[5];

    wide total[N_SUMS];
    for (int k = 0; k < N_SUMS; ++k) total[k] = 0;

    for (ulong i = first + get_local_id(0); i < first + count; i += LOCAL) {
        vec3 q;
        q.x = LOAD(i, qx);
        q.y = LOAD(i, qy);
        q.z = LOAD(i, qz);
        real N = LOAD(i, counts), kappa = LOAD(i, correction);
        pixel_model model;
        evaluate(q, node, g, quantum, n_max, &model);

        real m = kappa * (factor * model.s + baseline);
        mask good = kappa > 0.0f, low = (m < floor_) & good;
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
        half_deviance = WHERE(good, half_deviance, REAL(0.0f));

        wide column[N_COLUMNS];
        for (int k = 0; k < N_COLUMNS - 1; ++k) {
#if DOUBLE
            column[k] = WIDE(model.columns[k] * kappa);
#else
            column[k] = (model.columns[k] - centres[blob * (N_COLUMNS - 1) + k]) * kappa;
#endif
        }
        column[N_COLUMNS - 1] = WIDE(residual);
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
                        __global const ulong *chunks, __global const float *blobs, __constant const float *g, __constant const float *quantum,
                        int n_max, ulong offset, __global float *s) {
    size_t chunk = get_group_id(0);
    ulong first = chunks[3 * chunk + 1] / VEC, count = chunks[3 * chunk + 2] / VEC;
    __global const float *b = blobs + 6 * chunks[3 * chunk];
    vec3 node;
    node.x = REAL(b[0]);
    node.y = REAL(b[1]);
    node.z = REAL(b[2]);
    for (ulong i = first + get_local_id(0); i < first + count; i += LOCAL) {
        vec3 q;
        q.x = LOAD(i, qx);
        q.y = LOAD(i, qy);
        q.z = LOAD(i, qz);
        pixel_model model;
        evaluate(q, node, g, quantum, n_max, &model);
        STORE(model.s, i - offset / VEC, s);
    }
}
