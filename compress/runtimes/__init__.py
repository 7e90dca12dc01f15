"""Lowering: from a Model to the file of a runtime, through that runtime's own converter and quantizer."""
