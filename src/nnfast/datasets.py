"""Handwritten digits to learn from: 8 x 8 ones inside the package, and MNIST from a folder or the network.

``load_digits`` works everywhere at once, ``load_mnist`` is the book's function of that name, and ``read_idx``
reads the file format of MNIST. All of them come as ``(x_train, t_train), (x_test, t_test)``.

No file is trusted: what a header claims is compared with what the file can hold before anything is allocated,
and whatever is wrong with the contents of a file is a ``DatasetError``.
"""

import math
import os
import struct
import zlib
from io import BufferedIOBase
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nnfast import _download
from nnfast._files import as_path, opened

__all__ = ["DatasetError", "load_digits", "load_mnist", "read_idx"]

_Examples: TypeAlias = tuple[NDArray[Any], NDArray[Any]]

_CLASSES = 10

# 0x08 is the only type that MNIST and its successors use; the others are known in order to be named.
_IDX_TYPES = {0x08: "uint8", 0x09: "int8", 0x0B: "int16", 0x0C: "int32", 0x0D: "float32", 0x0E: "float64"}

# The largest file of MNIST's family (EMNIST by class, 697,932 images of 28 x 28) takes 0.55 GB.
_MAX_BYTES = 1 << 30

# Deflate packs at most 258 bytes into two bits, 1032 to 1: a gzip header that claims more is lying.
_MAX_GZIP_RATIO = 1032

_CHUNK = 1 << 20


class DatasetError(ValueError):
    """A data file whose contents are not what its format, or the loader, requires.

    The message is one sentence that names the file, what was found and what was expected.

    Examples
    --------
    >>> issubclass(DatasetError, ValueError)
    True
    """


def load_digits(
    normalize: bool = True, flatten: bool = True, one_hot_label: bool = False, *, test_share: float = 0.2
) -> tuple[_Examples, _Examples]:
    """Handwritten digits of 8 x 8 pixels as training and test set, from inside the package.

    Parameters
    ----------
    normalize : bool
        Whether the pixels are scaled to 0..1 (divided by 16).
    flatten : bool
        Whether an image is one row of 64 pixels, not (1, 8, 8).
    one_hot_label : bool
        Whether a label is a row of ten zeros and ones, not a class index.
    test_share : float
        The part of the 1,797 examples, above 0 and below 1, that is the test set; rounded up.

    Returns
    -------
    (x_train, t_train), (x_test, t_test)
        Images (B, 64) or (B, 1, 8, 8), float32 in 0..1 or uint8 in 0..16; labels (B,) uint8 or (B, 10) float64.
        B is 1,437 and 360 unless `test_share` says otherwise. The arrays are new in every call.

    Raises
    ------
    TypeError
        If a switch is not a bool, or `test_share` not a number.
    ValueError
        If `test_share` is not above 0 and below 1.

    Notes
    -----
    The rows of the source are ordered by writer, so that its last fifth would be the hands of a few people. They
    are therefore permuted, always by the same permutation: everybody gets the same two sets, and a smaller test
    set is the beginning of a larger one.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository,
    1998 (CC BY 4.0).

    Examples
    --------
    >>> (x_train, t_train), (x_test, t_test) = load_digits()
    >>> x_train.shape, x_train.dtype, t_train.shape, t_train.dtype
    ((1437, 64), dtype('float32'), (1437,), dtype('uint8'))
    >>> x_test.shape, float(x_test.min()), float(x_test.max())
    ((360, 64), 0.0, 1.0)
    """
    _require_bools(normalize=normalize, flatten=flatten, one_hot_label=one_hot_label)
    if isinstance(test_share, bool) or not isinstance(test_share, (int, float, np.integer, np.floating)):
        raise TypeError(f"test_share is {test_share!r}, but a number above 0 and below 1 was expected")
    if not 0 < test_share < 1:
        raise ValueError(f"test_share is {test_share}, but a number above 0 and below 1 was expected")

    with np.load(Path(__file__).with_name("data") / "digits.npz", allow_pickle=False) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    # RandomState, not default_rng: NumPy has frozen the streams of the former, and may change the latter's.
    order = np.random.RandomState(0).permutation(len(labels))
    test_size = min(math.ceil(test_share * len(labels)), len(labels) - 1)
    test, train = order[:test_size], order[test_size:]
    return (
        _in_shape(images[train], labels[train], 16, normalize, flatten, one_hot_label),
        _in_shape(images[test], labels[test], 16, normalize, flatten, one_hot_label),
    )


