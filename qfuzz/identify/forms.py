"""The questions that are asked of a backend: which forms of an operator, and which of their variants it takes."""

from collections.abc import Iterator

from qfuzz.arithmetic.family import Form
from qfuzz.identify.probes import CONTRACTIONS, ELEMENTWISE

OPERATORS = (*CONTRACTIONS, *ELEMENTWISE)


def forms(op: str) -> Iterator[tuple[Form, ...]]:
    """The forms that are asked about, each as its variants: of these the first that the kernel takes counts."""
    for dtype in ("uint8", "int8"):
        if op in CONTRACTIONS:
            for symmetric in (True, False):
                yield tuple(
                    Form(op=op, dtype=dtype, symmetric=symmetric, per_channel=symmetric, bias=bias)
                    for bias in ("float32", "int32", "none")
                )
        elif op == "softmax":
            yield (Form(op=op, dtype=dtype),)
        else:
            for elements in ("blocks", "few"):
                yield tuple(
                    Form(op=op, dtype=dtype, elements=elements, rescaled=rescaled) for rescaled in (True, False)
                )


def title(form: Form) -> str:
    """The form in words."""
    if form.op in CONTRACTIONS:
        weights = "int8 weights per channel" if form.per_channel else "int8 weights with a zero point"
        bias = "no bias" if form.bias == "none" else f"{form.bias} bias"
        return f"{form.op}, {form.dtype} by {weights}, {bias}"
    many = {"any": "", "blocks": ", whole vectors", "few": ", few elements"}[form.elements]
    return f"{form.op}, {form.dtype}{many}" + ("" if form.rescaled else ", in the input's own scale")
