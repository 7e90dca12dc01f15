"""Strings that come from files, made safe to lay out: one line, printable, of bounded length."""

from __future__ import annotations


def plain(text: str) -> str:
    r"""Returns the text on one line with every character visible.

    White space becomes a space. Anything else that does not print (terminal escapes, direction marks, lone
    surrogates) is spelled out as `\x1b`, so that a layer's name cannot drive the terminal or hide its neighbour.
    """
    return "".join(_visible(character) for character in text)


def first_line(text: str) -> str:
    """Returns the first line that says something, made plain; empty where none does."""
    return next((plain(line).strip() for line in text.splitlines() if line.strip()), "")


def shorten(text: str, length: int) -> str:
    """Returns the text, cut at a word and ended by `...` where it is longer than `length` characters."""
    if len(text) <= length:
        return text
    kept = text[: length - 3]
    head, space, _ = kept.rpartition(" ")
    # A first word longer than the room is cut inside; half a line is no reason to lose the other half.
    return f"{(head if space and len(head) > length // 2 else kept).rstrip(' ,;:')}..."


def _visible(character: str) -> str:
    if character.isprintable():
        return character
    return " " if character.isspace() else character.encode("unicode_escape").decode("ascii")
