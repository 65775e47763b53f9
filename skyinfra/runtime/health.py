"""Whether the node's GPUs are fit for jobs: what nvidia-smi and the kernel say about them.

Pure but for `look`, which runs both programs. READY, or CORDONED with the reason: a device that is lost, has
uncorrectable memory errors, or about which the driver reported an XID that only a reset cures, takes no new job.
"""

import re
import shutil
import subprocess
from typing import Dict, List, NamedTuple, Optional, Tuple

READY = "READY"
CORDONED = "CORDONED"
LOOK_TIMEOUT_S = 20
QUERY = "index,pci.bus_id,ecc.errors.uncorrected.volatile.total"

#: XIDs after which a device cannot be trusted before it was reset. Others are errors of programs.
FATAL_XIDS = {
    48: "double bit memory error",
    62: "internal micro-controller halt",
    64: "memory row could not be remapped",
    74: "NVLink error",
    79: "GPU has fallen off the bus",
    95: "uncontained memory error",
    119: "GSP does not answer",
    120: "GSP error",
}
_XID = re.compile(r"NVRM: Xid \(PCI:([0-9a-fA-F:.]+)\): (\d+)")


class Device(NamedTuple):
    """One line of nvidia-smi."""

    number: str
    bus: str
    memory_errors: int


class Verdict(NamedTuple):
    state: str
    reason: str
    bad: Tuple[str, ...]
    """The devices that take no new job."""


def parse_devices(text: str) -> List[Device]:
    """The answer to `QUERY` in CSV without header. Lines that are none are left out; a count that is not kept is 0."""
    found = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == 3 and cells[0].isdigit():
            found.append(Device(cells[0], _bus(cells[1]), int(cells[2]) if cells[2].isdigit() else 0))
    return found


def parse_xids(text: str) -> Dict[str, int]:
    """The last fatal XID of each PCI bus id in the kernel's log."""
    found = {}
    for bus, number in _XID.findall(text):
        if int(number) in FATAL_XIDS:
            found[_bus(bus)] = int(number)
    return found


def _bus(text: str) -> str:
    """``00000000:3B:00.0`` and ``0000:3b:00`` are the same place."""
    parts = text.lower().split(".")[0].split(":")
    return ":".join(parts[-2:])


def judge(wanted: List[str], devices: Optional[List[Device]], xids: Dict[str, int], said: str = "") -> Verdict:
    """About the devices this node was given; `devices` is None when nvidia-smi failed, and `said` is what it said."""
    if not wanted:
        return Verdict(READY, "", ())
    if devices is None:
        return Verdict(CORDONED, "nvidia-smi: {}".format(said or "no answer"), tuple(wanted))
    by_number = {device.number: device for device in devices}
    reasons = {}
    for one in wanted:
        device = by_number.get(one)
        if device is None:
            reasons[one] = "is gone"
        elif device.bus in xids:
            number = xids[device.bus]
            reasons[one] = "Xid {}, {}".format(number, FATAL_XIDS[number])
        elif device.memory_errors:
            reasons[one] = "{} uncorrectable memory errors".format(device.memory_errors)
    if not reasons:
        return Verdict(READY, "", ())
    reason = "; ".join("GPU {}: {}".format(one, why) for one, why in reasons.items())
    return Verdict(CORDONED, reason, tuple(reasons))


def look(wanted: List[str]) -> Optional[Verdict]:
    """Blocking. None where nothing can be known: there is no nvidia-smi, so the devices are only pretended."""
    program = shutil.which("nvidia-smi")
    if program is None or not wanted:
        return None
    code, out, err = _run([program, "--query-gpu=" + QUERY, "--format=csv,noheader,nounits"])
    kernel = shutil.which("dmesg")
    xids = parse_xids(_run([kernel])[1]) if kernel else {}
    if code != 0:
        lines = (err or out).strip().splitlines()
        return judge(wanted, None, xids, lines[0][:200] if lines else "exit code {}".format(code))
    return judge(wanted, parse_devices(out), xids)


def _run(argv: List[str]) -> Tuple[int, str, str]:
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=LOOK_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        return -1, "", str(exc)
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
