"""The simulated inventory: what a vCenter manages, and how GPUs, hosts and virtual machines behave."""
