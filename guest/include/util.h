/* Small things every part of the guest uses: scoped cleanup, strings, files, time, the console line. */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))

static inline void close_scoped(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

static inline void free_scoped(void *pointer)
{
    free(*(void **)pointer);
}

/* Closed, or freed, on every way out of the block. */
#define scoped_fd __attribute__((cleanup(close_scoped))) int
#define scoped_free __attribute__((cleanup(free_scoped)))

/* Appends one zeroed element to a vector that is a pointer and a count; yields a pointer to it. */
#define APPEND(items, count) (grow((void **)&(items), &(count), sizeof(*(items))), &(items)[(count)-1])

void grow(void **items, size_t *count, size_t size);
void *must_alloc(size_t size);
char *must_dup(const char *text);
char *format(const char *fmt, ...) PRINTF(1, 2); /* the caller frees it */

/* One line on standard error, which is the console: "linuxkit: ...". */
void say(const char *fmt, ...) PRINTF(1, 2);
/* Who writes say()'s lines from now on. */
void say_by(void (*how)(const char *line, size_t length));

/* Seconds since the kernel started, on the monotonic clock. */
double now(void);
void pause_ms(long ms);

/* The file's bytes and a final NUL, or NULL with errno; a longer file than `limit` is EFBIG. The caller frees them. */
char *read_file(const char *path, size_t limit, size_t *length);
/* The first line without its end, or NULL. The caller frees it. */
char *read_line(const char *path);
/* Cuts the next line off a text; NULL at its end. (strchr would do, but some C libraries measure the whole rest first.) */
char *next_line(char **rest);
/* 0, or -1 with errno. */
int write_file(const char *path, const char *text);
int write_all(int fd, const void *bytes, size_t length);
int make_dirs(const char *path, mode_t mode); /* with parents; there already is fine */
int make_parents(const char *path);
bool exists(const char *path);
long read_number(const char *path); /* -1 when there is none */

bool starts_with(const char *text, const char *prefix);
bool ends_with(const char *text, const char *suffix);
const char *base_name(const char *path);
/* Bytes of the character at the start of a text that a NUL ends, or 0 when it isn't UTF-8 (as overlong forms and
 * surrogates). */
size_t utf8_length(const char *text);

/* Looks for an exact word, or for WORD=VALUE (the last one wins; the caller frees it), in a kernel command line. */
bool cmdline_has(const char *cmdline, const char *word);
char *cmdline_value(const char *cmdline, const char *key);
/* Those of the running kernel. */
bool booted_with(const char *word);
char *booted_value(const char *key);

/* Names of a folder's entries without the dot files, in byte order. free_names() frees them; NULL when it can't be read. */
char **list_names(const char *path, size_t *count);
void free_names(char **names, size_t count);
