/* /run/config. Files are made under another name and renamed, so a link that someone put there is never followed. */
#define _GNU_SOURCE
#include "metadata.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#define NEW_NAME ".metadata.new"

static int config = -1;

bool store_open(void)
{
    if (make_dirs(metadata_options.config, 0755) < 0 ||
        (config = open(metadata_options.config, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) {
        note("%s: %s", metadata_options.config, strerror(errno));
        return false;
    }
    return true;
}

static bool put_file(int folder, const char *name, const void *bytes, size_t length, mode_t mode)
{
    unlinkat(folder, NEW_NAME, 0);
    scoped_fd fd = openat(folder, NEW_NAME, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return false;
    if (write_all(fd, bytes, length) == 0 && fchmod(fd, mode) == 0 && renameat(folder, NEW_NAME, folder, name) == 0)
        return true;
    int error = errno;
    unlinkat(folder, NEW_NAME, 0);
    errno = error;
    return false;
}

/* A folder in a folder, made when it isn't there; never through a link. `chosen`: the mode is someone's wish. */
static int put_folder(int folder, const char *name, mode_t mode, bool chosen)
{
    bool made = mkdirat(folder, name, 0700) == 0;
    if (!made && errno != EEXIST)
        return -1;
    int fd = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0 && (made || chosen) && fchmod(fd, mode) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

bool store(const char *name, const void *bytes, size_t length, mode_t mode)
{
    const char *slash = strchr(name, '/');
    scoped_fd folder = -1;
    if (slash) {
        scoped_free char *first = format("%.*s", (int)(slash - name), name);
        folder = put_folder(config, first, 0755, false);
    }
    bool done = slash ? folder >= 0 && put_file(folder, slash + 1, bytes, length, mode)
                      : put_file(config, name, bytes, length, mode);
    if (!done)
        note("%s/%s: %s", metadata_options.config, name, strerror(errno));
    return done;
}

bool store_text(const char *name, const char *text)
{
    return text && store(name, text, strlen(text), 0644);
}

bool store_keys(const char *keys, size_t length)
{
    return store("ssh/authorized_keys", keys, length, 0600);
}

/* Go's reader of JSON, which existing data was written for, doesn't look at the case of these. */
static const struct json *field(const struct json_document *document, const struct json *entry, const char *name)
{
    const struct json *found = NULL;
    JSON_EACH(item, document, entry)
        if (item->key_length == strlen(name) && strcasecmp(item->key, name) == 0)
            found = item;
    return found && found->kind != JSON_NULL ? found : NULL;
}

/* Is it what the tree is described with? A wrong type anywhere means that the data isn't meant for us. */
static bool is_entries(const struct json_document *document, const struct json *entries)
{
    if (entries->kind != JSON_OBJECT)
        return false;
    JSON_EACH(entry, document, entries) {
        if (entry->kind == JSON_NULL)
            continue;
        if (entry->kind != JSON_OBJECT)
            return false;
        const struct json *perm = field(document, entry, "perm"), *content = field(document, entry, "content");
        const struct json *inner = field(document, entry, "entries");
        if ((perm && perm->kind != JSON_STRING) || (content && content->kind != JSON_STRING) ||
            (inner && !is_entries(document, inner)))
            return false;
    }
    return true;
}

static bool mode_of(const struct json *perm, mode_t *mode)
{
    if (!perm || perm->length == 0)
        return true;
    if (strspn(perm->text, "01234567") != perm->length || perm->length > 8 || strtoul(perm->text, NULL, 8) > 07777)
        return false;
    *mode = (mode_t)strtoul(perm->text, NULL, 8) & 0777;
    return true;
}

/* One component of a path, and none that leads elsewhere. */
static bool name_fits(const struct json *entry)
{
    return entry->key_length > 0 && entry->key_length <= 255 && strlen(entry->key) == entry->key_length &&
           !strchr(entry->key, '/') && strcmp(entry->key, ".") && strcmp(entry->key, "..") &&
           strcmp(entry->key, NEW_NAME);
}

/* A stranger's words, for the console. */
static char *printable(const char *text)
{
    char *copy = format("%.200s", text);
    for (char *at = copy; *at; at++)
        if ((unsigned char)*at < ' ' || *at == 127)
            *at = '?';
    return copy;
}

static void put_entries(const struct json_document *document, const struct json *entries, int folder, const char *where)
{
    JSON_EACH(entry, document, entries) {
        scoped_free char *shown = printable(entry->key);
        scoped_free char *path = format("%s/%s", where, shown);
        const struct json *perm = field(document, entry, "perm"), *content = field(document, entry, "content");
        const struct json *inner = field(document, entry, "entries");
        mode_t mode = content ? 0644 : 0755;
        if (!name_fits(entry)) {
            note("user data: %s: not a name for a file", path);
        } else if (!content == !inner) {
            note("user data: %s is invalid: an entry has either content or entries", path);
        } else if (!mode_of(perm, &mode)) {
            note("user data: %s: perm is not an octal mode", path);
        } else if (content) {
            if (!put_file(folder, entry->key, content->text, content->length, mode))
                note("user data: %s: %s", path, strerror(errno));
        } else {
            scoped_fd fd = put_folder(folder, entry->key, mode, perm && perm->length);
            if (fd < 0)
                note("user data: %s: %s", path, strerror(errno));
            else
                put_entries(document, inner, fd, path);
        }
    }
}

bool store_userdata(const char *bytes, size_t length)
{
    if (!store("userdata", bytes, length, 0644))
        return false;
    size_t start = 0;
    while (start < length && strchr(" \t\r\n", bytes[start]) && bytes[start])
        start++;
    if (start == length || bytes[start] != '{') {
        detail("user data: %zu bytes that are not JSON: not unpacked", length);
        return true;
    }
    scoped_json document;
    if (!json_read(&document, bytes, length))
        note("user data: not JSON, so it is not unpacked: %s", document.error);
    else if (!is_entries(&document, &document.values[0]))
        note("user data: JSON, but no tree of entries, so it is not unpacked");
    else
        put_entries(&document, &document.values[0], config, metadata_options.config);
    return true;
}
