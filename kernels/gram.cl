// One pass over the pixels: per-blob Gram sums of the separable fit, and the intensity of a blob.

#define N_GRAM (N_COLUMNS * (N_COLUMNS + 1) / 2)
#define N_SUMS (N_GRAM + 2)  // + half the deviance, + pixels below the floor

// Per blob: node (3), shift of q (3), factor, baseline, floor of the model, τ, slope (3).
#define BLOB_SIZE 13

#if MOTION
#define PLACE_BUFFERS \
    , __global const float *rows, __global const float *column_numbers, __global const float *cosines, \
    __global const float *sines, __constant const float *motion
#define FIND_PLACE(i) place at = {LOAD(i, rows), LOAD(i, column_numbers), LOAD(i, cosines), LOAD(i, sines)};
#else
#define PLACE_BUFFERS
#define FIND_PLACE(i)
#endif

// A step of VEC pixels as the sums need it: the columns c, whose last is the residual over κ, and the weight w = κ²/variance.
typedef struct {
    pixel_model model;
    real weight, half_deviance;
    mask low;
} pixel_terms;

INLINE vec3 shifted_q(__global const float *qx, __global const float *qy, __global const float *qz,
                      __global const float *b, ulong i) {
    vec3 q;
    q.x = LOAD(i, qx) + REAL(b[3]);
    q.y = LOAD(i, qy) + REAL(b[4]);
    q.z = LOAD(i, qz) + REAL(b[5]);
    return q;
}

INLINE vec3 node_of(__global const float *b) {
    vec3 node = {REAL(b[0]), REAL(b[1]), REAL(b[2])};
    return node;
}

// b: what the blob has of its own. Padding, and pixels that are not used, have correction 0 and weigh nothing.
INLINE void terms_of(vec3 q, real N, real kappa,
#if BACKGROUND
                     real B, real share,
#endif
                     __global const float *b, __constant const float *tensor, int n_max, pixel_terms *out PLACE_ARGUMENT) {
    pixel_model *model = &out->model;
    float factor = b[6], baseline = b[7], floor_ = b[8];
    mask good = kappa > 0.0f;
    real k = WHERE(good, kappa, REAL(1.0f));
    q = evaluate(q, good, node_of(b), tensor, n_max, model PLACE_VALUE);

    real intensity = factor * model->s + baseline;
#if SLOPE
    intensity += b[10] * q.x + b[11] * q.y + b[12] * q.z;
#endif
    real m = k * intensity;
#if BACKGROUND
    m += b[9] * B;
#endif
    out->low = (m < floor_) & good;
    real mc = WHERE(m < floor_, REAL(floor_), m);  // below the floor ln m is a parabola at the floor
    real under = m - mc;
#ifdef RELATIVE_ERROR
    real e2 = REAL(RELATIVE_ERROR * RELATIVE_ERROR);
    real excess = 1.0f + e2 * mc, variance = mc * excess;
#else
    real variance = mc;
#endif
    real inverse = RECIPROCAL(variance * k);  // one division for 1/variance and 1/κ
#ifdef RELATIVE_ERROR
    real t = under * (inverse * k * excess);
#else
    real t = under * (inverse * k);
#endif
    // Variance m + (ε m)²; the deviance of counts with that variance (negative binomial) is D(N|m) below.
    real tc = (mc - N) * RECIPROCAL(WHERE(N > 0.0f, N, REAL(1.0f)));
    real half_deviance = WHERE(N > 0.0f, N * minus_log1p(tc), mc) + under - N * t * (1.0f - 0.5f * t);
#ifdef RELATIVE_ERROR
    real slope = (1.0f + e2 * N) / excess;  // of the second logarithm, continued by its tangent
    real residual = N * (1.0f - t) * excess - variance * slope;
    real size = N + 1.0f / e2;
    half_deviance -= size * minus_log1p((mc - N) / size) + under * (1.0f - slope);
#else
    real residual = N * (1.0f - t) - mc;
#endif
    real weight = k * k * k * inverse;
#if BACKGROUND
#if TAU
    model->columns[N_COLUMNS - 2] = B * (inverse * variance);
#endif
    weight *= share;  // of the information, which the background's own variance leaves
    half_deviance *= share;
#endif
    model->columns[N_COLUMNS - 1] = residual * (inverse * variance);
    out->weight = WHERE(good, weight, REAL(0.0f));
    out->half_deviance = WHERE(good, half_deviance, REAL(0.0f));
}

