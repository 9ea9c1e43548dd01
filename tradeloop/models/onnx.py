"""The only exporter: every model becomes one ONNX graph of the same outward form, with the same bytes each time.

Input ``features`` float32 (n, d), the raw feature row in schema order; output ``forecast`` float32 (n, 1): probability
of up, gross log return, or log range.
"""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tradeloop.atomic import write_bytes

INPUT = "features"
OUTPUT = "forecast"
OPSET = 17
ML_OPSET = 3
IR_VERSION = 9


def from_forest(forest: Any, width: int, *, base: float) -> onnx.ModelProto:
    """Convert a fitted scikit-learn forest regressor of `width` features, and add `base` to its forecasts.

    scikit-learn compares float32 features with float64 thresholds; skl2onnx rounds these down to float32, so that every
    row keeps its side.
    """
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    initial = [(INPUT, FloatTensorType([None, width]))]
    model = to_onnx(forest, initial_types=initial, target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET})
    _set_base(model, base)
    return model


def from_booster(booster: Any, width: int, *, centre: float, logistic: bool) -> onnx.ModelProto:
    """Convert a fitted XGBoost booster with a ``reg:`` objective, and add `centre` to its margin.

    onnxmltools takes the base score for a margin, which it is not under a logistic objective: the tree node's base
    value is set here, and the sigmoid follows the node, as in the booster.
    """
    from onnxmltools import convert_xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    config = json.loads(booster.save_config())["learner"]["learner_model_param"]
    score = float(np.ravel(json.loads(config["base_score"]))[0])
    margin = centre + (float(np.log(score / (1.0 - score))) if logistic else score)
    model = convert_xgboost(booster, initial_types=[(INPUT, FloatTensorType([None, width]))])
    _set_base(model, margin)
    if logistic:
        model.graph.node.append(helper.make_node("Sigmoid", [model.graph.output[0].name], ["probability"]))
        model.graph.output[0].name = "probability"
    return model


def _set_base(model: onnx.ModelProto, base: float) -> None:
    """Set the value that the tree node starts its sum from."""
    trees = next(node for node in model.graph.node if node.op_type == "TreeEnsembleRegressor")
    kept = [attribute for attribute in trees.attribute if attribute.name != "base_values"]
    del trees.attribute[:]
    trees.attribute.extend([*kept, helper.make_attribute("base_values", [base])])


def from_torch(net: Any, width: int) -> onnx.ModelProto:
    """Trace a torch module that maps float32 (n, d) to (n, 1)."""
    import torch

    content = io.BytesIO()
    with warnings.catch_warnings():
        # The tracing exporter is deprecated in favour of one that needs onnxscript and writes other bytes each time.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            net.eval(),
            (torch.zeros(2, width),),
            content,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: {0: "n"}, OUTPUT: {0: "n"}},
            opset_version=OPSET,
            dynamo=False,
        )
    return onnx.load_from_string(content.getvalue())


def on_columns(model: onnx.ModelProto, columns: NDArray[np.intp]) -> onnx.ModelProto:
    """Return a graph that takes these columns of a wider row, in this order, and hands them to `model`."""
    for node in model.graph.node:
        node.input[:] = ["chosen" if name == INPUT else name for name in node.input]
    model.graph.node.insert(0, helper.make_node("Gather", [INPUT, "columns"], ["chosen"], axis=1))
    model.graph.initializer.append(numpy_helper.from_array(columns.astype(np.int64), "columns"))
    return model


def save(model: onnx.ModelProto, path: Path, width: int) -> None:
    """Give the graph its outward form, strip what differs between runs, check it and write it whole."""
    graph = model.graph
    old = graph.output[0].name
    for node in graph.node:
        node.output[:] = [OUTPUT if name == old else name for name in node.output]
        node.doc_string = ""
    renamed = helper.make_graph(
        list(graph.node),
        "tradeloop",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n", 1])],
        list(graph.initializer),
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    clean = helper.make_model(renamed, producer_name="tradeloop", opset_imports=opsets, ir_version=IR_VERSION)
    onnx.checker.check_model(clean, full_check=True)
    write_bytes(path, clean.SerializeToString(deterministic=True))
