"""Least recently used: the experts whose last use is oldest leave first.

Score: none; ties fall to the event of the last use, then to layer and expert.

Source: Eliseev & Mazur 2023 (arXiv 2312.17238, there per layer); the baseline of SpecMD, 3.1.3.
"""

from specmd_jax.policies.base import Eviction, stateless_init, stateless_update

# Every tie falls to the least recently used, so a policy without a score is LRU.
policy = Eviction(stateless_init, None, stateless_update, fused=True, doc=__doc__)
