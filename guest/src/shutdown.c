#include "shutdown.h"
#include "event.h"
#include "spawn.h"
#include "util.h"

#include <errno.h>
#include <linux/reboot.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/wait.h>

#define GRACE 5.0 /* seconds between SIGTERM and SIGKILL, for those that handle SIGTERM */

/* A field of /proc/PID/status, where it stands, or NULL. */
static const char *status_field(const char *text, const char *name)
{
    const char *at = strstr(text, name);
    return at ? at + strlen(name) + strspn(at + strlen(name), " \t") : NULL;
}

/* Someone who has a handler may need time. Someone who has none is gone at once, but for the first process of a pid
 * namespace, which the kernel shields, and those who ignore the signal: waiting for these would be in vain. */
static bool is_ending(const char *pid)
{
    scoped_free char *path = format("/proc/%s/status", pid);
    scoped_free char *text = read_file(path, 1 << 16, NULL);
    if (!text)
        return false;
    const char *state = status_field(text, "\nState:"), *caught = status_field(text, "\nSigCgt:");
    const char *ignored = status_field(text, "\nSigIgn:"), *inside = status_field(text, "\nNSpid:");
    if (!status_field(text, "\nVmSize:") || !state || *state == 'Z' || !caught || !ignored)
        return false; /* a kernel thread, or dead already */
    unsigned long long term = 1ULL << (SIGTERM - 1);
    if (strtoull(caught, NULL, 16) & term)
        return true;
    if (strtoull(ignored, NULL, 16) & term)
        return false;
    size_t line = inside ? strcspn(inside, "\n") : 0;
    return !(line > 2 && inside[line - 1] == '1' && inside[line - 2] == '\t');
}

bool anyone_ending(void)
{
    size_t count;
    char **names = list_names("/proc", &count);
    char own[24];
    snprintf(own, sizeof(own), "%d", (int)getpid());
    bool found = false;
    for (size_t i = 0; i < count && !found; i++)
        found = names[i][0] >= '1' && names[i][0] <= '9' && strcmp(names[i], own) != 0 && is_ending(names[i]);
    if (names)
        free_names(names, count);
    return found;
}

static void end_everyone(struct loop *loop)
{
    if (getpid() != 1)
        return; /* not ours to end */
    kill(-1, SIGTERM);
    kill(-1, SIGCONT);
    double end = now() + GRACE;
    while (now() < end && anyone_ending())
        loop_step(loop, 20);
    kill(-1, SIGKILL);
    end = now() + 2;
    while (now() < end && (waitpid(-1, NULL, WNOHANG) >= 0 || errno != ECHILD))
        pause_ms(5);
}

void unmount_all(void)
{
    static const char *const real[] = {"ext2", "ext3",    "ext4", "btrfs", "xfs", "vfat", "msdos", "f2fs",
                                       "exfat", "overlay", "nfs",  "nfs4",  "cifs"};
    scoped_free char *text = read_file("/proc/mounts", 16 << 20, NULL);
    if (!text)
        return;
    char **lines = NULL;
    size_t count = 0;
    char *save;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        *APPEND(lines, count) = line;
    while (count--) {
        char *rest, *source = strtok_r(lines[count], " ", &rest), *target = strtok_r(NULL, " ", &rest);
        char *type = strtok_r(NULL, " ", &rest);
        bool wanted = false;
        for (size_t i = 0; i < COUNT(real); i++)
            wanted |= source && target && type && strcmp(type, real[i]) == 0;
        if (!wanted)
            continue;
        bool network = starts_with(type, "nfs") || strcmp(type, "cifs") == 0;
        if (strcmp(target, "/") == 0 || umount2(target, network ? MNT_DETACH : 0) < 0)
            if (mount(NULL, target, NULL, MS_REMOUNT | MS_RDONLY, NULL) < 0 && errno != EINVAL)
                say("unmount %s: %s", target, strerror(errno));
    }
    free(lines);
}

static void run_scripts(struct loop *loop)
{
    size_t count;
    char **names = list_names("/etc/shutdown.d", &count);
    for (size_t i = 0; i < count; i++) {
        scoped_free char *path = format("/etc/shutdown.d/%s", names[i]);
        const char *argv[] = {path, NULL};
        pid_t pid = spawn(&(struct spawn){.argv = argv});
        if (pid < 0)
            say("%s: %s", path, strerror(errno));
        else
            loop_wait(loop, pid);
    }
    if (names)
        free_names(names, count);
}

void shut_down(struct loop *loop, enum wish wish, bool machine)
{
    static const char *const words[] = {"", "poweroff", "reboot", "halt"};
    double start = now();
    loop->ending = true;
    loop->wish = STAY; /* so that waiting works again */
    loop_report(loop, &(struct event){.event = "shutdown", .step = "shutdown", .message = words[wish]});
    say("%s", words[wish]);
    run_scripts(loop);
    end_everyone(loop);
    sync();
    if (machine)
        unmount_all();
    loop_report(loop, &(struct event){.event = "off", .step = "shutdown", .message = words[wish],
                                      .ms = (now() - start) * 1e3});
    loop_flush(loop, 500);
    sync();
    if (!machine)
        return;
    reboot(wish == REBOOT ? LINUX_REBOOT_CMD_RESTART : wish == HALT ? LINUX_REBOOT_CMD_HALT
                                                                     : LINUX_REBOOT_CMD_POWER_OFF);
}
