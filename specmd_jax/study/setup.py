"""One configuration as the simulator takes it, and how a choice in words becomes one."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from specmd_jax.core.errors import InputError
from specmd_jax.core.names import find_name, plain
from specmd_jax.core.units import parse_rate, parse_seconds
from specmd_jax.hardware.capacity import BASE_PRECISION
from specmd_jax.hardware.profiles import HardwareProfile, get_hardware
from specmd_jax.model_zoo import find_precision
from specmd_jax.policies.params import find_param, list_params, set_params, set_seed
from specmd_jax.policies.published import StrategyPreset, find_strategy, get_preset
from specmd_jax.policies.strategy import (
    FAMILIES,
    SWITCHES,
    Strategy,
    StrategyParams,
    find_policy,
    get_policy,
    make_strategy,
    policy_name,
)
from specmd_jax.policies.strategy_file import is_file, read_strategy
from specmd_jax.study.choice import OPTIONS, Choice, check_needs

STARTS = ("cold", "popular")
MOST_CONTEXT = 1 << 24  # tokens
_PLAIN = StrategyPreset(Strategy(), Strategy().params, "", "")


@dataclass(frozen=True)
class Setup:
    """One configuration, in the user's terms."""

    strategy: Strategy
    params: StrategyParams
    name: str = ""  # what the strategy is called in tables
    capacity: str = "5%"
    precisions: tuple[str, ...] = (BASE_PRECISION,)
    start: str = "cold"  # "popular": the experts this trace demands most, as far as they fit
    hardware: HardwareProfile | None = None  # None: counts only
    context: int = 1024  # tokens in the KV cache beside those of the pass
    overlap: bool = True  # residents compute while misses load
    with_scales: bool = False  # count the scales of quantised copies, as a run must


def make_setup(choice: Choice) -> Setup:
    """Returns the configuration that `choice` asks for.

    Raises:
      InputError: a name is unknown, a value makes no sense, or two of them contradict each other.
    """
    choice = _spelled(choice)
    preset = _preset(choice.strategy)
    strategy = _strategy(choice, preset.strategy)
    params = _params(choice, preset, strategy)
    given = tuple((find_param(params, name), text) for name, text in choice.assignments)
    return Setup(
        strategy,
        set_params(params, given),
        name=_label(choice, given),
        capacity=str(choice.capacity),
        precisions=_precisions(tuple(choice.precision or preset.precisions or (BASE_PRECISION,))),
        start=_start(preset.start if choice.start is None else choice.start),
        hardware=_hardware(choice),
        context=1024 if choice.context is None else choice.context,
        overlap=choice.overlap,
    )


def describe(setup: Setup) -> dict[str, Any]:
    """Returns the decisions of a configuration by name, and the numbers they are tuned by."""
    strategy, hardware = setup.strategy, setup.hardware
    return {
        **{family: policy_name(family, getattr(strategy, family)) for family in FAMILIES},
        **{name: getattr(strategy, name) for name in SWITCHES},
        "lookahead": strategy.lookahead if strategy.prefetches else None,
        "guard": strategy.guard if strategy.prefetches else None,
        "params": list_params(setup.params),
        "link_bytes_per_s": hardware and hardware.h2d_bytes_per_s,
        "latency_s": hardware and hardware.h2d_latency_s,
        "context": hardware and setup.context,
        "overlap": hardware and setup.overlap,
    }


def identity(setup: Setup) -> dict[str, Any]:
    """Returns what tells two setups apart, by name, and the same in every process."""
    families = {family: getattr(setup.strategy, family) for family in FAMILIES}
    named = {family: policy_name(family, one) or repr(one) for family, one in families.items()}
    rest = {one.name: getattr(setup, one.name) for one in fields(setup) if one.name != "strategy"}
    rest |= {"params": list_params(setup.params), "hardware": repr(setup.hardware)}
    return named | {name: getattr(setup.strategy, name) for name in SWITCHES} | rest


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


def _strategy(choice: Choice, base: Strategy) -> Strategy:
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


def _params(choice: Choice, preset: StrategyPreset, strategy: Strategy) -> StrategyParams:
    """Returns the preset's parameters for the policies that are its own, else the defaults."""
    own = {family: getattr(choice, family) is None for family in FAMILIES}
    sources = {f: preset.params if own[f] else strategy.params for f in FAMILIES}
    families = {family: getattr(source, family) for family, source in sources.items()}
    guard = preset.params.guard if preset.strategy.guard else strategy.params.guard
    params = StrategyParams(**families, guard=guard if strategy.guard else ())
    return params if choice.seed is None else set_seed(params, choice.seed)


def _precisions(names: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(find_precision(name) for name in names)
    if len(set(names)) < len(names):
        raise InputError(f"precisions {','.join(names)} name a tier twice: give each once")
    return names


def _start(name: str) -> str:
    return find_name(name, STARTS, f"start {name!r} is unknown")


def _hardware(choice: Choice) -> HardwareProfile | None:
    if choice.hardware is None:
        check_needs(choice, "hardware", "without a machine: add --hardware")
        return None
    if choice.context is not None and not 0 <= choice.context <= MOST_CONTEXT:
        raise InputError(f"context {choice.context} is no length: give tokens, for example 1024")
    given = choice.hardware
    profile = given if isinstance(given, HardwareProfile) else get_hardware(given)
    if choice.link is not None:
        if profile.unified:
            raise InputError(
                f"{profile.name} shares one memory between host and device: leave out --link"
            )
        profile = replace(profile, h2d_bytes_per_s=parse_rate(str(choice.link)))
    if choice.latency is not None:
        profile = replace(profile, h2d_latency_s=parse_seconds(str(choice.latency)))
    return profile


def _label(choice: Choice, given: tuple[tuple[str, str], ...]) -> str:
    """What tables call the configuration: what was asked for, and nothing that goes unsaid."""
    asked = {family: getattr(choice, family) for family in FAMILIES}
    if choice.strategy is None:
        unsaid = {family: OPTIONS[family].otherwise for family in FAMILIES}
        asked = {f: None if name == unsaid[f] else name for f, name in asked.items()}
        asked["eviction"] = choice.eviction or unsaid["eviction"]
    parts = [name for name in (choice.strategy, *asked.values()) if name is not None]
    parts += ["guard"] if choice.guard else []
    params = ", ".join(f"{name.split('.')[1]}={value}" for name, value in given)
    return " + ".join(parts) + (f" ({params})" if params else "")
