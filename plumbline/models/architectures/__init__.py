"""One module per architecture that params.yaml may name; each has `build(input_shape, output, candidate)`."""
