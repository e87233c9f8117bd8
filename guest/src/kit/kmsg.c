/* kmsg: prints the kernel's messages, those that are there and those that come, as (NUMBER) - TIME: MESSAGE. */
#include "ending.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define RECORD 8192 /* the kernel gives no longer ones */

/* When the kernel's clock was at 0, in nanoseconds since 1970. */
static int64_t boot_time(void)
{
    struct timespec wall, up;
    clock_gettime(CLOCK_REALTIME, &wall);
    clock_gettime(CLOCK_MONOTONIC, &up);
    return (wall.tv_sec - up.tv_sec) * INT64_C(1000000000) + wall.tv_nsec - up.tv_nsec;
}

static int hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* \x1b is how the kernel writes what can't be printed. A newline stays as it is written: one message is one line. */
static void unescape(char *text)
{
    char *to = text;
    for (const char *at = text; *at;) {
        int high = at[0] == '\\' && at[1] == 'x' ? hex(at[2]) : -1, low = high < 0 ? -1 : hex(at[3]);
        int byte = low < 0 ? -1 : high << 4 | low;
        if (byte == '\t' || (byte >= 0x20 && byte != 0x7f)) {
            *to++ = (char)byte;
            at += 4;
        } else {
            *to++ = *at++;
        }
    }
    *to = 0;
}

/* PRIORITY,NUMBER,MICROSECONDS,FLAGS[,...];MESSAGE\n, then lines that begin with a blank and are for programs. */
static void print_record(char *record)
{
    uint64_t number, micros;
    char *message = strchr(record, ';');
    if (!message || sscanf(record, "%*u,%" SCNu64 ",%" SCNu64, &number, &micros) != 2)
        return;
    message++;
    message[strcspn(message, "\n")] = 0;
    unescape(message);
    int64_t nanos = boot_time() + (int64_t)micros * 1000;
    time_t seconds = (time_t)(nanos / 1000000000);
    struct tm parts;
    char when[40];
    gmtime_r(&seconds, &parts);
    strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &parts);
    int fraction = (int)(nanos % 1000000000 / 1000);
    scoped_free char *line = format("(%" PRIu64 ") - %s.%06dZ: %s\n", number, when, fraction, message);
    (void)!write(STDERR_FILENO, line, strlen(line));
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : "/dev/kmsg";
    scoped_fd fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        fprintf(stderr, "kmsg: %s: %s\n", path, strerror(errno));
        return 1;
    }
    end_by_signals();
    for (;;) {
        char record[RECORD + 1];
        ssize_t got = read(fd, record, RECORD);
        if (got == 0)
            return 0;
        if (got > 0) {
            record[got] = 0;
            print_record(record);
        } else if (errno == EPIPE) { /* overwritten before we came to it; the next read goes on with the oldest one */
            fputs("kmsg: some messages were lost\n", stderr);
        } else if (errno != EINTR) {
            fprintf(stderr, "kmsg: %s: %s\n", path, strerror(errno));
            return 1;
        }
    }
}
