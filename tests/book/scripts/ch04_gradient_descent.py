"""Chapter 4: numerical gradients and gradient descent on x0^2 + x1^2, with good and bad learning rates."""

import numpy as np
from common.gradient import numerical_gradient


def function_2(x):
    return np.sum(x**2)


def gradient_descent(f, init_x, lr=0.01, step_num=100):
    x = init_x
    x_history = []
    for _ in range(step_num):
        x_history.append(x.copy())
        x -= lr * numerical_gradient(f, x)
    return x, np.array(x_history)


for point in ([3.0, 4.0], [0.0, 2.0], [3.0, 0.0]):
    x = np.array(point)
    print("gradient at", point, "is", numerical_gradient(function_2, x), "and x is still", x)

for lr, step_num in ((0.1, 100), (1e-10, 100), (0.4, 20), (10.0, 5)):
    x, x_history = gradient_descent(function_2, np.array([-3.0, 4.0]), lr=lr, step_num=step_num)
    print("lr " + str(lr) + ": ends at", x, "after", len(x_history), "steps")
    for position in x_history[:20:5]:
        print("  ", position[0], position[1])

grid = np.stack(np.meshgrid(np.arange(-2, 2.5, 1.0), np.arange(-2, 2.5, 1.0)))
print("gradient on a grid:")
print(numerical_gradient(function_2, grid))
