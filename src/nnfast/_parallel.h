/* What the threads of one parallel region need beyond OpenMP: a barrier that costs less than a microsecond and is kind
 * to its neighbours, a team that gets smaller where cores are shared, after a fork and where threads cannot be had, a
 * clock, and the floating-point mode. The MSVC branches are untested. */
#ifndef NNFAST_PARALLEL_H
#define NNFAST_PARALLEL_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(_MSC_VER)
#include <intrin.h>
#include <windows.h>
#else
#include <pthread.h>
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
/* What OpenMP would take in this thread: OMP_NUM_THREADS or all cores, until somebody (threadpoolctl) sets it. */
static int nnfast_openmp_threads(void) { return omp_get_max_threads(); }
#else
static int nnfast_thread_number(void) { return 0; }
static int nnfast_team_size(void) { return 1; }
static int nnfast_openmp_threads(void) { return 1; }
#endif

/* Where this thread's share of n begins, or (next = 1) the next thread's: a multiple of the unit, or n. */
static ptrdiff_t nnfast_share(ptrdiff_t n, ptrdiff_t unit, int next)
{
    ptrdiff_t begin = (n + unit - 1) / unit * (nnfast_thread_number() + next) / nnfast_team_size() * unit;
    return begin < n ? begin : n;
}

#if defined(_MSC_VER)
#define NNFAST_LOAD(place) (*(volatile int32_t*)(place))
#define NNFAST_STORE(place, value) ((void)_InterlockedExchange((volatile long*)(place), (value)))
#define NNFAST_INCREMENT(place) ((int32_t)_InterlockedIncrement((volatile long*)(place)))
#define NNFAST_TAKE(place, mark) (_InterlockedExchange((volatile long*)(place), (mark)) != (mark))
#define NNFAST_LOAD_LONG(place) (*(volatile int64_t*)(place))
#define NNFAST_ADD_LONG(place, value) ((void)_InterlockedExchangeAdd64((volatile __int64*)(place), (value)))
#define NNFAST_PAUSE() YieldProcessor()
#define NNFAST_YIELD() ((void)SwitchToThread())
#else
#define NNFAST_LOAD(place) __atomic_load_n((place), __ATOMIC_ACQUIRE)
#define NNFAST_STORE(place, value) __atomic_store_n((place), (value), __ATOMIC_RELEASE)
#define NNFAST_INCREMENT(place) __atomic_add_fetch((place), 1, __ATOMIC_ACQ_REL)
#define NNFAST_TAKE(place, mark) (__atomic_exchange_n((place), (mark), __ATOMIC_ACQUIRE) != (mark))
#define NNFAST_LOAD_LONG(place) __atomic_load_n((place), __ATOMIC_RELAXED)
#define NNFAST_ADD_LONG(place, value) ((void)__atomic_add_fetch((place), (value), __ATOMIC_RELAXED))
#define NNFAST_YIELD() ((void)sched_yield())
#if defined(__x86_64__) || defined(__i386__)
#define NNFAST_PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define NNFAST_PAUSE() __asm__ __volatile__("isb")
#else
#define NNFAST_PAUSE() ((void)0)
#endif
#endif

/* Nanoseconds since some moment. */
static int64_t nnfast_clock(void)
{
#if defined(_MSC_VER)
    LARGE_INTEGER count, frequency;
    QueryPerformanceCounter(&count);
    QueryPerformanceFrequency(&frequency);
    return (int64_t)(1e9 * (double)count.QuadPart / (double)frequency.QuadPart);
#else
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
#endif
}

/* A barrier that spins first and then yields: a thread that only spins takes the core from the one it waits for when
 * cores are shared. The two counters are on cache lines of their own, each of which one thread writes at a time. */
typedef struct {
    char before[64];
    int32_t arrived;
    char between[60];
    int32_t generation;
    char after[60];
    int64_t yielded;    /* nanoseconds that threads have waited here after spinning */
} nnfast_barrier;

/* A pause takes some 40 to 140 cycles: so many are some tens of microseconds. */
#define NNFAST_SPINS 2000

