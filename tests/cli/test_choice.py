"""What a user's words come to as a setup, and the ranges of every parameter."""

import pytest

from specmd_jax.core.errors import InputError
from specmd_jax.core.units import parse_seconds
from specmd_jax.policies.params import RANGES, list_params, set_params, set_seed
from specmd_jax.policies.published import STRATEGIES
from specmd_jax.policies.strategy import FAMILIES, StrategyParams
from specmd_jax.study.choice import Choice
from specmd_jax.study.setup import describe, make_setup
from specmd_jax.study.sweep import Grid


def test_every_number_that_tunes_a_policy_has_a_range() -> None:
    tunable = {
        f"{family}.{name}"
        for family, policies in FAMILIES.items()
        for policy in policies.values()
        for name, value in (policy.params._asdict().items() if policy.params else ())
        if not isinstance(value, bool)
    }
    assert tunable | {"guard.margin"} == set(RANGES)


@pytest.mark.parametrize("family", FAMILIES)
def test_defaults_lie_in_their_ranges(family: str) -> None:
    for policy in FAMILIES[family].values():
        for name, value in policy.params._asdict().items() if policy.params else ():
            if not isinstance(value, bool):
                assert value in RANGES[f"{family}.{name}"]


def test_values_keep_the_type_of_the_default() -> None:
    params = make_setup(Choice(eviction="mrs", routing="cache-prior")).params
    given = [("eviction.alpha", "1"), ("eviction.top_p", "4"), ("routing.use_mean", "yes")]
    changed = list_params(set_params(params, given))
    assert changed["eviction.alpha"] == 1.0 and type(changed["eviction.alpha"]) is float
    assert changed["eviction.top_p"] == 4 and type(changed["eviction.top_p"]) is int
    assert changed["routing.use_mean"] is True
    assert changed["routing.top_j"] == list_params(params)["routing.top_j"]


def test_the_seed_reaches_every_policy_that_draws() -> None:
    setup = make_setup(Choice(eviction="random", prefetch="noisy-oracle", seed=7))
    seeds = [value for name, value in list_params(setup.params).items() if "seed" in name]
    assert seeds == [7, 7]
    assert set_seed(StrategyParams(), 3) == StrategyParams()


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_named_strategy_is_taken_as_it_is(name: str) -> None:
    preset, setup = STRATEGIES[name], make_setup(Choice(strategy=name))
    assert setup.strategy == preset.strategy
    assert setup.params == preset.params
    assert setup.precisions == (preset.precisions or ("bf16",))
    assert (setup.start, setup.name) == (preset.start, name)


def test_flags_go_before_the_named_strategy() -> None:
    choice = Choice(
        strategy="specmd-4",
        eviction="lfu-decay",
        scope="layer",
        precision=("bf16",),
        start="popular",
        params=(("eviction.decay", "0.5"),),
    )
    setup = make_setup(choice)
    decided = describe(setup)
    assert (decided["eviction"], decided["routing"]) == ("lfu-decay", "cache-prior")
    assert decided["params"]["eviction.decay"] == 0.5
    assert decided["params"]["routing.use_mean"] is True, "as the recipe has it"
    assert (setup.strategy.scope, setup.precisions, setup.start) == ("layer", ("bf16",), "popular")
    assert setup.name == "specmd-4 + lfu-decay (decay=0.5)"


def test_another_prefetcher_does_not_inherit_the_lookahead() -> None:
    assert make_setup(Choice(strategy="moe-infinity")).strategy.lookahead == 3
    changed = make_setup(Choice(strategy="moe-infinity", prefetch="previous"))
    assert changed.strategy.lookahead == 1


def test_the_link_can_be_another() -> None:
    choice = Choice(hardware="H100-PCIe", link="5GB/s", latency="20us", context=0)
    setup = make_setup(choice)
    assert setup.hardware is not None
    assert setup.hardware.h2d_bytes_per_s == 5e9
    assert setup.hardware.h2d_latency_s == pytest.approx(20e-6)
    assert setup.context == 0


@pytest.mark.parametrize(
    ("text", "seconds"), [("20us", 20e-6), ("0.5 ms", 5e-4), ("1e-3s", 1e-3), ("100NS", 1e-7)]
)
def test_times(text: str, seconds: float) -> None:
    assert parse_seconds(text) == pytest.approx(seconds)


def test_a_grid_has_every_combination_once() -> None:
    grid = Grid(
        {
            "eviction": ["lru", "lfu-decay", "belady-bypass"],
            "prefetch": ["none", "previous"],
            "lookahead": [1, 2],
            "admission": ["forced", "bypass"],
        },
        {"eviction.decay": ["0.5", "0.9"]},
    )
    # Without a prefetcher a lookahead says nothing, nor an admission to belady-bypass.
    without, ahead = 1, 2
    setups, merged = grid.setups()
    assert len(setups) == (without + ahead) * (2 + 2 * 2 + 1)
    assert len(setups) + len(merged) == 3 * 2 * 2 * 2 * 2, "none vanishes"
    assert ("lookahead (no prefetcher)",) in [one.idle for one in merged]


def test_strategies_that_decide_alike_keep_their_names() -> None:
    grid = Grid({"strategy": ["adapmoe", "mixtral-offloading"], "capacity": ["5%", "10%"]})
    setups, merged = grid.setups()
    assert [setup.name for setup in setups] == ["adapmoe"] * 2 + ["mixtral-offloading"] * 2
    assert merged == []


def test_a_grid_refuses_what_no_combination_reads() -> None:
    with pytest.raises(InputError, match=r"no combination has the parameter miss\.low"):
        Grid({"eviction": ["lru"]}, {"miss.low": ["0.5"]}).setups()
