"""A network of six ONNX nodes that tells bright pictures from dark ones: made in milliseconds."""

from __future__ import annotations

import numpy as np

from plumbline.models.export import EMBEDDING, INPUT, PROBABILITIES

SIDE = 16


def write_network(path, side=SIDE):
    """Probabilities by the brightest value, the mean colour as the embedding."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    def constant(name, values):
        return numpy_helper.from_array(np.array(values, np.float32), name)

    nodes = [
        helper.make_node("ReduceMean", [INPUT], [EMBEDDING], axes=[1, 2], keepdims=0),
        helper.make_node("ReduceMax", [INPUT], ["colours"], axes=[1, 2], keepdims=0),
        helper.make_node("ReduceMax", ["colours"], ["brightest"], axes=[1], keepdims=1),
        helper.make_node("Sub", ["brightest", "middle"], ["above"]),
        helper.make_node("Mul", ["above", "slopes"], ["logits"]),
        helper.make_node("Softmax", ["logits"], [PROBABILITIES], axis=-1),
    ]

    def tensor(name, *shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape])

    graph = helper.make_graph(
        nodes, "brightness", [tensor(INPUT, side, side, 3)], [tensor(PROBABILITIES, 2), tensor(EMBEDDING, 3)],
        [constant("middle", [[128]]), constant("slopes", [[-1 / 32, 1 / 32]])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    checker.check_model(model)
    save(model, str(path))
