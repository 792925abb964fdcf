// The TDS model of a pixel and its derivatives.
//
// S = Σ_n Qᵀ(Γ + n²a)⁻¹Q with Γ = Christoffel matrix of q; cut at |n| = n_max, the rest as a series in Γ/a (the tail).
// With ε the Voigt strain of (u, q), u = (Γ + n²a)⁻¹Q:  ∂S/∂C_IJ = −ε_I ε_J (doubled for I ≠ J); with the stress
// σ = Cε as a 3×3 matrix, ∂S/∂Q = 2u at fixed q and ∂S/∂q = −2σu at fixed Q.
//
// Beyond the elastic limit Γ + T takes the place of Γ (or, EXPANDED, the inverse is expanded to first order in T), Q + Hq
// that of Q, and all is multiplied by (1 + g·q)².  ∂S/∂T_ik = −u_i u_k, ∂S/∂H = the strain of (∂S/∂Q, q).
//
// Prepended by the host (see tds2el.model.source): VEC, DOUBLE, LOCAL; the columns, of which there are N_COLUMNS, in
// their order: N_CONSTANTS, N_DISPERSION, SCALE, TURNS, PLANES, BEAMS, LAMBDA, NODE, CENTRE, FORM (∂S/∂g), INTERNAL
// (∂S/∂H), then S and 1, SLOPE, TAU, NEIGHBOURS (S_j), residual; PLACES; MOTION, BACKGROUND and EXPANDED; RELATIVE_ERROR; and macros for the structure
// of the tensors at hand: CHRISTOFFEL(M, G, X) and STRESS(M, C, E) give Γ and σ without the coefficients that are always 0,
// QUARTIC(M, T, X) gives T(q), PRODUCTS(X) lists the products ε_I ε_J that some ∂S/∂p needs, DERIVATIVES(OUT) combines
// them, DISPERSIONS(OUT, W, X) gives ∂S/∂p of T, BENDING(OUT, T, W) contracts T with W, and BENDING_SLOPE(OUT, C, X)
// differentiates the monomials that remain.

#define AFTER_CONSTANTS (N_CONSTANTS + N_DISPERSION + SCALE)
#define AFTER_GEOMETRY (AFTER_CONSTANTS + TURNS + PLANES + BEAMS + LAMBDA)
#define OWN (AFTER_GEOMETRY + 3 * NODE)
#define SIGNAL (OWN + 3 * CENTRE + 3 * FORM + 6 * INTERNAL)
#define GRADIENT (AFTER_GEOMETRY > AFTER_CONSTANTS || NODE || CENTRE)
// Where the coefficients of T begin behind those of C.
#define QUARTICS 76

typedef struct {
    real x, y, z;
} vec3;

typedef struct {
    real xx, yy, zz, yz, xz, xy;
} sym3;

INLINE vec3 times(sym3 m, vec3 v) {
    vec3 r;
    r.x = m.xx * v.x + m.xy * v.y + m.xz * v.z;
    r.y = m.xy * v.x + m.yy * v.y + m.yz * v.z;
    r.z = m.xz * v.x + m.yz * v.y + m.zz * v.z;
    return r;
}

INLINE real dot3(vec3 a, vec3 b) { return a.x * b.x + a.y * b.y + a.z * b.z; }

INLINE vec3 cross3(vec3 a, vec3 b) {
    vec3 r;
    r.x = a.y * b.z - a.z * b.y;
    r.y = a.z * b.x - a.x * b.z;
    r.z = a.x * b.y - a.y * b.x;
    return r;
}

// a + s·b
INLINE vec3 plus(vec3 a, real s, vec3 b) {
    vec3 r;
    r.x = a.x + s * b.x;
    r.y = a.y + s * b.y;
    r.z = a.z + s * b.z;
    return r;
}

INLINE vec3 constant3(__constant const float *v) {
    vec3 r;
    r.x = REAL(v[0]);
    r.y = REAL(v[1]);
    r.z = REAL(v[2]);
    return r;
}

// Solves m·u = v by the adjugate; m is symmetric and positive definite.
INLINE vec3 solve(sym3 m, vec3 v) {
    sym3 adjugate;
    adjugate.xx = m.yy * m.zz - m.yz * m.yz;
    adjugate.xy = m.xz * m.yz - m.xy * m.zz;
    adjugate.xz = m.xy * m.yz - m.xz * m.yy;
    adjugate.yy = m.xx * m.zz - m.xz * m.xz;
    adjugate.yz = m.xy * m.xz - m.xx * m.yz;
    adjugate.zz = m.xx * m.yy - m.xy * m.xy;
    real determinant = m.xx * adjugate.xx + m.xy * adjugate.xy + m.xz * adjugate.xz;
    real inverse = RECIPROCAL(determinant);
    vec3 u = times(adjugate, v);
    u.x *= inverse;
    u.y *= inverse;
    u.z *= inverse;
    return u;
}

