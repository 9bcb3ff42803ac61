"""
A device: a network as a file of C
==================================

`export_c` writes a trained network as one file of C99, which allocates nothing and needs nothing but the C library: for a
microcontroller, or for a program in C, C++ or Fortran. Here the compiler at hand makes a library of it, and Python calls that.
"""

import ctypes
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from nnfast import SGD, Affine, Network, Relu, load_digits

(x, t), (x_test, t_test) = load_digits()
network = Network([Affine(64, 32), Relu(), Affine(32, 10)], seed=0)
network.fit(x, t, epochs=40, batch_size=50, optimizer=SGD(lr=0.2))
print(f"test accuracy {network.accuracy(x_test, t_test):.3f}")

folder = Path(tempfile.mkdtemp())
source = folder / "digits.c"
network.export_c(source, name="digits", probabilities=True)
print(f"{source.stat().st_size / 1024:.0f} KB of C; what a program sees of it:")
print("\n".join(line for line in source.read_text().splitlines() if line.startswith(("#define", "void"))))

# %%
# Compiled with `-Ddigits_SELF_TEST`, the file is a program that compares itself with what the network gave when it was written.

subprocess.run(["cc", "-std=c99", "-O2", "-Ddigits_SELF_TEST", source, "-lm", "-o", folder / "test"], check=True)
print("the self-test:", subprocess.run([folder / "test"], capture_output=True, text=True, check=True).stdout.strip() or "passed")

# %%
# As a library, one function for one image.

subprocess.run(["cc", "-std=c99", "-O2", "-shared", "-fPIC", source, "-lm", "-o", folder / "digits.so"], check=True)
digits = ctypes.CDLL(str(folder / "digits.so")).digits
digits.restype = None
floats = np.ctypeslib.ndpointer(np.float32, flags="C")
digits.argtypes = [floats, floats]

images, probabilities = np.ascontiguousarray(x_test, np.float32), np.empty((len(x_test), 10), np.float32)
for image, row in zip(images, probabilities, strict=True):
    digits(image, row)
print(f"in C, test accuracy {np.mean(probabilities.argmax(axis=1) == t_test):.3f}")
print("the same classes as in Python:", bool((probabilities.argmax(axis=1) == network.predict(x_test).argmax(axis=1)).all()))
