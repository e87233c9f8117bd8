/* Kernel modules: the index files that depmod writes, and loading. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct module_alias {
    const char *pattern, *module;
    int next; /* in the same bucket, -1 at the end */
};

struct module_file {
    const char *name, *path, *needs; /* path below the folder; needs: blank-separated paths */
    bool tried;
};

struct modules {
    char *folder, *dep_text, *alias_text, *softdep_text, *builtin_text;
    struct module_file *files;
    size_t file_count;
    struct module_alias *aliases;
    size_t alias_count;
    int buckets[64];
    size_t loaded; /* how many modules this index has put into the kernel */
    bool dry; /* print what would be loaded instead */
};

/* Reads the index of a modules folder. 0, or -1 when it has no modules.dep. Names and aliases take - for _. */
int modules_open(struct modules *index, const char *folder);
/* The same for the running kernel's folder, /lib/modules/RELEASE. */
int modules_open_running(struct modules *index);
void modules_close(struct modules *index);
#define scoped_modules __attribute__((cleanup(modules_close))) struct modules

/* Loads every module that matches the name or alias, each after what it needs.
 * 0: at least one matched and all are in the kernel now (or built in). -1: errno says why, ENOENT: nothing matched. */
int modules_load(struct modules *index, const char *name, const char *parameters);

/* Does the pattern of an alias match it? The shell's * ? [...], with - equal to _. */
bool alias_matches(const char *pattern, const char *alias);

/* Modules for the devices that are there, and for those that come later: a pass looks at what is new. */
struct coldplug {
    struct modules index;
    char **seen; /* aliases that were looked up */
    size_t seen_count;
};

int coldplug_open(struct coldplug *plug); /* -1: a kernel without modules; passes then do nothing */
void coldplug_pass(struct coldplug *plug);
void coldplug_close(struct coldplug *plug);
