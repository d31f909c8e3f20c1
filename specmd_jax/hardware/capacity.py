"""How big the copies are and how many fit: bytes, units and slots.

A unit is the greatest common divisor of all copy sizes, so that a capacity in bytes is a whole
number of units and the simulator counts in small exact integers.
"""

import re
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer

from specmd_jax.core.errors import InputError
from specmd_jax.core.types import ModelShape
from specmd_jax.core.units import parse_bytes
from specmd_jax.hardware.profiles import HardwareProfile
from specmd_jax.model_zoo import ModelSpec, known_models

BASE_PRECISION = "bf16"  # the capacity base of the paper: percent of the bf16 expert bytes
MAX_UNITS = 1 << 30
RESERVE = 0.1  # of a device's memory, for activations and the allocator


class Copies(NamedTuple):
    """The sizes of an expert's copies, by layer and precision tier."""

    precisions: tuple[str, ...]
    nbytes: Integer[np.ndarray, "L Q"] | None  # None: the model's sizes are not known
    units: Integer[np.ndarray, "L Q"]
    unit_bytes: int | None
    base_bytes: int | None  # of all routed experts, at the precision percentages refer to


class Capacity(NamedTuple):
    """What the cache holds, as asked for and as the simulator takes it."""

    text: str
    units: Integer[np.ndarray, " W"]
    slots: int  # copies of tier 0 that fit (of the largest layer's size where sizes differ)
    nbytes: int | None


def find_model(name: str, shape: ModelShape) -> ModelSpec | None:
    """Returns the known model that a trace names, if there is one and its shape agrees."""
    wanted = name.lower()
    for spec in known_models():
        known = (spec.name.lower(), spec.hf_id.lower(), spec.hf_id.lower().split("/")[-1])
        if any(wanted.startswith(one) or one in wanted for one in known) and _fits(spec, shape):
            return spec
    return None


def _fits(spec: ModelSpec, shape: ModelShape) -> bool:
    return (spec.shape.num_layers, spec.shape.num_experts) == shape[:2]


def copies_of(
    shape: ModelShape,
    precisions: tuple[str, ...] = (BASE_PRECISION,),
    spec: ModelSpec | None = None,
    expert_bytes: Integer[np.ndarray, " L"] | None = None,
    *,
    with_scales: bool = False,
) -> Copies:
    """Returns the copy sizes of a model, or of a trace that recorded its own.

    Args:
      precisions: tiers, best first; a single tier for lossless strategies.
      spec: the model; its sizes at each precision are used.
      expert_bytes: as recorded, used instead for a single tier.
      with_scales: whether what quantisers store beside the weights counts, as it does in a run;
        the paper counts the weights alone.

    Raises:
      InputError: precisions are out of order, or sizes are needed and unknown.
    """
    if expert_bytes is not None and len(precisions) == 1:
        nbytes = expert_bytes.astype(np.int64)[:, None]
        return _in_units(("as recorded",), nbytes, int(nbytes.sum()) * shape.num_experts)
    if spec is None:
        if len(precisions) > 1:
            raise InputError(
                f"precisions {','.join(precisions)} need the experts' sizes and the trace names no "
                "known model: give --model"
            )
        return Copies(precisions, None, np.ones((shape.num_layers, 1), np.int64), None, None)
    if not _fits(spec, shape):
        raise InputError(
            f"model {spec.name} has {spec.shape.num_layers} MoE layers of "
            f"{spec.shape.num_experts} experts, the trace {shape.num_layers} of "
            f"{shape.num_experts}: give the model that was recorded"
        )
    sizes = [spec.expert_bytes(precision, with_scales=with_scales) for precision in precisions]
    if sorted(sizes, reverse=True) != sizes:
        raise InputError(f"precisions {','.join(precisions)} must go from large to small copies")
    nbytes = np.tile(np.asarray(sizes, np.int64), (shape.num_layers, 1))
    return _in_units(precisions, nbytes, spec.routed_bytes(BASE_PRECISION))


