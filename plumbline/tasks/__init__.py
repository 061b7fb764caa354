"""The tasks, one module each: one label per picture, or several; and the interface that all other rooms use."""
