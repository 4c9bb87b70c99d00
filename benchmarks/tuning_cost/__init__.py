"""Suite tuning_cost: what it costs to know the kernels of a network, and how much of it another network has paid already."""
