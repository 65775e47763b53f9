"""The local cloud: machines are folders of this host. No account, no root, no daemon."""