def load_mnist(
    normalize: bool = True,
    flatten: bool = True,
    one_hot_label: bool = False,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = False,
) -> tuple[_Examples, _Examples]:
    """MNIST as training and test set, from its four IDX files (or from files made like them).

    Parameters
    ----------
    normalize : bool
        Whether the pixels are scaled to 0..1 (divided by 255).
    flatten : bool
        Whether an image is one row of 784 pixels, not (1, 28, 28).
    one_hot_label : bool
        Whether a label is a row of ten zeros and ones, not a class index.
    data_dir : path, optional
        The folder with the files; they may also be in its subfolder ``mnist``. No other place is searched then.
        Without it: the folder that the environment variable ``NNFAST_DATA_DIR`` names, and its subfolder
        ``mnist``; then ``nnfast/mnist`` in the user's cache folder. The four files must be in one folder, with or
        without ``.gz``, as ``train-images-idx3-ubyte`` or ``train-images.idx3-ubyte``.
    download : bool
        Whether files that are not found are fetched (11 MB), checked against the published checksums and kept, in
        `data_dir` or else in the user's cache folder.

    Returns
    -------
    (x_train, t_train), (x_test, t_test)
        Images (B, 784) or (B, 1, 28, 28), float32 in 0..1 or uint8 in 0..255; labels (B,) uint8 or (B, 10)
        float64. For MNIST itself B is 60,000 and 10,000. The arrays are new in every call.

    Raises
    ------
    FileNotFoundError
        If the files are not found, with the places searched and what to do.
    DatasetError
        If a file is damaged, not IDX, or its images and labels do not fit each other or ten classes of 28 x 28.
    OSError
        If a folder or a file cannot be read or written, or no mirror gives a good download.
    TypeError
        If `data_dir` is not a path, or a switch not a bool.
    ValueError
        If `data_dir` cannot be a path: an empty string, or one with a NUL character.

    Notes
    -----
    Files that are there already are not compared with checksums, so that a data set of the same form, such as
    Fashion-MNIST, can take MNIST's place.

    Source: Y. LeCun, C. Cortes and C. Burges, The MNIST database of handwritten digits. The signature is that of
    *Deep Learning from Scratch*, chapter 3.

    Examples
    --------
    Where the files are, ``(x_train, t_train), (x_test, t_test) = load_mnist()`` is all it takes; elsewhere:

    >>> load_mnist(data_dir="no-such-folder")
    Traceback (most recent call last):
        ...
    FileNotFoundError: data_dir is no-such-folder, which does not exist; pass a folder that holds the files of MNIST, \
or download=True to fetch them into it (on the command line: --download)
    """
    _require_bools(normalize=normalize, flatten=flatten, one_hot_label=one_hot_label, download=download)
    folder = None if data_dir is None else as_path("data_dir", data_dir)
    train_images, train_labels, test_images, test_labels = _download.find_mnist(folder, download)
    return (
        _in_shape(*_read_examples(train_images, train_labels), 255, normalize, flatten, one_hot_label),
        _in_shape(*_read_examples(test_images, test_labels), 255, normalize, flatten, one_hot_label),
    )


def read_idx(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Array that an IDX file holds, the format of MNIST.

    Parameters
    ----------
    path : path
        A file of unsigned bytes with one to four axes, plain or packed by gzip, whatever its name ends in; of at
        most 1 GiB unpacked.

    Returns
    -------
    ndarray of uint8
        A new array with the axes of the file.

    Raises
    ------
    DatasetError
        If the file is not IDX, holds another type, or more or fewer bytes than its header claims.
    OSError
        If the file cannot be read; ``FileNotFoundError`` if it does not exist.
    TypeError
        If `path` is not a path.
    ValueError
        If `path` is an empty string, or has a NUL character.

    Notes
    -----
    The format: two zero bytes, one byte for the type (8 for unsigned bytes), one for the number of axes, the
    length of each axis as a big-endian 32-bit integer, then the elements, last axis fastest.

    Source: Y. LeCun, C. Cortes and C. Burges, The MNIST database of handwritten digits.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "three-labels-idx1-ubyte")
    ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
    ...     read_idx(path)
    array([7, 2, 1], dtype=uint8)
    """
    return _read_idx(as_path("path", path))


def _in_shape(
    images: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    white: int,
    normalize: bool,
    flatten: bool,
    one_hot_label: bool,
) -> _Examples:
    """Images and labels in the form that the caller of a loader asked for; `white` is the largest pixel value."""
    pixels: NDArray[Any] = np.divide(images, np.float32(white), dtype=np.float32) if normalize else images
    rows, columns = images.shape[1:]
    shape = (rows * columns,) if flatten else (1, rows, columns)
    return pixels.reshape(len(images), *shape), np.eye(_CLASSES)[labels] if one_hot_label else labels


# Reading the files


def _read_examples(images_path: Path, labels_path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images (B, 28, 28) and labels (B,) of two IDX files that belong together."""
    images = _read_idx(images_path, "images")
    labels = _read_idx(labels_path, "labels")
    if len(images) != len(labels):
        raise DatasetError(f"{labels_path} holds {len(labels)} labels, but {images_path} holds {len(images)} images")
    if len(labels) == 0:
        raise DatasetError(f"{labels_path} holds 0 labels, but at least 1 was expected")
    if labels.max() >= _CLASSES:
        where = int(np.argmax(labels >= _CLASSES))
        raise DatasetError(f"{labels_path}: label {where} is {labels[where]}, but classes 0 to 9 were expected")
    return images, labels


