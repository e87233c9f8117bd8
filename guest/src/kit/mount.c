/* mountie: mounts a device, by its name, label or UUID, or else the first partition that nobody has mounted. */
#include "block.h"
#include "command.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#define AGAIN_MS 500 /* between two looks at all disks */

static const char how[] = "mountie [-device DEVICE | -label LABEL | -uuid UUID] [-options LIST] MOUNTPOINT, "
                          "or mountie DEVICE MOUNTPOINT";

/* Words of fstab's options that are flags of mount(2). */
static const struct {
    const char *word;
    unsigned long set, clear;
} words[] = {
    {"defaults", 0, 0},         {"ro", MS_RDONLY, 0},       {"rw", 0, MS_RDONLY},        {"noatime", MS_NOATIME, 0},
    {"relatime", MS_RELATIME, 0}, {"nodiratime", MS_NODIRATIME, 0}, {"nodev", MS_NODEV, 0}, {"nosuid", MS_NOSUID, 0},
    {"noexec", MS_NOEXEC, 0},   {"sync", MS_SYNCHRONOUS, 0}, {"dirsync", MS_DIRSYNC, 0}, {"lazytime", MS_LAZYTIME, 0},
};

/* Takes the flags out of a list of options; the caller frees what is left. */
static char *options_split(const char *options, unsigned long *flags)
{
    char *left = must_dup("");
    scoped_free char *text = must_dup(options);
    char *rest, *word = strtok_r(text, ",", &rest);
    for (; word; word = strtok_r(NULL, ",", &rest)) {
        bool known = false;
        for (size_t i = 0; i < COUNT(words); i++)
            if (!strcmp(word, words[i].word)) {
                *flags = (*flags | words[i].set) & ~words[i].clear;
                known = true;
            }
        if (known)
            continue;
        char *more = format("%s%s%s", left, *left ? "," : "", word);
        free(left);
        left = more;
    }
    return left;
}

/* Is a folder on a mount that the machine shares? Else the new mount would be seen by us alone. */
static bool is_shared(const char *folder)
{
    char real[PATH_MAX];
    scoped_free char *text = read_file("/proc/self/mountinfo", 1 << 20, NULL);
    if (!text || !realpath(folder, real))
        return true; /* nobody can tell */
    bool shared = true;
    size_t best = 0;
    char *rest = text;
    for (char *line; (line = next_line(&rest));) {
        char at[PATH_MAX];
        int end = 0;
        if (sscanf(line, "%*s %*s %*s %*s %4095s %n", at, &end) != 1 || !end)
            continue;
        size_t length = strlen(at);
        bool holds = !strncmp(real, at, length) && (real[length] == '/' || !real[length] || !strcmp(at, "/"));
        if (holds && length >= best) {
            const char *fields = line + end, *stop = strstr(fields, " - "), *found = strstr(fields, " shared:");
            best = length;
            shared = found && (!stop || found < stop);
        }
    }
    return shared;
}

/* Links as udev makes them: /dev/disk/by-uuid, and by-label; without a target it goes. What a name must not have is \xHH. */
static void make_link(const char *folder, const char *name, const char *target)
{
    if (!*name || *name == '.')
        return;
    scoped_free char *link = format("%s/disk/%s/", where.dev, folder);
    make_dirs(link, 0755);
    for (const char *at = name; *at; at++) {
        bool plain = (*at >= '0' && *at <= '9') || (*at >= 'A' && *at <= 'Z') || (*at >= 'a' && *at <= 'z') ||
                     strchr("#+-.:=@_", *at) || *at & 0x80;
        char *longer = plain ? format("%s%c", link, *at) : format("%s\\x%02x", link, (unsigned char)*at);
        free(link);
        link = longer;
    }
    unlink(link);
    if (!target)
        return;
    scoped_free char *to = format("../../%s", target + strlen(where.dev) + 1);
    (void)!symlink(to, link); /* a comfort; the mount is what counts */
}

static bool is_among(char **names, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (!strcmp(names[i], name))
            return true;
    return false;
}

/* A label that several have leads to none of them. */
static void make_links(void)
{
    scoped_free struct disk *all = NULL;
    char **labels = NULL, **uuids = NULL;
    size_t count = devices_list(&all), label_count = 0, uuid_count = 0;
    for (size_t i = 0; i < count; i++) {
        struct content content;
        scoped_fd fd = disk_open(&all[i], false, false);
        if (fd < 0 || !content_read(&content, fd, all[i].size))
            continue;
        if (*content.uuid && !is_among(uuids, uuid_count, content.uuid)) {
            *APPEND(uuids, uuid_count) = must_dup(content.uuid);
            make_link("by-uuid", content.uuid, disk_is_alone(NULL, content.uuid) ? all[i].path : NULL);
        }
        if (!*content.label || is_among(labels, label_count, content.label))
            continue;
        *APPEND(labels, label_count) = must_dup(content.label);
        make_link("by-label", content.label, disk_is_alone(content.label, NULL) ? all[i].path : NULL);
    }
    free_names(labels, label_count);
    free_names(uuids, uuid_count);
}

