/* The supervisor's process: forks away from init.d, starts all services, then waits for what happens. */
#define _GNU_SOURCE
#include "console.h"
#include "event.h"
#include "spawn.h"
#include "stream.h"
#include "supervisor.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define LOOK_EVERY 5.0        /* seconds between two looks at everything */
#define CONTAINERD_LIMIT 60.0 /* seconds until its socket must answer */

static void daemon_ended(struct daemon *daemon)
{
    double delay = policy_next(&daemon->policy, RESTART_ALWAYS, 1, now() - daemon->since);
    if (daemon->pidfd >= 0)
        close(daemon->pidfd);
    daemon->pidfd = -1;
    daemon->pid = 0;
    daemon->due = now() + delay;
}

static void containerd_ended(struct supervisor *all, int status)
{
    scoped_tail tail;
    containerd_tail(&tail);
    report(&(struct event){.event = "exit", .step = "init.d/020-containerd", .ended = true,
                           .status = status_code(status), .signal = status_signal(status), .log = tail.lines,
                           .log_count = tail.count});
    daemon_ended(&all->daemon);
    say("containerd ended with status %d; again in %.1f s", status_code(status), all->daemon.due - now());
}

static void copier_ended(struct supervisor *all)
{
    daemon_ended(&all->copier);
    say("the copier of logs ended; again in %.1f s", all->copier.due - now());
}

/* Everything that may be written to: of services in the plan's order, then of containerd. */
static void start_copier(struct supervisor *all)
{
    const char **paths = must_alloc((2 * all->count + 2) * sizeof(*paths));
    size_t count = 0;
    for (size_t i = 0; i < all->count; i++) {
        paths[count++] = all->services[i].out;
        paths[count++] = all->services[i].err;
    }
    if (all->containerd) {
        paths[count++] = CONTAINERD_OUT;
        paths[count++] = CONTAINERD_ERR;
    }
    all->copier.pid = copier_start(paths, count);
    all->copier.since = now();
    all->copier.due = all->copier.pid < 0 ? now() + 1 : 0;
    if (all->copier.pid > 0)
        note_process("copier", all->copier.pid, "");
    free(paths);
}

/* One that an earlier keeper started. */
static bool daemon_adopt(struct daemon *daemon, const char *name)
{
    daemon->pid = noted_process(name, NULL, 0);
    daemon->pidfd = daemon->pid ? (int)syscall(SYS_pidfd_open, daemon->pid, 0) : -1;
    daemon->since = now();
    return daemon->pidfd >= 0;
}

static void ended(struct supervisor *all, pid_t pid, int status)
{
    if (pid == all->daemon.pid) {
        containerd_ended(all, status);
        return;
    }
    if (pid == all->copier.pid) {
        copier_ended(all);
        return;
    }
    for (size_t i = 0; i < all->count; i++) {
        struct service *one = &all->services[i];
        if (one->probe == pid) {
            health_ended(one, status);
            return;
        }
        if (one->helper == pid) {
            helper_ended(all, one, status);
            return;
        }
        if (!all->containerd && one->pid == pid && one->state == RUNNING) {
            service_ended(all, one, status);
            return;
        }
    }
    orphan_keep(all, pid, status);
}

static void on_signals(struct supervisor *all)
{
    struct signalfd_siginfo info;
    while (read(all->signals, &info, sizeof(info)) == sizeof(info))
        if (info.ssi_signo == SIGTERM)
            _exit(0); /* the machine stops: nothing is to start again */
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        ended(all, pid, status);
}

/* Tells the init.d file that waits, once every service has started or failed to. */
static void tell_settled(struct supervisor *all)
{
    unsigned char failed = 0;
    for (size_t i = 0; i < all->count; i++) {
        if (all->services[i].first == PENDING)
            return;
        failed |= all->services[i].first == BAD;
    }
    if (all->settled_pipe >= 0) {
        (void)!write(all->settled_pipe, &failed, 1);
        close(all->settled_pipe);
        all->settled_pipe = -1;
    }
}

static double tick(struct supervisor *all)
{
    double next = now() + LOOK_EVERY;
    for (size_t i = 0; i < all->count; i++) {
        struct service *one = &all->services[i];
        double due = service_tick(all, one, LOOK_EVERY);
        next = due < next ? due : next;
        control_settle(all, one);
    }
    if (all->daemon.due && all->daemon.due <= now())
        containerd_start(&all->daemon);
    if (all->copier.due && all->copier.due <= now())
        start_copier(all);
    const double dues[] = {all->daemon.due, all->copier.due};
    for (size_t i = 0; i < COUNT(dues); i++)
        if (dues[i] && dues[i] < next)
            next = dues[i];
    tell_settled(all);
    console_flush();
    return next;
}

