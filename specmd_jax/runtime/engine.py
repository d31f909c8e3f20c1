"""A model whose experts do not fit on the device: a `Forward`, exact where the strategy is.

A pass goes layer by layer, with one wait for the gate's choice in each. Where the pass before found
all it asked for, the next one is dispatched whole, and goes layer by layer from the first gate that
does not.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Int

from specmd_jax.core.errors import NOT_A_NUMBER, InputError
from specmd_jax.core.interned import Interned
from specmd_jax.core.jit import make_room_for_programs
from specmd_jax.model_zoo import ModelSpec
from specmd_jax.models import Decoder, KvCache, Pass
from specmd_jax.models.forward import take_apart
from specmd_jax.policies.base import LOGITS, PREDICTED, PROBS
from specmd_jax.policies.strategy import Strategy
from specmd_jax.runtime.budget import make_budget
from specmd_jax.runtime.decide.decisions import Decisions
from specmd_jax.runtime.forward.pass_state import PassState
from specmd_jax.runtime.forward.segments import ExpertsOut, Segments
from specmd_jax.runtime.forward.whole_pass import WholePass, run_whole
from specmd_jax.runtime.gates.gate_events import GatePosition
from specmd_jax.runtime.gates.message import MessageLayout, Messages
from specmd_jax.runtime.gates.scores import RecordOptions, record_of_choices
from specmd_jax.runtime.main_loop import MainLoop, Run
from specmd_jax.runtime.offload.ffn import FfnSpec
from specmd_jax.runtime.offload.pages import Memory
from specmd_jax.runtime.offload.slots import Slots
from specmd_jax.runtime.offload.store import ExpertStore, device_sharding
from specmd_jax.runtime.options import RunOptions
from specmd_jax.runtime.record.recorder import Recorder
from specmd_jax.runtime.transfer.link import DirectLink, Link
from specmd_jax.runtime.transfer.prefetch_queue import ExpertCache
from specmd_jax.simulator.batch import SimResult
from specmd_jax.study.run import RunResult
from specmd_jax.study.setup import Setup
from specmd_kernels import Implementation


class OffloadedModel:
    """Runs passes with the experts in host memory; to be closed at the end.

    A pass over an empty cache begins new requests. A pass is prefill if it has several tokens of
    a sequence, or is the first.

    Attributes:
      config: of the decoder.
      budget: of device memory for experts.
      stalls_s: time that each pass waited for the link.
    """

    def __init__(
        self,
        decoder: Decoder,
        store: ExpertStore,
        setup: Setup,
        link: Link | None = None,
        recorder: Recorder | None = None,
        options: RunOptions | None = None,
        implementation: Implementation | None = None,
    ):
        """Allots the slots; nothing is in them yet.

        Args:
          decoder: all of the model but its experts, on the device.
          store: the experts.
          setup: strategy and capacity.
          link: to the device; its own by default.
          recorder: is handed what every pass chose.
          options: a time of its own, for tests; the machine's by default.
          implementation: of the experts' kernel, see `slot_ffn`; None: the platform's.

        Raises:
          InputError: the capacity is none or more than the device has, or the strategy cannot be
            run.
        """
        make_room_for_programs()
        decoder = _committed(decoder)
        self.config = decoder.config
        self.recorder = recorder
        self.link = link or DirectLink()
        self.store = store
        self.setup = setup
        spec, strategy = self.config.spec, setup.strategy
        self.budget = make_budget(setup, store, self.config)
        recorded = RecordOptions() if recorder is None else recorder.options
        self._layout = _layout_of(spec, strategy, recorded)
        self._segments = Segments(decoder, self._layout)
        self._whole = take_apart(decoder)
        self._decisions = Decisions(
            strategy,
            setup.params,
            spec.shape,
            self.budget.capacity.units,
            self.budget.copies.units,
        )
        self._options = options or RunOptions()
        self._ffns = tuple(
            Interned(FfnSpec(packing, self.config.activation, implementation))
            for packing in store.packings
        )
        one_tier = len(store.packings) == 1
        self._may_run_whole = (
            self._options.whole_passes and one_tier and strategy.routing.choose is None
        )
        self.reset()

    def reset(self) -> None:
        """Starts anew: a cold cache, nothing counted. What is compiled stays."""
        self.close()
        self._decisions.reset()
        slots = Slots(self.budget.num_pages, self.store.shape, self.store.packings)
        cache = ExpertCache(self._decisions, slots, self.store, self.link)
        run = Run(self.config, self.setup.strategy, self._layout, self._ffns, cache, self._options)
        self._main = MainLoop(run)
        self.stalls_s: list[float] = []
        self._begun: Bool[np.ndarray, " B"] = np.zeros(0, bool)
        self._all_hit = False
        self._step = -1

    def split_next_pass(self) -> None:
        """Has the next pass computed in the small steps that are mostly one program.

        So a warm-up compiles them, and what else a run comes to only now and then.
        """
        self._all_hit, self._main.split = False, True

    def expect_hits(self) -> None:
        """Has the next pass dispatched whole, if every expert has room: it will be sooner or later.

        So a warm-up compiles what a run comes to only after it has loaded everything.
        """
        self._main.warm()
        units, experts = self.budget.copies.units[:, 0], self.config.spec.num_experts
        self._all_hit = self._may_run_whole and self.budget.num_pages >= experts * int(units.sum())

    def close(self) -> None:
        """Ends the watchdog's thread."""
        if hasattr(self, "_main"):
            self._main.watchdog.close()

    @property
    def holds_all(self) -> bool:
        """Whether every expert is on the device, so that nothing can be missing any more."""
        return self._main.holds_all

    @property
    def late_s(self) -> float:
        """Time waited for prefetches that were still on their way."""
        return self._main.computing.late_s

    @property
    def answer(self) -> RunResult:
        """All that was counted since the start, as a replay gives it.

        Raises:
          InputError: an eviction policy's score was not a number.
        """
        self._main.settle()
        if self._decisions.broken:
            raise InputError(NOT_A_NUMBER)
        tally = SimResult(*self._decisions.counts, times=None)
        return RunResult(self.setup, self.budget.capacity, self.budget.copies, tally, None)

    def __call__(self, tokens: Int[Array, "B S"], cache: KvCache) -> Pass:
        """Runs one pass; see `Forward`.

        Raises:
          TransferFailed: an expert cannot be loaded.
          WatchdogFailed: prefetching failed since the last pass.
          InputError: the model computed NaN.
        """
        batch, length = tokens.shape
        start = int(cache.span.start)
        prefill = length > 1 or start == 0
        stalled, num_interrupted = self._main.computing.stall_s, self._main.num_interrupted
        whole = self._dispatch_whole(tokens, cache) if self._all_hit and not prefill else None
        self._prefill = prefill
        self._main.settle(if_due=True)  # while this pass is computed, if it is
        if start == 0:
            self._begun = np.zeros(batch, bool)
            cache = jax.device_put(cache, device_sharding())  # bound, see `_committed`
        if whole is None:
            state = PassState.begin(self._segments, tokens, cache)
            self._run(state)
            done = state.end()
        else:
            done = self._check_whole(whole, cache)
        self._all_hit = self._may_run_whole and self._main.num_interrupted == num_interrupted
        self.stalls_s.append(self._main.computing.stall_s - stalled)
        return done

    def _run(self, state: PassState) -> None:
        """Runs the segments that are left."""
        while state.output.at is not None:
            self._serve(state, self._await_message(state))
        self._main.split = False
        self._options.observer.end_pass()
        self._record(state.messages)

    def _await_message(self, state: PassState) -> Int[np.ndarray, "1 T M"]:
        """Waits for the gate where a state stands, and returns its message."""
        return np.asarray(state.output.message)  # the one wait of a layer

    def _serve(self, state: PassState, message: Int[np.ndarray, "1 T M"]) -> None:
        """Serves a gate, and goes on to the next."""
        state.messages.append(message)
        if state.layer == 0:
            self._begin_pass((self._layout.ids(message)[0] >= 0).any(axis=1))
        if self._empty:
            state.advance(ExpertsOut(jnp.zeros_like(state.gate.hidden)))
            return
        self._options.observer.gate_fires()
        self._main.serve(state, message, self._position(state.layer))

    def _begin_pass(self, real: Bool[np.ndarray, " T"]) -> None:
        self._empty = not real.any()  # a pass of padding alone is none
        if self._empty:
            return
        present = np.any(real.reshape(len(self._begun), -1), axis=1)
        self._fresh = bool((present & ~self._begun).any())
        self._begun = self._begun | present
        self._step += 1
        self._options.observer.begin_pass(int(real.sum()))

    def _position(self, layer: int) -> GatePosition:
        num_layers = self.config.spec.num_moe_layers
        return GatePosition(self._step, layer, num_layers, self._prefill, self._fresh)

    def _dispatch_whole(self, tokens: Int[Array, "B S"], cache: KvCache) -> WholePass | None:
        """Runs a pass as a whole; None, and nothing has happened, if a copy is on the link."""

        def run(slots: Memory, pages: Int[np.ndarray, "L N"]) -> WholePass:
            structure, weights = self._whole
            static = structure, self._ffns[0], self._layout
            return run_whole(*static, weights, slots, pages, tokens, cache.span, cache.layers)

        return self._main.on_slots(run)

    def _check_whole(self, whole: WholePass, cache: KvCache) -> Pass:
        """Makes of a pass that was dispatched whole, one of decode, what it should have been."""
        self._fresh = self._empty = False
        position = self._position(0)._replace(step=self._step + 1)
        right = self._main.serve_hits(whole.messages, position)
        if right:  # else the state begins the pass
            self._step += 1
        if right == self.config.spec.num_moe_layers:
            self._record([whole.messages])
            return Pass(whole.logits, (), whole.cache)
        state = PassState.resume(self._segments, whole, cache.span, right)
        self._run(state)
        return state.end()

    def _record(self, messages: list[Messages]) -> None:
        if self.recorder is not None:
            asked = self._layout.read(np.concatenate(jax.device_get(messages)))
            self.recorder.add(record_of_choices(asked, self.recorder.options))


def _layout_of(spec: ModelSpec, strategy: Strategy, recorded: RecordOptions) -> MessageLayout:
    """Returns what the gates have to say, for the strategy and for a recorder."""
    foreseen = strategy.lookahead if PREDICTED in strategy.reads else 0
    scores = recorded.scores or bool(strategy.reads & {LOGITS, PROBS})
    lookahead = max(foreseen, recorded.lookahead)
    return MessageLayout(spec.top_k, spec.num_experts, scores, lookahead)


def _committed(decoder: Decoder) -> Decoder:
    """Returns the decoder with weights that are bound to their device, as the slots are.

    What comes of slots is bound, too, and a program that is given some arrays bound and others not
    is compiled for each mixture, in the middle of a run.
    """
    graph, state = nnx.split(decoder)
    return nnx.merge(graph, jax.device_put(state, device_sharding()))
