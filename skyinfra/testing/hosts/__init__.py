"""Test hosts: real machines as far as software can tell, on this machine, for tests of SSH pools and clouds.

Each host is a set of Linux namespaces with its own processes, name, network card, disk and users, Debian's OpenSSH
server and cron. Hosts boot in some 50 ms. They need root and a few Debian packages; without them `HostLab` raises
`HostsUnavailable`, whose text is fit for ``pytest.skip``::

    from skyinfra.testing.hosts import HostLab

    with HostLab() as lab:
        gpu1 = lab.host("gpu1", user="ubuntu", gpus=("H100 80GB HBM3",) * 2, memory_gb=64)
        gpu1.wait_for_sshd()
        # ssh -i {lab.key} ubuntu@{gpu1.address}
        jump = lab.host("jump", user="hop", jump_only=True)
        inner = lab.host("inner", user="ubuntu", password="secret", behind=jump)

        gpu1.reboot()                  # the disk stays, cron's @reboot lines run; power_cut=True: nobody is told
        gpu1.power_cut(); gpu1.boot()
        lab.cut(gpu1); lab.mend(gpu1)  # the cable
        lab.delay(gpu1, ms=20, loss=0.01, seed=1)
        lab.lose(gpu1, from_host=1)    # it hears all and says nothing
        gpu1.stop_sshd(); gpu1.start_sshd(); gpu1.change_host_key()
        before = gpu1.files()          # every file on its disk: compare to see what something left
        gpu1.processes()               # what runs there beside init, sshd and cron
        gpu1.console("cat /etc/hostname", user="ubuntu")  # not over the network
        lab.terminate(gpu1)

Everything is gone when the lab closes, and when its process dies: the kernel ends the namespaces, the next lab removes
the files. See `HostLab.host` for all that a host can be. A host that is told to shut down from inside is off until
`boot`; nobody carries out a reboot that is asked for there.
"""

from __future__ import annotations

from skyinfra.testing.hosts.host import Host, HostProcess
from skyinfra.testing.hosts.lab import HostLab
from skyinfra.testing.hosts.unavailable import HostsUnavailable, why_unavailable

__all__ = ["Host", "HostLab", "HostProcess", "HostsUnavailable", "why_unavailable"]
