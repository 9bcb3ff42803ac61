"""Files are opened with care and written whole or not at all, and the system's refusals become sentences."""

import contextlib
import os
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import IO

_LONGEST_QUOTE = 300
"""Characters of what is said of a file, before those that cannot be printed are escaped."""


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


def remove_unfinished(path: Path) -> None:
    """What processes that were killed left of files that should have taken the place of this one."""
    from glob import escape  # here and below, for only who keeps files needs them

    for unfinished in path.parent.glob(f".{escape(path.name)}.{'[0-9a-f]' * 16}.part"):
        with contextlib.suppress(OSError):
            unfinished.unlink()


def require_writable(path: Path, remedy: str) -> None:
    """Refuse, before the training, what could not be written after it."""
    import tempfile

    try:
        # Nothing short of writing tells: permissions are not all that can stand in the way.
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise explained(error, f"{path} cannot be written ({remedy})") from error
    if path.exists() and not path.is_file():
        raise FileExistsError(f"{path} is a folder or a device, which a file cannot replace: {remedy}")


def put_in_place(path: Path, contents: bytes) -> None:
    """Write a file whole or not at all."""
    with replacing(path) as file:
        file.write(contents)


def in_a_line(text: str) -> str:
    """What may come from a file: control characters are escaped, and what is long is cut."""
    line = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text[:_LONGEST_QUOTE])
    return line + "..." * (len(text) > _LONGEST_QUOTE)


def explained(error: OSError, sentence: str) -> OSError:
    """The same kind of error, in one sentence that ends with the system's reason."""
    return type(error)(f"{sentence}: {reason(error)}")


def reason(error: OSError) -> str:
    """What the system says stood in the way."""
    return (error.strerror or str(error)).lower()
