"""Chapter 2: the four logic gates, each on all inputs."""

from common.perceptron import AND, NAND, OR, XOR

for gate in (AND, NAND, OR, XOR):
    for inputs in ((0, 0), (1, 0), (0, 1), (1, 1)):
        print(f"{gate.__name__}{inputs} -> {gate(*inputs)}")
