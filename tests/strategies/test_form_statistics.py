"""How often an operator meets the forms in which its network is said. Fixed seeds: these are facts, not chances.

Each value of each form appears at least once in 2,000 examples of each operator, and of any two values of different
forms, nine tenths appear together in 5,000.
"""

from collections.abc import Mapping
from functools import cache
from itertools import combinations, islice

import pytest

from qfuzz.ir.forms import CHOICES, DIMENSIONS
from qfuzz.ops import OPERATOR_NAMES
from qfuzz.strategies import fake, granular, layer_forms, weight_only
from qfuzz.strategies.generate import SHARD_SIZE, DrawCount, cases_of
from qfuzz.strategies.networks import GENERAL_FORMS

EXAMPLES = 2_000
EXAMPLES_OF_PAIRS = 5_000

OWN_FORMS: Mapping[str, tuple[str, ...]] = {
    "weight_only_linear": tuple(d for d in weight_only.FORMS if d != "table"),
    "embedding": ("table",),
    "embedding_bag": ("table",),
    "quantize": granular.FORMS,
    "dequantize": granular.FORMS,
    "fake_quantize": fake.FORMS,
    **dict.fromkeys(("conv", "linear", "dynamic_linear", "linear_fp16"), layer_forms.FORMS),
    "scaled_mm": (*layer_forms.FORMS, "call"),
    **dict.fromkeys(
        ("clamp", "leaky_relu", "sigmoid", "threshold", "prelu", "batch_norm", "add_scalar", "mul_scalar"), ("call",)
    ),
}
"""Operator to the dimensions of form that are about it, beside those of every network."""

every_operator = pytest.mark.parametrize("op", OPERATOR_NAMES)


def choices_of(op: str) -> tuple[tuple[str, str], ...]:
    """Every value that a form of the operator's networks can have, the plain ones left out."""
    return tuple(c for c in CHOICES if c in GENERAL_FORMS or c[0] in OWN_FORMS.get(op, ()))


@cache
def drawn(op: str) -> tuple[tuple[tuple[str, ...], ...], DrawCount]:
    """The forms of one-node cases of the operator, and what drawing them cost."""
    found: list[tuple[str, ...]] = []
    cost = DrawCount()
    for shard in range(EXAMPLES_OF_PAIRS // SHARD_SIZE):
        shard_cases = cases_of(11, shard, ops=(op,), max_nodes=1)
        found += [case.network.forms for case in shard_cases]
        cost.draws += shard_cases.counts.draws
        cost.rejected += shard_cases.counts.rejected
    assert len(found) == EXAMPLES_OF_PAIRS
    return tuple(found), cost


@every_operator
def test_each_value_of_each_form_is_drawn(op: str) -> None:
    seen = {form for forms in islice(drawn(op)[0], EXAMPLES) for form in forms}
    missing = {"=".join(c) for c in choices_of(op)} - seen
    assert not missing, f"never in {EXAMPLES} examples of {op}: {sorted(missing)}"


@every_operator
def test_nearly_all_pairs_of_values_are_drawn(op: str) -> None:
    possible = {("=".join(a), "=".join(b)) for a, b in combinations(choices_of(op), 2) if a[0] != b[0]}
    seen = {pair for forms in drawn(op)[0] for pair in combinations(forms, 2)}
    share = len(possible & seen) / len(possible)
    print(f"{op}: {share:.1%} of {len(possible)} pairs")
    assert share >= 0.9


@every_operator
def test_less_than_one_percent_of_draws_is_rejected(op: str) -> None:
    cost = drawn(op)[1]
    print(f"{op}: {cost.rejected} of {cost.draws} draws rejected")
    assert cost.rejected < 0.01 * cost.draws


def test_every_value_belongs_to_an_operator() -> None:
    assert {c for op in OPERATOR_NAMES for c in choices_of(op)} == set(CHOICES)
    own = {name for names in OWN_FORMS.values() for name in names}
    assert own == {*weight_only.FORMS, *granular.FORMS, *layer_forms.FORMS, *fake.FORMS, "call"}
    assert {d.name for d in DIMENSIONS} == own | {name for name, _ in GENERAL_FORMS} | {"invalid"}


def test_a_form_that_is_never_drawn_would_be_missed() -> None:
    plain_only = {form for forms, _ in (drawn("relu"),) for drawn_forms in forms for form in drawn_forms}
    assert not plain_only & {f"{name}={value}" for name, value in CHOICES if name in weight_only.FORMS}
