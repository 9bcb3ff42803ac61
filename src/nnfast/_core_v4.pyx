"""The kernels of `_core.pyx`, compiled for x86-64-v4 (AVX-512)."""
include "_core.pyx"
