"""Options for adapters and fusion that are wrong (adapter_qa/config/checks/adapter_options.py)."""

from __future__ import annotations

import pytest

from adapter_qa.config.checks.adapter_options import parse_fuse_adapters


def test_fused_adapters_keep_their_order() -> None:
    paths, problems = parse_fuse_adapters(["qa=b/c", "ner-2=a=b", "x_1=org/name"])
    assert (list(paths.items()), problems) == ([("qa", "b/c"), ("ner-2", "a=b"), ("x_1", "org/name")], [])


@pytest.mark.parametrize(
    ("words", "problems"),
    [
        (["qa"], ["--fuse_adapters qa: write NAME=PATH, the name of letters, digits, - and _"]),
        (
            ["=path", "qa=", "a.b=c", "ção=d"],
            [
                f"--fuse_adapters {word}: write NAME=PATH, the name of letters, digits, - and _"
                for word in ("=path", "qa=", "a.b=c", "ção=d")
            ],
        ),
        (["qa=a", "qa=b"], ["--fuse_adapters qa=b: the name qa is used twice; each adapter needs its own"]),
        (["qa=a"], ["--fuse_adapters: 1 adapter given; a fusion needs two or more NAME=PATH"]),
        ([], ["--fuse_adapters: 0 adapter given; a fusion needs two or more NAME=PATH"]),
    ],
)
def test_wrong_fused_adapters_are_refused(words: list[str], problems: list[str]) -> None:
    assert parse_fuse_adapters(words)[1] == problems
