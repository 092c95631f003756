"""Files and facts of this machine: programs that read, write or change what is not theirs."""

from __future__ import annotations

from textwrap import dedent

from qwen_eval.sandbox.attacks.attack import Attack, trick
from qwen_eval.sandbox.attacks.spawning import written

READING: tuple[Attack, ...] = (
    *(
        trick(39, f"read {name}", f"assert open({path}).read(1)", *stopped_by, **more)
        for name, path, stopped_by, more in (
            ("a private file", "$secret", ("identity", "namespaces", "landlock"), {"quick": True}),
            ("a public file", "$public", ("namespaces", "landlock"), {}),
            ("the list of users", "'/etc/passwd'", ("namespaces", "landlock"), {"quick": True}),
            ("the harness's own code", "$repository", ("namespaces", "landlock"), {}),
            ("the shared memory of others", "$shared", ("namespaces", "landlock"), {}),
        )
    ),
    trick(
        39,
        "list the folders of other samples",
        "import glob\nassert glob.glob('/tmp/qwen-eval-*')",
        "namespaces",
        "landlock",
    ),
    trick(39, "list the root folder", "assert os.listdir('/')", "landlock", quick=True),
    trick(
        39,
        "see whether a path exists",
        "os.stat($public)",
        "namespaces",
    ),
    trick(
        39,
        "see where a link leads",
        "assert os.readlink($link)",
        "namespaces",
    ),
    trick(
        39,
        "read with a descriptor of a path",
        """
        root = os.open("/", os.O_PATH)
        os.close(os.open("etc/passwd", os.O_RDONLY, dir_fd=root))
        """,
        "namespaces",
        "landlock",
    ),
    trick(
        63,
        "what the program before it left",
        """
        for folder in (".", "/tmp", "/dev/shm", $folder):
            try: open(f"{folder}/left-{$name}").close()
            except OSError: continue
            return True
        return False
        """,
        "namespaces",
        "landlock",
        before="""
def f():
    for folder in (".", "/tmp", "/dev/shm", $folder):
        try: open(f"{folder}/left-{$name}", "w").close()
        except OSError: pass
""",
    ),
    trick(
        63,
        "memory that the program before it shared",
        "call('shmctl', call('shmget', 0x5eed, 4096, 0o600), 0, 0)",
        "seccomp",
        before="""
import ctypes
def f(): ctypes.CDLL(None).shmget(0x5eed, 4096, 0o1666)
""",
    ),
    trick(
        63,
        "a queue of messages for the next",
        """
        try: made = call("msgget", 0, 0o1600)
        except OSError: return False
        call("msgctl", made, 0, 0)
        """,
        "seccomp",
    ),
    trick(
        40,
        "a secret in the environment",
        "assert os.environ[$variable]",
        weaker="plain process",
    ),
    *(
        trick(
            40,
            f"the environment of {name}",
            f"assert open(f'/proc/{{{pid}}}/environ', 'rb').read(1)",
            "identity",
            "namespaces",
            "landlock",
        )
        for name, pid in {"the harness": "$harness", "the parent": "os.getppid()"}.items()
    ),
    trick(64, "the name of the machine", "assert os.uname().nodename == $hostname", "namespaces"),
    trick(
        64,
        "how much memory the machine has",
        "assert open('/proc/meminfo').read(1)",
        "namespaces",
        "landlock",
    ),
    trick(
        64,
        "the machine's network interfaces, asked of a pair of sockets",
        """
        import fcntl, struct
        one, other = socket.socketpair()
        room = ctypes.create_string_buffer(4096)
        fcntl.ioctl(one, 0x8912, struct.pack("iP", 4096, ctypes.addressof(room)))  # SIOCGIFCONF
        """,
        "seccomp",
        quick=True,
    ),
    trick(
        64,
        "what others do in their folders",
        """
        watch = call("inotify_init1", 0)
        call("inotify_add_watch", watch, $folder.encode(), 0x100)
        """,
        "namespaces",
        "seccomp",
    ),
    trick(
        64,
        "a handle of a file, to open it anywhere",
        """
        import struct
        room = ctypes.create_string_buffer(struct.pack("=Ii", 128, 0), 136)
        call("name_to_handle_at", -100, $place, room, ctypes.byref(ctypes.c_int()), 0)
        """.replace("$place", "b'/tmp'"),
        "seccomp",
    ),
    trick(
        48,
        "a descriptor that was forgotten",
        """
        for number in range(6, 1024):
            try: os.fstat(number)
            except OSError: continue
            return True
        return False
        """,
        weaker="plain process",
    ),
    trick(
        48,
        "a descriptor sent over a socket that was forgotten",
        """
        for number in range(3, 1024):
            try:
                one = socket.socket(fileno=os.dup(number))
                one.getsockname()
            except OSError: continue
            return True
        return False
        """,
        weaker="plain process",
    ),
)

