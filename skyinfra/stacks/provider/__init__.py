"""The Pulumi provider ``skyinfra``: one file per resource, a raw gRPC servicer in front of them."""
