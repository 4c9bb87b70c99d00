"""How many public models Billhook analyses, cuts, proves and trains: `python -m benchmarks.coverage --help`."""