/* Returns when all `threads` have called it. */
static void nnfast_wait(nnfast_barrier* barrier, int threads)
{
    int32_t generation, turns;
    int64_t since;
    if (threads == 1)
        return;
    generation = NNFAST_LOAD(&barrier->generation);
    if (NNFAST_INCREMENT(&barrier->arrived) == threads) {
        NNFAST_STORE(&barrier->arrived, 0);
        NNFAST_STORE(&barrier->generation, generation + 1);
        return;
    }
    for (turns = 0; turns < NNFAST_SPINS; turns++) {
        if (NNFAST_LOAD(&barrier->generation) != generation)
            return;
        NNFAST_PAUSE();
    }
    since = nnfast_clock();
    while (NNFAST_LOAD(&barrier->generation) == generation)
        NNFAST_YIELD();
    NNFAST_ADD_LONG(&barrier->yielded, nnfast_clock() - since);
}

/* Forks. OpenMP's threads do not survive one, and a child would wait for them for ever: it gets teams of one. Counted
 * here and not in Python, because C forks, too (uWSGI). */
static int nnfast_forks;

/* Takes one of `count` blocks of memory, each of `size` bytes, that several threads share; waits while all are taken. A block
 * begins with a mark while it is taken, another one in each process: a child sees those of threads that it has not got. */
static uint8_t* nnfast_take_block(uint8_t* blocks, ptrdiff_t size, int32_t count)
{
    const int32_t mark = nnfast_forks + 1;
    for (;;) {
        for (uint8_t* block = blocks; block != blocks + count * size; block += size)
            if (NNFAST_LOAD((int32_t*)block) != mark && NNFAST_TAKE((int32_t*)block, mark))
                return block;
        NNFAST_YIELD();
    }
}

static void nnfast_give_block(uint8_t* block) { NNFAST_STORE((int32_t*)block, 0); }

/* Threads that can be had. OpenMP ends the process when the system refuses a thread, as under a limit on processes or on
 * memory: so a thread that wants a larger team than its last one was tries that first, 20 to 50 microseconds a thread. */
#if defined(_MSC_VER)
static void nnfast_watch_forks(void) { }
static int nnfast_can_create(int threads) { (void)threads; return 1; }
#else
static void nnfast_note_fork(void) { nnfast_forks++; }
static void nnfast_watch_forks(void) { pthread_atfork(NULL, NULL, nnfast_note_fork); }

/* So many threads, each of which starts the next and waits for it: all of them at once. NULL if one was refused. */
static void* nnfast_start(void* threads)
{
    pthread_t next;
    void* result = threads;
    if ((intptr_t)threads == 0)
        return &nnfast_forks;   /* anything but NULL */
    if (pthread_create(&next, NULL, nnfast_start, (void*)((intptr_t)threads - 1)) != 0)
        return NULL;
    pthread_join(next, &result);
    return result;
}

static __thread int nnfast_last_team;

/* Whether this thread can get a team of so many. */
static int nnfast_can_create(int threads)
{
    if (threads > nnfast_last_team && nnfast_start((void*)(intptr_t)(threads - 1)) == NULL)
        return 0;
    nnfast_last_team = threads;
    return 1;
}
#endif

/* Teams. Where other processes want the cores, threads that wait for each other at barriers get little done: with two
 * busy neighbours on two cores a step of 784-50-10 took ten times as long on two threads as on one. So each team counts
 * how long its threads have yielded, and when the threads of the last teams did less than NNFAST_WORTH times what one
 * would have done, the next ones have one thread, for a rest that doubles from a tenth of a second to two seconds while
 * new trials end likewise. */
typedef struct {
    nnfast_barrier barrier;
    int32_t threads;
    int64_t begun;
} nnfast_team;

/* Two threads, one of which shares its core with a neighbour, do as much as one: they wait a quarter of their time. */
#define NNFAST_WORTH 1.6
/* So much yielding, in nanoseconds, is a neighbour's turn on a core, some 3 to 4 milliseconds. With 10 milliseconds, bursts
 * of 80 beside two neighbours were 0.88 instead of 0.93 times as fast as with one thread. */
