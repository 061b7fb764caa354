"""Registered versions in MLflow: what they hold, how one becomes champion, and how to roll back."""
