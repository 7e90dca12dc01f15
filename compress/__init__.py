"""edge-compress: shrink trained risk models and judge the shipped file beside its original."""

__version__ = "0.1.0"
