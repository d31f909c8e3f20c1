"""Affinities rank experts as the router chooses them, whatever its family."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from specmd_jax.models.config import Router
from specmd_jax.models.layers.router import RoutingChoice, affinities, choose

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


@pytest.mark.parametrize("router", [Router(), Router(normalize=True, scale=2.5)])
def test_the_kernel_chooses_and_learns_alike(
    router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = 2 * jax.random.normal(jax.random.key(0), (20, EXPERTS))
    aims = jax.random.normal(jax.random.key(1), (20, TOP_K))

    def run(kernel: str | None) -> tuple[RoutingChoice, jax.Array]:
        monkeypatch.setattr("specmd_jax.models.layers.router.preferred", lambda: kernel)

        def loss(logits: jax.Array) -> tuple[jax.Array, RoutingChoice]:
            chosen = choose(logits, None, jnp.ones(20, bool), TOP_K, router)
            return jnp.sum(aims * chosen.weights), chosen

        alone = choose(logits, None, jnp.ones(20, bool), TOP_K, router)
        (_, chosen), slope = jax.value_and_grad(loss, has_aux=True)(logits)
        np.testing.assert_array_equal(alone.ids, chosen.ids)
        return alone, slope

    (plain, slope), (fused, fused_slope) = run(None), run("interpret")
    np.testing.assert_array_equal(plain.ids, fused.ids)
    np.testing.assert_allclose(plain.weights, fused.weights, rtol=1e-5)
    np.testing.assert_allclose(slope, fused_slope, atol=1e-6)