# Each puts `left` into the folder that all may write to.
_WAYS_TO_WRITE = {
    "by its path": "open($folder + '/left', 'w').close()",
    "by a path that climbs": "open('../' * 20 + $folder.lstrip('/') + '/left', 'w').close()",
    "through a symbolic link": """
        link = place() + "/probe-link"
        os.symlink($folder + "/left", link)
        try: open(link, "w").close()
        finally: os.unlink(link)
    """,
    "by a hard link": "os.link($common, $folder + '/left')",
    "by a new name": """
        own = place() + "/probe-own"
        open(own, "w").close()
        os.rename(own, $folder + "/left")
    """,
    "by a symbolic link": "os.symlink('nowhere', $folder + '/left')",
    "as a named pipe": "os.mkfifo($folder + '/left')",
    "as a socket": "socket.socket(socket.AF_UNIX).bind($folder + '/left')",
    "without a name, and then with one": """
        file = os.open($folder, os.O_TMPFILE | os.O_WRONLY)
        call("linkat", -100, b"/proc/self/fd/%d" % file, -100, $folder.encode() + b"/left", 0x400)
    """,
}
_OF_ANOTHER_KIND = ("as a named pipe", "as a socket")

WRITING: tuple[Attack, ...] = (
    *(
        trick(
            41,
            f"write outside {way}",
            dedent(body).strip() + "\nreturn False",
            "namespaces",
            "landlock",
            *(("seccomp",) if way in _OF_ANOTHER_KIND else ()),
            aftermath=written,
        )
        for way, body in _WAYS_TO_WRITE.items()
    ),
    trick(41, "a pipe with a name", "os.mkfifo(place() + '/left')", "landlock", "seccomp"),
    trick(
        42,
        "change the mode of a file outside",
        "os.chmod($public, 0o600)\nos.chmod($public, 0o644)",
        "identity",
        "namespaces",
        "seccomp",
    ),
    trick(
        42,
        "change the owner of a file outside",
        "os.chown($public, os.getuid(), os.getgid())",
        "identity",
        "namespaces",
        "seccomp",
    ),
    trick(42, "change the times of a file outside", "os.utime($common)", "namespaces", "seccomp"),
    trick(
        42,
        "note something on a file outside",
        "os.setxattr($common, 'user.note', b'x')",
        "namespaces",
        "seccomp",
    ),
    trick(
        47,
        "open the switch that runs code as root",
        "os.close(os.open('/proc/sys/kernel/core_pattern', os.O_WRONLY))",
        "identity",
        "namespaces",
        "landlock",
    ),
    *(
        trick(47, f"open {name}", f"os.close(os.open({path}, os.{flag}))", *stopped_by)
        for name, path, flag, stopped_by in (
            (
                "a switch to read",
                "'/proc/sys/kernel/ostype'",
                "O_RDONLY",
                ("namespaces", "landlock"),
            ),
            (
                "the trigger of emergencies",
                "'/proc/sysrq-trigger'",
                "O_WRONLY",
                ("identity", "namespaces", "landlock"),
            ),
            (
                "the list of its control group",
                "$group",
                "O_WRONLY",
                ("identity", "namespaces", "landlock"),
            ),
            (
                "the kernel's messages",
                "'/dev/kmsg'",
                "O_RDONLY",
                ("identity", "namespaces", "landlock"),
            ),
        )
    ),
    trick(
        47,
        "type into a terminal",
        """
        import fcntl
        one, other = os.openpty()
        if os.fork() == 0:
            os.setsid()
            fcntl.ioctl(other, 0x540E, 0)  # TIOCSCTTY
            os._exit(0)
        """,
        "namespaces",
        "landlock",
        "seccomp",
    ),
)

SPYING = (*READING, *WRITING)
