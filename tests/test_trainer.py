"""The book's Trainer: which rows it draws, when it measures, what it keeps and prints."""

import inspect
import itertools

import numpy as np
import pytest
import reference

from nnfast import SGD, AdaGrad, Adam, Momentum, Nesterov, RMSprop, Trainer, TwoLayerNet

OPTIMIZERS = {"SGD": SGD, "Momentum": Momentum, "Nesterov": Nesterov, "AdaGrad": AdaGrad, "RMSprop": RMSprop,
              "Adam": Adam}


class Recorder:
    """Stands in for a network and notes every call; x's first column is the number of the row."""

    def __init__(self):
        self.params = {"W": np.zeros(2)}
        self.calls = []

    def _note(self, method, x, t):
        rows = x[:, 0].astype(int)
        np.testing.assert_array_equal(t, rows % 3)      # x and t stay together
        self.calls.append((method, x[0, 1], rows.tolist()))

    def gradient(self, x, t):
        self._note("gradient", x, t)
        return {"W": np.ones(2)}

    def loss(self, x, t):
        self._note("loss", x, t)
        return float(self.params["W"][0])

    def accuracy(self, x, t):
        self._note("accuracy", x, t)
        return len(self.calls) / 1000

    def rows_of(self, method):
        return [rows for called, _, rows in self.calls if called == method]


def data(rows, mark):
    """Rows marked in their second column as of training or of test."""
    numbers = np.arange(rows)
    return np.stack([numbers, np.full(rows, mark)], axis=1), numbers % 3


def recorded(train_size=25, test_size=7, verbose=False, **settings):
    trainer = Trainer(Recorder(), *data(train_size, 0), *data(test_size, 1), verbose=verbose, **settings)
    trainer.train()
    return trainer


def test_settings_have_the_books_names_order_and_defaults():
    parameters = {name: parameter.default for name, parameter in inspect.signature(Trainer).parameters.items()}
    assert list(parameters)[:5] == ["network", "x_train", "t_train", "x_test", "t_test"]
    optional = dict(list(parameters.items())[5:])
    assert list(optional) == ["epochs", "mini_batch_size", "optimizer", "optimizer_param",
                              "evaluate_sample_num_per_epoch", "verbose"]
    assert [*list(optional.values())[:3], *list(optional.values())[4:]] == [20, 100, "SGD", None, True]
    trainer = Trainer(Recorder(), *data(5, 0), *data(5, 1))
    assert type(trainer.optimizer) is SGD and trainer.optimizer.lr == 0.01
    assert (trainer.epochs, trainer.batch_size) == (20, 100)


@pytest.mark.parametrize("spelling", [str, str.lower, str.upper], ids=lambda spelling: spelling.__name__)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_goes_by_its_name(name, spelling):
    trainer = Trainer(Recorder(), *data(5, 0), *data(5, 1), optimizer=spelling(name), optimizer_param={"lr": 0.25})
    assert type(trainer.optimizer) is OPTIMIZERS[name]
    assert trainer.optimizer.lr == 0.25


def test_an_optimiser_gets_all_its_settings():
    trainer = Trainer(Recorder(), *data(5, 0), *data(5, 1), optimizer="Adam", optimizer_param={"beta1": 0.5, "lr": 1})
    assert (trainer.optimizer.lr, trainer.optimizer.beta1, trainer.optimizer.beta2) == (1, 0.5, 0.999)


@pytest.mark.parametrize("batch_size", [10, 25, 40])
def test_batches_are_drawn_with_replacement_from_the_global_generator(batch_size):
    np.random.seed(3)
    trainer = recorded(epochs=4, mini_batch_size=batch_size)
    np.random.seed(3)
    drawn = [np.random.choice(25, batch_size).tolist() for _ in trainer.train_loss_list]
    assert trainer.network.rows_of("gradient") == trainer.network.rows_of("loss") == drawn
    assert any(len(set(batch)) < batch_size for batch in drawn)


@pytest.mark.parametrize(
    ("train_size", "batch_size", "epochs", "steps", "measured_before"),
    [
        (30, 10, 3, 9, [0, 3, 6]),
        (25, 10, 4, 10, [0, 5]),        # 2.5 steps an epoch: a whole number of steps ends every second one
        (25, 10, 3, 7, [0, 5]),         # 7.5 steps are 7
        (5, 10, 3, 3, [0, 1, 2]),       # at least a step an epoch
        (10, 10, 1, 1, [0]),
    ],
)
def test_an_epoch_is_the_train_size_over_the_batch_size(train_size, batch_size, epochs, steps, measured_before):
    trainer = recorded(train_size, epochs=epochs, mini_batch_size=batch_size)
    assert trainer.max_iter == trainer.current_iter == len(trainer.train_loss_list) == steps
    assert trainer.iter_per_epoch == max(train_size / batch_size, 1)
    assert trainer.current_epoch == len(trainer.train_acc_list) == len(trainer.test_acc_list) == len(measured_before)
    methods = [method for method, _, _ in trainer.network.calls]
    assert methods[-1] == "accuracy"     # on the test data, after all
    found, step = [], 0
    for method, following in itertools.pairwise(methods):
        if method == "loss":
            if following == "accuracy" and len(found) < len(measured_before):
                found.append(step)
            step += 1
    assert found == measured_before


