"""Disks of nodes that fill up, hang and fail: an ext4 in a file that lies on another ext4 in a file, so that both the file
system of a node and the device below it can be stopped. For root, on Linux; `tests/run` gives them a mount namespace of
their own, with which everything goes that a killed run leaves mounted."""

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("mkfs.ext4", "mount", "umount", "losetup", "fsfreeze", "chattr")
# A disk that hangs does so for no longer, whatever becomes of the test: nobody can end a process that waits for it.
THAWS_AFTER_S = 60
SIZE_MIB = 192


def run(*command):
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.stderr}{done.stdout}"


def obstacle() -> str | None:
    """Why there can be no such disks here; nothing where there can."""
    if os.geteuid() != 0:
        return "it mounts file systems, and only root may; run: sudo --preserve-env=PATH tests/run 'python: clusters on disks'"
    for program in PROGRAMS:
        if shutil.which(program) is None:
            return f"{program} is missing; on Debian and Ubuntu: apt-get install e2fsprogs util-linux"
    with tempfile.TemporaryDirectory() as folder:
        try:
            with Disk(Path(folder) / "disk", 16):
                return None
        except AssertionError as problem:
            return f"a file cannot be mounted here ({problem}); load loop and ext4, or run it outside of the container"


class Disk:
    def __init__(self, folder: Path, size_mib: int = SIZE_MIB):
        self.folder = folder
        self.device = folder / "device"  # where the device's file lies
        self.root = folder / "root"
        self.size_mib = size_mib
        self.mounted = []

    def __enter__(self) -> "Disk":
        for each in (self.device, self.root):
            each.mkdir(parents=True)
        try:
            self._mount(self.folder / "image", self.size_mib * 5 // 4 + 8, self.device)
            self._mount(self.device / "image", self.size_mib, self.root)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _mount(self, image: Path, size_mib: int, at: Path):
        with open(image, "wb") as file:
            file.truncate(size_mib << 20)
        run("mkfs.ext4", "-q", "-F", "-m", "0", image)
        run("mount", "-o", "loop", image, at)
        self.mounted.append(at)

    def __exit__(self, *_):
        while self.mounted:
            subprocess.run(["umount", "--lazy", str(self.mounted.pop())], check=False, timeout=60)

    # -- it is full -----------------------------------------------------------------------------------------------------

    def fill(self):
        """Somebody else takes all that is left, to the last block."""
        with open(self.root / "somebody-elses", "ab", buffering=0) as file:
            for length in (1 << 20, 64 << 10, 4096, 1):
                try:
                    while True:
                        file.write(b"x" * length)
                except OSError:
                    pass

    def empty(self):
        (self.root / "somebody-elses").unlink(missing_ok=True)

    # -- it hangs -------------------------------------------------------------------------------------------------------

    def frozen(self):
        """Who writes to its files waits."""
        return _frozen(self.root)

    def hanging(self):
        """What is written is taken by the system, and never reaches the device; who syncs waits."""
        return _frozen(self.device)

    # -- it fails -------------------------------------------------------------------------------------------------------

    @contextmanager
    def failing(self):
        """The device refuses everything that is written to it."""
        run("chattr", "+i", self.device / "image")
        try:
            yield
        finally:
            run("chattr", "-i", self.device / "image")


@contextmanager
def _frozen(root: Path):
    """Thawed at the end, when this process ends, and after a while in any case."""
    watchdog = subprocess.Popen(["bash", "-c", f'read -t {THAWS_AFTER_S}; fsfreeze -u "$0"; exit 0', str(root)],
                                stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        run("fsfreeze", "-f", root)
        yield
    finally:
        watchdog.stdin.close()
        watchdog.wait(30)
