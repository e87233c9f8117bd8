/* Where events go: through the FIFO to PID 1, which keeps the log and talks to the host. */
#include "event.h"
#include "util.h"

#include <fcntl.h>

void report_alive(void)
{
    scoped_fd fifo = open(REPORT_FIFO, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    if (fifo >= 0)
        (void)!write(fifo, "\n", 1);
}

void report(const struct event *event)
{
    char line[EVENT_MAX];
    size_t length = event_line(line, now(), event);
    scoped_fd fifo = open(REPORT_FIFO, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    if (fifo >= 0) {
        /* PID 1 may be busy: wait a little rather than lose the event. */
        for (int tries = 0; tries < 50; tries++) {
            if (write(fifo, line, length) == (ssize_t)length)
                return;
            pause_ms(20);
        }
    }
    make_parents(REPORT_LOG);
    scoped_fd log = open(REPORT_LOG, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (log >= 0)
        write_all(log, line, length);
}
