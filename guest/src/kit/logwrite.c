/* logwrite: writes what memlogd gets into files, NAME.log for each source, and keeps so many full ones, of which
 * NAME.log.0 is the youngest. */
#define _GNU_SOURCE
#include "command.h"
#include "memlog.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define OPEN_MAX_FILES 32 /* kept open; of the others the least used one makes room */
#define RETRY_MS 1000

struct file {
    char name[200]; /* without .log */
    int fd;
    off_t size;
    unsigned long used;
};

struct store {
    int folder;
    long files, size;
    struct file open[OPEN_MAX_FILES];
    size_t count;
    unsigned long turn;
};

/* A name that is one part of a path, whatever the source is called. */
static void name_of(char *name, size_t room, const char *source)
{
    snprintf(name, room, "%.*s", (int)room - 1, *source ? source : "unnamed");
    for (char *at = name; *at; at++)
        if (*at == '/' || (unsigned char)*at < 0x20 || *at == 0x7f)
            *at = '_';
    if (*name == '.')
        *name = '_';
}

static int open_file(const struct store *store, struct file *file)
{
    char path[sizeof(file->name) + 8];
    struct stat info;
    snprintf(path, sizeof(path), "%s.log", file->name);
    file->fd = openat(store->folder, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644);
    if (file->fd >= 0 && fstat(file->fd, &info) == 0 && S_ISREG(info.st_mode)) {
        file->size = info.st_size;
        return 0;
    }
    fprintf(stderr, "logwrite: %s: %s\n", path, file->fd < 0 ? strerror(errno) : "not a file");
    if (file->fd >= 0)
        close(file->fd);
    return -1;
}

/* The file of a source, open; NULL: it can't be. */
static struct file *file_of(struct store *store, const char *source)
{
    struct file found = {.used = ++store->turn}, *place = NULL;
    name_of(found.name, sizeof(found.name), source);
    for (size_t i = 0; i < store->count; i++) {
        struct file *at = &store->open[i];
        if (strcmp(at->name, found.name) == 0) {
            at->used = found.used;
            return at;
        }
        if (!place || at->used < place->used)
            place = at;
    }
    if (open_file(store, &found) < 0)
        return NULL;
    if (store->count < OPEN_MAX_FILES)
        place = &store->open[store->count++];
    else
        close(place->fd);
    *place = found;
    return place;
}

/* NAME.log becomes NAME.log.0, that NAME.log.1, and so on; the oldest goes. */
static int rotate(const struct store *store, struct file *file)
{
    char from[sizeof(file->name) + 32], to[sizeof(from)];
    close(file->fd);
    for (long i = store->files - 1; i >= 0; i--) {
        snprintf(to, sizeof(to), "%s.log.%ld", file->name, i);
        if (i)
            snprintf(from, sizeof(from), "%s.log.%ld", file->name, i - 1);
        else
            snprintf(from, sizeof(from), "%s.log", file->name);
        renameat(store->folder, from, store->folder, to);
    }
    if (store->files == 0) {
        snprintf(from, sizeof(from), "%s.log", file->name);
        unlinkat(store->folder, from, 0);
    }
    return open_file(store, file);
}

static void write_line(struct store *store, const struct memlog *log)
{
    if (starts_with(log->source, "logwrite"))
        return; /* our own words about a full disk would never end */
    struct file *file = file_of(store, log->source);
    scoped_free char *line = format("%s %s %s\n", log->time, log->source, log->message);
    size_t length = strlen(line);
    if (!file)
        return;
    if (file->size && file->size + (off_t)length > store->size && rotate(store, file) < 0) {
        *file = store->open[--store->count];
        return;
    }
    if (write_all(file->fd, line, length) < 0)
        fprintf(stderr, "logwrite: %s.log: %s\n", file->name, strerror(errno));
    else
        file->size += (off_t)length;
}

static volatile sig_atomic_t ended;

static void end(int number)
{
    (void)number;
    ended = 1;
}

int main(int argc, char **argv)
{
    const char *socket = MEMLOG_QUERIES, *folder = "/var/log";
    struct store store = {.files = 10, .size = 1 << 20};
    const struct flag flags[] = {
        {.names = "socket", .text = &socket, .help = "memlogd's socket (" MEMLOG_QUERIES ")"},
        {.names = "log-dir", .text = &folder, .help = "where the files go (/var/log)"},
        {.names = "max-log-files", .number = &store.files, .help = "full files that are kept of each log (10)"},
        {.names = "max-log-size", .number = &store.size, .help = "bytes of a file (1048576)"},
    };
    program_is("logwrite", "logwrite [FLAG...]");
    command_none(flags, COUNT(flags), argc, argv);
    if (store.files < 0 || store.files > 10000 || store.size < 1)
        usage("-max-log-files is 0 to 10000, -max-log-size at least 1");
    signal(SIGPIPE, SIG_IGN);
    /* Not SA_RESTART: the signal is to interrupt the wait for a line. */
    sigaction(SIGTERM, &(struct sigaction){.sa_handler = end}, NULL);
    sigaction(SIGINT, &(struct sigaction){.sa_handler = end}, NULL);
    make_dirs(folder, 0755);
    store.folder = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (store.folder < 0) {
        fprintf(stderr, "logwrite: %s: %s\n", folder, strerror(errno));
        return 1;
    }
    for (bool told = false; !ended;) {
        scoped_memlog log;
        if (memlog_open(&log, socket, MEMLOG_DUMP_AND_FOLLOW, 1) == 0) {
            told = false;
            bool last = false;
            int got;
            /* Silence is not the end: the wait has a limit only so that a signal just before it isn't slept over. At the
             * end we still write what has come by then. */
            while ((got = memlog_next(&log)) > 0 || (!last && got < 0 && (errno == EAGAIN || errno == EINTR))) {
                if (got > 0)
                    write_line(&store, &log);
                if (ended && !last) {
                    last = true;
                    fcntl(log.fd, F_SETFL, O_NONBLOCK);
                }
            }
        } else if (!told) {
            fprintf(stderr, "logwrite: %s: %s; trying again each second\n", socket, strerror(errno));
            told = true;
        }
        if (!ended)
            pause_ms(RETRY_MS);
    }
    return 0;
}
