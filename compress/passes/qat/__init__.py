"""Quantization-aware training: a float Model whose weights and ranges are those that integers lose least with."""
