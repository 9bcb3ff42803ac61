# The numerical gradient of any Python function: the one kernel that calls back into Python.

def central_difference(f, x, double[::1] gradient, double h):
    """gradient[i] = (f(x with x[i] + h) - f(x with x[i] - h)) / (2 h), in the order of x.flat.

    x is perturbed in place, one element at a time, and restored, also when f raises.
    """
    cdef Py_ssize_t i
    cdef double above, below
    elements = x.flat
    for i in range(gradient.shape[0]):
        value = elements[i]
        try:
            elements[i] = value + h
            above = f(x)
            elements[i] = value - h
            below = f(x)
        finally:
            elements[i] = value
        gradient[i] = (above - below) / (2 * h)
