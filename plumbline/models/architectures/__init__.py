"""One module per architecture that params.yaml may name; each has `build(input_shape, output, candidate)`.

Each also has `FEATURE_MAPS`, the layer whose output holds the maps of each stride (see
`plumbline/models/feature_maps.py`), or `NO_FEATURE_MAPS`, the reason why there are none.
"""
