"""A git repository as workdir: fetched on the node, by branch, tag and commit, with credentials that leave no trace."""

import base64
import http.server
import os
import shutil
import subprocess
import threading

import pytest

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
TOKEN = "s3cr3t-t0ken"


class Repository:
    """One with commits one (tag v1, branch other), two (main) and lost (on no branch)."""

    def __init__(self, root):
        self.work, self.bare = root / "work", root / "repo.git"
        self.work.mkdir()
        self.git("init", "-q", "-b", "main")
        self.one = self.commit("one")
        self.git("tag", "-a", "v1", "-m", "v1")
        self.git("branch", "other")
        self.two = self.commit("two")
        subprocess.run(["git", "clone", "-q", "--bare", self.work, self.bare], check=True, capture_output=True)
        subprocess.run(["git", "-C", self.bare, "update-server-info"], check=True)
        self.url = f"file://{self.bare}"

    def git(self, *argv):
        command = ["git", "-C", self.work, "-c", "user.name=a", "-c", "user.email=a@b", *argv]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, text):
        (self.work / "file").write_text(text)
        self.git("add", ".")
        self.git("commit", "-q", "-m", text)
        return self.git("rev-parse", "HEAD")

    def push(self, text):
        commit = self.commit(text)
        self.git("push", "-q", str(self.bare), "main")
        return commit


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path)


def check_out(agent, repository, dest, **fields):
    """Until it is done: (status, answer)."""
    body = {"url": repository.url, "dest": dest, **fields}
    status, answer = agent.call("POST", "/files/git", body)
    while status == 200 and not answer["done"]:
        status, answer = agent.call("POST", "/files/git", body)
    return status, answer


@pytest.mark.parametrize(
    ("ref", "text", "found"),
    [
        ("", "two", {"branch": "main", "tag": ""}),
        ("other", "one", {"branch": "other", "tag": ""}),
        ("refs/heads/other", "one", {"branch": "other", "tag": ""}),
        ("v1", "one", {"branch": "", "tag": "v1"}),
        ("refs/tags/v1", "one", {"branch": "", "tag": "v1"}),
        ("COMMIT", "one", {"branch": "", "tag": ""}),
        ("SHORT", "one", {"branch": "", "tag": ""}),
    ],
)
def test_branch_tag_and_commit_are_checked_out(agent, repository, ref, text, found):
    ref = {"COMMIT": repository.one, "SHORT": repository.one[:8]}.get(ref, ref)
    dest = f"~/git-{text}-{len(ref)}"
    status, answer = check_out(agent, repository, dest, ref=ref)
    assert status == 200, answer
    assert answer == {"done": True, "commit": {"one": repository.one, "two": repository.two}[text], **found}
    assert (agent.home / dest[2:] / "file").read_text() == text


def test_the_next_time_it_follows_the_branch_over_what_is_there(agent, repository):
    check_out(agent, repository, "follows")
    root = agent.home / "follows"
    (root / "file").write_text("changed by a job")
    (root / "made-by-a-job").write_text("stays")
    third = repository.push("three")
    assert check_out(agent, repository, "follows")[1]["commit"] == third
    assert ((root / "file").read_text(), (root / "made-by-a-job").read_text()) == ("three", "stays")
    assert check_out(agent, repository, "follows", ref="main", commit=repository.two)[1]["commit"] == repository.two
    assert (root / "file").read_text() == "two", "what another node was given goes before what the branch is by now"


def test_what_cannot_be_had_is_one_line(agent, repository, tmp_path):
    empty = tmp_path / "empty.git"
    subprocess.run(["git", "init", "-q", "--bare", empty], check=True)
    for fields, said in (
        ({"ref": "nope"}, "there is no branch, tag or commit 'nope' in file://"),
        ({"ref": "0" * 40}, f"there is no commit '{'0' * 40}'"),
        ({"url": f"file://{tmp_path}/none"}, "does not appear to be a git repository"),
        ({"url": f"file://{empty}"}, "is empty"),
        ({"url": "http://user:pa55@127.0.0.1:1/x.git"}, "http://127.0.0.1:1/x.git"),
        ({"url": "--upload-pack=touch /tmp/x"}, "do not begin with '-'"),
    ):
        status, error = check_out(agent, repository, "failed", **fields)
        assert (status, error["type"]) == (400, "git")
        assert said in error["message"]
        assert "\n" not in error["message"]
        assert "pa55" not in error["message"]
    assert check_out(agent, repository, "../x")[1]["type"] == "unsafe_path"


class Guarded(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        wanted = "Basic " + base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()
        if self.headers.get("Authorization") != wanted:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="x"')
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def guarded(repository, tmp_path):
    """The repository behind HTTP, for the token only."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: Guarded(*a, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    repository.url = f"http://127.0.0.1:{server.server_port}/repo.git"
    yield repository
    server.shutdown()
    server.server_close()


def test_a_token_opens_a_private_repository_and_leaves_no_trace(agent, guarded):
    for token in ("", "wrong"):
        status, error = check_out(agent, guarded, "private", ref="main", token=token)
        assert (status, error["type"]) == (400, "git")
        assert "set GIT_TOKEN" in error["message"]
    status, answer = check_out(agent, guarded, "private", ref="main", token=TOKEN)
    assert (status, answer["commit"]) == (200, guarded.two), answer
    left = [path for root in (agent.home / "private", agent.state) for path in root.rglob("*") if path.is_file()]
    assert [path for path in left if TOKEN.encode() in path.read_bytes()] == []
    assert sorted(os.listdir(agent.state / "git")) == ["lock"]


@pytest.mark.parametrize("point", ["before", "made"])
def test_an_agent_killed_at_it_does_it_the_next_time(node, repository, point):
    node.start(faults=True)
    node.arm(f"agent.git.{point}")
    killing = threading.Thread(target=lambda: (node.reached(f"agent.git.{point}"), node.crash()))
    killing.start()
    with pytest.raises(ConnectionError):
        check_out(node, repository, "killed")
    killing.join()
    if point == "made":
        (node.home / "killed" / ".git" / "index.lock").touch()  # as a git that was killed leaves it
    node.start(generation=2)
    assert check_out(node, repository, "killed")[1]["commit"] == repository.two
    assert (node.home / "killed" / "file").read_text() == "two"
