"""Affinities rank experts as the router chooses them, whatever its family."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from specmd_jax.models.config import Router
from specmd_jax.models.router import affinities, choose

TOP_K, EXPERTS = 3, 16
ROUTERS = {
    "softmax": Router(),
    "softmax in groups": Router(groups=4, kept_groups=2, normalize=True, scale=16.0),
    "top-k softmax": Router("top_k_softmax"),
    "sigmoid": Router("sigmoid", normalize=True, scale=2.5),
    "sigmoid in groups": Router("sigmoid", groups=4, kept_groups=2),
    "sparsemixer": Router("sparsemixer"),
}


@pytest.mark.parametrize("shift", [None, 0.0, -3.0, 15.0])
@pytest.mark.parametrize("name", ROUTERS)
def test_the_highest_affinities_are_the_choice(name: str, shift: float | None) -> None:
    router = ROUTERS[name]
    logits = 2 * jax.random.normal(jax.random.key(0), (40, EXPERTS))
    bias = None
    if router.kind == "sigmoid" and shift is not None:
        bias = shift + 0.3 * jax.random.normal(jax.random.key(1), (EXPERTS,))
    shares = np.asarray(affinities(logits, bias, router))
    chosen = choose(logits, bias, jnp.ones(40, bool), TOP_K, router)
    best = np.argsort(-shares, axis=-1, kind="stable")[:, :TOP_K]
    np.testing.assert_array_equal(np.sort(best), np.sort(np.asarray(chosen.ids)))
    np.testing.assert_allclose(shares.sum(axis=-1), 1, rtol=1e-5)
    assert shares.min() >= 0
    if router.groups > 1:
        out_of_reach = EXPERTS * (router.groups - router.kept_groups) // router.groups
        assert ((shares == 0).sum(axis=-1) >= out_of_reach).all()
