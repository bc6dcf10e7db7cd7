"""A broker with TLS as its users run it: certificates of amqpctl, SIGHUP, `status`."""

from __future__ import annotations

import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pika
import pytest

from amqpd import ctl
from tests.crash.broker_process import ROOT, BrokerProcess

NAME = "ready.example.org"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    assert ctl.main(["-q", "make_certificates", str(tmp_path / "tls")]) == 0
    return tmp_path / "tls"


@pytest.fixture
def broker(folder: Path, tmp_path: Path) -> Iterator[BrokerProcess]:
    """A broker whose users may log in with a certificate instead of a password."""
    variables = {
        "AMQPD_TLS_LISTENERS": "127.0.0.1:0", "AMQPD_TLS_CERTIFICATE": str(folder / "server.pem"),
        "AMQPD_TLS_KEY": str(folder / "server.key"), "AMQPD_TLS_CA": str(folder / "ca.pem"),
        "AMQPD_TLS_CLIENT_CERTIFICATES": "optional", "AMQPD_AUTH_MECHANISMS": "PLAIN,EXTERNAL",
        "AMQPD_LOGIN_CERTIFICATE_NAME": "common_name"}
    started = BrokerProcess(tmp_path / "data", tmp_path / "log", variables=variables, level="info")
    with started.wait_until_ready() as running:
        yield running
        assert running.stop() == 0


def context(folder: Path, *, has_certificate: bool) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=folder / "ca.pem")
    if has_certificate:
        made.load_cert_chain(folder / "client.pem", folder / "client.key")
    return made


def test_sighup_has_the_certificates_read_again(broker: BrokerProcess, folder: Path, tmp_path: Path) -> None:
    options = pika.SSLOptions(context(folder, has_certificate=False), "localhost")
    parameters = pika.ConnectionParameters("127.0.0.1", broker.tls_port, ssl_options=options)
    with pika.BlockingConnection(parameters) as connection:
        assert ctl.main(["-q", "make_certificates", str(tmp_path / "new"), "--host", NAME]) == 0
        for name in ("server.pem", "server.key"):
            (folder / name).write_bytes((tmp_path / "new" / name).read_bytes())
        broker.signal(signal.SIGHUP)
        broker.wait_for_line("the certificates have been read again, for new connections")
        connection.channel().queue_declare("still there")
    (folder / "ca.pem").write_bytes((tmp_path / "new" / "ca.pem").read_bytes())
    renewed = pika.SSLOptions(context(folder, has_certificate=False), NAME)
    pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", broker.tls_port, ssl_options=renewed)).close()


def test_status_and_lists_tell_of_tls(broker: BrokerProcess, folder: Path, tmp_path: Path) -> None:
    def told(*arguments: str) -> str:
        program = "import sys; from amqpd.ctl import main; sys.exit(main())"
        return subprocess.run(
            [sys.executable, "-c", program, "-q", "--data-dir", str(tmp_path / "data"), *arguments],
            cwd=ROOT, check=True, timeout=30, capture_output=True, text=True).stdout

    options = pika.SSLOptions(context(folder, has_certificate=True), "localhost")
    with pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", broker.tls_port, ssl_options=options)):
        listed = told("list_connections", "ssl", "ssl_protocol", "peer_cert_subject", "-s").split("\n")[0].split("\t")
    assert listed == ["true", "tlsv1.3", "CN=guest"]
    status = told("status")
    assert f"port: {broker.tls_port}, protocol: amqp/ssl, purpose: AMQP 0-9-1 over TLS" in status
    assert f"tls.certificate: {folder}/server.pem, for localhost, " in status and ": in 36" in status
