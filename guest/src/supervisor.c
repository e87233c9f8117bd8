/* Keeps the services running: starts them side by side, notices when one ends, says so, starts it again if it should.
 *
 * A service goes STOPPED → (CREATING →) STARTING → RUNNING → CLEANING → WAITING or STOPPED. Creating, starting and
 * cleaning are one process each (crun, runc, or a talk with containerd), here called the helper, and the keeper does not
 * wait for it. */
#include "supervisor.h"
#include "event.h"
#include "spawn.h"
#include "stream.h"
#include "util.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define HELPER_LIMIT 120.0 /* seconds that one run of crun, runc or ctr may take */
#define ORPHANS_SPARE 32   /* besides one for each service that may be starting */
#define DELETE_TRIES 20    /* containerd may hear of the end a little later than we do */

void orphan_keep(struct supervisor *all, pid_t pid, int status)
{
    size_t room = all->count + ORPHANS_SPARE;
    if (!all->orphans)
        all->orphans = must_alloc(room * sizeof(*all->orphans));
    all->orphans[all->orphan_at++ % room] = (struct orphan){pid, status, now()};
}

/* Did the process end before we knew its pid? Only an end since the start began counts, and only when the pid is nobody
 * else's by now: pids come round again. */
static bool orphan_take(struct supervisor *all, struct service *one, int *status)
{
    size_t room = all->orphans ? all->count + ORPHANS_SPARE : 0;
    pid_t got = waitpid(one->pid, status, WNOHANG);
    if (got >= 0)
        return got == one->pid;
    for (size_t i = 0; i < room; i++) {
        struct orphan *orphan = &all->orphans[(all->orphan_at + room - 1 - i) % room];
        if (orphan->pid == one->pid && orphan->when >= one->helper_since) {
            *status = orphan->status;
            orphan->pid = 0;
            return true;
        }
    }
    one->pidfd = (int)syscall(SYS_pidfd_open, one->pid, 0); /* the runtime is its parent, as long as that runs */
    if (one->pidfd < 0)
        *status = end_take(one->pid);
    return one->pidfd < 0;
}

static bool call(struct supervisor *all, struct service *one, const char *verb)
{
    /* What ctr says about the end of a task is for us, not for the log. */
    bool end = all->containerd && strcmp(verb, "delete") == 0;
    scoped_fd out = end ? log_open("/dev/null", false) : stream_writer(one->out);
    scoped_fd err = end ? log_open(one->end, true) : stream_writer(one->err);
    one->helper_since = now();
    if (!all->containerd) {
        const char *argv[RUNTIME_ARGS];
        runtime_args(&all->runtime, verb, one->plan, one->pid_file, argv);
        one->helper = spawn(&(struct spawn){.argv = argv, .out = &out, .err = &err});
    } else {
        struct command command;
        containerd_args(&command, strcmp(verb, "run-detached") ? verb : "run", one->plan, one->pid_file);
        one->helper = spawn(&(struct spawn){.argv = command.argv, .out = &out, .err = &err, .first = task_do,
                                            .with = &command.task});
        command_free(&command);
    }
    if (one->helper >= 0) {
        service_note(one);
        return true;
    }
    one->helper = 0;
    snprintf(one->error, sizeof(one->error), "%s: %s", all->containerd ? "ctr" : "crun or runc", strerror(errno));
    return false;
}

static void announce(struct service *one, const char *event, int status, const char *message)
{
    scoped_tail tail = {.count = 0};
    bool bad = strcmp(event, "ready") && strcmp(event, "restart") && strcmp(event, "start");
    if (bad) {
        copier_settle(one->out, one->err);
        tail_read(&tail, one->out, one->err);
    }
    int code = status_code(status), number = status_signal(status);
    if (!number && code > 128 && code < 128 + 65)
        number = code - 128;
    double ms = strcmp(event, "ready") == 0 ? (now() - one->asked) * 1e3 : 0;
    report(&(struct event){.event = event, .step = one->step, .ended = !strcmp(event, "exit"), .status = code,
                           .signal = number, .ms = ms, .message = message, .log = tail.lines,
                           .log_count = tail.count, .health = strcmp(event, "ready") ? "" : health_word(one)});
    if (bad)
        say("%s: %s with status %d%s%s", one->step, strcmp(event, "exit") ? "failed" : "ended", code,
            *message ? ": " : "", message);
}

/* It is down. Again, later, or never? */
static void decide(struct service *one, int status)
{
    double healthy = one->started ? one->ended - one->started : 0;
    one->started = 0;
    one->first = one->first == PENDING ? BAD : one->first;
    one->pid = 0;
    one->state = STOPPED;
    double delay = one->wanted == WANT_RUN ? policy_next(&one->policy, one->plan->restart, status_code(status), healthy) : -1;
    if (delay >= 0) {
        one->state = WAITING;
        one->due = now() + delay;
        scoped_free char *text = format("in %.1f s, time %u", delay, ++one->restarts);
        announce(one, "restart", 0, text);
    }
    service_note(one);
}

