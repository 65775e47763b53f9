"""`skyinfra api token`: tokens for people and programs that use this server."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from skyinfra.cli import out
from skyinfra.cli.failures import UsageError
from skyinfra.cli.status import check_output
from skyinfra.cli.text import ago, table

__all__ = ["COMMANDS"]

Output = Annotated[str, typer.Option("--output", "-o", metavar="table|json", help="Output format.")]
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def create(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    role: Annotated[str, typer.Option("--role", help="admin, user or viewer.")] = "user",
    user: Annotated[str | None, typer.Option("--user", help="Whose token; yours when absent.")] = None,
    expires: Annotated[
        str | None, typer.Option("--expires", help="For how long: 12h, 30d; for ever if absent.")
    ] = None,
    output: Output = "table",
) -> int:
    """Make a token and print it. It is shown this once: the server keeps only a digest."""
    check_output(output)
    from skyinfra.client.team import create_token

    made = create_token(name, role, user, seconds_of(expires) if expires else None)
    if output == "json":
        out.print_json(made)
        return 0
    print(made["token"])
    until = f", good for {expires}" if expires else ""
    out.say(f"Token {made['id']} of {made['user_name']} ({made['role']}{until}). Use it with `skyinfra api login`.")
    return 0


def show(
    all_users: Annotated[bool, typer.Option("--all-users", "-u", help="Everybody's.")] = False,
    output: Output = "table",
) -> int:
    """List tokens; the tokens themselves are not known any more."""
    check_output(output)
    from skyinfra.client.team import list_tokens

    rows = list_tokens(all_users)
    if output == "json":
        out.print_json(rows)
        return 0
    if not rows:
        out.say("No tokens.")
        return 0
    columns = ["ID", "NAME", "USER", "ROLE", "CREATED", "EXPIRES", "LAST USED", "STATUS"]
    print(table(columns, [_row(row) for row in rows]))
    return 0


def revoke(token_ids: Annotated[list[str], typer.Argument(help="Ids of tokens.")]) -> int:
    """Make tokens good for nothing, at once."""
    from skyinfra.client.team import revoke_token

    for token_id in token_ids:
        revoke_token(token_id)
        out.say(f"Token {token_id} was revoked.")
    return 0


COMMANDS = {"create": create, "list": show, "revoke": revoke}


def seconds_of(text: str) -> float:
    """``90s``, ``12h``, ``30d``. Raises `UsageError`."""
    match = re.fullmatch(r"(\d+)([smhdw])", text.strip())
    if match is None or int(match[1]) == 0:
        raise UsageError(f"--expires must be a number and a unit, like 12h or 30d, not {text!r}")
    return int(match[1]) * float(_UNITS_S[match[2]])


def _row(row: Any) -> list[object]:
    import time

    expires = row.get("expires_at")
    expired = expires is not None and expires <= time.time()
    state = "revoked" if row.get("revoked_at") else "expired" if expired else "good"
    when = None if expires is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(expires))
    cells = [row["id"], row["name"], row["user_name"], row["role"], ago(row["created_at"]), when]
    return [*cells, ago(row.get("last_used_at")), state]
