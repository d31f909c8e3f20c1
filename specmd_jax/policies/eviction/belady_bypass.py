"""Belady's optimum that may also decline: an expert needed later than all residents is not kept.

The gap to `belady` is the part of the regret that an admission policy alone could recover.

Score: minus the event of the next demand, as `belady`; what ranks below every resident is
streamed.

Source: the bypass variant of Belady 1966, as in arXiv 2608.07911.
"""

from specmd_jax.policies.eviction.belady import policy as belady

policy = belady._replace(admission="bypass", doc=__doc__)