static void failed_start(struct service *one, int status)
{
    one->status = status ? status : 1 << 8;
    one->ended = now();
    announce(one, "fail", one->status, one->error);
    one->made = one->made == MADE ? TRIED : one->made; /* what is left of it goes before the next start */
    decide(one, one->status);
}

void service_begin(struct supervisor *all, struct service *one)
{
    one->error[0] = 0;
    one->wanted = WANT_RUN;
    one->asked = now();
    if (one->made == NOTHING) {
        (void)!truncate(one->out, 0);
        (void)!truncate(one->err, 0);
        if (prepare_files(one->plan, one->error) < 0) {
            failed_start(one, 0);
            return;
        }
    }
    unlink(one->pid_file);
    if (all->containerd && one->made == TRIED)
        containerd_remove(namespace_of(one->plan), one->plan->name); /* what a failed start left */
    bool staged = !all->containerd && needs_process(one->plan);
    const char *verb = staged ? "create" : all->containerd && one->made == MADE ? "start" : "run-detached";
    one->made = one->made < TRIED ? TRIED : one->made;
    one->state = staged ? CREATING : STARTING;
    if (!call(all, one, verb))
        failed_start(one, 0);
}

void service_ended(struct supervisor *all, struct service *one, int status)
{
    end_forget(one->pid);
    health_stop(one);
    one->status = status;
    if (one->pidfd >= 0)
        close(one->pidfd);
    one->pidfd = -1;
    one->state = CLEANING;
    one->tries = 0;
    one->ended = now();
    if (!call(all, one, "delete"))
        decide(one, status);
}

static void running(struct supervisor *all, struct service *one)
{
    int status;
    one->pid = (pid_t)read_number(one->pid_file);
    one->state = RUNNING;
    one->started = now();
    one->made = MADE;
    one->first = GOOD;
    service_note(one);
    health_begin(one);
    announce(one, "ready", 0, "");
    if (all->containerd) {
        one->pidfd = (int)syscall(SYS_pidfd_open, one->pid, 0);
        if (one->pidfd < 0)
            service_ended(all, one, 0); /* gone already; ctr knows the status */
    } else if (orphan_take(all, one, &status)) {
        service_ended(all, one, status);
    }
}

static void prepared(struct supervisor *all, struct service *one)
{
    one->pid = (pid_t)read_number(one->pid_file);
    one->state = STARTING;
    if (one->pid > 0 && prepare_process(one->plan, one->pid, one->error) == 0 && call(all, one, "start"))
        return;
    if (!*one->error)
        snprintf(one->error, sizeof(one->error), "no pid in %s", one->pid_file);
    announce(one, "fail", 1 << 8, one->error);
    service_ended(all, one, 1 << 8);
}

static void cleaned(struct supervisor *all, struct service *one, int status)
{
    bool silent = false;
    if (all->containerd) {
        int code = containerd_end_status(one->end, status_code(status));
        if (code < 0 && !containerd_forgot(one->end) && one->tries++ < DELETE_TRIES) {
            pause_ms(50);
            if (call(all, one, "delete"))
                return;
        }
        one->status = (code < 0 ? 1 : code) << 8;
        silent = code < 0;
    }
    if (one->started && one->wanted == WANT_RUN)
        announce(one, "exit", one->status, silent ? "containerd does not tell its status" : "");
    decide(one, one->status);
}

void helper_ended(struct supervisor *all, struct service *one, int status)
{
    end_forget(one->helper);
    one->helper = 0;
    if (one->state == CLEANING)
        cleaned(all, one, status);
    else if (status != 0)
        failed_start(one, status);
    else if (one->state == CREATING)
        prepared(all, one);
    else if (one->state == STARTING)
        running(all, one);
    if (one->wanted != WANT_RUN && one->state == RUNNING)
        service_stop(one);
}

void service_stop(struct service *one)
{
    if (one->wanted == WANT_RUN)
        one->wanted = WANT_STOP;
    if (one->state == WAITING)
        one->state = STOPPED;
    if (one->state == RUNNING && one->pid > 0) {
        kill(one->pid, SIGTERM);
        one->kill_at = now() + STOP_GRACE;
    }
}

/* What is due by now; returns when to look again, at most `limit` from now. */
double service_tick(struct supervisor *all, struct service *one, double limit)
{
    double next = now() + limit, t = now();
    if (one->state == WAITING && one->due <= t)
        service_begin(all, one);
    if (one->state == WAITING && one->due < next)
        next = one->due;
    if (one->wanted != WANT_RUN && one->state == RUNNING) {
        if (one->kill_at <= t) {
            kill(one->pid, SIGKILL);
            one->kill_at = t + STOP_GRACE;
        }
        next = one->kill_at < next ? one->kill_at : next;
    }
    next = health_tick(all, one, next);
    if (one->helper && t - one->helper_since > HELPER_LIMIT)
        kill(one->helper, SIGKILL);
    return next;
}
