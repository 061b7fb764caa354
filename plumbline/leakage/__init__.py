"""What ties pictures together, splits that never part it, and the certificate that they did not."""
