"""Keys that a mapping in a YAML file has several times, of which the reader of YAML keeps the last."""

from __future__ import annotations

from collections import Counter

import yaml


def repeated_keys(text: str) -> dict[str, int]:
    """Return how often each key stands in its mapping, of those that stand there several times.

    The names of the mappings around a key precede it, as in `options: seed`.

    Raises:
        yaml.YAMLError: the text is not YAML.
    """
    repeated: dict[str, int] = {}
    seen: set[yaml.Node | None] = set()  # an alias is the node of its anchor, and may be in itself
    waiting = [("", yaml.compose(text, yaml.SafeLoader))]
    while waiting:
        where, node = waiting.pop(0)
        if node in seen:
            continue
        seen.add(node)
        if isinstance(node, yaml.SequenceNode):
            waiting += [(where, item) for item in node.value]
        elif isinstance(node, yaml.MappingNode):
            names = Counter(str(key.value) for key, _ in node.value)
            repeated |= {f"{where}{name}": count for name, count in names.items() if count > 1}
            waiting += [(f"{where}{key.value}: ", value) for key, value in node.value]
    return repeated
