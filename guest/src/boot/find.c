/* From what stands behind root= to a device. */
#include "bootstage.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static const char *const forms[] = {"/dev/", "PARTUUID=", "PARTLABEL=", "LABEL=", "UUID="};

bool spec_known(const char *spec)
{
    for (size_t i = 0; i < COUNT(forms); i++)
        if (starts_with(spec, forms[i]))
            return spec[strlen(forms[i])] != 0;
    return false;
}

/* Nobody's root is on these, and asking some of them takes seconds. */
static bool is_boring(const char *name)
{
    static const char *const boring[] = {"ram", "loop", "zram", "fd", "dm-", "md", "nbd"};
    for (size_t i = 0; i < COUNT(boring); i++)
        if (starts_with(name, boring[i]))
            return true;
    return false;
}

/* The device of a name in /sys/class/block. False: it is gone, or it has no medium. */
static bool device_named(struct device *device, const struct places *places, const char *name)
{
    scoped_free char *size_file = format("%s/class/block/%s/size", places->sys, name);
    scoped_free char *number_file = format("%s/class/block/%s/dev", places->sys, name);
    scoped_free char *number = read_line(number_file);
    long sectors = read_number(size_file);
    *device = (struct device){0};
    if (sectors <= 0 || !number || sscanf(number, "%u:%u", &device->major, &device->minor) != 2 ||
        (size_t)snprintf(device->path, sizeof(device->path), "%s/%s", places->dev, name) >= sizeof(device->path))
        return false;
    for (char *at = device->path + strlen(places->dev); *at; at++)
        if (*at == '!') /* sysfs's way to write a / */
            *at = '/';
    device->size = (uint64_t)sectors * 512;
    return true;
}

/* Turns \xHH back into bytes, as udev's names have them. */
static char *unescape(const char *text)
{
    char *made = must_dup(text), *to = made;
    for (const char *at = text; *at;) {
        unsigned byte;
        if (at[0] == '\\' && at[1] == 'x' && sscanf(at + 2, "%2x", &byte) == 1 && at[2] && at[3] && byte) {
            *to++ = (char)byte;
            at += 4;
        } else {
            *to++ = *at++;
        }
    }
    *to = 0;
    return made;
}

/* The partition `number` of a disk. `first` is its first sector of 512 bytes, or -1 when that isn't known. */
static bool partition_device(struct device *found, const struct places *places, const char *disk, unsigned number,
                             long first)
{
    scoped_free char *folder = format("%s/class/block/%s", places->sys, disk);
    size_t count;
    char **names = list_names(folder, &count);
    bool there = false;
    for (size_t i = 0; i < count && !there; i++) {
        scoped_free char *file = format("%s/%s/partition", folder, names[i]);
        scoped_free char *start = format("%s/%s/start", folder, names[i]);
        if (read_number(file) == (long)number && (first < 0 || read_number(start) == first))
            there = device_named(found, places, names[i]);
    }
    if (names)
        free_names(names, count);
    return there;
}

/* What has been found so far. */
struct matches {
    const struct places *places;
    struct device devices[2]; /* the first two */
    char names[2][64], uuids[2][40], labels[2][112];
    size_t count;
};

static void add(struct matches *matches, const struct device *device, const char *uuid, const char *label)
{
    const char *name = base_name(device->path);
    for (size_t i = 0; i < matches->count && i < 2; i++)
        if (!strcmp(matches->names[i], name) || device_nested(matches->places->sys, matches->names[i], name))
            return; /* a disk that begins with its first partition */
    size_t i = matches->count++;
    if (i >= 2)
        return;
    matches->devices[i] = *device;
    snprintf(matches->names[i], sizeof(matches->names[i]), "%s", name);
    snprintf(matches->uuids[i], sizeof(matches->uuids[i]), "%s", uuid);
    snprintf(matches->labels[i], sizeof(matches->labels[i]), "%s", label);
}

/* PARTUUID= and PARTLABEL= on one disk. */
static void find_in_table(struct matches *matches, const char *disk, const char *uuid, const char *label)
{
    struct device device, part;
    const struct places *places = matches->places;
    if (!device_named(&device, places, disk))
        return;
    scoped_fd fd = medium_open(device.path, O_RDONLY);
    if (fd < 0)
        return;
    unsigned signature, number;
    int length = 0;
    if (uuid && sscanf(uuid, "%8x-%2x%n", &signature, &number, &length) == 2 && length == 11 && !uuid[11] &&
        uuid[8] == '-') {
        if (signature && mbr_signature(fd) == signature && partition_device(&part, places, disk, number, -1))
            add(matches, &part, uuid, "");
        return;
    }
    scoped_free char *file = format("%s/class/block/%s/queue/logical_block_size", places->sys, disk);
    long sector = read_number(file);
    if (sector < 512 || sector > 4096)
        sector = 512;
    scoped_free struct partition *list = NULL;
    size_t count = partitions_read(&list, fd, (unsigned)sector, device.size);
    for (size_t i = 0; i < count; i++)
        if (uuid ? !strcasecmp(list[i].uuid, uuid) : !strcmp(list[i].label, label)) {
            long first = (long)(list[i].first * ((uint64_t)sector / 512) & INT64_MAX);
            if (partition_device(&part, places, disk, list[i].number, first))
                add(matches, &part, list[i].uuid, list[i].label);
        }
}

