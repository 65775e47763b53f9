"""Who runs next, and where: FIFO with backfill that cannot starve its head. Pure: no clock, no I/O.

A job asks for the same share of one or several nodes and gets all of them at once or none. The head is the oldest
waiting job. What it still lacks is set aside for it on nodes that are chosen once: there a younger job may pass only
with CPUs beyond the head's demand and on devices the head was not promised. So once all jobs that ran when it became
the head have ended, it runs, whatever has been submitted since.
"""

from typing import Any, Dict, List, NamedTuple, Optional, Set, Tuple

_EPS = 1e-9
#: The node that has the queue.
HEAD = 0


class Demand(NamedTuple):
    """Per node. `gpus` below 1 shares one device, above it is a whole number."""

    cpus: float
    gpus: float
    nodes: int = 1
    slots: Optional[Tuple[int, ...]] = None
    """These very nodes, by rank; None: any `nodes` of them."""


class Share(NamedTuple):
    """What a job holds of one node: CPUs and, per device id, how much of it."""

    cpus: float
    devices: Tuple[Tuple[str, float], ...]

    @property
    def device_ids(self) -> List[str]:
        return [device for device, _ in self.devices]


#: (slot, share) of each node that takes part, by rank.
Placement = Tuple[Tuple[int, Share], ...]


class Capacity(NamedTuple):
    """What a node has."""

    cpus: float
    gpus: Tuple[str, ...]


class Promise(NamedTuple):
    """What is kept free of younger jobs until `job_id` runs: by slot, CPUs and devices."""

    job_id: int
    nodes: Dict[int, Tuple[float, Tuple[str, ...]]]


def check_demand(cpus: float, gpus: float) -> Demand:
    """Raises `ValueError` for what no node can give."""
    if not (0 <= cpus < 1e6 and 0 <= gpus < 1e6):
        raise ValueError("demand must be non-negative numbers, not cpus={} gpus={}".format(cpus, gpus))
    if gpus > 1 and gpus != int(gpus):
        raise ValueError("gpus above 1 must be whole, not {}".format(gpus))
    return Demand(cpus, gpus)


def demand_of(cpus: float, gpus: float, ranks: List[Dict[str, Any]]) -> Demand:
    """Of a job whose ranks name their slots, or none of them does. Raises `ValueError`."""
    slots = [rank.get("slot", HEAD) for rank in ranks]
    if all(slot is None for slot in slots):
        return check_demand(cpus, gpus)._replace(nodes=len(slots))
    if not all(isinstance(slot, int) for slot in slots) or len(set(slots)) != len(slots):
        raise ValueError("ranks name different slots, or none of them a slot: not {}".format(slots))
    return check_demand(cpus, gpus)._replace(nodes=len(slots), slots=tuple(slots))


