"""The report: a versioned record of a run, and its rendering as one self-contained HTML page."""
