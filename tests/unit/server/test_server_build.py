"""The commit that a server names: what the build recorded, else the checkout's."""

import subprocess

from skyinfra.server.build import commit


def git(folder, *words):
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
    done = subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_a_recorded_commit_counts_then_the_checkouts_own_and_a_changed_one_says_so(tmp_path):
    checkout, package = tmp_path / "checkout", tmp_path / "checkout" / "skyinfra"
    package.mkdir(parents=True)
    (package / "x.py").write_text("1")
    git(checkout, "init", "-q")
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "first")
    head = git(checkout, "rev-parse", "HEAD")
    commit.cache_clear()
    assert commit(package) == head
    (package / "x.py").write_text("2")
    commit.cache_clear()
    assert commit(package) == head + "-dirty"
    (package / "COMMIT").write_text("abc\n")
    commit.cache_clear()
    assert commit(package) == "abc"


def test_an_installed_package_is_not_taken_for_the_repository_around_it(tmp_path):
    git(tmp_path, "init", "-q")
    package = tmp_path / "lib" / "site-packages" / "skyinfra"
    package.mkdir(parents=True)
    commit.cache_clear()
    assert commit(package) == ""
