"""Time, in ticks relative to the gate of the event (section 8)."""

from dataclasses import dataclass

from tests.oracle.data import Case, Config, Costs, Event


@dataclass
class Service:
    """What serving a demand takes of the device, the link and the host."""

    layer: int
    resident: dict[int, int]  # hits and substitutes, expert: tier
    late: dict[int, int]  # in flight at the gate, expert: tier
    loads: dict[int, int]  # streamed ones too, expert: tier
    tokens: dict[int, int]  # of every expert, also those on the host
    on_host: set[int]
    decision: int | None  # the pass of it, if it takes one


@dataclass
class Timing:
    done: int  # the last of device and host
    stall: int
    link_free: int  # the link has brought what was in flight and all loads, and has a queue


@dataclass
class Window:
    """The link between the demand loads of one event and the next gate."""

    free: int
    gate: int

    def start(self, ticks: int) -> bool:
        """Starts the next transfer of the queue if the next gate has not fired by then."""
        starts = self.free < self.gate or (self.free == 0 and ticks == 0)
        self.free += ticks if starts else 0
        return starts


def no_costs(case: Case, config: Config) -> Costs:
    """Returns the costs of an infinitely fast link: all zero."""
    zeros = [0] * len(case.tokens)
    load = [[0] * len(tiers) for tiers in config.units]
    return Costs(zeros, zeros, zeros, [0] * len(load[0]), 0, 0, 0, load, overlap=True)


class Clock:
    """Adds up what passes take, and knows for how long the link stays busy."""

    def __init__(self, costs: Costs, num_layers: int):
        self.costs, self.num_layers = costs, num_layers
        self.busy = 0  # b: until the copy in flight lands

    def serve(self, service: Service) -> Timing:
        arrivals = self._arrivals(service)
        compute = self._compute(service)
        begin = self._decision(service)
        if self.costs.overlap:
            end = begin + sum(compute[expert] for expert in service.resident)
            for arrival, expert in sorted((at, expert) for expert, at in arrivals.items()):
                end = max(end, arrival) + compute[expert]
        else:
            end = max([begin, *arrivals.values()]) + sum(compute.values())
        link_free = self.busy + sum(self._load(service, expert) for expert in service.loads)
        return Timing(
            done=max(end, begin + self._host(service)),
            stall=end - sum(compute.values()) - begin,
            link_free=max(link_free, begin),
        )

    def next_gate(self, now: Event, done: int) -> int:
        """Returns w, when the next event's gate fires."""
        costs, last_pass = self.costs, len(self.costs.attention) - 1
        ends_pass = now.layer == self.num_layers - 1
        gate = done + costs.shared[now.step]
        if ends_pass:
            return gate + costs.head[now.step] + costs.attention[min(now.step + 1, last_pass)]
        return gate + costs.attention[now.step]

    def ticks_of(self, now: Event, done: int) -> int:
        """Returns what the event adds to the time of its pass."""
        ticks = self.costs.attention[now.step] + done + self.costs.shared[now.step]
        return ticks + (self.costs.head[now.step] if now.layer == self.num_layers - 1 else 0)

    def load_ticks(self, layer: int, tier: int) -> int:
        return self.costs.load[layer][tier]

    def _load(self, service: Service, expert: int) -> int:
        return self.load_ticks(service.layer, service.loads[expert])

    def _arrivals(self, service: Service) -> dict[int, int]:
        arrivals = dict.fromkeys(service.late, self.busy)
        at = self.busy
        for expert in sorted(service.loads):
            at += self._load(service, expert)
            arrivals[expert] = at
        return arrivals

    def _compute(self, service: Service) -> dict[int, int]:
        tiers = service.resident | service.late | service.loads
        return {
            expert: max(
                self.costs.expert_memory[tier],
                service.tokens[expert] * self.costs.expert_per_1024 >> 10,
            )
            + (0 if expert in service.resident else self.costs.arrive)
            for expert, tier in tiers.items()
        }

    def _decision(self, service: Service) -> int:
        if service.decision is None or self.costs.decide is None:
            return 0
        return self.costs.decide[service.decision]

    def _host(self, service: Service) -> int:
        return sum(
            max(self.costs.host_memory, service.tokens[expert] * self.costs.host_per_1024 >> 10)
            for expert in service.on_host
        )
