"""Derives the coefficients of tail_q (docs/arithmetic.md, section 2) from nothing but their definition.

`python tests/vectors/make_normal.py` prints them. f(z) = exp(z*z/2) * N(-z) on [0, 34] is fitted by P/Q, P of degree
11 and Q of degree 12, so that the greatest relative error is least: Remez's second exchange algorithm for rational
functions, in 70 digits. Then both are divided by Q's leading coefficient, scaled by 2**80 and rounded to the nearest
integer.
"""

from __future__ import annotations

import itertools
import sys

from mpmath import cos, erfc, exp, lu_solve, matrix, mp, mpf, nint, pi, sqrt

DIGITS = 70
END = 34
P_DEGREE, Q_DEGREE = 11, 12
NODES = P_DEGREE + Q_DEGREE + 2
# where half of the nodes lie below: the function bends near zero
MIDDLE = 2
GRID = 40 * NODES
SCALE = 2**80
MAX_EXCHANGES = 25


def tail(z: mpf) -> mpf:
    """exp(z*z/2) * N(-z), N the standard normal distribution."""
    return exp(z * z / 2) * erfc(z / sqrt(2)) / 2


def _node(s: mpf) -> mpf:
    """A point of [0, END] for one of [-1, 1]."""
    a = (1 + s) / 2
    return END * a / (a + (1 - a) * mpf(END) / MIDDLE)


def _value(coefficients: list[mpf], x: mpf) -> mpf:
    total = mpf(0)
    for coefficient in reversed(coefficients):
        total = total * x + coefficient
    return total


def _solve(nodes: list[mpf], weights: list[mpf] | None) -> tuple[list[mpf], list[mpf], mpf]:
    """P, Q (with constant term one) and the levelled error; without weights, P/Q interpolates and the error is zero."""
    size = len(nodes)
    rows, right = matrix(size, size), matrix(size, 1)
    for i, x in enumerate(nodes):
        fx = tail(x)
        for j in range(P_DEGREE + 1):
            rows[i, j] = x**j / fx
        for j in range(1, Q_DEGREE + 1):
            rows[i, P_DEGREE + j] = -(x**j)
        if weights is not None:
            rows[i, size - 1] = -((-1) ** i) * weights[i]
        right[i] = 1
    solution = lu_solve(rows, right)
    p = [solution[j] for j in range(P_DEGREE + 1)]
    q = [mpf(1), *(solution[P_DEGREE + j] for j in range(1, Q_DEGREE + 1))]
    return p, q, solution[size - 1] if weights is not None else mpf(0)


def _levelled(nodes: list[mpf], q: list[mpf]) -> tuple[list[mpf], list[mpf], mpf]:
    """P, Q and E with P / (Q f) - 1 = +-E in turn at the nodes: Q's values are fed back until E stands still."""
    error = mpf(0)
    for _ in range(12):
        p, q, last = _solve(nodes, [_value(q, x) for x in nodes])
        error, before = last, error
        if abs(error - before) < abs(error) * mpf(10) ** -8:
            break
    return p, q, error


def _extrema(p: list[mpf], q: list[mpf]) -> tuple[list[mpf], mpf]:
    """Where the relative error is greatest between its changes of sign, and the greatest."""
    grid = [_node(-cos(pi * i / GRID)) for i in range(GRID + 1)]
    errors = [_value(p, x) / (_value(q, x) * tail(x)) - 1 for x in grid]
    chosen: list[int] = []
    for i, error in enumerate(errors):
        if chosen and (error > 0) == (errors[chosen[-1]] > 0):
            if abs(error) > abs(errors[chosen[-1]]):
                chosen[-1] = i
        else:
            chosen.append(i)
    while len(chosen) > NODES:
        chosen.pop(0 if abs(errors[chosen[0]]) < abs(errors[chosen[-1]]) else -1)
    nodes = []
    for i in chosen:
        if not 0 < i < GRID:
            nodes.append(grid[i])
            continue
        (a, b, c), (ya, yb, yc) = grid[i - 1 : i + 2], errors[i - 1 : i + 2]
        top = (b - a) ** 2 * (yb - yc) - (b - c) ** 2 * (yb - ya)
        nodes.append(b - top / (2 * ((b - a) * (yb - yc) - (b - c) * (yb - ya))))
    return nodes, max(abs(error) for error in errors)


def coefficients() -> tuple[tuple[int, ...], tuple[int, ...], mpf]:
    """P and Q scaled by 2**80, lowest degree first, Q without its leading one; and the greatest relative error."""
    with mp.workdps(DIGITS):
        points = NODES - 1
        _, q, _ = _solve([_node(-cos(pi * (2 * i + 1) / (2 * points))) for i in range(points)], None)
        nodes = [_node(-cos(pi * i / (NODES - 1))) for i in range(NODES)]
        for _ in itertools.repeat(None, MAX_EXCHANGES):
            p, q, error = _levelled(nodes, q)
            nodes, greatest = _extrema(p, q)
            if greatest < abs(error) * mpf("1.0000001"):
                break
        lead = q[-1]
        return (
            tuple(int(nint(x / lead * SCALE)) for x in p),
            tuple(int(nint(x / lead * SCALE)) for x in q[:-1]),
            greatest,
        )


if __name__ == "__main__":
    found_p, found_q, greatest_error = coefficients()
    for name, numbers in (("TAIL_P", found_p), ("TAIL_Q", found_q)):
        sys.stdout.write(f"{name} = (\n" + "".join(f"    {number},\n" for number in numbers) + ")\n")
    sys.stdout.write(f"# greatest relative error: {mp.nstr(greatest_error, 4)}\n")
