/* Health checks: a command in the container, an HTTP request or a TCP connection in its network namespace, each by a process
 * of its own that is given a time. Until the first success they come fast, so that a healthy service is known at once; it counts as unhealthy
 * only when `retries` checks at its own pace would have failed, as the engines count. */
#define _GNU_SOURCE
#include "event.h"
#include "spawn.h"
#include "stream.h"
#include "supervisor.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define FIRST 0.3       /* seconds between a service's start and its first check */
#define FAST 1.0        /* and between checks, at most, until one succeeds */
#define SAID_MAX 4096   /* bytes of what a check says */
#define FAILED 1

struct probe {
    const struct container *container;
    const struct runtime *runtime;
    const char *root; /* the runtime's state, "" for its own */
    pid_t pid;        /* of the container */
    char *said;       /* the file for what it says */
    double end;
};

/* Keeps the last bytes of what came. */
struct said {
    char bytes[2 * SAID_MAX];
    size_t used;
};

static void hear(struct said *said, const char *bytes, size_t length)
{
    if (length > SAID_MAX) {
        bytes += length - SAID_MAX;
        length = SAID_MAX;
    }
    if (said->used + length > sizeof(said->bytes)) {
        memmove(said->bytes, said->bytes + said->used - SAID_MAX, SAID_MAX);
        said->used = SAID_MAX;
    }
    memcpy(said->bytes + said->used, bytes, length);
    said->used += length;
}

static int tell(const struct probe *probe, const struct said *said, const char *more)
{
    size_t from = said->used > SAID_MAX ? said->used - SAID_MAX : 0;
    scoped_fd fd = log_open(probe->said, true);
    write_all(fd, said->bytes + from, said->used - from);
    write_all(fd, more, strlen(more));
    return FAILED;
}

static int left_ms(const struct probe *probe)
{
    double left = probe->end - now();
    return left <= 0 ? 0 : (int)(left * 1e3) + 1;
}

/* --- a command */

static pid_t exec_start(const struct probe *probe, const char *pid_file, const int *to)
{
    const struct health *health = &probe->container->health;
    const char **argv = must_alloc((health->test_count + 9) * sizeof(*argv));
    size_t n = 0;
    argv[n++] = probe->runtime->path;
    if (*probe->root) {
        argv[n++] = "--root";
        argv[n++] = probe->root;
    }
    argv[n++] = "exec";
    argv[n++] = "--pid-file";
    argv[n++] = pid_file;
    argv[n++] = probe->container->name;
    for (size_t i = 0; i < health->test_count; i++)
        argv[n++] = health->test[i];
    pid_t pid = spawn(&(struct spawn){.argv = argv, .out = to, .err = to});
    free(argv);
    return pid;
}

static int probe_exec(const struct probe *probe)
{
    scoped_free char *pid_file = format("%s.pid", probe->said);
    struct said said = {.used = 0};
    int ends[2], status = 0;
    unlink(pid_file);
    if (!probe->runtime->path || pipe2(ends, O_CLOEXEC) < 0)
        return tell(probe, &said, "there is no crun or runc\n");
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    pid_t pid = exec_start(probe, pid_file, &ends[1]);
    close(ends[1]);
    if (pid < 0)
        return tell(probe, &said, strerror(errno));
    scoped_fd ended = (int)syscall(SYS_pidfd_open, pid, 0);
    pid_t got;
    while ((got = waitpid(pid, &status, WNOHANG)) == 0 && left_ms(probe)) {
        struct pollfd watched[2] = {{.fd = ends[0], .events = POLLIN}, {.fd = ended, .events = POLLIN}};
        char piece[SAID_MAX];
        ssize_t came = poll(watched, 2, left_ms(probe)) > 0 ? read(ends[0], piece, sizeof(piece)) : -1;
        if (came > 0)
            hear(&said, piece, (size_t)came);
        else if (came == 0) {
            close(ends[0]);
            ends[0] = -1;
        }
    }
    if (got == 0) { /* the process in the container first: the runtime would leave it behind */
        long inside = read_number(pid_file);
        if (inside > 0)
            kill((pid_t)inside, SIGKILL);
        kill(pid, SIGKILL);
        unlink(pid_file);
        return tell(probe, &said, "the check took longer than its timeout\n");
    }
    char piece[SAID_MAX];
    for (ssize_t came; ends[0] >= 0 && (came = read(ends[0], piece, sizeof(piece))) > 0 && left_ms(probe);)
        hear(&said, piece, (size_t)came);
    unlink(pid_file);
    tell(probe, &said, "");
    return status_code(status) ? FAILED : 0;
}

/* --- HTTP and TCP */

/* A connection to that port on the container's loopback, IPv4 or IPv6; -1 with errno. */
static int dial(const struct probe *probe)
{
    uint16_t port = htons((uint16_t)probe->container->health.port);
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = port, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = port, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    const struct {
        const struct sockaddr *address;
        socklen_t size;
    } both[] = {{(struct sockaddr *)&four, sizeof(four)}, {(struct sockaddr *)&six, sizeof(six)}};
    int why = ECONNREFUSED;
    for (size_t i = 0; i < COUNT(both); i++) {
        int fd = socket(both[i].address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), error = 0;
        socklen_t size = sizeof(error);
        if (fd < 0)
            continue;
        if (connect(fd, both[i].address, both[i].size) < 0)
            error = errno;
        if (error == EINPROGRESS) {
            error = ETIMEDOUT;
            if (poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, left_ms(probe)) > 0)
                getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
        }
        if (!error)
            return fd;
        close(fd);
        why = i ? why : error; /* what IPv4 says is what people understand */
    }
    errno = why;
    return -1;
}

