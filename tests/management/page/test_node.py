"""The page of the node: certificates, backup, checks and settings, and who sees which of them."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pika
import pytest
import trustme

from amqpd.config import File, Tls
from tests.management.page.conftest import Visitor, user_with
from tests.management.page.test_forms import errors
from tests.support.api import FREE, Api, running

CA = trustme.CA()


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A broker with a store, and with TLS."""
    folder = tmp_path_factory.mktemp("certificates")
    CA.cert_pem.write_to_path(str(folder / "ca.pem"))
    server = CA.issue_cert("localhost", common_name="the-server")
    (folder / "server.key").write_bytes(server.private_key_pem.bytes())
    (folder / "server.pem").write_bytes(server.cert_chain_pems[0].bytes())
    tls = Tls(listeners=(FREE,), certificate=File(folder / "server.pem"), key=File(folder / "server.key"),
              ca=File(folder / "ca.pem"), client_certificates="optional")
    with running(memory=False, data_dir=tmp_path_factory.mktemp("data"), tls=tls) as found:
        yield found


def test_certificates_of_listeners_and_clients_are_shown_with_their_last_day(api: Api, guest: Visitor) -> None:
    assert "No client that is connected has sent a certificate." in guest.text("/node")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    CA.configure_trust(context)
    CA.issue_cert("client@example.com", common_name="<i>shop</i>").configure_cert(context)
    with pika.BlockingConnection(pika.ConnectionParameters(
            "127.0.0.1", api.runtime.tls_addresses[0][1], ssl_options=pika.SSLOptions(context, "localhost"))):
        found = api.get("/amqpd/certificates")
        shown = guest.text("/node")
    assert len(found["listeners"]) == 1 and "file" not in found["listeners"][0]
    assert found["clients"][0]["connections"] == 1 and "shop" in found["clients"][0]["subject"]
    assert "the-server" in shown and "days left" in shown
    assert "<i" not in shown.partition("<main")[2].replace("<input", "") and "&lt;i" in shown


def test_a_backup_is_begun_and_its_end_is_shown(api: Api, guest: Visitor, tmp_path: Path) -> None:
    assert guest.post("/node/backup", "backup", to=str(tmp_path / "copy.db")).status == 204
    latest = api.get("/amqpd/backup")["latest"]
    assert (latest["to"], latest["error"]) == (str(tmp_path / "copy.db"), "")
    assert (tmp_path / "copy.db").read_bytes()[:6] == b"SQLite"
    assert "copy.db was made" in guest.text("/node")


@pytest.mark.parametrize(("to", "error"), [
    ("", "Enter the path of a new file"), ("relative.db", "Enter an absolute path"), ("/nowhere/at/all/x.db", "")])
def test_a_backup_that_cannot_be_made_is_told(guest: Visitor, to: str, error: str) -> None:
    reply = guest.post("/node/backup", "backup", to=to)
    found = errors(reply.body)
    assert reply.status == 422 and list(found) == ["to"] and found["to"].startswith(error)
    if not error:
        assert "has failed" in guest.text("/node")


def test_checks_are_carried_out_when_asked_for(guest: Visitor) -> None:
    assert "no alarm is raised" not in guest.text("/node")
    assert "no alarm is raised" in guest.text("/node?checks=1")


def test_settings_are_for_administrators_and_have_no_secrets(api: Api, guest: Visitor) -> None:
    shown = guest.text("/node")
    assert "<code>default_password</code></dt><dd><code>***</code>" in shown and "quorum_queue" in shown
    watcher, owner = user_with(api, "watches", "monitoring"), user_with(api, "owns", "management")
    shown = watcher.text("/node")
    assert "the-server" in shown and "default_password" not in shown and "Copy the store" not in shown
    assert watcher.post("/node/backup", to="/tmp/x").status == 401 and owner.get("/node").status == 401


def test_without_a_store_there_is_no_backup() -> None:
    with running() as api:
        guest = Visitor(api)
        assert "There is no store" in guest.text("/node") and "Copy the store" not in guest.text("/node")
        assert "it has no store" in errors(guest.post("/node/backup", "backup", to="/tmp/none.db").body)["to"]
        assert api.ask("GET", "/amqpd/backup").body == {"latest": None}
