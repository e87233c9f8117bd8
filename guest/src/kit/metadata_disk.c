/* Data on a disk: NoCloud's files on one that is labelled cidata, or a CD with user-data or config. */
#define _GNU_SOURCE
#include "bootstage.h"
#include "bytes.h"
#include "metadata.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/mount.h>
#include <sys/stat.h>

/* The label in a FAT boot sector (Microsoft's specification, 3.1 to 3.3), or NULL. To be freed. */
static char *fat_label(int fd)
{
    unsigned char sector[512];
    if (read_at(fd, sector, sizeof(sector), 0) != sizeof(sector) || le16_at(sector + 510) != 0xAA55 ||
        (sector[0] != 0xEB && sector[0] != 0xE9) || le16_at(sector + 11) < 512 || sector[16] == 0)
        return NULL;
    const unsigned char *extended = sector + (le16_at(sector + 22) ? 36 : 64); /* no 16-bit size of a table: FAT32 */
    if (extended[2] != 0x29)
        return NULL;
    size_t length = 11;
    while (length && extended[7 + length - 1] == ' ')
        length--;
    return format("%.*s", (int)length, (const char *)extended + 7);
}

/* The type of a filesystem with the label, in either case, or NULL. */
static const char *labelled_type(const char *device, const char *wanted)
{
    scoped_fd fd = medium_open(device, O_RDONLY);
    struct superblock super;
    if (fd < 0)
        return NULL;
    if (superblock_read(&super, fd))
        return strcasecmp(super.label, wanted) == 0 && !strcmp(super.type, "iso9660") ? "iso9660" : NULL;
    scoped_free char *label = fat_label(fd);
    return label && strcasecmp(label, wanted) == 0 ? "vfat" : NULL;
}

char *disk_mount(const char *device, const char *type)
{
    char folder[] = "/tmp/metadataXXXXXX";
    scoped_fd medium = medium_open(device, O_RDONLY);
    if (medium < 0) {
        detail("%s: %s", device, strerror(errno));
        return NULL;
    }
    if (!mkdtemp(folder)) {
        note("/tmp: %s", strerror(errno));
        return NULL;
    }
    if (mount(device, folder, type, MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "") < 0) {
        detail("%s: not mounted as %s: %s", device, type, strerror(errno));
        rmdir(folder);
        return NULL;
    }
    return must_dup(folder);
}

void disk_unmount(const char *folder)
{
    if (umount2(folder, MNT_DETACH) == 0)
        rmdir(folder);
}

/* A file of a folder, which a link must not lead out of. NULL: it is not there, or (said) it can't be read. */
static char *read_in(const char *folder, const char *name, size_t limit, size_t *length)
{
    scoped_free char *path = format("%s/%s", folder, name);
    struct stat info;
    if (lstat(path, &info) < 0)
        return NULL;
    char *text = NULL;
    if (!S_ISREG(info.st_mode))
        note("%s: not a file", path);
    else if (!(text = read_file(path, limit, length)))
        note("%s: %s", path, strerror(errno));
    return text;
}

static void store_further(const char *folder, const char *const further[][2], size_t count)
{
    for (size_t i = 0; i < count; i++) {
        size_t size;
        scoped_free char *text = read_in(folder, further[i][0], VALUE_MAX, &size);
        if (text && size)
            store(further[i][1], text, size, 0644);
    }
}

bool folder_extract(const char *folder, bool *found)
{
    size_t length, meta_length;
    scoped_free char *userdata = read_in(folder, "user-data", USERDATA_MAX, &length);
    if (!userdata)
        userdata = read_in(folder, "config", USERDATA_MAX, &length);
    scoped_free char *meta = read_in(folder, "meta-data", VALUE_MAX, &meta_length);
    *found = (userdata && length) || meta;
    if (!*found)
        return true;
    if (meta)
        store_cloud_metadata(meta, meta_length);
    static const char *const further[][2] = {{"network-config", "network_config"}, {"vendor-data", "vendordata"}};
    store_further(folder, further, COUNT(further));
    return !userdata || !length || store_userdata(userdata, length);
}

static bool try_disk(const char *device, const char *type, char **shown)
{
    bool found = false, complete = true;
    scoped_free char *folder = disk_mount(device, type);
    if (!folder)
        return false;
    complete = folder_extract(folder, &found);
    disk_unmount(folder);
    detail("%s: %s", device, found ? "has data" : "nothing for us on it");
    if (found && complete)
        *shown = format("CDROM %s", device);
    return found && complete;
}

static bool is_boring(const char *name)
{
    static const char *const boring[] = {"loop", "ram", "zram", "fd", "nbd"};
    for (size_t i = 0; i < COUNT(boring); i++)
        if (starts_with(name, boring[i]))
            return true;
    return false;
}

/* Calls `try` with each device that fits until it is content: those with a label, or, without one, all CD drives. */
static bool each_disk(const char *label, bool (*try)(const char *device, const char *type, char **shown), char **shown)
{
    size_t count;
    bool found = false;
    scoped_free char *folder = host_path("/sys/class/block");
    char **names = list_names(folder, &count);
    for (size_t i = 0; i < count && !found; i++) {
        scoped_free char *name = format("/dev/%s", names[i]);
        scoped_free char *device = host_path(name);
        bool cd = starts_with(names[i], "sr") && names[i][2] >= '0' && names[i][2] <= '9';
        const char *type = label ? (is_boring(names[i]) ? NULL : labelled_type(device, label)) : cd ? "iso9660" : NULL;
        found = type && try(device, type, shown);
    }
    if (names)
        free_names(names, count);
    return found;
}

bool disk_extract(char **shown)
{
    return each_disk("cidata", try_disk, shown) || each_disk(NULL, try_disk, shown);
}

/* -- OpenStack's config drive, for clouds without the service */

#define DRIVE "config-2"

static bool any_disk(const char *device, const char *type, char **shown)
{
    (void)type, (void)shown;
    detail("%s: a config drive", device);
    return true;
}

static bool try_drive(const char *device, const char *type, char **shown)
{
    static const char *const further[][2] = {
        {"network_data.json", "network_config"}, {"vendor_data.json", "vendordata"}};
    (void)shown;
    size_t length, meta_length;
    scoped_free char *mounted = disk_mount(device, type);
    if (!mounted)
        return false;
    scoped_free char *folder = format("%s/openstack/latest", mounted);
    scoped_free char *meta = read_in(folder, "meta_data.json", VALUE_MAX, &meta_length);
    scoped_free char *userdata = read_in(folder, "user_data", USERDATA_MAX, &length);
    if (meta)
        store_cloud_metadata(meta, meta_length);
    store_further(folder, further, COUNT(further));
    disk_unmount(mounted);
    return meta && (!userdata || !length || store_userdata(userdata, length));
}

bool drive_probe(void)
{
    return each_disk(DRIVE, any_disk, NULL);
}

bool drive_extract(void)
{
    return each_disk(DRIVE, try_drive, NULL);
}
