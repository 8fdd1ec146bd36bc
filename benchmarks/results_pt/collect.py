#!/usr/bin/env python
"""Copy what a measurement has written, without the paths of its machine: JSON of all runs, and weights of a few.

`python benchmarks/results_pt/collect.py outputs/results_pt benchmarks/results_pt/measured runs/qa_1 runs/fusion_1`
keeps the weights of two runs, in float16. Existing files are replaced. `report_qa.py` reads the copy as it reads the
runs.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

# folders of a measurement
COPIED = ("runs", "curve", "transfer", "v2", "untrained_fusion", "speed", "adapters", "search", "settings")
RECORDS = (
    *("run.json", "sweep.json", "eval_results.json", "eval_predictions.json"),
    *("predict_results.json", "predict_predictions.json", "calibration.json", "fusion_attention.json"),
)


def main(measurement: str, copy: str, *with_weights: str) -> None:
    """Copy the records of all runs, and the saved folders of some."""
    source, target = Path(measurement), Path(copy)
    base = str((source / "base").resolve())  # a link to the encoder, if it is a folder
    files = [file for folder in COPIED for name in (*RECORDS, "*.yaml") for file in (source / folder).rglob(name)]
    saved = [
        file
        for run in with_weights
        for file in (source / run).glob("adapters-*/**/*")
        if file.is_file() and file.name != "README.md"  # the card names the base of this machine
    ]
    without = [run for run in with_weights if not any((source / run).glob("adapters-*"))]
    if without:
        sys.exit(f"error: {', '.join(without)}: no saved adapters in {measurement}; give runs such as runs/qa_1")
    if not files:
        sys.exit(f"error: {measurement}: no records of runs; give the OUT folder of measure.sh")
    for file in dict.fromkeys((*files, *saved)):
        copied = target / file.relative_to(source)
        copied.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".safetensors":
            save_file({name: in_float16(tensor) for name, tensor in load_file(file).items()}, copied, {"format": "pt"})
        elif file.suffix in (".json", ".yaml"):
            copied.write_text(file.read_text(encoding="utf-8").replace(base, "base"), encoding="utf-8")
        else:
            shutil.copyfile(file, copied)
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    print(f"{target}: {len(files)} records, weights of {len(with_weights)} runs, {size / 1e6:.1f} MB")


def in_float16(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor of floats in float16, others as they are."""
    return tensor.half() if tensor.is_floating_point() else tensor


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measurement", help="the OUT folder of measure.sh")
    parser.add_argument("copy", help="folder for the records")
    parser.add_argument("with_weights", nargs="*", metavar="RUN", help="run whose weights are copied, e.g. runs/qa_1")
    given = parser.parse_args()
    main(given.measurement, given.copy, *given.with_weights)
