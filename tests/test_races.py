"""Several Python threads at once on one network: results are those of one, or a sentence says no; never a crash.

`make races` runs these and the tests of compiled code under ThreadSanitizer.
"""

import sys
import threading
import time

import numpy as np
import pytest

from nnfast import SGD, Affine, BatchNormalization, Momentum, Network, Relu, _gradient_plan, _inference

_LONGEST = 60   # seconds, after which a test that hangs fails


@pytest.fixture(autouse=True)
def hasty():
    """Python threads take turns a thousand times as often as usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


def together(*calls):
    """Runs each call in a thread of its own, all at once; raises what one of them raised."""
    failures, start = [], threading.Barrier(len(calls))

    def run(call):
        start.wait(_LONGEST)
        try:
            call()
        except BaseException as failure:  # noqa: BLE001, raised again in the thread of the test
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(call,), daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_LONGEST)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    if failures:
        raise failures[0]


def while_running(call, others):
    """Runs `call` in a thread, and `others` here, over and over, until it ends; at least once."""
    ended = threading.Event()

    def run():
        try:
            call()
        finally:
            ended.set()

    def repeat():
        while True:
            others()
            if ended.is_set():
                break

    together(run, repeat)


@pytest.fixture
def network():
    return Network([Affine(64, 128), Relu(), Affine(128, 10)], seed=0)


@pytest.fixture
def data(rng):
    return rng.standard_normal((600, 64), np.float32), rng.integers(0, 10, 600)


def weights(network):
    return {key: array.copy() for key, array in network.params.items()}


def assert_same(found, expected):
    for key, array in expected.items():
        np.testing.assert_array_equal(found[key], array, key)


def test_eight_threads_predict_on_one_network_the_bits_of_one(rng, network):
    # Several large ones: only those give the GIL up, and then run at the same time.
    xs = [rng.standard_normal((rows, 64), np.float32) for rows in (1, 16, 17, 70, 300, 300, 1030, 1030)]
    expected = [network.predict(x) for x in xs]

    def call(x, y):
        predictor = network.predictor(x.shape[0])
        for _ in range(200):
            assert np.array_equal(network.predict(x), y)
            assert np.array_equal(predictor(x), y)

    together(*(lambda x=x, y=y: call(x, y) for x, y in zip(xs, expected, strict=True)))


def test_predictions_during_a_fit_are_finite_and_disturb_nothing(network, data):
    x, t = data
    twin = Network([Affine(64, 128), Relu(), Affine(128, 10)], seed=0)
    twin.fit(x, t, epochs=30, optimizer=Momentum(0.01))

    def predict():
        y = network.predict(x[:50])
        assert y.shape == (50, 10) and np.isfinite(y).all()

    while_running(lambda: network.fit(x, t, epochs=30, optimizer=Momentum(0.01)), predict)
    assert_same(network.params, twin.params)
    np.testing.assert_array_equal(network.predict(x), twin.predict(x))


def test_a_second_fit_on_one_network_is_refused_and_the_first_undisturbed(network, data):
    x, t = data
    twin = Network([Affine(64, 128), Relu(), Affine(128, 10)], seed=0)
    twin.fit(x, t, epochs=3)
    started, release = threading.Event(), threading.Event()

    def wait(epoch):
        started.set()
        assert release.wait(_LONGEST)

    def second():
        assert started.wait(_LONGEST)
        try:
            Network([Affine(64, 10)], seed=0).fit(x, t)     # whose end frees no other
            with pytest.raises(RuntimeError) as caught:
                network.fit(x, t)
            assert str(caught.value) == (
                "this network is being trained by another call of fit: wait for it, or train a copy")
        finally:
            release.set()

    together(lambda: network.fit(x, t, epochs=3, callbacks=[wait]), second)
    assert_same(network.params, twin.params)
    network.fit(x, t)       # and afterwards nobody is refused


def test_of_fits_that_begin_at_the_same_moment_one_trains(network, data):
    x, t = data
    twin = Network([Affine(64, 128), Relu(), Affine(128, 10)], seed=0)
    twin.fit(x, t, epochs=40)
    outcomes = []

    def fit():
        try:
            network.fit(x, t, epochs=40, callbacks=[lambda epoch: time.sleep(0.001)])
            outcomes.append("trained")
        except RuntimeError as refused:
            outcomes.append(str(refused).partition(":")[0])

    together(*[fit] * 4)
    assert sorted(outcomes) == ["this network is being trained by another call of fit"] * 3 + ["trained"]
    assert_same(network.params, twin.params)


def test_fits_of_different_networks_are_those_of_one_after_the_other(data):
    x, t = data
    networks = [Network([Affine(64, 40), BatchNormalization(40), Relu(), Affine(40, 10)], seed=seed % 4) for seed in range(8)]
    for network in networks[:4]:
        network.fit(x, t, epochs=5, optimizer=SGD(0.1))
    together(*(lambda network=network: network.fit(x, t, epochs=5, optimizer=SGD(0.1)) for network in networks[4:]))
    for apart, beside in zip(networks[:4], networks[4:], strict=True):
        assert_same(beside.params, apart.params)


def test_gradients_from_many_threads_are_those_of_one(network, data):
    x, t = data
    expected = {rows: {key: array.copy() for key, array in network.gradient(x[:rows], t[:rows]).items()} for rows in (1, 30, 600)}

    def call(rows):
        for _ in range(30):
            assert_same(network.gradient(x[:rows], t[:rows]), expected[rows])

    together(*(lambda rows=rows: call(rows) for rows in (1, 30, 600, 1, 30, 600)))


def test_a_gradient_during_a_fit_is_finite_and_disturbs_nothing(network, data):
    x, t = data
    twin = Network([Affine(64, 128), Relu(), Affine(128, 10)], seed=0)
    twin.fit(x, t, epochs=30)

    def gradient():
        for key, array in network.gradient(x[:50], t[:50]).items():
            assert array.shape == network.params[key].shape and np.isfinite(array).all()

    while_running(lambda: network.fit(x, t, epochs=30), gradient)
    assert_same(network.params, twin.params)


def test_a_prediction_while_an_array_is_replaced_is_by_the_old_or_the_new_one(network, data):
    x, _ = data
    x = x[:5]
    layer = network.layers["Affine1"]
    arrays = [layer.W, 2 * layer.W, np.asfortranarray(3 * layer.W)]
    expected = []
    for array in arrays:
        layer.W = array
        expected.append(network.predict(x))
    assert not any(np.array_equal(expected[one], expected[one - 1]) for one in range(3))

    def replace():
        for turn in range(2000):
            layer.W = arrays[turn % 3]

    def predict():
        y = network.predict(x)
        assert any(np.array_equal(y, one) for one in expected)

    while_running(replace, predict)


@pytest.mark.parametrize("call", ["predict", "gradient"])
def test_an_array_replaced_by_one_of_another_shape_meanwhile_is_refused_or_not_seen(network, data, call):
    """To rounding: what does not fit goes layer by layer, and may fit again by then."""
    x, t = data
    arguments = (x[:5],) if call == "predict" else (x[:5], t[:5])
    layer = network.layers["Affine1"]
    arrays = [layer.W, layer.W[:1].copy(), layer.W[:, :1].copy(), np.ones((1, 1), np.float32)]
    expected = getattr(network, call)(*arguments)
    expected = {key: array.copy() for key, array in expected.items()} if call == "gradient" else {"": expected}

    def replace():
        for turn in range(2000):
            layer.W = arrays[turn % 4]
        layer.W = arrays[0]

    def ask():
        try:
            found = getattr(network, call)(*arguments)
        except ValueError:
            return
        for key, array in (found if call == "gradient" else {"": found}).items():
            np.testing.assert_allclose(array, expected[key], rtol=1e-4, atol=1e-5)

    while_running(replace, ask)
    found = getattr(network, call)(*arguments)
    assert_same(found if call == "gradient" else {"": found}, expected)


@pytest.mark.parametrize("name", ["W", "b"])
@pytest.mark.parametrize(("owner", "call"), [(_inference, "predict"), (_gradient_plan.GradientPlan, "gradient")])
def test_an_array_replaced_between_check_and_use_is_refused(monkeypatch, network, data, owner, call, name):
    x, t = data
    layer, fits = network.layers["Affine1"], owner.fits

    def fits_no_more(network):
        answer = fits(network)
        setattr(layer, name, getattr(layer, name)[:1].copy())   # as another thread might just then
        return answer

    monkeypatch.setattr(owner, "fits", fits_no_more)
    with pytest.raises(ValueError):     # by compiled code, if nobody else
        getattr(network, call)(*((x[:5],) if call == "predict" else (x[:5], t[:5])))
