/* The supervisor's process: forks away from init.d, starts all services, then waits for what happens. */
#define _GNU_SOURCE
#include "event.h"
#include "spawn.h"
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
#include <sys/wait.h>

#define LOG_LIMIT (4 << 20)   /* of a service's log file; twice that with its .1 */
#define LOG_EVERY 5.0         /* seconds between looks at the sizes */
#define CONTAINERD_LIMIT 60.0 /* seconds until its socket must answer */
#define MARK STATE_DIR "/supervisor.pid"

bool orphan_take(struct supervisor *all, pid_t pid, int *status)
{
    for (size_t i = 0; i < COUNT(all->orphans); i++)
        if (pid > 0 && all->orphans[i].pid == pid) {
            *status = all->orphans[i].status;
            all->orphans[i].pid = 0;
            return true;
        }
    return false;
}

static void containerd_ended(struct supervisor *all, int status)
{
    struct containerd *daemon = &all->daemon;
    double delay = policy_next(&daemon->policy, RESTART_ALWAYS, 1, now() - daemon->since);
    scoped_tail tail;
    tail_read(&tail, NULL, "/var/log/containerd.log");
    report(&(struct event){.event = "exit", .step = "init.d/020-containerd", .ended = true,
                           .status = status_code(status), .signal = status_signal(status), .log = tail.lines,
                           .log_count = tail.count});
    say("containerd ended with status %d; again in %.1f s", status_code(status), delay);
    daemon->pid = 0;
    daemon->due = now() + delay;
}

static void ended(struct supervisor *all, pid_t pid, int status)
{
    if (pid == all->daemon.pid) {
        containerd_ended(all, status);
        return;
    }
    for (size_t i = 0; i < all->count; i++) {
        struct service *one = &all->services[i];
        if (one->helper == pid) {
            helper_ended(all, one, status);
            return;
        }
        if (!all->containerd && one->pid == pid && one->state == RUNNING) {
            service_ended(all, one, status);
            return;
        }
    }
    all->orphans[all->orphan_at++ % COUNT(all->orphans)] = (struct orphan){pid, status};
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
        if (!all->services[i].settled)
            return;
        failed |= *all->services[i].error != 0 || !all->services[i].known;
    }
    if (all->settled_pipe >= 0) {
        (void)!write(all->settled_pipe, &failed, 1);
        close(all->settled_pipe);
        all->settled_pipe = -1;
    }
}

static void cap_logs(const struct supervisor *all)
{
    static double next;
    if (now() < next)
        return;
    next = now() + LOG_EVERY;
    for (size_t i = 0; i < all->count && !all->containerd; i++) {
        log_cap(all->services[i].out, LOG_LIMIT);
        log_cap(all->services[i].err, LOG_LIMIT);
    }
}

static double tick(struct supervisor *all)
{
    double next = now() + LOG_EVERY;
    for (size_t i = 0; i < all->count; i++) {
        struct service *one = &all->services[i];
        double due = service_tick(all, one, LOG_EVERY);
        next = due < next ? due : next;
        control_settle(all, one);
    }
    if (all->daemon.due && all->daemon.due <= now())
        containerd_start(&all->daemon);
    if (all->daemon.due && all->daemon.due < next)
        next = all->daemon.due;
    tell_settled(all);
    cap_logs(all);
    return next;
}

static void step(struct supervisor *all)
{
    double next = tick(all);
    struct pollfd *watched = must_alloc((2 + all->count) * sizeof(*watched));
    watched[0] = (struct pollfd){.fd = all->signals, .events = POLLIN};
    watched[1] = (struct pollfd){.fd = all->control, .events = POLLIN};
    for (size_t i = 0; i < all->count; i++)
        watched[2 + i] = (struct pollfd){.fd = all->services[i].pidfd, .events = POLLIN};
    double left = next - now();
    int timeout = left <= 0 ? 0 : (int)(left * 1e3) + 1;
    if (poll(watched, (nfds_t)(2 + all->count), timeout) > 0) {
        for (size_t i = 0; i < all->count; i++)
            if (watched[2 + i].revents)
                service_ended(all, &all->services[i], 0);
        if (watched[0].revents)
            on_signals(all);
        if (watched[1].revents)
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

static int start_containerd(struct supervisor *all, const struct plan *plan)
{
    bool past = containerd_has_past();
    double start = now();
    if (containerd_start(&all->daemon) < 0 || containerd_wait(&all->daemon, CONTAINERD_LIMIT) < 0) {
        scoped_tail tail;
        tail_read(&tail, NULL, "/var/log/containerd.log");
        report(&(struct event){.event = "fail", .step = "service/containerd", .message = "containerd does not answer",
                               .log = tail.lines, .log_count = tail.count});
        say("containerd does not answer");
        return -1;
    }
    report(&(struct event){.event = "ready", .step = "service/containerd", .ms = (now() - start) * 1e3});
    if (past)
        containerd_forget(plan);
    return 0;
}

static _Noreturn void keep(const struct plan *plan, bool containerd, int settled_pipe)
{
    struct supervisor all = {.containerd = containerd, .settled_pipe = settled_pipe, .signals = -1, .control = -1};
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    setsid();
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    all.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    scoped_free char *own = format("%d\n", (int)getpid());
    write_file(MARK, own);
    collect(&all, plan);
    if (containerd && start_containerd(&all, plan) < 0)
        _exit(1);
    if (!containerd)
        all.runtime = runtime_find();
    if (!containerd && !all.runtime.path && all.count) {
        report(&(struct event){.event = "fail", .step = "init.d/030-services",
                               .message = "there is no containerd, crun or runc to run services with"});
        _exit(1);
    }
    all.control = control_listen();
    for (size_t i = 0; i < all.count; i++)
        service_begin(&all, &all.services[i]);
    for (;;)
        step(&all);
}

int supervise(const struct plan *plan, bool containerd)
{
    int settled[2];
    /* 030-services after 020-containerd, or called twice: one keeper is enough. */
    long keeper = read_number(MARK);
    if (keeper > 0 && kill((pid_t)keeper, 0) == 0)
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
