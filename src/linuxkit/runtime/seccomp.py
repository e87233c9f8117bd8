"""The default seccomp profile: the system calls that a contained program may make. OCI runtime specification. Pure.

What is not in the table ends with EPERM. The table follows what engines allow by default; a call that a capability is
for is allowed to who has the capability. docs/design/containment.md says why.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from linuxkit.errors import InputError
from linuxkit.foreign import read_json

Json = dict[str, Any]
EPERM, ENOSYS = 1, 38
AF_VSOCK = 40
#: clone(2)'s CLONE_NEW*: cgroup, uts, ipc, user, pid, net, mnt
NEW_NAMESPACES = 0x7E020000
#: personality(2): Linux, and 32-bit Linux, each with and without UNAME26; the last asks for the present one
PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
#: most bytes of a profile in a file
MAX_FILE = 1 << 20

#: Architecture of the image → those of programs that may run. Not x86 on amd64: its socketcall(2) hides the address
#: family from any filter, and so gives vsock to everyone.
ARCHITECTURES = {
    "amd64": ("SCMP_ARCH_X86_64",),
    "arm64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
    "riscv64": ("SCMP_ARCH_RISCV64",),
}
# The runtime leaves out what an architecture hasn't got; those of one architecture alone are in ONLY.
_ALLOWED = {
    "files": """
        access cachestat chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat
        faccessat2 fadvise64 fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl
        fcntl64 fdatasync flock fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futimesat getcwd
        getdents getdents64 ioctl lchown lchown32 link linkat listmount _llseek llseek lseek lstat lstat64 mkdir
        mkdirat mknod mknodat name_to_handle_at newfstatat open openat openat2 pipe pipe2 pread64 preadv preadv2
        pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv rename renameat renameat2 rmdir sendfile
        sendfile64 splice stat stat64 statfs statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs tee
        truncate truncate64 umask unlink unlinkat utime utimensat utimensat_time64 utimes vmsplice write writev
    """,
    "attributes": """
        fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr listxattrat llistxattr
        lremovexattr lsetxattr removexattr removexattrat setxattr setxattrat
    """,
    "waiting": """
        epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd
        eventfd2 fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy
        io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit _newselect poll ppoll ppoll_time64 pselect6
        pselect6_time64 select signalfd signalfd4
    """,
    "memory": """
        brk get_mempolicy madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall
        mmap mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect
        process_mrelease remap_file_pages
    """,
    "processes": """
        capget capset execve execveat exit exit_group fork get_robust_list get_thread_area getcpu getegid getegid32
        geteuid geteuid32 getgid getgid32 getgroups getgroups32 getpgid getpgrp getpid getppid getpriority getrandom
        getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid gettid getuid getuid32 ioprio_get
        ioprio_set landlock_add_rule landlock_create_ruleset landlock_restrict_self lsm_get_self_attr lsm_list_modules
        lsm_set_self_attr nice pause pidfd_open pidfd_send_signal prctl prlimit64 ptrace restart_syscall rseq
        sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
        sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam
        sched_setscheduler sched_yield seccomp set_robust_list set_thread_area set_tid_address setfsgid setfsgid32
        setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setpgid setpriority setregid setregid32 setresgid
        setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setuid setuid32 sysinfo times ugetrlimit
        uname vfork wait4 waitid waitpid
    """,
    "signals": """
        alarm getitimer kill rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
        rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo setitimer sigaction sigaltstack signal sigpending
        sigprocmask sigreturn sigsuspend tgkill tkill
    """,
    "locks": """
        futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake
    """,
    "time": """
        adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
        clock_nanosleep clock_nanosleep_time64 gettimeofday nanosleep time timer_create timer_delete timer_getoverrun
        timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64
        timerfd_settime timerfd_settime64
    """,
    "messages": """
        ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64
        mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt
        shmget
    """,
    "sockets": """
        accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64
        recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketpair
    """,
}  # fmt: skip
ONLY = {
    "amd64": "arch_prctl modify_ldt uretprobe",
    "arm64": "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
    "riscv64": "riscv_flush_icache riscv_hwprobe",
}
_BY_CAPABILITY = {
    "CAP_BPF": "bpf",
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_PERFMON": "perf_event_open",
    "CAP_SYS_ADMIN": """
        bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount
        open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare
    """,
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module finit_module init_module",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev",
    "CAP_SYS_RAWIO": "ioperm iopl",
    "CAP_SYS_TIME": "clock_settime clock_settime64 settimeofday stime",
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_SYSLOG": "syslog",
}  # fmt: skip


def default_profile(architecture: str, capabilities: Collection[str]) -> Json:
    """`linux.seccomp` of config.json.

    Args:
        architecture: of the image.
        capabilities: that the container is given.
    """
    allowed = {name for group in _ALLOWED.values() for name in group.split()}
    allowed |= set(ONLY.get(architecture, "").split())
    for capability, names in _BY_CAPABILITY.items():
        if capability in capabilities:
            allowed |= set(names.split())
    rules: list[Json] = [
        {"names": sorted(allowed), "action": "SCMP_ACT_ALLOW"},
        # the machine's own address families, but not the line to the hypervisor's other side
        _rule("socket", "SCMP_ACT_ALLOW", (0, AF_VSOCK, "SCMP_CMP_NE")),
        *(_rule("personality", "SCMP_ACT_ALLOW", (0, value, "SCMP_CMP_EQ")) for value in PERSONALITIES),
    ]
    if "clone" not in allowed:
        rules.append(
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": NEW_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]}
        )  # fmt: skip
        # its flags are behind a pointer; ENOSYS makes C libraries take clone
        rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS})
    return {
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": EPERM,
        "architectures": list(ARCHITECTURES.get(architecture, ())), "syscalls": rules,
    }  # fmt: skip


def _rule(name: str, action: str, argument: tuple[int, int, str]) -> Json:
    index, value, op = argument
    return {"names": [name], "action": action, "args": [{"index": index, "value": value, "op": op}]}


def read_profile(data: bytes, name: str) -> Json:
    """A profile from a file: `linux.seccomp` as the OCI runtime specification has it.

    Raises:
        InputError: it isn't one. Engines' own form, with `archMap` or `includes`, is another.
    """
    hint = "it is the value of linux.seccomp in a config.json: defaultAction and syscalls"
    try:
        if len(data) > MAX_FILE:
            raise ValueError(f"more than {MAX_FILE} bytes")
        found = read_json(data)
    except (ValueError, RecursionError) as e:
        raise InputError(f"{name} is no seccomp profile: {e}", hint=hint) from None
    if not isinstance(found, Mapping) or not str(found.get("defaultAction", "")).startswith("SCMP_ACT_"):
        raise InputError(f"{name} is no seccomp profile: it has no defaultAction", hint=hint)
    rules = found.get("syscalls", [])
    good = isinstance(rules, list) and all(isinstance(r, Mapping) and _names(r) for r in rules)
    if not good or "archMap" in found or any({"includes", "excludes", "name"} & set(r) for r in rules):
        raise InputError(f"{name} is not in the form of the OCI runtime specification", hint=hint)
    return dict(found)


def _names(rule: Mapping[str, Any]) -> bool:
    names = rule.get("names")
    named = isinstance(names, list) and bool(names) and all(isinstance(n, str) for n in names)
    return named and str(rule.get("action", "")).startswith("SCMP_ACT_")