def _in_units(
    precisions: tuple[str, ...], nbytes: Integer[np.ndarray, "L Q"], base_bytes: int
) -> Copies:
    unit = int(np.gcd.reduce(nbytes, axis=None))
    if base_bytes // unit >= MAX_UNITS:
        raise InputError(
            f"expert sizes share no divisor above {unit} bytes, too fine to count {base_bytes} "
            "bytes exactly: round the recorded expert_bytes to a common block size"
        )
    return Copies(precisions, nbytes, nbytes // unit, unit, base_bytes)


def parse_capacity(
    text: str,
    copies: Copies,
    shape: ModelShape,
    scope: str,
    free_bytes: int | None = None,
) -> Capacity:
    """Returns the capacity that `text` asks for: 5%, 200, 12/layer, 0.6GB, 4,4,3,... or auto.

    A percentage is of the routed experts' bf16 bytes (of the recorded bytes where the trace has
    its own); a bare number is slots of tier 0; `auto` is `free_bytes`.

    Args:
      copies: what one expert takes, by layer and precision.
      scope: "global": one pool; "layer": the capacity is spread over the layers.
      free_bytes: what the device has left; None: that is not known.

    Raises:
      InputError: the text is no capacity, or what it needs is not known.
    """
    text = text.strip()
    slots = _slots(text, copies, shape)
    if isinstance(slots, list):
        if scope != "layer":
            raise InputError(f"capacity {text!r} gives a quota for each layer: add --scope layer")
        quotas = np.asarray(slots, np.int64) * copies.units[:, 0]
        _check_countable(text, int(quotas.sum()))
        return Capacity(text, quotas, sum(slots), _bytes(int(quotas.sum()), copies))
    if slots is not None:
        return _split_slots(text, slots, copies, shape, scope)
    nbytes = _wanted_bytes(text, copies, free_bytes)
    return _split_bytes(text, nbytes, copies, shape, scope)


def _slots(text: str, copies: Copies, shape: ModelShape) -> int | list[int] | None:
    """Returns the slots that `text` names, in all or layer by layer, None if it names bytes."""
    if re.fullmatch(r"\d{1,9}", text):
        return int(text)
    if match := re.fullmatch(r"(\d{1,9})\s*/\s*layer", text):
        return int(match[1]) * shape.num_layers
    if re.fullmatch(r"\d{1,9}(\s*,\s*\d{1,9})+", text):
        quotas = [int(part) for part in text.split(",")]
        if len(quotas) != shape.num_layers:
            raise InputError(
                f"capacity {text!r} gives {len(quotas)} quotas for {shape.num_layers} MoE layers"
            )
        return quotas
    if (share := _share(text)) is not None and copies.nbytes is None:
        return int(share * shape.num_layers * shape.num_experts)
    return None


def _check_countable(text: str, units: int) -> None:
    if units >= MAX_UNITS:
        raise InputError(f"capacity {text!r} is larger than any model: give at most 100%")


def _share(text: str) -> float | None:
    """Returns the fraction that `5%` or `0.05` stands for, None if `text` is no share."""
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*(%?)", text)
    if match is None:
        return None
    share = float(match[1]) / (100 if match[2] else 1)
    if share > 1:
        raise InputError(f"capacity {text!r} is more than all experts: give at most 100%")
    return share


def _wanted_bytes(text: str, copies: Copies, free_bytes: int | None) -> int:
    if text == "auto":
        if free_bytes is None:
            raise InputError("capacity auto needs --hardware and a known --model: give a size")
        return free_bytes
    if (share := _share(text)) is not None:
        assert copies.base_bytes is not None
        return int(share * copies.base_bytes)
    try:
        nbytes = parse_bytes(text)
    except InputError as error:
        raise InputError(
            f"capacity {text!r} is no size: write 5%, 200 (slots), 12/layer, 0.6GB, "
            "a list of quotas such as 8,8,4,4, or auto"
        ) from error
    if copies.unit_bytes is None:
        raise InputError(
            f"capacity {text!r} is in bytes and the experts' size is unknown: give --model, or "
            "a capacity in slots or percent"
        )
    return nbytes


def _split_slots(text: str, slots: int, copies: Copies, shape: ModelShape, scope: str) -> Capacity:
    """Slots that do not divide evenly among the layers go to the first ones."""
    layer = np.arange(shape.num_layers)
    by_layer = slots // shape.num_layers + (layer < slots % shape.num_layers)
    quotas = by_layer * copies.units[:, 0]
    _check_countable(text, int(quotas.sum()))
    if scope == "global":
        quotas = quotas.sum(keepdims=True)
    return Capacity(text, quotas, slots, _bytes(int(quotas.sum()), copies))


def _split_bytes(text: str, nbytes: int, copies: Copies, shape: ModelShape, scope: str) -> Capacity:
    assert copies.unit_bytes is not None
    units, sizes = nbytes // copies.unit_bytes, copies.units[:, 0]
    _check_countable(text, units)
    if (sizes == sizes[0]).all() and scope == "layer":
        split = _split_slots(text, int(units // sizes[0]), copies, shape, scope)
        return split._replace(nbytes=nbytes)
    quotas = np.asarray([units], np.int64)
    if scope == "layer":
        layer = np.arange(shape.num_layers)
        quotas = units // shape.num_layers + (layer < units % shape.num_layers)
    return Capacity(text, quotas, int(units // sizes.max()), nbytes)


def _bytes(units: int, copies: Copies) -> int | None:
    return None if copies.unit_bytes is None else units * copies.unit_bytes


class DeviceBudget(NamedTuple):
    """Where a device's memory goes before the first expert, in bytes."""

    total: int
    reserve: int  # for activations and the allocator
    weights: int  # all but the routed experts
    kv: int

    @property
    def free(self) -> int:
        """What is left for copies of experts; below 0 the rest does not fit."""
        return self.total - self.reserve - self.weights - self.kv


def device_budget(
    hardware: HardwareProfile, spec: ModelSpec, context: int, batch: int = 1
) -> DeviceBudget:
    """Returns where the memory of a device goes, but for the experts.

    Args:
      hardware: the machine, whose memory is shared out.
      spec: the model.
      context: tokens in the KV cache of each sequence.
      batch: sequences decoded together.
    """
    total = hardware.device_memory_bytes
    kv = batch * spec.cache_bytes(context)
    return DeviceBudget(total, int(RESERVE * total), spec.non_expert_bytes(), kv)


def free_device_bytes(hardware: HardwareProfile, spec: ModelSpec, context: int) -> int:
    """Returns the device memory left for experts: all, less weights, KV cache and a reserve.

    Raises:
      InputError: nothing is left.
    """
    budget = device_budget(hardware, spec, context)
    if budget.free <= 0:
        raise InputError(
            f"{hardware.name} has {budget.total / 1e9:.1f} GB, and {spec.name} needs "
            f"{(budget.weights + budget.kv) / 1e9:.1f} GB before the first expert: choose a larger "
            "device"
        )
    return budget.free
