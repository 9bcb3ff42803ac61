"""
A policy: 4-64-64-2 learns to balance a pole
============================================

A cart on a rail carries a pole, hinged at its foot; at each moment it is pushed to the left or to the right (Barto, Sutton and
Anderson, 1983, whose equations and numbers these are). A network of 4-64-64-2 sees position, speed, angle and angular speed, and
says how likely it is to push to the right. It learns from nothing but how long the pole stood: by the policy gradient (Williams,
1992), pushes after which the pole stood longer than expected are made likelier.
"""

import math
import random

import numpy as np
from matplotlib import pyplot

from nnfast import Adam, Affine, Network, Tanh

GRAVITY, CART, POLE, HALF_LENGTH, FORCE, SECONDS = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
LONGEST = 500       # steps, ten seconds


def pushed(state, push):
    """The state a fiftieth of a second after a push to the left (0) or to the right (1)."""
    x, speed, angle, turning = state
    sine, cosine = math.sin(angle), math.cos(angle)
    pull = ((FORCE if push else -FORCE) + POLE * HALF_LENGTH * turning**2 * sine) / (CART + POLE)
    turned = (GRAVITY * sine - cosine * pull) / (HALF_LENGTH * (4 / 3 - POLE * cosine**2 / (CART + POLE)))
    moved = pull - POLE * HALF_LENGTH * turned * cosine / (CART + POLE)
    return x + SECONDS * speed, speed + SECONDS * moved, angle + SECONDS * turning, turning + SECONDS * turned


def stands(state):
    """Whether the cart is on its rail, 2.4 m to each side, and the pole within 12 degrees."""
    return abs(state[0]) < 2.4 and abs(state[2]) < math.radians(12)


# %%
# The loss is none that a library has: minus the logarithm of the probability of the push that was made, times its advantage. As a
# Python function it gives each row's loss and its gradient with respect to the two scores.


def policy_gradient(scores, made):
    """made: (B, 2), the push and its advantage."""
    pushes, advantages = made[:, 0].astype(int), made[:, 1]
    probabilities = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    likely = probabilities[np.arange(len(pushes)), pushes]
    return -advantages * np.log(likely), advantages[:, None] * (probabilities - np.eye(2)[pushes])


network = Network([Affine(4, 64), Tanh(), Affine(64, 64), Tanh(), Affine(64, 2)], policy_gradient, seed=0)
network.params["W3"] *= 0.01       # at first, left and right are as likely
optimizer, chance = Adam(lr=0.003), random.Random(0)
predictor = network.predictor()         # sees what the network has learned by then
seen, scores = np.empty((1, 4), np.float32), np.empty((1, 2), np.float32)


def episode():
    """States and pushes until the pole has fallen."""
    state = tuple(chance.uniform(-0.05, 0.05) for _ in range(4))
    states, pushes = [], []
    while stands(state) and len(pushes) < LONGEST:
        seen[0] = state
        predictor(seen, scores)
        push = int(chance.random() < 1 / (1 + math.exp(scores[0, 0] - scores[0, 1])))
        states.append(state)
        pushes.append(push)
        state = pushed(state, push)
    return states, pushes


# %%
# After every eight episodes, one step: a push's advantage is how many more steps the pole stood after it than it did on average
# after pushes at that time, in units of their spread.

lengths = []
while len(lengths) < 50 or np.mean(lengths[-20:]) < 0.95 * LONGEST:
    episodes = [episode() for _ in range(8)]
    lengths += [len(pushes) for _, pushes in episodes]
    remaining = np.full((8, LONGEST), np.nan)
    for number, (_, pushes) in enumerate(episodes):
        remaining[number, : len(pushes)] = (1 - 0.99 ** np.arange(len(pushes), 0, -1)) / (1 - 0.99)
    known = ~np.isnan(remaining)
    advantages = (remaining - remaining[known].mean()) / (remaining[known].std() + 1e-8)
    x = np.array([state for states, _ in episodes for state in states], np.float32)
    made = np.column_stack([[push for _, pushes in episodes for push in pushes], advantages[known]])
    network.fit(x, made, batch_size=len(x), optimizer=optimizer, shuffle=False)
    if len(lengths) > 4000:
        raise SystemExit("nothing was learned")
print(f"after {len(lengths)} episodes the pole stands for {np.mean(lengths[-20:]):.0f} of {LONGEST} steps")

figure, axes = pyplot.subplots(figsize=(7, 3), layout="constrained")
axes.plot(lengths, linewidth=0.7)
axes.set(xlabel="episode", ylabel="steps that the pole stood")
