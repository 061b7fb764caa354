"""What ties images together besides likeness, and what is done when that goes too far."""
