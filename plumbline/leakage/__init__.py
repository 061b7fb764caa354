"""Groups of pictures that belong together, splits that keep them together, and the certificate that shows it."""
