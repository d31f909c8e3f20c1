"""What computing takes in a run, told from its times on the machine's own link.

Where the link takes no time, a pass of P layers with g decisions in which m experts arrive takes

    P attention + g decide + m arrive

Attention, and with it the experts that are in slots, is what is left where all of them are. Prefill
and decode of a run in which every expert arrives differ in m, which tells what one takes that does.
Deciding is the rest: on a slow link it hides behind the loads, and attention does not.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from specmd_jax.simulator.timeline import Costs

TICK_S = 1e-6


class PerPass(NamedTuple):
    """A figure of the prompt's pass, and the mean one of a token's."""

    prefill: float
    decode: float


class Own(NamedTuple):
    """A run on the machine's own link."""

    seconds: PerPass
    arrivals: PerPass  # experts that are loaded on demand
    decisions: PerPass  # gates at which something is to decide


class Costing(NamedTuple):
    """What every strategy has in common."""

    layers: int
    resident: PerPass  # seconds, gate by gate, with every expert in a slot
    arrive_s: float


def costing(layers: int, resident: PerPass, missing: Own) -> Costing:
    """Returns what every strategy has in common.

    Args:
      layers: of experts.
      resident: seconds of a run in which every expert is in a slot, gate by gate.
      missing: a run in which every expert is loaded for every pass.
    """
    beside = [whole - rest for whole, rest in zip(missing.seconds, resident, strict=True)]
    more = missing.arrivals.prefill - missing.arrivals.decode
    return Costing(layers, resident, max((beside[0] - beside[1]) / more, 0.0))


def shares(common: Costing, own: Own) -> tuple[PerPass, PerPass]:
    """Returns the seconds of a layer's attention and those of a decision, which come to a run's.

    Args:
      common: of this machine and model.
      own: the run.
    """
    attention, decide = [], []
    for seconds, resident, arrivals, decisions in zip(
        own.seconds, common.resident, own.arrivals, own.decisions, strict=True
    ):
        rest = seconds - resident - arrivals * common.arrive_s
        decides = rest > 0 and decisions > 0
        decide.append(rest / decisions if decides else 0.0)
        attention.append((resident + (0.0 if decides else rest)) / common.layers)
    return PerPass(*attention), PerPass(*decide)


def costs_of(common: Costing, own: Own, passes: int, load_s: Float[np.ndarray, "L Q"]) -> Costs:
    """Returns costs that come to a run's own times where loads take no time.

    Args:
      common: of this machine and model.
      own: the run.
      passes: of the run, the first of them the prompt's.
      load_s: of a copy, by layer and precision, on the link that is asked about.
    """
    attention, decide = shares(common, own)
    return no_costs(passes, load_s)._replace(
        attention=_by_pass(passes, attention),
        arrive=_ticks(common.arrive_s),
        decide=_by_pass(passes, decide),
    )


def one_a_decision(passes: int, load_s: Float[np.ndarray, "L Q"]) -> Costs:
    """Returns costs by which a pass takes a tick for each gate with something to decide."""
    return no_costs(passes, 0 * load_s)._replace(decide=jnp.ones(passes, jnp.int32))


def no_costs(passes: int, load_s: Float[np.ndarray, "L Q"]) -> Costs:
    """Returns costs of loads alone."""
    nothing = _by_pass(passes, PerPass(0, 0))
    return Costs(
        attention=nothing,
        shared=nothing,
        head=nothing,
        expert_memory=_ticks([0]),
        expert_per_1024=_ticks(0),
        host_memory=_ticks(0),
        host_per_1024=_ticks(0),
        load=_ticks(load_s),
        overlap=jnp.asarray(True),
        arrive=_ticks(0),
        decide=nothing,
    )


def _by_pass(passes: int, seconds: PerPass) -> Int[Array, " P"]:
    return _ticks([seconds.prefill, *[seconds.decode] * (passes - 1)])


def _ticks(seconds: object) -> Int[Array, "..."]:
    return jnp.asarray(np.rint(np.asarray(seconds, float) / TICK_S), jnp.int32)
