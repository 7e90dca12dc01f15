"""Recalibration: a rising function of the score, fitted on calibration rows, that ends inside the artifact."""
