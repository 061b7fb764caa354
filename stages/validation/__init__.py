"""Expectations on tables, and Data Docs that open without a network. Used by stages/validate.py."""
