"""A wall clock that jumps, for the processes of a `World`: a small library between them and the C library.

Not libfaketime: its 0.9.10 mistakes the absolute times that Python's `time.sleep` waits for (``clock_nanosleep`` with
``TIMER_ABSTIME``), and every sleep fails. Here only what asks for the time of day is answered differently; monotonic
clocks and sleeps are the real ones. A program without a C library, such as the engine, keeps the real time.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

__all__ = ["WallClock", "compiler"]

_SOURCE = r"""
struct time { long s; long part; };
extern long syscall(long number, ...);
extern char *getenv(const char *name);
extern int open(const char *path, int flags, ...);
extern long read(int fd, void *buffer, unsigned long size);
extern int close(int fd);
extern long strtol(const char *text, char **end, int base);
extern int *__errno_location(void);

#ifdef __aarch64__
#define GETTIME 113
#else
#define GETTIME 228
#endif

static long offset_s(void) {
    int kept = *__errno_location();
    const char *path = getenv("SKYINFRA_FAULTS_CLOCK");
    int fd = path ? open(path, 02000000) : -1; /* O_RDONLY | O_CLOEXEC */
    char text[32];
    long size = fd < 0 ? 0 : read(fd, text, 31), found = 0;
    if (fd >= 0) close(fd);
    if (size > 0) { text[size] = 0; found = strtol(text, 0, 10); }
    *__errno_location() = kept;
    return found;
}

int clock_gettime(int id, struct time *out) {
    int code = (int) syscall(GETTIME, id, out);
    if (code == 0 && (id == 0 || id == 5)) out->s += offset_s(); /* CLOCK_REALTIME and its coarse kin */
    return code;
}

int gettimeofday(struct time *out, void *zone) {
    int code = clock_gettime(0, out);
    if (code == 0) out->part /= 1000;
    return code;
}

long time(long *out) {
    struct time now = {0, 0};
    clock_gettime(0, &now);
    if (out) *out = now.s;
    return now.s;
}
"""


def compiler() -> str | None:
    """A C compiler of this machine."""
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("tcc")


class WallClock:
    """What processes with `variables` in their environment take for the time of day. 64-bit Linux on x86 or ARM.

    Raises `RuntimeError` without a compiler, `CalledProcessError` when it fails.
    """

    def __init__(self, folder: Path) -> None:
        cc = compiler()
        if cc is None:
            raise RuntimeError("a wall clock that jumps needs a C compiler (Debian: apt-get install tcc)")
        source, self._library, self._file = folder / "clock.c", folder / "clock.so", folder / "clock"
        source.write_text(_SOURCE)
        flags = ["-shared", "-fPIC", "-nostdlib", "-fno-builtin", "-w"]
        subprocess.run([cc, *flags, "-o", self._library, source], check=True, capture_output=True)
        self.jump(0)

    def jump(self, offset_s: int) -> None:
        """From now on it is the real time and `offset_s`."""
        new = self._file.with_name("clock.new")
        new.write_text(f"{offset_s}\n")
        new.replace(self._file)  # nobody reads half a number

    def variables(self) -> dict[str, str]:
        """For the environment of a world; its servers, workers and agents inherit them."""
        return {"LD_PRELOAD": str(self._library), "SKYINFRA_FAULTS_CLOCK": str(self._file)}
