/* Calls of a function of one row, one after the other: what a program in C does, and a loop that Numba has compiled. */

void call_with_context(void (*predict)(const void *, void *, void *), const void *x, void *y, void *context, long calls)
{
    while (calls-- > 0)
        predict(x, y, context);
}

void call(void (*predict)(const void *, void *), const void *x, void *y, long calls)
{
    while (calls-- > 0)
        predict(x, y);
}
