"""The precisions in which a checkpoint stores its weights, by its quantization_config."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from msgspec import Struct

from specmd_jax.core.json_files import shown
from specmd_jax.core.schema import read_record

PLAIN = "bf16"
_METHODS = {
    "fp8": "fp8",
    "fbgemm_fp8": "fp8",
    "finegrained_fp8": "fp8",
    "mxfp4": "mxfp4",
    "nvfp4": "mxfp4",  # as many bits, but for the scales
    "modelopt_fp4": "mxfp4",
    "fp4": "mxfp4",
}
_WIDTHS = {2: "int2", 4: "int4", 8: "int8"}


class Stored(NamedTuple):
    """Of the routed experts, and of the other projections."""

    experts: str = PLAIN
    others: str = PLAIN
    note: str = ""  # what was not understood


class _Weights(Struct):
    num_bits: int | None = None
    type: str | None = None


class _Group(Struct):
    weights: _Weights | None = None


class _Quantization(Struct):
    quant_method: str | None = None
    quant_algo: str | None = None
    bits: int | None = None
    w_bit: int | None = None
    load_in_4bit: bool | None = None
    load_in_8bit: bool | None = None
    config_groups: dict[str, _Group] | None = None
    modules_to_not_convert: list[str] | None = None
    ignored_layers: list[str] | None = None
    ignore: list[str] | None = None


def stored_precisions(config: Mapping[str, Any], origin: str) -> Stored:
    """Returns how the weights are stored; plain where nothing is said of it.

    Raises:
      InputError: the quantization_config holds a value of the wrong type.
    """
    given = config.get("quantization_config") or config.get("compression_config")
    note, precision, others = "", PLAIN, PLAIN
    if given:
        where = f"{origin}: quantization_config"
        record = read_record(
            given if isinstance(given, Mapping) else {"quant_method": given},
            _Quantization,
            where,
            "leave it out, or mend it",
            check_spelling=False,
        )
        found = _precision(record)
        precision = found or PLAIN
        note = "" if found else f"quantization_config is not understood, {PLAIN} is assumed"
        others = PLAIN if _keeps_attention(record) else precision
    if (kind := config.get("expert_dtype")) is not None:
        known = _METHODS.get(str(kind).lower())
        note = note or ("" if known else f"expert_dtype {shown(kind)} is not understood")
        precision = known or precision
    return Stored(precision, others, note)


def _precision(record: _Quantization) -> str | None:
    """Returns the precision of what is quantised, None if it is not understood."""
    if record.load_in_4bit or record.load_in_8bit:
        return "int4" if record.load_in_4bit else "int8"
    for group in (record.config_groups or {}).values():
        if (weights := group.weights) is not None and weights.num_bits is not None:
            if weights.type == "float":
                return {4: "mxfp4", 8: "fp8"}.get(weights.num_bits)
            return _WIDTHS.get(weights.num_bits)
    named = [(name or "").lower() for name in (record.quant_algo, record.quant_method)]
    known = next((_METHODS[name] for name in named if name in _METHODS), None)
    return known or _WIDTHS.get(record.bits or record.w_bit or 0)


def _keeps_attention(record: _Quantization) -> bool:
    kept = [
        *(record.modules_to_not_convert or ()),
        *(record.ignored_layers or ()),
        *(record.ignore or ()),
    ]
    return any("attn" in name or "attention" in name for name in kept)
