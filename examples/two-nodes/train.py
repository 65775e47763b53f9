"""Fit y = 3x + 2 on several nodes: data-parallel gradient descent, all-reduce over TCP, standard library only."""

import argparse
import json
import random
import socket
import time

STEPS = 60
RATE = 0.5


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nnodes", type=int, required=True)
    parser.add_argument("--node-rank", type=int, required=True)
    parser.add_argument("--master-addr", required=True)
    parser.add_argument("--master-port", type=int, required=True)
    return parser.parse_args()


class AllReduce:
    """The average of what all ranks bring. Rank 0 listens, the others dial it; one line of JSON each way."""

    def __init__(self, args):
        self.size, self.rank = args.nnodes, args.node_rank
        where = (args.master_addr, args.master_port)
        self.peers = self._gather(where) if self.rank == 0 else [self._dial(where)]

    def _gather(self, where):
        with socket.create_server(where) as server:
            server.settimeout(60)
            return [server.accept()[0].makefile("rw") for _ in range(self.size - 1)]

    def _dial(self, where):
        deadline = time.monotonic() + 60
        while True:
            try:
                return socket.create_connection(where, 5).makefile("rw")
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)  # rank 0 may not listen yet

    def mean(self, values):
        if self.rank != 0:
            send(self.peers[0], values)
            return receive(self.peers[0])
        every = [values] + [receive(peer) for peer in self.peers]
        average = [sum(column) / self.size for column in zip(*every)]  # noqa: B905 - Python 3.8 has no strict
        for peer in self.peers:
            send(peer, average)
        return average


def send(peer, values):
    peer.write(json.dumps(values) + "\n")
    peer.flush()


def receive(peer):
    return json.loads(peer.readline())


def gradient(slope, offset, data):
    errors = [(slope * x + offset - y, x) for x, y in data]
    return [2 * sum(e * x for e, x in errors) / len(data), 2 * sum(e for e, _ in errors) / len(data)]


def main():
    args = arguments()
    reduce = AllReduce(args)
    numbers = random.Random(args.node_rank)  # each rank has data of its own
    data = [(x, 3 * x + 2) for x in (numbers.uniform(-1, 1) for _ in range(1000))]
    slope = offset = 0.0
    for step in range(STEPS):
        by_slope, by_offset = reduce.mean(gradient(slope, offset, data))
        slope, offset = slope - RATE * by_slope, offset - RATE * by_offset
        if step % 20 == 19:
            print(f"step {step + 1}: y = {slope:.3f}x + {offset:.3f}", flush=True)


if __name__ == "__main__":
    main()
