"""Attributes that operators of several ONNX forms share."""

from typing import Any

from qfuzz.backends.onnx_builder import Attributes


def conv_attributes(op: Any, kernel: tuple[int, ...]) -> Attributes:
    """Attributes of Conv, QLinearConv and ConvInteger for the operator `op`, a correlation."""
    return {
        "kernel_shape": kernel,
        "strides": op.strides,
        "pads": op.padding,
        "dilations": op.dilations,
        "group": op.groups,
    }
