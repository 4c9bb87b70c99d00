"""Prediction: networks of random widths, their latency predicted before they are built against measured after."""