class JobQueue:
    """Capacity, what is held, what is promised. The caller keeps the list of waiting jobs, oldest first."""

    def __init__(self, cpus: float, gpus: List[str]) -> None:
        self._nodes: Dict[int, Capacity] = {HEAD: Capacity(cpus, tuple(gpus))}
        self._away: Set[int] = set()
        self.lacks = ""
        """Why it has fewer devices than it was given, for who asks for more than there are."""
        self._held: Dict[int, Placement] = {}
        self._promise: Optional[Promise] = None

    @property
    def cpus(self) -> float:
        return self._nodes[HEAD].cpus

    @property
    def words(self) -> str:
        """What there is, for who asks for more."""
        nodes = self._nodes.values()
        if len(self._nodes) == 1:
            return "this node has {:g} CPUs and {} GPUs".format(self.cpus, len(self._nodes[HEAD].gpus))
        most = max(node.cpus for node in nodes), max(len(node.gpus) for node in nodes)
        return "the {} nodes have {:g} CPUs and {} GPUs at most".format(len(self._nodes), *most)

    def resize(self, cpus: float, gpus: List[str], slot: int = HEAD) -> None:
        """New capacity; what runs keeps its share, even of a device that is no longer listed."""
        self._nodes[slot] = Capacity(cpus, tuple(gpus))
        self._promise = None

    def away(self, slot: int, is_away: bool) -> None:
        """A node that is away gets no job, but counts for what the cluster could run."""
        (self._away.add if is_away else self._away.discard)(slot)
        self._promise = None

    def keep_only(self, slots: Set[int]) -> None:
        """Forget nodes that are no longer of the cluster."""
        for slot in set(self._nodes) - slots - {HEAD}:
            del self._nodes[slot]
            self._away.discard(slot)

    def fits(self, demand: Demand, now: bool = False) -> bool:
        """Whether the empty nodes could run it; `now`: those that are here."""
        wanted = self._nodes if demand.slots is None else demand.slots
        able = [slot for slot in wanted if self._could(slot, demand) and not (now and slot in self._away)]
        return len(able) >= demand.nodes

    def hold(self, job_id: int, placement: Placement) -> None:
        """Count a job that already runs (re-attached after a restart)."""
        self._held[job_id] = placement

    def release(self, job_id: int) -> None:
        """Idempotent."""
        self._held.pop(job_id, None)

    @property
    def running(self) -> int:
        return len(self._held)

    def pick(self, waiting: Dict[int, Demand]) -> List[Tuple[int, Placement]]:
        """Take shares for every job of `waiting` (oldest first) that may start now."""
        started = []
        head: Optional[int] = None
        for job_id, demand in waiting.items():
            if head is None and not self.fits(demand, now=True):
                continue  # nodes shrank or are away: it waits for them and must not block the rest
            placement = self._place(demand, self._promise if head is not None else None)
            if placement is not None:
                self._held[job_id] = placement
                started.append((job_id, placement))
            elif head is None:
                head = job_id
                self._promise_to(job_id, demand)
                if all(self._free_cpus(slot) <= _EPS for slot in self._here()):
                    break  # nothing can pass: keeps a long queue cheap
        if head is None:
            self._promise = None
        return started

    # --- places -----------------------------------------------------------------------------------------------------

    def _here(self) -> List[int]:
        return [slot for slot in sorted(self._nodes) if slot not in self._away]

    def _could(self, slot: int, demand: Demand) -> bool:
        node = self._nodes.get(slot)
        return node is not None and demand.cpus <= node.cpus + _EPS and demand.gpus <= len(node.gpus)

    def _place(self, demand: Demand, promise: Optional[Promise]) -> Optional[Placement]:
        here = self._here()
        found: List[Tuple[int, Share]] = []
        for slot in here if demand.slots is None else demand.slots:
            share = self._share_on(slot, demand, promise) if slot in here else None
            if share is not None:
                found.append((slot, share))
            elif demand.slots is not None:
                return None
            if len(found) == demand.nodes:
                return tuple(found)
        return None

    def _share_on(self, slot: int, demand: Demand, promise: Optional[Promise]) -> Optional[Share]:
        kept_cpus, promised = (promise.nodes.get(slot) if promise else None) or (0.0, ())
        if demand.cpus > self._free_cpus(slot) - kept_cpus + _EPS:
            return None
        devices = self._devices_for(slot, demand.gpus, promised)
        return None if devices is None else Share(demand.cpus, devices)

    def _devices_for(
        self, slot: int, gpus: float, promised: Tuple[str, ...]
    ) -> Optional[Tuple[Tuple[str, float], ...]]:
        if gpus <= 0:
            return ()
        used = self._used(slot)
        allowed = [d for d in self._nodes[slot].gpus if d not in promised]
        if gpus < 1:
            # the fullest device that still has room: whole devices stay whole for those who need them
            room = [d for d in allowed if used[d] + gpus <= 1 + _EPS]
            return ((max(room, key=lambda d: used[d]), gpus),) if room else None
        free = [d for d in allowed if used[d] <= _EPS]
        return tuple((d, 1.0) for d in free[: int(gpus)]) if len(free) >= gpus else None

    def _promise_to(self, job_id: int, demand: Demand) -> None:
        """The emptiest nodes and devices, chosen once: choosing anew each time would let younger jobs refill them."""
        if self._promise is not None and self._promise.job_id == job_id:
            return
        slots = demand.slots
        if slots is None:
            able = [slot for slot in self._here() if self._could(slot, demand)]
            slots = tuple(sorted(able, key=lambda slot: -self._free_cpus(slot))[: demand.nodes])
        self._promise = Promise(job_id, {slot: (demand.cpus, self._emptiest(slot, demand.gpus)) for slot in slots})

    def _emptiest(self, slot: int, gpus: float) -> Tuple[str, ...]:
        used = self._used(slot)
        count = 1 if 0 < gpus < 1 else int(gpus)
        return tuple(sorted(self._nodes[slot].gpus, key=lambda d: used[d])[:count])

    def _used(self, slot: int) -> Dict[str, float]:
        used = dict.fromkeys(self._nodes[slot].gpus, 0.0)
        for placement in self._held.values():
            for where, share in placement:
                for device, amount in share.devices if where == slot else ():
                    used[device] = used.get(device, 0.0) + amount
        return used

    def _free_cpus(self, slot: int) -> float:
        held = sum(share.cpus for placement in self._held.values() for where, share in placement if where == slot)
        return self._nodes[slot].cpus - held
