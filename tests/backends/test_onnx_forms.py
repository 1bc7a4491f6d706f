"""Forms of ONNX models: each is said, and says the same."""

import itertools
from typing import Any

import msgspec
import pytest

from qfuzz.ir.errors import Unsupported
from qfuzz.ir.forms import CHOICES, DIMENSIONS, forms_from
from qfuzz.ir.network import Case
from qfuzz.strategies import weight_only
from qfuzz.strategies.generate import cases_of

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from qfuzz.backends import onnx_executor, onnx_source  # noqa: E402
from qfuzz.backends.onnx_dialect import FORMATS, lower, serialize  # noqa: E402
from qfuzz.backends.onnx_forms import NODES, SESSION, VALUES  # noqa: E402

WEIGHT_ONLY = ("weight_only_linear", "embedding")
OF_MANY_VALUES = ("attention", "mean", "split")
"""Operators with attributes of a younger opset, or whose values inside have shapes of their own."""
CASES = (
    *itertools.islice(cases_of(31, 1, max_nodes=3), 60),
    *itertools.islice(cases_of(31, 1, ops=WEIGHT_ONLY, max_nodes=1), 40),
    *itertools.islice(cases_of(31, 1, ops=OF_MANY_VALUES, max_nodes=1), 60),
)
CHECKED_OPSETS = range(1, onnx.defs.onnx_opset_version() + 1)


def _in_form(case: Case, name: str, value: str) -> Case:
    return Case(msgspec.structs.replace(case.network, forms=forms_from([(name, value)])), case.inputs)


def _models(name: str, value: str) -> list[tuple[bytes, bytes]]:
    """Plain models, and the same in a form."""
    models = []
    for case, format in itertools.product(CASES, FORMATS):
        plain = _in_form(case, name, next(d.values[0] for d in DIMENSIONS if d.name == name)).network
        said = _in_form(case, name, value).network
        try:
            models.append((serialize(plain, lower(plain, format)), serialize(said, lower(said, format))))
        except Unsupported:
            continue
    return models


def test_every_dimension_is_said_by_one_function() -> None:
    said = [name for name, _ in (*NODES, *VALUES)]
    assert sorted(said) == sorted(set(said))
    assert {d.name for d in DIMENSIONS} >= set(said)


@pytest.mark.parametrize(("name", "value"), CHOICES, ids="=".join)
def test_a_form_changes_the_model_or_the_session(name: str, value: str) -> None:
    network = _in_form(CASES[0], name, value).network
    if name in SESSION:
        assert f"{name}={value}" in lower(network, "qdq").session
    elif name in dict((*NODES, *VALUES)) or name in weight_only.FORMS:
        assert any(plain != said for plain, said in _models(name, value))


@pytest.mark.parametrize(("name", "value"), CHOICES, ids="=".join)
def test_models_in_every_form_are_valid(name: str, value: str) -> None:
    """Where the checker knows all of a model: its opset, and no operators but ONNX's own."""
    for _, data in _models(name, value):
        model = onnx.load_model_from_string(data)
        if not any(n.domain for n in model.graph.node) and name != "parameters":
            onnx.checker.check_model(model, full_check=True)


def test_the_statements_of_a_reproducer_say_what_the_executor_does() -> None:
    settings = {**onnx_executor.SETTINGS, **onnx_executor.ATTRIBUTES}
    assert set(onnx_source._SETTING) == set(settings)
    for form, (key, value) in onnx_executor.SETTINGS.items():
        assert f'"{key}", "{value}"' in onnx_source._SETTING[form]
    for form, (key, _) in onnx_executor.ATTRIBUTES.items():
        assert f"options.{key} = " in onnx_source._SETTING[form]
    lines: Any = onnx_source.runtime_lines("m", {}, ["y"], forms=("saved=ort", "callers=2", "symbol:x_0=3"))
    assert "options.add_free_dimension_override_by_name('x_0', 3)" in lines
