/* dm-verity by device-mapper's own calls: Documentation/admin-guide/device-mapper/verity.rst, linux/dm-ioctl.h. */
#include "bootstage.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

#define CONTROL "/dev/mapper/control"
#define NAME "root"

struct request {
    struct dm_ioctl head;
    struct dm_target_spec target;
    char table[2048];
};

char *verity_table(const struct device *device, const struct verity *verity)
{
    /* hash format, data device, hash device, their block sizes, data blocks, first hash block, algorithm, root, salt */
    return format("1 %u:%u %u:%u %d %d %llu %llu sha256 %s %s", device->major, device->minor, device->major,
                  device->minor, HASH_BLOCK, HASH_BLOCK, (unsigned long long)verity->blocks,
                  (unsigned long long)verity->hash_start, verity->root_hash, verity->salt);
}

static void prepare(struct request *request, uint32_t flags)
{
    memset(request, 0, sizeof(*request));
    request->head = (struct dm_ioctl){
        .version = {DM_VERSION_MAJOR, 0, 0},
        .data_size = sizeof(*request),
        .data_start = sizeof(request->head),
        .flags = flags,
    };
    strcpy(request->head.name, NAME);
}

static int create(int control, struct request *request, uint64_t *number)
{
    prepare(request, DM_READONLY_FLAG);
    if (ioctl(control, DM_DEV_CREATE, request) < 0)
        return -1;
    *number = request->head.dev;
    return 0;
}

static int load(int control, struct request *request, const struct device *device, const struct verity *verity)
{
    scoped_free char *table = verity_table(device, verity);
    prepare(request, DM_READONLY_FLAG);
    request->head.target_count = 1;
    request->target.length = verity->blocks * (HASH_BLOCK / 512);
    strcpy(request->target.target_type, "verity");
    if (strlen(table) >= sizeof(request->table)) {
        errno = E2BIG;
        return -1;
    }
    strcpy(request->table, table);
    return ioctl(control, DM_TABLE_LOAD, request);
}

/* Without DM_SUSPEND_FLAG this call resumes: the table goes to work. */
static int resume(int control, struct request *request)
{
    prepare(request, 0);
    return ioctl(control, DM_DEV_SUSPEND, request);
}

int verity_open(struct device *device, const struct verity *verity, char reason[static REASON_MAX])
{
    static struct request request;
    uint64_t number = 0;
    if (verity->hash_start >= device->size / HASH_BLOCK) {
        snprintf(reason, REASON_MAX, "%s is too short for its hash tree: it was cut off", device->path);
        return -1;
    }
    scoped_fd control = open(CONTROL, O_RDWR | O_CLOEXEC);
    if (control < 0) {
        snprintf(reason, REASON_MAX, "this kernel has no device-mapper: %s: %s", CONTROL, strerror(errno));
        return -1;
    }
    const char *failed = create(control, &request, &number) < 0                 ? "device"
                         : load(control, &request, device, verity) < 0          ? "table"
                         : resume(control, &request) < 0                        ? "start"
                                                                                : NULL;
    if (failed) {
        snprintf(reason, REASON_MAX, "dm-verity, %s: %s", failed, strerror(errno));
        return -1;
    }
    device->major = major(number);
    device->minor = minor(number);
    device->size = verity->blocks * HASH_BLOCK;
    snprintf(device->path, sizeof(device->path), "/dev/dm-%u", device->minor);
    return 0;
}
