"""What decides by measuring: which scheme ships."""

from compress.search.choose import choose

__all__ = ["choose"]
