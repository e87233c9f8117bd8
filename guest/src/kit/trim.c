/* trim-after-delete: runs a command some time after Docker deleted something, so that the space goes back. */
#define _GNU_SOURCE
#include "ending.h"
#include "command.h"
#include "json.h"
#include "util.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#define LINE_MAX_BYTES (1 << 20) /* an event; longer ones are passed over */
#define RETRY_MS 1000

/* Go's durations, as far as people write them: 10s, 1m30s, 500ms, 2h. -1: it is none. */
static double duration(const char *text)
{
    static const struct {
        const char *unit;
        double seconds;
    } units[] = {{"ms", 1e-3}, {"us", 1e-6}, {"ns", 1e-9}, {"s", 1}, {"m", 60}, {"h", 3600}};
    double total = 0;
    if (strcmp(text, "0") == 0)
        return 0;
    do {
        char *end;
        double number = *text >= '0' && *text <= '9' ? strtod(text, &end) : -1;
        size_t unit = 0;
        while (number >= 0 && unit < COUNT(units) && !starts_with(end, units[unit].unit))
            unit++;
        if (number < 0 || unit == COUNT(units))
            return -1;
        total += number * units[unit].seconds;
        text = end + strlen(units[unit].unit);
    } while (*text);
    return total < 1e6 ? total : -1;
}

/* Does it leave free blocks behind? */
static bool deletes(const char *event)
{
    static const char *const wanted[][2] = {
        {"image", "delete"}, {"image", "prune"},  {"container", "destroy"}, {"container", "prune"},
        {"volume", "destroy"}, {"volume", "prune"}, {"builder", "prune"},
    };
    scoped_json document;
    if (!json_read(&document, event, strlen(event)))
        return false;
    const char *type = json_text(&document, document.values, "Type");
    const char *action = json_text(&document, document.values, "Action");
    if (!type || !action)
        return false;
    for (size_t i = 0; i < COUNT(wanted); i++)
        if (!strcmp(type, wanted[i][0]) && !strcmp(action, wanted[i][1]))
            return true;
    return false;
}

/* Asks for the events. HTTP/1.0: the answer comes as it is, without chunks, and ends with the connection. No version of the
 * API is asked for: engines refuse those that are too old, and Type and Action are in all of them. */
static int connect_to(const char *path)
{
    static const char request[] = "GET /events HTTP/1.0\r\nHost: docker\r\n\r\n";
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
                    send(fd, request, strlen(request), MSG_NOSIGNAL) < 0)) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

struct stream {
    int fd;
    char *text;
    size_t used;
    bool body, passing;
};

static void stream_close(struct stream *stream)
{
    if (stream->fd >= 0)
        close(stream->fd);
    *stream = (struct stream){.fd = -1, .text = stream->text};
}

/* What came, line by line: the answer's head, then events. 1: something was deleted; -1: it is over, or no good. */
static int read_events(struct stream *stream)
{
    ssize_t got = read(stream->fd, stream->text + stream->used, LINE_MAX_BYTES - stream->used);
    if (got <= 0)
        return got < 0 && errno == EINTR ? 0 : -1;
    stream->used += (size_t)got;
    int found = 0;
    char *line = stream->text;
    for (char *end; (end = memchr(line, '\n', stream->used - (size_t)(line - stream->text))); line = end + 1) {
        *end = 0;
        if (end > line && end[-1] == '\r')
            end[-1] = 0;
        if (stream->passing)
            stream->passing = false;
        else if (stream->body)
            found |= deletes(line);
        else if (starts_with(line, "HTTP/") && !strstr(line, " 200"))
            return -1;
        else
            stream->body = !*line;
    }
    stream->used -= (size_t)(line - stream->text);
    memmove(stream->text, line, stream->used);
    if (stream->used == LINE_MAX_BYTES) {
        stream->passing = true;
        stream->used = 0;
    }
    return found;
}

static pid_t start(char *const *command)
{
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGPIPE, SIG_DFL);
        execvp(command[0], command);
        fprintf(stderr, "trim-after-delete: %s: %s\n", command[0], strerror(errno));
        _exit(127);
    }
    return pid;
}

/* Has the command ended? Says so when it failed. */
static bool ended(pid_t pid)
{
    int status;
    if (pid <= 0 || waitpid(pid, &status, WNOHANG) == 0)
        return pid <= 0;
    if (status)
        fprintf(stderr, "trim-after-delete: the command ended with status %d\n",
                WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
    return true;
}

int main(int argc, char **argv)
{
    static char *const otherwise[] = {"/sbin/fstrim", "/var/lib/docker", NULL};
    const char *socket = "/var/run/docker.sock", *delay_text = "10s";
    const struct flag flags[] = {
        {.names = "docker-socket", .text = &socket, .help = "Docker's socket (/var/run/docker.sock)"},
        {.names = "delay", .text = &delay_text, .help = "how long to wait for more to be deleted: 10s, 1m30s (10s)"},
    };
    program_is("trim-after-delete", "trim-after-delete [-docker-socket PATH] [-delay TIME] [-- COMMAND...]");
    int at = command_start(flags, COUNT(flags), argc, argv);
    char *const *command = at < argc ? argv + at : otherwise;
    double delay = duration(delay_text), due = 0, retry = 0;
    if (delay < 0)
        usage("-delay %s is not a time such as 10s", delay_text);
    end_by_signals();
    signal(SIGPIPE, SIG_IGN);
    struct stream stream = {.fd = -1, .text = must_alloc(LINE_MAX_BYTES + 1)};
    pid_t running = 0;
    for (bool told = false;;) {
        if (stream.fd < 0 && now() >= retry) {
            stream.fd = connect_to(socket);
            if (stream.fd < 0 && !told)
                fprintf(stderr, "trim-after-delete: %s: %s; trying again each second\n", socket, strerror(errno));
            told = stream.fd < 0;
            retry = now() + RETRY_MS / 1e3;
        }
        double wait = due && !running ? due - now() : 3600;
        if ((running || stream.fd < 0) && wait > RETRY_MS / 1e3)
            wait = RETRY_MS / 1e3;
        struct pollfd watched = {.fd = stream.fd, .events = POLLIN};
        if (poll(&watched, 1, wait > 0 ? (int)(wait * 1e3) + 1 : 0) > 0) {
            int found = read_events(&stream);
            if (found > 0 && !due)
                due = now() + delay;
            if (found < 0)
                stream_close(&stream);
        }
        if (running && ended(running))
            running = 0;
        if (due && !running && now() >= due) {
            due = 0;
            running = start(command);
        }
    }
}
