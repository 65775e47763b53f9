"""A skyinfra cluster as an ordinary Pulumi program, from the config `skyinfra:cluster`.

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