static void find_by_content(struct matches *matches, const char *name, const char *uuid, const char *label)
{
    struct device device;
    struct superblock super;
    if (!device_named(&device, matches->places, name))
        return;
    scoped_fd fd = medium_open(device.path, O_RDONLY);
    if (fd >= 0 && superblock_read(&super, fd) && (uuid ? !strcasecmp(super.uuid, uuid) : !strcmp(super.label, label)))
        add(matches, &device, super.uuid, super.label);
}

/* "/dev/vda1 (LABEL=x, UUID=y, serial number z)", to be freed. */
static char *match_text(const struct matches *matches, size_t i, bool in_table)
{
    const char *what = in_table ? "PART" : "";
    scoped_free char *serial = device_serial(matches->places->sys, matches->names[i]);
    scoped_free char *label = must_dup(matches->labels[i]);
    make_printable(label);
    return format("%s (%sLABEL=%s, %sUUID=%s, %s)", matches->devices[i].path, what, label, what, matches->uuids[i], serial);
}

static char **block_names(const struct places *places, size_t *count)
{
    scoped_free char *folder = format("%s/class/block", places->sys);
    return list_names(folder, count);
}

static bool is_partition(const struct places *places, const char *name)
{
    scoped_free char *file = format("%s/class/block/%s/partition", places->sys, name);
    return exists(file);
}

int device_find(struct device *found, const struct places *places, const char *spec, char reason[static REASON_MAX])
{
    if (starts_with(spec, "/dev/")) {
        scoped_free char *name = must_dup(spec + strlen("/dev/"));
        for (char *at = name; *at; at++)
            if (*at == '/')
                *at = '!';
        return device_named(found, places, name) && exists(found->path);
    }
    scoped_free char *value = unescape(strchr(spec, '=') + 1);
    bool in_table = starts_with(spec, "PART"), by_uuid = spec[in_table ? strlen("PART") : 0] == 'U';
    const char *uuid = by_uuid ? value : NULL, *label = by_uuid ? NULL : value;
    struct matches matches = {.places = places};
    size_t count;
    char **names = block_names(places, &count);
    for (size_t i = 0; i < count; i++) {
        if (is_boring(names[i]) || (in_table && is_partition(places, names[i])))
            continue;
        if (in_table)
            find_in_table(&matches, names[i], uuid, label);
        else
            find_by_content(&matches, names[i], uuid, label);
    }
    if (names)
        free_names(names, count);
    *found = matches.devices[0];
    if (matches.count < 2)
        return (int)matches.count;
    scoped_free char *one = match_text(&matches, 0, in_table), *other = match_text(&matches, 1, in_table);
    snprintf(reason, REASON_MAX, "root=%.60s is on %zu disks: %.200s and %.200s", spec, matches.count, one, other);
    return -1;
}

char **devices_describe(const struct places *places, size_t *count)
{
    size_t all;
    char **names = block_names(places, &all), **lines = NULL;
    *count = 0;
    for (size_t i = 0; i < all; i++) {
        struct device device;
        struct superblock super = {0};
        if (is_boring(names[i]))
            continue;
        if (!device_named(&device, places, names[i])) {
            *APPEND(lines, *count) = format("/dev/%s: no medium", names[i]);
            continue;
        }
        scoped_fd fd = medium_open(device.path, O_RDONLY);
        if (fd < 0 && errno == ENOMEDIUM) {
            *APPEND(lines, *count) = format("/dev/%s: no medium", names[i]);
            continue;
        }
        bool known = fd >= 0 && superblock_read(&super, fd);
        make_printable(super.label);
        *APPEND(lines, *count) =
            format("/dev/%s: %llu MiB%s%s%s%s%s%s", names[i], (unsigned long long)(device.size >> 20), known ? ", " : "",
                   known ? super.type : "", *super.label ? ", LABEL=" : "", super.label, *super.uuid ? ", UUID=" : "",
                   super.uuid);
    }
    if (names)
        free_names(names, all);
    return lines ? lines : must_alloc(sizeof(*lines));
}
