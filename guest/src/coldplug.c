/* Modules for the devices that are there. A bus driver brings new devices: look again until nothing is new. */
#include "modules.h"
#include "setup.h"
#include "util.h"

#include <errno.h>
#include <string.h>

struct seen {
    char **aliases;
    size_t count;
};

static void plug(struct modules *index, struct seen *seen, const char *file)
{
    scoped_free char *alias = read_line(file);
    if (!alias || !*alias)
        return;
    for (size_t i = 0; i < seen->count; i++)
        if (strcmp(seen->aliases[i], alias) == 0)
            return;
    *APPEND(seen->aliases, seen->count) = must_dup(alias);
    if (modules_load(index, alias, "") < 0 && errno != ENOENT && errno != ENODEV && errno != EEXIST)
        say("module for %s: %s", alias, strerror(errno));
}

static void plug_folder(struct modules *index, struct seen *seen, const char *folder)
{
    size_t count;
    char **devices = list_names(folder, &count);
    for (size_t i = 0; i < count; i++) {
        scoped_free char *file = format("%s/%s/modalias", folder, devices[i]);
        plug(index, seen, file);
    }
    if (devices)
        free_names(devices, count);
}

unsigned coldplug(void)
{
    /* Whatever else the kernel wants later, it asks for by this name. */
    write_file("/proc/sys/kernel/modprobe", "/sbin/modprobe");
    scoped_modules index;
    if (modules_open_running(&index) < 0)
        return 0; /* a kernel without modules */
    struct seen seen = {0};
    size_t before, known;
    do {
        before = index.loaded;
        known = seen.count;
        size_t count;
        char **buses = list_names("/sys/bus", &count);
        for (size_t i = 0; i < count; i++) {
            scoped_free char *folder = format("/sys/bus/%s/devices", buses[i]);
            plug_folder(&index, &seen, folder);
        }
        if (buses)
            free_names(buses, count);
        plug_folder(&index, &seen, "/sys/class/input"); /* evdev: the power button */
    } while (index.loaded != before && seen.count != known);
    free_names(seen.aliases, seen.count);
    return (unsigned)index.loaded;
}
