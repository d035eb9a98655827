"""Frozen records made and changed without their checks, for the hot paths of the core.

Rules: `maker(cls)` builds instances from values that its caller has checked against every rule of the class. `evolver`
gives what `dataclasses.replace` gives without running the checks again, so a caller changes only what the class does
not check, or what has been checked already. Both write past the assignment that a frozen class forbids.
tests/core/test_evolve.py holds both to the ordinary way.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_new = object.__new__


def maker(cls: type[T]) -> Callable[..., T]:
    """A constructor of a frozen class with 3 to 6 slots: every field by position, in the class's order, unchecked."""
    writers = [getattr(cls, f.name).__set__ for f in fields(cls) if f.init]  # type: ignore[arg-type]
    w0, w1, w2, *rest = writers
    if not rest:

        def make3(a: Any, b: Any, c: Any) -> T:  # noqa: ANN401 - whatever the fields hold, here and below
            made = _new(cls)
            w0(made, a)
            w1(made, b)
            w2(made, c)
            return made

        return make3
    if len(rest) == 1:
        (w3,) = rest

        def make4(a: Any, b: Any, c: Any, d: Any) -> T:  # noqa: ANN401
            made = _new(cls)
            w0(made, a)
            w1(made, b)
            w2(made, c)
            w3(made, d)
            return made

        return make4
    return _longer(cls, writers)


def _longer(cls: type[T], writers: list[Callable[[Any, Any], None]]) -> Callable[..., T]:
    w0, w1, w2, w3, w4, *rest = writers
    if not rest:

        def make5(a: Any, b: Any, c: Any, d: Any, e: Any) -> T:  # noqa: ANN401
            made = _new(cls)
            w0(made, a)
            w1(made, b)
            w2(made, c)
            w3(made, d)
            w4(made, e)
            return made

        return make5
    (w5,) = rest

    def make6(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any) -> T:  # noqa: ANN401
        made = _new(cls)
        w0(made, a)
        w1(made, b)
        w2(made, c)
        w3(made, d)
        w4(made, e)
        w5(made, f)
        return made

    return make6


def evolver(cls: type[T]) -> Callable[..., T]:
    """A function that gives a record of a frozen class without slots with the fields named changed, nothing checked."""
    size = len(fields(cls))  # type: ignore[arg-type]

    def evolve(record: T, **changes: object) -> T:
        made = _new(cls)
        held = made.__dict__
        held.update(record.__dict__)
        held.update(changes)
        if len(held) != size:
            message = f"{cls.__name__} has no such field among {', '.join(changes)}"
            raise TypeError(message)
        return made

    return evolve
