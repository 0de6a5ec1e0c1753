"""Downloading the packages of the manifest, and unpacking them in the cache folder."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .manifest import Package


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fetch(package: Package, cache: Path) -> Path:
    """Return the folder of the unpacked package; download and unpack it if necessary.

    apt downloads the package from the sources that this machine is set up with, which must have the
    pinned version (Debian 12). The file is unpacked only if its checksum is that of the manifest.

    Raises
    ------
    ValueError
        If the checksum is another one.
    RuntimeError
        If apt-get or dpkg-deb is not installed.
    subprocess.CalledProcessError
        If one of them fails.
    """
    # The checksum is part of the name, so that a changed manifest never finds an old folder.
    folder = cache / "tree" / f"{package.name}.{package.sha256[:16]}"
    if folder.exists():
        return folder
    deb = _download(package, cache / "debs")
    found = sha256(deb)
    if found != package.sha256:
        raise ValueError(f"{deb}: sha256 is {found}, the manifest says {package.sha256}")
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _run(["dpkg-deb", "-x", str(deb.resolve()), str(partial.resolve())], cache)
    partial.replace(folder)
    return folder


def fetch_all(packages: Sequence[Package], cache: Path) -> dict[str, Path]:
    """Fetch every package; return the folder of each by package name."""
    return {package.name: fetch(package, cache) for package in packages}


def _download(package: Package, debs: Path) -> Path:
    debs.mkdir(parents=True, exist_ok=True)
    # In file names apt writes the colon of a version's epoch as %3a.
    pattern = f"{package.name}_{package.version.replace(':', '%3a')}_*.deb"
    if not any(debs.glob(pattern)):
        print(f"fetching {package.name} {package.version}", file=sys.stderr)
        _run(["apt-get", "download", f"{package.name}={package.version}"], debs)
    return next(debs.glob(pattern))


def _run(command: list[str], folder: Path) -> None:
    if shutil.which(command[0]) is None:
        raise RuntimeError(f"{command[0]} is not installed; use Debian or a system based on it")
    subprocess.run(command, cwd=folder, check=True, stdout=sys.stderr)
