"""Decode, hash and describe an image. Knows nothing of models."""