/* The first line of the answer; empty when none came in time. */
static void ask(const struct probe *probe, int fd, char line[static 256])
{
    scoped_free char *request = format("GET %s HTTP/1.1\r\nHost: localhost:%u\r\nUser-Agent: linuxkit-health\r\n"
                                       "Connection: close\r\n\r\n",
                                       probe->container->health.path, probe->container->health.port);
    size_t used = 0;
    *line = 0;
    if (send(fd, request, strlen(request), MSG_NOSIGNAL) != (ssize_t)strlen(request))
        return;
    while (used < 255 && left_ms(probe) && poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, left_ms(probe)) > 0) {
        ssize_t got = recv(fd, line + used, 255 - used, 0);
        if (got <= 0)
            break;
        used += (size_t)got;
        line[used] = 0;
        if (memchr(line, '\n', used))
            break;
    }
    line[strcspn(line, "\r\n")] = 0;
}

static bool same_file(const char *one, const char *other)
{
    struct stat left, right;
    return stat(one, &left) == 0 && stat(other, &right) == 0 && left.st_ino == right.st_ino && left.st_dev == right.st_dev;
}

static int probe_network(const struct probe *probe)
{
    struct said said = {.used = 0};
    char line[256], text[400];
    scoped_free char *path = format("/proc/%d/ns/net", (int)probe->pid);
    scoped_fd namespace = open(path, O_RDONLY | O_CLOEXEC);
    if (namespace < 0 || (!same_file(path, "/proc/self/ns/net") && setns(namespace, CLONE_NEWNET) < 0)) {
        snprintf(text, sizeof(text), "its network namespace: %s\n", strerror(errno));
        return tell(probe, &said, text);
    }
    scoped_fd fd = dial(probe);
    if (fd < 0) {
        snprintf(text, sizeof(text), "port %u: %s\n", probe->container->health.port, strerror(errno));
        return tell(probe, &said, text);
    }
    if (probe->container->health.kind == HEALTH_TCP)
        return 0;
    ask(probe, fd, line);
    unsigned code = 0;
    bool http = sscanf(line, "HTTP/%*u.%*u %3u", &code) == 1;
    if (http && code >= 200 && code < 400)
        return 0;
    snprintf(text, sizeof(text), *line ? "it answered: %s\n" : "no answer in time%s\n", line);
    return tell(probe, &said, text);
}

static int probe_do(const void *with)
{
    const struct probe *probe = with;
    return probe->container->health.kind == HEALTH_TEST ? probe_exec(probe) : probe_network(probe);
}

/* --- the service */

static char *said_file(const struct service *one)
{
    return format(OUT_DIR "/%s.health", one->plan->name);
}

static void start(struct supervisor *all, struct service *one)
{
    scoped_free char *said = said_file(one);
    scoped_free char *root = all->containerd ? format("/run/containerd/runc/%s", namespace_of(one->plan)) : must_dup("");
    struct probe probe = {.container = one->plan, .runtime = &all->runtime, .root = root, .pid = one->pid, .said = said,
                          .end = now() + one->plan->health.timeout};
    const char *argv[] = {"/usr/bin/service", NULL};
    one->probe = spawn(&(struct spawn){.argv = argv, .first = probe_do, .with = &probe});
    if (one->probe < 0) {
        one->probe = 0;
        one->probe_due = now() + FAST;
    }
}

void health_begin(struct service *one)
{
    one->healthy = one->plan->health.kind ? HEALTH_STARTING : HEALTH_UNKNOWN;
    one->unwell = 0;
    one->probe_due = now() + FIRST;
}

void health_stop(struct service *one)
{
    if (one->probe > 0)
        kill(-one->probe, SIGKILL); /* it leads a group of its own */
    one->probe = 0;
    one->healthy = HEALTH_UNKNOWN;
}

double health_tick(struct supervisor *all, struct service *one, double limit)
{
    if (one->state != RUNNING || one->healthy == HEALTH_UNKNOWN || one->probe)
        return limit;
    if (one->probe_due <= now())
        start(all, one);
    return one->probe || one->probe_due > limit ? limit : one->probe_due;
}

const char *health_word(const struct service *one)
{
    static const char *const words[] = {"", "starting", "healthy", "unhealthy"};
    return words[one->healthy];
}

static void became(struct service *one, enum healthy state)
{
    scoped_free char *said = said_file(one);
    scoped_tail tail = {.count = 0};
    one->healthy = state;
    if (state == HEALTH_BAD)
        tail_read(&tail, NULL, said);
    const char *last = tail.count ? tail.lines[tail.count - 1] : "";
    report(&(struct event){.event = "health", .step = one->step, .health = health_word(one), .message = last,
                           .ms = state == HEALTH_GOOD ? (now() - one->started) * 1e3 : 0, .log = tail.lines,
                           .log_count = tail.count});
    if (state == HEALTH_BAD)
        say("%s is unhealthy%s%s", one->step, *last ? ": " : "", last);
}

void health_ended(struct service *one, int status)
{
    const struct health *health = &one->plan->health;
    one->probe = 0;
    one->probe_due = now() + health->interval;
    if (one->state != RUNNING || one->healthy == HEALTH_UNKNOWN)
        return;
    if (status == 0) {
        one->unwell = 0;
        if (one->healthy != HEALTH_GOOD)
            became(one, HEALTH_GOOD);
        return;
    }
    one->unwell++;
    if (one->healthy == HEALTH_STARTING) {
        double fast = now() + FAST;
        one->probe_due = fast < one->probe_due ? fast : one->probe_due;
        if (now() - one->started >= health->start + health->retries * health->interval)
            became(one, HEALTH_BAD);
    } else if (one->healthy == HEALTH_GOOD && one->unwell >= health->retries) {
        became(one, HEALTH_BAD);
    }
}
