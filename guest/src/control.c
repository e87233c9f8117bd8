/* service start|stop|restart NAME, service status: a word to the supervisor, an answer when it is done. */
#define _GNU_SOURCE
#include "supervisor.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define MESSAGE_MAX 8192

static const struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = CONTROL_SOCKET};

int control_listen(void)
{
    int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    unlink(CONTROL_SOCKET);
    if (sock < 0 || bind(sock, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
        chmod(CONTROL_SOCKET, 0600) < 0 || listen(sock, 16) < 0)
        say("%s: %s", CONTROL_SOCKET, strerror(errno));
    return sock;
}

int control_ask(const char *verb, const char *name)
{
    scoped_fd sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    scoped_free char *question = format("%s %s", verb, name);
    char answer[MESSAGE_MAX];
    if (sock < 0 || connect(sock, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
        send(sock, question, strlen(question), MSG_NOSIGNAL) < 0) {
        fprintf(stderr, "service: nobody keeps services here: %s\n", strerror(errno));
        return 1;
    }
    ssize_t got = recv(sock, answer, sizeof(answer) - 1, 0);
    if (got <= 0) {
        fprintf(stderr, "service: no answer\n");
        return 1;
    }
    answer[got] = 0;
    bool good = starts_with(answer, "ok");
    fprintf(good ? stdout : stderr, "%s", good ? answer + strlen("ok\n") : answer);
    return good ? 0 : 1;
}

static void answer(int *client, const char *text)
{
    if (*client < 0)
        return;
    (void)!send(*client, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT);
    close(*client);
    *client = -1;
}

static void status(const struct supervisor *all, int *client)
{
    static const char *const states[] = {"stopped", "creating", "starting", "running", "cleaning", "waiting"};
    char text[MESSAGE_MAX] = "ok\n";
    size_t used = strlen(text);
    for (size_t i = 0; i < all->count && used < sizeof(text) - 300; i++) {
        const struct service *one = &all->services[i];
        used += (size_t)snprintf(text + used, sizeof(text) - used, "%-24s %-9s pid %-6d restarts %u\n",
                                 one->plan->name, states[one->state], (int)one->pid, one->restarts);
    }
    answer(client, text);
}

static struct service *find(struct supervisor *all, const char *name)
{
    for (size_t i = 0; i < all->count; i++)
        if (strcmp(all->services[i].plan->name, name) == 0)
            return &all->services[i];
    return NULL;
}

static void act(struct supervisor *all, int *client, const char *verb, const char *name)
{
    struct service *one = find(all, name);
    if (!one) {
        answer(client, "service: no such service\n");
        return;
    }
    if (one->client >= 0) {
        answer(client, "service: busy\n");
        return;
    }
    one->client = *client;
    *client = -1;
    bool stop = strcmp(verb, "start") != 0;
    one->again = strcmp(verb, "stop") != 0;
    one->policy.failures = 0;
    one->error[0] = 0;
    if (stop)
        service_stop(one);
    else if (one->state == WAITING)
        one->state = STOPPED;
    control_settle(all, one);
}

void control_accept(struct supervisor *all)
{
    scoped_fd client = accept4(all->control, NULL, NULL, SOCK_CLOEXEC);
    char text[512];
    /* Who connects speaks at once; a silent one must not hold up the services. */
    struct timeval limit = {.tv_usec = 200000};
    if (client < 0 || setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0)
        return;
    ssize_t got = recv(client, text, sizeof(text) - 1, 0);
    if (got <= 0)
        return;
    text[got] = 0;
    char *name = strchr(text, ' ');
    if (name)
        *name++ = 0;
    if (strcmp(text, "status") == 0)
        status(all, &client);
    else if (name && (!strcmp(text, "start") || !strcmp(text, "stop") || !strcmp(text, "restart")))
        act(all, &client, text, name);
    else
        answer(&client, "service: unknown word\n");
}

void control_settle(struct supervisor *all, struct service *one)
{
    if (one->client < 0)
        return;
    if (one->state == STOPPED && one->again) {
        one->again = false;
        service_begin(all, one);
    }
    if (one->state == STOPPED || one->state == WAITING) {
        scoped_free char *text = *one->error ? format("service: %s\n", one->error) : must_dup("ok\n");
        answer(&one->client, text);
    } else if (one->state == RUNNING && !one->stopping) {
        answer(&one->client, "ok\n");
    }
}
