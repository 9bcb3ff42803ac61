"""`nnfast check`: what `gradient_check` says, for a network that is described or was saved, and its exit status."""

import re
from pathlib import Path

import numpy as np
import pytest
from test_cli import folder, refusal, spelled  # noqa: F401, the empty folder is used by every test

import nnfast
from nnfast import Affine, load_digits
from nnfast import __main__ as cli


def check(capsys, *arguments, status=0):
    assert cli.main(["check", *map(str, arguments)]) == status
    return capsys.readouterr().out


def test_a_described_network_is_checked(capsys):
    (x, t), _ = load_digits()
    network = cli.build_network([64, 9, 7, 10], "tanh", seed=3, dtype="float64")
    expected = nnfast.gradient_check(network, x[:20], t[:20])
    printed = check(capsys, "--layers", "9,7", "--activation", "tanh", "--seed", "3", "--examples", "20")
    assert printed == f"{expected}\n"
    assert printed.splitlines()[-1].startswith("passed: backpropagation agrees")


def test_the_defaults_are_the_demos_network_and_a_hundred_images(capsys):
    (x, t), _ = load_digits()
    network = cli.build_network([64, 50, 10], "relu", seed=0, dtype="float64")
    assert check(capsys) == f"{nnfast.gradient_check(network, x[:100], t[:100])}\n"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_saved_network_is_checked_as_it_was_trained(capsys, dtype):
    assert cli.main(["train", "--layers", "9,7", "--activation", "sigmoid", "--epochs", "2", "--no-pictures", "--quiet",
                     "--dtype", dtype, "--save", "net.npz"]) == 0
    capsys.readouterr()
    (x, t), _ = load_digits()
    network = cli.build_network([64, 9, 7, 10], "sigmoid", seed=0, dtype=dtype)
    with np.load("net.npz") as saved:
        network.params = {key: saved[key] for key in network.params}
    printed = check(capsys, "--network", "net.npz")
    assert printed == f"{nnfast.gradient_check(network, x[:100], t[:100])}\n"


def test_h_and_tolerance_are_used(capsys):
    printed = check(capsys, "--h", "0.01", "--tolerance", "1e-3", "--activation", "tanh", "--examples", "5")
    assert "tolerance 0.001 of each array's largest gradient, h = 0.01" in printed


def test_a_wrong_gradient_is_exit_status_1(capsys, monkeypatch):
    right = Affine._backward_parameters

    def wrong(self, dout):
        found = right(self, dout)
        self.db = 2 * self.db
        return found

    monkeypatch.setattr(Affine, "_backward_parameters", wrong)
    monkeypatch.setattr(nnfast.Network, "gradient", lambda self, x, t: (self._loss(x, t, True), self._backward())[1])
    printed = check(capsys, "--examples", "5", status=1)
    assert "WRONG: see the backward of Affine1, Affine2" in printed


def test_mnist_is_checked_where_it_lies(capsys, mnist, monkeypatch):
    monkeypatch.setattr(nnfast, "load_mnist", lambda **_: mnist)
    assert "39,200" in check(capsys, "--data", "mnist", "--examples", "10")


@pytest.mark.parametrize(("arguments", "said"), [
    (["--h", "0"], "--h: '0' is not a finite number above 0"),
    (["--h", "small"], "--h: 'small' is not a finite number above 0"),
    (["--tolerance", "-1"], "--tolerance: '-1' is not a finite number above 0"),
    (["--examples", "0"], "--examples: '0' is not a whole number of at least 1"),
    (["--network", "nothing.npz"], "nothing.npz does not exist, but a file of Network.save was expected"),
    (["--network", "."], ". is a folder or a device, but a file was expected"),
    (["--data-dir", "here"], "--data-dir and --download are for MNIST"),
    (["--epochs", "3"], "--epochs"),
], ids=spelled)
def test_a_bad_value_is_one_sentence_and_exit_2(capsys, arguments, said):
    assert said in refusal(capsys, "check", *arguments)


def test_a_file_that_holds_no_network_is_one_sentence_and_exit_2(capsys):
    Path("net.npz").write_bytes(b"W1 b1\n")
    assert "net.npz is not a file of Network.save" in refusal(capsys, "check", "--network", "net.npz")


def test_a_network_of_other_inputs_is_one_sentence_and_exit_2(capsys):
    nnfast.Network([Affine(9, 10)], seed=0).save("net.npz")
    assert "x has 64 columns, but layer 1 (Affine) takes 9 inputs" in refusal(capsys, "check", "--network", "net.npz")


def test_every_option_is_explained_with_its_default(capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["check", "--help"])
    assert exit_.value.code == 0
    explained = re.split(r"\n  (?=--)", capsys.readouterr().out)[1:]
    assert {text.split()[0] for text in explained} == {
        "--data", "--data-dir", "--download", "--examples", "--layers", "--activation", "--network", "--seed", "--h",
        "--tolerance", "--threads",
    }
    for text in explained:
        assert re.search(r"\(default:\s", text)
