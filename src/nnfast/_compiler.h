/* What depends on the compiler and on the instruction set, in one place: the shape of a tile, the
 * promise to inline, and what the processor can do. GCC and Clang are tried; the MSVC branch is not. */
#ifndef NNFAST_COMPILER_H
#define NNFAST_COMPILER_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A tile function is written once with its rows and columns as arguments, and inlined into calls with constant
 * ones. A mere hint lets GCC 12 clone and call it instead: 85 instead of 97 GFLOP/s at 256 x 1024 x 1008 (float32,
 * v4, one core). */
#undef CYTHON_INLINE
#if defined(_MSC_VER)
#define CYTHON_INLINE __forceinline
#else
#define CYTHON_INLINE __inline__ __attribute__((always_inline))
#endif

/* A tile is TILE_ROWS rows by one or more grains of columns, up to WIDEST times FLOAT_LANES or DOUBLE_LANES. A grain is
 * a vector or, for float32 with AVX-512, half of one: 50 columns then cost 56 and not 64, 80 instead of 89 microseconds
 * for 96 x 784 x 50. (Half a vector of AVX2 gains nothing.) On the baseline a lane count of 4 is two vectors of float64,
 * and so it is with NEON, where 8 are two vectors of float32. More rows spill with GCC 12: 12 rows of one vector ran at 31
 * GFLOP/s instead of 103 (v4). x W on one core of a Zen 4, depth 1024, GFLOP/s of a peak of 116 in float32 and 58 in
 * float64 (half of that without FMA, on the baseline), by width in grains:
 *
 *                       float32: 1    2    3    4    5    6      float64: 1    2    3
 *   v4        8 rows            82  112  111  113  105  114              55   56   56
 *   v3        4 rows            56  101  111                             27   49   55
 *   baseline  4 rows            28   36                                  22   19
 *
 * NEON's is chosen by the code that GCC 12 makes (4 rows of four vectors: 16 fused multiply-adds to 6 loads, nothing
 * stored; with six vectors the sums go to memory), and has run in an emulator only.
 */
#if defined(__AVX512F__)
#define NNFAST_ISA "v4"
#define NNFAST_TILE_ROWS 8
#define NNFAST_FLOAT_LANES 16
#define NNFAST_DOUBLE_LANES 8
#define NNFAST_FLOAT_GRAIN 8
#define NNFAST_DOUBLE_GRAIN 8
#define NNFAST_WIDEST 3
#elif defined(__AVX2__)
#define NNFAST_ISA "v3"
#define NNFAST_TILE_ROWS 4
#define NNFAST_FLOAT_LANES 8
#define NNFAST_DOUBLE_LANES 4
#define NNFAST_FLOAT_GRAIN 8
#define NNFAST_DOUBLE_GRAIN 4
#define NNFAST_WIDEST 3
#elif defined(__aarch64__) || defined(_M_ARM64)
#define NNFAST_ISA "neon"
#define NNFAST_TILE_ROWS 4
#define NNFAST_FLOAT_LANES 8
#define NNFAST_DOUBLE_LANES 4
#define NNFAST_FLOAT_GRAIN 4
#define NNFAST_DOUBLE_GRAIN 4
#define NNFAST_WIDEST 2
#else
#define NNFAST_ISA "baseline"
#define NNFAST_TILE_ROWS 4
#define NNFAST_FLOAT_LANES 4
#define NNFAST_DOUBLE_LANES 4
#define NNFAST_FLOAT_GRAIN 4
#define NNFAST_DOUBLE_GRAIN 4
#define NNFAST_WIDEST 2
#endif

/* One lane count of elements from x to y. Clang unrolls such a loop and then gathers and scatters across the loop around it:
 * gathering rows took four times as long, a step of 784-50-10 1.5 times. GCC moves less at a time for memcpy. */
#if defined(__clang__)
#define NNFAST_COPY_LANES(type, lanes) memcpy(y, x, (lanes) * sizeof(type))
#else
#define NNFAST_COPY_LANES(type, lanes) for (int j = 0; j < (lanes); j++) y[j] = x[j]
#endif
static CYTHON_INLINE void nnfast_copy_floats(float* y, const float* x) { NNFAST_COPY_LANES(float, NNFAST_FLOAT_LANES); }
static CYTHON_INLINE void nnfast_copy_doubles(double* y, const double* x) { NNFAST_COPY_LANES(double, NNFAST_DOUBLE_LANES); }

/* Fetch a cache line into the L2 cache. */
#if defined(__GNUC__)
#define NNFAST_PREFETCH(address) __builtin_prefetch((address), 0, 2)
#else
#define NNFAST_PREFETCH(address) ((void)0)
#endif

#if defined(_OPENMP)
#define NNFAST_OPENMP _OPENMP
#else
#define NNFAST_OPENMP 0
#endif

/* The highest x86-64 level that both the processor and the operating system (saved registers) support:
 * 4, 3, or 0 for anything else, other processors included. */
static int nnfast_cpu_level(void)
{
#if (defined(__x86_64__) || defined(_M_X64)) && defined(__GNUC__)
    __builtin_cpu_init();
    if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi")
          && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt")))
        return 0;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd")
        && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return 4;
    return 3;
#else
    return 0;
#endif
}

/* The bits of a float as an integer and back, without breaking the aliasing rules. */
static CYTHON_INLINE int32_t nnfast_float_bits(float x) { int32_t bits; memcpy(&bits, &x, sizeof bits); return bits; }
static CYTHON_INLINE int64_t nnfast_double_bits(double x) { int64_t bits; memcpy(&bits, &x, sizeof bits); return bits; }
static CYTHON_INLINE float nnfast_float_from_bits(int32_t bits) { float x; memcpy(&x, &bits, sizeof x); return x; }
static CYTHON_INLINE double nnfast_double_from_bits(int64_t bits) { double x; memcpy(&x, &bits, sizeof x); return x; }

/* Whether one of a tile's rows has its flag set. */
static CYTHON_INLINE int nnfast_any_row(const uint8_t* flags)
{
#if NNFAST_TILE_ROWS == 8
    uint64_t all;
#else
    uint32_t all;
#endif
    memcpy(&all, flags, sizeof all);
    return all != 0;
}

/* Eight flags, each 0 or 1, as the bits of a number, the first one the lowest. */
static CYTHON_INLINE unsigned int nnfast_octet(const uint8_t* flags)
{
    uint64_t all;
    memcpy(&all, flags, sizeof all);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    all = __builtin_bswap64(all);
#endif
    return (unsigned int)(all * UINT64_C(0x0102040810204080) >> 56);
}

#endif
