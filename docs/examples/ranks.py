"""
Ranks: a file larger than memory, read by all that train
=========================================================

`Network.fit` with `comm` trains one network on all ranks of a communicator of MPI, each with rows of its own. Where
these are a part of a file that is mapped into memory, a rank reads what its steps take, and the file may be larger
than the memory of any machine. Here it has a few megabytes, so that the example takes seconds; nothing in it would
change with terabytes::

    mpiexec -n 2 python -m mpi4py ranks.py

Without `mpiexec` it is one rank, which trains alone. `-m mpi4py` ends all ranks when one of them fails.
"""

import tempfile
from pathlib import Path

import numpy as np
from mpi4py import MPI

from nnfast import Adam, Affine, Network, Relu, Rescale, load_digits

comm = MPI.COMM_WORLD
(digits, labels), (x_test, t_test) = load_digits()

# %%
# The first rank writes the file where all can see it: images as bytes, a block at a time. It draws them from the digits
# in the package and adds noise. Rows come in random order **once, here**: then steps may take them as they come. A
# step that gathers rows from everywhere in a file would wait for the disk at each of them.

ROWS, BLOCK = 60_000, 5_000

folder = Path(comm.bcast(tempfile.mkdtemp() if comm.rank == 0 else None))
if comm.rank == 0:
    rng = np.random.default_rng(0)
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (ROWS, 64))
    classes = np.lib.format.open_memmap(folder / "classes.npy", "w+", np.uint8, (ROWS,))
    for first in range(0, ROWS, BLOCK):
        rows = rng.integers(len(digits), size=BLOCK)
        block = 255 * digits[rows] + rng.normal(0, 20, (BLOCK, 64))
        images[first : first + BLOCK] = np.rint(block.clip(0, 255))
        classes[first : first + BLOCK] = labels[rows]
    images.flush()
    classes.flush()
    del images, classes
comm.Barrier()

# %%
# Each rank maps the file and takes its part of the rows, without reading them. `Rescale` takes bytes as they are and
# makes numbers from 0 to 1 of those that a step is about to use; an array of another dtype than the network's would
# be converted as a whole.

x = np.load(folder / "images.npy", mmap_mode="r")
t = np.load(folder / "classes.npy", mmap_mode="r")
mine = slice(ROWS * comm.rank // comm.size, ROWS * (comm.rank + 1) // comm.size)

network = Network([Rescale(1 / 255), Affine(64, 64), Relu(), Affine(64, 10)], seed=0)
history = network.fit(x[mine], t[mine], epochs=3, batch_size=200, shuffle=False, optimizer=Adam(), comm=comm)

# %%
# All ranks have the same weights now, to the bit, so one of them tells.

accuracy = network.accuracy(np.rint(255 * x_test).astype(np.uint8), t_test)
if comm.rank == 0:
    print(f"{comm.size} rank(s), {len(x[mine]):,} of {ROWS:,} rows on the first one")
    print(f"{len(history.loss)} epochs in {sum(history.seconds):.2f} s, "
          f"loss {history.loss[-1]:.3f}, test accuracy {accuracy:.3f}")

# %%
# The file goes when nobody reads it any more.

del x, t
comm.Barrier()
if comm.rank == 0:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
