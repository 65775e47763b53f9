"""A cluster as an ordinary Pulumi project: what `skyinfra eject` writes. Pure: values in, texts out. No Pulumi here.

The program's text is also that of ``stacks/__main__.py`` at the root of the repository; a test holds the two alike.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from skyinfra.model.spec import ClusterSpec
from skyinfra.stacks.workspace import PROJECT, settings_lines

__all__ = ["PROGRAM", "files", "shell_lines"]

PROGRAM = '''"""A skyinfra cluster as an ordinary Pulumi program, from the config `skyinfra:cluster`.

Change it as you like: `Cluster` is a component, and other resources may stand beside it.
"""

import dataclasses
import json

import pulumi

from skyinfra.model.spec import ClusterSpec
from skyinfra.runtime.package import agent_version
from skyinfra.stacks.program import Cluster, ClusterArgs


def main() -> None:
    spec = ClusterSpec.from_json(json.loads(pulumi.Config("skyinfra").require("cluster")))
    if not spec.agent_version:  # a spec that pins none gets the agent of the skyinfra that runs this
        spec = dataclasses.replace(spec, agent_version=agent_version())
    pulumi.export("nodes", Cluster(spec.stack, ClusterArgs(spec)).nodes)


if __name__ == "__main__":
    main()
'''

_README = """# Cluster {name}

This folder is a Pulumi project over the very stack that skyinfra made: nothing was copied, so nothing has to be moved.

```console
$ . ./env.sh          # where the state, the passphrase and the provider are
$ pulumi preview      # says that nothing changes
```

It needs Pulumi's Python language host and a Python with `skyinfra` in it (`pip install -r requirements.txt`).

skyinfra goes on knowing the cluster: `skyinfra status`, `exec`, `logs` work as before. But it plans from its own spec:
what you change here it would change back at its next launch, stop or start of this cluster. Leave those to this
project from now on, or make your changes with skyinfra.
"""


def files(name: str, spec: ClusterSpec, secrets_provider: Mapping[str, Any], env: Mapping[str, str]) -> dict[str, str]:
    """Texts by file name."""
    return {
        "Pulumi.yaml": f"name: {PROJECT}\ndescription: cluster {json.dumps(name)[1:-1]}\nruntime: python\n",
        f"Pulumi.{spec.stack}.yaml": "\n".join(settings_lines(spec, secrets_provider)) + "\n",
        "__main__.py": PROGRAM,
        "requirements.txt": "skyinfra\n",
        "env.sh": "\n".join(shell_lines(env)) + "\n",
        "README.md": _README.format(name=name),
    }


def shell_lines(env: Mapping[str, str]) -> list[str]:
    """Lines for a shell's `eval`; the value of PATH goes before the one that is there."""
    return [
        f"export {name}={shlex.quote(value)}" + (':"$PATH"' if name == "PATH" else "") for name, value in env.items()
    ]
