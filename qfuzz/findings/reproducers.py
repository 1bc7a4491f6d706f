"""What is written for a bug report: `case.json`, `repro.py`, `model.onnx` with data, `report.md`."""

import math
import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from qfuzz.exact.floating import FORMATS
from qfuzz.findings.by_hand import element_by_hand
from qfuzz.findings.model_files import model_files
from qfuzz.ir.errors import QfuzzError
from qfuzz.ir.expectation import Expectation
from qfuzz.ir.network import Case
from qfuzz.ir.protocols import Backend, Script, Scriptable
from qfuzz.ir.qtype import QType, integer_range
from qfuzz.ir.tensor import qparams_at
from qfuzz.ops import CODEC
from qfuzz.oracle.admissible import NAN
from qfuzz.oracle.verdicts import BackendVerdict, Mismatch, Outcome

Array = npt.NDArray[Any]


def reproducer_files(
    case: Case,
    verdict: BackendVerdict,
    *,
    backend: Backend | None,
    spec: str,
    signature: str,
    backends: tuple[str, ...],
    described: Mapping[str, str],
    known: Expectation | None = None,
) -> dict[str, bytes]:
    """All files of a finding's folder, by relative name. The same finding gives the same `case.json` and `repro.py`.

    What is `known` of it is told in `report.md`.
    """
    script = _script(case, verdict, backend, spec)
    by_hand = _by_hand(case, verdict)
    files = {
        "case.json": CODEC.encode(case),
        "repro.py": _repro(case, verdict, script, by_hand, signature, spec, described).encode(),
        "report.md": _report(case, verdict, script, by_hand, signature, spec, backends, described, known).encode(),
    }
    files |= script.files
    for name, data in model_files(case).items():
        files.setdefault(name, data)
    return files


def _script(case: Case, verdict: BackendVerdict, backend: object, spec: str) -> Script:
    network = case.network
    # Inner values are exposed where that is how the bug showed.
    exposed = not getattr(backend, "fuses", True) or verdict.shows_exposed
    taps = tuple(n.name for n in network.nodes if n.name not in network.outputs) if exposed else ()
    if isinstance(backend, Scriptable):
        arrays = case.arrays
        try:
            return backend.script(network, arrays, taps)
        except QfuzzError:
            pass  # a backend that refuses the case has no calls to print; qfuzz itself shows the refusal
    lines = (
        "import qfuzz",
        'case = qfuzz.load(HERE / "case.json")',
        f"backend = qfuzz.backend({spec!r})",
        "fed = {name: np.array(t.array) for name, t in case.feeds.items()}",
        f"outputs = backend.compile(case.network, {taps!r}).run(fed, {taps!r})"
        if taps
        else "outputs = backend.compile(case.network).run(fed)",
    )
    return Script(lines, {})


def _first(verdict: BackendVerdict) -> Mismatch | None:
    return next((m for m in verdict.mismatches if m.index or not m.problem), None)


def _by_hand(case: Case, verdict: BackendVerdict) -> list[str]:
    """The guilty element's arithmetic, where what its node received is known: its inputs are the case's own."""
    mismatch = _first(verdict)
    if mismatch is None or mismatch.problem:
        return []
    network = case.network
    node = network.node(mismatch.value)
    known = case.arrays
    limits = integer_range(node.element)
    if any(name not in known for name in node.inputs) or limits is None:
        return []
    if not all(np.isfinite(known[name].astype(np.float64)).all() for name in node.inputs):
        return []
    qmin, qmax = limits
    zero_point = qparams_at(network.types[node.name], mismatch.index)[1] if isinstance(node.element, QType) else 0
    lines = element_by_hand(network, node, known, mismatch.index)
    return [
        *lines,
        f"rounded = round(real) + {zero_point}  # to nearest, ties to even; then the zero point",
        f"expected = min(max(rounded, {qmin}), {qmax})",
    ]


_HEADER = '''"""{signature}

Found by qfuzz in {spec}. Needs {needs}; exits 1 while the bug lives, 0 once it is gone.
"""

import sys
from decimal import Decimal, getcontext
from fractions import Fraction
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
'''


def _repro(
    case: Case,
    verdict: BackendVerdict,
    script: Script,
    by_hand: list[str],
    signature: str,
    spec: str,
    described: Mapping[str, str],
) -> str:
    needs = "qfuzz" if any("import qfuzz" in line for line in script.lines) else _framework(described)
    header = _HEADER.format(signature=signature, spec=spec, needs=needs)
    if not any("Decimal" in line for line in by_hand):
        header = header.replace("from decimal import Decimal, getcontext\n", "")
    if not by_hand:
        header = header.replace("from fractions import Fraction\n", "")
    return header + "\n" + "\n".join(_body(case, verdict, script, by_hand)) + "\n"


