"""What a system is at a scale: which of its encoders it hears with, and the fusion's sizes."""

from collections.abc import Mapping, Sequence
from typing import Any

from pam.errors import UserError
from pam.table import nearest


def select_encoders(
    encoders: Mapping[str, Mapping[str, Any]],
    chosen: Sequence[str] | None,
    stand_ins: Mapping[str, str],
) -> dict[str, Mapping[str, Any]]:
    """The encoders that `use_encoders` names, in the scale's order; all of them for None.

    A name is that of an encoder of the scale, or a family's (`wavlm`), which stands for the scale's
    encoder of that family, or for the one that `stand_ins` gives it where the scale has none.
    """
    if chosen is None:
        return dict(encoders)
    if not isinstance(chosen, list) or not chosen:
        raise UserError(f"use_encoders: {chosen!r}: expected a list of names, like [whisper]")
    picked = [_find(str(name), encoders, stand_ins) for name in chosen]
    if len(set(picked)) < len(picked):
        raise UserError(
            f"use_encoders: {', '.join(map(str, chosen))} are here {', '.join(picked)}: "
            "name each encoder once"
        )
    return {name: spec for name, spec in encoders.items() if name in picked}


def _find(
    name: str, encoders: Mapping[str, Mapping[str, Any]], stand_ins: Mapping[str, str]
) -> str:
    if name in encoders:
        return name
    family = [encoder for encoder, spec in encoders.items() if spec.get("family") == name]
    if len(family) > 1:
        raise UserError(f"use_encoders: {name!r} may be {' or '.join(family)}: give one of these")
    if not family and name not in stand_ins:
        families = [spec["family"] for spec in encoders.values() if "family" in spec]
        known = {*encoders, *families, *stand_ins}
        raise UserError(f"use_encoders: unknown encoder {name!r}: {nearest(name, known)}")
    found = family[0] if family else stand_ins[name]
    if found not in encoders:
        raise UserError(f"stand_ins.{name}: {found!r} is no encoder: {nearest(found, encoders)}")
    return found


def with_fusion_sizes(scale: Mapping[str, Any], fusion: str | None) -> dict[str, Any]:
    """The scale with `fusions.NAME` in place of `fusion_conf`, where it has that."""
    sizes = scale.get("fusions") or {}
    return {**scale, "fusion_conf": sizes[fusion]} if fusion in sizes else dict(scale)
