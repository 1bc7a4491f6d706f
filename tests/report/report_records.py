"""Records to render: a campaign as it could be, and one in which every string is hostile."""

from collections.abc import Mapping, Sequence

from qfuzz.campaign.record import Moment, Record
from qfuzz.report.grid import SEVERITY

Folders = Mapping[str, Mapping[str, bytes]]

REPORT = b"""# clamp: violation in torch-qnnpack 2.13.0

`clamp2[0, 1, 0, 0]` is **1**; a correct kernel returns **0**.

## Reproduce

```python
import torch
outputs = torch.ops.quantized.relu6(x0)
```

## One element by hand

```python
real = Fraction(1, 2)
```

## Network

    conv0: uint8[1, 2] = Conv()(x0, w0)
    clamp2: uint8[1, 2] = Clamp()(conv0)

## Environment

- name: torch-qnnpack
- cpu: AMD EPYC

qfuzz signature: `clamp/violation/off-by-one/uint8->uint8`.
"""
FILES = {
    "case.json": b'{"format": "qfuzz-case"}',
    "model.onnx": bytes(range(256)),
    "report.md": REPORT,
    "repro.py": "print('é')\n".encode(),
    "test_data_set_0/input_0.pb": b"\x08\x01",
}
KNOWN = {
    "vnni.json": b'{"format": "qfuzz-case", "expect": [{"verdict": "violation", "link": "https://example.invalid/1354",'
    b' "note": "pairs saturate without VNNI"}, {"verdict": "holds", "link": "", "note": "not this one"}]}'
}


def finding(op: str, verdict: str, *backends: str, known: bool = False, path: str = "", cause: str = "") -> dict:
    return {
        "signature": f"{op}/{verdict}/{cause or 'off-by-one'}/uint8->uint8",
        "backend": backends[0],
        "backends": list(backends),
        "op": op,
        "verdict": verdict,
        "cause": cause or None,
        "known": known,
        "path": path,
        "nodes": 1,
        "elements": 4,
        "first_example": 37,
        "reduction": "done",
    }


def rich() -> tuple[Record, Folders]:
    """Five findings, two backends, every verdict."""
    document = {
        "schema": 1,
        "qfuzz": "0.1.0",
        "environment": {"machine": "x86_64", "cpu": "AMD EPYC"},
        "seed": 7,
        "examples": 500,
        "elements": 812345,
        "seconds": 31.2,
        "stopped": "",
        "stage_seconds": {"generate": 1.0, "backends": 20.0, "reduce": 10.2},
        "backends": [
            {
                "name": name,
                "version": "2.13",
                "examples": 480,
                "unsupported": 20,
                "elements": 400,
                "verdicts": {"exact": 9},
            }
            for name in ("torch-qnnpack", "onnxruntime")
        ],
        "findings": [
            finding("linear", "violation", "torch-qnnpack", known=True, path="corpus/vnni.json", cause="saturation"),
            finding("conv", "violation", "torch-qnnpack", "onnxruntime", path="out/conv", cause="truncated"),
            finding("conv", "crash", "onnxruntime", path="out/crash"),
            finding("clamp", "violation", "torch-qnnpack", path="out/clamp"),
            finding("hardswish", "hang", "torch-qnnpack", path="out/gone"),
        ],
    }
    record = Record(
        document=document,
        described={
            "torch-qnnpack": {"name": "torch-qnnpack", "version": "2.13.0", "cpu": "AMD EPYC", "threads": "1"},
            "onnxruntime": {"name": "onnxruntime", "version": "1.32.0", "cpu": "AMD EPYC", "threads": "1"},
        },
        by_op={
            "torch-qnnpack": {f"op_{v}": {v: 3, "cases": 4} for v in SEVERITY},
            "onnxruntime": {"conv": {"exact": 1234567, "admissible": 2, "cases": 44}},
        },
        steps={"torch-qnnpack": {-16: 1, -1: 30, 0: 10**6, 1: 25, 64: 2}, "onnxruntime": {0: 500}},
        coverage={"conv": 90, "conv: per-channel": 12, "conv > clamp": 5, "clamp": 30},
        timeline=tuple(Moment(i / 2, 10 * i, 1000 * i, 5 * i, i // 10, i // 20) for i in range(60)),
    )
    folders = {"out/conv": FILES, "out/crash": FILES, "out/clamp": FILES, "corpus/vnni.json": KNOWN}
    return record, folders


HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "</script><script>alert(3)</script>",
    "'><svg onload=alert(4)>",
    "</style><style>body{display:none}</style>",
    "--><!-- ]]>",
    "$\\frac{ \\undefined $",
    "{{7*7}}{% raw %}",
    "\u202egnp.exe\u2066",
    "a\x00b\x1b[31m\x7f\ud800",
    "x" * 5000,
    "javascript:alert(5)",
    "&lt;b&gt;&#x0;",
)


def named(strings: Sequence[str]) -> tuple[Record, Folders]:
    """A campaign in which every name and text is one of `strings`, and each is in every place."""
    document = {
        "qfuzz": strings[0],
        "environment": {s: s for s in strings},
        "seed": 1,
        "examples": 1,
        "elements": 1,
        "seconds": 1.0,
        "stopped": "".join(strings),
        "stage_seconds": dict.fromkeys(strings, 1.0),
        "backends": [{"name": s, "version": s, "examples": 1, "verdicts": {s: 1, "exact": 2}} for s in strings],
        "findings": [
            {
                "signature": f"{s}/{s}/{s}/{s}",
                "backend": s,
                "backends": [s],
                "op": s,
                "verdict": s,
                "cause": s,
                "known": i % 2 == 1,
                "path": f"{i} {s}",
                "reduction": s,
            }
            for i, s in enumerate(strings)
        ],
    }
    record = Record(
        document=document,
        described={s: {"name": s, s: s, "version": s} for s in strings},
        by_op={s: {t: {"exact": 1, s: 2, "cases": 1} for t in strings} for s in strings},
        steps={s: {0: 1} for s in strings},
        coverage={t: 1 for s in strings for t in (s, f"{s}: {s}", f"{s} > {s}")},
        timeline=(Moment(0.0, 0, 0, 0, 0, 0), Moment(1.0, 1, 1, 1, 1, 0)),
    )
    folders = {}
    for i, s in enumerate(strings):
        data = s.encode("utf-8", "surrogatepass")
        report = b"# %b\n\n**Bold** %b `%b` %b\n\n## %b\n\n```python\n%b\n```\n\n- %b\n" % ((data,) * 7)
        corpus = b'{"expect": [{"verdict": "crash", "link": "l", "note": "n"}]}'
        files = {"report.md": report + b"\xff\xfe", f"{s}.py": data, f"../{s}/{i}": data, "expect.json": corpus}
        folders[f"{i} {s}"] = files
    return record, folders
