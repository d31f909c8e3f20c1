"""Names: every registry is asked the same way, whatever the spelling."""

import pytest

from specmd_jax.cli.verbs import VERBS
from specmd_jax.core.errors import InputError
from specmd_jax.core.names import find_name, near_names, plain, same_name
from specmd_jax.hardware.profiles import HARDWARE, get_hardware
from specmd_jax.model_zoo import MODELS, PRECISIONS, get_model
from specmd_jax.policies.published import NOT_EXPRESSIBLE, STRATEGIES, get_preset
from specmd_jax.policies.strategy import FAMILIES, get_policy
from specmd_jax.study.choice import Choice
from specmd_jax.study.setup import make_setup
from specmd_jax.traces import IMPORTERS

REGISTRIES = {
    **FAMILIES,
    "hardware": HARDWARE,
    "models": MODELS,
    "strategies": {**STRATEGIES, **NOT_EXPRESSIBLE},
    "formats": IMPORTERS,
    "precisions": PRECISIONS,
    "verbs": VERBS,
}


@pytest.mark.parametrize("registry", REGISTRIES)
def test_no_two_names_differ_in_spelling_alone(registry: str) -> None:
    names = list(REGISTRIES[registry])
    assert len({plain(name) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("asked", "registry", "name"),
    [
        ("lur", "eviction", "lru"),
        ("leaststale", "eviction", "least-stale"),
        ("next-gaet", "prefetch", "next-gate"),
        ("simualte", "verbs", "simulate"),
        ("sweap", "verbs", "sweep"),
        ("specmd-9", "strategies", "specmd-1"),
        ("rtx-4900", "hardware", "rtx-4090"),
        ("h100", "hardware", "h100-pcie"),
        ("olmoe", "models", "olmoe-1b-7b-0924"),
        ("lama_cpp", "formats", "llama.cpp"),
    ],
)
def test_the_near_name_comes_first(asked: str, registry: str, name: str) -> None:
    if registry == "formats" and name not in IMPORTERS:
        name = next(key for key in IMPORTERS if plain(key) == plain(name))
    assert near_names(asked, REGISTRIES[registry])[0] == name


def test_what_is_near_to_nothing_is_shown_all() -> None:
    with pytest.raises(InputError, match="no colour is called 'telepathy': choose from red, blue"):
        find_name("telepathy", ["red", "blue"], "no colour is called 'telepathy'")


def test_a_spelling_of_two_names_is_neither() -> None:
    assert same_name("AB", ["a-b", "a_b"]) is None
    assert same_name("a_b", ["a-b", "a_b"]) == "a_b"
    assert same_name("-", ["."]) is None


def test_spellings_that_differ_in_case_and_marks_alone_are_taken() -> None:
    assert get_policy("eviction", "Least_Stale") is get_policy("eviction", "least-stale")
    assert get_preset("SpecMD5") is STRATEGIES["specmd-5"]
    assert get_hardware("RTX4090") is HARDWARE["rtx-4090"]
    assert get_model("mixtral_8x7b") is MODELS["mixtral-8x7b"]
    assert get_model("allenai/olmoe-1B-7b_0924") is MODELS["olmoe-1b-7b-0924"]


def test_a_choice_is_called_by_the_names_there_are() -> None:
    choice = Choice(
        strategy="SPECMD5", eviction="least_stale_lru", scope="Layer", precision=("INT4",)
    )
    setup = make_setup(choice)
    assert setup.name == "specmd-5 + least-stale-lru"
    assert (setup.strategy.scope, setup.precisions) == ("layer", ("int4",))
    setup = make_setup(Choice(eviction="lfu_decay", params=(("Eviction.DECAY", "0.5"),)))
    assert setup.name == "lfu-decay (decay=0.5)"


@pytest.mark.parametrize(
    ("choice", "offered"),
    [
        (Choice(eviction="lur"), "try lru"),
        (Choice(strategy="specmd"), "try specmd-1"),
        (Choice(strategy="lru"), "write --eviction lru"),
        (Choice(strategy="Pro-MoE"), "cannot be replayed"),
        (Choice(scope="layers"), "try layer"),
        (Choice(start="popula"), "try popular"),
        (Choice(precision=("int44",)), "try int4"),
        (Choice(hardware="rtx-4900"), "try rtx-4090"),
        (Choice(eviction="lfu-decay", params=(("eviction.dekay", "1"),)), "try eviction.decay"),
    ],
)
def test_a_slip_is_told_what_was_meant(choice: Choice, offered: str) -> None:
    with pytest.raises(InputError, match=offered):
        make_setup(choice)
