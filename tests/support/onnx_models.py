"""Small ONNX models for tests, and our own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

REPOSITORY = Path(__file__).parents[2]
GARMENTS = REPOSITORY / "data/models/garments.onnx"
LABELS = GARMENTS.with_suffix(".labels.txt")


def model(
    nodes: Sequence[Any],
    shape: Sequence[int | str] = ("n", 3, 4, 4),
    outputs: Sequence[str] = ("y",),
    inputs: Sequence[str] = ("x",),
    **tensors: Any,
) -> bytes:
    """A model of `nodes` from pictures of this shape; `tensors` are its weights."""
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name in inputs]
    found = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph(
        list(nodes), "g", given, found, [numpy_helper.from_array(np.asarray(each), name) for name, each in tensors.items()]
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8
    return bytes(made.SerializeToString())


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    """A node; names are divided by spaces."""
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def same(shape: Sequence[int | str] = ("n", 3, 4, 4)) -> bytes:
    """What it is given, as one list of numbers."""
    return model([node("Flatten", "x", "y")], shape)


def brightest(limit: int) -> bytes:
    """Of each picture the line of a table at its largest number; onnxruntime refuses pictures with a number of `limit` or more."""
    table = np.arange(3 * limit, dtype=np.float32).reshape(limit, 3)
    nodes = [
        node("ReduceMax", "x", "m", axes=[1, 2, 3], keepdims=0),
        node("Cast", "m", "i", to=TensorProto.INT64),
        node("Gather", "t i", "y"),
    ]
    return model(nodes, t=table)


def network(size: int, filters: int, hidden: int, classes: int, seed: int = 0) -> bytes:
    """A convolution and two products of random weights."""
    random = np.random.default_rng(seed)

    def drawn(*shape: int) -> Any:
        return (random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    nodes = [
        node("Conv", "x a", "c", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", "c", "r"),
        node("Flatten", "r", "f"),
        node("MatMul", "f b", "h"),
        node("Gemm", "h d e", "y"),
    ]
    flat = filters * ((size + 1) // 2) ** 2
    weights = {"a": drawn(filters, 3, 3, 3), "b": drawn(hidden, flat).T.copy(), "d": drawn(classes, hidden).T.copy(), "e": drawn(classes)}
    return model(nodes, ("n", 3, size, size), outputs=("h", "y"), **weights)
