// Functions compiled once per width of the machine's vectors. Without contraction all versions give the same bits.
#pragma once

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__GLIBC__)
#define TDS2EL_WIDE __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define TDS2EL_WIDE
#endif
