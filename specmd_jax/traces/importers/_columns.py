"""What the columns of a stranger's table mean: by their words, not by one spelling of them.

A name is taken apart into words, so that `expertIdx`, `Expert ID` and `expert-id` are one.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from specmd_jax.core.errors import InputError

_PLACE = {"id", "idx", "index", "num", "number", "no"}
_CHOICE = {"topk", "top", "k", "selected", "routed", "chosen", "active", "activated", "router"}
_EXPERT = {"expert", "experts"}
_PROBABILITY = {"prob", "probs", "probability", "probabilities", "softmax"}
_WEIGHT = {"weight", "weights", "gate", "gates", "score", "scores", "gating", "coef"}


class _Meaning(NamedTuple):
    """Names of a field: one of `core`, and beside it nothing but `beside`."""

    core: frozenset[str]
    beside: frozenset[str]


def _meaning(core: set[str], *beside: set[str]) -> _Meaning:
    return _Meaning(frozenset(core), frozenset(core.union(*beside)))


_MEANINGS = {
    "layer": _meaning({"layer", "l", "blk"}, _PLACE, {"moe", "name"}),
    "token": _meaning(
        {"token", "tok", "t", "pos", "position"},
        _PLACE,
        {"in", "seq", "sequence", "abs", "absolute", "global", "decode"},
    ),
    "step": _meaning(
        {"step", "pass", "iteration", "iter", "timestep"},
        _PLACE,
        {"forward", "decode", "engine", "generation"},
    ),
    "request": _meaning(
        {"request", "req", "prompt", "seq", "sequence", "sample", "conversation", "query", "rid"}
        | {"document", "doc", "session"},
        _PLACE,
        {"uuid", "name"},
    ),
    "phase": _meaning({"phase"}, _PLACE, {"name"}),
    "model": _meaning({"model"}, {"id", "name"}),
    "logits": _meaning({"logits"}, {"router", "gate", "gating", "all"}),
    "weights": _meaning(
        _WEIGHT, _EXPERT, _CHOICE, _PROBABILITY, {"routing", "value", "values", "normalized"}
    ),
    "experts": _meaning(_EXPERT | {"e", "eid"}, _CHOICE, _PLACE, {"ids", "indices", "list"}),
}
_CHOSEN = _CHOICE | {"ids", "indices", "idx", "index", "id"}  # `topk_ids`, of no expert by name
_TOTALS = ({"num", "n"}, _EXPERT, {"local", "routed", "moe", "per", "layer"})
_PREFERRED = {  # where several columns may mean one thing, the first of these that is there
    "request": ("request", "request id", "req", "req id", "prompt id", "seq id", "sequence id"),
    "weights": ("weights", "weight", "gate weights", "gate weight", "topk weights"),
}
_WEAK = {"token id", "tok id"}  # often the id in the vocabulary: a column of places goes before
COUNTS = (
    "counts and rankings hold no order, so nothing can be replayed: record the ids of every token, "
    "for example with vLLM's --enable-return-routed-experts, see `specmd list formats`"
)
NEEDED = {
    "layer": "layer, layer_id",
    "experts": "expert, expert_id, topk_ids",
    "token": "token, token_idx, position, or a step",
}


_KEY = re.compile(r'"([^"\\]{1,60})"\s*:')


def words(name: str) -> list[str]:
    """The words of a name, in small letters: `#tokenIdx` is token, idx."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])(?!E(?![a-z]))", " ", name[:80])  # MoE is one word
    return re.findall(r"[a-z]+|\d+", parted.lower())


def field_of(name: str) -> str | None:
    """Which of our fields a column is, None for those of no interest."""
    parts = words(name)
    held = set(parts)
    if not held or len(held) < len(parts):
        return None
    if parts[0] in _TOTALS[0] and held & _EXPERT:
        return "num_experts" if held <= set().union(*_TOTALS) else None
    if held & _PROBABILITY:
        of_all = held <= _PROBABILITY | {"router", "routing", "gate", "all", "full"}
        of_chosen = held <= _PROBABILITY | _EXPERT | _CHOICE | _WEIGHT
        return "probabilities" if of_all else "weights" if of_chosen else None
    if held <= _CHOSEN and held & _CHOICE and held - _CHOICE:
        return "experts"
    for field, (core, beside) in _MEANINGS.items():
        if held & core and held <= beside:
            return field
    return None


def slot_of(name: str) -> str | None:
    """The field of a column of one slot, as `expert_0` or `w1`; `expert_k` stands for the rest."""
    parts = words(name)
    if len(parts) != 2 or not (parts[1].isdigit() or parts[1] in ("k", "n")):
        return None
    if parts[0] in _EXPERT | {"e", "topk"}:
        return "experts"
    return "weights" if parts[0] in _WEIGHT | {"w"} else None


def chosen_names(names: Iterable[str]) -> dict[str, str]:
    """For each of our fields the one column that it is read from.

    Raises:
      InputError: two columns say where a row belongs, and nothing tells which is right.
    """
    found: dict[str, list[str]] = {}
    for name in names:
        field = field_of(name)
        if field is not None:
            found.setdefault(field, []).append(name)
    return {field: _one(field, named) for field, named in found.items()}


def _one(field: str, names: list[str]) -> str:
    for wanted in _PREFERRED.get(field, ()):
        for name in names:
            if " ".join(words(name)) == wanted:
                return name
    strong = [name for name in names if " ".join(words(name)) not in _WEAK] or names
    if len(strong) > 1 and field in ("layer", "token", "step", "experts"):
        both = " and ".join(name[:30] for name in strong[:2])
        raise InputError(f"{both} mean the same, {field}: rename the column that is not meant")
    return strong[0]


def usable(fields: Iterable[str]) -> bool:
    """Whether rows with these fields say all that is needed."""
    held = set(fields)
    return {"layer", "experts"} <= held and bool({"token", "step"} & held)


def nearly_usable(fields: Iterable[str]) -> bool:
    """Whether so much is there that a table of routing must be meant."""
    held = set(fields)
    return len({"layer", "experts"} & held) + bool({"token", "step"} & held) >= 2


def missing(fields: Iterable[str], names: Iterable[str]) -> str:
    """What a table that is nearly right lacks, and what it has."""
    names, held = list(names), set(fields)
    if holds_counts(names):
        return COUNTS
    lacks = [f for f in NEEDED if f not in held and not (f == "token" and "step" in held)]
    wanted = "; ".join(f"{field} ({NEEDED[field]})" for field in lacks)
    shown = ", ".join(name.strip()[:20] for name in names[:10])
    return f"there is no column of {wanted}: the columns are {shown}"


def key_names(head: bytes) -> set[str]:
    """Names of the keys in the beginning of a JSON text, whole or not."""
    return set(_KEY.findall(head.decode("utf-8-sig", errors="replace")))


def holds_counts(names: Iterable[str]) -> bool:
    """Whether names speak of counts or rankings over experts, which hold no order."""
    spoken = {word for name in names for word in words(name)}
    counted = {"count", "counts", "ranked", "ranking", "hits", "freq", "frequency", "frequencies"}
    return bool(spoken & (counted | {"histogram", "usage", "activations", "popularity", "hot"}))


def renamed(record: Mapping[str, object]) -> dict[str, object]:
    """The known fields of a record by our names; texts are no places of tokens."""
    names = [
        name
        for name, value in record.items()
        if not (isinstance(value, str) and field_of(name) == "token" and not _number(value))
    ]
    return {field: record[name] for field, name in chosen_names(names).items()}


def _number(text: str) -> bool:
    return re.fullmatch(r"\s*-?\d+(\.0*)?\s*", text) is not None
