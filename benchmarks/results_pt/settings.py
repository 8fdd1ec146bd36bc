#!/usr/bin/env python
"""Write the settings of a sweep's best trial as an options file, and link the trial as SWEEP/best.

Example: `python benchmarks/results_pt/settings.py search/qa settings/qa.yaml`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import yaml


def main(sweep: str, file: str) -> None:
    """Write the adapter and the parameters of the best trial; a choice between sets of options as its options."""
    document = json.loads((Path(sweep) / "sweep.json").read_text(encoding="utf-8"))
    best = document["trials"][document["best"]]
    shared = document["settings"]["options"]
    options = {name: value for name, value in shared.items() if name.startswith(("adapter_", "train_adapter"))}
    for name, value in best["params"].items():
        choices = document["settings"]["search"][name].get("choices")
        options |= choices[value] if isinstance(choices, dict) else {name: value}
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    head = f"# Trial {best['number']} of {len(document['trials'])} in {sweep}: F1 {best['f1']:.1f}\n"
    Path(file).write_text(head + yaml.safe_dump(options, sort_keys=True), encoding="utf-8")
    link = Path(sweep) / "best"
    link.unlink(missing_ok=True)
    link.symlink_to(Path("trials", f"{best['number']:04}"))
    print(f"{file}: {options}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", help="folder of a search")
    parser.add_argument("file", help="the options file to write")
    main(**vars(parser.parse_args()))
