"""A real ssh-agent signs: what it signs is what the key file signs, and what goes wrong with it has a name."""

import socket
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest

from migrate.bundle import layout
from migrate.custody.signing import keys, ssh_agent, ssh_signatures
from migrate.custody.signing.bundle_signatures import sign_bundle, signatures
from migrate.custody.signing.ssh_agent import Agent
from migrate.errors import DamageError, NotAllowedError, UnreachableError, UsageError
from tests.cli.conftest import call


@pytest.fixture
def running(monkeypatch):
    """The socket of an agent of our own; a key that must be confirmed is refused."""
    with tempfile.TemporaryDirectory() as directory:  # a socket's path must be short
        path = Path(directory) / "agent"
        environment = {"PATH": "/usr/bin:/bin", "SSH_ASKPASS": "/bin/false", "SSH_ASKPASS_REQUIRE": "force"}
        process = subprocess.Popen(
            ["ssh-agent", "-D", "-a", path], stdout=subprocess.PIPE, env=environment, text=True
        )
        process.stdout.readline()  # it listens when it has said where
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        yield path
        process.terminate()
        process.wait()
        process.stdout.close()


def add(path, *options):
    subprocess.run(["ssh-add", "-q", *options, path], check=True, capture_output=True)


def test_it_signs_what_the_file_signs_and_what_ssh_keygen_signs_by_it(running, location, make_key, tmp_path):
    path, other = make_key.path_of("provider"), make_key.path_of("customer")
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-N", "", "-f", tmp_path / "rsa"], check=True)
    for one in (tmp_path / "rsa", other, path):
        add(one)
    signer = ssh_agent.load(path.with_name("provider.pub"))
    assert signer.public == make_key("provider").public
    signed = sign_bundle(location, signer)
    by_agent = location.read(signed.key)
    assert by_agent == ssh_signatures.sign(
        make_key("provider"), ssh_signatures.BUNDLE, [location.read(layout.TAG_MANIFEST)]
    )
    assert signatures(location).of(layout.TAG_MANIFEST) == [signer.public]
    file = tmp_path / "manifest"
    file.write_bytes(location.read(layout.TAG_MANIFEST))
    argv = [
        "ssh-keygen",
        "-q",
        "-Y",
        "sign",
        "-f",
        path.with_name("provider.pub"),
        "-n",
        ssh_signatures.BUNDLE,
        file,
    ]
    subprocess.run(argv, check=True, capture_output=True)
    assert (tmp_path / "manifest.sig").read_bytes() == by_agent


def test_what_the_agent_refuses_or_has_not_got(running, make_key):
    path = make_key.path_of("provider")
    public = path.with_name("provider.pub")
    with pytest.raises(UsageError, match="has not got the key SHA256:"):
        ssh_agent.load(public)
    add(path, "-c")
    signer = ssh_agent.load(public)
    with pytest.raises(NotAllowedError, match="does not sign with SHA256:"):
        signer.sign(b"data")
    add(path)
    subprocess.run(["ssh-add", "-q", "-D"], check=True, capture_output=True)
    with pytest.raises(NotAllowedError):
        signer.sign(b"data")
    with pytest.raises(UsageError, match="no Ed25519 key"):
        ssh_agent.load(path)


def test_without_an_agent_that_is_said(make_key, monkeypatch, tmp_path):
    public = make_key.path_of("provider").with_name("provider.pub")
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with pytest.raises(UsageError, match="no ssh-agent is running"):
        ssh_agent.load(public)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "nothing"))
    with pytest.raises(UnreachableError, match="does not answer"):
        ssh_agent.load(public)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", UnreachableError),
        (b"\x00\x00\x00\x05\x0e", UnreachableError),
        (b"\xff\xff\xff\xff\x0e", UnreachableError),
        (b"\x00\x00\x00\x01\x05", NotAllowedError),
        (b"\x00\x00\x00\x1b\x0e\x00\x00\x00\x16\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x03bad", DamageError),
    ],
)
def test_an_agent_that_answers_nonsense_signs_nothing(provider, answer, error):
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listener:
        path = f"{directory}/agent"
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(error):
            Agent(path).sign(provider.public, b"data")
        thread.join()


def test_the_commands_sign_by_the_agent_without_the_passphrase(running, location, make_key, tmp_path):
    mine, bundle = tmp_path / "mine", location.location
    secret = {"MOVEOUT_PASSPHRASE": "open sesame"}
    made = call("keys", "init", mine, "--name", "Acme", "--agent", env=secret)
    assert (made.code, f"--key {mine}.pub" in made.out) == (0, True), made.err
    assert [one.name for one in Agent(str(running)).public_keys()] == ["Acme"]
    with pytest.raises(UsageError, match="has a passphrase"):
        keys.load(mine, lambda: None)
    both = call("sign", bundle, "--key", f"{mine}.pub", "--key", make_key.path_of("provider"), "--json")
    assert (both.code, len(both.json["result"]["signatures"])) == (0, 2), both.err
    assert call("custody", "verify", bundle).code == 0
    (tmp_path / "signers").write_text(call("keys", "show", "--key", f"{mine}.pub").out)
    assert call("verify", bundle, "--signers", tmp_path / "signers").code == 0
    running.unlink()
    assert call("sign", bundle, "--key", f"{mine}.pub").code == 5
    assert call("keys", "init", tmp_path / "other", "--agent", env={"SSH_AUTH_SOCK": ""}).code == 2
    assert not (tmp_path / "other").exists()
