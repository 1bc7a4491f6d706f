"""The backend `onnx-reference`: the reference evaluator of the onnx package, which is NumPy."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from qfuzz.backends.environment import describe_machine
from qfuzz.backends.onnx_builder import MICROSOFT
from qfuzz.backends.onnx_dialect import FORMATS, IR_VERSION, OPSET, Lowerer
from qfuzz.backends.onnx_reference_executor import VERSION, Evaluation, Refusal, source_lines
from qfuzz.ir.contract import Contract
from qfuzz.ir.errors import InvalidCase, Rejected, Unsupported
from qfuzz.ir.network import Network, Node
from qfuzz.ir.protocols import Array, Script, Support
from qfuzz.ops import OPERATOR_NAMES

MODEL_FILE = "model.onnx"
