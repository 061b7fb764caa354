"""From feature maps to stored features: averaged or whole, one network's or several side by side."""

import keras
import numpy as np
import pytest
from recorded import backbone_json

from plumbline.models.pooling import join, pooled
from plumbline.models.records import BackboneRecord

MAPS = np.arange(2 * 2 * 3 * 4, dtype=np.float32).reshape(2, 2, 3, 4)


def backbone(pooling):
    return BackboneRecord(**backbone_json(pooling=pooling))


def test_the_average_is_over_places_and_none_leaves_maps_as_they_are():
    maps = keras.Input((2, 3, 4))
    averaged = keras.Model(maps, pooled(maps, backbone("average")))
    np.testing.assert_allclose(averaged(MAPS), MAPS.mean(axis=(1, 2)))
    assert pooled(maps, backbone("none")) is maps


def test_features_of_several_networks_stand_side_by_side_flattened():
    maps, vector = keras.Input((2, 3, 4)), keras.Input((5,))
    assert join([maps]) is maps
    joined = keras.Model([maps, vector], join([maps, vector]))
    values = np.full((2, 5), 7, np.float32)
    np.testing.assert_allclose(joined([MAPS, values]), np.concatenate([MAPS.reshape(2, -1), values], axis=1))


@pytest.mark.parametrize("pooling", ["average", "none"])
def test_features_are_float32(pooling):
    assert join([pooled(keras.Input((2, 3, 4)), backbone(pooling))]).dtype == "float32"
