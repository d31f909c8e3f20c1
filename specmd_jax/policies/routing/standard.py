"""The router's own choice.

Choice: top-k of the logits, as recorded.

Source: SpecMD 3.1.1.
"""

from specmd_jax.policies.base import Routing, stateless_init

policy = Routing(stateless_init, None, doc=__doc__)
