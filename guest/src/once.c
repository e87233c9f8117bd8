/* Containers that run to their end, one after the other: onboot and onshutdown. */
#include "applets.h"
#include "event.h"
#include "service.h"
#include "spawn.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

struct once {
    const struct container *container;
    const struct runtime *runtime;
    char *step, *out, *err; /* name in the report, log files */
    const int *out_fd, *err_fd;
};

static int call(const struct once *once, const char *verb, const char *pid_file)
{
    const char *argv[RUNTIME_ARGS];
    runtime_args(once->runtime, verb, once->container, pid_file, argv);
    return spawn_wait(&(struct spawn){.argv = argv, .out = once->out_fd, .err = once->err_fd});
}

/* create, prepare, start, wait, delete: only for those who have something to prepare in between. */
static int run_in_stages(const struct once *once, char error[static ERROR_MAX])
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
        status = wait_for(pid);
    call(once, "delete", NULL);
    unlink(pid_file);
    return status;
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
    scoped_fd out = console ? -1 : log_stream(once->out, true);
    scoped_fd err = console ? -1 : log_stream(once->err, true);
    once->out_fd = console ? NULL : &out;
    once->err_fd = console ? NULL : &err;
    int status = needs_process(once->container) ? run_in_stages(once, error) : call(once, "run", NULL);
    if (status == -1 && !*error)
        snprintf(error, ERROR_MAX, "%s: %s", once->runtime->path, strerror(errno));
    undo_files(once->container);
    if (!console)
        log_show(once->out, once->err);
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
    double start = now();
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
        struct once once = {.container = container, .runtime = &runtime, .step = step, .out = out, .err = err};
        bool well = run_reported(&once);
        failed += !well;
        if (!well && container->halt)
            break;
    }
    make_parents(shown);
    (void)!symlink(folder, shown);
    return failed ? 1 : 0;
}
