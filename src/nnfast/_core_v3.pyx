"""The kernels of `_core.pyx`, compiled for x86-64-v3 (AVX2 and FMA)."""
include "_core.pyx"
