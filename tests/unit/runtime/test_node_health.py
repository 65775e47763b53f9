"""What is made of recorded answers of nvidia-smi and of the kernel."""

import pytest

from skyinfra.runtime.health import CORDONED, READY, judge, parse_devices, parse_xids

# `nvidia-smi --query-gpu=index,pci.bus_id,ecc.errors.uncorrected.volatile.total --format=csv,noheader,nounits`
BUSES = ["19", "2D", "3F", "66", "9B", "AE", "BF", "E4"]
EIGHT = "\n".join(f"{n}, 00000000:{bus}:00.0, 0" for n, bus in enumerate(BUSES))
NO_ECC = "0, 00000000:01:00.0, [N/A]\n"
LOST = "Unable to determine the device handle for GPU0000:3B:00.0: Unknown Error"
KERNEL = """\
[    4.101010] nvidia: loading out-of-tree module taints kernel.
[ 9213.118812] NVRM: Xid (PCI:0000:2d:00): 31, pid=18112, name=python, Ch 00000008, intr 10000000. MMU Fault
[10388.550127] NVRM: GPU at PCI:0000:9b:00: GPU-11111111-2222-3333-4444-555555555555
[10388.550131] NVRM: Xid (PCI:0000:9b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.
[10400.000001] NVRM: Xid (PCI:0000:E4:00): 95, pid=1, Uncontained: FBHUB. RST: Yes, D-RST: No
"""


def test_devices_and_places_are_read():
    devices = parse_devices(EIGHT)
    assert [(d.number, d.bus, d.memory_errors) for d in devices[:2]] == [("0", "19:00", 0), ("1", "2d:00", 0)]
    assert len(devices) == 8
    assert parse_devices(NO_ECC)[0].memory_errors == 0
    assert parse_devices("No devices were found\n") == []


def test_only_xids_that_need_a_reset_count():
    assert parse_xids(KERNEL) == {"9b:00": 79, "e4:00": 95}
    assert parse_xids("") == {}


@pytest.mark.parametrize(
    ("wanted", "smi", "kernel", "state", "reason", "bad"),
    [
        (["0", "1"], EIGHT, "", READY, "", ()),
        ([], None, KERNEL, READY, "", ()),
        (["0", "4"], EIGHT, KERNEL, CORDONED, "GPU 4: Xid 79, GPU has fallen off the bus", ("4",)),
        (["0", "8"], EIGHT, "", CORDONED, "GPU 8: is gone", ("8",)),
        (["0"], "0, 00000000:01:00.0, 3", "", CORDONED, "GPU 0: 3 uncorrectable memory errors", ("0",)),
        (["0", "1"], None, "", CORDONED, f"nvidia-smi: {LOST}", ("0", "1")),
    ],
)
def test_a_device_that_cannot_be_trusted_takes_no_new_job(wanted, smi, kernel, state, reason, bad):
    devices = None if smi is None else parse_devices(smi)
    assert judge(wanted, devices, parse_xids(kernel), LOST) == (state, reason, bad)
