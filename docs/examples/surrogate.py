"""
A surrogate: regression inside scipy.integrate
==============================================

Where a function is costly, a small network that has learned it takes its place: inside an integrator, which calls it many thousand
times, what counts is the time of a single call.
"""

import time

import numpy as np
from matplotlib import pyplot
from scipy.integrate import quad, solve_ivp

from nnfast import Adam, Affine, IdentityWithLoss, Network, Tanh, schedules

# %%
# The function that is thought to be costly: how a pendulum with friction accelerates at an angle and a speed. It is learned from
# 20,000 points, in float64.


def acceleration(angle, speed):
    """Of a pendulum, in radians and seconds."""
    return -9.81 * np.sin(angle) - 0.3 * speed * np.abs(speed)


rng = np.random.default_rng(0)
points = rng.uniform([-3.5, -8], [3.5, 8], (20_000, 2))
scale = np.array([3.5, 8])
targets = acceleration(*points.T) / 10
network = Network([Affine(2, 32), Tanh(), Affine(32, 32), Tanh(), Affine(32, 1)], IdentityWithLoss(), seed=0, dtype="float64")
history = network.fit(
    points / scale, targets, epochs=150, batch_size=100, optimizer=Adam(lr=0.005), schedule=schedules.Cosine())
print(f"learned in {sum(history.seconds):.1f} s, typical error {10 * (2 * history.loss[-1])**0.5:.3f} of at most 30 m/s**2")

# %%
# In `solve_ivp` it takes the function's place. The implicit method asks for derivatives, too: `network.jacobian` has them.

predictor = network.predictor()


def learned(_, state):
    """The derivative of angle and speed."""
    return [state[1], 10 * predictor((state / scale).reshape(1, 2))[0, 0]]


def derivatives(_, state):
    """Of `learned`, with respect to angle and speed."""
    return np.vstack([[0, 1], 10 * network.jacobian((state / scale).reshape(1, 2))[0] / scale])


times = np.linspace(0, 10, 400)
started = time.perf_counter()
found = solve_ivp(learned, (0, 10), [2.5, 0.0], "Radau", times, jac=derivatives, rtol=1e-6)
seconds = time.perf_counter() - started
exact = solve_ivp(lambda _, state: [state[1], acceleration(*state)], (0, 10), [2.5, 0.0], t_eval=times, rtol=1e-10)
distance = np.abs(found.y[0] - exact.y[0]).max()
print(f"ten seconds of pendulum in {seconds:.2f} s: at most {distance:.3f} radians from the exact solution")

figure, axes = pyplot.subplots(figsize=(7, 3), layout="constrained")
axes.plot(times, exact.y[0], label="exact", linewidth=3, alpha=0.4)
axes.plot(times, found.y[0], "--", label="learned")
axes.set(xlabel="seconds", ylabel="angle")
axes.legend()

# %%
# Integrals over the angle at 500 speeds. `low_level_callable` hands SciPy a C function, which it calls without Python in between.

speeds = np.linspace(0, 1, 500)


def integrals(function):
    """Of the learned function, in the units of the network."""
    return np.array([quad(function, 0, 1, args=(speed,))[0] for speed in speeds])


seconds = {}
for name, function in [("Python", lambda *x: predictor(np.array([x]))[0, 0]), ("C", predictor.low_level_callable())]:
    started = time.perf_counter()
    found = integrals(function)
    seconds[name] = time.perf_counter() - started
    print(f"through {name}: mean integral {found.mean():.9f}")
print(f"{seconds['Python'] / seconds['C']:.0f} times as fast through C")
