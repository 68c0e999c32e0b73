"""What a simulated vCenter starts with: the YAML model, its checks and its generator."""
