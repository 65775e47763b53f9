"""A cluster as a component of your own Pulumi program, beside other components.

Run it with `pulumi up` in an environment that has skyinfra installed: its provider, `pulumi-resource-skyinfra`, is then
on the PATH. The state folder is `SKYINFRA_HOME`, as for the command line.
"""

import pulumi

from skyinfra.model.spec import ClusterSpec, Slot
from skyinfra.runtime.package import agent_version
from skyinfra.stacks.program import Cluster, ClusterArgs


class Experiment(pulumi.ComponentResource):
    """What belongs together: a cluster, and whatever else the experiment needs."""

    def __init__(self, name: str, nodes: int) -> None:
        super().__init__("my:index:Experiment", name)
        spec = ClusterSpec(
            server=pulumi.get_project(),
            workspace="default",
            user="me",
            name=name,
            stack=f"{pulumi.get_stack()}-{name}",
            cloud="local",
            slots=tuple(Slot(slot, cpus=1.0, memory_gb=1.0) for slot in range(nodes)),
            agent_version=agent_version(),
        )
        cluster = Cluster(name, ClusterArgs(spec), pulumi.ResourceOptions(parent=self))
        self.nodes = cluster.nodes
        self.register_outputs({"nodes": self.nodes})


def main() -> None:
    experiment = Experiment("trial", nodes=2)
    pulumi.export("addresses", experiment.nodes.apply(lambda nodes: [node["internal_ip"] for node in nodes]))


if __name__ == "__main__":
    main()
