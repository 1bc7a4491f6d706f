"""Same seed, same cases: whatever else is imported, installed or hashed, and whatever is done with the cases."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.internal.conjecture.providers import AVAILABLE_PROVIDERS

from qfuzz.ir.network import Case
from qfuzz.ops import CODEC
from qfuzz.strategies import cases
from qfuzz.strategies.draw import NoConstants
from qfuzz.strategies.generate import SHARD_SIZE, cases_of

N = 40
SCRIPT = f"""
import hashlib, sys
{{extra}}
from itertools import islice
from qfuzz.ops import CODEC
from qfuzz.strategies.generate import cases_of
print(hashlib.sha256(b"".join(CODEC.encode(c) for c in islice(cases_of(3, 2), {N}))).hexdigest())
"""


def _here() -> str:
    return hashlib.sha256(b"".join(CODEC.encode(c) for c in islice(cases_of(3, 2), N))).hexdigest()


def _elsewhere(folder: Path, extra: str, hash_seed: str) -> str:
    """The digest in a new process, which imports a local module full of constants where `extra` says so."""
    constants = ", ".join(str(n) for n in range(1000, 3000, 7))
    (folder / "full_of_constants.py").write_text(f"NUMBERS = [{constants}]\n")
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    script = SCRIPT.format(extra=extra)
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_other_imports_and_hash_seeds_change_nothing(tmp_path: Path) -> None:
    here = _here()
    assert _elsewhere(tmp_path, "", "0") == here
    assert _elsewhere(tmp_path, "import full_of_constants, decimal, unittest", "1234") == here


def test_asking_twice_gives_the_same() -> None:
    assert list(islice(cases_of(8, 1), 30)) == list(islice(cases_of(8, 1), 30))


def test_seeds_and_shards_differ_and_shards_are_full() -> None:
    a, b, c = list(cases_of(1, 1)), list(cases_of(1, 2)), list(cases_of(2, 1))
    assert len(a) == len(b) == len(c) == SHARD_SIZE
    assert len({*a, *b, *c}) > 0.99 * 3 * SHARD_SIZE


def test_only_shard_0_holds_the_minimal_case() -> None:
    minimal = next(cases_of(1, 0))
    assert len(minimal.network.nodes) == 1
    assert next(cases_of(2, 0)) == minimal
    assert minimal not in list(cases_of(1, 1))


@pytest.mark.parametrize(("ops", "max_nodes"), [((), 4), (("conv", "linear"), 4), ((), 12)], ids=str)
def test_they_are_what_hypothesis_draws(ops: Sequence[str], max_nodes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = f"{NoConstants.__module__}.{NoConstants.__name__}"
    monkeypatch.setitem(AVAILABLE_PROVIDERS, "no constants", provider)
    drawn: list[Case] = []

    @seed("6/1")
    @settings(
        max_examples=SHARD_SIZE + 1,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        backend="no constants",
    )
    @given(cases(ops=ops, max_nodes=max_nodes))
    def collect(case: Case) -> None:
        drawn.append(case)

    collect()
    minimal, *others = drawn
    assert others == list(cases_of(6, 1, ops=ops, max_nodes=max_nodes))
    assert minimal == next(cases_of(6, 0, ops=ops, max_nodes=max_nodes))
