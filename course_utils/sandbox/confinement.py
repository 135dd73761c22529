"""What a process does to itself before it runs untrusted code: limits, no privileges, Landlock, a seccomp filter.

Only the standard library is used, and no privilege is needed: every step takes something away for good. Landlock
(Linux) allows reading some folders. The filter answers forbidden system calls with EPERM, which Python raises as
PermissionError. It takes away what Landlock leaves: processes, programs, sockets, signals to others, other processes'
memory and priorities, shared memory that outlives the process, changed modes and owners of files.
"""

import ctypes
import errno
import os
import struct
import sys

# The numbers of the forbidden system calls on (x86_64, aarch64); None where there is no such call.
_FORBIDDEN = {
    "processes": "fork 57 -, vfork 58 -, execve 59 221, execveat 322 281, setns 308 268, unshare 272 97",
    "network": "socket 41 198, connect 42 203, bind 49 200, sendmsg 46 211, sendmmsg 307 269",
    "signals": "kill 62 129, tkill 200 130, rt_sigqueueinfo 129 138, rt_tgsigqueueinfo 297 240, "
    "pidfd_send_signal 424 424, pidfd_open 434 434, pidfd_getfd 438 438",
    "other processes": "ptrace 101 117, process_vm_readv 310 270, process_vm_writev 311 271, kcmp 312 272, "
    "process_madvise 440 440, process_mrelease 448 448, setpriority 141 140, ioprio_set 251 30, "
    "sched_setparam 142 118, sched_setscheduler 144 119, sched_setaffinity 203 122, sched_setattr 314 274, "
    "migrate_pages 256 238, move_pages 279 239",
    "shared memory": "shmget 29 194, shmat 30 196, shmctl 31 195, shmdt 67 197, semget 64 190, semop 65 193, "
    "semctl 66 191, semtimedop 220 192, msgget 68 186, msgsnd 69 189, msgrcv 70 188, msgctl 71 187, mq_open 240 180, "
    "mq_unlink 241 181, memfd_create 319 279, memfd_secret 447 447",
    "watching": "inotify_init 253 -, inotify_init1 294 26, inotify_add_watch 254 27, fanotify_init 300 262",
    "attributes": "getxattr 191 8, lgetxattr 192 9, fgetxattr 193 10, listxattr 194 11, llistxattr 195 12, "
    "flistxattr 196 13, getxattrat 464 464, listxattrat 465 465",
    "files": "chmod 90 -, fchmod 91 52, fchmodat 268 53, fchmodat2 452 452, chown 92 -, fchown 93 55, lchown 94 -, "
    "fchownat 260 54, setxattr 188 5, lsetxattr 189 6, fsetxattr 190 7, setxattrat 463 463, removexattr 197 14, "
    "lremovexattr 198 15, fremovexattr 199 16, removexattrat 466 466, utime 132 -, utimes 235 -, futimesat 261 -, "
    "utimensat 280 88, open_by_handle_at 304 265, fallocate 285 47",
    "mounts": "mount 165 40, umount2 166 39, pivot_root 155 41, chroot 161 51, open_tree 428 428, move_mount 429 429, "
    "fsopen 430 430, fsconfig 431 431, fsmount 432 432, fspick 433 433, mount_setattr 442 442, open_tree_attr 467 467",
    "the kernel": "bpf 321 280, perf_event_open 298 241, io_uring_setup 425 425, io_uring_enter 426 426, "
    "io_uring_register 427 427, add_key 248 217, request_key 249 218, keyctl 250 219, userfaultfd 323 282, "
    "personality 135 92, syslog 103 116",
}
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column above, the kernel's name for it
_NEWEST = 467  # system calls that are newer than this list do not exist for the child; nor do those of the x32 ABI
_ALLOW, _EPERM, _ENOSYS, _KILL = 0x7FFF0000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS, 0x80000000
_CLONE_THREAD = 0x10000
_OWNERS_AND_LEASES = (8, 10, 15, 1024, 1026)  # fcntl commands: F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_NOTIFY
# Requests of ioctl that Python needs: TCGETS, TCGETS2, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX. Others change
# the attributes of a file that is open for reading only (FS_IOC_SETFLAGS).
_IOCTLS = (0x5401, 0x802C542A, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
_STREAMS = (1, 0x801, 0x80001, 0x80801)  # SOCK_STREAM, also with SOCK_NONBLOCK and SOCK_CLOEXEC
_READ, _LIST, _WRITE_FILE, _TRUNCATE, _IOCTL = 0b1100, 1 << 3, 1 << 1, 1 << 14, 1 << 15  # Landlock's rights
LANDLOCK_NEEDED = 3  # ABI; older ones let a file be emptied that cannot be written


def seccomp_program(machine: str, pid: int) -> bytes:
    """Assemble the filter for this machine and process, as the kernel reads it (eight bytes an instruction).

    Raises `OSError` for a machine whose system calls are not listed here.
    """
    if machine not in _MACHINES:
        raise OSError(errno.ENOSYS, f"there is no seccomp filter for {machine}, only for {' and '.join(_MACHINES)}")
    column, architecture = _MACHINES[machine]
    code = [_load(4), _jump("==", architecture, 1, 0), _return(_KILL), _load(0)]
    code += [_jump(">=", _NEWEST + 1, 0, 1), _return(_ENOSYS), _jump("==", 435, 0, 1), _return(_ENOSYS)]  # 435: clone3
    for call in ", ".join(_FORBIDDEN.values()).split(", "):
        number = call.split()[1 + column]
        if number != "-":
            code += [_jump("==", int(number), 0, 1), _return(_EPERM)]
    code += _if_call((56, 220)[column], 0, [_jump("&", _CLONE_THREAD, 1, 0), _return(_EPERM)])  # clone: threads only
    code += _if_call((234, 131)[column], 0, [_jump("==", pid, 1, 0), _return(_EPERM)])  # tgkill: itself
    code += _if_call((302, 261)[column], 0, [_jump("==", 0, 1, 0), _return(_EPERM)])  # prlimit64: itself
    code += _if_call((157, 167)[column], 0, [_jump("==", 1, 0, 1), _return(_EPERM)])  # prctl: PR_SET_PDEATHSIG stays
    refused = [line for command in _OWNERS_AND_LEASES for line in (_jump("==", command, 0, 1), _return(_EPERM))]
    code += _if_call((72, 25)[column], 1, refused)  # fcntl: signals could be sent to the owner of a pipe
    # socketpair: connected streams (AF_UNIX, SOCK_STREAM), which asyncio needs; they reach nothing else
    streams = [line for kind in _STREAMS for line in (_jump("==", kind, 0, 1), _return(_ALLOW))]
    pair = [_jump("==", 1, 1, 0), _return(_EPERM), _load(24), *streams, _return(_EPERM)]
    code += _if_call((53, 199)[column], 0, pair)
    harmless = [line for request in _IOCTLS for line in (_jump("==", request, 0, 1), _return(_ALLOW))]
    code += _if_call((16, 29)[column], 1, [*harmless, _return(_EPERM)])  # ioctl
    return b"".join([*code, _return(_ALLOW)])


def _load(offset: int) -> bytes:
    return struct.pack("HBBI", 0x20, 0, 0, offset)


def _jump(test: str, value: int, skip_if: int, skip_else: int) -> bytes:
    return struct.pack("HBBI", {"==": 0x15, ">=": 0x35, "&": 0x45}[test], skip_if, skip_else, value)


def _return(action: int) -> bytes:
    return struct.pack("HBBI", 0x06, 0, 0, action)


def _if_call(number: int, argument: int, code: list[bytes]) -> list[bytes]:
    """Run `code` on the low half of an argument if the call is this one; what falls through it is allowed."""
    return [_jump("==", number, 0, len(code) + 2), _load(16 + 8 * argument), *code, _return(_ALLOW)]


def set_limits(seconds: int, memory: int, processes: int) -> None:
    """Limit CPU seconds, bytes of address space, processes of the user, open files; no file grows, no core dump.

    Every limit is final for a process without privileges. Does nothing on Windows, which has no such limits.
    """
    try:
        import resource
    except ImportError:
        return
    for name, limit in {"CPU": seconds, "AS": memory, "NPROC": processes, "NOFILE": 64, "FSIZE": 0, "CORE": 0}.items():
        which = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(which)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        try:
            resource.setrlimit(which, (limit, limit))
        except (ValueError, OSError):
            if sys.platform != "darwin":  # macOS refuses to limit the address space
                raise


def drop_privileges() -> None:
    """Die with the parent, gain no privileges by any program, and give up those of root (Linux)."""
    libc = _libc()
    _check(libc.prctl(1, 9, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")
    _check(libc.prctl(38, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")
    nothing = struct.pack("Ii", 0x20080522, 0), bytes(24)
    _check(libc.capset(*nothing), "capset")


def landlock(readable: list[str], listable: list[str]) -> None:
    """Deny all files but these and /dev/null; also connections and signals, where the kernel can.

    Raises `OSError` where it has no Landlock, or an old one.
    """
    libc = _libc()
    version = libc.syscall(444, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    if version < LANDLOCK_NEEDED:
        found = f"version {version}" if version > 0 else os.strerror(ctypes.get_errno())
        raise OSError(errno.ENOSYS, f"Landlock of version {LANDLOCK_NEEDED} (Linux 6.2) is needed; found: {found}")
    every = (1 << 15) - 1 | (_IOCTL if version >= 5 else 0)
    rules = struct.pack("QQQ", every, 3, 3)[: 8 if version < 4 else 16 if version < 6 else 24]
    ruleset = _check(libc.syscall(444, rules, ctypes.c_size_t(len(rules)), ctypes.c_uint32(0)), "Landlock")
    for paths, rights in ((readable, _READ), (listable, _LIST), ([os.devnull], every)):
        for path in paths:
            _allow(libc, ruleset, path, rights)
    _check(libc.syscall(446, ruleset, ctypes.c_uint32(0)), "Landlock")
    os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    if not os.path.isdir(path):  # noqa: PTH112 - pathlib takes long to import
        rights &= 4 | _WRITE_FILE | _TRUNCATE | _IOCTL
    rule = struct.pack("=Qi", rights, place)
    _check(libc.syscall(445, ruleset, 1, rule, ctypes.c_uint32(0)), f"Landlock on {path}")
    os.close(place)


def seccomp() -> None:
    """Load the filter, for good. Raises `OSError` if the kernel or the machine has none."""
    program = seccomp_program(os.uname().machine, os.getpid())
    buffer = ctypes.create_string_buffer(program, len(program))
    filter_ = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    _check(_libc().prctl(22, 2, filter_, 0, 0), "prctl(PR_SET_SECCOMP)")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result
