"""What a factory checks about its arguments before it builds anything."""

from __future__ import annotations

from compress.errors import ModelError


def at_least(limit: float, **arguments: float) -> None:
    """Refuses arguments below a limit.

    Raises:
        ModelError: Naming the first one.
    """
    for name, value in arguments.items():
        if not value >= limit:
            raise ModelError(f"model.arguments.{name} must be at least {limit}; got {value!r}.", f"set {name} higher.")


def fraction(**arguments: float) -> None:
    """Refuses arguments outside [0, 1).

    Raises:
        ModelError: Naming the first one.
    """
    for name, value in arguments.items():
        if not 0 <= value < 1:
            raise ModelError(f"model.arguments.{name} must be in [0, 1); got {value!r}.", "0 switches it off.")


def divides(width: int, heads: int) -> None:
    """Refuses a width that the attention heads cannot share evenly.

    Raises:
        ModelError: If `heads` does not divide `width`.
    """
    at_least(1, width=width, heads=heads)
    if width % heads:
        raise ModelError(
            f"model.arguments.heads must divide model.arguments.width; got heads = {heads}, width = {width}.",
            f"a width of {(width // heads + 1) * heads} would do.",
        )


def one_of(known: tuple[str, ...], **arguments: str) -> None:
    """Refuses arguments that are not one of the known words.

    Raises:
        ModelError: Naming the first one.
    """
    for name, value in arguments.items():
        if value not in known:
            raise ModelError(f"model.arguments.{name} must be one of {', '.join(known)}; got {value!r}.", "")
