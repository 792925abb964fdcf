// One source for every device: `real` is a vector of 8 pixels on CPUs and a scalar on GPUs.
//
// VEC     8 or 1: pixels per work-item and step.
// DOUBLE  1: products and sums in double. 0: columns are centred and summed in float; the host then gives blocks of at
//         most 256 pixels and adds the blocks in double.
// No vector min, max or fma built-ins and no width above 8: PoCL 3.0 miscompiles or aborts on them.

#if DOUBLE
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
#endif

#if VEC == 8
typedef float8 real;
typedef int8 mask;
#define LOAD(i, pointer) vload8(i, pointer)
#define STORE(value, i, pointer) vstore8(value, i, pointer)
#define REAL(x) ((float8)(x))
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

inline sum_t lane_sum(wide x) {
#if VEC == 8
    return ((x.s0 + x.s4) + (x.s2 + x.s6)) + ((x.s1 + x.s5) + (x.s3 + x.s7));
#else
    return x;
#endif
}
