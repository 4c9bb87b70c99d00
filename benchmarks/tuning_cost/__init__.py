"""Tuning cost: what a front, a table of widths and a second model cost in measurements and minutes."""