def test_the_loss_kept_is_that_of_the_batch_after_its_update():
    trainer = recorded(epochs=2, mini_batch_size=10, optimizer_param={"lr": 0.5})
    assert [method for method, _, _ in trainer.network.calls[:4]] == ["gradient", "loss", "accuracy", "accuracy"]
    assert trainer.train_loss_list == [-0.5 * step for step in range(1, 6)]


@pytest.mark.parametrize("number", [None, 1, 6, 100])
def test_accuracies_are_measured_on_the_first_rows_of_both_sets(number):
    trainer = recorded(epochs=2, mini_batch_size=25, evaluate_sample_num_per_epoch=number)
    measured = [(mark, rows) for method, mark, rows in trainer.network.calls if method == "accuracy"]
    some = [(0, list(range(25))[:number]), (1, list(range(7))[:number])]
    assert measured == [*some, *some, (1, list(range(7)))]      # the last one on all test rows
    assert trainer.train_acc_list == [0.003, 0.007]
    assert trainer.test_acc_list == [0.004, 0.008]


def test_train_step_is_one_step():
    trainer = Trainer(Recorder(), *data(25, 0), *data(7, 1), mini_batch_size=10, verbose=False)
    assert trainer.current_iter == trainer.current_epoch == 0
    assert trainer.train_loss_list == trainer.train_acc_list == trainer.test_acc_list == []
    trainer.train_step()
    assert (trainer.current_iter, trainer.current_epoch) == (1, 1)
    assert len(trainer.train_loss_list) == len(trainer.train_acc_list) == len(trainer.test_acc_list) == 1
    trainer.train_step()
    assert (trainer.current_iter, trainer.current_epoch, len(trainer.train_acc_list)) == (2, 1, 1)


def test_it_prints_what_the_book_prints(capsys):
    recorded(30, epochs=2, mini_batch_size=15, optimizer_param={"lr": 0.5}, verbose=True)
    assert capsys.readouterr().out.splitlines() == [
        "train loss:-0.5",
        "=== epoch:1, train acc:0.003, test acc:0.004 ===",
        "train loss:-1.0",
        "train loss:-1.5",
        "=== epoch:2, train acc:0.009, test acc:0.01 ===",
        "train loss:-2.0",
        "=============== Final Test Accuracy ===============",
        "test acc:0.013",
    ]


def test_it_is_silent_when_not_verbose(capsys):
    recorded(epochs=2, mini_batch_size=10, verbose=False)
    assert capsys.readouterr().out == ""


def test_trainers_do_not_share_settings_or_lists():
    first, second = recorded(epochs=1, mini_batch_size=10), recorded(epochs=1, mini_batch_size=10)
    assert first.optimizer is not second.optimizer
    assert len(second.train_loss_list) == 2


def test_data_are_not_written_and_may_be_lists_and_read_only(rng):
    x, t = rng.random((30, 4)), rng.integers(0, 2, 30)
    read_only = reference.LAYOUTS["read-only"]
    losses = []
    for given in ((x, t), (read_only(x), read_only(t)), (x.tolist(), t.tolist()), (np.asfortranarray(x), t)):
        np.random.seed(0)
        with reference.unchanged(*given):
            trainer = Trainer(TwoLayerNet(4, 5, 2), *given, *given, 2, 10, verbose=False)
            trainer.train()
        losses.append(trainer.train_loss_list)
    assert all(found == losses[0] for found in losses)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_learns_whether_a_point_lies_above_the_diagonal(name, rng):
    x = rng.standard_normal((200, 2))
    t = (x[:, 1] > x[:, 0]).astype(int)
    np.random.seed(0)
    network = TwoLayerNet(2, 8, 2, weight_init_std=0.5)
    lr = {"SGD": 0.5, "Momentum": 0.1, "Nesterov": 0.1, "AdaGrad": 0.1, "RMSprop": 0.05, "Adam": 0.05}[name]
    trainer = Trainer(network, x[:150], t[:150], x[150:], t[150:], 30, 15, name, {"lr": lr}, verbose=False)
    trainer.train()
    assert trainer.train_loss_list[-1] < trainer.train_loss_list[0]
    assert trainer.test_acc_list[-1] >= 0.9
