"""One configuration in the user's words, and what it means as a `Setup`."""

from dataclasses import dataclass, replace
from pathlib import Path

from specmd_jax.core.errors import InputError
from specmd_jax.core.names import find_name, plain
from specmd_jax.core.units import parse_rate, parse_seconds
from specmd_jax.hardware.capacity import BASE_PRECISION
from specmd_jax.hardware.profiles import HardwareProfile, get_hardware
from specmd_jax.model_zoo import find_precision
from specmd_jax.policies.params import find_param, set_params, set_seed
from specmd_jax.policies.published import StrategyPreset, find_strategy, get_preset
from specmd_jax.policies.strategy import (
    FAMILIES,
    Strategy,
    StrategyParams,
    find_policy,
    get_policy,
    make_strategy,
    policy_name,
)
from specmd_jax.policies.strategy_file import is_file, read_strategy
from specmd_jax.study.setup import STARTS, Setup

_UNSAID = ("none", "fetch", "standard")  # the defaults, which labels leave out


@dataclass(frozen=True)
class Choice:
    """What a user chose; None leaves it to the named strategy, else to the default.

    Names, sizes and rates are text as on the command line: `25%`, `5GB/s`, `20us`.
    """

    strategy: str | None = None
    eviction: str | None = None
    prefetch: str | None = None
    miss: str | None = None
    routing: str | None = None
    scope: str | None = None
    admission: str | None = None
    lookahead: int | None = None
    guard: bool = False
    touch_on_prefetch_insert: bool = True
    touch_on_prefetch_hit: bool = False
    capacity: str = "5%"
    precision: tuple[str, ...] | None = None  # tiers, best first
    start: str | None = None
    hardware: str | None = None
    link: str | None = None
    latency: str | None = None
    context: int | None = None
    overlap: bool = True
    seed: int | None = None
    params: tuple[tuple[str, str], ...] = ()  # ("eviction.decay", "0.8")


_PLAIN = StrategyPreset(Strategy(), Strategy().params, "", "")


def make_setup(choice: Choice) -> Setup:
    """Returns the configuration that `choice` asks for.

    Raises:
      InputError: a name is unknown, a value makes no sense, or two of them contradict each other.
    """
    choice = _spelled(choice)
    preset = _preset(choice.strategy)
    strategy = _strategy(choice, preset)
    params = StrategyParams(
        *[
            getattr(preset.params if getattr(choice, family) is None else strategy.params, family)
            for family in FAMILIES
        ],
        guard=(preset if preset.strategy.guard else strategy).params.guard
        if strategy.guard
        else (),
    )
    if choice.seed is not None:
        params = set_seed(params, choice.seed)
    given = tuple((find_param(params, name), text) for name, text in choice.params)
    return Setup(
        strategy,
        set_params(params, given),
        name=_label(replace(choice, params=given)),
        capacity=choice.capacity,
        precisions=_precisions(choice.precision or preset.precisions or (BASE_PRECISION,)),
        start=_start(preset.start if choice.start is None else choice.start),
        hardware=_hardware(choice),
        context=1024 if choice.context is None else choice.context,
        overlap=choice.overlap,
    )


def _spelled(choice: Choice) -> Choice:
    """Returns the choice with the names as the registries spell them."""
    names = {f: getattr(choice, f) for f in FAMILIES}
    found = {f: find_policy(f, name) for f, name in names.items() if name is not None}
    if choice.strategy is not None and not is_file(choice.strategy):
        found["strategy"] = find_strategy(choice.strategy)
    return replace(choice, **found)


def _preset(name: str | None) -> StrategyPreset:
    if name is None:
        return _PLAIN
    return read_strategy(Path(name)) if is_file(name) else get_preset(name)


def _strategy(choice: Choice, preset: StrategyPreset) -> Strategy:
    base = preset.strategy
    names = {family: policy_name(family, getattr(base, family)) or "" for family in FAMILIES}
    asked = {family: getattr(choice, family) for family in FAMILIES}
    names |= {family: name for family, name in asked.items() if name is not None}
    fixed = get_policy("eviction", names["eviction"]).admission
    if fixed and plain(choice.admission or fixed) != fixed:
        raise InputError(
            f"eviction {names['eviction']} is defined with {fixed} admission: "
            f"leave out --admission {choice.admission}"
        )
    strategy = make_strategy(
        **names,
        scope=base.scope if choice.scope is None else choice.scope,
        admission=_admission(choice, base),
        touch_on_prefetch_insert=choice.touch_on_prefetch_insert and base.touch_on_prefetch_insert,
        touch_on_prefetch_hit=choice.touch_on_prefetch_hit or base.touch_on_prefetch_hit,
    )
    if choice.guard and not strategy.prefetches:
        raise InputError("--guard without a prefetcher has nothing to guard: add --prefetch")
    guard = choice.guard or (base.guard and strategy.prefetches)
    return strategy._replace(lookahead=_lookahead(choice, base, strategy), guard=guard)


def _admission(choice: Choice, base: Strategy) -> str:
    if choice.admission is not None:
        return choice.admission
    return base.admission if choice.eviction is None else "forced"


def _lookahead(choice: Choice, base: Strategy, strategy: Strategy) -> int:
    if choice.lookahead is None:
        return base.lookahead if choice.prefetch is None else 1
    if choice.lookahead < 1:
        raise InputError(f"lookahead {choice.lookahead} names nothing: give 1 or more layers")
    if not strategy.prefetches:
        raise InputError(
            f"lookahead {choice.lookahead} without a prefetcher has no effect: add --prefetch"
        )
    return choice.lookahead


def _precisions(names: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(find_precision(name) for name in names)
    if len(set(names)) < len(names):
        raise InputError(f"precisions {','.join(names)} name a tier twice: give each once")
    return names


def _start(name: str) -> str:
    return find_name(name, STARTS, f"start {name!r} is unknown")


def _hardware(choice: Choice) -> HardwareProfile | None:
    if choice.hardware is None:
        for flag in ("link", "latency", "context"):
            if getattr(choice, flag) is not None:
                raise InputError(f"--{flag} has no effect without a machine: add --hardware")
        if not choice.overlap:
            raise InputError("--no-overlap has no effect without a machine: add --hardware")
        return None
    if choice.context is not None and not 0 <= choice.context <= 1 << 24:
        raise InputError(f"context {choice.context} is no length: give tokens, for example 1024")
    profile = get_hardware(choice.hardware)
    if choice.link is not None:
        if profile.unified:
            raise InputError(
                f"{profile.name} shares one memory between host and device: leave out --link"
            )
        profile = replace(profile, h2d_bytes_per_s=parse_rate(choice.link))
    if choice.latency is not None:
        profile = replace(profile, h2d_latency_s=parse_seconds(choice.latency))
    return profile


def _label(choice: Choice) -> str:
    """What tables call the configuration: what was asked for, and nothing that goes unsaid."""
    parts = [getattr(choice, family) for family in FAMILIES]
    if choice.strategy is None:
        parts = [parts[0] or "lru", *(name for name in parts[1:] if name not in _UNSAID)]
    parts = [name for name in (choice.strategy, *parts) if name is not None]
    parts += ["guard"] if choice.guard else []
    params = ", ".join(f"{name.split('.')[1]}={value}" for name, value in choice.params)
    return " + ".join(parts) + (f" ({params})" if params else "")
