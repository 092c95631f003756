"""The kernel's own doors: other processes' memory, the network, namespaces, rare system calls."""

from __future__ import annotations

from qwen_eval.sandbox.attacks.attack import Attack, trick

MEMORY: tuple[Attack, ...] = (
    trick(
        43,
        "its own memory, as a file",
        "os.close(os.open('/proc/self/mem', os.O_RDWR))",
        "identity",
        "namespaces",
        "landlock",
    ),
    trick(
        43,
        "the parent's memory, as a file",
        "os.close(os.open(f'/proc/{os.getppid()}/mem', os.O_RDWR))",
        "identity",
        "namespaces",
        "landlock",
    ),
    trick(
        43,
        "read the memory of a process outside",
        """
        import struct
        room = ctypes.create_string_buffer(8)
        own = struct.pack("=QQ", ctypes.addressof(room), 8)
        # With an address of nothing there: whether one may is decided first.
        try: call("process_vm_readv", $victim, own, 1, struct.pack("=QQ", 0, 8), 1, 0)
        except OSError as error: return error.errno == 14  # EFAULT
        """,
        "identity",
        "namespaces",
        "landlock",
        "seccomp",
    ),
    trick(
        43,
        "attach to a process outside",
        """
        call("ptrace", 0x4206, $victim, 0, 0)  # PTRACE_SEIZE
        """,
        "identity",
        "namespaces",
        "landlock",
        "seccomp",
    ),
    trick(43, "be traced", "call('ptrace', 0, 0, 0, 0)", "seccomp"),
    trick(
        43,
        "take a descriptor of a process outside",
        "call('pidfd_getfd', call('pidfd_open', $victim, 0), 0, 0)",
        "identity",
        "namespaces",
        "landlock",
        "seccomp",
    ),
    trick(43, "a descriptor of itself", "call('pidfd_open', os.getpid(), 0)", "seccomp"),
    trick(
        57,
        "the limits of a process outside",
        "import resource\nresource.prlimit($victim, resource.RLIMIT_CORE)",
        "identity",
        "namespaces",
        "seccomp",
    ),
    trick(
        57,
        "the processors of a process outside",
        "os.sched_setaffinity($victim, os.sched_getaffinity(0))",
        "identity",
        "namespaces",
        "seccomp",
    ),
    trick(
        57,
        "the priority of a process outside",
        "os.setpriority(os.PRIO_PROCESS, $victim, 19)",
        "identity",
        "namespaces",
        "seccomp",
    ),
)

_CONNECT = "socket.create_connection(({host!r}, {port}), 2).close()"

NETWORK: tuple[Attack, ...] = (
    trick(
        45,
        "a server of this machine",
        _CONNECT.format(host="127.0.0.1", port="$tcp"),
        "namespaces",
        "landlock",
        "seccomp",
        quick=True,
    ),
    trick(
        45,
        "a server of this machine, by version 6",
        _CONNECT.format(host="::1", port="$tcp6"),
        "namespaces",
        "landlock",
        "seccomp",
    ),
    trick(
        45,
        "a datagram to this machine",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', $udp))",
        "namespaces",
        "seccomp",
    ),
    trick(
        45,
        "a way to the world",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('1.1.1.1', 53))",
        "namespaces",
        "seccomp",
    ),
    trick(
        45,
        "a server of its own",
        "socket.create_server(('127.0.0.1', 0))",
        "landlock",
        "seccomp",
    ),
    trick(
        45,
        "a socket with an abstract name",
        "socket.socket(socket.AF_UNIX).connect($abstract)",
        "namespaces",
        "landlock",
        "seccomp",
    ),
    trick(
        45,
        "a socket with a path",
        "socket.socket(socket.AF_UNIX).connect($unix)",
        "namespaces",
        "seccomp",
    ),
    trick(
        45,
        "a datagram from one of a pair to a socket with a path",
        """
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        one.sendto(b"x", $datagrams)
        """,
        "namespaces",
        "seccomp",
    ),
    *(
        trick(45, f"a socket of family {family}", body, *stopped_by)
        for family, body, stopped_by in (
            ("vsock", "socket.socket(40, socket.SOCK_STREAM)", ("seccomp",)),
            ("netlink", "socket.socket(16, socket.SOCK_RAW, 0)", ("seccomp",)),
            ("alg", "socket.socket(38, socket.SOCK_SEQPACKET)", ("seccomp",)),
            ("packet", "socket.socket(17, socket.SOCK_RAW, 0)", ("identity", "seccomp")),
            ("inet", "socket.socket(2, socket.SOCK_STREAM)", ("seccomp",)),
            ("unix", "socket.socket(1, socket.SOCK_DGRAM)", ("seccomp",)),
        )
    ),
    trick(
        45,
        "a socket of any other family",
        """
        for family in range(3, 48):
            if reached("socket", family, 3, 0) or reached("socket", family, 1, 0): return True
        return False
        """,
        "seccomp",
    ),
    trick(
        45,
        "a pair of sockets of another kind",
        "socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)",
        "seccomp",
    ),
)

