# exp, expm1, log, sigmoid, tanh and the normal distribution of one element, in plain branch-free arithmetic, so that a
# loop over them is vectorised for every instruction set (the C library's functions are not: a call an element).
#
# Method (Cody and Waite, Software Manual for the Elementary Functions, 1980, chapters 6 and 13): x = n ln 2 + r with
# |r| <= ln(2) / 2, exp(x) = 2**n exp(r), exp(r) by its Taylor series. The series is cut where the next term is below
# a tenth of a rounding error: r**8 / 8! = 5e-9 for float32, r**14 / 14! = 4e-18 for float64.
#
# x + SHIFTER, with SHIFTER = 1.5 * 2**(mantissa bits), rounds x to an integer and leaves it in the low bits.

cdef inline floating _exp_series_minus_1(floating r) noexcept nogil:
    """exp(r) - 1 for |r| <= ln(2) / 2, by Horner's rule."""
    cdef floating s
    if floating is float:
        s = <float>(1. / 5040)
        s = s * r + <float>(1. / 720)
    else:
        s = 1. / 6227020800.
        s = s * r + 1. / 479001600
        s = s * r + 1. / 39916800
        s = s * r + 1. / 3628800
        s = s * r + 1. / 362880
        s = s * r + 1. / 40320
        s = s * r + 1. / 5040
        s = s * r + 1. / 720
    s = s * r + <floating>(1. / 120)
    s = s * r + <floating>(1. / 24)
    s = s * r + <floating>(1. / 6)
    s = s * r + <floating>0.5
    return s * r * r + r


cdef inline floating _nearest_integer(floating x) noexcept nogil:
    """x rounded to an integer, for |x| < 2**22."""
    cdef floating shifted
    if floating is float:
        shifted = x + <float>12582912.
        return shifted - <float>12582912.
    else:
        shifted = x + 6755399441055744.
        return shifted - 6755399441055744.


cdef inline floating _power_of_two(floating n) noexcept nogil:
    """2**n for an integer n between -126 and 127 (float32) or -1022 and 1023 (float64)."""
    if floating is float:
        return nnfast_float_from_bits((nnfast_float_bits(n + <float>12582912.) + 127) << 23)
    else:
        return nnfast_double_from_bits((nnfast_double_bits(n + 6755399441055744.) + 1023) << 52)


cdef inline floating _reduced(floating x, floating n) noexcept nogil:
    """x - n ln 2, with ln 2 in two parts, the first short enough that n times it is exact."""
    if floating is float:
        return (x - n * <float>0.693359375) - n * <float>-2.12194440e-4
    else:
        return (x - n * 6.93145751953125e-1) - n * 1.42860682030941723212e-6


cdef inline floating _exp(floating x) noexcept nogil:
    """exp(x), right over the whole range: 0 and infinity at its ends, subnormal results, NaN for NaN."""
    cdef floating n, half, r, p
    # Beyond these limits the result is 0 or infinity anyway; within them n fits the exponent's bits.
    if floating is float:
        x = <float>89. if x > <float>89. else x
        x = <float>-104. if x < <float>-104. else x
    else:
        x = 710. if x > 710. else x
        x = -746. if x < -746. else x
    n = _nearest_integer(x * <floating>1.4426950408889634)
    r = _reduced(x, n)
    p = _exp_series_minus_1(r) + <floating>1.
    # 2**n in two factors: n alone goes down to -1075, past the smallest normal exponent.
    half = _nearest_integer(n * <floating>0.5)
    return p * _power_of_two(half) * _power_of_two(n - half)


cdef inline double _log(double x) noexcept nogil:
    """log(x) = n ln 2 + log(m) with m between sqrt(1/2) and sqrt(2), log(m) = 2 artanh(s) with s = (m - 1) / (m + 1).

    The series of artanh is cut after s**23 / 23, the next term being below 3e-18 of the first. -infinity for 0, NaN
    below, subnormal numbers included.
    """
    cdef double n, m, s, z, p, scaled = x * 18014398509481984. if x < 2.2250738585072014e-308 else x
    cdef int64_t bits = nnfast_double_bits(scaled)
    # 0x3FE6A09E667F3BCD is sqrt(1/2): what is above it in the exponent's bits counts the doublings.
    n = <double>((bits - <int64_t>0x3FE6A09E667F3BCD) >> 52)
    m = nnfast_double_from_bits(bits - (((bits - <int64_t>0x3FE6A09E667F3BCD) >> 52) << 52))
    n = n - 54. if x < 2.2250738585072014e-308 else n
    s = (m - 1.) / (m + 1.)
    z = s * s
    p = 1. / 23
    p = p * z + 1. / 21
    p = p * z + 1. / 19
    p = p * z + 1. / 17
    p = p * z + 1. / 15
    p = p * z + 1. / 13
    p = p * z + 1. / 11
    p = p * z + 1. / 9
    p = p * z + 1. / 7
    p = p * z + 1. / 5
    p = p * z + 1. / 3
    p = n * 0.6931471803691238 + (2. * s + (2. * s * z * p + n * 1.9082149292705877e-10))
    p = p if x > 0. else (x - x) / 0.     # NaN below 0
    p = p if x != 0. else -1. / 0.
    return p if x <= 1.7976931348623157e308 else x      # infinity, NaN


