"""The command line: every option does what its help says, and whatever goes wrong is one sentence and a status."""

import gzip
import os
import re
import signal
import struct
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import nnfast
from nnfast import Affine, Network, load_digits
from nnfast import __main__ as cli
from nnfast.network import ACTIVATIONS

MNIST_DIR = os.environ.get("NNFAST_DATA_DIR", "")     # read before the fixture below hides it from every test

# Stated once more: He's weights for the kinds of ReLU, and the learning rates that the help promises.
INIT = {"relu": "he", "leaky_relu": "he", "gelu": "he", "sigmoid": "xavier", "tanh": "xavier", "identity": "xavier"}
LEARNING_RATE = {
    "SGD": 0.1, "Momentum": 0.01, "Nesterov": 0.01, "AdaGrad": 0.01, "RMSprop": 0.01, "Adam": 0.001, "AdamW": 0.001,
}
QUICK = ("--epochs", "2", "--no-pictures")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty current folder, and no MNIST but what a test puts somewhere; the threads as before afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NNFAST_DATA_DIR", raising=False)
    yield tmp_path
    nnfast.set_num_threads(None)


def spelled(value):
    """A test's name for the arguments that it gives; none for what it expects of them."""
    return " ".join(map(str, value)) if isinstance(value, list) else ""


def files():
    """Names in the current folder."""
    return sorted(path.name for path in Path().iterdir())


def train(*arguments):
    assert cli.main(["train", *map(str, arguments)]) == 0


def refusal(capsys, *arguments):
    """What is said of a command line that is refused: one sentence on stderr, status 2, and no file anywhere."""
    before = sorted(Path().rglob("*"))
    try:
        status = cli.main([*map(str, arguments)])
    except SystemExit as exit_:
        status = exit_.code
    sentence = capsys.readouterr().err
    assert status == 2
    assert re.fullmatch(r"nnfast: [^\n]+\n", sentence)
    assert "Errno" not in sentence
    assert sorted(Path().rglob("*")) == before
    return sentence


