"""Chapter 2's logic gates: a weighted sum compared with a threshold."""


def _fires(x1, x2, weight, bias):
    return 1 if weight * x1 + weight * x2 + bias > 0 else 0


def AND(x1, x2):
    return _fires(x1, x2, 0.5, -0.7)


def NAND(x1, x2):
    return _fires(x1, x2, -0.5, 0.7)


def OR(x1, x2):
    return _fires(x1, x2, 0.5, -0.2)


def XOR(x1, x2):
    return AND(NAND(x1, x2), OR(x1, x2))
