"""A trained `.onnx` file, without its source code, as a Model."""

from compress.model.onnx_import.errors import UnsupportedOperatorsError
from compress.model.onnx_import.load import load_onnx
from compress.model.onnx_import.summary import OnnxSummary, check_onnx

__all__ = ["OnnxSummary", "UnsupportedOperatorsError", "check_onnx", "load_onnx"]
