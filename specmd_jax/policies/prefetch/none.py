"""Prefetch nothing: every load waits for its demand.

Names: nothing.

Source: MixtureCache (arXiv 2412.00099) and SpecMD configuration #4.
"""

from specmd_jax.policies.base import Prefetch, stateless_init, stateless_observe

policy = Prefetch(stateless_init, None, stateless_observe, doc=__doc__)
