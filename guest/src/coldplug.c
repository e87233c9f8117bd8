/* Modules for the devices that are there. A bus driver brings new devices: look again until nothing is new. */
#include "modules.h"
#include "setup.h"
#include "util.h"

#include <errno.h>
#include <string.h>

static void look_up(struct coldplug *plug, const char *file)
{
    scoped_free char *alias = read_line(file);
    if (!alias || !*alias)
        return;
    for (size_t i = 0; i < plug->seen_count; i++)
        if (strcmp(plug->seen[i], alias) == 0)
            return;
    *APPEND(plug->seen, plug->seen_count) = must_dup(alias);
    if (modules_load(&plug->index, alias, "") < 0 && errno != ENOENT && errno != ENODEV && errno != EEXIST)
        say("module for %s: %s", alias, strerror(errno));
}

static void look_into(struct coldplug *plug, const char *folder)
{
    size_t count;
    char **devices = list_names(folder, &count);
    for (size_t i = 0; i < count; i++) {
        scoped_free char *file = format("%s/%s/modalias", folder, devices[i]);
        look_up(plug, file);
    }
    if (devices)
        free_names(devices, count);
}

int coldplug_open(struct coldplug *plug)
{
    *plug = (struct coldplug){0};
    /* Whatever else the kernel wants later, it asks for by this name. */
    write_file("/proc/sys/kernel/modprobe", "/sbin/modprobe");
    return modules_open_running(&plug->index);
}

void coldplug_pass(struct coldplug *plug)
{
    if (!plug->index.dep_text)
        return;
    size_t before, known;
    do {
        before = plug->index.loaded;
        known = plug->seen_count;
        size_t count;
        char **buses = list_names("/sys/bus", &count);
        for (size_t i = 0; i < count; i++) {
            scoped_free char *folder = format("/sys/bus/%s/devices", buses[i]);
            look_into(plug, folder);
        }
        if (buses)
            free_names(buses, count);
        look_into(plug, "/sys/class/input"); /* evdev: the power button */
    } while (plug->index.loaded != before && plug->seen_count != known);
}

void coldplug_close(struct coldplug *plug)
{
    free_names(plug->seen, plug->seen_count);
    modules_close(&plug->index);
}

unsigned coldplug(void)
{
    struct coldplug plug;
    coldplug_open(&plug);
    coldplug_pass(&plug);
    unsigned loaded = (unsigned)plug.index.loaded;
    coldplug_close(&plug);
    return loaded;
}