#if !defined(NNFAST_PATIENCE)
#define NNFAST_PATIENCE 3000000
#endif
/* Teams are judged together until they have run so long: a tenth of a second. */
#define NNFAST_MEMORY 100000000
/* OpenBLAS's threads spin for some 25 to 75 milliseconds after each call: a neighbour that is gone after one rest. Calls
 * of 1.5 ms on one thread, with such a product after every 200th, took 1.13 ms on two; with 20 milliseconds, which double
 * to 160 before the spinning ends, 1.24 to 1.49. */
#define NNFAST_SHORTEST_REST 100000000
#define NNFAST_LONGEST_REST 2000000000

static struct nnfast_all_teams {
    char before[64];
    int32_t is_taken;       /* by a team that runs */
    int64_t rests_until;    /* 0: no team has been disturbed lately */
    int64_t rest;
    int64_t run, yielded;   /* of the teams that are judged together */
    int64_t assembled, refused, rested;     /* teams, calls that got one thread while a team ran, and during a rest */
    char after[64];
} nnfast_teams;

/* Makes the team of a parallel region, of at most `threads`. Returns how many it has: 1, and then there is nothing to
 * disband, also while another team runs. */
static int nnfast_assemble(nnfast_team* team, int threads)
{
    team->threads = 1;
    if (threads == 1 || nnfast_forks > 0)
        return 1;
    if (!NNFAST_TAKE(&nnfast_teams.is_taken, 1)) {
        NNFAST_ADD_LONG(&nnfast_teams.refused, 1);
        return 1;
    }
    if (nnfast_teams.rests_until != 0 && nnfast_clock() < nnfast_teams.rests_until) {
        NNFAST_ADD_LONG(&nnfast_teams.rested, 1);
        NNFAST_STORE(&nnfast_teams.is_taken, 0);
        return 1;
    }
    if (!nnfast_can_create(threads)) {
        nnfast_teams.rests_until = nnfast_clock() + NNFAST_LONGEST_REST;
        NNFAST_STORE(&nnfast_teams.is_taken, 0);
        return 1;
    }
    NNFAST_ADD_LONG(&nnfast_teams.assembled, 1);
    memset(&team->barrier, 0, sizeof(team->barrier));
    team->threads = threads;
    team->begun = nnfast_clock();
    return threads;
}

/* Whether a team that has run long enough to tell should stop. */
static int nnfast_is_disturbed(const nnfast_team* team)
{
    int64_t yielded = NNFAST_LOAD_LONG(&team->barrier.yielded);
    return yielded > NNFAST_PATIENCE
        && (double)yielded > ((double)team->threads - NNFAST_WORTH) * (double)(nnfast_clock() - team->begun);
}

/* The last thing that each thread of the team does in the region, where that is not to wait at the barrier anyway. */
static void nnfast_leave(nnfast_team* team) { nnfast_wait(&team->barrier, nnfast_team_size()); }

/* What the thread that has assembled a team does after the region. */
static void nnfast_disband(nnfast_team* team)
{
    int64_t now = nnfast_clock();
    nnfast_teams.run += now - team->begun;
    nnfast_teams.yielded += team->barrier.yielded;
    if (nnfast_teams.yielded > NNFAST_PATIENCE
        && (double)nnfast_teams.yielded > ((double)team->threads - NNFAST_WORTH) * (double)nnfast_teams.run) {
        nnfast_teams.rest = nnfast_teams.rest == 0 ? NNFAST_SHORTEST_REST
            : nnfast_teams.rest < NNFAST_LONGEST_REST / 2 ? 2 * nnfast_teams.rest : NNFAST_LONGEST_REST;
        nnfast_teams.rests_until = now + nnfast_teams.rest;
        nnfast_teams.run = nnfast_teams.yielded = 0;
    } else if (nnfast_teams.run > NNFAST_MEMORY) {
        nnfast_teams.rests_until = nnfast_teams.rest = 0;
        nnfast_teams.run = nnfast_teams.yielded = 0;
    }
    NNFAST_STORE(&nnfast_teams.is_taken, 0);
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