# struct io_uring_params and union bpf_attr are all zeros.
_ZEROS = "ctypes.create_string_buffer(256)"
NAMESPACES: tuple[Attack, ...] = (
    trick(46, "a namespace of users", "call('unshare', 0x10000000)", "seccomp", quick=True),
    trick(
        46,
        "a namespace of users, by clone",
        """
        child = call("clone", 0x10000000 | int(signal.SIGCHLD), 0, 0, 0, 0)
        if child == 0: os._exit(0)
        os.waitpid(child, 0)
        """,
        "seccomp",
    ),
    trick(
        46,
        "root of its own, and a mount over its folder",
        """
        call("unshare", 0x10000000 | 0x00020000)
        call("mount", b"none", b"/tmp", b"tmpfs", 0, 0)
        """,
        "landlock",
        "seccomp",
    ),
    trick(
        46,
        "root of its own, and another root folder",
        "call('unshare', 0x10000000)\ncall('chroot', b'/tmp')",
        "seccomp",
    ),
    trick(
        46,
        "root of its own, and a machine's name",
        "call('unshare', 0x10000000 | 0x04000000)\ncall('sethostname', b'mine', 4)",
        "seccomp",
    ),
    trick(
        46,
        "root of its own, and a network with raw sockets",
        "call('unshare', 0x10000000 | 0x40000000)\nsocket.socket(17, socket.SOCK_RAW, 0)",
        "seccomp",
    ),
    trick(
        46,
        "a namespace of time",
        "call('unshare', 0x10000000 | 0x00000080)",
        "seccomp",
    ),
    trick(
        46,
        "the namespace of another",
        "assert reached('setns', 0, 0)",
        "seccomp",
    ),
)

CALLS: tuple[Attack, ...] = (
    *(
        trick(46, name, body, "seccomp")
        for name, body in {
            "page faults in its own hands": "call('userfaultfd', 1)",
            "the keyring of the session": "call('keyctl', 0, -3, 0, 0, 0)",
            "a key of its own": "call('add_key', b'user', b'x', b'y', 1, -2)",
            "a filter of its own, with a listener": "assert reached('seccomp', 1, 8, 0)",
            "another personality": "call('personality', 0x0400000)",
            "segments of its own": "call('modify_ldt', 0, ctypes.create_string_buffer(64), 64)",
            "compare with itself": "call('kcmp', os.getpid(), os.getpid(), 0, 0, 0)",
            "a secret in memory": "call('memfd_secret', 0)",
            "timers that the kernel keeps": (
                "call('timer_create', 1, 0, ctypes.byref(ctypes.c_int()))"
            ),
            "splice": (
                "one, other = os.pipe(), os.pipe()\n"
                "os.write(one[1], b'x')\n"
                "call('splice', one[0], 0, other[1], 0, 1, 0)"
            ),
            "tee": (
                "one, other = os.pipe(), os.pipe()\n"
                "os.write(one[1], b'x')\n"
                "call('tee', one[0], other[1], 1, 0)"
            ),
            "asynchronous input": "call('io_setup', 1, ctypes.byref(ctypes.c_long()))",
            "where its memory lies": "call('get_mempolicy', 0, 0, 0, 0, 0)",
            "its own death signal": "assert libc.prctl(1, 0, 0, 0, 0) == 0",
            "be dumped": "assert libc.prctl(4, 1, 0, 0, 0) == 0",
            "be the parent of orphans": "assert libc.prctl(36, 1, 0, 0, 0) == 0",
        }.items()
    ),
    *(
        trick(46, name, f"assert reached({arguments})", "identity", "seccomp")
        for name, arguments in {
            "programs in the kernel": f"'bpf', 5, {_ZEROS}, 48",
            "another kernel": "'kexec_load', 0, 1 << 40, 0, 0",
            "a module of the kernel": "'init_module', 0, 0, 0",
            "swap on a file": "'swapon', b'/nowhere', 0",
            "the messages of the kernel": "'syslog', 9, 0, 0",
            "restart": "'reboot', 0, 0, 0, 0",
            "accounts of processes": "'acct', b'/nowhere'",
            "a file by its handle": "'open_by_handle_at', -100, b'\\x08' + bytes(15), 0",
        }.items()
    ),
    trick(46, "io_uring", f"call('io_uring_setup', 1, {_ZEROS})", "seccomp", "rlimits"),
    trick(
        46,
        "measure the kernel",
        "import struct\ncall('perf_event_open', struct.pack('=IIQ', 1, 112, 0) + bytes(24) "
        "+ struct.pack('=Q', 0x61) + bytes(64), 0, -1, -1, 0)",
        "seccomp",
    ),
    trick(
        46,
        "a call in the 32-bit manner",
        """
        import mmap
        # mov eax, 20 (getpid); int 0x80; ret
        code = mmap.mmap(-1, 4096, prot=7)
        code.write(bytes.fromhex("b814000000cd80c3"))
        begin = ctypes.addressof(ctypes.c_char.from_buffer(code))
        assert os.uname().machine == "x86_64"
        assert ctypes.CFUNCTYPE(ctypes.c_int)(begin)() == os.getpid()
        """,
        "seccomp",
    ),
    trick(
        46,
        "a call in the x32 manner",
        "assert libc.syscall(ctypes.c_long(0x40000000 + 39)) == os.getpid()",
        "seccomp",
    ),
)

ESCAPING = (*MEMORY, *NETWORK, *NAMESPACES, *CALLS)
