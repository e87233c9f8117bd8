/* vsudd: passes connections to vsock ports on to unix sockets, so that the host reaches services of the machine. */
#define _GNU_SOURCE
#include "command.h"
#include "ending.h"
#include "relay.h"
#include "util.h"
#include "vsock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <linux/vm_sockets.h>

#define PORTS_MAX 64
#define CONNECTIONS_MAX 256

struct forward {
    int listener;
    unsigned port;
    const char *path;
};

/* PORT:unix:PATH. NULL, or what is wrong with it. */
static const char *parse(struct forward *forward, const char *text)
{
    static const char kind[] = ":unix:";
    size_t digits = strcspn(text, ":");
    scoped_free char *number = format("%.*s", (int)digits, text);
    uint64_t port;
    if (!number_parse(number, 1, UINT32_MAX - 1, &port) || !text[digits])
        return "a port comes first, 1 to 4294967294, then a colon";
    if (!starts_with(text + digits, kind) || !text[digits + strlen(kind)])
        return "behind the port only unix:PATH is known";
    *forward = (struct forward){.listener = -1, .port = (unsigned)port, .path = text + digits + strlen(kind)};
    struct sockaddr_un address;
    return strlen(forward->path) < sizeof(address.sun_path) ? NULL : "the path is too long for a socket";
}

static void serve(int client, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, path);
    scoped_fd to = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (to < 0 || connect(to, (struct sockaddr *)&address, sizeof(address)) < 0)
        fprintf(stderr, "vsudd: %s: %s\n", path, strerror(errno));
    else
        relay(client, to);
}

static unsigned children;

static void reap(void)
{
    while (children && waitpid(-1, NULL, WNOHANG) > 0)
        children--;
}

static void take(const struct forward *forward)
{
    scoped_fd client = vsock_accept(forward->listener, "vsudd");
    if (client < 0)
        return;
    reap();
    if (children == CONNECTIONS_MAX) {
        fprintf(stderr, "vsudd: port %u: too many connections\n", forward->port);
        return;
    }
    pid_t pid = fork();
    if (pid == 0) {
        serve(client, forward->path);
        _exit(0);
    }
    children += pid > 0;
}

static int detach(const char *pidfile)
{
    pid_t pid = fork();
    if (pid != 0)
        _exit(pid < 0);
    setsid();
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; fd < 3 && null >= 0; fd++)
        dup2(null, fd);
    scoped_free char *own = format("%d\n", (int)getpid());
    return *pidfile ? write_file(pidfile, own) : 0;
}

int main(int argc, char **argv)
{
    struct forward forwards[PORTS_MAX];
    struct pollfd watched[PORTS_MAX];
    size_t count = 0;
    bool detached = false;
    const char *pidfile = "";
    scoped_free const char **ports = NULL;
    const struct flag flags[] = {
        {.names = "inport", .list = &ports, .count = &count},
        {.names = "detach", .yes = &detached},
        {.names = "pidfile", .text = &pidfile},
    };
    program_is("vsudd", "vsudd -inport PORT:unix:PATH [-inport ...] [-detach] [-pidfile FILE]");
    command_none(flags, COUNT(flags), argc, argv);
    if (!count || count > PORTS_MAX)
        usage(count ? "%d ports at most" : "which port?", PORTS_MAX);
    for (size_t i = 0; i < count; i++) {
        const char *wrong = parse(&forwards[i], ports[i]);
        if (wrong)
            usage("%s: %s", ports[i], wrong);
    }
    for (size_t i = 0; i < count; i++) {
        forwards[i].listener = vsock_listen(VMADDR_CID_ANY, forwards[i].port);
        if (forwards[i].listener < 0) {
            fprintf(stderr, "vsudd: vsock port %u: %s\n", forwards[i].port, strerror(errno));
            return 1;
        }
        watched[i] = (struct pollfd){.fd = forwards[i].listener, .events = POLLIN};
    }
    end_by_signals();
    signal(SIGPIPE, SIG_IGN);
    if (detached && detach(pidfile) < 0)
        return 1;
    for (;;) {
        int ready = poll(watched, count, children ? 1000 : -1);
        reap();
        for (size_t i = 0; ready > 0 && i < count; i++)
            if (watched[i].revents)
                take(&forwards[i]);
    }
}
