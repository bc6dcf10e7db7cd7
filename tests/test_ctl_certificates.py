"""`amqpctl make_certificates`: what it makes is good for a broker and its clients, and for nobody else."""

from __future__ import annotations

import builtins
import os
import ssl
import sys
from pathlib import Path
from typing import Any

import pytest

from amqpd import ctl
from amqpd.config import load
from amqpd.ctl.certificates import FILES
from amqpd.server.runtime import Runtime
from tests.server.test_tls import TlsClient, port_of, refused, serve, sessions


@pytest.fixture
def folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A directory of certificates, and beside it the settings that were printed."""
    assert ctl.main(["-q", "make_certificates", str(tmp_path / "new" / "tls"), "--client", "shop",
                     "--host", "mq.example.org", "--host", "10.1.2.3"]) == 0
    settings = capsys.readouterr().out.replace("5671", "0")
    (tmp_path / "amqpd.toml").write_text('memory = true\nlisteners = ["127.0.0.1:0"]\n' + settings)
    return tmp_path / "new" / "tls"


def client_context(folder: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    context.verify_flags |= ssl.VERIFY_X509_STRICT      # as Python does from 3.13 on
    context.load_cert_chain(folder / "client.pem", folder / "client.key")
    return context


def test_the_files_are_for_their_owner_only(folder: Path) -> None:
    assert sorted(os.listdir(folder)) == sorted(FILES)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1", "mq.example.org", "10.1.2.3"])
def test_a_broker_with_the_printed_settings_serves_a_client_with_the_other_files(folder: Path, name: str) -> None:
    def talk(runtime: Runtime) -> None:
        with TlsClient(port_of(runtime), client_context(folder), name):
            certificate = sessions(runtime)[0].state.peer_certificate
            assert certificate.subject == "CN=shop" and certificate.issuer.startswith("CN=amqpd CA ")
        with refused():
            TlsClient(port_of(runtime), client_context(folder), "elsewhere.example.org")

    serve(load(str(folder.parents[1] / "amqpd.toml"), {}), talk)


def test_the_certificate_of_a_client_is_none_for_a_server(folder: Path, tmp_path: Path) -> None:
    def talk(runtime: Runtime) -> None:
        context = ssl.create_default_context(cafile=folder / "ca.pem")
        context.load_cert_chain(folder / "server.pem", folder / "server.key")
        with refused():
            TlsClient(port_of(runtime), context)

    serve(load(str(folder.parents[1] / "amqpd.toml"), {}), talk)


def test_no_file_is_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert ctl.main(["make_certificates", str(folder)]) == 74
    told = capsys.readouterr()
    assert told.err == (
        f"amqpctl: {folder}/ca.pem exists already: name another directory, or move it away\n") and not told.out
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert ctl.main(["make_certificates", str(tmp_path / "file" / "tls")]) == 74
    assert capsys.readouterr().err == (
        f"amqpctl: {tmp_path}/file/tls cannot be written: Not a directory; name another directory\n")


@pytest.mark.parametrize("option, value", [
    ("--client", ""), ("--client", "x" * 65), ("--host", "a..b"), ("--host", "")])
def test_a_name_that_is_none_is_wrong_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    assert ctl.main(["make_certificates", str(tmp_path / "tls"), option, value]) == 64
    assert option in capsys.readouterr().err and not (tmp_path / "tls").exists()


def test_without_the_library_one_line_says_how_to_install_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = builtins.__import__

    def without(name: str, *arguments: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "cryptography":
            raise ImportError(name)
        return found(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    assert ctl.main(["make_certificates", str(tmp_path / "tls")]) == 69
    assert capsys.readouterr().err == (
        "amqpctl: make_certificates needs the library cryptography: pip install 'amqpd[tls]'\n")
    assert not (tmp_path / "tls").exists()


def test_the_other_commands_do_not_load_the_library() -> None:
    program = "import sys, amqpd.ctl, amqpd.server.process; sys.exit('cryptography' in sys.modules)"
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", program]) == 0
