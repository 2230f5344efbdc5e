"""Build a folder with an AArch64 Python and LiteRT for qemu, for `Verification(arm=True)`.

Takes Debian's packages through `apt-get`, which checks their signatures, and wheels through `pip`.
Nothing on this system is installed or changed, and root isn't needed; `apt-get`, `dpkg` and
Debian's keys are (on Ubuntu: `apt install debian-archive-keyring`). A second run does only what is
missing. With the Python that tfprune is installed for:

    python tools/arm_root.py ~/arm
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path

QEMU = 10
PLATFORMS = ("manylinux2014", "manylinux_2_17", "manylinux_2_27", "manylinux_2_28")
PROBE = (
    "import ai_edge_litert.interpreter, importlib.metadata as m, platform;"
    "print(m.version('ai-edge-litert'), m.version('numpy'), platform.machine())"
)


def main() -> None:
    options = _options()
    place: Path = options.folder.resolve()
    if not options.keyring.is_file():
        sys.exit(f"Debian's keys are not at {options.keyring}; install debian-archive-keyring.")
    host = subprocess.check_output(["dpkg", "--print-architecture"], text=True).strip()
    apt = _Apt(place / "apt", host, options)
    python = f"python{options.python}"
    wanted = [f"{python}-minimal", f"lib{python}-stdlib", "libstdc++6", "zlib1g"]
    root, qemu = place / "root", place / "qemu"
    if not (qemu / "usr/bin/qemu-aarch64").exists():
        apt.unpack(["qemu-user"], host, qemu)
        for other in set((qemu / "usr/bin").iterdir()) - {qemu / "usr/bin/qemu-aarch64"}:
            other.unlink()
    if not (root / "usr/bin" / python).exists():
        apt.unpack(wanted, "arm64", root)
    shutil.rmtree(place / "apt", ignore_errors=True)
    _wheels(root / "usr/lib/python3/dist-packages", options)
    command = [str(qemu / "usr/bin/qemu-aarch64"), "-L", str(root), str(root / "usr/bin" / python)]
    _prove(command)
    print(f"export TFPRUNE_ARM_PYTHON={shlex.quote(shlex.join(command))}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    keys = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    add = parser.add_argument
    add("folder", type=Path, help="where to build; some 250 MB")
    add("--mirror", default="http://deb.debian.org/debian", help="of Debian's packages")
    add("--suite", default="trixie", help=f"of Debian, with qemu {QEMU} or newer")
    add("--python", default="3.13", help="which that suite has, and LiteRT has wheels for")
    add("--keyring", type=Path, default=keys, help="with the keys of that mirror")
    add("--litert", default=metadata.version("ai-edge-litert"), help="version of ai-edge-litert")
    return parser.parse_args()


class _Apt:
    """`apt-get` with folders of its own, which knows no installed package.

    Args:
        place: for lists and downloads.
        host: this machine's architecture, in Debian's words.
    """

    def __init__(self, place: Path, host: str, options: argparse.Namespace) -> None:
        self.place, self.updated = place, False
        self.source = (
            f"deb [signed-by={options.keyring.resolve()}] {options.mirror} {options.suite} main"
        )
        settings = {
            "Dir::State": place / "state",
            "Dir::State::status": place / "status",
            "Dir::Cache": place / "cache",
            "Dir::Log": place / "log",
            "Dir::Etc::sourcelist": place / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "APT::Architecture": host,
            "APT::Architectures": f"{host},arm64",
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",  # other users may not reach `place`
            "Acquire::Languages": "none",
        }
        self.command = ["apt-get", "--quiet=2", "--yes"]
        for name, value in settings.items():
            self.command += ["-o", f"{name}={value}"]

    def unpack(self, names: list[str], architecture: str, to: Path) -> None:
        """Unpack packages, and all that they need, below a folder that is complete or not there."""
        self._update()
        archives = self.place / "cache/archives"
        shutil.rmtree(archives, ignore_errors=True)
        (archives / "partial").mkdir(parents=True)
        asked = [f"{name}:{architecture}" for name in names]
        subprocess.run([*self.command, "install", "--download-only", *asked], check=True)
        fresh = to.with_name(f"{to.name}.part")
        shutil.rmtree(fresh, ignore_errors=True)
        (fresh / "usr/lib").mkdir(parents=True)
        (fresh / "lib").symlink_to("usr/lib")
        for kind in ("all", architecture):
            for archive in sorted(archives.glob(f"*_{kind}.deb")):
                print(f"  {archive.name}", file=sys.stderr)
                subprocess.run(["dpkg", "--extract", str(archive), str(fresh)], check=True)
        shutil.rmtree(to, ignore_errors=True)
        fresh.rename(to)

    def _update(self) -> None:
        if not self.updated:
            for name in ("state/lists/partial", "cache/archives/partial", "log"):
                (self.place / name).mkdir(parents=True, exist_ok=True)
            (self.place / "status").touch()
            (self.place / "sources.list").write_text(f"{self.source}\n")
            subprocess.run([*self.command, "update"], check=True)
            self.updated = True


def _wheels(to: Path, options: argparse.Namespace) -> None:
    """Unpack LiteRT's AArch64 wheel, and those that it needs, where that Python looks."""
    if (to / f"ai_edge_litert-{options.litert}.dist-info").is_dir():
        return
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    pip += ["--only-binary=:all:", f"--python-version={options.python}"]
    pip += [f"--platform={name}_aarch64" for name in PLATFORMS]
    with tempfile.TemporaryDirectory() as folder:
        names = [f"ai-edge-litert=={options.litert}", "numpy"]
        subprocess.run([*pip, f"--dest={folder}", *names], check=True)
        for wheel in sorted(Path(folder).glob("*.whl"), reverse=True):  # LiteRT's own at the end
            print(f"  {wheel.name}", file=sys.stderr)
            zipfile.ZipFile(wheel).extractall(to)


def _prove(command: list[str]) -> None:
    version = subprocess.check_output([command[0], "--version"], text=True).split()[2]
    if int(version.split(".")[0]) < QEMU:
        sys.exit(f"qemu must be {QEMU} or newer, older ones crash in LiteRT. Found: {version}.")
    found = subprocess.check_output([*command, "-s", "-c", PROBE], text=True)
    print(f"qemu {version}; ai-edge-litert, numpy, machine: {found}", end="", file=sys.stderr)


if __name__ == "__main__":
    main()
