"""The images that the tests' cluster runs, as docker archives for containerd and kind; made anew only when their sources changed."""

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

PAUSE = "localhost/pause:1"
BASE = "localhost/python:base"
POSTGRES = "localhost/postgres:test"
WORKER = "localhost/pipelinejob-worker:test"
OPERATOR = "localhost/pipelinejob-operator:test"
GATEWAY = "localhost/pipelinejob-gateway:test"

_HERE = Path(__file__).resolve().parent / "images"
_PROJECT = _HERE.parents[2]
_LOCKS = [f"requirements/{name}.txt" for name in ("build", "worker", "operator", "gateway")]
_INPUTS = ["Dockerfile", ".dockerignore", "scripts/image.sh", "pyproject.toml", "README.md", "LICENSE", "worker", "operator", *_LOCKS]
_BUILD = {
    "docker": ["docker", "build"],
    "podman": ["podman", "build", "--layers"],
    "buildah": ["buildah", "bud", "--layers", "--isolation", "chroot", "--network", "host"],
}
_ANSWERS = {"docker": ["docker", "info"], "podman": ["podman", "info"], "buildah": ["buildah", "--version"]}


class ImageError(Exception):
    """An image could not be made; the message holds the last words of the tool that failed."""


def archives(cache: Path, engine: str | None = None) -> list[Path]:
    """Make what is missing or out of date and return the archives in `cache`: ours, Postgres and, by buildah alone, pause.

    `engine` is docker, podman or buildah; by default the first that answers. Docker and Podman start from public images; buildah, which
    serves machines without a registry, starts from a base that debootstrap makes (BASE_IMAGE names another). Raises ImageError.
    """
    engine = engine or _first_engine()
    cache.mkdir(parents=True, exist_ok=True)
    with _alone(cache):
        base = os.environ.get("BASE_IMAGE") or (BASE if engine == "buildah" else None)
        inputs = [_PROJECT / path for path in _INPUTS]
        project = {name: _archive(cache, engine, name, base, *inputs) for name in (WORKER, OPERATOR, GATEWAY)}
        postgres = _archive(cache, engine, POSTGRES, base, _HERE / "postgres")
        made = [*project.values(), postgres]
        if base == BASE and not all(path.exists() for path in made):
            _make_base(cache)
        if not all(path.exists() for path in project.values()):
            # image.sh builds all three; what did not change comes from the engine's own cache of layers.
            settings = {"ENGINE": engine, "REGISTRY": "localhost", "TAG": "test"} | ({"BASE_IMAGE": base} if base else {})
            _run([str(_PROJECT / "scripts/image.sh")], settings)
            for name, path in project.items():
                _save(engine, name, path)
        if not postgres.exists():
            _build(engine, POSTGRES, _HERE / "postgres", *(["--build-arg", f"BASE_IMAGE={base}"] if base else []))
            _save(engine, POSTGRES, postgres)
        if engine == "buildah":
            made.append(_pause(cache))
        return made


def _first_engine() -> str:
    for engine, question in _ANSWERS.items():
        if shutil.which(engine) and subprocess.run(question, capture_output=True, timeout=30).returncode == 0:
            return engine
    raise ImageError("neither docker nor podman nor buildah answers: start Docker, or install buildah and debootstrap")


def _make_base(cache: Path) -> None:
    """The local stand-in for the public Python image: this machine's own distribution, from the mirror that its apt uses."""
    archive = _archive(cache, "buildah", BASE, None, _HERE / "base")
    if archive.exists():
        if subprocess.run(["buildah", "inspect", "--type", "image", BASE], capture_output=True).returncode:
            _run(["buildah", "pull", "--quiet", f"docker-archive:{archive}"])
        return
    if os.geteuid() != 0:
        raise ImageError("without Docker or Podman the base image is made by debootstrap, which needs root")
    work = cache / "base"
    rootfs = work / "rootfs"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    mirror, codename = _mirror()
    _run(["debootstrap", "--variant=minbase", "--include=python3,python3-venv,ca-certificates", codename, str(rootfs), mirror])
    unused = ("dev", "usr/share/doc", "usr/share/locale", "usr/share/man", "var/cache/apt", "var/lib/apt/lists", "var/log")
    leave = [f"--exclude=./{path}/*" for path in unused]
    _run(["tar", "--create", "--file", str(work / "rootfs.tar"), "--directory", str(rootfs), "--numeric-owner", *leave, "."])
    _build("buildah", BASE, _HERE / "base", context=work)
    shutil.rmtree(work)
    _save("buildah", BASE, archive)


def _mirror() -> tuple[str, str]:
    """Address and release name of this machine's own distribution, as apt is configured."""
    listed = _run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"])
    codename = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    for line in listed.splitlines():
        address, release, component = line.split()
        if (release, component) == (codename, "main"):
            return address, codename
    raise ImageError(f"apt on this machine has no source for {codename} main, from which the base image could be made")


def _pause(cache: Path) -> Path:
    archive = _archive(cache, "buildah", PAUSE, None, _HERE / "pause")
    if not archive.exists():
        work = cache / "pause"
        work.mkdir(exist_ok=True)
        _run(["gcc", "-static", "-Os", "-s", "-o", str(work / "pause"), str(_HERE / "pause/pause.c")])
        _build("buildah", PAUSE, _HERE / "pause", context=work)
        shutil.rmtree(work)
        _save("buildah", PAUSE, archive)
    return archive


def _archive(cache: Path, engine: str, name: str, base: str | None, *inputs: Path) -> Path:
    """Where the archive of an image lies: its name changes with what the image is made of."""
    digest = hashlib.sha256(f"{engine} {base}".encode())
    for path in _files(inputs):
        digest.update(f"\0{path.relative_to(_PROJECT)}\0{path.stat().st_mode}\0".encode() + path.read_bytes())
    stem = name.removeprefix("localhost/").replace(":", "-")
    return cache / f"{stem}-{digest.hexdigest()[:16]}.tar"


def _files(inputs: tuple[Path, ...]) -> Iterator[Path]:
    for path in inputs:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and "__pycache__" not in file.parts and not any(part.endswith(".egg-info") for part in file.parts):
                yield file


def _build(engine: str, name: str, folder: Path, *options: str, context: Path | None = None) -> None:
    _run([*_BUILD[engine], "--file", str(folder / "Dockerfile"), "--tag", name, *options, str(context or folder)])


def _save(engine: str, name: str, archive: Path) -> None:
    """Write the image's archive, whole or not at all, and remove the ones that it replaces."""
    part = archive.with_suffix(".part")
    part.unlink(missing_ok=True)
    if engine == "buildah":
        _run(["buildah", "push", "--quiet", name, f"docker-archive:{part}:{name}"])
    else:
        _run([engine, "save", *(["--format", "docker-archive"] if engine == "podman" else []), "--output", str(part), name])
    stem = archive.name.rpartition("-")[0]
    for old in archive.parent.glob(f"{stem}-*.tar"):
        old.unlink()
    part.rename(archive)


def _run(command: list[str], settings: Mapping[str, str] | None = None) -> str:
    """Run a tool and return what it printed; at most half an hour."""
    try:
        environment = os.environ | (settings or {})
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=1800)
    except FileNotFoundError:
        raise ImageError(f"{command[0]} is missing; install it") from None
    except subprocess.TimeoutExpired:
        raise ImageError(f"{' '.join(command)} took more than half an hour") from None
    if done.returncode:
        raise ImageError(f"{' '.join(command)} failed:\n" + (done.stdout + done.stderr)[-4000:])
    return done.stdout


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """One process at a time makes images in a cache; another waits."""
    with (cache / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