cdef inline floating _sigmoid(floating x) noexcept nogil:
    """1 / (1 + exp(-x)); exp overflows to infinity for a very negative x, which gives 0."""
    return <floating>1. / (<floating>1. + _exp(-x))


cdef inline floating _tanh(floating x) noexcept nogil:
    """tanh(x) = e / (e + 2) with e = exp(2 |x|) - 1, which loses no digits near 0; the sign is put back."""
    cdef floating y, n, scale, e, t
    y = x if x >= <floating>0. else -x
    y = <floating>22. if y > <floating>22. else y   # tanh(22) is 1 to the last bit of float64
    y = y + y
    n = _nearest_integer(y * <floating>1.4426950408889634)
    scale = _power_of_two(n)
    e = scale * _exp_series_minus_1(_reduced(y, n)) + (scale - <floating>1.)
    t = e / (e + <floating>2.)
    return t if x >= <floating>0. else -t


cdef inline floating _exp_minus_half_square(floating z) noexcept nogil:
    """exp(-z * z / 2). z is split so that the square of its upper half is exact: else a rounding of z * z would be one
    of up to 100 (float32) or 700 (float64) units of the result."""
    cdef floating upper, e
    if floating is float:
        upper = nnfast_float_from_bits(nnfast_float_bits(z) & ~<int32_t>0xFFF)
    else:
        upper = nnfast_double_from_bits(nnfast_double_bits(z) & ~<int64_t>0x7FFFFFF)
    e = _exp(<floating>-0.5 * upper * upper)
    return e + e * _exp_series_minus_1(<floating>-0.5 * (z - upper) * (z + upper))


cdef inline floating _normal_tail_ratio(floating z) noexcept nogil:
    """P(-z) exp(z * z / 2) for z from 0 to 14.5 (float32) or 38.6 (float64), P the standard normal distribution.

    Like M. M. Shepherd and J. G. Laframboise, Mathematics of Computation 36 (1981): that function times 1 + z is almost
    a constant, and a short Chebyshev series in z / (z + 4); here to a rounding error, and written as a polynomial.
    """
    cdef floating v, p
    if floating is float:
        v = <float>2.5517241954803467 * (z / (z + <float>4.)) - <float>1.
        p = <float>-6.4684154e-06
        p = p * v + <float>1.05077415e-05
        p = p * v + <float>9.450817e-05
        p = p * v - <float>0.00027566438
        p = p * v - <float>0.0008394791
        p = p * v + <float>0.007020166
        p = p * v - <float>0.020712959
        p = p * v + <float>0.031683605
        p = p * v - <float>0.009555961
        p = p * v - <float>0.07621087
        p = p * v + <float>0.4932481
    else:
        v = 2.2072538860103625 * (z / (z + 4.)) - 1.
        p = 2.4708139006023283e-11
        p = p * v + 4.976162386888923e-10
        p = p * v + 4.309174145903336e-10
        p = p * v - 4.979347649437758e-09
        p = p * v - 8.977421509994418e-09
        p = p * v + 2.5550430209590036e-08
        p = p * v + 8.691546517330258e-08
        p = p * v - 7.956862674113306e-08
        p = p * v - 6.596897466496323e-07
        p = p * v + 3.461909171590652e-08
        p = p * v + 4.791661572417953e-06
        p = p * v + 1.4702391655896163e-06
        p = p * v - 3.777915463543735e-05
        p = p * v - 1.757291314300543e-06
        p = p * v + 0.0003351027074086801
        p = p * v - 0.00041541328363901636
        p = p * v - 0.002566845720249852
        p = p * v + 0.012624004716366117
        p = p * v - 0.027817872688938438
        p = p * v + 0.03151039119061456
        p = p * v + 0.0033544408844059905
        p = p * v - 0.08921695490728797
        p = p * v + 0.48123046038958284
    return p / (z + <floating>1.)


cdef inline floating _normal_distribution(floating x, floating* density) noexcept nogil:
    """P(x), with all its digits where it is small; sets density to exp(-x * x / 2)."""
    cdef floating z = -x if x < <floating>0. else x, tail
    if floating is float:
        z = <float>14.5 if z > <float>14.5 else z       # beyond, the tail is 0 (and NaN stays NaN)
    else:
        z = 38.6 if z > 38.6 else z
    density[0] = _exp_minus_half_square(z)
    tail = density[0] * _normal_tail_ratio(z)
    return tail if x < <floating>0. else <floating>1. - tail


cdef inline floating _square_root(floating x) noexcept nogil:
    if floating is float:
        return sqrtf(x)
    else:
        return sqrt(x)