def start(*arguments, **environment):
    """The command line in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "nnfast", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **environment},
    )


def end(process):
    """Status, output and errors of a process that ends by itself, or is made to after a minute."""
    with process:
        try:
            output, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    return process.returncode, output, errors


def reference(widths=(64, 50, 10), activation="relu", optimizer="SGD", lr=None, batch_size=100, seed=0,
              dtype="float32"):
    """Parameters after two epochs on the digits, by the library alone."""
    layers = []
    for inputs, outputs in pairwise(widths):
        layers += [Affine(inputs, outputs, init=INIT[activation]), ACTIVATIONS[activation]()]
    network = Network(layers[:-1], seed=seed, dtype=dtype)
    training_data, _ = load_digits()
    lr = LEARNING_RATE[optimizer] if lr is None else lr
    network.fit(*training_data, epochs=2, batch_size=batch_size, optimizer=getattr(nnfast, optimizer)(lr))
    return network.params


# What training prints


@pytest.mark.needs("matplotlib")
def test_a_training_prints_a_line_an_epoch_the_accuracy_and_the_pictures(capsys, folder):
    train()
    printed = capsys.readouterr()
    first, *epochs, accuracy, curves, mistakes = printed.out.splitlines()
    assert "1,437" in first and "360" in first and "64-50-10" in first
    assert len(epochs) == 30
    for number, line in enumerate(epochs, 1):
        assert re.fullmatch(
            rf"epoch +{number}/30: loss \d\.\d+, accuracy \d\.\d+, validation loss \d\.\d+, "
            r"validation accuracy \d\.\d+, [\d,]+ examples/s", line
        )
    share, right = re.fullmatch(r"test accuracy (\d\.\d{4}): (\d+) of 360 images right", accuracy).groups()
    assert float(share) == pytest.approx(int(right) / 360, abs=5e-5)
    assert float(share) > 0.9
    assert f"validation accuracy {share}" in epochs[-1]
    assert (curves, mistakes) == ("saved nnfast-curves.png", "saved nnfast-mistakes.png")
    assert files() == ["nnfast-curves.png", "nnfast-mistakes.png"]
    assert printed.err == ""


def test_quiet_prints_the_result_only(capsys):
    train(*QUICK, "--quiet", "--save", "net.npz")
    accuracy, saved = capsys.readouterr().out.splitlines()
    assert accuracy.startswith("test accuracy 0.")
    assert saved == "saved net.npz"


def test_no_pictures_saves_none_and_does_not_speak_of_them(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    train(*QUICK)
    assert "picture" not in capsys.readouterr().out
    assert files() == []


@pytest.mark.needs("matplotlib")
def test_pictures_go_into_the_folder_that_is_named(capsys, folder):
    (folder / "out").mkdir()
    train("--epochs", 1, "--pictures", "out")
    assert f"saved {Path('out', 'nnfast-curves.png')}\n" in capsys.readouterr().out
    assert sorted(path.name for path in folder.rglob("*")) == ["nnfast-curves.png", "nnfast-mistakes.png", "out"]


def test_without_matplotlib_a_sentence_tells_how_to_get_pictures_and_the_run_succeeds(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    train("--epochs", 2)
    assert capsys.readouterr().out.splitlines()[-1] == 'pictures need matplotlib: pip install "nnfast[plot]"'
    assert files() == []


@pytest.mark.needs("tqdm")
def test_a_terminal_gets_a_progress_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    train(*QUICK)
    assert "0/30" in capsys.readouterr().err      # 15 steps an epoch


def test_quiet_shows_no_progress_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    train(*QUICK, "--quiet")
    assert capsys.readouterr().err == ""


def test_without_tqdm_there_is_no_bar_and_the_run_succeeds(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for module in [name for name in sys.modules if name.split(".")[0] == "tqdm"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    train(*QUICK)
    printed = capsys.readouterr()
    assert printed.out.count("epoch ") == 2
    assert printed.err == ""


# What training does


@pytest.mark.parametrize(("arguments", "settings"), [
    ([], {}),
    (["--layers", "20"], {"widths": (64, 20, 10)}),
    (["--layers", "20,30"], {"widths": (64, 20, 30, 10)}),
    (["--layers", "none"], {"widths": (64, 10)}),
    (["--lr", "0.5"], {"lr": 0.5}),
    (["--lr", "0"], {"lr": 0}),
    (["--batch-size", "7"], {"batch_size": 7}),
    (["--batch-size", str(10**30)], {"batch_size": 1437}),
    (["--seed", "5"], {"seed": 5}),
    (["--dtype", "float64"], {"dtype": "float64"}),
    (["--threads", "1"], {}),
    *((["--activation", name], {"activation": name}) for name in INIT),
    *((["--optimizer", name.lower()], {"optimizer": name}) for name in LEARNING_RATE),
    (["--optimizer", "adam", "--lr", "0.01"], {"optimizer": "Adam", "lr": 0.01}),
], ids=spelled)
def test_saved_parameters_are_those_of_the_same_fit_by_the_library(arguments, settings):
    train(*QUICK, "--save", "net.npz", *arguments)
    expected = reference(**settings)
    with np.load("net.npz", allow_pickle=False) as arrays:
        assert list(arrays) == ["nnfast", *expected]
        for key, array in expected.items():
            assert arrays[key].dtype == array.dtype
            np.testing.assert_array_equal(arrays[key], array)
    assert files() == ["net.npz"]


def test_every_activation_of_the_library_can_be_named():
    assert set(INIT) == set(ACTIVATIONS)


def test_a_saved_file_replaces_the_one_that_was_there(folder):
    (folder / "net").write_text("old")
    train(*QUICK, "--save", "net")     # and gets no other name than the one asked for
    assert list(nnfast.Network.load("net").params) == ["W1", "b1", "W2", "b2"]
    assert files() == ["net"]


def test_a_training_that_is_resumed_ends_as_one_in_one_go(capsys, folder):
    train(*QUICK, "--checkpoint", "fit.npz", "--resume", "--save", "half.npz")      # there is none yet
    assert files() == ["fit.npz", "half.npz"]
    capsys.readouterr()
    train("--epochs", 4, "--no-pictures", "--checkpoint", "fit.npz", "--resume", "--seed", 3, "--save", "resumed.npz")
    assert re.findall(r"epoch (\d)/4", capsys.readouterr().out) == ["3", "4"]
    train("--epochs", 4, "--no-pictures", "--save", "whole.npz")
    assert Path("resumed.npz").read_bytes() == Path("whole.npz").read_bytes()


def test_another_training_is_not_resumed(capsys):
    train(*QUICK, "--checkpoint", "fit.npz")
    capsys.readouterr()
    for arguments, said in [
        (["--layers", "20"], "layer 1"), (["--optimizer", "adam"], "optimizer 'SGD', but this one has 'Adam'"),
        (["--batch-size", "99"], "batch_size 100"), (["--epochs", "1"], "epochs is 1: ask for as many"), (["--dtype", "float64"], "dtype"),
    ]:
        assert said in refusal(capsys, "train", *QUICK, "--checkpoint", "fit.npz", "--resume", *arguments)
    assert "names none" in refusal(capsys, "train", *QUICK, "--resume")
    assert "a checkpoint is an .npz" in refusal(capsys, "train", *QUICK, "--checkpoint", "fit.safetensors")


def test_threads_limits_the_threads(folder):
    train(*QUICK, "--threads", 1)
    assert nnfast.get_num_threads() == 1


def test_the_defaults_are_the_constants_that_the_benchmark_imports():
    network = cli.build_network([64, *cli.HIDDEN_WIDTHS, 10], cli.ACTIVATION, seed=cli.SEED, dtype=cli.DTYPE)
    (x, t), _ = load_digits()
    network.fit(x, t, epochs=cli.EPOCHS["digits"], batch_size=cli.BATCH_SIZE, optimizer=nnfast.SGD(cli.LEARNING_RATE))
    train("--no-pictures", "--save", "net.npz")
    with np.load("net.npz") as arrays:
        for key, array in network.params.items():
            np.testing.assert_array_equal(arrays[key], array)


@pytest.mark.skipif(not MNIST_DIR, reason="NNFAST_DATA_DIR is not set: no MNIST")
def test_mnist_reaches_97_percent_within_17_epochs(capsys, monkeypatch):
    monkeypatch.setenv("NNFAST_DATA_DIR", MNIST_DIR)
    train("--data", "mnist", "--no-pictures", "--threads", 1)     # as accurate, and soon done on a busy machine, too
    first, *epochs, accuracy = capsys.readouterr().out.splitlines()
    assert "784-50-10" in first
    assert len(epochs) == 17
    assert float(accuracy.split()[2].rstrip(":")) >= 0.97


# MNIST's files


def write_mnist(folder, cut=0):
    """Twenty images and ten in MNIST's four files, the training images without their last `cut` bytes."""
    pixels = np.random.default_rng(0).integers(0, 256, (30, 28, 28), np.uint8)
    labels = np.arange(30, dtype=np.uint8) % 10
    folder.mkdir()
    for stem, rows in ("train", slice(0, 20)), ("t10k", slice(20, 30)):
        for kind, array in ("images", pixels[rows]), ("labels", labels[rows]):
            contents = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
            if stem == "train" and kind == "images":
                contents = contents[: len(contents) - cut]
            (folder / f"{stem}-{kind}-idx{array.ndim}-ubyte.gz").write_bytes(gzip.compress(contents))
    return folder