def _framework(described: Mapping[str, str]) -> str:
    """What a script needs that calls the framework alone; for another Python's, the version that was found there."""
    if "python" not in described:
        return "the framework and NumPy only"
    return f"{described['framework']} {described['version']}, as that Python has it, and NumPy only"


def _body(case: Case, verdict: BackendVerdict, script: Script, by_hand: list[str]) -> list[str]:
    calls = list(script.lines)
    match verdict.outcome:
        case Outcome.CRASH | Outcome.HANG:
            return _isolated(calls, verdict, _on_reals(script))
        case Outcome.ACCEPTED_INVALID:
            return [
                *_on_reals(script),
                "try:",
                *_indented(calls),
                "except Exception as error:",
                '    print(f"refused, as it should be: {type(error).__name__}: {error}")',
                "    sys.exit(0)",
                f"# {_one_line(verdict.reason)}",
                'print("accepted, though it is invalid:", outputs)',
                "sys.exit(1)",
            ]
        case Outcome.REJECTED:
            return [
                "try:",
                *_indented(calls),
                "except Exception as error:",
                '    print(f"refused, though the network is valid: {type(error).__name__}: {error}")',
                "    sys.exit(1)",
                'print("accepted: the bug is gone")',
            ]
        case Outcome.UNSTABLE:
            return [
                "def run():",
                *_indented([*calls, "return outputs"]),
                "",
                "first = run()",
                "for attempt in range(100):",
                "    again = run()",
                "    for name in first:",
                "        if first[name].tobytes() != again[name].tobytes():",
                '            print(f"two identical runs differ in {name}:\\n{first[name]}\\n{again[name]}")',
                "            sys.exit(1)",
                'print("100 identical runs agree")',
            ]
        case Outcome.CORRUPTED:
            return [
                "import qfuzz",
                'verdicts = qfuzz.check(qfuzz.load(HERE / "case.json"), backends=[' + repr(verdict.backend) + "])",
                "print(verdicts.backends[0].reason)",
                "sys.exit(1 if verdicts.findings else 0)",
            ]
        case Outcome.JUDGED | Outcome.UNSUPPORTED | Outcome.CHANGED | Outcome.REFUSED:
            return _compared(case, verdict, calls, by_hand)


_USED_MEMORY = (
    "# Freed memory that is not zero, as in a process that has worked: kernels that read what nobody wrote show it.",
    "used = [np.full(n, 77, dtype=np.uint8) for n in (64, 256, 1024, 4096, 16384, 65536) * 64]",
    "del used",
)


def _compared(case: Case, verdict: BackendVerdict, calls: list[str], by_hand: list[str]) -> list[str]:
    mismatch = verdict.mismatches[0] if verdict.mismatches else None
    imports = max((i + 1 for i, line in enumerate(calls) if line.startswith("import ")), default=0)
    body = ["# The calls that ran.", *calls[:imports], *_USED_MEMORY, *calls[imports:], ""]
    if mismatch is None:
        return [*body, "print(outputs)  # no violation was recorded"]
    if mismatch.problem:
        type_ = case.network.types[mismatch.value]
        return [
            *body,
            f"got = outputs.get({mismatch.value!r})",
            f"print('got', None if got is None else (got.dtype, got.shape), 'expected {type_.dtype}, {type_.shape}')",
            f"sys.exit(0 if got is not None and got.shape == {type_.shape} and got.dtype == {type_.dtype!r} else 1)",
        ]
    if by_hand:
        body += [f"# Element {list(mismatch.index)} by hand, in exact rationals.", *by_hand]
        body += ["print(f'exact {float(real)!r} steps, so {expected} is right')"]
    at = f"[{', '.join(map(str, mismatch.index))}]" if mismatch.index else ""
    body.append(f"got = outputs[{mismatch.value!r}]{at}.item()")
    if _is_nan(mismatch.lo, case.network.types[mismatch.value].dtype):
        return [*body, "print(f'got {got}, admissible nan')", "sys.exit(0 if got != got else 1)"]
    return [
        *body,
        f"lowest, highest = {_number(mismatch.lo)}, {_number(mismatch.hi)}  # what float32 rounding may make of it",
        "print(f'got {got}, admissible {lowest}..{highest}')",
        "sys.exit(0 if lowest <= got <= highest else 1)",
    ]


