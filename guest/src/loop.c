/* PID 1's loop: it waits for children, events, the host, the power button and signals, and for nothing else. */
#include "loop.h"
#include "console.h"
#include "event.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/input.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define PORT "/dev/virtio-ports/org.linuxkit.report"
#define LOG_LIMIT (1 << 20) /* then the log starts anew and the old one stays as .1 */
#define NOTICE 10.0         /* seconds between two words about what is waited for */
#define PORT_RETRY 0.2      /* seconds; nobody may listen yet */

void loop_open(struct loop *loop)
{
    *loop = (struct loop){.signals = -1, .fifo = -1, .log = -1, .port = -1};
    sigset_t set;
    sigfillset(&set);
    static const int faults[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP};
    for (size_t i = 0; i < COUNT(faults); i++)
        sigdelset(&set, faults[i]);
    sigprocmask(SIG_BLOCK, &set, NULL);
    loop->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    make_parents(REPORT_FIFO);
    make_parents(REPORT_LOG);
    /* The file is beside the FIFO, where no container's output can fill the room. */
    (void)!symlink("../linuxkit/boot.jsonl", REPORT_LOG);
    (void)!symlink("../linuxkit/boot.jsonl.1", REPORT_LOG ".1");
    unlink(REPORT_FIFO);
    if (mkfifo(REPORT_FIFO, 0600) < 0)
        say("%s: %s", REPORT_FIFO, strerror(errno));
    /* Read-write: the FIFO never comes to its end when a writer leaves. */
    loop->fifo = open(REPORT_FIFO, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    loop->log = open(REPORT_FILE, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    loop->log_size = loop->log >= 0 ? lseek(loop->log, 0, SEEK_END) : 0;
}

void loop_open_devices(struct loop *loop)
{
    if (loop->port < 0)
        loop->port = open(PORT, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    size_t count;
    char **names = list_names("/dev/input", &count);
    for (size_t i = 0; i < count && loop->button_count < (int)COUNT(loop->buttons); i++) {
        unsigned char keys[KEY_MAX / 8 + 1] = {0};
        scoped_free char *path = format("/dev/input/%s", names[i]);
        if (!starts_with(names[i], "event"))
            continue;
        int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0)
            continue;
        if (ioctl(fd, EVIOCGBIT(EV_KEY, sizeof(keys)), keys) >= 0 && keys[KEY_POWER / 8] & 1 << KEY_POWER % 8)
            loop->buttons[loop->button_count++] = fd;
        else
            close(fd);
    }
    if (names)
        free_names(names, count);
}

static void rotate(struct loop *loop)
{
    rename(REPORT_FILE, REPORT_FILE ".1");
    close(loop->log);
    loop->log = open(REPORT_FILE, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    loop->log_size = loop->sent = 0;
}

/* Gives the host what it has not got yet. */
static void send_log(struct loop *loop)
{
    char piece[4096];
    while (loop->port >= 0 && loop->log >= 0 && loop->sent < loop->log_size) {
        ssize_t got = pread(loop->log, piece, sizeof(piece), loop->sent);
        if (got <= 0)
            return;
        ssize_t done = write(loop->port, piece, (size_t)got);
        if (done <= 0) {
            loop->retry = now() + PORT_RETRY;
            return;
        }
        loop->sent += done;
    }
}

static void keep(struct loop *loop, const char *bytes, size_t length)
{
    if (loop->log < 0)
        return;
    if (loop->log_size + (off_t)length > LOG_LIMIT)
        rotate(loop);
    if (write_all(loop->log, bytes, length) == 0)
        loop->log_size += (off_t)length;
}

/* A quote inside a value is escaped, so this text can only be the field itself. */
static void count_failure(struct loop *loop, const char *line)
{
    static const char step[] = "\"step\": \"";
    if (!strstr(line, "\"event\": \"fail\""))
        return;
    const char *at = strstr(line, step);
    if (loop->failures++ || !at)
        return;
    at += strlen(step);
    size_t length = strcspn(at, "\"");
    if (length >= sizeof(loop->first_failure))
        length = sizeof(loop->first_failure) - 1;
    memcpy(loop->first_failure, at, length);
    loop->first_failure[length] = 0;
}

static void from_fifo(struct loop *loop)
{
    /* Writers send whole lines of at most PIPE_BUF bytes, so a pipe holds whole lines; a read may still cut one. */
    static char text[2 * EVENT_MAX + 1];
    static size_t used;
    ssize_t got;
    while ((got = read(loop->fifo, text + used, sizeof(text) - 1 - used)) > 0) {
        loop->heard = now();
        used += (size_t)got;
        text[used] = 0;
        char *line = text;
        for (char *end; (end = memchr(line, '\n', used - (size_t)(line - text))); line = end + 1) {
            if (end == line)
                continue; /* a sign of life */
            keep(loop, line, (size_t)(end + 1 - line));
            *end = 0;
            count_failure(loop, line);
        }
        used -= (size_t)(line - text);
        memmove(text, line, used);
        if (used > EVENT_MAX)
            used = 0; /* not one of ours */
    }
    send_log(loop);
}

void loop_report(struct loop *loop, const struct event *event)
{
    char line[EVENT_MAX + 1];
    size_t length = event_line(line, now(), event);
    keep(loop, line, length);
    line[length - 1] = 0;
    count_failure(loop, line);
    send_log(loop);
}

static void ask(struct loop *loop, enum wish wish)
{
    if (loop->wish == STAY && !loop->ending)
        loop->wish = wish;
}

static void from_port(struct loop *loop)
{
    static char text[256];
    static size_t used;
    ssize_t got = read(loop->port, text + used, sizeof(text) - 1 - used);
    if (got <= 0)
        return;
    used += (size_t)got;
    text[used] = 0;
    for (char *end; (end = strchr(text, '\n'));) {
        *end++ = 0;
        if (strcmp(text, "poweroff") == 0)
            ask(loop, POWEROFF);
        else if (strcmp(text, "reboot") == 0)
            ask(loop, REBOOT);
        used -= (size_t)(end - text);
        memmove(text, end, used + 1);
    }
    if (used == sizeof(text) - 1)
        used = 0;
}

static void from_button(struct loop *loop, int fd)
{
    struct input_event event;
    while (read(fd, &event, sizeof(event)) == sizeof(event))
        if (event.type == EV_KEY && event.code == KEY_POWER && event.value == 1)
            ask(loop, POWEROFF);
}

static void reap(struct loop *loop)
{
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        if (pid == loop->awaited) {
            loop->awaited = 0;
            loop->awaited_status = status;
        } else {
            warden_reaped(loop, pid, status);
        }
}

static void from_signals(struct loop *loop)
{
    struct signalfd_siginfo info;
    while (read(loop->signals, &info, sizeof(info)) == sizeof(info)) {
        switch (info.ssi_signo) {
        case SIGINT: /* Ctrl-Alt-Del */
        case SIGTERM:
            ask(loop, REBOOT);
            break;
        case SIGUSR1:
            ask(loop, HALT);
            break;
        case SIGUSR2:
        case SIGPWR:
            ask(loop, POWEROFF);
            break;
        default:
            break;
        }
    }
    reap(loop);
}

void loop_step(struct loop *loop, int timeout_ms)
{
    struct pollfd watched[3 + COUNT(loop->buttons)];
    nfds_t count = 0;
    watched[count++] = (struct pollfd){.fd = loop->signals, .events = POLLIN};
    watched[count++] = (struct pollfd){.fd = loop->fifo, .events = POLLIN};
    double left = loop->retry - now();
    bool unsent = loop->sent < loop->log_size, resting = loop->port < 0 || left > 0;
    /* While the host does not listen the port only says "hung up": ask again later instead of spinning. */
    short wanted = (short)(POLLIN | (unsent ? POLLOUT : 0));
    watched[count++] = (struct pollfd){.fd = resting ? -1 : loop->port, .events = wanted};
    for (int i = 0; i < loop->button_count; i++)
        watched[count++] = (struct pollfd){.fd = loop->buttons[i], .events = POLLIN};
    if (loop->port >= 0 && left > 0 && (timeout_ms < 0 || timeout_ms > left * 1000))
        timeout_ms = (int)(left * 1000) + 1;
    double due = loop->warden.due ? (loop->warden.due - now()) * 1e3 + 1 : -1;
    if (loop->warden.due && (timeout_ms < 0 || timeout_ms > due))
        timeout_ms = due > 0 ? (int)due : 0;
    if (poll(watched, count, timeout_ms) < 0)
        return;
    warden_step(loop);
    console_flush();
    if (watched[0].revents)
        from_signals(loop);
    if (watched[1].revents)
        from_fifo(loop);
    if (watched[2].revents & POLLIN)
        from_port(loop);
    if (watched[2].revents & POLLHUP)
        loop->retry = now() + PORT_RETRY;
    else
        send_log(loop);
    for (nfds_t i = 3; i < count; i++)
        if (watched[i].revents)
            from_button(loop, watched[i].fd);
}

int loop_wait(struct loop *loop, pid_t pid)
{
    loop->awaited = pid;
    while (loop->awaited && loop->wish == STAY)
        loop_step(loop, -1);
    from_fifo(loop); /* what the child reported comes before what we say about it */
    if (!loop->awaited)
        return loop->awaited_status;
    loop->awaited = 0;
    return -1;
}

int loop_wait_limited(struct loop *loop, pid_t pid, double limit, const char *what)
{
    double start = loop->heard = now(), told = 0;
    loop->awaited = pid;
    while (loop->awaited) {
        double silent = now() - loop->heard, waited = now() - start;
        if (silent >= limit)
            break;
        if (waited >= told + NOTICE) {
            say("waiting for %s: %.0f s, at most %g s from now on", what, waited, limit - silent);
            told = waited;
        }
        double next = limit - silent < NOTICE ? limit - silent : NOTICE;
        loop_step(loop, (int)(next * 1e3) + 1);
    }
    from_fifo(loop);
    bool ended = !loop->awaited;
    loop->awaited = 0;
    return ended ? loop->awaited_status : -1;
}

void loop_flush(struct loop *loop, int timeout_ms)
{
    from_fifo(loop);
    double end = now() + timeout_ms / 1e3;
    while (loop->port >= 0 && loop->sent < loop->log_size && now() < end) {
        send_log(loop);
        struct pollfd port = {.fd = loop->port, .events = POLLOUT};
        if (poll(&port, 1, 20) > 0 && port.revents & POLLHUP)
            return;
    }
}
