"""Candidate architectures, their backbones and where weights come from."""
