"""The image of the example app: built from the generated Dockerfile without a daemon, inspected and run."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from servers import wait_until

ROOT = Path(__file__).parents[2]
BASE = "localhost/python-base:1"
PIP_SECRET = "PASSWORD-of-the-index-8472"
PORT = 8443


class Buildah:
    """buildah with separate storage, which ``clean`` removes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        storage = ("--storage-driver", "vfs", "--root", str(folder / "store"), "--runroot", str(folder / "run"))
        self._command = ("buildah", *storage)

    def __call__(self, *arguments: str) -> str:
        """Run buildah and return its output.

        :raises RuntimeError: it failed.
        """
        done = subprocess.run(
            [*self._command, *arguments], cwd=self.folder, capture_output=True, text=True, timeout=900, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{done.stdout}\n{done.stderr}"[-4000:])
        return done.stdout

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start buildah in a new process group, which the caller must end."""
        return subprocess.Popen([*self._command, *arguments], cwd=self.folder, process_group=0)

    def add_base(self) -> str:
        """Create the base image with Debian's Python; return its minor version, such as ``3.11``."""
        tree = self.folder / "base"
        packages = "--include=python3,python3-venv,ca-certificates"
        subprocess.run(["debootstrap", "--variant=minbase", packages, "stable", str(tree)], check=True, timeout=900)
        # Images have no devices; the runtime creates them.
        shutil.rmtree(tree / "dev")
        (tree / "dev").mkdir()
        self("from", "--name", "base", "scratch")
        self("add", "--quiet", "base", str(tree), "/")
        self("commit", "--quiet", "base", BASE)
        self("rm", "base")
        (found,) = [each.name for each in (tree / "usr" / "bin").iterdir() if re.fullmatch(r"python3\.\d+", each.name)]
        shutil.rmtree(tree)
        return found.removeprefix("python")

    def build(self, project: Path, wheels: Path, *options: str) -> None:
        """Build the generated Dockerfile; a secret with pip's configuration allows only these wheels."""
        secret = self.folder / "pip.conf"
        secret.write_text(f"[global]\nno-index = true\nfind-links = /mnt\n# {PIP_SECRET}\n")
        generated = project / "deploy" / "docker"
        self(
            *("bud", "--quiet", "--isolation", "chroot", "--format", "docker"),
            *("--ignorefile", str(generated / "Dockerfile.dockerignore")),
            *("--build-arg", f"BASE_IMAGE={BASE}", "--secret", f"id=pip.conf,src={secret}"),
            *("--volume", f"{wheels}:/mnt:ro", "--file", str(generated / "Dockerfile"), *options),
            str(project),
        )

    def clean(self) -> None:
        """Remove every container, image and layer."""
        self("rm", "--all")
        shutil.rmtree(self.folder / "store", ignore_errors=True)


PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")


def build_wheel(folder: Path) -> None:
    """Build the wheel of this checkout."""
    subprocess.run([*PIP, "wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT)], check=True, timeout=300)


def download_wheels(folder: Path, python: str, requirements: list[str]) -> None:
    """Download wheels for the Python of the base image."""
    platforms = [f"--platform=manylinux{each}_x86_64" for each in ("2014", "_2_17", "_2_28", "_2_34")]
    options = ["--only-binary=:all:", "--python-version", python, *platforms, "--find-links", str(folder)]
    subprocess.run([*PIP, "download", "--dest", str(folder), *options, *requirements], check=True, timeout=600)


def pinned(wheels: Path, extras: dict[str, str]) -> list[str]:
    """Return a requirement for each wheel, with its hash.

    :param extras: the extras of some packages, such as ``[metrics]``.
    """
    found = []
    for path in sorted(wheels.glob("*.whl")):
        name, version = path.name.split("-")[:2]
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        found.append(f"{name}{extras.get(name, '')}=={version} --hash=sha256:{digest}")
    return found


class Image:
    """The content of an image, as pushed to a registry."""

    def __init__(self, buildah: Buildah, name: str) -> None:
        folder = buildah.folder / f"oci-{name.rpartition('/')[2].replace(':', '-')}"
        buildah("push", "--quiet", name, f"oci:{folder}:image")
        self._blobs = folder / "blobs" / "sha256"
        index = json.loads((folder / "index.json").read_text())
        self._manifest = self._blob(index["manifests"][0]["digest"])
        self.config: dict[str, Any] = self._blob(self._manifest["config"]["digest"])
        self.layers = [self._blobs / each["digest"].partition(":")[2] for each in self._manifest["layers"]]
        self.bytes = sum(each["size"] for each in self._manifest["layers"])

    def _blob(self, digest: str) -> Any:
        return json.loads((self._blobs / digest.partition(":")[2]).read_text())

    def members(self) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
        """Yield each file of each layer, and its content."""
        for layer in self.layers:
            with tarfile.open(layer) as archive:
                for member in archive:
                    file = archive.extractfile(member) if member.isreg() else None
                    yield member, file.read() if file else b""


class Container:
    """A running container with its own network."""

    def __init__(self, process: subprocess.Popen[bytes], uid: str, authority: Path) -> None:
        self._process = process
        self._uid = uid
        self._authority = authority

    @property
    def _children(self) -> list[str]:
        return Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()

    @property
    def _first(self) -> str:
        """The process id of the container's first process on this machine."""
        return self._children[0]

    def _enter(self, namespaces: str) -> list[str]:
        return ["nsenter", namespaces, f"--target={self._first}"]

    def inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the image in the container, as the same user."""
        return subprocess.run(
            [
                *self._enter("--all"),
                f"--root=/proc/{self._first}/root",
                f"--setuid={self._uid}",
                f"--setgid={self._uid}",
                "--",
                *command,
            ],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def status(self) -> dict[str, str]:
        """Return the kernel's status of the first process: its ids and capabilities."""
        lines = Path(f"/proc/{self._first}/status").read_text().splitlines()
        return {name: " ".join(value.split()) for name, _, value in (line.partition(":") for line in lines)}

    def curl(self, *arguments: str) -> str:
        """Run curl of this machine in the network of the container, and return its output."""
        done = subprocess.run(
            [*self._enter("--net"), "--", "curl", "--silent", "--cacert", str(self._authority), *arguments],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        return done.stdout

    def is_ready(self) -> bool:
        """Return True if the container responds or has ended."""
        if self._process.poll() is not None:
            return True
        return bool(self._children) and self.curl(f"https://localhost:{PORT}/livez").startswith("{")

    def stop(self) -> int:
        """Send the signal of STOPSIGNAL; return the exit status."""
        os.kill(int(self._first), 15)
        return self._process.wait(30)


@contextmanager
def running(root: Path, config: dict[str, Any], environ: dict[str, str], state: Path, tls: Path) -> Iterator[Container]:
    """Run an image as Kubernetes would: read-only root, ``/tmp`` in memory, its user, no capabilities, no privileges.

    It has its own namespaces for mounts, processes, IPC and network; the last has only loopback.

    :param root: the root file system of the image.
    :param state: the directory that is mounted at ``/mnt``.
    :param tls: the directory that is mounted at ``/run/tls``.
    """
    uid, gid = config["User"].split(":")
    values = [*config["Env"], *(f"{name}={value}" for name, value in environ.items())]
    script = """
        root=$1; state=$2; tls=$3; shift 3
        mount --bind "$root" "$root"
        mkdir -p "$root/run/tls"
        mount --bind "$tls" "$root/run/tls"
        mount --bind "$state" "$root/mnt"
        mount -t tmpfs -o size=64m,mode=1777,nosuid,nodev tmpfs "$root/tmp"
        mount -t tmpfs -o size=1m,mode=0755,nosuid tmpfs "$root/dev"
        for each in null urandom; do touch "$root/dev/$each"; mount --bind "/dev/$each" "$root/dev/$each"; done
        mount -t proc proc "$root/proc"
        mount -o remount,ro,bind "$root"
        ip link set lo up
        exec "$@"
    """
    enter = [sys.executable, str(Path(__file__).with_name("enter_image.py")), str(root), uid, gid, config["WorkingDir"]]
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--ipc", "--net", "sh", "-ec", script, "sh"]
    log = state.parent / "container.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, str(root), str(state), str(tls), *enter, *values, "--", *config["Entrypoint"], *config["Cmd"]],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        container = Container(process, uid, state / "ca.pem")
        try:
            wait_until(container.is_ready, "the container does not respond")
            if process.poll() is not None:
                raise RuntimeError(log.read_text())
            yield container
        finally:
            process.kill()
            process.wait(30)
