/* Containers that run to their end, one after the other: onboot and onshutdown. */
#define _GNU_SOURCE
#include "applets.h"
#include "event.h"
#include "service.h"
#include "shutdown.h"
#include "spawn.h"
#include "stream.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define NOTICE 10.0 /* seconds between two words about what a shutdown waits for */
#define ALIVE 0.5   /* between two signs of life */
#define GRACE 5.0   /* seconds between SIGTERM and SIGKILL for one that takes too long */

struct once {
    const struct container *container;
    const struct runtime *runtime;
    char *step, *out, *err; /* name in the report, log files */
    const int *out_fd, *err_fd;
    struct stream streams[2];
    double start, limit; /* limit: seconds; 0: none */
};

static pid_t begin(const struct once *once, const char *verb, const char *pid_file)
{
    const char *argv[RUNTIME_ARGS];
    runtime_args(once->runtime, verb, once->container, pid_file, argv);
    return spawn(&(struct spawn){.argv = argv, .out = once->out_fd, .err = once->err_fd});
}

/* Says what is waited for; ends it when its time is over. Returns when to look again. */
static double mind_limit(const struct once *once, pid_t pid, double *told)
{
    double t = now() - once->start;
    if (!once->limit)
        return 3600;
    report_alive(); /* PID 1 counts the time since somebody was heard */
    if (t >= once->limit + GRACE) {
        const char *argv[RUNTIME_ARGS];
        runtime_args(once->runtime, "delete", once->container, NULL, argv);
        spawn(&(struct spawn){.argv = argv});
        kill(pid, SIGKILL);
        return ALIVE;
    }
    if (t >= once->limit) {
        if (*told < once->limit) {
            say("%s took longer than %g s: it is ended", once->step, once->limit);
            kill(pid, SIGTERM);
            *told = once->limit;
        }
        return ALIVE;
    }
    if (t >= *told + NOTICE) {
        say("waiting for %s: %.0f of %g s", once->step, t, once->limit);
        *told = t;
    }
    return once->limit - t < ALIVE ? once->limit - t : ALIVE;
}

/* Copies the output until the process ends; its wait status. */
static int wait_copying(struct once *once, pid_t pid)
{
    scoped_fd ended = (int)syscall(SYS_pidfd_open, pid, 0);
    double told = 0;
    int status;
    for (;;) {
        pid_t got = waitpid(pid, &status, WNOHANG);
        if (got == pid || (got < 0 && errno != EINTR))
            return got == pid ? status : -1;
        double wait = mind_limit(once, pid, &told);
        struct pollfd watched[3] = {{.fd = ended, .events = POLLIN}, {.fd = -1}, {.fd = -1}};
        for (size_t i = 0; i < 2 && once->out_fd; i++) {
            double due = stream_due(&once->streams[i]);
            watched[1 + i] = stream_wish(&once->streams[i]);
            wait = due >= 0 && due < wait ? due : wait;
        }
        if (ended < 0 && wait > 0.02)
            wait = 0.02; /* a kernel before 5.3 */
        if (poll(watched, COUNT(watched), (int)(wait * 1e3) + 1) >= 0)
            for (size_t i = 0; i < 2 && once->out_fd; i++)
                stream_step(&once->streams[i], watched[1 + i].revents != 0);
    }
}

static int call(struct once *once, const char *verb, const char *pid_file)
{
    pid_t pid = begin(once, verb, pid_file);
    return pid < 0 ? -1 : wait_copying(once, pid);
}

/* create, prepare, start, wait, delete: only for those who have something to prepare in between. */
static int run_in_stages(struct once *once, char error[static ERROR_MAX])
{
    scoped_free char *pid_file = pid_file_of(once->container);
    int status = call(once, "create", pid_file);
    if (status != 0) {
        snprintf(error, ERROR_MAX, "%s create failed", base_name(once->runtime->path));
        return status;
    }
    pid_t pid = (pid_t)read_number(pid_file);
    status = -1;
    if (pid <= 0)
        snprintf(error, ERROR_MAX, "no pid in %s", pid_file);
    else if (prepare_process(once->container, pid, error) == 0 && (status = call(once, "start", NULL)) == 0)
        status = wait_copying(once, pid);
    call(once, "delete", NULL);
    unlink(pid_file);
    return status;
}

