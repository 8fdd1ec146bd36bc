"""Names in saved folders that code without heavy imports needs, too."""

from __future__ import annotations

FULL_FILE = "full_setup.json"  # beside a fully fine-tuned model, in place of adapter_setup.json
