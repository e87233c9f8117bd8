/* Strings, files, time and the console line, for every program of the guest. */
#include "util.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

void *must_alloc(size_t size)
{
    void *memory = calloc(1, size ? size : 1);
    if (!memory) {
        static const char text[] = "linuxkit: out of memory\n";
        (void)!write(STDERR_FILENO, text, sizeof(text) - 1);
        _exit(1);
    }
    return memory;
}

char *must_dup(const char *text)
{
    size_t length = strlen(text) + 1;
    return memcpy(must_alloc(length), text, length);
}

void grow(void **items, size_t *count, size_t size)
{
    /* The room doubles at every power of two: no separate capacity to keep. */
    size_t n = *count;
    if ((n & (n - 1)) == 0) {
        char *bigger = must_alloc((n ? 2 * n : 1) * size);
        if (n)
            memcpy(bigger, *items, n * size);
        free(*items);
        *items = bigger;
    }
    *count = n + 1;
}

char *format(const char *fmt, ...)
{
    va_list list;
    va_start(list, fmt);
    int length = vsnprintf(NULL, 0, fmt, list);
    va_end(list);
    char *text = must_alloc((size_t)(length > 0 ? length : 0) + 1);
    va_start(list, fmt);
    vsnprintf(text, (size_t)length + 1, fmt, list);
    va_end(list);
    return text;
}

static void say_at_once(const char *line, size_t length)
{
    (void)!write(STDERR_FILENO, line, length);
}

static void (*speaker)(const char *line, size_t length) = say_at_once;

void say_by(void (*how)(const char *line, size_t length))
{
    speaker = how;
}

void say(const char *fmt, ...)
{
    /* One write: lines of different processes don't mix on the console. */
    char line[1024] = "linuxkit: ";
    size_t start = strlen(line), room = sizeof(line) - start - 1;
    va_list list;
    va_start(list, fmt);
    int wanted = vsnprintf(line + start, room, fmt, list);
    va_end(list);
    size_t length = start + (wanted < 0 ? 0 : (size_t)wanted >= room ? room - 1 : (size_t)wanted);
    line[length++] = '\n';
    speaker(line, length);
}

double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

void pause_ms(long ms)
{
    struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    while (nanosleep(&left, &left) < 0 && errno == EINTR)
        ;
}

char *read_file(const char *path, size_t limit, size_t *length)
{
    scoped_fd fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return NULL;
    struct stat info;
    /* One more than its size: then the end shows without growing. What /proc makes up has none. */
    size_t room = fstat(fd, &info) == 0 && info.st_size > 0 ? (size_t)info.st_size + 1 : 4096, used = 0;
    if (room > limit + 1)
        room = limit + 1;
    char *text = must_alloc(room + 1);
    for (;;) {
        ssize_t got = read(fd, text + used, room - used);
        if (got < 0 && errno == EINTR)
            continue;
        if (got == 0)
            break;
        if (got > 0)
            used += (size_t)got;
        if (got < 0 || used > limit) {
            int error = got < 0 ? errno : EFBIG;
            free(text);
            errno = error;
            return NULL;
        }
        if (used == room) {
            char *bigger = must_alloc(2 * room + 1);
            memcpy(bigger, text, used);
            free(text);
            text = bigger;
            room *= 2;
        }
    }
    text[used] = 0;
    if (length)
        *length = used;
    return text;
}

char *next_line(char **rest)
{
    char *line = *rest, *at = line;
    if (!line || !*line)
        return NULL;
    while (*at && *at != '\n')
        at++;
    *rest = at;
    if (*at) {
        *at = 0;
        (*rest)++;
    }
    return line;
}

char *read_line(const char *path)
{
    char *text = read_file(path, 1 << 20, NULL);
    if (text)
        text[strcspn(text, "\n")] = 0;
    return text;
}

long read_number(const char *path)
{
    scoped_free char *line = read_line(path);
    if (!line || *line < '0' || *line > '9')
        return -1;
    return strtol(line, NULL, 10);
}

