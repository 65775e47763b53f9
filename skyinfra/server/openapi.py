"""``python -m skyinfra.server.openapi PATH`` writes the OpenAPI document."""

import sys
from pathlib import Path

from skyinfra.server.app import rendered

if __name__ == "__main__":
    Path(sys.argv[1]).write_text(rendered())
