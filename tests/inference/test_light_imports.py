"""What is imported to answer (adapter_qa/inference/light_imports.py), in a process of its own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

from support.saved_runs import SavedRuns
from support.scripts import ROOT

# Not `sympy`: the library imports it for the weights of a head that the base model lacks.
HEAVY = ["scipy", "sklearn", "pandas", "datasets", "torch._dynamo", "torch._inductor", "torch.distributed.tensor"]
INSTALLED = [name for name in ("scipy", "sklearn") if importlib.util.find_spec(name) is not None]
PROGRAM = f"""\
import gc, importlib.util, sys
sys.path.insert(0, {str(ROOT)!r})
import ask_qa
assert ask_qa.main(sys.argv[1:]) == 0
print([name for name in {HEAVY} if name in sys.modules], gc.isenabled(), gc.get_freeze_count() > 100_000)
import torch
found = [name for name in ("scipy", "sklearn") if importlib.util.find_spec(name) is not None]
print(found, torch.distributed.is_available(), torch.compiler.disable(len) is not len)
"""


def test_asking_imports_only_what_it_needs_and_the_rest_stays_importable(saved_runs: SavedRuns) -> None:
    command = [sys.executable, "-c", PROGRAM, str(saved_runs.fusion), "--question", "Onde?", "--context", "Em Natal."]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    answer, imported, afterwards = done.stdout.splitlines()
    assert "probability" in answer
    assert imported == "[] True True"
    assert afterwards == f"{INSTALLED} True True"