def _read_idx(path: Path, expected: str | None = None) -> NDArray[np.uint8]:
    """Array of the file; `expected` "images" or "labels" has anything else refused before it is read."""
    import gzip  # here, for it takes a twentieth of the time that importing nnfast takes

    with opened(path, "an IDX file", DatasetError) as file:
        is_gzip = file.peek(2)[:2] == b"\x1f\x8b"
        capacity = os.fstat(file.fileno()).st_size * (_MAX_GZIP_RATIO if is_gzip else 1)
        content: BufferedIOBase = gzip.GzipFile(fileobj=file) if is_gzip else file
        try:
            shape = _read_header(content, path)
            _require_kind(shape, expected, path)
            claimed = math.prod(shape)
            if claimed > capacity:
                raise DatasetError(f"{path} claims {_sized(shape)} bytes, but it can hold no more than {capacity}")
            flat = np.empty(claimed, np.uint8)
            arrived = _fill(flat, content)
            # For gzip, reading on to the end is also what has the checksum looked at.
            trailing = content.read(1)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DatasetError(f"{path} is a damaged gzip file ({error}), but a whole one was expected") from error
    if arrived < claimed:
        raise DatasetError(f"{path} ends after {arrived} bytes of data, but {claimed} ({_sized(shape)}) were expected")
    if trailing:
        raise DatasetError(f"{path} goes on after {claimed} bytes of data ({_sized(shape)}), but an end was expected")
    return flat.reshape(shape)


def _read_header(content: BufferedIOBase, path: Path) -> tuple[int, ...]:
    """Lengths of the axes, none of which is yet known to be true."""
    magic = content.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _IDX_TYPES:
        raise DatasetError(f"{path} begins with the bytes {magic.hex(' ') or '(none)'}, but IDX begins with 00 00 08")
    if magic[2] != 0x08:
        raise DatasetError(f"{path} holds {_IDX_TYPES[magic[2]]} values, but uint8 values (type 8) were expected")
    axes = magic[3]
    if not 1 <= axes <= 4:
        raise DatasetError(f"{path} has {axes} axes, but 1 to 4 were expected")
    lengths = content.read(4 * axes)
    if len(lengths) < 4 * axes:
        raise DatasetError(f"{path} ends inside its header, but the lengths of {axes} axes were expected")
    shape = struct.unpack(f">{axes}I", lengths)
    # An axis of length 0 must not hide others that NumPy cannot hold.
    if math.prod(max(length, 1) for length in shape) > _MAX_BYTES:
        raise DatasetError(f"{path} claims {_sized(shape)} bytes, but at most {_MAX_BYTES} bytes were expected")
    return shape


def _require_kind(shape: tuple[int, ...], expected: str | None, path: Path) -> None:
    kinds = {1: "labels (1 axis)", 3: "images (3 axes)"}
    if expected is not None and len(shape) != (axes := 3 if expected == "images" else 1):
        found = kinds.get(len(shape), f"an array of {len(shape)} axes")
        raise DatasetError(f"{path} holds {found}, but {kinds[axes]} were expected")
    if expected == "images" and shape[1:] != (28, 28):
        raise DatasetError(f"{path} holds images of {shape[1]} x {shape[2]} pixels, but 28 x 28 were expected")


def _fill(flat: NDArray[np.uint8], content: BufferedIOBase) -> int:
    """Number of bytes read into `flat`; a chunk at a time, since GzipFile.read keeps all it returns a second time."""
    view, arrived = flat.data, 0
    while chunk := content.read(min(_CHUNK, len(view) - arrived)):
        view[arrived : arrived + len(chunk)] = chunk
        arrived += len(chunk)
    return arrived


def _sized(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


# Refusing arguments


def _require_bools(**switches: object) -> None:
    for name, value in switches.items():
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"{name} is {value!r}, but True or False was expected")
