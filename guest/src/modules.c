/* Kernel modules: modules.dep, modules.alias and modules.softdep, read once; loading with dependencies first. */
#include "modules.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

#define INDEX_LIMIT (64 << 20)
#define DEEPEST 32
#define MODULE_INIT_COMPRESSED_FILE 4

static char same(char c)
{
    return c == '-' ? '_' : c;
}

static bool in_set(const char **pattern, char c)
{
    const char *at = *pattern + 1;
    bool invert = *at == '!' || *at == '^', found = false;
    at += invert;
    do {
        char low = *at, high = low;
        if (!low)
            return false;
        if (at[1] == '-' && at[2] && at[2] != ']') {
            high = at[2];
            at += 2;
        }
        found |= c >= low && c <= high;
        at++;
    } while (*at != ']');
    *pattern = at + 1;
    return found != invert;
}

bool alias_matches(const char *pattern, const char *alias)
{
    const char *star = NULL, *retry = NULL;
    for (;;) {
        bool fits;
        if (*pattern == '*') {
            star = ++pattern;
            retry = alias;
            continue;
        }
        const char *next = pattern;
        if (!*alias) {
            if (!*pattern)
                return true;
            return false;
        }
        if (*pattern == '[') {
            fits = in_set(&next, *alias);
        } else {
            fits = *pattern && (*pattern == '?' || same(*pattern) == same(*alias));
            next = pattern + 1;
        }
        if (fits) {
            pattern = next;
            alias++;
        } else if (star) {
            pattern = star;
            alias = ++retry;
        } else {
            return false;
        }
    }
}

/* By what stands before the first colon, the bus, or by the whole name. A pattern that leaves the bus open
 * (acpi*:PNP0C0C:*) goes into bucket 0, which every search looks into as well. */
static unsigned bucket(const char *alias)
{
    size_t length = strcspn(alias, ":*?[");
    if (alias[length] && alias[length] != ':')
        return 0;
    unsigned sum = 0;
    for (size_t i = 0; i < length; i++)
        sum = sum * 31 + (unsigned char)same(alias[i]);
    return 1 + sum % 63;
}

static bool same_name(const char *left, const char *right)
{
    for (; *left && same(*left) == same(*right); left++, right++)
        ;
    return !*left && !*right;
}

static bool starts_like(const char *text, const char *name)
{
    for (; *name && same(*text) == same(*name); text++, name++)
        ;
    return !*name;
}

/* The module's name is its file's without .ko and what follows. */
static char *name_of(const char *path)
{
    char *name = must_dup(base_name(path));
    char *end = strstr(name, ".ko");
    if (end)
        *end = 0;
    return name;
}

static char *index_file(const struct modules *index, const char *name)
{
    scoped_free char *path = format("%s/%s", index->folder, name);
    return read_file(path, INDEX_LIMIT, NULL);
}

int modules_open(struct modules *index, const char *folder)
{
    *index = (struct modules){.folder = must_dup(folder)};
    for (size_t i = 0; i < COUNT(index->buckets); i++)
        index->buckets[i] = -1;
    index->dep_text = index_file(index, "modules.dep");
    if (!index->dep_text)
        return -1;
    index->alias_text = index_file(index, "modules.alias");
    index->softdep_text = index_file(index, "modules.softdep");
    char *rest = index->dep_text;
    for (char *line; (line = next_line(&rest));) {
        char *colon = strchr(line, ':');
        if (!colon || *line == '#')
            continue;
        *colon++ = 0;
        *APPEND(index->files, index->file_count) =
            (struct module_file){.name = name_of(line), .path = line, .needs = colon + strspn(colon, " ")};
    }
    rest = index->alias_text;
    for (char *line; (line = next_line(&rest));) {
        char *pattern = line + strlen("alias ");
        char *module = starts_with(line, "alias ") ? strrchr(pattern, ' ') : NULL;
        if (!module)
            continue;
        *module++ = 0;
        unsigned where = bucket(pattern);
        *APPEND(index->aliases, index->alias_count) = (struct module_alias){pattern, module, index->buckets[where]};
        index->buckets[where] = (int)index->alias_count - 1;
    }
    return 0;
}

int modules_open_running(struct modules *index)
{
    struct utsname name;
    uname(&name);
    scoped_free char *folder = format("/lib/modules/%s", name.release);
    return modules_open(index, folder);
}

void modules_close(struct modules *index)
{
    for (size_t i = 0; i < index->file_count; i++)
        free((char *)index->files[i].name);
    free(index->files);
    free(index->aliases);
    free(index->folder);
    free(index->dep_text);
    free(index->alias_text);
    free(index->softdep_text);
    free(index->builtin_text);
    *index = (struct modules){0};
}

