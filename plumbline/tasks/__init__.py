"""What is asked of a picture: one module for each task, and what models, evidence and pages ask of any of them."""
