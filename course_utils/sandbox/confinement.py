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
_LOAD, _EQUAL, _AT_LEAST, _HAS_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # instructions of the filter
_CLONE_THREAD = 0x10000
_OWNERS_AND_LEASES = (8, 10, 15, 1024, 1026)  # fcntl commands: F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_NOTIFY
# Requests of ioctl that Python needs: TCGETS, TCGETS2, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX. Others change
# the attributes of a file that is open for reading only (FS_IOC_SETFLAGS).
_IOCTLS = (0x5401, 0x802C542A, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
_STREAMS = (1, 0x801, 0x80001, 0x80801)  # SOCK_STREAM, also with SOCK_NONBLOCK and SOCK_CLOEXEC
_READ, _LIST, _WRITE_FILE, _TRUNCATE, _IOCTL = 0b1100, 1 << 3, 1 << 1, 1 << 14, 1 << 15  # Landlock's rights
LANDLOCK_NEEDED = 3  # ABI; older ones let a file be emptied that cannot be written


def seccomp_program(machine: str, pid: int) -> bytes:
    """Assemble the filter for this machine and process. Raises `OSError` for a machine that is not listed here."""
    if machine not in _MACHINES:
        raise OSError(errno.ENOSYS, f"there is no seccomp filter for {machine}, only for {' and '.join(_MACHINES)}")
    column, architecture = _MACHINES[machine]
    code = [_line(_LOAD, 4), *_unless(_EQUAL, architecture, _KILL), _line(_LOAD, 0)]
    code += _when(_AT_LEAST, _NEWEST + 1, _ENOSYS) + _when(_EQUAL, 435, _ENOSYS)  # 435: clone3
    for call in ", ".join(_FORBIDDEN.values()).split(", "):
        number = call.split()[1 + column]
        code += _when(_EQUAL, int(number)) if number != "-" else []
    owners = [line for command in _OWNERS_AND_LEASES for line in _when(_EQUAL, command)]
    streams = [line for kind in _STREAMS for line in _when(_EQUAL, kind, _ALLOW)]
    harmless = [line for request in _IOCTLS for line in _when(_EQUAL, request, _ALLOW)]
    refuse = _line(_RETURN, _EPERM)
    for numbers, argument, lines in (
        ((56, 220), 0, _unless(_HAS_BIT, _CLONE_THREAD)),  # clone: threads only
        ((234, 131), 0, _unless(_EQUAL, pid)),  # tgkill: itself
        ((302, 261), 0, _unless(_EQUAL, 0)),  # prlimit64: itself
        ((157, 167), 0, _when(_EQUAL, 1)),  # prctl: PR_SET_PDEATHSIG stays
        ((72, 25), 1, owners),  # fcntl: signals could be sent to the owner of a pipe
        # socketpair: connected streams (AF_UNIX, SOCK_STREAM), which asyncio needs; they reach nothing else
        ((53, 199), 0, [*_unless(_EQUAL, 1), _line(_LOAD, 24), *streams, refuse]),
        ((16, 29), 1, [*harmless, refuse]),  # ioctl
    ):
        code += [_line(_EQUAL, numbers[column], 0, len(lines) + 2), _line(_LOAD, 16 + 8 * argument)]  # its low half
        code += [*lines, _line(_RETURN, _ALLOW)]
    return b"".join([*code, _line(_RETURN, _ALLOW)])


def _line(instruction: int, value: int, skip_if: int = 0, skip_else: int = 0) -> bytes:
    return struct.pack("HBBI", instruction, skip_if, skip_else, value)  # as the kernel reads it


def _when(test: int, value: int, action: int = _EPERM) -> list[bytes]:
    return [_line(test, value, 0, 1), _line(_RETURN, action)]


def _unless(test: int, value: int, action: int = _EPERM) -> list[bytes]:
    return [_line(test, value, 1, 0), _line(_RETURN, action)]


def set_limits(seconds: int, memory: int, processes: int) -> None:
    """Limit for good CPU seconds, address space, processes of the user, open files; no file grows, no core dump."""
    try:
        import resource
    except ImportError:  # Windows has no such limits
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
    _call("prctl(PR_SET_PDEATHSIG)", "prctl", 1, 9, 0, 0, 0)
    _call("prctl(PR_SET_NO_NEW_PRIVS)", "prctl", 38, 1, 0, 0, 0)
    _call("capset", "capset", struct.pack("Ii", 0x20080522, 0), bytes(24))


def landlock(readable: list[str], listable: list[str]) -> None:
    """Deny all files but these and /dev/null; also connections and signals, where the kernel can.

    Raises `OSError` where it has no Landlock, or an old one.
    """
    version = _call("Landlock", "syscall", 444, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    if version < LANDLOCK_NEEDED:
        raise OSError(errno.ENOSYS, f"Landlock {LANDLOCK_NEEDED} (Linux 6.2) is needed; found: {version}")
    every = (1 << 15) - 1 | (_IOCTL if version >= 5 else 0)
    rules = struct.pack("QQQ", every, 3, 3)[: 8 if version < 4 else 16 if version < 6 else 24]
    ruleset = _call("Landlock", "syscall", 444, rules, ctypes.c_size_t(len(rules)), ctypes.c_uint32(0))
    allowed = [*((path, _READ) for path in readable), *((path, _LIST) for path in listable), (os.devnull, every)]
    for path, rights in allowed:
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        if not os.path.isdir(path):  # noqa: PTH112 - pathlib takes long to import
            rights &= 4 | _WRITE_FILE | _TRUNCATE | _IOCTL
        _call(f"Landlock on {path}", "syscall", 445, ruleset, 1, struct.pack("=Qi", rights, place), ctypes.c_uint32(0))
        os.close(place)
    _call("Landlock", "syscall", 446, ruleset, ctypes.c_uint32(0))
    os.close(ruleset)


def seccomp() -> None:
    """Load the filter, for good. Raises `OSError` if the kernel or the machine has none."""
    program = seccomp_program(os.uname().machine, os.getpid())
    buffer = ctypes.create_string_buffer(program, len(program))
    filter_ = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    _call("prctl(PR_SET_SECCOMP)", "prctl", 22, 2, filter_, 0, 0)


def _call(what: str, name: str, *arguments: object) -> int:
    result = getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result
