"""Fit the polynomial of `csrc/math_impl.h`:  (exp(r) - 1 - r) / r**2  on |r| <= ln(2)/2.

A weighted least-squares fit on Chebyshev nodes in 50 digits, close enough to minimax that the float it is rounded to
dominates. Prints the coefficients, lowest power first, and the largest error of r + r**2 q(r) relative to exp(r) - 1.
Run: ``python csrc/fit_expm1.py`` (needs mpmath).
"""

import mpmath as mp

mp.mp.dps = 50


def fit(degree, nodes=200):
    """The coefficients of a polynomial of this degree, lowest power first."""
    half = mp.log(2) / 2 * mp.mpf("1.001")
    rs = [half * mp.cos(mp.pi * (2 * k + 1) / (2 * nodes)) for k in range(nodes)]
    # The error that counts is relative to exp(r) - 1, hence the weight r**2 / expm1(r).
    weight = [r * r / mp.expm1(r) for r in rs]
    a = mp.matrix([[w * r**p for p in range(degree + 1)] for w, r in zip(weight, rs, strict=False)])
    b = mp.matrix([w * (mp.expm1(r) - r) / (r * r) for w, r in zip(weight, rs, strict=False)])
    return list(mp.lu_solve(a, b))


def worst(coefficients, points=2001):
    """The largest relative error of these coefficients."""
    half = mp.log(2) / 2
    rs = [half * (2 * mp.mpf(k) / (points - 1) - 1) for k in range(points) if 2 * k != points - 1]
    return max(abs((r + r * r * mp.polyval(coefficients[::-1], r)) / mp.expm1(r) - 1) for r in rs)


for name, degree, digits in (("float", 4, 10), ("double", 9, 19)):
    q = fit(degree)
    print(name, "largest relative error", mp.nstr(worst(q), 3))
    for value in q:
        print("   ", mp.nstr(value, digits))
