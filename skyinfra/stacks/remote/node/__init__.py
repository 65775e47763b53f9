"""What is done *on* a machine: look at it, lease it, start an agent there, give it back.

Standard library, Python >= 3.8; of ours only `skyinfra.runtime`. These modules travel as text on the standard input of
the machine's ``python3 -`` (see `remote.program`), so nothing has to be installed there first, and nothing secret is in
an argument. `ops.main` answers one request.
"""
