"""Closed loop: how near to its budget a compiled network ends, and after how many rounds."""
