"""The command line: one file per command or group. It prints and asks; it never decides.

Standard output is data, standard error is talk. `main` finds the command's module in a table and imports no other, so
that `--help` and `status` stay near a bare interpreter's start; what speaks HTTP is imported inside functions, because
help needs none of it. Nothing here imports pydantic, rich or httpx2.
"""
