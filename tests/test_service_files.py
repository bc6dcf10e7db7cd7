"""The unit of systemd and the files of the container image, as far as they can be checked without either."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
from pathlib import Path

import pytest

from amqpd import exit_codes
from amqpd.config import load
from amqpd.server.systemd import AMQPS_NAMES, HTTP_NAMES

CONFIG = Path(__file__).parents[1] / "config"
CONTAINER = CONFIG / "container"
CONTAINERFILE = (CONTAINER / "Containerfile").read_text()


def unit(name: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str        # type: ignore[assignment,method-assign]  # as configparser's page has it
    parser.read(CONFIG / "systemd" / name)
    return parser


def test_the_unit_waits_for_the_broker_and_does_not_restart_what_cannot_start() -> None:
    service = unit("amqpd.service")["Service"]
    assert (service["Type"], service["ExecReload"]) == ("notify", "/bin/kill -HUP $MAINPID")
    assert service["Restart"] == "on-failure"
    codes = (exit_codes.EXIT_USAGE, exit_codes.EXIT_DATA, exit_codes.EXIT_TEMPORARY, exit_codes.EXIT_CONFIG)
    assert service["RestartPreventExitStatus"].split() == [str(code) for code in codes]
    assert "AF_UNIX" in service["RestrictAddressFamilies"] and service["ProtectSystem"] == "strict"
    assert f"--data-dir /var/lib/{service['StateDirectory']}" in service["ExecStart"]


def test_the_socket_unit_names_its_sockets_as_the_broker_reads_them() -> None:
    text = (CONFIG / "systemd/amqpd.socket").read_text()
    assert unit("amqpd.socket")["Socket"]["FileDescriptorName"] not in (*AMQPS_NAMES, *HTTP_NAMES)
    for name in (AMQPS_NAMES[0], HTTP_NAMES[0]):
        assert f"FileDescriptorName={name} " in text or f"FileDescriptorName={name}\n" in text


def test_the_image_is_as_people_know_rabbitmqs() -> None:
    for line in ("USER 999:999", "VOLUME /var/lib/amqpd", 'CMD ["amqpctl", "-q", "ping"]', 'CMD ["amqpd"]'):
        assert line in CONTAINERFILE
    assert set(re.findall(r"\d{4,5}", re.findall(r"EXPOSE (.*)", CONTAINERFILE)[0])) >= {
        "5671", "5672", "15672", "15692"}
    for sources in re.findall(r"^COPY (?:--chmod=\d+ )?(?!--)(.+) \S+$", CONTAINERFILE, re.MULTILINE):
        assert all((CONFIG.parent / source).exists() for source in sources.split())
    assert os.access(CONTAINER / "entrypoint.sh", os.X_OK)


def test_the_images_defaults_serve_every_address_and_files_override_them(tmp_path: Path) -> None:
    defaults = str(CONTAINER / "defaults.conf")
    config = load(None, {}, rabbitmq_conf=[defaults])
    assert config.listeners == ("0.0.0.0:5672", "[::]:5672") and config.loopback_users == ()
    assert "0.0.0.0:15672" in config.management.listeners
    assert "0.0.0.0:15692" in config.management.metrics_listeners
    assert load(None, {"RABBITMQ_NODE_PORT": "7"}, rabbitmq_conf=[defaults]).listeners == ("0.0.0.0:7", "[::]:7")
    mine = tmp_path / "rabbitmq.conf"
    mine.write_text("listeners.tcp.default = 127.0.0.1:8\nloopback_users.guest = true\n")
    config = load(None, {}, rabbitmq_conf=[defaults, str(mine)])
    assert (config.listeners, config.loopback_users) == (("127.0.0.1:8",), ("guest",))


@pytest.fixture
def bin_dir(tmp_path: Path) -> Path:
    """A directory with programs that print how they are called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("amqpd", "amqpctl"):
        program = folder / name
        program.write_text('#!/bin/sh\necho "$(basename "$0") $*"\n')
        program.chmod(0o755)
    return folder


def entry(bin_dir: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(CONTAINER / "entrypoint.sh"), *arguments], capture_output=True, text=True, timeout=30,
        env={"PATH": f"{bin_dir}:{os.environ['PATH']}", "IMAGE_DEFAULTS": "D", **variables})


def test_the_image_starts_the_broker_with_the_files_of_rabbitmq_in_order(bin_dir: Path, tmp_path: Path) -> None:
    for arguments in ((), ("amqpd",), ("amqpd", "serve")):
        assert entry(bin_dir, *arguments).stdout == "amqpd serve --rabbitmq-conf D\n"
    folder = tmp_path / "conf.d"
    folder.mkdir()
    for name in ("20.conf", "10.conf"):
        (folder / name).touch()
    done = entry(
        bin_dir, "amqpd", "--log-level", "debug", RABBITMQ_CONFIG_FILE="F", RABBITMQ_CONFIG_FILES=f"{folder}/*")
    assert done.stdout == (
        "amqpd serve --rabbitmq-conf D --rabbitmq-conf F --log-level debug "
        f"--rabbitmq-conf {folder}/10.conf --rabbitmq-conf {folder}/20.conf\n")


def test_the_image_runs_other_commands_and_programs_as_they_are(bin_dir: Path) -> None:
    assert entry(bin_dir, "amqpd", "store", "check").stdout == "amqpd store check\n"
    assert entry(bin_dir, "amqpctl", "-q", "ping").stdout == "amqpctl -q ping\n"


def test_the_image_refuses_the_variables_that_rabbitmqs_refuses(bin_dir: Path) -> None:
    done = entry(bin_dir, RABBITMQ_DEFAULT_PASS_FILE="f", RABBITMQ_SSL_CERTFILE="g", RABBITMQ_SSL_DEPTH="")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[:3] == [
        "error: RABBITMQ_DEFAULT_PASS_FILE is set but deprecated", "error: RABBITMQ_SSL_CERTFILE is set but deprecated",
        "error: deprecated environment variables detected"]
