"""Backbones, candidates, their training, and the whole models assembled from them."""