// m + s (a bᵀ + b aᵀ)
INLINE sym3 plus_outer(sym3 m, float s, vec3 a, vec3 b) {
    m.xx += 2.0f * s * a.x * b.x;
    m.yy += 2.0f * s * a.y * b.y;
    m.zz += 2.0f * s * a.z * b.z;
    m.yz += s * (a.y * b.z + a.z * b.y);
    m.xz += s * (a.x * b.z + a.z * b.x);
    m.xy += s * (a.x * b.y + a.y * b.x);
    return m;
}

#if N_DISPERSION
// The monomials of 4th order of q, in the order of tds2el.crystal.dispersion.QUARTICS.
INLINE void quartic_monomials(vec3 q, real *m) {
    real xx = q.x * q.x, yy = q.y * q.y, zz = q.z * q.z, yz = q.y * q.z, xz = q.x * q.z, xy = q.x * q.y;
    m[0] = xx * xx;
    m[1] = yy * yy;
    m[2] = zz * zz;
    m[3] = xx * yy;
    m[4] = xx * zz;
    m[5] = yy * zz;
    m[6] = xx * xy;
    m[7] = xx * xz;
    m[8] = xy * yy;
    m[9] = yy * yz;
    m[10] = xz * zz;
    m[11] = yz * zz;
    m[12] = xx * yz;
    m[13] = xy * yz;
    m[14] = xz * yz;
}

// Those of 3rd order: xxx yyy zzz xxy xxz xyy yyz xzz yzz xyz.
INLINE void cubic_monomials(vec3 q, real *m) {
    real xx = q.x * q.x, yy = q.y * q.y, zz = q.z * q.z;
    m[0] = xx * q.x;
    m[1] = yy * q.y;
    m[2] = zz * q.z;
    m[3] = xx * q.y;
    m[4] = xx * q.z;
    m[5] = yy * q.x;
    m[6] = yy * q.z;
    m[7] = zz * q.x;
    m[8] = zz * q.y;
    m[9] = q.x * q.y * q.z;
}
#endif

// Γ(q) from its 6 × 6 coefficients: rows xx yy zz yz xz xy of Γ, columns the same products of q.
INLINE sym3 christoffel(__constant const float *g, vec3 q) {
    real x[6] = {q.x * q.x, q.y * q.y, q.z * q.z, q.y * q.z, q.x * q.z, q.x * q.y};
    sym3 m;
    CHRISTOFFEL(m, g, x)
    return m;
}

INLINE void strain(vec3 u, vec3 q, real *e) {
    e[0] = u.x * q.x;
    e[1] = u.y * q.y;
    e[2] = u.z * q.z;
    e[3] = u.y * q.z + u.z * q.y;
    e[4] = u.x * q.z + u.z * q.x;
    e[5] = u.x * q.y + u.y * q.x;
}

// σ = Cε; c holds the 6 × 6 tensor.
INLINE sym3 stress(__constant const float *c, const real *e) {
    sym3 m;
    STRESS(m, c, e)
    return m;
}

