"""One module per architecture that params.yaml may name; each has `build(input_shape, output, candidate)`.

Beside it stands `FEATURE_MAPS`, the layer behind which each stride's maps are found (see
`plumbline/models/feature_maps.py`), or `NO_FEATURE_MAPS`, why there are none.
"""
