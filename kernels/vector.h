// One source for every device: `real` is a vector of 8 pixels on CPUs and a scalar on GPUs.
//
// VEC     8 or 1: pixels per work-item and step.
// DOUBLE  1: products and sums in double. 0: columns are centred and summed in float; the host then gives blocks of at
//         most 256 pixels and adds the blocks in double.
// No vector min, max or fma built-ins and no width above 8: PoCL 3.0 miscompiles or aborts on them.

// A function that is called costs saving all vector registers.
#define INLINE inline __attribute__((always_inline))

#if DOUBLE
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
#endif

#if VEC == 8
typedef float8 real;
typedef int8 mask;
// The host pads to whole vectors, so that they are aligned; PoCL 3.0 calls vload8 as a function.
#define LOAD(i, pointer) (((__global const float8 *)(pointer))[i])
#define STORE(value, i, pointer) (((__global float8 *)(pointer))[i] = (value))
#define REAL(x) ((float8)(x))
#define BITS(x) as_int8(x)
#define FLOAT_OF(x) as_float8(x)
#define NUMBER(x) convert_float8(x)
#define RECIPROCAL(x) (REAL(1.0f) / (x))
#if DOUBLE
typedef double8 wide;
#define WIDE(x) convert_double8(x)
#else
typedef float8 wide;
#define WIDE(x) (x)
#endif
#else
typedef float real;
typedef int mask;
#define LOAD(i, pointer) ((pointer)[i])
#define STORE(value, i, pointer) ((pointer)[i] = (value))
#define REAL(x) ((float)(x))
#define BITS(x) as_int(x)
#define FLOAT_OF(x) as_float(x)
#define NUMBER(x) ((float)(x))
#define RECIPROCAL(x) reciprocal(x)
#if DOUBLE
typedef double wide;
#define WIDE(x) ((double)(x))
#else
typedef float wide;
#define WIDE(x) (x)
#endif
#endif

#if DOUBLE
typedef double sum_t;
#else
typedef float sum_t;
#endif

// condition ? yes : no, lane by lane (a scalar comparison gives 1, a vector one −1: ?: takes both).
#define WHERE(condition, yes, no) ((condition) ? (yes) : (no))

#if VEC == 1
// The device's estimate after a step of Newton's: divisions that are right to the last bit take GPUs ten instructions.
INLINE float reciprocal(float x) {
    float estimate = native_recip(x);
    return estimate * (2.0f - x * estimate);
}
#endif

INLINE sum_t lane_sum(wide x) {
#if VEC == 8
    return ((x.s0 + x.s4) + (x.s2 + x.s6)) + ((x.s1 + x.s5) + (x.s3 + x.s7));
#else
    return x;
#endif
}
