"""Files are written whole or not at all, and the system's refusals become sentences."""

import contextlib
import os
from pathlib import Path


def put_in_place(path: Path, contents: bytes) -> None:
    """Write the file under another name in the same folder, then rename it: no reader ever sees half of it."""
    # Not tempfile, whose files only their owner may read: a data folder may be shared.
    unfinished = path.with_name(f".{path.name}.{os.urandom(8).hex()}.part")
    try:
        with unfinished.open("xb") as file:
            file.write(contents)
        unfinished.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise explained(error, f"{path} cannot be written") from error
        raise


def explained(error: OSError, sentence: str) -> OSError:
    """The same kind of error, in one sentence that ends with the system's reason."""
    return type(error)(f"{sentence}: {reason(error)}")


def reason(error: OSError) -> str:
    """What the system says stood in the way."""
    return (error.strerror or str(error)).lower()
