/* memlogd: the last lines of all logs, in memory. Who logs gives it the end of a pipe; who wants to know asks.
 *
 * Nobody who logs ever waits for somebody who reads: a reader has no queue, only a place in the ring, and when that is
 * overwritten, it is told how much it missed. docs/logging.md has the protocol. */
#define _GNU_SOURCE
#include "command.h"
#include "memlogd.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#define LINES_MAX 10000000
#define TURN 65536 /* bytes read of one log before the others get their turn */

/* A socket at the path, for root alone; what an earlier one left there goes. */
static int listen_at(const char *path, int type)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(address.sun_path, path);
    make_parents(path);
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    unlink(path);
    mode_t before = umask(0177);
    bool good = fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 &&
                (type != SOCK_STREAM || listen(fd, 64) == 0);
    umask(before);
    if (good)
        return fd;
    int error = errno;
    if (fd >= 0)
        close(fd);
    errno = error;
    return -1;
}

/* One that our parent opened, or one at the path. */
static int socket_of(long given, const char *path, int type)
{
    if (given >= 0) {
        int flags = fcntl((int)given, F_GETFL);
        if (flags >= 0 && fcntl((int)given, F_SETFL, flags | O_NONBLOCK) == 0)
            return (int)given;
        fprintf(stderr, "memlogd: descriptor %ld: %s\n", given, strerror(errno));
        exit(1);
    }
    int fd = listen_at(path, type);
    if (fd >= 0)
        return fd;
    fprintf(stderr, "memlogd: %s: %s\n", path, strerror(errno));
    exit(1);
}

static _Noreturn void serve(int logs, int queries, size_t lines, size_t line_max)
{
    struct ring ring;
    ring_open(&ring, lines);
    struct sources sources = {&ring, must_alloc(SOURCES_MAX * sizeof(struct source)), 0, line_max};
    struct readers readers = {&ring, must_alloc(READERS_MAX * sizeof(struct reader)), 0, line_max};
    static struct pollfd watched[2 + SOURCES_MAX + READERS_MAX];
    signal(SIGPIPE, SIG_IGN);
    for (;;) {
        size_t logging = sources.count, reading = readers.count;
        watched[0] = (struct pollfd){.fd = logs, .events = POLLIN};
        watched[1] = (struct pollfd){.fd = queries, .events = POLLIN};
        for (size_t i = 0; i < logging; i++)
            watched[2 + i] = (struct pollfd){.fd = sources.items[i].fd, .events = POLLIN};
        bool silent = false;
        for (size_t i = 0; i < reading; i++) {
            const struct reader *reader = &readers.items[i];
            watched[2 + logging + i] = (struct pollfd){.fd = reader->fd, .events = reader_events(&readers, reader)};
            silent |= !reader->asked;
        }
        if (poll(watched, 2 + logging + reading, silent ? 1000 : -1) < 0)
            continue;
        for (size_t i = 0, at = 0; i < logging; i++) /* one that has ended is gone: the next one moves up */
            at += !watched[2 + i].revents || source_read(&sources, at, TURN);
        /* From the last to the first: what goes is replaced by one that had its turn. */
        for (size_t i = reading; i-- > 0;)
            if (watched[2 + logging + i].revents &&
                !reader_step(&readers, &readers.items[i], watched[2 + logging + i].revents, &sources, logs))
                reader_remove(&readers, i);
        if (watched[0].revents)
            sources_take(&sources, logs);
        if (watched[1].revents)
            readers_accept(&readers, queries);
        readers_expire(&readers);
    }
}

/* Leaves the terminal and the caller behind, and outlives those who log: at the machine's end, init ends us last. */
static void detach(void)
{
    static const int ignored[] = {SIGHUP, SIGINT, SIGTERM};
    pid_t pid = fork();
    if (pid < 0) {
        fprintf(stderr, "memlogd: fork: %s\n", strerror(errno));
        exit(1);
    }
    if (pid > 0)
        _exit(0);
    setsid();
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; fd < 3 && null >= 0; fd++)
        dup2(null, fd);
    for (size_t i = 0; i < COUNT(ignored); i++)
        signal(ignored[i], SIG_IGN);
    write_file("/proc/self/oom_score_adj", "-1000");
    if (chdir("/") < 0)
        exit(1);
    /* The sockets stay open in a process that does nothing else: should the log fall over, a new one goes on. */
    while ((pid = fork()) != 0) {
        if (pid > 0)
            while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
                ;
        pause_ms(100);
    }
}

int main(int argc, char **argv)
{
    /* As a file of /etc/init.d it is called NUMBER-memlogd. */
    bool daemonize = argc == 1 && base_name(argv[0])[0] >= '0' && base_name(argv[0])[0] <= '9';
    const char *log_path = MEMLOG_LOGS, *query_path = MEMLOG_QUERIES;
    long fd_log = -1, fd_query = -1, lines = 5000, line_max = 1024;
    const struct flag flags[] = {
        {.names = "socket-query", .text = &query_path, .help = "socket for those who ask (" MEMLOG_QUERIES ")"},
        {.names = "socket-log", .text = &log_path, .help = "socket that descriptors are passed to (" MEMLOG_LOGS ")"},
        {.names = "fd-query", .number = &fd_query, .help = "an open descriptor instead of -socket-query"},
        {.names = "fd-log", .number = &fd_log, .help = "an open descriptor instead of -socket-log"},
        {.names = "max-lines", .number = &lines, .help = "how many lines are kept (5000)"},
        {.names = "max-line-len", .number = &line_max, .help = "bytes of a line; longer ones become several (1024)"},
        {.names = "daemonize", .yes = &daemonize, .help = "go on in the background once the sockets are there"},
    };
    program_is("memlogd", "memlogd [FLAG...]");
    command_none(flags, COUNT(flags), argc, argv);
    if (lines < 1 || lines > LINES_MAX || line_max < 1 || line_max > PARTS_MAX)
        usage("-max-lines is 1 to %d, -max-line-len 1 to %d", LINES_MAX, PARTS_MAX);
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    int logs = socket_of(fd_log, log_path, SOCK_DGRAM), queries = socket_of(fd_query, query_path, SOCK_STREAM);
    if (daemonize)
        detach();
    serve(logs, queries, (size_t)lines, (size_t)line_max);
}
