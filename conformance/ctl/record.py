"""Record what rabbitmqctl and rabbitmq-diagnostics print for each line of `words.txt`, on a new node.

    python conformance/rabbitmq.py --port 5680 --dir /tmp/rabbit        # a new folder, in another terminal
    python conformance/ctl/record.py /tmp/rabbit > conformance/ctl/recorded.json

The answers are kept with `{node}`, `{port}`, `{pid}` and `{dir}` in the place of the node's own, without colours, and
without the usage that follows a refusal. A line takes about two seconds. tests/test_ctl_words.py says the same lines to
amqpctl and compares.
"""
from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
PACKAGE = Path("/usr/lib/rabbitmq/lib")
DIAGNOSTICS = "D"
LONGEST = 4_000
DEFINITIONS = {
    "vhosts": [{"name": "import"}],
    "queues": [
        {"name": "orders", "vhost": "import", "durable": True, "auto_delete": False, "arguments": {"x-max-length": 5}}],
    "exchanges": [
        {"name": "events", "vhost": "import", "type": "topic", "durable": True, "auto_delete": False, "internal": False,
         "arguments": {}}],
    "bindings": [
        {"source": "events", "vhost": "import", "destination": "orders", "destination_type": "queue",
         "routing_key": "a.#", "arguments": {}}],
}


def lines() -> Iterator[str]:
    """Yield the lines of `words.txt`."""
    for line in (HERE / "words.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            yield line


def words_of(line: str, places: dict[str, str]) -> tuple[str, list[str]]:
    """Return the program and its arguments."""
    for name, value in places.items():
        line = line.replace(f"{{{name}}}", value)
    words = shlex.split(line)
    return ("rabbitmq-diagnostics", words[1:]) if words[0] == DIAGNOSTICS else ("rabbitmqctl", words)


def write_files(folder: Path, pid: str) -> None:
    """Write the files that the lines name."""
    folder.mkdir(exist_ok=True)
    (folder / "definitions.json").write_text(json.dumps(DEFINITIONS))
    (folder / "node.pid").write_text(f"{pid}\n")
    (folder / "garbage.pid").write_text("garbage\n")
    (folder / "exported.json").unlink(missing_ok=True)


def without_places(text: str, places: dict[str, str]) -> str:
    """Return an answer as it is kept."""
    text = re.sub(r"\x1b\[\d*m", "", text)
    for name, value in places.items():
        text = re.sub(rf"(?<!\d){re.escape(value)}(?!\d)", f"{{{name}}}", text)
    return text[:LONGEST]


def without_usage(text: str) -> str:
    """Return the refusal, without the usage of the command that follows it."""
    return re.split(r"\nArguments given:|\n\s*Usage\n", text)[0]


def main(directory: Path) -> None:
    """Say all lines to the node in this folder, and print the answers as JSON."""
    environment = json.loads((directory / "environment.json").read_text())
    scripts = sorted(PACKAGE.glob("rabbitmq_server-*/sbin"))[-1]
    places = {
        "dir": str(directory / "words"), "node": environment["RABBITMQ_NODENAME"],
        "port": environment["RABBITMQ_NODE_PORT"], "pid": (directory / "ready").read_text().split()[1]}
    write_files(Path(places["dir"]), places["pid"])
    answers = []
    for line in lines():
        program, words = words_of(line, places)
        done = subprocess.run(
            [scripts / program, *([] if places["node"] in words else ["--node", places["node"]]), *words],
            env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        answers.append({
            "line": line, "exit_code": done.returncode, "out": without_places(done.stdout, places),
            "err": without_usage(without_places(done.stderr, places)).strip()})
        print(f"{done.returncode:3} {line}", file=sys.stderr)
    json.dump(answers, sys.stdout, indent=1, ensure_ascii=False)
    print()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
