/* service start|stop|restart NAME, service status: a word to the supervisor, an answer when it is done. */
#define _GNU_SOURCE
#include "spawn.h"
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
#define STATUS_LINE 512
#define STATUS_MAX (8 << 20) /* bytes of a status that nobody has read yet */

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
    bool good = false, first = true;
    for (ssize_t got; (got = recv(sock, answer, sizeof(answer) - 1, 0)) > 0; first = false) {
        answer[got] = 0;
        good |= first && starts_with(answer, "ok\n");
        fputs(first && good ? answer + strlen("ok\n") : answer, good ? stdout : stderr);
    }
    if (first)
        fprintf(stderr, "service: no answer\n");
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

static const char *age(char text[static 16], double seconds)
{
    unsigned whole = seconds > 0 ? (unsigned)seconds : 0;
    if (whole < 120)
        snprintf(text, 16, "%us", whole);
    else if (whole < 2 * 3600)
        snprintf(text, 16, "%um", whole / 60);
    else
        snprintf(text, 16, "%uh", whole / 3600);
    return text;
}

/* How it last ended, and why it is not running now. */
static void describe(const struct service *one, char text[static 200])
{
    int code = status_code(one->status), number = status_signal(one->status);
    size_t used = 0;
    *text = 0;
    if (one->ended && number)
        used = (size_t)snprintf(text, 200, "last ended by signal %d", number);
    else if (one->ended && *one->error)
        used = (size_t)snprintf(text, 200, "%.150s", one->error);
    else if (one->ended)
        used = (size_t)snprintf(text, 200, "last ended with status %d", code);
    if (one->state == WAITING)
        snprintf(text + used, 200 - used, "%sagain in %.0f s", used ? ", " : "", one->due > now() ? one->due - now() : 0);
}

/* In as many packets as it takes: however many services there are, nothing is cut. */
static void status(const struct supervisor *all, int *client)
{
    static const char *const states[] = {"stopped", "creating", "starting", "running", "cleaning", "waiting"};
    char text[MESSAGE_MAX] = "ok\n", since[16], why[200];
    size_t used = strlen(text);
    setsockopt(*client, SOL_SOCKET, SO_SNDBUFFORCE, &(int){STATUS_MAX}, sizeof(int));
    for (size_t i = 0; i < all->count; i++) {
        const struct service *one = &all->services[i];
        double from = one->state == RUNNING ? one->started : one->ended ? one->ended : one->asked;
        describe(one, why);
        int length = snprintf(text + used, STATUS_LINE, "%-24s %-9s pid %-6d for %-5s restarts %-3u %-9s %s\n", one->plan->name,
                              states[one->state], (int)one->pid, age(since, now() - from), one->restarts, health_word(one), why);
        used += length < STATUS_LINE ? (size_t)length : STATUS_LINE - 1;
        if (used < sizeof(text) - STATUS_LINE && i + 1 < all->count)
            continue;
        if (send(*client, text, used, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
            break; /* whoever asked does not read */
        used = 0;
    }
    if (used) /* there are no services */
        (void)!send(*client, text, used, MSG_NOSIGNAL | MSG_DONTWAIT);
    close(*client);
    *client = -1;
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
    one->policy.failures = 0;
    one->error[0] = 0;
    if (strcmp(verb, "start") != 0) {
        one->wanted = strcmp(verb, "stop") ? WANT_RESTART : WANT_STOP;
        service_stop(one);
    } else if (one->wanted != WANT_RUN || (one->state != RUNNING && one->state != STARTING && one->state != CREATING)) {
        one->state = one->state == WAITING ? STOPPED : one->state;
        one->wanted = WANT_RESTART;
    }
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
    if (one->state == STOPPED && one->wanted == WANT_RESTART)
        service_begin(all, one);
    if (one->client < 0)
        return;
    if (one->state == STOPPED || one->state == WAITING) {
        scoped_free char *text = *one->error ? format("service: %s\n", one->error) : must_dup("ok\n");
        answer(&one->client, text);
    } else if (one->state == RUNNING && one->wanted == WANT_RUN) {
        answer(&one->client, "ok\n");
    }
}
