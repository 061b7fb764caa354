"""Figures on every candidate, with intervals, and the rules of the gate."""
