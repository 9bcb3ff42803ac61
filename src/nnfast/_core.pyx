"""The kernels: arithmetic and parallel loops, nothing else.

One source for every instruction set and both dtypes (`floating` is float32 or float64). setup.py compiles it
once for each instruction set; `_kernels.py` picks one and is the only importer. Three rungs: an inline function for
one element, row, tile or chunk (leading underscore); a loop that divides them among threads; and, in the Python
files, a class that checks and allocates.

Every kernel keeps four promises:

1. What Python calls refuses arrays that do not fit together, whoever calls (`_core_checks.pxi`); the functions below
   check nothing, and values are the caller's duty (`_validation.py`).
2. It allocates nothing: outputs and workspaces are given.
3. Each element is written by one thread, summed in an order that does not depend on how many there are: the same
   bits for any number of threads.
4. The body of a parallel region is one call for this thread's share, or a loop of such calls (Cython would read
   `total += x` there as a sum over threads). Around it a team is assembled and disbanded (`_parallel.h`), and a team
   of one does without a region, which would cost more than a microsecond.

Arguments come in the order inputs, outputs, settings, num_threads. Inputs are const. Letters for shapes:
B examples (batch), I inputs, O outputs, C classes, N elements of a flattened array.
"""
from cpython.buffer cimport PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBuffer_Release, PyObject_GetBuffer
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.pycapsule cimport PyCapsule_GetPointer
from cython cimport floating
from cython.parallel cimport parallel
from libc.math cimport INFINITY, NAN, exp as exp_libc, fabs, fabsf, log1p, pow, sqrt, sqrtf
from libc.stdint cimport (
    int8_t, int16_t, int32_t, int64_t, intptr_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
)
from libc.string cimport memcpy, memmove, memset

import sys

cdef extern from "_compiler.h" nogil:
    void nnfast_copy_floats(float* y, const float* x)
    void nnfast_copy_doubles(double* y, const double* x)
    const char* NNFAST_ISA
    int NNFAST_OPENMP
    int nnfast_cpu_level()
    int32_t nnfast_float_bits(float x)
    int64_t nnfast_double_bits(double x)
    float nnfast_float_from_bits(int32_t bits)
    double nnfast_double_from_bits(int64_t bits)
    int nnfast_any_row(const uint8_t* flags)
    void nnfast_prefetch "NNFAST_PREFETCH" (const void* address)
    unsigned int nnfast_octet(const uint8_t* flags)
    enum:
        TILE_ROWS "NNFAST_TILE_ROWS"
        FLOAT_LANES "NNFAST_FLOAT_LANES"
        DOUBLE_LANES "NNFAST_DOUBLE_LANES"
        FLOAT_GRAIN "NNFAST_FLOAT_GRAIN"
        DOUBLE_GRAIN "NNFAST_DOUBLE_GRAIN"
        WIDEST "NNFAST_WIDEST"
        WIDEST_COLUMNS "NNFAST_WIDEST * NNFAST_FLOAT_LANES"

cdef extern from "_parallel.h" nogil:
    ctypedef struct nnfast_barrier:
        pass
    ctypedef struct nnfast_team:
        nnfast_barrier barrier
        int32_t threads
    int nnfast_thread_number()
    int nnfast_team_size()
    Py_ssize_t nnfast_share(Py_ssize_t n, Py_ssize_t unit, int next)
    void nnfast_wait(nnfast_barrier* barrier, int threads)
    int32_t nnfast_increment "NNFAST_INCREMENT" (int32_t* place)
    int64_t nnfast_load_long "NNFAST_LOAD_LONG" (int64_t* place)
    int nnfast_forks
    void nnfast_watch_forks()
    uint8_t* nnfast_take_block(uint8_t* blocks, Py_ssize_t size, int32_t count)
    void nnfast_give_block(uint8_t* block)
    int nnfast_openmp_threads()
    struct nnfast_all_teams:
        int64_t assembled, refused, rested
    nnfast_all_teams nnfast_teams
    int nnfast_assemble(nnfast_team* team, int threads)
    bint nnfast_is_disturbed(const nnfast_team* team)
    void nnfast_leave(nnfast_team* team)
    void nnfast_disband(nnfast_team* team)
    int64_t nnfast_clock()
    uint64_t nnfast_flush_subnormals()
    void nnfast_restore_mode(uint64_t mode)