#if BLOCKED
// Many columns: their sums do not fit a work-item's registers. The group puts the columns of TILE pixels into local memory,
// √w c in double, and each work-item adds up a block of 4 × 4 sums over some of these pixels.
#define BLOCKS ((N_COLUMNS + 3) / 4)
#define TASKS (BLOCKS * (BLOCKS + 1) / 2)
#define PARTS (LOCAL / TASKS)  // work-items that share a block, each with its part of the pixels
#define STRIDE (4 * BLOCKS + 1)  // odd, against conflicts of banks
#endif

// chunks: (blob, first pixel, number of pixels), the last two in multiples of VEC.
// centres: N_COLUMNS − 1 floats per blob, subtracted from the columns where sums are in float.
__kernel __attribute__((reqd_work_group_size(LOCAL, 1, 1))) void gram(__global const float *qx, __global const float *qy, __global const float *qz,
                   __global const float *counts, __global const float *correction,
#if BACKGROUND
                   __global const float *background, __global const float *share,
#endif
                   __global const ulong *chunks, __global const float *blobs, __global const float *centres,
                   __constant const float *tensor, int n_max, __global sum_t *sums PLACE_BUFFERS) {
    size_t chunk = get_group_id(0), lane = get_local_id(0);
    ulong blob = chunks[3 * chunk];
    ulong first = chunks[3 * chunk + 1] / VEC, count = chunks[3 * chunk + 2] / VEC;
    __global const float *b = blobs + BLOB_SIZE * blob;
    pixel_terms pixel;
#if BACKGROUND
#define BACKGROUND_AT(i) LOAD(i, background), LOAD(i, share),
#else
#define BACKGROUND_AT(i)
#endif
#define TERMS_AT(i) \
    FIND_PLACE(i) \
    terms_of(shifted_q(qx, qy, qz, b, i), LOAD(i, counts), LOAD(i, correction), BACKGROUND_AT(i) b, tensor, n_max, \
             &pixel PLACE_VALUE)

#if BLOCKED
    __local double tile[TILE * STRIDE];
    double block[4][4] = {{0}};
    double deviance = 0, low = 0;
    size_t task = lane % TASKS, part = lane / TASKS;
    int row = (int)((sqrt(8.0f * task + 1.5f) - 1.0f) * 0.5f);  // of the triangle of blocks; a little more than exact
    int column = task - row * (row + 1) / 2;
    __local double *own = tile + lane * STRIDE;
    for (int k = N_COLUMNS; k < STRIDE && lane < TILE; ++k) own[k] = 0;
    for (ulong start = first; start < first + count; start += TILE) {
        ulong i = start + lane;
        if (lane < TILE) {
            if (i < first + count) {
                TERMS_AT(i);
                real root = sqrt(pixel.weight);
#pragma unroll
                for (int k = 0; k < N_COLUMNS; ++k) own[k] = pixel.model.columns[k] * root;
                deviance += pixel.half_deviance;
                low += pixel.low ? 1 : 0;
            } else {
                for (int k = 0; k < N_COLUMNS; ++k) own[k] = 0;
            }
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        if (part < PARTS) {
            for (int p = part; p < TILE; p += PARTS) {
                __local const double *left = tile + p * STRIDE + 4 * row, *right = tile + p * STRIDE + 4 * column;
                double l[4], r[4];
#pragma unroll
                for (int k = 0; k < 4; ++k) {
                    l[k] = left[k];
                    r[k] = right[k];
                }
#pragma unroll
                for (int k = 0; k < 4; ++k)
#pragma unroll
                    for (int j = 0; j < 4; ++j) block[k][j] += l[k] * r[j];
            }
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    // Blocks of all parts, then deviance and number of low pixels of all work-items, one entry of a block at a time.
    for (int entry = 0; entry < 18; ++entry) {
        tile[lane] = entry < 16 ? block[entry / 4][entry % 4] : entry == 16 ? deviance : low;
        barrier(CLK_LOCAL_MEM_FENCE);
        if (entry < 16) {
            int k = 4 * row + entry / 4, j = 4 * column + entry % 4;
            if (part == 0 && k < N_COLUMNS && j <= k) {
                double total = 0;
                for (int p = 0; p < PARTS; ++p) total += tile[p * TASKS + task];
                sums[chunk * N_SUMS + k * (k + 1) / 2 + j] = total;
            }
        } else if (lane == 0) {
            double total = 0;
            for (int p = 0; p < LOCAL; ++p) total += tile[p];
            sums[chunk * N_SUMS + N_GRAM + entry - 16] = total;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
#else
    wide total[N_SUMS];
    for (int k = 0; k < N_SUMS; ++k) total[k] = 0;
    for (ulong i = first + lane; i < first + count; i += LOCAL) {
        TERMS_AT(i);
        wide column[N_COLUMNS];
        for (int k = 0; k < N_COLUMNS; ++k) {
#if DOUBLE
            column[k] = WIDE(pixel.model.columns[k]);
#else
            column[k] = pixel.model.columns[k];
            if (k < N_COLUMNS - 1) column[k] -= centres[blob * (N_COLUMNS - 1) + k];
#endif
        }
        wide w = WIDE(pixel.weight);
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
        total[N_GRAM] += WIDE(pixel.half_deviance);
        total[N_GRAM + 1] += WIDE(WHERE(pixel.low, REAL(1.0f), REAL(0.0f)));
    }
#if LOCAL == 1
    for (int k = 0; k < N_SUMS; ++k) sums[chunk * N_SUMS + k] = lane_sum(total[k]);
#else
    // Eight sums at a time: an eighth of the work-items adds up one of them, then one work-item the rest.
    __local sum_t shared[8][LOCAL];
    size_t slot = lane / (LOCAL / 8), place_ = lane % (LOCAL / 8);
#pragma unroll
    for (int start = 0; start < N_SUMS; start += 8) {
#pragma unroll
        for (int k = 0; k < 8; ++k)
            if (start + k < N_SUMS) shared[k][lane] = total[start + k];
        barrier(CLK_LOCAL_MEM_FENCE);
        sum_t part = 0;
        for (int p = 0; p < 8; ++p) part += shared[slot][place_ + p * (LOCAL / 8)];
        barrier(CLK_LOCAL_MEM_FENCE);
        shared[slot][place_] = part;
        barrier(CLK_LOCAL_MEM_FENCE);
        if (lane < 8 && start + lane < N_SUMS) {
            sum_t all = 0;
            for (int p = 0; p < LOCAL / 8; ++p) all += shared[lane][p];
            sums[chunk * N_SUMS + start + lane] = all;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
#endif
#endif
}

#if DOUBLE
// Sums of the chunks of each blob: chunks first_chunk[blob] to first_chunk[blob + 1]. One work-item per blob and sum.
__kernel void add_chunks(__global const double *sums, __global const uint *first_chunk, __global double *totals) {
    size_t blob = get_global_id(0) / N_SUMS, sum = get_global_id(0) % N_SUMS;
    double total = 0;
    for (uint chunk = first_chunk[blob]; chunk < first_chunk[blob + 1]; ++chunk) total += sums[chunk * (size_t)N_SUMS + sum];
    totals[get_global_id(0)] = total;
}
#endif

// S of the pixels of one blob, which start at `offset`; the host applies factor, baseline and correction.
__kernel void intensity(__global const float *qx, __global const float *qy, __global const float *qz,
                        __global const ulong *chunks, __global const float *blobs, __constant const float *tensor,
                        int n_max, ulong offset, __global float *s PLACE_BUFFERS) {
    size_t chunk = get_group_id(0);
    ulong first = chunks[3 * chunk + 1] / VEC, count = chunks[3 * chunk + 2] / VEC;
    __global const float *b = blobs + BLOB_SIZE * chunks[3 * chunk];
    for (ulong i = first + get_local_id(0); i < first + count; i += LOCAL) {
        pixel_model model;
        FIND_PLACE(i)
        vec3 q = shifted_q(qx, qy, qz, b, i);
        evaluate(q, q.x == q.x, node_of(b), tensor, n_max, &model PLACE_VALUE);
        STORE(model.s, i - offset / VEC, s);
    }
}