int write_all(int fd, const void *bytes, size_t length)
{
    const char *rest = bytes;
    while (length) {
        ssize_t done = write(fd, rest, length);
        if (done < 0) {
            if (errno == EINTR)
                continue;
            return -1;
        }
        rest += done;
        length -= (size_t)done;
    }
    return 0;
}

int write_file(const char *path, const char *text)
{
    scoped_fd fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0644);
    if (fd < 0)
        return -1;
    return write_all(fd, text, strlen(text));
}

int make_dirs(const char *path, mode_t mode)
{
    if (mkdir(path, mode) == 0)
        return 0;
    if (errno == ENOENT) {
        if (make_parents(path) < 0)
            return -1;
        if (mkdir(path, mode) == 0)
            return 0;
    }
    /* A read-only file system says EROFS before it says EEXIST. */
    int error = errno;
    struct stat info;
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode))
        return 0;
    errno = error;
    return -1;
}

int make_parents(const char *path)
{
    scoped_free char *parent = must_dup(path);
    size_t end = strlen(parent);
    while (end > 1 && parent[end - 1] == '/')
        parent[--end] = 0;
    char *slash = strrchr(parent, '/');
    if (!slash || slash == parent)
        return 0;
    *slash = 0;
    return make_dirs(parent, 0755);
}

bool exists(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0;
}

bool starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

bool ends_with(const char *text, const char *suffix)
{
    size_t all = strlen(text), tail = strlen(suffix);
    return all >= tail && strcmp(text + all - tail, suffix) == 0;
}

const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

size_t utf8_length(const char *text)
{
    static const unsigned least[] = {0, 0, 0x80, 0x800, 0x10000};
    const unsigned char *at = (const unsigned char *)text;
    size_t length = *at < 0x80 ? 1 : *at >= 0xf0 && *at < 0xf5 ? 4 : *at >= 0xe0 && *at < 0xf0 ? 3 : *at >= 0xc2 && *at < 0xe0 ? 2 : 0;
    if (length < 2)
        return length;
    unsigned code = *at & (0x7fU >> length);
    for (size_t i = 1; i < length; i++) {
        if ((at[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (at[i] & 0x3f);
    }
    return code < least[length] || (code >= 0xd800 && code < 0xe000) || code > 0x10ffff ? 0 : length;
}

/* Steps to the next blank-separated word; returns its length, 0 at the end. */
static size_t next_word(const char **at)
{
    *at += strspn(*at, " \t\n");
    return strcspn(*at, " \t\n");
}

bool cmdline_has(const char *cmdline, const char *word)
{
    size_t length;
    for (const char *at = cmdline; (length = next_word(&at)) != 0; at += length)
        if (length == strlen(word) && memcmp(at, word, length) == 0)
            return true;
    return false;
}

char *cmdline_value(const char *cmdline, const char *key)
{
    char *value = NULL;
    size_t length, prefix = strlen(key);
    for (const char *at = cmdline; (length = next_word(&at)) != 0; at += length)
        if (length > prefix && memcmp(at, key, prefix) == 0 && at[prefix] == '=') {
            free(value);
            value = format("%.*s", (int)(length - prefix - 1), at + prefix + 1);
        }
    return value;
}

bool booted_with(const char *word)
{
    scoped_free char *cmdline = read_line("/proc/cmdline");
    return cmdline && cmdline_has(cmdline, word);
}

char *booted_value(const char *key)
{
    scoped_free char *cmdline = read_line("/proc/cmdline");
    return cmdline ? cmdline_value(cmdline, key) : NULL;
}

static int compare_names(const void *left, const void *right)
{
    return strcmp(*(char *const *)left, *(char *const *)right);
}

char **list_names(const char *path, size_t *count)
{
    char **names = NULL;
    *count = 0;
    DIR *dir = opendir(path);
    if (!dir)
        return NULL;
    for (struct dirent *entry; (entry = readdir(dir));)
        if (entry->d_name[0] != '.')
            *APPEND(names, *count) = must_dup(entry->d_name);
    closedir(dir);
    if (!names)
        return must_alloc(sizeof(*names));
    qsort(names, *count, sizeof(*names), compare_names);
    return names;
}

void free_names(char **names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(names[i]);
    free(names);
}
