"""The leakage certificate: what crosses the splits, what was grouped and why, and what a careless split would claim."""