/* The first Linux partition with a filesystem that nobody uses. */
static bool free_now(struct disk *found)
{
    scoped_free struct disk *disks = NULL;
    size_t count = disks_list(&disks);
    for (size_t i = 0; i < count; i++) {
        scoped_table table = {0};
        scoped_fd fd = disk_open(&disks[i], false, false);
        if (fd < 0)
            continue;
        table_read(&table, fd, disks[i].sector, disks[i].size);
        for (size_t j = 0; j < table.count && table.kind != TABLE_DAMAGED && !table.unfinished; j++) {
            struct content content;
            if (!table.slots[j].linux_type || !disk_part(found, &disks[i], &table.slots[j], 0) || disk_busy(found))
                continue;
            scoped_fd part = disk_open(found, false, false);
            if (part >= 0 && content_read(&content, part, found->size) && content.filesystem)
                return true;
        }
    }
    return false;
}

static bool first_free(struct disk *found)
{
    for (double end = now() + patience; !free_now(found); pause_ms(AGAIN_MS))
        if (now() >= end)
            return false;
    return true;
}

static int find(struct disk *found, const char *device, const char *label, const char *uuid)
{
    if (device)
        return disk_asked(found, device, patience) ? 0 : 1;
    if (label || uuid) {
        int there = disk_with(found, label, uuid, false, patience);
        if (there == 0)
            tell("no filesystem has %s=%s", label ? "LABEL" : "UUID", label ? label : uuid);
        return there > 0 ? 0 : 1;
    }
    if (first_free(found))
        return 0;
    tell("no eligible disk: there is no Linux partition with a filesystem that isn't mounted");
    return 1;
}

static int mount_at(const struct disk *disk, const char *folder, const char *options)
{
    struct content content;
    unsigned long flags = 0;
    scoped_free char *data = options_split(options, &flags);
    scoped_fd fd = disk_open(disk, false, false);
    if (fd < 0) {
        tell("%s cannot be opened: %s", disk->path, strerror(errno));
        return 1;
    }
    if (!content_read(&content, fd, disk->size) || !content.filesystem) {
        scoped_free char *what = disk_describe(disk);
        tell("%s has no filesystem: there is %s on it", disk->path, what);
        return 1;
    }
    if (make_dirs(folder, 0755) < 0) {
        tell("%s: %s", folder, strerror(errno));
        return 1;
    }
    if (!is_shared(folder)) {
        tell("%s is not a folder that the machine shares: what is mounted there would be seen by nobody. "
             "Take one below /var, or add a bind `/FOLDER:/FOLDER:rshared,rbind`", folder);
        return 1;
    }
    if (disk->readonly || !strcmp(content.type, "iso9660") || !strcmp(content.type, "squashfs"))
        flags |= MS_RDONLY;
    if (fs_mount(disk->path, folder, content.type, flags, *data ? data : NULL) < 0) {
        tell("%s (%s) on %s: %s", disk->path, content.type, folder, strerror(errno));
        return 1;
    }
    tell("%s (%s%s%s) on %s", disk->path, content.type, *content.label ? ", LABEL=" : "", content.label, folder);
    return 0;
}

int mount_main(int argc, char **argv)
{
    const char *device = NULL, *label = NULL, *uuid = NULL, *options = "";
    const struct flag flags[] = {
        {.names = "device", .text = &device},
        {.names = "label", .text = &label},
        {.names = "uuid", .text = &uuid},
        {.names = "options o", .text = &options},
    };
    size_t count;
    struct disk disk;
    program_is("mount", how);
    scoped_free const char **left = command_read(flags, COUNT(flags), argc, argv, &count);
    if ((device != NULL) + (label != NULL) + (uuid != NULL) > 1)
        usage("one of -device, -label and -uuid");
    if (count == 2 && !label && !uuid && !device)
        device = left[0];
    else if (count != 1)
        usage("where shall it be mounted?");
    const char *folder = left[count - 1];
    if (*folder != '/')
        usage("%s is not an absolute path", folder);
    if (find(&disk, device, label, uuid))
        return 1;
    int result = mount_at(&disk, folder, options);
    make_links();
    return result;
}
