"""Secrets: unprintable, sealed for one context, and a key file that is private and checked."""

import json
import pickle

import pytest

from skyinfra.server.vault import Secret, Vault, write_private


def test_a_secret_shows_itself_to_nobody_who_does_not_ask():
    secret = Secret("hunter2")
    for shown in (repr(secret), str(secret), f"{secret}", f"{secret:>20}", repr([secret]), "%s" % secret):  # noqa: UP031
        assert "hunter2" not in shown
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        json.dumps(secret)
    assert secret.reveal() == "hunter2"


def test_what_is_sealed_opens_for_its_context_only(tmp_path):
    vault = Vault.open(tmp_path / "keys" / "k")
    sealed = vault.seal(b"value", "request:1")
    assert b"value" not in sealed
    assert vault.unseal(sealed, "request:1") == b"value"
    with pytest.raises(RuntimeError):
        vault.unseal(sealed, "request:2")
    with pytest.raises(RuntimeError):
        vault.unseal(sealed[:-1] + bytes([sealed[-1] ^ 1]), "request:1")


def test_the_key_is_private_and_found_again(tmp_path):
    path = tmp_path / "keys" / "k"
    sealed = Vault.open(path).seal(b"v", "c")
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0
    assert Vault.open(path).unseal(sealed, "c") == b"v"


def test_a_damaged_key_is_said(tmp_path):
    write_private(tmp_path / "k", b"short")
    with pytest.raises(RuntimeError, match="damaged"):
        Vault.open(tmp_path / "k")


def test_digests_depend_on_the_key(tmp_path):
    one, other = Vault.open(tmp_path / "a"), Vault.open(tmp_path / "b")
    assert one.digest(b"x") == one.digest(b"x")
    assert one.digest(b"x") != other.digest(b"x")