// t − log(1 + t) for t > −1, accurate for small t too: log of 1 + t = 2^e (1 + f) with √½ ≤ 1 + f < √2, f = t for e = 0,
// by the polynomial of Cephes' logf. A call of log would make compilers save all registers round it.
INLINE real minus_log1p(real t) {
    mask bits = BITS(REAL(1.0f) + t), e = (bits - 0x3f3504f3) >> 23;
    real f = WHERE(e == 0, t, FLOAT_OF(bits - (e << 23)) - 1.0f);
    real p = REAL(7.0376836292e-2f);
    p = p * f + -1.1514610310e-1f;
    p = p * f + 1.1676998740e-1f;
    p = p * f + -1.2420140846e-1f;
    p = p * f + 1.4249322787e-1f;
    p = p * f + -1.6668057665e-1f;
    p = p * f + 2.0000714765e-1f;
    p = p * f + -2.4999993993e-1f;
    p = p * f + 3.3333331174e-1f;
    return (t - f) - NUMBER(e) * 0.69314718f + f * f * (0.5f - f * p);
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
INLINE vec3 turned(__constant const float *h, place at, vec3 v) {
    vec3 r;
#define ENTRY(i) (h[i] + h[9 + (i)] * at.c + h[18 + (i)] * at.s)
    r.x = ENTRY(0) * v.x + ENTRY(1) * v.y + ENTRY(2) * v.z;
    r.y = ENTRY(3) * v.x + ENTRY(4) * v.y + ENTRY(5) * v.z;
    r.z = ENTRY(6) * v.x + ENTRY(7) * v.y + ENTRY(8) * v.z;
#undef ENTRY
    return r;
}

// Pixel → 3 × 3 matrix times (row, column, 1).
INLINE vec3 on_plane(__constant const float *m, place at) {
    vec3 r;
    r.x = m[0] * at.row + m[1] * at.column + m[2];
    r.y = m[3] * at.row + m[4] * at.column + m[5];
    r.z = m[6] * at.row + m[7] * at.column + m[8];
    return r;
}

// Q − Q of the harvest, without cancellation; also Q in the lab, and the unit vector to the pixel and 1/distance.
INLINE vec3 change_of_q(__constant const float *motion, place at, vec3 *lab, vec3 *direction, real *inverse) {
    vec3 p = on_plane(motion + M_PLANE, at), change = on_plane(motion + M_PLANE_CHANGE, at);
    vec3 before = plus(p, REAL(-1.0f), change);
    real length = sqrt(dot3(p, p)), length_before = sqrt(dot3(before, before));
    real longer = dot3(plus(p, REAL(1.0f), before), change) / (length + length_before);
    *inverse = RECIPROCAL(length);
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

// Per blob: node (3), shift of q (3), factor, baseline, floor of the model, τ, slope (3), g (3), H (6). Where S is averaged
// over PLACES or more, or there are NEIGHBOURS, also the numbers of both; for each place its weight, shift (3) and turn (3);
// for each neighbour f_j/f and a_j (3).
#define BLOB_AROUND 22
#if PLACES
#define BLOB_SIZE (BLOB_AROUND + 2 + 7 * PLACES + 4 * NEIGHBOURS)
#else
#define BLOB_SIZE BLOB_AROUND
#endif
#define BLOB_FORM 13
#define BLOB_INTERNAL 16

#if NEIGHBOURS
#define OF_OWN(x) (own * (x))  // what neighbours do not have
#else
#define OF_OWN(x) (x)
#endif
#if MOTION
#define RAY_ARGUMENT , __constant const float *motion, place at, vec3 lab, vec3 direction, real inverse
#define RAY_VALUE , motion, at, lab, direction, inverse
#else
#define RAY_ARGUMENT
#define RAY_VALUE
#endif

// S and the columns up to it, of the halo of a node at q. b: what the blob has of its own; `own` is 1 for its node, 0 for
// neighbours. `tensor`: 36 coefficients of Γ, the 36 entries of C, a, t₀, t₁, t₂ of the quantum sum, and the 6 × 15
// coefficients of T.
INLINE void halo(vec3 q, vec3 node, float own, __global const float *b, __constant const float *tensor, int n_max,
                 pixel_model *out RAY_ARGUMENT) {
    vec3 Q = plus(node, REAL(1.0f), q);
#if INTERNAL
    __global const float *h = b + BLOB_INTERNAL;
    sym3 mixing = {REAL(OF_OWN(h[0])), REAL(OF_OWN(h[1])), REAL(OF_OWN(h[2])),
                   REAL(OF_OWN(h[3])), REAL(OF_OWN(h[4])), REAL(OF_OWN(h[5]))};
    Q = plus(Q, REAL(1.0f), times(mixing, q));
#endif
    sym3 gamma = christoffel(tensor, q), stiff = gamma;
#if N_DISPERSION
    real quartics[15];
    quartic_monomials(q, quartics);
    sym3 bent;
#if NEIGHBOURS
    for (int k = 0; k < 15; ++k) quartics[k] *= own;
#endif
    QUARTIC(bent, tensor + QUARTICS, quartics)
    stiff.xx += bent.xx;
    stiff.yy += bent.yy;
    stiff.zz += bent.zz;
    stiff.yz += bent.yz;
    stiff.xz += bent.xz;
    stiff.xy += bent.xy;
#endif
#if EXPANDED
    sym3 inverted = gamma;
#else
    sym3 inverted = stiff;
#endif
    float a = tensor[72], t0 = tensor[73], t1 = tensor[74], t2 = tensor[75];

    // With Q the Fourier amplitudes of the tail are E = strain(Q) and, in the same order, W = strain(t₁Q/2 + t₂ΓQ).
    real e[6], E[6], W[6];
    vec3 zero = {REAL(0.0f), REAL(0.0f), REAL(0.0f)};
    vec3 u = solve(inverted, Q), v = times(stiff, Q);
    vec3 w = plus(plus(zero, REAL(0.5f * t1), Q), REAL(t2), v);
    strain(u, q, e);
    strain(Q, q, E);
    strain(w, q, W);
    real QQ = dot3(Q, Q);
    vec3 tail = plus(w, REAL(0.5f * t1), Q);  // t₁Q + t₂ΓQ
    real s = dot3(Q, u) + t0 * QQ + dot3(v, tail);
#define FIRST(I, J) real M##I##J = E[I] * W[J] + W[I] * E[J] - e[I] * e[J];
    PRODUCTS(FIRST)
#if N_DISPERSION
    sym3 none = {REAL(0.0f), REAL(0.0f), REAL(0.0f), REAL(0.0f), REAL(0.0f), REAL(0.0f)};
    sym3 weights = plus_outer(plus_outer(none, 1.0f, Q, w), -0.5f, u, u);  // ∂S/∂T
#endif
#if SCALE
    real scale = t0 * QQ + 2.0f * t1 * dot3(Q, v) + 3.0f * t2 * dot3(v, v);
#endif
#if GRADIENT || INTERNAL
    // Half of ∂S/∂Q at fixed q.
    vec3 by_big = plus(plus(u, REAL(t0), Q), REAL(1.0f), times(stiff, tail));
#endif
#if GRADIENT
    // Half of ∂S/∂q at fixed Q.
    __constant const float *c = tensor + 36;
    vec3 by_small = plus(times(stress(c, E), w), REAL(1.0f), times(stress(c, W), Q));
    by_small = plus(by_small, REAL(-1.0f), times(stress(c, e), u));
#endif
#if EXPANDED
    // −uᵀTu and its derivatives; for each term after that without T.
    real f[6];
    vec3 bend = times(bent, u), y = solve(inverted, bend);
    strain(y, q, f);
    s -= dot3(u, bend);
#define FIRST_EXPANDED(I, J) M##I##J += e[I] * f[J] + f[I] * e[J];
    PRODUCTS(FIRST_EXPANDED)
#if GRADIENT || INTERNAL
    by_big = plus(by_big, REAL(-1.0f), y);
#endif
#if GRADIENT
    by_small = plus(plus(by_small, REAL(1.0f), times(stress(c, e), y)), REAL(1.0f), times(stress(c, f), u));
#endif
#endif
    for (int n = 1; n <= n_max; ++n) {
        float shift = a * n * n;
        sym3 shifted = inverted;
        shifted.xx += shift;
        shifted.yy += shift;
        shifted.zz += shift;
        u = solve(shifted, Q);
        strain(u, q, e);
        s += 2.0f * dot3(Q, u);
#define NEXT(I, J) M##I##J -= 2.0f * e[I] * e[J];
        PRODUCTS(NEXT)
#if N_DISPERSION
        weights = plus_outer(weights, -1.0f, u, u);
#endif
#if SCALE
        scale += 2.0f * shift * dot3(u, u);
#endif
#if GRADIENT || INTERNAL
        by_big = plus(by_big, REAL(2.0f), u);
#endif
#if GRADIENT
        by_small = plus(by_small, REAL(-2.0f), times(stress(c, e), u));
#endif
#if EXPANDED
        bend = times(bent, u);
        y = solve(shifted, bend);
        strain(y, q, f);
        s -= 2.0f * dot3(u, bend);
#define NEXT_EXPANDED(I, J) M##I##J += 2.0f * (e[I] * f[J] + f[I] * e[J]);
        PRODUCTS(NEXT_EXPANDED)
#if SCALE
        scale -= 4.0f * shift * dot3(u, y);
#endif
#if GRADIENT || INTERNAL
        by_big = plus(by_big, REAL(-2.0f), y);
#endif
#if GRADIENT
        by_small = plus(plus(by_small, REAL(2.0f), times(stress(c, e), y)), REAL(2.0f), times(stress(c, f), u));
#endif
#endif
    }
#if N_DISPERSION && GRADIENT
    real bending[15], cubics[10];
    vec3 slope;
    cubic_monomials(q, cubics);
    BENDING(bending, tensor + QUARTICS, weights)
    BENDING_SLOPE(slope, bending, cubics)
    by_small = plus(by_small, REAL(OF_OWN(0.5f)), slope);
#endif
    DERIVATIVES(out->columns)
#if N_DISPERSION
    DISPERSIONS(out->columns + N_CONSTANTS, weights, quartics)
#endif
#if SCALE
    out->columns[AFTER_CONSTANTS - 1] = scale;
#endif
#if INTERNAL && GRADIENT
    by_small = plus(by_small, REAL(1.0f), times(mixing, by_big));
#endif
#if FORM
    {
        __global const float *g = b + BLOB_FORM;
        real form = 1.0f + OF_OWN(g[0] * q.x + g[1] * q.y + g[2] * q.z), whole = form * form, along = OF_OWN(form * s);
#pragma unroll
        for (int k = 0; k < AFTER_CONSTANTS; ++k) out->columns[k] *= whole;
        s *= whole;
#if GRADIENT
        vec3 slope_of_form = {REAL(g[0]), REAL(g[1]), REAL(g[2])};
        by_small = plus(plus(zero, whole, by_small), along, slope_of_form);
#endif
#if GRADIENT || INTERNAL
        by_big = plus(zero, whole, by_big);
#endif
        out->columns[OWN + 3 * CENTRE] = 2.0f * along * q.x;
        out->columns[OWN + 3 * CENTRE + 1] = 2.0f * along * q.y;
        out->columns[OWN + 3 * CENTRE + 2] = 2.0f * along * q.z;
    }
#endif
#if INTERNAL
    strain(plus(zero, REAL(OF_OWN(2.0f)), by_big), q, out->columns + SIGNAL - 6);
#endif
    out->s = s;
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
    out->columns[OWN] = -2.0f * (by_big.x + by_small.x);
    out->columns[OWN + 1] = -2.0f * (by_big.y + by_small.y);
    out->columns[OWN + 2] = -2.0f * (by_big.z + by_small.z);
#endif
    out->columns[SIGNAL] = s;
}

// The model of pixels whose q is as stored. Returns q at the current geometry and centre; a pixel that is not used may lie
// where the model has its pole, and is evaluated elsewhere.
INLINE vec3 evaluate(vec3 q, mask used, __global const float *b, __constant const float *tensor, int n_max,
                     pixel_model *out PLACE_ARGUMENT) {
    vec3 node = {REAL(b[0]), REAL(b[1]), REAL(b[2])};
#if MOTION
    vec3 lab, direction;
    real inverse;
    q = plus(q, REAL(1.0f), change_of_q(motion, at, &lab, &direction, &inverse));
#endif
    q.x = WHERE(used, q.x, 0.7f * node.x);
    q.y = WHERE(used, q.y, 0.7f * node.y);
    q.z = WHERE(used, q.z, 0.7f * node.z);
#if PLACES
    // One loop for the average and the neighbours, so that there is one copy of the code.
    __global const float *around = b + BLOB_AROUND;
    int places = around[0], all = places + (int)around[1];
    real s = REAL(0.0f);
    for (int k = 0; k <= SIGNAL; ++k) out->columns[k] = REAL(0.0f);
#if NEIGHBOURS
    real *others = out->columns + N_COLUMNS - 1 - NEIGHBOURS;
    for (int k = 0; k < NEIGHBOURS; ++k) others[k] = REAL(0.0f);
#endif
    for (int k = 0; k < all; ++k) {
        int foreign = k >= places;
        __global const float *p = around + 2 + (foreign ? 7 * PLACES + 4 * (k - places) : 7 * k);
        vec3 shift = {REAL(p[1]), REAL(p[2]), REAL(p[3])};
        vec3 x = plus(q, REAL(foreign ? -1.0f : 1.0f), shift), centre = plus(node, REAL(foreign ? 1.0f : 0.0f), shift);
        if (!foreign) {
            vec3 turn = {REAL(p[4]), REAL(p[5]), REAL(p[6])};
            x = plus(x, REAL(1.0f), cross3(turn, q));
        }
        pixel_model one;
        halo(x, centre, foreign ? 0.0f : 1.0f, b, tensor, n_max, &one RAY_VALUE);
        s += p[0] * one.s;
        for (int i = 0; i < SIGNAL; ++i) out->columns[i] += p[0] * one.columns[i];
        if (!foreign) out->columns[SIGNAL] += p[0] * one.s;
#if NEIGHBOURS
        if (foreign) others[k - places] = one.s;
#endif
    }
    out->s = s;
#else
    halo(q, node, 1.0f, b, tensor, n_max, out RAY_VALUE);
#endif
    out->columns[SIGNAL + 1] = REAL(1.0f);
#if SLOPE
    out->columns[SIGNAL + 2] = q.x;
    out->columns[SIGNAL + 3] = q.y;
    out->columns[SIGNAL + 4] = q.z;
#endif
    return q;
}

