"""Registered versions in MLflow: what one holds, how one becomes champion, and the way back."""
