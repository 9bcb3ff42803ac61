"""The four files of MNIST: where they are looked for, and how they are fetched when they are not there.

A fetched file is checked against the published checksum, and put in place whole or not at all.
"""

import contextlib
import os
import stat
import sys
import zlib
from pathlib import Path

from nnfast._files import explained, put_in_place, reason

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://azureopendatastorage.blob.core.windows.net/mnist/",
)

# Stem of the name: bytes and MD5 of the file unpacked. Mirrors may pack it anew, the contents stay the same.
PUBLISHED = {
    "train-images-idx3-ubyte": (47_040_016, "6bbc9ace898e44ae57da46a324031adb"),
    "train-labels-idx1-ubyte": (60_008, "a25bea736e30d166cdddb491f175f624"),
    "t10k-images-idx3-ubyte": (7_840_016, "2646ac647ad5339dbf082846283269ea"),
    "t10k-labels-idx1-ubyte": (10_008, "27ae3e4e09519cfbb04c329615203637"),
}

# Seconds without a byte after which the next mirror is asked.
_TIMEOUT = 30

# Deflate makes data that it cannot pack larger by 5 bytes in 16 KiB at most; the rest is for gzip's header.
_PACKING_OVERHEAD = 1 << 16


def find_mnist(data_dir: Path | None, download: bool) -> list[Path]:
    """Paths of the four files in the order of `PUBLISHED`, all in one folder, fetched into it if that is allowed.

    Raises
    ------
    FileNotFoundError
        If they are in none of the folders and may not be fetched.
    OSError
        If `data_dir` cannot be searched or written to, or no mirror gives a good file.
    """
    if data_dir is not None:
        _require_folder(data_dir, may_be_missing=download)
        folders, remedy = [data_dir, data_dir / "mnist"], "pass another data_dir="
    else:
        folders, remedy = _default_folders(), "pass data_dir=, set NNFAST_DATA_DIR"

    searched = []
    for folder in folders:
        try:
            found = _files_in(folder)
        except OSError as error:
            if data_dir is not None:
                raise explained(error, f"data_dir is {data_dir}, which cannot be searched") from error
            searched.append(f"{folder} ({reason(error)})")
            continue
        lacking = [stem for stem in PUBLISHED if stem not in found]
        if not lacking:
            return [found[stem] for stem in PUBLISHED]
        searched.append(f"{folder} (which lacks {', '.join(lacking)})" if found else f"{folder}")
    if not download:
        raise FileNotFoundError(
            f"the four files of MNIST were not found in {', '.join(searched) or 'any folder'}; {remedy}, "
            "or pass download=True to fetch them (on the command line: --download)"
        )
    return _fetch_into(data_dir or _cache_folder())


def _require_folder(data_dir: Path, may_be_missing: bool) -> None:
    try:
        mode = data_dir.stat().st_mode
    except FileNotFoundError as error:
        if may_be_missing:
            return
        raise FileNotFoundError(
            f"data_dir is {data_dir}, which does not exist; pass a folder that holds the files of MNIST, "
            "or download=True to fetch them into it (on the command line: --download)"
        ) from error
    except OSError as error:
        raise explained(error, f"data_dir is {data_dir}, which cannot be searched") from error
    if not stat.S_ISDIR(mode):
        raise NotADirectoryError(f"data_dir is {data_dir}, which is a file, but a folder was expected")


def _files_in(folder: Path) -> dict[str, Path]:
    """Those of the four files that `folder` holds, by their stems."""
    found = {}
    for stem in PUBLISHED:
        dotted = stem.replace("-idx", ".idx")
        for name in (f"{stem}.gz", stem, f"{dotted}.gz", dotted):
            path = folder / name
            # stat, not Path.is_file: that one takes a missing permission for a missing file.
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                if stat.S_ISREG(path.stat().st_mode):
                    found[stem] = path
                    break
    return found


def _default_folders() -> list[Path]:
    """Folders searched without data_dir, in this order."""
    folders = []
    if named := os.environ.get("NNFAST_DATA_DIR"):
        folders += [Path(named), Path(named, "mnist")]
    if (cache := _cache_folder()) is not None:
        folders.append(cache)
    return folders


def _cache_folder() -> Path | None:
    """Folder in which this user's downloads are kept; None for a user without a home."""
    try:
        if sys.platform == "win32":
            cache = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        elif sys.platform == "darwin":
            cache = Path.home() / "Library" / "Caches"
        else:
            cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
            # The XDG specification has relative paths ignored.
            if not cache.is_absolute():
                cache = Path.home() / ".cache"
    except RuntimeError:
        return None
    return cache / "nnfast" / "mnist"


def _fetch_into(folder: Path | None) -> list[Path]:
    """Paths of the four files in `folder`, those that it lacked fetched from the mirrors."""
    if folder is None:
        raise FileNotFoundError("no home folder is known in which MNIST could be kept; pass data_dir=")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = _files_in(folder)
    except OSError as error:
        raise explained(error, f"MNIST cannot be kept in {folder}") from error
    for stem, (size, md5) in PUBLISHED.items():
        if stem not in found:
            found[stem] = folder / f"{stem}.gz"
            put_in_place(found[stem], _fetch(f"{stem}.gz", size, md5))
    return [found[stem] for stem in PUBLISHED]


def _fetch(name: str, size: int, md5: str) -> bytes:
    """The gzip file `name` from the first mirror that has it as published."""
    # Imported here, as are gzip and hashlib: urllib.request takes longer to import than all of nnfast, and hardly anybody downloads.
    from http.client import HTTPException
    from urllib.error import HTTPError

    failures = []
    for mirror in MIRRORS:
        try:
            return _checked(_get(mirror + name, size + _PACKING_OVERHEAD), size, md5)
        except HTTPError as error:
            error.close()
            failures.append(f"{mirror}: HTTP status {error.code}")
        # ValueError: also what urllib raises when it is redirected to something that is not an address.
        except (OSError, HTTPException, ValueError) as error:
            failures.append(f"{mirror}: {str(getattr(error, 'reason', error))[:100]}")
    raise OSError(f"{name} could not be downloaded from any mirror ({'; '.join(failures)})")


def _get(url: str, limit: int) -> bytes:
    from urllib.request import Request, urlopen

    with urlopen(Request(url, headers={"User-Agent": "nnfast"}), timeout=_TIMEOUT) as response:
        body: bytes = response.read(limit + 1)
    if len(body) > limit:
        raise ValueError(f"sent more than {limit} bytes")
    return body


def _checked(body: bytes, size: int, md5: str) -> bytes:
    """The body as a gzip file, once its contents have proved to be the published ones."""
    import gzip
    import hashlib

    # Some servers unpack on the way what they store packed.
    is_gzip = body[:2] == b"\x1f\x8b"
    contents = _unpacked(body, size) if is_gzip else body
    # MD5 because that is what was published; it finds damage, and the reader trusts no file anyway.
    if hashlib.md5(contents, usedforsecurity=False).hexdigest() != md5:
        raise ValueError("sent something else than the published file")
    return body if is_gzip else gzip.compress(body)


def _unpacked(body: bytes, size: int) -> bytes:
    unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        contents = unpacker.decompress(body, size + 1)
    except zlib.error as error:
        raise ValueError(f"sent a damaged gzip file ({error})") from error
    if not unpacker.eof or unpacker.unused_data:
        raise ValueError("sent a gzip file that is cut or too long")
    return contents
