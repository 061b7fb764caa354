"""Pictures: where they lie, how they are decoded, hashed, described and checked. Knows nothing of models."""
