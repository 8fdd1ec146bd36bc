"""Measure asking a saved run: the first answer, from the start of the process to its end, and a warm one."""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from measuring import median_seconds

ROOT = Path(__file__).resolve().parent.parent
QUESTION, CONTEXT = "Onde fica o Pantanal?", "O Pantanal fica no Centro-Oeste do Brasil."


def measure_asking(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the seconds of both for --run on the CPU, and of the first also those of the CPU."""
    from predictor_qa import QuestionAnswerer

    command = [sys.executable, str(ROOT / "ask_qa.py"), options.run, "--question", QUESTION, "--context", CONTEXT]
    command += ["--device", "cpu"]
    answerer = QuestionAnswerer(options.run, device="cpu")
    answerer.ask(QUESTION, CONTEXT)
    seconds = median_seconds(
        {
            "first answer, whole process": lambda: subprocess.run(command, check=True, capture_output=True),
            "warm answer": lambda: answerer.ask(QUESTION, CONTEXT),
        },
        options.rounds,
    )
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds["first answer, CPU seconds"] = (used.ru_utime + used.ru_stime) / options.rounds
    return [
        {"what": f"{Path(options.run).name}: {name}", "figure": value, "unit": "s"} for name, value in seconds.items()
    ]