static void step(struct supervisor *all)
{
    double next = tick(all);
    enum { SIGNALS, CONTROL, DAEMON, COPIER, FIRST };
    struct pollfd *watched = must_alloc((FIRST + all->count) * sizeof(*watched));
    const int fds[FIRST] = {all->signals, all->control, all->daemon.pidfd, all->copier.pidfd};
    for (size_t i = 0; i < FIRST; i++)
        watched[i] = (struct pollfd){.fd = fds[i], .events = POLLIN};
    for (size_t i = 0; i < all->count; i++)
        watched[FIRST + i] = (struct pollfd){.fd = all->services[i].pidfd, .events = POLLIN};
    double left = next - now();
    int timeout = left <= 0 ? 0 : (int)(left * 1e3) + 1;
    if (poll(watched, (nfds_t)(FIRST + all->count), timeout) > 0) {
        for (size_t i = 0; i < all->count; i++)
            if (watched[FIRST + i].revents)
                service_ended(all, &all->services[i], all->containerd ? 0 : end_take(all->services[i].pid));
        if (watched[DAEMON].revents)
            containerd_ended(all, 255 << 8);
        if (watched[COPIER].revents)
            copier_ended(all);
        if (watched[SIGNALS].revents)
            on_signals(all);
        if (watched[CONTROL].revents)
            control_accept(all);
    }
    free(watched);
}

static void collect(struct supervisor *all, const struct plan *plan)
{
    for (size_t i = 0; i < plan->container_count; i++) {
        const struct container *container = &plan->containers[i];
        if (container->kind != SERVICE)
            continue;
        *APPEND(all->services, all->count) = (struct service){
            .plan = container,
            .step = format("service/%s", container->name),
            .out = format("/var/log/%s.out.log", container->name),
            .err = format("/var/log/%s.log", container->name),
            .pid_file = pid_file_of(container),
            .end = format(STATE_DIR "/%s.end", container->name),
            .pidfd = -1,
            .client = -1,
        };
    }
}

static int start_containerd(struct supervisor *all, const struct plan *plan, bool adopt)
{
    bool past = !adopt && containerd_has_past();
    double start = now();
    if (adopt && daemon_adopt(&all->daemon, "containerd"))
        return 0;
    int status = 0;
    if (containerd_start(&all->daemon) < 0 || containerd_wait(&all->daemon, CONTAINERD_LIMIT, &status) < 0) {
        scoped_free char *why = all->daemon.pid ? must_dup("containerd does not answer")
                                                : format("containerd ended at once with status %d", status_code(status));
        scoped_tail tail;
        containerd_tail(&tail);
        report(&(struct event){.event = "fail", .step = "service/containerd", .message = why, .log = tail.lines,
                               .log_count = tail.count});
        say("%s", why);
        return -1;
    }
    report(&(struct event){.event = "ready", .step = "service/containerd", .ms = (now() - start) * 1e3});
    if (past)
        containerd_forget(plan);
    return 0;
}

/* Every service: taken over where an earlier keeper started it, else started. */
static void begin(struct supervisor *all, bool adopt)
{
    size_t living = 0;
    for (size_t i = 0; i < all->count; i++) {
        struct service *one = &all->services[i];
        if (!adopt || !service_adopt(all, one))
            service_begin(all, one);
        living += one->pidfd >= 0;
    }
    if (!adopt)
        return;
    scoped_free char *text = format("took over %zu running of %zu services", living, all->count);
    report(&(struct event){.event = "ready", .step = "keeper", .message = text});
    say("keeper: %s", text);
}

static _Noreturn void keep(const struct plan *plan, bool containerd, int settled_pipe)
{
    struct supervisor all = {.containerd = containerd, .settled_pipe = settled_pipe, .signals = -1, .control = -1,
                             .daemon.pidfd = -1, .copier.pidfd = -1};
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    setsid();
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    all.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    bool adopt = exists(KEEPER_FILE);
    note_process(KEEPER, getpid(), containerd ? "system-init" : "services");
    scoped_free char *own = format("%d\n", (int)getpid());
    write_file(STATE_DIR "/supervisor.pid", own); /* for people */
    collect(&all, plan);
    if (!daemon_adopt(&all.copier, "copier"))
        start_copier(&all);
    if (containerd && start_containerd(&all, plan, adopt) < 0) {
        if (!adopt)
            unlink(KEEPER_FILE); /* else PID 1 tries again */
        _exit(1);
    }
    all.runtime = runtime_find();
    if (!containerd && !all.runtime.path && all.count) {
        report(&(struct event){.event = "fail", .step = "init.d/030-services",
                               .message = "there is no containerd, crun or runc to run services with"});
        unlink(KEEPER_FILE);
        _exit(1);
    }
    all.control = control_listen();
    begin(&all, adopt);
    for (;;)
        step(&all);
}

int supervise(const struct plan *plan, bool containerd)
{
    int settled[2];
    /* 030-services after 020-containerd, or called twice: one keeper is enough. */
    if (noted_process(KEEPER, NULL, 0))
        return 0;
    if (!containerd && plan_count(plan, SERVICE) == 0)
        return 0;
    if (pipe2(settled, O_CLOEXEC) < 0)
        return 1;
    pid_t pid = fork();
    if (pid < 0) {
        say("fork: %s", strerror(errno));
        return 1;
    }
    if (pid == 0) {
        close(settled[0]);
        keep(plan, containerd, settled[1]);
    }
    close(settled[1]);
    unsigned char failed = 1;
    ssize_t got;
    while ((got = read(settled[0], &failed, 1)) < 0 && errno == EINTR)
        ;
    close(settled[0]);
    return got == 1 ? failed : 1;
}
