"""What a check of the screen raises; `screen` adds the file and turns it into the error that a user sees."""

from __future__ import annotations

import reprlib
from pathlib import Path

from compress.errors import ModelError, UnsafeFileError

MAKE_AGAIN = "make the file again from the model's source, with torch.export.save or safetensors.torch.save_file."
EXPORT_AGAIN = "export the model again from its source with torch.export.export and torch.export.save."


class Refusal(Exception):
    """One reason not to open a file.

    Args:
        what: What is wrong, naming the value.
        hint: The remedy, as a sentence.
        unsafe: Whether opening the file would run code or claim more than it holds; otherwise it is damaged, or not
            what it should be.
    """

    def __init__(self, what: str, hint: str = MAKE_AGAIN, *, unsafe: bool = True) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.unsafe = unsafe
        self._keys: list[str | int] = []
        self._members: list[str] = []

    def under(self, key: str | int) -> Refusal:
        """Adds the key or index that holds the value, from the inside out."""
        self._keys.append(key)
        return self

    def inside(self, member: str) -> Refusal:
        """Adds the archive member that holds the value, from the inside out."""
        self._members.append(member)
        return self

    def error(self, path: Path) -> ModelError:
        """Returns the error for a user: file, member, key, what, remedy."""
        place = ": ".join([str(path), *(f"member {shown(member)}" for member in reversed(self._members))])
        key = "".join(_step(key) for key in reversed(self._keys)).lstrip(".")
        kind = UnsafeFileError if self.unsafe else ModelError
        return kind(f"{place}{f', key {key}' if key else ''}: {self.what}", self.hint)


def _step(key: str | int) -> str:
    if isinstance(key, int):
        return f"[{key}]"
    return f".{key}" if key.replace(".", "").replace("_", "").isalnum() else f"[{shown(key)}]"


def damaged(what: str, hint: str = "copy or download the file again; if it stays so, " + MAKE_AGAIN) -> Refusal:
    """Returns a refusal of a file that is truncated, garbage or of another format: useless rather than unsafe."""
    return Refusal(what, hint, unsafe=False)


def shown(value: object, limit: int = 120) -> str:
    """Returns a value as an error message may show it: quoted, on one line, of bounded length."""
    brief = reprlib.Repr()
    brief.maxlevel, brief.maxstring, brief.maxother = 3, limit, limit
    return brief.repr(value)
