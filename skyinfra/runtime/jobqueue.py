"""Who runs next: FIFO with backfill that cannot starve its head. Pure: no clock, no I/O.

The head is the oldest waiting job. What it still lacks is set aside for it: a younger job may pass only with CPUs
beyond the head's demand and on devices the head was not promised. So once all jobs that ran when it became the head
have ended, it runs, whatever has been submitted since.
"""

from typing import Dict, List, NamedTuple, Optional, Tuple

_EPS = 1e-9


class Demand(NamedTuple):
    """Per node. `gpus` below 1 shares one device, above it is a whole number."""

    cpus: float
    gpus: float


class Share(NamedTuple):
    """What a job holds: CPUs and, per device id, how much of it."""

    cpus: float
    devices: Tuple[Tuple[str, float], ...]

    @property
    def device_ids(self) -> List[str]:
        return [device for device, _ in self.devices]


class Promise(NamedTuple):
    """The devices kept free of younger jobs until `job_id` runs."""

    job_id: int
    devices: Tuple[str, ...]


def check_demand(cpus: float, gpus: float) -> Demand:
    """Raises `ValueError` for what no node can give."""
    if not (0 <= cpus < 1e6 and 0 <= gpus < 1e6):
        raise ValueError("demand must be non-negative numbers, not cpus={} gpus={}".format(cpus, gpus))
    if gpus > 1 and gpus != int(gpus):
        raise ValueError("gpus above 1 must be whole, not {}".format(gpus))
    return Demand(cpus, gpus)


class JobQueue:
    """Capacity, what is held, what is promised. The caller keeps the list of waiting jobs, oldest first."""

    def __init__(self, cpus: float, gpus: List[str]) -> None:
        self.cpus = cpus
        self.gpus = list(gpus)
        self.lacks = ""
        """Why it has fewer devices than it was given, for who asks for more than there are."""
        self._held: Dict[int, Share] = {}
        self._promise: Optional[Promise] = None

    def resize(self, cpus: float, gpus: List[str]) -> None:
        """New capacity; what runs keeps its share, even of a device that is no longer listed."""
        self.cpus, self.gpus, self._promise = cpus, list(gpus), None

    def fits(self, demand: Demand) -> bool:
        """Whether the empty node could run it."""
        return demand.cpus <= self.cpus + _EPS and demand.gpus <= len(self.gpus)

    def hold(self, job_id: int, share: Share) -> None:
        """Count a job that already runs (re-attached after a restart)."""
        self._held[job_id] = share

    def release(self, job_id: int) -> None:
        """Idempotent."""
        self._held.pop(job_id, None)

    @property
    def running(self) -> int:
        return len(self._held)

    def pick(self, waiting: Dict[int, Demand]) -> List[Tuple[int, Share]]:
        """Take shares for every job of `waiting` (oldest first) that may start now."""
        started = []
        head: Optional[Tuple[int, Demand]] = None
        for job_id, demand in waiting.items():
            if head is None and not self.fits(demand):
                continue  # the node shrank: it waits for the next resize and must not block the rest
            share = self._share_for(demand, head)
            if share is not None:
                self._held[job_id] = share
                started.append((job_id, share))
            elif head is None:
                head = (job_id, demand)
                self._promise_devices(job_id, demand)
                if self._free_cpus() <= _EPS:
                    break  # nothing can pass: keeps a long queue cheap
        if head is None:
            self._promise = None
        return started

    def _share_for(self, demand: Demand, head: Optional[Tuple[int, Demand]]) -> Optional[Share]:
        kept_cpus = head[1].cpus if head else 0.0
        if demand.cpus > self._free_cpus() - kept_cpus + _EPS:
            return None
        promised = self._promise.devices if head and self._promise else ()
        devices = self._devices_for(demand.gpus, promised)
        return None if devices is None else Share(demand.cpus, devices)

    def _devices_for(self, gpus: float, promised: Tuple[str, ...]) -> Optional[Tuple[Tuple[str, float], ...]]:
        if gpus <= 0:
            return ()
        used = self._used()
        allowed = [d for d in self.gpus if d not in promised]
        if gpus < 1:
            # the fullest device that still has room: whole devices stay whole for those who need them
            room = [d for d in allowed if used[d] + gpus <= 1 + _EPS]
            return ((max(room, key=lambda d: used[d]), gpus),) if room else None
        free = [d for d in allowed if used[d] <= _EPS]
        return tuple((d, 1.0) for d in free[: int(gpus)]) if len(free) >= gpus else None

    def _promise_devices(self, job_id: int, demand: Demand) -> None:
        """The emptiest devices, chosen once: choosing anew each time would let younger jobs refill the old choice."""
        if self._promise is not None and self._promise.job_id == job_id:
            return
        used = self._used()
        count = 1 if 0 < demand.gpus < 1 else int(demand.gpus)
        self._promise = Promise(job_id, tuple(sorted(self.gpus, key=lambda d: used[d])[:count]))

    def _used(self) -> Dict[str, float]:
        used = dict.fromkeys(self.gpus, 0.0)
        for share in self._held.values():
            for device, amount in share.devices:
                used[device] = used.get(device, 0.0) + amount
        return used

    def _free_cpus(self) -> float:
        return self.cpus - sum(share.cpus for share in self._held.values())
