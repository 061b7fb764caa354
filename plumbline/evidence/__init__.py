"""What is known about every candidate, with intervals, and the rules that judge it."""
