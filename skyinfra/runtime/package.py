"""The agent as one file: a zipapp of this package, the same bytes from the same sources.

Used where skyinfra is installed (the server's side), and by ``python -m skyinfra.runtime``; never on the node itself.
"""

import hashlib
import io
import zipfile
from pathlib import Path
from typing import Dict

from skyinfra.runtime import disk
from skyinfra.runtime.version import VERSION

_MAIN = b"""\
# Must parse under every Python there is: the check below is the one clear error an old one gives.
import sys

if sys.version_info < (3, 8):
    sys.stderr.write("error: the skyinfra agent needs Python 3.8 or newer, this is %d.%d\\n" % sys.version_info[:2])
    sys.exit(2)

from skyinfra.runtime.__main__ import main

sys.exit(main(sys.argv[1:]))
"""
#: Zip's own epoch: a build does not depend on when it ran.
_EPOCH = (1980, 1, 1, 0, 0, 0)


def agent_version() -> str:
    """`<package version>+<8 hex digest of the sources>`: two agents with one version are the same bytes."""
    return _version(_sources())


def build(folder: Path) -> Path:
    """Make `<folder>/agent-<version>.pyz` unless it is there. Atomic, idempotent. Raises `OSError`."""
    sources = _sources()
    version = _version(sources)
    target = Path(folder) / "agent-{}.pyz".format(version)
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    tmp = Path(disk.temporary(str(target)))
    tmp.write_bytes(_archive(sources, version))
    tmp.replace(target)
    return target


def _sources() -> Dict[str, bytes]:
    here = Path(__file__).resolve().parent
    return {path.name: path.read_bytes() for path in sorted(here.glob("*.py"))}


def _version(sources: Dict[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, text in sources.items():
        digest.update("{} {}\n".format(name, len(text)).encode() + text)
    return "{}+{}".format(VERSION, digest.hexdigest()[:8])


def _archive(sources: Dict[str, bytes], version: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        entries = {"__main__.py": _MAIN, "skyinfra/__init__.py": b""}
        entries["skyinfra/runtime/BUILD"] = version.encode()
        entries.update({"skyinfra/runtime/" + name: text for name, text in sources.items()})
        for name, text in entries.items():
            info = zipfile.ZipInfo(name, _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, text)
    return out.getvalue()
