"""One folder per cloud: ``program`` declares machines; ``facts``, ``observe``, ``errors`` need no Pulumi."""
