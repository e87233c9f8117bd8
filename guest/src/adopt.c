/* What a keeper writes down for the next one, should it be killed, and how that one takes over.
 *
 * STATE_DIR/NAME.state  a service: state, pid, its start, restarts, made, last status, first, wanted
 * STATE_DIR/ends/PID    asks PID 1, who inherits a dead keeper's children, to write that process's status there */
#define _GNU_SOURCE
#include "supervisor.h"
#include "event.h"
#include "util.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define ENDS STATE_DIR "/ends"
#define HELPER_WAIT 5000 /* milliseconds that a start gets which the last keeper began */
#define END_WAIT 20      /* times 10 ms that PID 1 gets to write down a status */
#define UNKNOWN (255 << 8)

uint64_t started_at(pid_t pid)
{
    scoped_free char *path = format("/proc/%d/stat", (int)pid);
    scoped_free char *text = pid > 0 ? read_file(path, 4096, NULL) : NULL;
    /* The second field is the name in parentheses, which may hold anything; the start is the twenty-second. */
    char *at = text ? strrchr(text, ')') : NULL;
    if (!at || at[1] != ' ' || at[2] == 'Z' || at[2] == 'X')
        return 0;
    for (int field = 2; at && field < 22; field++)
        at = strchr(at + 1, ' ');
    return at ? strtoull(at + 1, NULL, 10) : 0;
}

void note_process(const char *name, pid_t pid, const char *word)
{
    scoped_free char *path = format(NOTED, name);
    scoped_free char *text = format("%d %llu %s\n", (int)pid, (unsigned long long)started_at(pid), word);
    if (write_file(path, text) < 0)
        say("%s: %s", path, strerror(errno));
}

pid_t noted_process(const char *name, char *word, size_t room)
{
    scoped_free char *path = format(NOTED, name);
    scoped_free char *line = read_line(path);
    int pid = 0, at = 0;
    unsigned long long start = 0;
    if (!line || sscanf(line, "%d %llu %n", &pid, &start, &at) != 2 || pid <= 0)
        return 0;
    if (word)
        snprintf(word, room, "%s", line + at);
    return start && started_at(pid) == start ? pid : 0;
}

/* Renamed into place: a keeper that is killed here leaves the old words or the new ones. */
static void replace(const char *path, const char *text)
{
    scoped_free char *partial = format("%s.new", path);
    if (write_file(partial, text) < 0 || rename(partial, path) < 0)
        say("%s: %s", path, strerror(errno));
}

static char *state_file(const struct service *one)
{
    return format(STATE_DIR "/%s.state", one->plan->name);
}

void service_note(const struct service *one)
{
    scoped_free char *path = state_file(one);
    pid_t pid = one->state == RUNNING ? one->pid : one->helper;
    scoped_free char *text = format("%d %d %llu %u %d %d %d %d %.3f\n", (int)one->state, (int)pid,
                                    (unsigned long long)started_at(pid), one->restarts, (int)one->made, one->status,
                                    (int)one->first, (int)one->wanted, one->started);
    replace(path, text);
    if (one->state == RUNNING || one->state == CLEANING) { /* how a task ended is what its removal ends with */
        scoped_free char *end = format(ENDS "/%d", (int)pid);
        make_dirs(ENDS, 0700);
        write_file(end, "");
    }
}

int end_take(pid_t pid)
{
    scoped_free char *path = format(ENDS "/%d", (int)pid);
    for (int i = 0; i < END_WAIT; i++) {
        /* It may be ours after all: a runtime that starts something is its parent until it ends itself. */
        int status;
        if (waitpid(pid, &status, WNOHANG) == pid)
            return status;
        long written = read_number(path);
        if (written >= 0)
            return (int)written;
        if (i)
            pause_ms(10);
    }
    return UNKNOWN;
}

void end_forget(pid_t pid)
{
    scoped_free char *path = format(ENDS "/%d", (int)pid);
    if (pid > 0)
        unlink(path);
}

/* A start that the last keeper began goes on without it: by now, or soon, it has come to a result. */
static bool helper_left(struct service *one, pid_t helper)
{
    scoped_fd fd = helper > 0 ? (int)syscall(SYS_pidfd_open, helper, 0) : -1;
    if (fd >= 0 && poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, HELPER_WAIT) <= 0)
        kill(helper, SIGKILL);
    pid_t pid = (pid_t)read_number(one->pid_file);
    if (one->state != STARTING || pid <= 0 || !started_at(pid))
        return false;
    one->pid = pid;
    one->started = now();
    one->made = MADE;
    return true;
}

bool service_adopt(struct supervisor *all, struct service *one)
{
    scoped_free char *path = state_file(one), *line = read_line(path);
    int state, pid, made, first, wanted;
    unsigned long long start;
    if (!line || sscanf(line, "%d %d %llu %u %d %d %d %d %lf", &state, &pid, &start, &one->restarts, &made, &one->status,
                        &first, &wanted, &one->started) != 9)
        return false;
    one->state = (typeof(one->state))state;
    one->made = (typeof(one->made))made;
    one->first = first == PENDING ? GOOD : (typeof(one->first))first;
    one->wanted = wanted == WANT_RESTART ? WANT_RUN : (typeof(one->wanted))wanted;
    one->asked = now();
    if (one->state == STOPPED)
        return true;
    if (one->state == WAITING) {
        one->due = now();
        return true;
    }
    bool lives = start && started_at(pid) == start, ran = one->state == RUNNING;
    if (ran)
        one->pid = pid;
    else
        lives = ran = helper_left(one, lives ? pid : 0);
    one->pidfd = lives ? (int)syscall(SYS_pidfd_open, one->pid, 0) : -1;
    if (one->pidfd >= 0) {
        one->state = RUNNING;
        service_note(one);
        health_begin(one);
        return true;
    }
    if (one->state == CLEANING) { /* that is done by now */
        int end = end_take(pid);
        end_forget(pid);
        one->ended = now();
        if (end != UNKNOWN && !WIFSIGNALED(end))
            helper_ended(all, one, end);
        else
            service_ended(all, one, one->status); /* or it is not, and is begun again */
        return true;
    }
    if (!ran) { /* killed in the middle of a start: clean up, and begin again unless it is to be down */
        one->wanted = one->wanted == WANT_RUN ? WANT_RESTART : one->wanted;
        one->started = 0;
    }
    service_ended(all, one, ran ? end_take(one->pid) : one->status);
    return true;
}
