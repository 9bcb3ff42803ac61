"""The loaders give the book's arrays; no file, folder or mirror makes them do anything but that or say why not."""

import contextlib
import doctest
import gzip
import hashlib
import itertools
import os
import struct
import threading
import tracemalloc
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from nnfast import _download, datasets
from nnfast.datasets import DatasetError, load_digits, load_mnist, read_idx

STEMS = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
SWITCHES = list(itertools.product([True, False], repeat=3))
BILLION = 1_000_000_000

# Read before the fixture below hides it from every test.
MNIST_DIR = os.environ.get("NNFAST_DATA_DIR", "")


def _holds_mnist(folder):
    return any((Path(folder, sub) / (STEMS[0] + end)).is_file() for sub in ("", "mnist") for end in ("", ".gz"))


requires_mnist = pytest.mark.skipif(
    not (MNIST_DIR and _holds_mnist(MNIST_DIR)), reason="NNFAST_DATA_DIR does not name a folder with MNIST"
)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home without data, so that no test sees or changes that of the user."""
    folder = tmp_path / "home"
    folder.mkdir()
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(folder))
    for name in ("NNFAST_DATA_DIR", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    return folder


def idx(array, type_code=8):
    """The IDX file of an array, written here from the format's description."""
    array = np.asarray(array)
    return bytes([0, 0, type_code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def header(*lengths, type_code=8):
    return bytes([0, 0, type_code, len(lengths)]) + struct.pack(f">{len(lengths)}I", *lengths)


def small_mnist():
    """Three training and two test images whose pixels and labels are all different from their neighbours'."""
    pixels = (np.arange(5 * 784) % 256).astype(np.uint8).reshape(5, 28, 28)
    labels = np.array([9, 0, 4, 1, 7], np.uint8)
    return dict(zip(STEMS, (pixels[:3], labels[:3], pixels[3:], labels[3:]), strict=True))


def write_mnist(folder, **replaced):
    """The small files in `folder`; `replaced` gives other bytes for some, by "train_images" and the like."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem, array in small_mnist().items():
        contents = replaced.get(stem.rsplit("-", 2)[0].replace("-", "_"), idx(array))
        (folder / f"{stem}.gz").write_bytes(gzip.compress(contents))
    return folder


def file_with(folder, contents, name="file"):
    path = folder / name
    path.write_bytes(contents)
    return path


def one_sentence(error):
    message = str(error.value)
    assert "\n" not in message
    assert "[Errno" not in message
    return message


@contextlib.contextmanager
def peak_memory_below(limit):
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


# load_digits


@pytest.mark.parametrize(("normalize", "flatten", "one_hot_label"), SWITCHES)
def test_digits_have_the_shapes_and_dtypes_of_the_book(normalize, flatten, one_hot_label):
    for (x, t), count in zip(load_digits(normalize, flatten, one_hot_label), (1437, 360), strict=True):
        assert x.shape == ((count, 64) if flatten else (count, 1, 8, 8))
        assert x.dtype == (np.float32 if normalize else np.uint8)
        assert (x.min(), x.max()) == (0, 1 if normalize else 16)
        assert t.shape == ((count, 10) if one_hot_label else (count,))
        assert t.dtype == (np.float64 if one_hot_label else np.uint8)
        assert x.flags.c_contiguous and x.flags.writeable and t.flags.writeable


def test_digits_in_both_sets_are_together_those_of_the_file():
    with np.load(Path(datasets.__file__).with_name("data") / "digits.npz", allow_pickle=False) as arrays:
        expected = np.column_stack([arrays["images"].reshape(-1, 64), arrays["labels"]])
    (x_train, t_train), (x_test, t_test) = load_digits(normalize=False)
    found = np.column_stack([np.concatenate([x_train, x_test]), np.concatenate([t_train, t_test])])
    assert found.shape == (1797, 65)
    assert sorted(map(tuple, found)) == sorted(map(tuple, expected))
    # Published for the source's test set: examples of each class.
    assert np.bincount(found[:, 64]).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_digits_are_divided_by_their_largest_value():
    raw, scaled = load_digits(normalize=False)[0][0], load_digits()[0][0]
    np.testing.assert_array_equal(scaled, raw.astype(np.float32) / 16)


def test_digits_are_not_in_the_order_of_the_writers():
    # The file begins 0, 1, ..., 9, 0, 1, ..., 9.
    (_, t_train), (_, t_test) = load_digits()
    assert t_train[:20].tolist() != [*range(10), *range(10)]
    assert min(np.bincount(t_test, minlength=10)) >= 20
    # Every thirteenth of the file, one writer's share, must be in the test set.
    with np.load(Path(datasets.__file__).with_name("data") / "digits.npz", allow_pickle=False) as arrays:
        rows = {image.tobytes(): row for row, image in enumerate(arrays["images"])}
    writers = {rows[image.tobytes()] * 13 // 1797 for image in load_digits(normalize=False, flatten=False)[1][0]}
    assert writers == set(range(13))


def test_digits_are_split_in_the_same_way_for_everyone():
    # RandomState(0).permutation is frozen by NumPy's compatibility policy (NEP 19), and so are these labels.
    with np.load(Path(datasets.__file__).with_name("data") / "digits.npz", allow_pickle=False) as arrays:
        order = np.random.RandomState(0).permutation(1797)
        expected = arrays["labels"][order]
    np.random.seed(5)
    before = np.random.get_state()[1].copy()
    (_, t_train), (_, t_test) = load_digits()
    np.testing.assert_array_equal(np.concatenate([t_test, t_train]), expected)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_digits_of_a_second_call_are_other_arrays():
    load_digits()[0][0][:] = 7
    assert load_digits()[0][0].max() == 1


@pytest.mark.parametrize(
    ("share", "count"), [(1e-9, 1), (0.1, 180), (0.25, 450), (np.float32(0.5), 899), (1 - 1e-9, 1796)]
)
def test_a_test_share_is_rounded_up_but_leaves_a_training_example(share, count):
    (x_train, _), (x_test, t_test) = load_digits(test_share=share)
    assert (len(x_train), len(x_test)) == (1797 - count, count)
    shared = min(count, 360)
    np.testing.assert_array_equal(t_test[:shared], load_digits()[1][1][:shared])


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, float("nan"), float("inf")])
def test_a_test_share_outside_0_to_1_is_refused(share):
    with pytest.raises(ValueError, match=r"^test_share is .*, but a number above 0 and below 1 was expected$"):
        load_digits(test_share=share)


@pytest.mark.parametrize("share", ["0.2", None, True, [0.2]])
def test_a_test_share_that_is_no_number_is_refused(share):
    with pytest.raises(TypeError, match=r"^test_share is "):
        load_digits(test_share=share)


@pytest.mark.parametrize("load", [load_digits, load_mnist])
@pytest.mark.parametrize("name", ["normalize", "flatten", "one_hot_label"])
@pytest.mark.parametrize("value", ["no", None, 2, 0.0])
def test_a_switch_that_is_not_a_bool_is_refused(load, name, value):
    with pytest.raises(TypeError, match=f"^{name} is .*, but True or False was expected$"):
        load(**{name: value})


# load_mnist: what comes back


@pytest.mark.parametrize(("normalize", "flatten", "one_hot_label"), SWITCHES)
def test_mnist_has_the_values_shapes_and_dtypes_of_the_book(tmp_path, normalize, flatten, one_hot_label):
    train, test = load_mnist(normalize, flatten, one_hot_label, data_dir=write_mnist(tmp_path))
    files = list(small_mnist().values())
    for (x, t), (images, labels) in zip((train, test), (files[:2], files[2:]), strict=True):
        expected = images.astype(np.float32) / 255.0 if normalize else images
        assert x.shape == ((len(images), 784) if flatten else (len(images), 1, 28, 28))
        assert x.dtype == (np.float32 if normalize else np.uint8)
        np.testing.assert_array_equal(x.ravel(), expected.ravel())
        if one_hot_label:
            assert t.shape == (len(labels), 10) and t.dtype == np.float64
            assert (np.sort(t, axis=1) == [0] * 9 + [1]).all()
            t = t.argmax(axis=1)
        else:
            assert t.dtype == np.uint8
        np.testing.assert_array_equal(t, labels)


@requires_mnist
def test_the_real_mnist_has_its_published_counts(monkeypatch):
    monkeypatch.setenv("NNFAST_DATA_DIR", MNIST_DIR)
    (x_train, t_train), (x_test, t_test) = load_mnist(normalize=False)
    assert (x_train.shape, x_test.shape) == ((60_000, 784), (10_000, 784))
    assert np.bincount(t_train).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(t_test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    for stem, array in zip(STEMS, (x_train, t_train, x_test, t_test), strict=True):
        shape = (len(array), 28, 28) if "images" in stem else (len(array),)
        contents = idx(array.reshape(shape))
        assert _download.PUBLISHED[stem] == (len(contents), hashlib.md5(contents, usedforsecurity=False).hexdigest())


@requires_mnist
def test_the_real_mnist_normalised_lies_between_0_and_1():
    for x, t in load_mnist(one_hot_label=True, data_dir=MNIST_DIR):
        assert x.dtype == np.float32 and (x.min(), x.max()) == (0, 1)
        assert (t.sum(axis=1) == 1).all()


# load_mnist: where the files are found


@pytest.mark.parametrize("subfolder", ["", "mnist"])
@pytest.mark.parametrize("name", ["{}.gz", "{}", "dotted", "dotted.gz"])
def test_mnist_is_found_under_each_of_its_usual_names(tmp_path, subfolder, name):
    folder = tmp_path / subfolder
    folder.mkdir(exist_ok=True)
    for stem, array in small_mnist().items():
        stem = stem.replace("-idx", ".idx") if "dotted" in name else stem
        path = folder / (stem + ".gz" if name.endswith(".gz") else stem)
        path.write_bytes(gzip.compress(idx(array)) if name.endswith(".gz") else idx(array))
    assert load_mnist(data_dir=tmp_path)[0][1].tolist() == [9, 0, 4]
    assert load_mnist(data_dir=str(tmp_path))[1][1].tolist() == [1, 7]


@pytest.mark.parametrize("subfolder", ["", "mnist"])
def test_mnist_is_found_through_the_environment_variable(tmp_path, monkeypatch, subfolder):
    write_mnist(tmp_path / "data" / subfolder)
    monkeypatch.setenv("NNFAST_DATA_DIR", str(tmp_path / "data"))
    assert load_mnist()[0][1].tolist() == [9, 0, 4]


@pytest.mark.parametrize(
    ("platform", "variable", "value", "expected"),
    [
        ("linux", "XDG_CACHE_HOME", "{home}/x", "x/nnfast/mnist"),
        ("linux", "XDG_CACHE_HOME", "relative", ".cache/nnfast/mnist"),
        ("linux", "XDG_CACHE_HOME", "", ".cache/nnfast/mnist"),
        ("darwin", "XDG_CACHE_HOME", "{home}/x", "Library/Caches/nnfast/mnist"),
        ("win32", "LOCALAPPDATA", "{home}/x", "x/nnfast/mnist"),
        ("win32", "LOCALAPPDATA", "", "AppData/Local/nnfast/mnist"),
    ],
)
def test_mnist_is_found_in_the_cache_folder_of_each_system(home, monkeypatch, platform, variable, value, expected):
    write_mnist(home / expected)
    monkeypatch.setenv(variable, value.format(home=home))
    monkeypatch.setattr(_download.sys, "platform", platform)
    assert load_mnist()[0][1].tolist() == [9, 0, 4]


def test_the_environment_variable_goes_before_the_cache_folder(tmp_path, home, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    monkeypatch.setattr(_download.sys, "platform", "linux")
    write_mnist(home / "nnfast" / "mnist")
    write_mnist(tmp_path / "data", train_labels=idx(np.array([1, 2, 3], np.uint8)))
    monkeypatch.setenv("NNFAST_DATA_DIR", str(tmp_path / "data"))
    assert load_mnist()[0][1].tolist() == [1, 2, 3]


def test_nowhere_but_in_data_dir_is_searched_when_it_is_given(tmp_path, monkeypatch):
    monkeypatch.setenv("NNFAST_DATA_DIR", str(write_mnist(tmp_path / "good")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError) as error:
        load_mnist(data_dir=tmp_path / "empty")
    message = one_sentence(error)
    assert f"{tmp_path / 'empty'}, {tmp_path / 'empty' / 'mnist'};" in message
    assert "another data_dir=" in message and "download=True" in message and "--download" in message
    assert "good" not in message


def test_files_are_not_gathered_from_two_folders(tmp_path):
    write_mnist(tmp_path)
    write_mnist(tmp_path / "mnist")
    (tmp_path / f"{STEMS[1]}.gz").unlink()
    (tmp_path / "mnist" / f"{STEMS[0]}.gz").unlink()
    with pytest.raises(FileNotFoundError) as error:
        load_mnist(data_dir=tmp_path)
    message = one_sentence(error)
    assert f"{tmp_path} (which lacks {STEMS[1]})" in message
    assert f"{tmp_path / 'mnist'} (which lacks {STEMS[0]})" in message


def test_a_folder_named_like_a_file_is_not_taken_for_it(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / f"{STEMS[1]}.gz").rename(tmp_path / STEMS[1])
    (tmp_path / f"{STEMS[1]}.gz").mkdir()
    assert load_mnist(data_dir=tmp_path)[0][1].tolist() == [9, 0, 4]


def test_files_found_nowhere_are_reported_with_every_place_and_remedy(tmp_path, home, monkeypatch):
    monkeypatch.setenv("NNFAST_DATA_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError) as error:
        load_mnist()
    message = one_sentence(error)
    places = [tmp_path / "nowhere", tmp_path / "nowhere" / "mnist", home]
    assert all(str(place) in message for place in places)
    assert all(remedy in message for remedy in ("data_dir=", "set NNFAST_DATA_DIR", "download=True", "--download"))


def test_a_user_without_a_home_is_told_what_to_do(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(FileNotFoundError, match=r"not found in any folder; pass data_dir="):
        load_mnist()
    with pytest.raises(FileNotFoundError, match=r"^no home folder is known .*; pass data_dir=$"):
        load_mnist(download=True)


def test_a_data_dir_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        load_mnist(data_dir=tmp_path / "nowhere")
    assert one_sentence(error).startswith(f"data_dir is {tmp_path / 'nowhere'}, which does not exist; ")


@pytest.mark.parametrize("download", [True, False])
def test_a_data_dir_that_is_a_file_is_refused(tmp_path, download):
    path = file_with(tmp_path, b"")
    with pytest.raises(NotADirectoryError) as error:
        load_mnist(data_dir=path, download=download)
    assert one_sentence(error) == f"data_dir is {path}, which is a file, but a folder was expected"


@pytest.mark.parametrize("load", [lambda path: load_mnist(data_dir=path), read_idx])
@pytest.mark.parametrize("path", [3, b"folder", ["folder"], 1.5])
def test_a_path_of_another_type_is_refused(load, path):
    with pytest.raises(TypeError, match=r"^(data_dir|path) is .*, but a path \(str or os.PathLike\) was expected$"):
        load(path)


@pytest.mark.parametrize("load", [lambda path: load_mnist(data_dir=path), read_idx])
@pytest.mark.parametrize("path", ["", "a\0b"])
def test_a_string_that_cannot_be_a_path_is_refused(load, path):
    with pytest.raises(ValueError, match=r"^(data_dir|path) is "):
        load(path)


def _forbid(monkeypatch, method, forbidden):
    original = getattr(Path, method)

    def guarded(self, *args, **kwargs):
        if self == forbidden:
            raise PermissionError(13, "Permission denied", str(self))
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Path, method, guarded)


@pytest.mark.parametrize("forbidden", ["", f"{STEMS[0]}.gz"])
def test_a_data_dir_without_permission_is_one_sentence(tmp_path, monkeypatch, forbidden):
    write_mnist(tmp_path)
    _forbid(monkeypatch, "stat", tmp_path / forbidden)
    with pytest.raises(PermissionError) as error:
        load_mnist(data_dir=tmp_path)
    assert one_sentence(error) == f"data_dir is {tmp_path}, which cannot be searched: permission denied"


def test_a_default_place_without_permission_is_named_and_passed_over(tmp_path, home, monkeypatch):
    monkeypatch.setattr(_download.sys, "platform", "linux")
    write_mnist(home / ".cache" / "nnfast" / "mnist")
    monkeypatch.setenv("NNFAST_DATA_DIR", str(tmp_path))
    _forbid(monkeypatch, "stat", tmp_path / f"{STEMS[0]}.gz")
    assert load_mnist()[0][1].tolist() == [9, 0, 4]
    (home / ".cache" / "nnfast" / "mnist" / f"{STEMS[0]}.gz").unlink()
    with pytest.raises(FileNotFoundError) as error:
        load_mnist()
    assert f"{tmp_path} (permission denied)" in one_sentence(error)


def test_a_file_without_permission_is_one_sentence(tmp_path, monkeypatch):
    path = file_with(tmp_path, idx([1]))
    _forbid(monkeypatch, "open", path)
    with pytest.raises(PermissionError) as error:
        read_idx(path)
    assert one_sentence(error) == f"{path} cannot be read: permission denied"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_locked_by_chmod_is_one_sentence(tmp_path):
    folder = write_mnist(tmp_path / "locked")
    folder.chmod(0)
    try:
        with pytest.raises(PermissionError) as error:
            load_mnist(data_dir=folder)
        assert one_sentence(error) == f"data_dir is {folder}, which cannot be searched: permission denied"
    finally:
        folder.chmod(0o700)


# read_idx


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("name", ["file", "file.gz"])
@pytest.mark.parametrize("shape", [(0,), (1,), (5,), (3, 2), (2, 3, 4), (0, 28, 28), (2, 3, 4, 5)])
def test_an_idx_file_is_read_whatever_its_packing_and_name(tmp_path, shape, name, pack):
    expected = (np.arange(np.prod(shape)) % 251).astype(np.uint8).reshape(shape)
    found = read_idx(file_with(tmp_path, pack(idx(expected)), name))
    np.testing.assert_array_equal(found, expected, strict=True)
    assert found.flags.writeable


def test_a_file_longer_than_one_chunk_is_read_whole(tmp_path):
    expected = np.random.default_rng(0).integers(256, size=3 * (1 << 20) + 5, dtype=np.uint8)
    np.testing.assert_array_equal(read_idx(file_with(tmp_path, gzip.compress(idx(expected), 1))), expected)


WHOLE = idx(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
PACKED = gzip.compress(WHOLE, mtime=0)
WRONG_FILES = {
    "empty": (b"", r"begins with the bytes \(none\)"),
    "empty gzip": (gzip.compress(b""), r"begins with the bytes \(none\)"),
    "short magic": (b"\0\0\x08", "begins with the bytes 00 00 08,"),
    "wrong magic": (b"\x89PNG\r\n\x1a\n", "begins with the bytes 89 50 4e 47, but IDX begins with 00 00 08"),
    "unknown type": (header(1, type_code=7) + b"1", "begins with the bytes 00 00 07 01"),
    "no axes": (header(), "has 0 axes, but 1 to 4 were expected"),
    "five axes": (header(1, 1, 1, 1, 1) + b"1", "has 5 axes, but 1 to 4 were expected"),
    "255 axes": (b"\0\0\x08\xff" + bytes(1020), "has 255 axes"),
    "cut header": (WHOLE[:15], "ends inside its header, but the lengths of 3 axes were expected"),
    "cut header, packed": (gzip.compress(WHOLE[:15]), "ends inside its header"),
    "a byte missing, packed": (gzip.compress(WHOLE[:-1]), r"ends after 23 bytes of data, but 24 \(2 x 3 x 4\)"),
    "a byte more": (WHOLE + b"\0", r"goes on after 24 bytes of data \(2 x 3 x 4\)"),
    "a byte more, packed": (gzip.compress(WHOLE + b"\0"), "goes on after 24 bytes of data"),
    "a second member": (PACKED + PACKED, "goes on after 24 bytes of data"),
    "rubbish after gzip": (PACKED + b"rubbish", "damaged gzip file"),
    "cut gzip": (PACKED[:-9], "damaged gzip file"),
    "cut checksum": (PACKED[:-1], "damaged gzip file"),
    "wrong checksum": (PACKED[:-8] + bytes(4) + PACKED[-4:], "damaged gzip file .*CRC"),
    "gzip magic alone": (b"\x1f\x8b", "damaged gzip file"),
    "broken gzip": (PACKED[:10] + b"\xff" * 20, "damaged gzip file"),
    "a billion": (header(BILLION, 28, 28), "claims 1000000000 x 28 x 28 bytes, but at most"),
    "the largest": (header(*[2**32 - 1] * 4), "claims 4294967295 x .* bytes, but at most"),
    "none of the largest": (header(0, *[2**32 - 1] * 3), "claims 0 x 4294967295 .* bytes, but at most"),
    "more than it can hold": (header(BILLION) + b"1", "claims 1000000000 bytes, but it can hold no more than 9"),
    "more than gzip can pack": (gzip.compress(header(BILLION)), "claims 1000000000 bytes, but it can hold no more"),
}


@pytest.mark.parametrize(("contents", "complaint"), WRONG_FILES.values(), ids=WRONG_FILES)
@pytest.mark.parametrize("name", ["file", "file.gz"])
def test_a_wrong_file_is_refused_in_one_sentence_that_names_it(tmp_path, contents, complaint, name):
    path = file_with(tmp_path, contents, name)
    with peak_memory_below(1 << 21), pytest.raises(DatasetError, match=complaint) as error:
        read_idx(path)
    assert one_sentence(error).startswith(f"{path} ")


@pytest.mark.parametrize("cut", range(len(WHOLE)))
def test_a_plain_file_cut_anywhere_is_refused(tmp_path, cut):
    with pytest.raises(DatasetError):
        read_idx(file_with(tmp_path, WHOLE[:cut]))


@pytest.mark.parametrize("cut", range(len(PACKED)))
def test_a_packed_file_cut_anywhere_is_refused(tmp_path, cut):
    with pytest.raises(DatasetError):
        read_idx(file_with(tmp_path, PACKED[:cut]))


@pytest.mark.parametrize(
    ("type_code", "name"), [(9, "int8"), (11, "int16"), (12, "int32"), (13, "float32"), (14, "float64")]
)
def test_another_element_type_is_refused_by_its_name(tmp_path, type_code, name):
    path = file_with(tmp_path, idx(np.zeros(3, name), type_code))
    with pytest.raises(DatasetError, match=rf"holds {name} values, but uint8 values \(type 8\) were expected$"):
        read_idx(path)


def test_a_gzip_bomb_is_not_unpacked_beyond_what_its_header_claims(tmp_path):
    bomb = gzip.compress(header(10) + bytes(100 << 20), 1)
    with peak_memory_below(1 << 23), pytest.raises(DatasetError, match="goes on after 10 bytes of data"):
        read_idx(file_with(tmp_path, bomb))


def test_the_largest_packing_that_deflate_knows_is_still_read(tmp_path):
    zeros = gzip.compress(idx(np.zeros(50 << 20, np.uint8)), 9)
    assert len(zeros) * 1000 < 50 << 20
    found = read_idx(file_with(tmp_path, zeros))
    assert found.shape == (50 << 20,) and not found.any()


def test_a_file_that_does_not_exist_is_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        read_idx(tmp_path / "nowhere")
    assert one_sentence(error) == f"{tmp_path / 'nowhere'} does not exist, but an IDX file was expected"


def test_a_folder_is_not_read_as_a_file(tmp_path):
    with pytest.raises(DatasetError, match=r"is a folder or a device, but a file was expected$"):
        read_idx(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_named_pipe_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DatasetError, match="is a folder or a device"):
        read_idx(tmp_path / "pipe")


FILES = int(os.environ.get("NNFAST_FILES", "100"))      # that are tried (make endurance: more)


def damaged(draw, st):
    """A whole IDX file, plain or packed, after up to four bytes were changed, and perhaps cut or made longer."""
    shape = draw(st.lists(st.integers(0, 5), min_size=1, max_size=4))
    contents = bytearray(idx(np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)))
    pack_first = draw(st.booleans())
    if pack_first:
        contents = bytearray(gzip.compress(contents, mtime=0))
    for place in draw(st.lists(st.integers(0, len(contents) - 1), max_size=4)):
        contents[place] = draw(st.sampled_from([0, 1, 2, 8, 0x1F, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))
    contents = bytes(contents[: draw(st.just(len(contents)) | st.integers(0, len(contents)))])
    contents += draw(st.just(b"") | st.binary(max_size=8))
    return gzip.compress(contents, mtime=0) if not pack_first and draw(st.booleans()) else contents


def test_a_damaged_file_is_read_as_it_says_or_refused(tmp_path):
    hypothesis = pytest.importorskip("hypothesis")
    scratch = tmp_path / "file"

    # No deadline: a shared machine may stall any one write of a file.
    @hypothesis.settings(deadline=None, max_examples=FILES)
    @hypothesis.given(contents=hypothesis.strategies.composite(damaged)(hypothesis.strategies))
    def is_read_or_refused(contents):
        scratch.write_bytes(contents)
        try:
            found = read_idx(scratch)
        except DatasetError as error:
            assert str(error).startswith(f"{scratch} ") and "\n" not in str(error)
        else:
            plain = gzip.decompress(contents) if contents[:2] == b"\x1f\x8b" else contents
            assert idx(found) == plain

    is_read_or_refused()


def test_random_bytes_are_read_as_they_say_or_refused(tmp_path):
    hypothesis = pytest.importorskip("hypothesis")
    scratch = tmp_path / "file"

    @hypothesis.settings(deadline=None, max_examples=FILES)
    @hypothesis.given(contents=hypothesis.strategies.binary(max_size=64))
    def is_read_or_refused(contents):
        scratch.write_bytes(contents)
        with contextlib.suppress(DatasetError):
            assert idx(read_idx(scratch)) == contents

    is_read_or_refused()


# load_mnist: files that do not fit each other

UNFIT = {
    "labels as images": ("train_images", idx(np.zeros(3, np.uint8)), r"holds labels \(1 axis\), but images \(3 axes\)"),
    "images as labels": ("t10k_labels", idx(np.zeros((2, 28, 28), np.uint8)), r"holds images \(3 axes\), but labels"),
    "two axes": ("train_images", idx(np.zeros((3, 784), np.uint8)), r"holds an array of 2 axes, but images \(3 axes\)"),
    "27 rows": ("t10k_images", idx(np.zeros((2, 27, 28), np.uint8)), "holds images of 27 x 28 pixels, but 28 x 28"),
    "29 columns": ("train_images", idx(np.zeros((3, 28, 29), np.uint8)), "holds images of 28 x 29 pixels"),
    "a label missing": ("train_labels", idx(np.zeros(2, np.uint8)), "holds 2 labels, but .* holds 3 images$"),
    "a label more": ("t10k_labels", idx(np.zeros(3, np.uint8)), "holds 3 labels, but .* holds 2 images$"),
    "a label 10": ("train_labels", idx(np.array([9, 10, 0], np.uint8)), "label 1 is 10, but classes 0 to 9"),
    "a label 255": ("t10k_labels", idx(np.array([9, 255], np.uint8)), "label 1 is 255, but classes 0 to 9"),
    "damaged": ("t10k_labels", b"rubbish", "begins with the bytes 72 75 62 62"),
}


@pytest.mark.parametrize(("name", "contents", "complaint"), UNFIT.values(), ids=UNFIT)
def test_files_that_do_not_fit_are_refused_in_one_sentence(tmp_path, name, contents, complaint):
    with pytest.raises(DatasetError, match=complaint) as error:
        load_mnist(data_dir=write_mnist(tmp_path, **{name: contents}))
    assert name.replace("_", "-") in one_sentence(error)


def test_files_without_examples_are_refused(tmp_path):
    empty = {"train_images": idx(np.zeros((0, 28, 28), np.uint8)), "train_labels": idx(np.zeros(0, np.uint8))}
    with pytest.raises(DatasetError, match=r"holds 0 labels, but at least 1 was expected$"):
        load_mnist(data_dir=write_mnist(tmp_path, **empty))


def test_images_of_a_wrong_size_are_refused_before_they_are_read(tmp_path):
    huge = idx(np.zeros((1, 6000, 5000), np.uint8))
    write_mnist(tmp_path, train_images=huge)
    with peak_memory_below(1 << 21), pytest.raises(DatasetError, match="6000 x 5000 pixels"):
        load_mnist(data_dir=tmp_path)


# load_mnist: the download


@pytest.fixture
def server(monkeypatch):
    """A local server; the test fills `routes`, address to status and body, and reads `asked`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append(self.path)
            status, body = self.server.routes.get(self.path, (404, b"not here"))
            self.send_response(status)
            if status == 302:
                self.send_header("Location", body.decode())
                body = b""
            claimed = len(body) + (100 if "/short/" in self.path else 0)
            self.send_header("Content-Length", str(claimed))
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body)

        def log_message(self, *args):
            pass

    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.routes, running.asked = {}, []
        running.address = f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def published(monkeypatch):
    """The small files take the place of the published ones; gives their gzip files by address."""
    files = {stem: idx(array) for stem, array in small_mnist().items()}
    sums = {
        stem: (len(contents), hashlib.md5(contents, usedforsecurity=False).hexdigest())
        for stem, contents in files.items()
    }
    monkeypatch.setattr(_download, "PUBLISHED", sums)
    return {f"/good/{stem}.gz": (200, gzip.compress(contents)) for stem, contents in files.items()}


def use_mirrors(monkeypatch, server, *names):
    monkeypatch.setattr(_download, "MIRRORS", tuple(f"{server.address}/{name}/" for name in names))


def names_in(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_download_goes_on_to_the_mirror_that_has_the_published_files(tmp_path, monkeypatch, server, published):
    server.routes = published | {
        address.replace("good", "corrupt"): (200, gzip.compress(b"something else")) for address in published
    }
    use_mirrors(monkeypatch, server, "missing", "corrupt", "good")
    target = tmp_path / "new" / "data"
    (_, t_train), (x_test, t_test) = load_mnist(normalize=False, data_dir=target, download=True)
    assert (t_train.tolist(), t_test.tolist()) == ([9, 0, 4], [1, 7])
    np.testing.assert_array_equal(x_test.ravel(), small_mnist()[STEMS[2]].ravel())
    assert names_in(tmp_path) == sorted(f"{stem}.gz" for stem in STEMS)
    assert server.asked[:3] == [f"/{mirror}/{STEMS[0]}.gz" for mirror in ("missing", "corrupt", "good")]


def test_a_download_is_not_repeated(tmp_path, monkeypatch, server, published):
    server.routes = published
    use_mirrors(monkeypatch, server, "good")
    load_mnist(data_dir=tmp_path, download=True)
    load_mnist(data_dir=tmp_path, download=True)
    assert server.asked == list(published)


def test_a_download_without_data_dir_goes_to_the_cache_folder(tmp_path, home, monkeypatch, server, published):
    monkeypatch.setenv("NNFAST_DATA_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(_download.sys, "platform", "linux")
    server.routes = published
    use_mirrors(monkeypatch, server, "good")
    load_mnist(download=True)
    assert len(names_in(home / ".cache" / "nnfast" / "mnist")) == 4
    assert load_mnist()[0][1].tolist() == [9, 0, 4]
    assert len(server.asked) == 4


def test_only_missing_files_are_downloaded(tmp_path, monkeypatch, server, published):
    write_mnist(tmp_path)
    (tmp_path / f"{STEMS[2]}.gz").unlink()
    server.routes = published
    use_mirrors(monkeypatch, server, "good")
    load_mnist(data_dir=tmp_path, download=True)
    assert server.asked == [f"/good/{STEMS[2]}.gz"]


def test_nothing_is_downloaded_unasked(tmp_path, monkeypatch, server, published):
    server.routes = published
    use_mirrors(monkeypatch, server, "good")
    with pytest.raises(FileNotFoundError):
        load_mnist(data_dir=tmp_path)
    assert server.asked == []


def test_a_file_that_the_server_unpacked_on_the_way_is_accepted(tmp_path, monkeypatch, server, published):
    server.routes = {address: (200, gzip.decompress(body)) for address, (_, body) in published.items()}
    use_mirrors(monkeypatch, server, "good")
    assert load_mnist(data_dir=tmp_path, download=True)[0][1].tolist() == [9, 0, 4]
    assert (tmp_path / f"{STEMS[0]}.gz").read_bytes()[:2] == b"\x1f\x8b"


def _flipped(body):
    return gzip.compress(gzip.decompress(body)[:-1] + b"\xaa")


BAD_BODIES = {
    "another file": (_flipped, "sent something else than the published file"),
    "a web page": (lambda body: b"<html>log in</html>", "sent something else than the published file"),
    "nothing": (lambda body: b"", "sent something else than the published file"),
    "half a file": (lambda body: body[: len(body) // 2], "sent a gzip file that is cut or too long"),
    "a damaged file": (lambda body: body[:10] + b"\xff" * 20, "sent a damaged gzip file"),
    "a bomb": (lambda body: gzip.compress(bytes(20 << 20)), "sent a gzip file that is cut or too long"),
    "more after the file": (lambda body: body + b"more", "sent a gzip file that is cut or too long"),
    "an endless file": (lambda body: bytes(40 << 20), r"sent more than \d+ bytes"),
}


@pytest.mark.parametrize(("spoil", "reason"), BAD_BODIES.values(), ids=BAD_BODIES)
def test_a_bad_body_is_reported_and_leaves_no_file(tmp_path, monkeypatch, server, published, spoil, reason):
    server.routes = {address: (200, spoil(body)) for address, (_, body) in published.items()}
    use_mirrors(monkeypatch, server, "good")
    with peak_memory_below(1 << 24), pytest.raises(OSError, match=reason) as error:
        load_mnist(data_dir=tmp_path, download=True)
    message = one_sentence(error)
    assert message.startswith(f"{STEMS[0]}.gz could not be downloaded from any mirror")
    assert f"{server.address}/good/" in message
    assert names_in(tmp_path) == []


def test_the_failure_of_every_mirror_names_each_with_its_reason(tmp_path, monkeypatch, server, published):
    server.routes = {address.replace("good", "short"): answer for address, answer in published.items()}
    server.routes = {address: (200, body[:-3]) for address, (_, body) in server.routes.items()}
    server.routes[f"/away/{STEMS[0]}.gz"] = (302, b"http://[/")
    server.routes[f"/broken/{STEMS[0]}.gz"] = (500, b"")
    mirrors = [f"{server.address}/{name}/" for name in ("missing", "broken", "short", "away")]
    # Port 1 of the local machine: nobody listens there.
    monkeypatch.setattr(_download, "MIRRORS", (*mirrors, "http://127.0.0.1:1/"))
    with pytest.raises(OSError) as error:
        load_mnist(data_dir=tmp_path, download=True)
    message = str(error.value)
    assert "\n" not in message
    assert all(mirror in message for mirror in _download.MIRRORS)
    assert "HTTP status 404" in message and "HTTP status 500" in message
    assert names_in(tmp_path) == []


def test_a_mirror_that_says_nothing_is_given_up(tmp_path, monkeypatch, server, published):
    server.routes = published | {f"/short/{STEMS[0]}.gz": published[f"/good/{STEMS[0]}.gz"]}
    # Answers with fewer bytes than it announced, and keeps the connection open until the client gives up.
    monkeypatch.setattr(_download, "_TIMEOUT", 0.5)
    released = threading.Event()
    original = server.RequestHandlerClass.do_GET

    def stalling(self):
        original(self)
        if self.path == f"/short/{STEMS[0]}.gz":
            released.wait(10)

    monkeypatch.setattr(server.RequestHandlerClass, "do_GET", stalling)
    use_mirrors(monkeypatch, server, "short", "good")
    try:
        assert load_mnist(data_dir=tmp_path, download=True)[0][1].tolist() == [9, 0, 4]
    finally:
        released.set()
    assert f"/good/{STEMS[0]}.gz" in server.asked


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("moment", ["write", "rename"])
def test_an_interrupted_download_leaves_only_whole_files(tmp_path, monkeypatch, server, published, failure, moment):
    server.routes = published
    use_mirrors(monkeypatch, server, "good")
    original = {"write": Path.open, "rename": Path.replace}[moment]

    def failing(self, *args, **kwargs):
        if moment == "rename" and STEMS[1] in self.name:
            raise failure
        result = original(self, *args, **kwargs)
        if moment == "write" and STEMS[1] in self.name and "x" in str(args):
            result.write(b"half")
            result.close()
            raise failure
        return result

    monkeypatch.setattr(Path, {"write": "open", "rename": "replace"}[moment], failing)
    with pytest.raises(type(failure)) as error:
        load_mnist(data_dir=tmp_path, download=True)
    assert names_in(tmp_path) == [f"{STEMS[0]}.gz"]
    if isinstance(failure, OSError):
        path = tmp_path / f"{STEMS[1]}.gz"
        assert one_sentence(error) == f"{path} cannot be written: no space left on device"


def test_a_file_is_seen_under_its_name_only_when_it_is_whole(tmp_path, monkeypatch, server, published):
    server.routes = published
    use_mirrors(monkeypatch, server, "good")
    original, seen = Path.replace, []

    def watched(self, target):
        seen.append((Path(target).exists(), self.parent == tmp_path, read_idx(self).size > 0))
        return original(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    load_mnist(data_dir=tmp_path, download=True)
    assert seen == [(False, True, True)] * 4


def test_a_download_folder_that_cannot_be_made_is_one_sentence(tmp_path, monkeypatch, server, published):
    server.routes = published
    use_mirrors(monkeypatch, server, "good")
    target = tmp_path / "new"
    _forbid(monkeypatch, "mkdir", target)
    with pytest.raises(PermissionError) as error:
        load_mnist(data_dir=target, download=True)
    assert one_sentence(error) == f"MNIST cannot be kept in {target}: permission denied"
    assert server.asked == []


def test_the_mirrors_are_asked_over_https():
    assert len(_download.MIRRORS) >= 3
    assert all(mirror.startswith("https://") and mirror.endswith("/") for mirror in _download.MIRRORS)


# The documentation


def test_the_examples_in_the_docstrings_are_true(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testmod(datasets)
    assert tried >= 7 and failed == 0


@pytest.mark.parametrize("name", datasets.__all__)
def test_every_public_name_has_an_example(name):
    assert ">>> " in getattr(datasets, name).__doc__
