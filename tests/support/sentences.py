"""Two sentences with entities, and the names of their labels."""

from __future__ import annotations

from adapter_qa.data.readers.sentences import Sentence

NAMES = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
ANA = Sentence(("Ana", "Lima", "nasceu", "em", "Recife"), ("B-PER", "I-PER", "O", "O", "B-LOC"))
DAVI = Sentence(("Davi", "é", "de", "São", "Luís", "."), ("B-PER", "O", "O", "B-LOC", "I-LOC", "O"))
BOTH = [ANA, DAVI]