@pytest.fixture
def no_cache(monkeypatch, tmp_path_factory):
    """A user without a cache folder."""
    home = str(tmp_path_factory.mktemp("home"))
    for name in ("HOME", "USERPROFILE", "LOCALAPPDATA", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, home)


def test_data_dir_is_where_mnist_is_read(capsys, folder):
    train(*QUICK, "--data", "mnist", "--data-dir", write_mnist(folder / "data"))
    assert capsys.readouterr().out.startswith("mnist: 20 images to train on, 10 to test; network 784-50-10\n")


def test_mnist_is_found_through_the_environment(capsys, folder, monkeypatch):
    monkeypatch.setenv("NNFAST_DATA_DIR", str(write_mnist(folder / "data")))
    train(*QUICK, "--data", "mnist")
    assert capsys.readouterr().out.startswith("mnist: 20 images")


@pytest.mark.parametrize("download", [False, True])
def test_mnist_is_fetched_if_and_only_if_download_says_so(capsys, monkeypatch, download):
    asked = {}

    def load_mnist(**options):
        asked.update(options)
        raise FileNotFoundError("stop here")

    monkeypatch.setattr(nnfast, "load_mnist", load_mnist)
    refusal(capsys, "train", "--data", "mnist", "--data-dir", "somewhere", *(["--download"] if download else []))
    assert asked == {"data_dir": "somewhere", "download": download}


