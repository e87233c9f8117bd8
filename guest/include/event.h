/* The boot report: one JSON object a line. docs/design/guest.md, "Boot report". */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define EVENT_MAX 4096 /* bytes of a line with its newline: what a pipe takes in one piece */
#define REPORT_FIFO "/run/linuxkit/report"
#define REPORT_LOG "/run/log/boot.jsonl" /* leads to REPORT_FILE where PID 1 is ours */
#define REPORT_FILE "/run/linuxkit/boot.jsonl"

enum truth { UNSAID, NO, YES };

struct event {
    const char *event; /* start done fail ready exit restart booted shutdown off */
    const char *step;
    const char *message;
    int status; /* exit status, 128 + n for signal n; said when it or `signal` is not 0, or `ended` */
    int signal;
    bool ended;
    double ms; /* how long it took; 0: unsaid */
    enum truth ok;
    const char *health; /* starting, healthy, unhealthy; "" or NULL: unsaid */
    const char *const *log; /* last lines, oldest first */
    size_t log_count;
};

/* Writes the line into `line`, newline last, no NUL; returns its length. Cuts the message and drops the oldest log
 * lines to fit. Bytes that are not UTF-8 become U+FFFD. */
size_t event_line(char line[static EVENT_MAX], double t, const struct event *event);

/* A sign of life for PID 1, which limits a shutdown's steps. */
void report_alive(void);
/* Sends it to PID 1; to the log when PID 1 is not ours. */
void report(const struct event *event);
