/* PID 1's loop: children, the boot report, the host's port, the power button, signals. */
#pragma once

#include "warden.h"

#include <signal.h>
#include <stdbool.h>
#include <sys/types.h>

enum wish { STAY, POWEROFF, REBOOT, HALT };

struct loop {
    int signals, fifo, log, port;
    int buttons[8], button_count;
    off_t log_size, sent; /* bytes of the report kept, and given to the host */
    double retry;         /* when to try the port again */
    double heard;         /* when the last event came */
    enum wish wish;       /* what someone asked for */
    bool ending;          /* it is being done: asking again changes nothing */
    unsigned failures;    /* `fail` events that came by */
    char first_failure[300];
    pid_t awaited;        /* the child that loop_wait() waits for */
    int awaited_status;
    struct warden warden;
};

void loop_open(struct loop *loop);
void loop_open_devices(struct loop *loop); /* port and buttons: once their modules are there */
/* Handles what comes within the time; -1 waits for something. */
void loop_step(struct loop *loop, int timeout_ms);
/* Runs until the child has ended, or someone wishes the machine to stop (then -1). */
int loop_wait(struct loop *loop, pid_t pid);
/* The same, with a limit: seconds since the last event that anybody reported. -1: it has not ended. Every ten seconds the
 * console hears what is waited for. */
int loop_wait_limited(struct loop *loop, pid_t pid, double limit, const char *what);
/* PID 1's own events go straight to the log and the port. */
struct event;
void loop_report(struct loop *loop, const struct event *event);
/* Gives what is left to the host, as far as it takes it within the time. */
void loop_flush(struct loop *loop, int timeout_ms);
