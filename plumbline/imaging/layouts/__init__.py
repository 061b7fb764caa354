"""The ways in which pictures lie in a folder, one module each (see interface.py)."""
