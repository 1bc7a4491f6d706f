"""``scripts/answer-the-question`` runs, and says what each engine computes with."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed: the question is about it")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: its answer is shown beside")

SCRIPT = Path(__file__).parents[1] / "scripts" / "answer_the_question.py"


def test_the_question_is_answered() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 of 64 integers differ." in done.stdout
    assert "integers and dequantized float32 both explain 1 layer" in done.stdout
    answers = {line.split()[0]: line for line in done.stdout.splitlines() if " returned " in line}
    assert "torch-fbgemm" in answers
    for engine, line in answers.items():
        what = "dequantized float32" if "qdq" in engine else "integers"
        assert f": {what}; identified in " in line
        assert f"cases: {what}" in line
