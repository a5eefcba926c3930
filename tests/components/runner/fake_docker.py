"""A stand-in for the docker command: containers are processes of this machine.

Its folder, FAKE_DOCKER, holds what it was asked (`calls`), what is running (`containers/ID`) and
how it shall behave: `layers` of the images, `images` that are here, `refuse-COMMAND` with what it
says then, `oom` for a container that was out of memory, `deaf` for those that ignore SIGTERM.
"""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

OPTIONS_WITH_VALUE = ("--cidfile", "--label", "--mount", "--user", "--env", "--network", "--gpus")


def main(folder: Path, words: list[str]) -> int:
    with (folder / "calls").open("a") as calls:
        calls.write(json.dumps(words) + "\n")
    refusal = folder / f"refuse-{words[0]}"
    if refusal.is_file():
        sys.stderr.write(refusal.read_text())
        return 125 if words[0] == "run" else 1
    if words[0] == "run":
        return run(folder, words[1:])
    if words[0] == "rm":
        return remove(folder / "containers" / words[-1])
    return answer(folder, words)


def answer(folder: Path, words: list[str]) -> int:
    """What is asked for and changes nothing."""
    if words[:2] == ["image", "inspect"]:
        images = folder / "images"
        if images.is_file() and words[-1] not in images.read_text().split():
            return 1
        print((folder / "layers").read_text())
    elif words[0] == "pull":
        (folder / "images").write_text(words[-1])
    elif words[0] == "info":
        print(os.environ.get("FAKE_RUNTIMES", '{"runc": {}}'))
    elif words[0] == "inspect":
        if not (folder / "containers" / words[-1]).is_file():
            sys.stderr.write(f"Error: No such object: {words[-1]}\n")
            return 1
        print("true" if (folder / "oom").is_file() else "false")
    elif words[0] == "ps":
        label = words[-1].removeprefix("label=")
        found = (folder / "containers").iterdir()
        print(*(one.name for one in found if one.read_text() == label), sep="\n")
    return 0


def run(folder: Path, words: list[str]) -> int:
    """Run a container to its end; it sees no environment but its own, and signals are passed on."""
    options: dict[str, list[str]] = {}
    environment = {"PATH": os.environ["PATH"]}
    while words[0].startswith("--"):
        name, equals, value = words.pop(0).partition("=")
        if not equals:
            assert name in OPTIONS_WITH_VALUE, name
            value = words.pop(0)
        options.setdefault(name, []).append(value)
    for one in options["--env"]:
        name, equals, value = one.partition("=")
        environment[name] = value if equals else os.environ[name]
    _image, _python, *command = words
    container = subprocess.Popen(
        [sys.executable, *command],
        env=environment,
        cwd=os.environ["FAKE_ROOT"],
        start_new_session=True,  # it outlives this command
    )
    is_deaf = (folder / "deaf").is_file()
    signal.signal(signal.SIGTERM, lambda *_: is_deaf or container.terminate())
    (folder / "containers" / str(container.pid)).write_text(options["--label"][0])
    Path(options["--cidfile"][0]).write_text(str(container.pid))
    status = container.wait()
    return 128 - status if status < 0 else status


def remove(container: Path) -> int:
    container.unlink(missing_ok=True)
    with suppress(ProcessLookupError):
        os.killpg(int(container.name), signal.SIGKILL)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(os.environ["FAKE_DOCKER"]), sys.argv[1:]))