def test_a_missing_mnist_is_one_sentence_and_exit_2(capsys, no_cache):
    assert "--download" in refusal(capsys, "train", "--data", "mnist")


def test_a_data_folder_that_does_not_exist_is_named(capsys):
    assert "no-such-folder" in refusal(capsys, "train", "--data", "mnist", "--data-dir", "no-such-folder")


@pytest.mark.parametrize("cut", [1, 28 * 28 * 20, 28 * 28 * 20 + 15])
def test_a_corrupt_idx_file_is_named(capsys, folder, cut):
    write_mnist(folder / "data", cut)
    assert "train-images-idx3-ubyte.gz" in refusal(capsys, "train", "--data", "mnist", "--data-dir", "data")


@pytest.mark.parametrize("arguments", [["--download"], ["--data-dir", "data"]])
def test_where_mnist_is_makes_no_sense_for_the_digits(capsys, arguments):
    assert "--data mnist" in refusal(capsys, "train", *arguments)


# What is refused


@pytest.mark.parametrize(("arguments", "said"), [
    (["--epochs", "0"], "--epochs: '0' is not a whole number of at least 1"),
    (["--epochs", "2.5"], "--epochs: '2.5' is not a whole number of at least 1"),
    (["--batch-size", "0"], "--batch-size: '0' is not a whole number of at least 1"),
    (["--batch-size", "-3"], "--batch-size: '-3' is not a whole number of at least 1"),
    (["--threads", "0"], "--threads: '0' is not a whole number of at least 1"),
    (["--seed", "-1"], "--seed: '-1' is not a whole number of at least 0"),
    (["--seed", ""], "--seed: '' is not a whole number of at least 0"),
    (["--lr", "-0.1"], "--lr: '-0.1' is not a finite number of at least 0"),
    (["--lr", "nan"], "--lr: 'nan' is not a finite number of at least 0"),
    (["--lr", "inf"], "--lr: 'inf' is not a finite number of at least 0"),
    (["--lr", "fast"], "--lr: 'fast' is not a finite number of at least 0"),
    (["--layers", "0"], "--layers: '0' is neither none nor whole numbers of at least 1"),
    (["--layers", "50,"], "--layers: '50,' is neither none nor whole numbers of at least 1"),
    (["--layers", "a"], "--layers: 'a' is neither none nor whole numbers of at least 1"),
    (["--activation", "swish"], "'swish'"),
    (["--optimizer", "lion"], "'lion'"),
    (["--data", "cifar"], "'cifar'"),
    (["--dtype", "float16"], "'float16'"),
    (["--epochs"], "--epochs"),
    (["--no-such-option"], "--no-such-option"),
    (["--layers", str(10**13)], "Unable to allocate"),
], ids=spelled)
def test_a_bad_value_is_one_sentence_and_exit_2(capsys, arguments, said):
    assert said in refusal(capsys, "train", *arguments)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_learning_rate_that_overflows_the_loss_is_one_sentence_and_exit_2(capsys, optimizer):
    sentence = refusal(capsys, "train", "--lr", 1e30, "--optimizer", optimizer, "--save", "net.npz")
    assert "learning rate" in sentence


