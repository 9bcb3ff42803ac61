"""Files are opened with care and written whole or not at all, and the system's refusals become sentences."""

import contextlib
import os
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import IO


class ModelFormatError(ValueError):
    """A file that is not one of `Network.save`, or is damaged.

    The message is one sentence that names the file and what is wrong with it.

    Examples
    --------
    >>> issubclass(ModelFormatError, ValueError)
    True
    """


def as_path(name: str, value: object) -> Path:
    """An argument that names a file."""
    path = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(path, str):
        raise TypeError(f"{name} is {value!r}, but a path (str or os.PathLike) was expected")
    if not path or "\0" in path:
        raise ValueError(f"{name} is {path!r}, but a path without NUL characters and not empty was expected")
    return Path(path)


@contextlib.contextmanager
def opened(path: Path, kind: str, refused: type[ValueError]) -> Iterator[BufferedReader]:
    """The file, for reading; what is none is `refused`."""
    try:
        # Asked before opening: to open a named pipe would wait for a writer.
        if not stat.S_ISREG(path.stat().st_mode):
            raise refused(f"{path} is a folder or a device, but a file was expected")
        file = path.open("rb")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} does not exist, but {kind} was expected") from error
    except OSError as error:
        raise explained(error, f"{path} cannot be read") from error
    with file:
        yield file


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, which takes the place of the one at `path` when it is finished: no reader ever sees half of it.

    It lies in the same folder until then, and is gone when something goes wrong.
    """
    # Not tempfile, whose files only their owner may read: a data folder may be shared.
    unfinished = path.with_name(f".{path.name}.{os.urandom(8).hex()}.part")
    try:
        with unfinished.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())     # else the name may reach the disk before the contents, and power fail between
        unfinished.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise explained(error, f"{path} cannot be written") from error
        raise


def put_in_place(path: Path, contents: bytes) -> None:
    """Write a file whole or not at all."""
    with replacing(path) as file:
        file.write(contents)


def explained(error: OSError, sentence: str) -> OSError:
    """The same kind of error, in one sentence that ends with the system's reason."""
    return type(error)(f"{sentence}: {reason(error)}")


def reason(error: OSError) -> str:
    """What the system says stood in the way."""
    return (error.strerror or str(error)).lower()