static void end_stream(struct stream *stream)
{
    scoped_free char *path = must_dup(stream->path);
    unsigned long long total = stream->total;
    stream_close(stream);
    log_show(path, total);
}

/* Runs it; the wait status, or -1 with the reason. */
static int run_one(struct once *once, char error[static ERROR_MAX])
{
    if (!once->runtime->path) {
        snprintf(error, ERROR_MAX, "there is no crun or runc");
        return -1;
    }
    if (prepare_files(once->container, error) < 0)
        return -1;
    bool console = booted_with("linuxkit.runc_console=1");
    scoped_fd out = console ? -1 : stream_writer(once->out);
    scoped_fd err = console ? -1 : stream_writer(once->err);
    once->out_fd = out < 0 ? NULL : &out;
    once->err_fd = err < 0 ? NULL : &err;
    if (once->out_fd) {
        stream_open(&once->streams[0], once->out, ONCE_LOG_LIMIT, ONCE_LOG_LIMIT);
        stream_open(&once->streams[1], once->err, ONCE_LOG_LIMIT, ONCE_LOG_LIMIT);
    }
    int status = needs_process(once->container) ? run_in_stages(once, error) : call(once, "run", NULL);
    if (status == -1 && !*error)
        snprintf(error, ERROR_MAX, "%s: %s", once->runtime->path, strerror(errno));
    if (once->limit && now() - once->start > once->limit)
        snprintf(error, ERROR_MAX, "it took longer than %g s and was ended", once->limit);
    undo_files(once->container);
    for (size_t i = 0; i < 2 && once->out_fd; i++)
        end_stream(&once->streams[i]);
    return status;
}

static void stop_boot(const char *step, int code, const char *error)
{
    scoped_free char *why = *error ? format("%s failed: %s\n", step, error)
                                   : format("%s failed with status %d\n", step, code);
    if (write_file(HALT_FILE, why) < 0)
        say("%s: %s", HALT_FILE, strerror(errno));
}

/* True: it went well. */
static bool run_reported(struct once *once)
{
    char error[ERROR_MAX] = "";
    double start = once->start = now();
    report(&(struct event){.event = "start", .step = once->step});
    int status = run_one(once, error);
    int code = status < 0 ? 1 : status_code(status);
    double ms = (now() - start) * 1e3;
    if (code == 0) {
        report(&(struct event){.event = "done", .step = once->step, .ended = true, .ms = ms});
        return true;
    }
    scoped_tail tail;
    tail_read(&tail, once->out, once->err);
    /* The runtime stayed in front, so a signal comes back as a shell counts it. */
    report(&(struct event){.event = "fail", .step = once->step, .ended = true, .status = code,
                           .signal = code > 128 && code < 128 + 65 ? code - 128 : 0, .ms = ms, .message = error,
                           .log = tail.lines, .log_count = tail.count});
    say("%s failed with status %d%s%s", once->step, code, *error ? ": " : "", error);
    if (once->container->halt)
        stop_boot(once->step, code, error);
    return false;
}

int run_containers(const struct plan *plan, enum kind kind)
{
    const char *type = kind == ONBOOT ? "onboot" : "shutdown", *section = kind == ONBOOT ? "onboot" : "onshutdown";
    if (plan_count(plan, kind) == 0)
        return 0;
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    struct runtime runtime = runtime_find();
    scoped_free char *folder = format("/run/log/%s", type), *shown = format("/var/log/%s", type);
    make_dirs(folder, 0755);
    int failed = 0;
    for (size_t i = 0; i < plan->container_count; i++) {
        const struct container *container = &plan->containers[i];
        if (container->kind != kind)
            continue;
        scoped_free char *step = format("%s/%s", section, container->name);
        scoped_free char *out = format("%s/%s.%s.out.log", folder, type, container->name);
        scoped_free char *err = format("%s/%s.%s.log", folder, type, container->name);
        struct once once = {.container = container, .runtime = &runtime, .step = step, .out = out, .err = err,
                            .limit = kind == ONBOOT ? 0 : container->limit ? container->limit : shutdown_limit()};
        unlink(out); /* of an earlier run */
        unlink(err);
        bool well = run_reported(&once);
        stream_forget(out);
        stream_forget(err);
        failed += !well;
        if (!well && container->halt)
            break;
    }
    make_parents(shown);
    (void)!symlink(folder, shown);
    return failed ? 1 : 0;
}