@pytest.mark.parametrize("arguments", [
    ["--pictures", "missing"],
    ["--pictures", "file"],
    ["--no-pictures", "--save", Path("missing", "net.npz")],
    ["--no-pictures", "--save", Path("file", "net.npz")],
    ["--no-pictures", "--save", "folder"],
    ["--pictures", "occupied"],
    ["--no-pictures", "--save", os.devnull],
    ["--no-pictures", "--checkpoint", Path("missing", "fit.npz")],
], ids=spelled)
@pytest.mark.needs("matplotlib")
def test_a_place_that_cannot_be_written_is_refused_before_the_training(capsys, folder, monkeypatch, arguments):
    (folder / "file").write_text("a file, where a folder is wanted")
    (folder / "folder").mkdir()
    (folder / "occupied" / "nnfast-mistakes.png").mkdir(parents=True)
    monkeypatch.setattr(Network, "fit", None)     # would be a TypeError
    assert str(arguments[-1]) in refusal(capsys, "train", *arguments)


@pytest.mark.parametrize("arguments", [["--pictures", "."], ["--no-pictures", "--save", "net.npz"]])
@pytest.mark.needs("matplotlib")
def test_a_file_that_cannot_be_put_in_place_in_the_end_leaves_nothing_behind(capsys, monkeypatch, arguments):
    def replace(path, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", replace)
    assert "no space left on device" in refusal(capsys, "train", "--epochs", 1, *arguments)


def test_an_unknown_command_is_one_sentence_and_exit_2(capsys):
    assert "'tarin'" in refusal(capsys, "tarin")


def test_the_network_function_refuses_an_unknown_activation():
    with pytest.raises(ValueError, match="activation is 'swish'"):
        cli.build_network([64, 10], "swish", seed=0, dtype="float32")


# The rest of the command line


def test_no_command_is_help_and_exit_2(capsys):
    assert cli.main([]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "train" in printed.err and "info" in printed.err


def test_every_option_of_train_is_explained_with_its_default(capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["train", "--help"])
    assert exit_.value.code == 0
    explained = re.split(r"\n  (?=--)", capsys.readouterr().out)[1:]
    assert {text.split()[0] for text in explained} == {
        "--data", "--data-dir", "--download", "--layers", "--activation", "--dtype", "--optimizer", "--lr",
        "--batch-size", "--epochs", "--seed", "--threads", "--checkpoint", "--resume", "--save", "--pictures", "--no-pictures", "--quiet",
    }
    for text in explained:
        assert re.search(r"\(default:\s", text)


def test_info_prints_the_configuration(capsys):
    assert cli.main(["info"]) == 0
    assert capsys.readouterr().out == nnfast.show_config() + "\n"


def test_version_prints_the_version(capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"nnfast {nnfast.__version__}\n"


# In a process of its own


@pytest.mark.needs("matplotlib")
def test_the_module_runs_as_a_program():
    status, output, errors = end(start("train", "--epochs", "1"))
    assert (status, errors) == (0, "")
    assert output.endswith("saved nnfast-curves.png\nsaved nnfast-mistakes.png\n")
    assert files() == ["nnfast-curves.png", "nnfast-mistakes.png"]


def test_a_refusal_is_the_exit_status_and_no_traceback():
    status, output, errors = end(start("train", "--epochs", "0"))
    assert (status, output) == (2, "")
    assert errors == "nnfast: argument --epochs: '0' is not a whole number of at least 1 (see nnfast train --help)\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
@pytest.mark.usefixtures("heeds_ctrl_c")
def test_ctrl_c_is_one_short_line_and_exit_130():
    process = start("train", "--epochs", "1000000000", "--save", "net.npz", PYTHONUNBUFFERED="1")
    while not process.stdout.readline().startswith("epoch"):
        pass
    process.send_signal(signal.SIGINT)
    status, _, errors = end(process)
    assert (status, errors) == (130, "nnfast: interrupted\n")
    assert files() == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows tells of a closed pipe in another way")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", [["info"], ["train", "--no-pictures", "--epochs", "200"]], ids=spelled)
def test_a_reader_that_closes_the_pipe_is_no_error(command, unbuffered):
    process = start(*command, PYTHONUNBUFFERED=unbuffered)
    process.stdout.close()
    with process.stderr as errors:
        assert errors.read() == ""
    assert process.wait(60) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_a_closed_output_is_no_error(closed):
    done = subprocess.run(
        f'"{sys.executable}" -m nnfast train --no-pictures --epochs 1 {closed}', shell=True, capture_output=True,
        check=True, text=True,
    )
    assert done.stderr == ""
