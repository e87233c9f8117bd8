/* The process that copies services' output. It outlives the keeper, and a new one goes on where the last one was: what was
 * written meanwhile waits in the FIFOs, or its writer does. */
#define _GNU_SOURCE
#include "stream.h"
#include "console.h"
#include "service.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#define TURN OUT_DIR "/.turn"
#define SETTLE 0.5 /* seconds that somebody waits for the copier, at most */

/* Odd while something is read and not written yet. A file, so that any keeper can look at any copier's. */
static _Atomic unsigned *turn_open(void)
{
    scoped_fd fd = open(TURN, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, sizeof(unsigned)) < 0)
        return NULL;
    void *page = mmap(NULL, sizeof(unsigned), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return page == MAP_FAILED ? NULL : page;
}

static bool is_stream(const struct stream *streams, size_t count, long fd)
{
    for (size_t i = 0; i < count; i++)
        if (streams[i].from == fd)
            return true;
    return false;
}

static void close_others(const struct stream *streams, size_t stream_count)
{
    size_t count;
    char **names = list_names("/proc/self/fd", &count);
    for (size_t i = 0; names && i < count; i++)
        if (strtol(names[i], NULL, 10) > STDERR_FILENO && !is_stream(streams, stream_count, strtol(names[i], NULL, 10)))
            close((int)strtol(names[i], NULL, 10));
    if (names)
        free_names(names, count);
}

/* One round: what is there by now, or comes within the time, from everyone once. */
static void copy_round(struct stream *streams, size_t count, struct pollfd *watched, _Atomic unsigned *turn)
{
    double due = -1;
    for (size_t i = 0; i < count; i++) {
        double one = stream_due(&streams[i]);
        watched[i] = stream_wish(&streams[i]);
        if (one >= 0 && (due < 0 || one < due))
            due = one;
    }
    if (poll(watched, (nfds_t)count, due < 0 ? -1 : (int)(due * 1e3) + 1) < 0)
        return;
    for (size_t i = 0; i < count; i++) {
        if (turn)
            atomic_fetch_add(turn, 1);
        stream_step(&streams[i], watched[i].revents != 0);
        if (turn)
            atomic_fetch_add(turn, 1);
    }
}

static _Noreturn void copy_for_ever(struct stream *streams, size_t count)
{
    close_others(streams, count);
    setsid();
    prctl(PR_SET_NAME, "logs");
    /* At the end of the machine services are told to end first; we hear their last words, and go with SIGKILL. */
    static const int ignored[] = {SIGTERM, SIGINT, SIGHUP, SIGPIPE};
    for (size_t i = 0; i < COUNT(ignored); i++)
        signal(ignored[i], SIG_IGN);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    make_dirs(OUT_DIR, 0700);
    _Atomic unsigned *turn = turn_open();
    if (turn)
        atomic_store(turn, 0);
    struct pollfd *watched = must_alloc(count * sizeof(*watched));
    for (;;)
        copy_round(streams, count, watched, turn);
}

pid_t copier_start(const char *const *paths, size_t count)
{
    /* Opened here: a FIFO that nobody has open forgets what a writer who is gone already has left in it. */
    struct stream *streams = must_alloc(count * sizeof(*streams));
    for (size_t i = 0; i < count; i++)
        stream_open(&streams[i], paths[i], SERVICE_LOG_LIMIT, TAIL_LIMIT);
    pid_t pid = fork();
    if (pid == 0)
        copy_for_ever(streams, count);
    for (size_t i = 0; i < count; i++) {
        if (streams[i].from >= 0)
            close(streams[i].from);
        free(streams[i].path);
        free(streams[i].tail);
    }
    free(streams);
    return pid;
}

static bool waits(const char *path)
{
    scoped_free char *fifo = format(OUT_DIR "/%s", base_name(path));
    scoped_fd fd = open(fifo, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    int bytes = 0;
    return fd >= 0 && ioctl(fd, FIONREAD, &bytes) == 0 && bytes > 0;
}

void copier_settle(const char *out, const char *err)
{
    static _Atomic unsigned *turn;
    double end = now() + SETTLE;
    if (!turn)
        turn = turn_open();
    while ((waits(out) || waits(err)) && now() < end)
        pause_ms(1);
    unsigned at = turn ? atomic_load(turn) : 0;
    while (at % 2 && atomic_load(turn) == at && now() < end)
        pause_ms(1);
}

int logger_main(const char *name)
{
    /* containerd's shim gives the container's output at 3, its errors at 4, and waits until 5 is closed. */
    scoped_free char *out = format("/var/log/%s.out.log", name), *err = format("/var/log/%s.log", name);
    struct stream streams[2];
    struct pollfd watched[2];
    signal(SIGPIPE, SIG_IGN);
    stream_of(&streams[0], 3, out, SERVICE_LOG_LIMIT, TAIL_LIMIT);
    stream_of(&streams[1], 4, err, SERVICE_LOG_LIMIT, TAIL_LIMIT);
    close(5);
    while (streams[0].from >= 0 || streams[1].from >= 0)
        copy_round(streams, 2, watched, NULL);
    stream_close(&streams[0]);
    stream_close(&streams[1]);
    return 0;
}
