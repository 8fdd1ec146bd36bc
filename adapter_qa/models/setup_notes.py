"""What the user is told about a setup before it is built: assumptions, heads, and parts that have no effect."""

from __future__ import annotations

from adapter_qa.models.adapter_setup import AdapterSetup
from adapter_qa.models.saved_fusion import fusion_notes


def setup_notes(setup: AdapterSetup) -> list[str]:
    """Return notes on assumptions that were made to read the saved folders, and on parts that have no effect."""
    assumed = setup.saved.note if setup.saved and setup.language and setup.swapped_out is None else None
    notes = [assumed, _swap_note(setup), *[source.note for source in setup.adapters]]
    if setup.saved is not None and setup.saved.fusion is not None:
        notes += fusion_notes(setup.saved.fusion)
    notes += _notes_on_heads(setup)
    if setup.overridden_sites:
        notes.append(f"{setup.block}: one of the adapters is parallel, and the other has no effect where it stands")
    fused = setup.fusion.children if setup.fusion is not None else ()
    notes += [
        f"{source.name}: its {part} ({key}) is left out by the fusion, which mixes the up-projections"
        for source in setup.adapters
        if source.name in fused
        for key, part in {"use_gating": "gate", "ln_after": "layer norm after the bottleneck"}.items()
        if source.config[key]
    ]
    notes += [
        f"{source.name}: its gate (use_gating) is a mean over all tokens of a window, padding included, so that an "
        "answer depends on the length to which its batch is padded"
        for source in setup.adapters
        if source.name not in fused and not source.is_low_rank and source.config["use_gating"]
    ]
    return [note for note in notes if note is not None]


def head_note(setup: AdapterSetup) -> str | None:
    """Return where the head of a new fusion starts; None for any other setup."""
    if not setup.fused or setup.saved is not None:
        return None
    names = [source.name for source in setup.sources_of_head]
    if setup.starting_head is not None:
        unused = f"; {', '.join(names[1:])} comes later and has one, too" if names[1:] else ""
        return f"fusion: the head starts from that of {names[0]}, {setup.starting_head.folder}{unused}"
    fused = ", ".join(source.name for source in setup.tasks)
    reason = "" if names else f", because none of {fused} was saved with a head for it"
    return f"fusion: the head starts from random values{reason}"


def _notes_on_heads(setup: AdapterSetup) -> list[str | None]:
    """Return what becomes of the named heads in the saved folders, but for those of fused adapters for other tasks."""
    if setup.saved is not None:
        return [setup.saved.head.note(setup.task)] if setup.saved.head is not None else []
    notes: list[str | None] = [setup.starting_head.note(setup.task)] if setup.starting_head is not None else []
    for head in [source.head for source in setup.tasks if source.head is not None]:
        if head.flexible is not None and head.flexible.purpose == setup.task and head.task is None:
            notes.append(f"{head.folder}: {head.why_not_used}; it is left out")
    return notes


def _swap_note(setup: AdapterSetup) -> str | None:
    """Return which language adapter replaces which, and where one of them has a part that the other lacks."""
    new, old = setup.language, setup.swapped_out
    if new is None or old is None:
        return None
    names = [f"{source.folder}{f' ({source.language})' if source.language else ''}" for source in (new, old)]
    note = f"language swap: {names[0]} replaces {names[1]} under {setup.fusion or setup.tasks[0].name}"
    for which, one, other in (("new", new, old), ("old", old, new)):
        parts = []
        sites = sorted(one.sites(setup.layers) - other.sites(setup.layers))
        if sites:
            more = f" and {len(sites) - 1} more" if sites[1:] else ""
            parts.append(f"a module at {sites[0]}{more}")
        if one.is_invertible and not other.is_invertible:
            parts.append("an invertible adapter")
        note += f"; only the {which} one has {' and '.join(parts)}" if parts else ""
    return note
