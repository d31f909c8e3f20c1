"""The event loop: routing, hits and misses, room, update, prefetch, in the order of section 2."""

from dataclasses import dataclass

from tests.oracle.cache import Cache
from tests.oracle.clock import Clock, Service, Window, no_costs
from tests.oracle.data import Case, Change, Config, Copy, Event, EventRecord, Result
from tests.oracle.miss import Fates
from tests.oracle.registry import twin
from tests.oracle.room import bypassing, forced, take

BYPASSING = {"belady-bypass", "static"}  # policies that decline whatever the admission


def simulate(case: Case, config: Config, record: bool = True) -> Result:
    """Replays a trace through a cache; `record` keeps what happened at every single event."""
    simulation = Simulation(case, config)
    for step in range(len(case.tokens)):
        for layer in range(case.num_layers):
            simulation.event(step, layer, record)
    return simulation.result


@dataclass
class Demand:
    """The demand of one event, sorted into what was there and what was not."""

    hits: list[int]
    late: list[int]
    misses: list[int]  # late ones included
    collisions: list[int]
    fates: Fates


class Simulation:
    """The cache, its policies and the counters of one run."""

    def __init__(self, case: Case, config: Config):
        self.case, self.config = case, config
        policy = twin("EVICTIONS", config.eviction)(case, config.eviction_params)
        self.cache = Cache(case, config, policy)
        self.prefetcher = twin("PREFETCHERS", config.prefetch)(
            case, config.prefetch_params, config.lookahead
        )
        self.miss = twin("MISSES", config.miss)(case, config.miss_params)
        self.routing = twin("ROUTINGS", config.routing)(case, config.routing_params)
        self.clock = Clock(config.costs or no_costs(case, config), case.num_layers)
        self.bypass = config.admission == "bypass" or config.eviction in BYPASSING
        self.result = Result(case.num_layers, len(config.units[0]), len(case.tokens))
        self.evicted_in_pass: set[Copy] = set()
        self.demanded_before: set[Copy] = set()
        self.request_start = 0

    def event(self, step: int, layer: int, record: bool) -> None:
        if layer == 0:
            self.evicted_in_pass.clear()
        now = self._route(self._recorded(step, layer))
        self.cache.policy.begin(now)
        demand = self._look_up(now)
        gate, link_free = self._pass_time(now, demand)
        self._admit(now, demand)
        after_demand = self._residents() if record else ()
        self.prefetcher.observe(now)
        self._prefetch(now, Window(free=link_free, gate=gate))
        if record:
            self._record(now, demand, after_demand)

    def _recorded(self, step: int, layer: int) -> Event:
        case = self.case

        def at(grid):
            return None if grid is None else [int(x) for x in grid[step][layer]]

        routed = [int(x) for x in case.routed[step][layer]]
        demand = tuple(expert for expert, tokens in enumerate(routed) if tokens > 0)
        fresh = layer == 0 and (step == 0 or bool(case.fresh[step]))
        self.request_start = step if fresh else self.request_start
        predicted = None if case.predicted is None else case.predicted[step][layer]
        return Event(
            index=step * case.num_layers + layer,
            step=step,
            layer=layer,
            fresh=fresh,
            request_start=self.request_start,
            tokens=int(case.tokens[step]),
            recorded=demand,
            demand=demand,
            routed=routed,
            gate=[int(x) for x in case.gate[step][layer]],
            predicted=None if predicted is None else [[int(x) for x in row] for row in predicted],
            logits=at(case.logits),
            probs=at(case.probs),
        )

    def _route(self, now: Event) -> Event:
        resident = {expert for layer, expert in self.cache.resident if layer == now.layer}
        routed = self.routing.route(now, resident)
        self.result.swapped[now.layer] += len(set(routed.demand) - set(routed.recorded))
        return routed

    # Steps 2 to 4: hits, misses and their fates.

    def _look_up(self, now: Event) -> Demand:
        cache, wanted = self.cache, {(now.layer, expert) for expert in now.demand}
        hits = sorted(expert for layer, expert in wanted if cache.is_ready((layer, expert)))
        misses = sorted(set(now.demand) - set(hits))
        late = [expert for expert in misses if (now.layer, expert) == cache.in_flight]
        others = [expert for expert in misses if expert not in late]
        demand = Demand(
            hits=hits,
            late=late,
            misses=misses,
            collisions=[i for i in misses if (now.layer, i) in self.evicted_in_pass],
            fates=self.miss.fates(others, now, cache),
        )
        self._count(now, demand)
        self.demanded_before |= wanted
        return demand

    def _count(self, now: Event, demand: Demand) -> None:
        result, layer, fates = self.result, now.layer, demand.fates
        new = [expert for expert in demand.misses if (layer, expert) not in self.demanded_before]
        used = [expert for expert in demand.hits if (layer, expert) in self.cache.speculative]
        result.accesses[layer] += len(now.demand)
        result.hits[layer] += len(demand.hits)
        result.misses[layer] += len(demand.misses)
        result.collisions[layer] += len(demand.collisions)
        result.compulsory[layer] += len(new)
        result.late[layer] += len(demand.late)
        result.dropped[layer] += len(fates.dropped)
        result.substituted[layer] += len(fates.substituted)
        result.on_host[layer] += len(fates.on_host)
        result.prefetch_used[layer] += len(used)
        for tier in fates.loads.values():
            result.loads[layer][tier] += 1

    # Section 8: what the demand takes, and when the next gate fires.

    def _pass_time(self, now: Event, demand: Demand) -> tuple[int, int]:
        tiers = {i: tier for (layer, i), tier in self.cache.resident.items() if layer == now.layer}
        tokens = dict(enumerate(now.routed)) | dict.fromkeys(demand.fates.substitutes, 1)
        timing = self.clock.serve(
            Service(
                layer=now.layer,
                resident={i: tiers[i] for i in [*demand.hits, *demand.fates.substitutes]},
                late={expert: tiers[expert] for expert in demand.late},
                loads=demand.fates.loads,
                tokens=tokens,
                on_host=demand.fates.on_host,
                decision=now.step if demand.misses or self.config.prefetch != "none" else None,
            )
        )
        self.result.ticks[now.step] += self.clock.ticks_of(now, timing.done)
        self.result.stall[now.step] += timing.stall
        return self.clock.next_gate(now, timing.done), timing.link_free

    # Steps 5 to 7: room and update.

    def _admit(self, now: Event, demand: Demand) -> None:
        admit = bypassing if self.bypass else forced
        change = admit(self.cache, self._wanted(now, demand))
        self.cache.serve(change)
        self.result.streamed[now.layer] += len(demand.fates.loads) - len(change.inserted)
        self._note_evictions(now, change.evicted)

    def _wanted(self, now: Event, demand: Demand) -> Change:
        """Returns what step 7 would change if there were room for everything."""
        found, loads = [*demand.hits, *demand.late], demand.fates.loads
        resident = [*found, *demand.fates.substitutes]
        used = {expert: self.cache.resident[now.layer, expert] for expert in resident}
        return Change(
            now=now,
            layer=now.layer,
            step=now.step,
            inserted=loads,
            evicted=[],
            used=used | loads,
            hits=frozenset(found),
        )

    def _note_evictions(self, now: Event, evicted: list[Copy]) -> None:
        self.result.evictions[now.layer] += len(evicted)
        self.evicted_in_pass |= set(evicted)

    # Step 8: prefetch.

    def _prefetch(self, now: Event, window: Window) -> None:
        cache = self.cache
        aheads = range(1, self.config.lookahead + 1)
        named = {ahead: self.prefetcher.names(now, ahead) for ahead in aheads}
        copies = {(self._target(now, a), expert) for a in aheads for expert in named[a]}
        pinned: set[Copy | None] = {(now.layer, expert) for expert in now.demand}
        pinned |= copies | {cache.in_flight}
        absent = copies - cache.resident.keys()
        leaving = self._ranked_for_prefetch(now, pinned) if absent else []
        last = cache.in_flight
        for ahead, experts in named.items():
            last = self._let_in(now, ahead, experts, leaving, window) or last
        cache.in_flight = last if window.free > window.gate else None
        self.clock.busy = max(0, window.free - window.gate)

    def _target(self, now: Event, ahead: int) -> int:
        return (now.layer + ahead) % self.case.num_layers

    def _ranked_for_prefetch(self, now: Event, pinned: set[Copy | None]) -> list[Copy]:
        """Returns all that may leave, as ranked before the first target changes the state."""
        unpinned = self.cache.resident.keys() - pinned
        protects = self.cache.policy.protects
        return self.cache.ranked([c for c in unpinned if not protects(c, now)], now)

    def _let_in(
        self, now: Event, ahead: int, experts: list[int], leaving: list[Copy], window: Window
    ) -> Copy | None:
        """Serves one target; returns the last copy whose transfer was started."""
        cache, layer = self.cache, self._target(now, ahead)
        tier = len(self.config.units[0]) - 1 if self.config.miss == "fetch-lowest-bit" else 0
        units, ticks = cache.sizes[layer][tier], self.clock.load_ticks(layer, tier)
        queue = [expert for expert in experts if (layer, expert) not in cache.resident]
        mates = set(cache.copies(cache.pool_of(layer)))
        may_leave = [copy for copy in leaving if copy in mates]
        free = cache.free(cache.pool_of(layer))
        places = (free + cache.taken_by(may_leave)) // units
        started = [expert for expert in queue[:places] if window.start(ticks)]
        evicted = take(may_leave, len(started) * units - free, cache)
        cache.let_in(
            Change(
                now=now,
                layer=layer,
                step=(now.index + ahead) // self.case.num_layers,
                inserted=dict.fromkeys(started, tier),
                evicted=evicted,
                selected=frozenset(experts) - frozenset(queue),
            )
        )
        self.result.queued[layer] += len(queue)
        self.result.prefetched[layer] += len(started)
        self._note_evictions(now, evicted)
        return (layer, started[-1]) if started else None

    # Records.

    def _residents(self) -> tuple[tuple[int, int, int], ...]:
        return tuple(sorted((*copy, tier) for copy, tier in self.cache.resident.items()))

    def _record(self, now: Event, demand: Demand, after_demand) -> None:
        self.result.events.append(
            EventRecord(
                step=now.step,
                layer=now.layer,
                hits=tuple(demand.hits),
                misses=tuple(demand.misses),
                collisions=tuple(demand.collisions),
                after_demand=after_demand,
                after_prefetch=self._residents(),
            )
        )
