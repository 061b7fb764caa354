"""Backbones, candidates, their training and how they are put together again."""
