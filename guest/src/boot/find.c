/* From what stands behind root= to a device. */
#include "bootstage.h"
#include "util.h"

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

static int device_open(const struct device *device)
{
    return open(device->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
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

/* PARTUUID= and PARTLABEL= on one disk. */
static bool find_in_table(struct device *found, const struct places *places, const char *disk, const char *uuid,
                          const char *label)
{
    struct device device;
    if (!device_named(&device, places, disk))
        return false;
    scoped_fd fd = device_open(&device);
    if (fd < 0)
        return false;
    unsigned signature, number;
    int length = 0;
    if (uuid && sscanf(uuid, "%8x-%2x%n", &signature, &number, &length) == 2 && length == 11 && !uuid[11] &&
        uuid[8] == '-')
        return signature && mbr_signature(fd) == signature && partition_device(found, places, disk, number, -1);
    scoped_free char *file = format("%s/class/block/%s/queue/logical_block_size", places->sys, disk);
    long sector = read_number(file);
    if (sector < 512 || sector > 4096)
        sector = 512;
    scoped_free struct partition *list = NULL;
    size_t count = partitions_read(&list, fd, (unsigned)sector, device.size);
    for (size_t i = 0; i < count; i++)
        if (uuid ? !strcasecmp(list[i].uuid, uuid) : !strcmp(list[i].label, label)) {
            long first = (long)(list[i].first * ((uint64_t)sector / 512) & INT64_MAX);
            if (partition_device(found, places, disk, list[i].number, first))
                return true;
        }
    return false;
}

static bool find_by_content(struct device *found, const struct places *places, const char *name, const char *uuid,
                            const char *label)
{
    if (!device_named(found, places, name))
        return false;
    scoped_fd fd = device_open(found);
    struct superblock super;
    if (fd < 0 || !superblock_read(&super, fd))
        return false;
    return uuid ? !strcasecmp(super.uuid, uuid) : !strcmp(super.label, label);
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

bool device_find(struct device *found, const struct places *places, const char *spec)
{
    if (starts_with(spec, "/dev/")) {
        scoped_free char *name = must_dup(spec + strlen("/dev/"));
        for (char *at = name; *at; at++)
            if (*at == '/')
                *at = '!';
        return device_named(found, places, name) && exists(found->path);
    }
    scoped_free char *value = unescape(strchr(spec, '=') + 1);
    bool in_table = starts_with(spec, "PART"), by_uuid = strstr(spec, "UUID=") != NULL && strstr(spec, "UUID=") < strchr(spec, '=');
    const char *uuid = by_uuid ? value : NULL, *label = by_uuid ? NULL : value;
    size_t count;
    char **names = block_names(places, &count);
    bool there = false;
    for (size_t i = 0; i < count && !there; i++) {
        if (is_boring(names[i]) || (in_table && is_partition(places, names[i])))
            continue;
        there = in_table ? find_in_table(found, places, names[i], uuid, label)
                         : find_by_content(found, places, names[i], uuid, label);
    }
    if (names)
        free_names(names, count);
    return there;
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
        scoped_fd fd = device_open(&device);
        bool known = fd >= 0 && superblock_read(&super, fd);
        for (char *at = super.label; *at; at++) /* a stranger's words, for the console */
            if (*at < ' ' || *at == 127)
                *at = '?';
        *APPEND(lines, *count) =
            format("/dev/%s: %llu MiB%s%s%s%s%s%s", names[i], (unsigned long long)(device.size >> 20), known ? ", " : "",
                   known ? super.type : "", *super.label ? ", LABEL=" : "", super.label, *super.uuid ? ", UUID=" : "",
                   super.uuid);
    }
    if (names)
        free_names(names, all);
    return lines ? lines : must_alloc(sizeof(*lines));
}
