/* How the machine ends: scripts, processes, disks, each within its time. */
#include "shutdown.h"
#include "console.h"
#include "event.h"
#include "spawn.h"
#include "util.h"

#include <errno.h>
#include <linux/reboot.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/wait.h>

#define LIMIT 90.0   /* seconds of one step, when nothing else is said */
#define LIMIT_MAX 86400
#define GRACE 5.0 /* seconds between SIGTERM and SIGKILL, for those that handle SIGTERM */

double shutdown_limit(void)
{
    scoped_free char *text = booted_value("linuxkit.shutdown_timeout");
    long seconds = text ? strtol(text, NULL, 10) : 0;
    return seconds > 0 && seconds <= LIMIT_MAX ? (double)seconds : LIMIT;
}

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

/* The step took too long. What it started is in its process group, or dies with everybody else. */
static void cut_short(struct loop *loop, const char *path, pid_t pid, double limit)
{
    scoped_free char *step = format("shutdown.d/%s", base_name(path));
    scoped_free char *message = format("nothing happened for %g s, and it was ended", limit);
    say("%s: %s", step, message);
    loop_report(loop, &(struct event){.event = "fail", .step = step, .message = message});
    kill(-pid, SIGTERM);
    if (loop_wait_limited(loop, pid, 2, path) < 0)
        kill(-pid, SIGKILL);
}

static void run_scripts(struct loop *loop, double limit)
{
    size_t count;
    char **names = list_names("/etc/shutdown.d", &count);
    for (size_t i = 0; i < count; i++) {
        scoped_free char *path = format("/etc/shutdown.d/%s", names[i]);
        const char *argv[] = {path, NULL};
        pid_t pid = spawn(&(struct spawn){.argv = argv});
        if (pid < 0)
            say("%s: %s", path, strerror(errno));
        else if (loop_wait_limited(loop, pid, limit, path) < 0)
            cut_short(loop, path, pid, limit);
    }
    if (names)
        free_names(names, count);
}

/* A disk or a server that does not answer holds up whoever syncs or unmounts, and nothing ends that: so it is a child's work. */
static void let_go(struct loop *loop, bool machine, double limit)
{
    pid_t pid = fork();
    if (pid == 0) {
        sync();
        if (machine)
            teardown();
        sync();
        _exit(0);
    }
    if (pid > 0 && loop_wait_limited(loop, pid, limit, "the disks") < 0)
        say("the disks took longer than %g s: they are left as they are", limit);
}

void shut_down(struct loop *loop, enum wish wish, bool machine)
{
    static const char *const words[] = {"", "poweroff", "reboot", "halt"};
    double start = now(), limit = shutdown_limit();
    loop->ending = true;
    loop->wish = STAY; /* so that waiting works again */
    loop_report(loop, &(struct event){.event = "shutdown", .step = "shutdown", .message = words[wish]});
    say("%s", words[wish]);
    run_scripts(loop, limit);
    end_everyone(loop);
    let_go(loop, machine, limit);
    loop_report(loop, &(struct event){.event = "off", .step = "shutdown", .message = words[wish],
                                      .ms = (now() - start) * 1e3});
    loop_flush(loop, 500);
    console_flush();
    if (!machine)
        return;
    reboot(wish == REBOOT ? LINUX_REBOOT_CMD_RESTART : wish == HALT ? LINUX_REBOOT_CMD_HALT
                                                                     : LINUX_REBOOT_CMD_POWER_OFF);
}
