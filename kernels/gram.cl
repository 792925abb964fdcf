// One pass over the pixels: per-blob Gram sums of the separable fit, and the intensity of a blob.

#define N_GRAM (N_COLUMNS * (N_COLUMNS + 1) / 2)
#define N_SUMS (N_GRAM + 2)  // + half the deviance, + pixels below the floor

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
    q = evaluate(q, good, b, tensor, n_max, model PLACE_VALUE);

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
    model->columns[N_COLUMNS - 2 - NEIGHBOURS] = B * (inverse * variance);
#endif
    weight *= share;  // of the information, which the background's own variance leaves
    half_deviance *= share;
#endif
    model->columns[N_COLUMNS - 1] = residual * (inverse * variance);
    out->weight = WHERE(good, weight, REAL(0.0f));
    out->half_deviance = WHERE(good, half_deviance, REAL(0.0f));
}

#if BLOCKED
// Many columns: their sums do not fit registers, but blocks of 4 × 4 of them do. The columns √w c of TILE pixels (on CPUs
// vectors of pixels) are kept, and one block after the other is summed over them; on a GPU each work-item of the group has
// a block and some of these pixels.
#define BLOCKS ((N_COLUMNS + 3) / 4)
#define TASKS (BLOCKS * (BLOCKS + 1) / 2)
#if LOCAL == 1
#define STRIDE (4 * BLOCKS)
#else
#define PARTS (LOCAL / TASKS)  // work-items that share a block, each with its part of the pixels
#define STRIDE (4 * BLOCKS + 1)  // odd, against conflicts of banks
#endif
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

#if DOUBLE
#define CENTRED(k) WIDE(pixel.model.columns[k])
#else
#define CENTRED(k) (pixel.model.columns[k] - (k < N_COLUMNS - 1 ? centres[blob * (N_COLUMNS - 1) + k] : 0.0f))
#endif

#if BLOCKED && LOCAL == 1
    wide total[16 * TASKS], tile[TILE * STRIDE], deviance = 0, low = 0;
    for (int k = 0; k < 16 * TASKS; ++k) total[k] = 0;
    for (int k = 0; k < TILE * STRIDE; ++k) tile[k] = 0;
    for (ulong start = first; start < first + count; start += TILE) {
        int steps = first + count - start < TILE ? first + count - start : TILE;
        for (int p = 0; p < steps; ++p) {
            ulong i = start + p;
            TERMS_AT(i);
            wide root = WIDE(sqrt(pixel.weight));
            for (int k = 0; k < N_COLUMNS; ++k) tile[p * STRIDE + k] = CENTRED(k) * root;
            deviance += WIDE(pixel.half_deviance);
            low += WIDE(WHERE(pixel.low, REAL(1.0f), REAL(0.0f)));
        }
        wide *block = total;
        for (int row = 0; row < STRIDE; row += 4) {
            for (int column = 0; column <= row; column += 4) {
                wide sum[16];
#pragma unroll
                for (int k = 0; k < 16; ++k) sum[k] = block[k];
                for (int p = 0; p < steps; ++p) {
                    const wide *left = tile + p * STRIDE + row, *right = tile + p * STRIDE + column;
#pragma unroll
                    for (int k = 0; k < 16; ++k) sum[k] += left[k / 4] * right[k % 4];
                }
#pragma unroll
                for (int k = 0; k < 16; ++k) block[k] = sum[k];
                block += 16;
            }
        }
    }
    for (int k = 0; k < N_COLUMNS; ++k) {
        for (int j = 0; j <= k; ++j) {
            int row = k / 4, task = row * (row + 1) / 2 + j / 4;
            sums[chunk * N_SUMS + k * (k + 1) / 2 + j] = lane_sum(total[16 * task + 4 * (k % 4) + j % 4]);
        }
    }
    sums[chunk * N_SUMS + N_GRAM] = lane_sum(deviance);
    sums[chunk * N_SUMS + N_GRAM + 1] = lane_sum(low);
#elif BLOCKED
    __local sum_t tile[TILE * STRIDE];
    sum_t block[4][4] = {{0}};
    sum_t deviance = 0, low = 0;
    size_t task = lane % TASKS, part = lane / TASKS;
    int row = (int)((sqrt(8.0f * task + 1.5f) - 1.0f) * 0.5f);  // of the triangle of blocks; a little more than exact
    int column = task - row * (row + 1) / 2;
    __local sum_t *own = tile + lane * STRIDE;
    for (int k = N_COLUMNS; k < STRIDE && lane < TILE; ++k) own[k] = 0;
    for (ulong start = first; start < first + count; start += TILE) {
        ulong i = start + lane;
        if (lane < TILE) {
            if (i < first + count) {
                TERMS_AT(i);
                real root = sqrt(pixel.weight);
#pragma unroll
                for (int k = 0; k < N_COLUMNS; ++k) own[k] = CENTRED(k) * root;
                deviance += pixel.half_deviance;
                low += pixel.low ? 1 : 0;
            } else {
                for (int k = 0; k < N_COLUMNS; ++k) own[k] = 0;
            }
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        if (part < PARTS) {
            for (int p = part; p < TILE; p += PARTS) {
                __local const sum_t *left = tile + p * STRIDE + 4 * row, *right = tile + p * STRIDE + 4 * column;
                sum_t l[4], r[4];
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
                sum_t total = 0;
                for (int p = 0; p < PARTS; ++p) total += tile[p * TASKS + task];
                sums[chunk * N_SUMS + k * (k + 1) / 2 + j] = total;
            }
        } else if (lane == 0) {
            sum_t total = 0;
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
        for (int k = 0; k < N_COLUMNS; ++k) column[k] = CENTRED(k);
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
        evaluate(q, q.x == q.x, b, tensor, n_max, &model PLACE_VALUE);
        STORE(model.s, i - offset / VEC, s);
    }
}