static int insert(struct modules *index, const struct module_file *file, const char *parameters)
{
    if (index->dry) {
        printf("%s\n", file->path);
        index->loaded++;
        return 0;
    }
    scoped_free char *path = *file->path == '/' ? must_dup(file->path) : format("%s/%s", index->folder, file->path);
    scoped_fd fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    int flags = ends_with(path, ".ko") ? 0 : MODULE_INIT_COMPRESSED_FILE;
    if (syscall(SYS_finit_module, fd, parameters, flags) == 0) {
        index->loaded++;
        return 0;
    }
    return errno == EEXIST ? 0 : -1;
}

static int load_file(struct modules *index, struct module_file *file, const char *parameters, int depth);
static int load_name(struct modules *index, const char *name, const char *parameters, int depth);

/* The modules that modules.softdep wants before (pre) or after (post) this one. What is missing doesn't matter. */
static void load_soft(struct modules *index, const char *name, const char *when, int depth)
{
    scoped_free char *text = index->softdep_text ? must_dup(index->softdep_text) : NULL;
    char *rest = text;
    for (char *line; (line = next_line(&rest));) {
        char *save, *word = strtok_r(line, " ", &save);
        if (!word || strcmp(word, "softdep") || !(word = strtok_r(NULL, " ", &save)) || !same_name(word, name))
            continue;
        bool wanted = false;
        while ((word = strtok_r(NULL, " ", &save))) {
            if (ends_with(word, ":"))
                wanted = strcmp(word, when) == 0;
            else if (wanted)
                load_name(index, word, "", depth);
        }
    }
}

static struct module_file *find_path(struct modules *index, const char *path)
{
    for (size_t i = 0; i < index->file_count; i++)
        if (strcmp(index->files[i].path, path) == 0)
            return &index->files[i];
    return NULL;
}

static int load_file(struct modules *index, struct module_file *file, const char *parameters, int depth)
{
    if (file->tried || depth > DEEPEST)
        return 0;
    file->tried = true;
    load_soft(index, file->name, "pre:", depth + 1);
    /* depmod writes what is needed nearest first, all of it; a list of the direct needs only works as well. */
    scoped_free char *needs = must_dup(file->needs);
    for (char *end = needs + strlen(needs); end > needs;) {
        char *start = end;
        while (start > needs && start[-1] != ' ')
            start--;
        struct module_file *need = find_path(index, start);
        if (need && load_file(index, need, "", depth + 1) < 0)
            return -1;
        end = start;
        while (end > needs && end[-1] == ' ')
            *--end = 0;
    }
    int result = insert(index, file, parameters);
    int error = errno;
    if (result == 0)
        load_soft(index, file->name, "post:", depth + 1);
    errno = error;
    return result;
}

static bool built_in(struct modules *index, const char *name)
{
    if (!index->builtin_text && !(index->builtin_text = index_file(index, "modules.builtin")))
        index->builtin_text = must_dup("");
    /* Compared in place: the kernel asks often for what is built in, or is not there at all. */
    size_t wanted = strlen(name);
    const char *base = index->builtin_text;
    for (const char *at = base; *at; at++) {
        if (*at == '/' || *at == '\n') {
            base = at + 1;
        } else if (at == base && starts_like(at, name) && starts_with(at + wanted, ".ko")) {
            return true;
        }
    }
    return false;
}

static int load_name(struct modules *index, const char *name, const char *parameters, int depth)
{
    for (size_t i = 0; i < index->file_count; i++)
        if (same_name(index->files[i].name, name))
            return load_file(index, &index->files[i], parameters, depth);
    bool matched = false;
    int error = 0;
    unsigned lists[] = {bucket(name), 0};
    for (size_t l = 0; l < (lists[0] ? 2 : 1); l++) {
        for (int i = index->buckets[lists[l]]; i >= 0; i = index->aliases[i].next) {
            if (!alias_matches(index->aliases[i].pattern, name))
                continue;
            for (size_t f = 0; f < index->file_count; f++) {
                if (!same_name(index->files[f].name, index->aliases[i].module))
                    continue;
                matched = true;
                if (load_file(index, &index->files[f], parameters, depth) < 0)
                    error = errno;
            }
        }
    }
    errno = error ? error : ENOENT;
    return matched && !error ? 0 : -1;
}

int modules_load(struct modules *index, const char *name, const char *parameters)
{
    if (load_name(index, name, parameters, 0) == 0)
        return 0;
    int error = errno;
    if (error == ENOENT && built_in(index, name))
        return 0;
    errno = error;
    return -1;
}
