"""Serves the provider on a loopback port, inside a worker or as a plugin process of its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent import futures

import grpc
from pulumi.runtime.proto import provider_pb2_grpc

from skyinfra.model.home import Home
from skyinfra.model.spec import ClusterSpec
from skyinfra.stacks.clouds.aws import agents as aws
from skyinfra.stacks.clouds.ssh.agents import Locator
from skyinfra.stacks.clouds.ssh.hosts import Hosts
from skyinfra.stacks.clouds.ssh.machine import Machines
from skyinfra.stacks.provider.agent import Agent, LocalAgentHost
from skyinfra.stacks.provider.local_machine import LocalMachine
from skyinfra.stacks.provider.servicer import Servicer
from skyinfra.stacks.provider.ssh_machine import SshMachine
from skyinfra.stacks.remote.agents import RemoteAgentHost

__all__ = ["GRPC_OPTIONS", "add_provider", "build_servicer", "serve"]

MAX_MESSAGE_BYTES = 400 * 1024 * 1024
GRPC_OPTIONS = [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES), ("grpc.so_reuseport", 0)]
MAX_HANDLERS = 64


def build_servicer(
    home: Home,
    agent_token: str | None,
    new_token: Callable[[], str | None] = lambda: None,
    tell: Callable[[str], None] = lambda _: None,
    spec: ClusterSpec | None = None,
) -> Servicer:
    """The provider's resources on this state folder; `spec`: of the cluster that is worked on, where it is known.

    `new_token`: for an agent that has none yet and is given none. `tell` gets a line for people while one waits.
    """
    hosts = Hosts(home)
    machines = Machines(home, hosts)
    ssh_agents = RemoteAgentHost(home, Locator(home, hosts, machines, tell), agent_token, new_token)
    aws_agents = RemoteAgentHost(home, aws.Locator(home, spec, tell), agent_token, new_token)
    local_agents = LocalAgentHost(home, agent_token, new_token)
    agents = Agent({"local": local_agents, "ssh": ssh_agents, "aws": aws_agents})
    return Servicer([LocalMachine(home), SshMachine(machines, tell), agents])


def add_provider(server: grpc.Server, servicer: Servicer) -> None:
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(servicer, server)


def serve(servicer: Servicer) -> tuple[grpc.Server, int]:
    """A running server and its port."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=MAX_HANDLERS), options=GRPC_OPTIONS)
    add_provider(server, servicer)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port
