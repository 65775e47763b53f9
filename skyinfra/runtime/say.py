"""The agent's log: lines on stderr, which its starter has sent to a file."""

import os


def say(text: str) -> None:
    """One line. A full disk loses it: saying that something failed must not fail what comes next."""
    try:
        os.write(2, text.encode("utf-8", "backslashreplace") + b"\n")
    except OSError:
        pass