def _is_nan(bound: float | None, dtype: str) -> bool:
    """Whether a bound stands for NaN, as infinities do in a format without any."""
    if bound is None or dtype not in FORMATS:
        return False
    return bound == NAN or (math.isinf(bound) and not FORMATS[dtype].has_infinity)


def _number(x: float | None) -> str:
    if x is None:
        return "None"
    if math.isinf(x):
        return f'float("{x}")'
    return str(int(x)) if float(x).is_integer() else repr(float(x))


def _on_reals(script: Script) -> list[str]:
    """Of an invalid network, that the operator on real numbers refuses it."""
    if not script.on_reals:
        return []
    return [
        "# The same call on real numbers.",
        "try:",
        *_indented(list(script.on_reals)),
        "except Exception as error:",
        '    print(f"on float32: {type(error).__name__}: {error}")',
        "else:",
        '    sys.exit("float32 takes it, too")',
        "",
    ]


def _one_line(reason: str) -> str:
    return reason.splitlines()[0] if reason else ""


def _isolated(calls: list[str], verdict: BackendVerdict, before: list[str]) -> list[str]:
    """The calls in a child process, for they kill it; `before` is done here."""
    return [
        "import subprocess",
        "",
        'if "--in-child" not in sys.argv:',
        *_indented(before),
        "    try:",
        '        status = subprocess.run([sys.executable, __file__, "--in-child"], timeout=60).returncode',
        "    except subprocess.TimeoutExpired:",
        '        print("no end within 60 s")',
        "        sys.exit(1)",
        '    print(f"the child ended with status {status}" + (": it died" if status else ""))',
        "    sys.exit(1 if status else 0)",
        "",
        f"# {_one_line(verdict.reason) or verdict.verdict}",
        *calls,
        "print(outputs)",
    ]


def _indented(lines: list[str]) -> list[str]:
    return textwrap.indent("\n".join(lines), "    ").splitlines()


def network_lines(case: Case) -> list[str]:
    """The nodes, one a line, indented as code."""
    types = case.network.types
    return [
        f"    {n.name}: {types[n.name].dtype}{list(types[n.name].shape)} = {n.op!r}({', '.join(n.inputs)})"
        for n in case.network.nodes
    ]


def _report(
    case: Case,
    verdict: BackendVerdict,
    script: Script,
    by_hand: list[str],
    signature: str,
    spec: str,
    backends: tuple[str, ...],
    described: Mapping[str, str],
    known: Expectation | None,
) -> str:
    mismatch = verdict.mismatches[0] if verdict.mismatches else None
    version = described.get("version", "")
    title = f"{verdict.op or 'network'}: {verdict.verdict} in {spec} {version}".strip()
    parts = [f"# {title}", ""]
    if mismatch is not None and not mismatch.problem:
        allowed = (
            _number(mismatch.lo) if mismatch.lo == mismatch.hi else f"{_number(mismatch.lo)}..{_number(mismatch.hi)}"
        )
        parts += [
            f"`{mismatch.value}{list(mismatch.index)}` is **{_number(mismatch.got)}**; "
            f"a correct kernel returns **{allowed}**.",
            "",
        ]
    else:
        parts += [f"{verdict.verdict}: {verdict.reason or (mismatch.problem if mismatch else '')}", ""]
    if verdict.cause:
        parts += [f"Every element of the output is what this arithmetic gives: **{verdict.cause}**.", ""]
    elif verdict.verdict == "violation" and known is None:
        parts += [
            "**Unexplained**: no fault of the catalogue gives every element of the output, and again elsewhere.",
            "",
        ]
    if known is not None and known.note:
        parts += [f"{known.note}.", ""]
    if known is not None:
        parts += [f"Upstream: {known.link or 'not reported'}.", ""]
    parts += ["## Reproduce", "", "```python", *script.lines, "```", ""]
    if script.on_reals:
        parts += ["The same call on real numbers, which is refused:", "", "```python", *script.on_reals, "```", ""]
    if by_hand:
        parts += ["## One element by hand", "", "```python", *by_hand, "```", ""]
    parts += ["## Network", "", *network_lines(case), ""]
    parts += ["## Environment", "", *(f"- {k}: {v}" for k, v in described.items()), ""]
    if len(backends) > 1:
        parts += [f"Reproduced by: {', '.join(backends)}.", ""]
    parts += [
        f"qfuzz signature: `{signature}`. "
        "`repro.py` exits 1 while the bug lives; `case.json` replays with `qfuzz replay`."
    ]
    return "\n".join(parts) + "\n"
