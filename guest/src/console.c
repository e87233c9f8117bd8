/* Writes on the console that never wait for long: open files of our own that do not block, behind the same terminal. */
#include "console.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#define KEPT_MAX 4096
#define SAY_PATIENCE 0.1  /* seconds: a serial line at its own speed is not a stopped one */
#define SHOW_PATIENCE 2.0

struct console {
    int fd;
    bool stuck; /* it took nothing the last time: not waited for again before it does */
};

static struct console errors = {.fd = -1}, output = {.fd = -1};
static struct {
    char bytes[KEPT_MAX];
    size_t used;
    unsigned lost; /* lines */
} kept;

/* Writes what the console takes, and waits up to `seconds` whenever it takes nothing. Returns how much. */
static size_t push(struct console *to, const char *bytes, size_t length, double seconds)
{
    size_t done = 0;
    double end = now() + seconds;
    while (done < length) {
        ssize_t put = write(to->fd, bytes + done, length - done);
        if (put > 0) {
            done += (size_t)put;
            end = now() + seconds;
            to->stuck = false;
        } else if (put < 0 && errno != EAGAIN && errno != EINTR) {
            return length; /* nobody is there any more */
        } else if (put == 0 || errno == EAGAIN) {
            double left = end - now();
            if (to->stuck || left <= 0) {
                to->stuck = true;
                break;
            }
            struct pollfd ready = {.fd = to->fd, .events = POLLOUT};
            if (poll(&ready, 1, (int)(left * 1e3) + 1) > 0)
                pause_ms(1); /* some drivers say "ready" and take nothing */
        }
    }
    return done;
}

void console_flush(void)
{
    if (!kept.used)
        return;
    size_t done = push(&errors, kept.bytes, kept.used, 0);
    memmove(kept.bytes, kept.bytes + done, kept.used -= done);
    if (kept.used || !kept.lost)
        return;
    kept.used = (size_t)snprintf(kept.bytes, sizeof(kept.bytes), "linuxkit: %u lines are missing here\n", kept.lost);
    kept.lost = 0;
}

static void say_later(const char *line, size_t length)
{
    console_flush();
    size_t done = kept.used ? 0 : push(&errors, line, length, SAY_PATIENCE);
    if (length - done > sizeof(kept.bytes) - kept.used) {
        kept.lost++;
        return;
    }
    memcpy(kept.bytes + kept.used, line + done, length - done);
    kept.used += length - done;
}

/* O_NONBLOCK belongs to the open file, which our children share: so we open another one. */
static int reopen(const char *path)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    return fd >= 0 ? fd : open("/dev/console", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

void console_open(void)
{
    if (errors.fd < 0)
        errors.fd = reopen("/proc/self/fd/2");
    if (output.fd < 0)
        output.fd = reopen("/proc/self/fd/1");
    if (errors.fd >= 0)
        say_by(say_later);
}

bool console_show(const char *bytes, size_t length)
{
    if (output.fd < 0)
        return write_all(STDOUT_FILENO, bytes, length) == 0;
    return push(&output, bytes, length, SHOW_PATIENCE) == length;
}
