/* What the threads of one parallel region need beyond OpenMP: a barrier that costs less than a microsecond and is kind
 * to its neighbours, a clock, and the floating-point mode. The MSVC branches are untested. */
#ifndef NNFAST_PARALLEL_H
#define NNFAST_PARALLEL_H

#include <stdint.h>

#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(_MSC_VER)
#include <intrin.h>
#include <windows.h>
#else
#include <sched.h>
#include <time.h>
#endif
#if defined(__SSE2__) || defined(_M_X64)
#include <xmmintrin.h>
#endif

/* This thread's number in its team, from 0, and how many there are: perhaps fewer than were asked for. */
#if defined(_OPENMP)
static int nnfast_thread_number(void) { return omp_get_thread_num(); }
static int nnfast_team_size(void) { return omp_get_num_threads(); }
#else
static int nnfast_thread_number(void) { return 0; }
static int nnfast_team_size(void) { return 1; }
#endif

/* A barrier that spins first and then yields: a thread that only spins takes the core from the one it waits for when
 * cores are shared. The two counters are on cache lines of their own, each of which one thread writes at a time. */
typedef struct {
    char before[64];
    int32_t arrived;
    char between[60];
    int32_t generation;
    char after[60];
} nnfast_barrier;

/* A pause takes some 40 to 140 cycles: so many are some tens of microseconds. */
#define NNFAST_SPINS 2000

#if defined(_MSC_VER)
#define NNFAST_LOAD(place) (*(volatile int32_t*)(place))
#define NNFAST_STORE(place, value) ((void)_InterlockedExchange((volatile long*)(place), (value)))
#define NNFAST_INCREMENT(place) ((int32_t)_InterlockedIncrement((volatile long*)(place)))
#define NNFAST_PAUSE() YieldProcessor()
#define NNFAST_YIELD() ((void)SwitchToThread())
#else
#define NNFAST_LOAD(place) __atomic_load_n((place), __ATOMIC_ACQUIRE)
#define NNFAST_STORE(place, value) __atomic_store_n((place), (value), __ATOMIC_RELEASE)
#define NNFAST_INCREMENT(place) __atomic_add_fetch((place), 1, __ATOMIC_ACQ_REL)
#define NNFAST_YIELD() ((void)sched_yield())
#if defined(__x86_64__) || defined(__i386__)
#define NNFAST_PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define NNFAST_PAUSE() __asm__ __volatile__("isb")
#else
#define NNFAST_PAUSE() ((void)0)
#endif
#endif

/* Returns when all `threads` have called it. */
static void nnfast_wait(nnfast_barrier* barrier, int threads)
{
    int32_t generation, turns;
    if (threads == 1)
        return;
    generation = NNFAST_LOAD(&barrier->generation);
    if (NNFAST_INCREMENT(&barrier->arrived) == threads) {
        NNFAST_STORE(&barrier->arrived, 0);
        NNFAST_STORE(&barrier->generation, generation + 1);
        return;
    }
    for (turns = 0; NNFAST_LOAD(&barrier->generation) == generation; turns++) {
        if (turns < NNFAST_SPINS)
            NNFAST_PAUSE();
        else
            NNFAST_YIELD();
    }
}

/* Seconds since some moment. */
static double nnfast_clock(void)
{
#if defined(_MSC_VER)
    LARGE_INTEGER count, frequency;
    QueryPerformanceCounter(&count);
    QueryPerformanceFrequency(&frequency);
    return (double)count.QuadPart / (double)frequency.QuadPart;
#else
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
#endif
}

/* Take subnormal numbers for 0 in this thread from now on: Adam's averages sink among them as training goes on, and
 * arithmetic with them is many times slower. Returns the mode before, for nnfast_restore_mode. */
static uint64_t nnfast_flush_subnormals(void)
{
#if defined(__SSE2__) || defined(_M_X64)
    unsigned int mode = _mm_getcsr();
    _mm_setcsr(mode | 0x8040u);
    return mode;
#elif defined(__aarch64__) && defined(__GNUC__)
    uint64_t mode;
    __asm__ __volatile__("mrs %0, fpcr" : "=r"(mode));
    __asm__ __volatile__("msr fpcr, %0" : : "r"(mode | (UINT64_C(1) << 24)));
    return mode;
#else
    return 0;
#endif
}

static void nnfast_restore_mode(uint64_t mode)
{
#if defined(__SSE2__) || defined(_M_X64)
    _mm_setcsr((unsigned int)mode);
#elif defined(__aarch64__) && defined(__GNUC__)
    __asm__ __volatile__("msr fpcr, %0" : : "r"(mode));
#else
    (void)mode;
#endif
}

#endif