# The dtype of an input that a kernel converts in passing, where it may differ from that of its parameters.
ctypedef fused given:
    float
    double

# Of data that are looked through for zeros.
ctypedef fused sampled:
    float
    double
    uint8_t

# A chunk of a flattened array: the unit in which element-wise work is handed to threads. 2048 elements are some
# 0.2 microseconds of ReLU, far more than handing them out costs, and 16 KiB of float64 stay in the L1 cache.
cdef enum:
    CHUNK = 2048

# The blocks in which a product goes through its first operand.
cdef enum:
    # Depth of one pass: a panel of this depth (96 KiB at 512 x 48 float32) stays in a 256 KiB L2 cache beside a block
    # of rows. The sums are picked up again from the result, so the order of summation is the same as in one pass.
    DEPTH_BLOCK = 512
    # Rows for which one panel after another is used while they are in the cache (256 KiB at 128 x 512 float32). The
    # first tile of each panel waits for it to come from the L3 cache: with 64 rows, steps of 784-1024-1024-10 and of
    # 784-256-128-10 took 1.03 to 1.06 times as long on two cores.
    ROW_BLOCK = 128

# Columns of a batch's sums that a thread takes at least.
cdef enum:
    COLUMNS_OF_SUMS = 64

ISA = NNFAST_ISA.decode()
OPENMP = NNFAST_OPENMP

# What plans must know of the build (_plan.py, _inference.py, _numerical_gradient.py): elements of a vector, vectors in
# a row of a panel, columns of the narrowest tile, the rows of weights and of a batch in one piece of an update, the
# rows below which inference copies no weights, and the lanes of a numerical gradient that are left out together.
VECTOR = {"float32": FLOAT_LANES, "float64": DOUBLE_LANES}
PANEL_VECTORS = WIDEST
PANEL_GRAIN = {"float32": FLOAT_GRAIN, "float64": DOUBLE_GRAIN}
UPDATE_ROWS = ROW_BLOCK
UPDATE_DEPTH = DEPTH_BLOCK
FEWEST_ROWS_BY_TILES = FEW_ROWS_OF_NARROW
LANES_LEFT_OUT = GROUP_OF_LANES
FEWEST_BUFFER = SUMS_OF_FEW_ROWS + FEW_ROWS_OF_WIDE * FLOAT_LANES


def cpu_level():
    """The highest x86-64 level that processor and system support: 4, 3, or 0 for neither."""
    return nnfast_cpu_level()


def forks():
    """How many forks lie between the process that imported this build and this one."""
    return nnfast_forks


def openmp_threads():
    """Threads that OpenMP would take in this thread, unless told: OMP_NUM_THREADS, or what was set since."""
    return nnfast_openmp_threads()


def teams():
    """So far: regions of several threads, calls that got one thread while another one's ran, and beside neighbours."""
    return (nnfast_load_long(&nnfast_teams.assembled), nnfast_load_long(&nnfast_teams.refused),
            nnfast_load_long(&nnfast_teams.rested))


nnfast_watch_forks()

include "_core_checks.pxi"
include "_core_arrays.pxi"
include "_core_vector_maths.pxi"
include "_core_zeros.pxi"
include "_core_products.pxi"
include "_core_layers.pxi"
include "_core_losses.pxi"
include "_core_regression.pxi"
include "_core_optimizers.pxi"
include "_core_panels.pxi"
include "_core_plan.pxi"
include "_core_updates.pxi"
include "_core_operations.pxi"
include "_core_plan_checks.pxi"
include "_core_orders.pxi"
include "_core_ranks.pxi"
include "_core_step.pxi"
include "_core_training.pxi"
include "_core_inference.pxi"
include "_core_c_functions.pxi"
include "_core_gradient.pxi"
include "_core_perturbation.pxi"
