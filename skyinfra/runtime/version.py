"""The agent's own release number. `package.agent_version` adds the digest of the sources."""

VERSION = "0.1.0"
