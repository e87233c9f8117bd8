/* Device-mapper, by the kernel's own calls: linux/dm-ioctl.h, Documentation/admin-guide/device-mapper. */
#include "dm.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define CONTROL "/dev/mapper/control"
#define CONTROL_MAJOR 10
#define CONTROL_MINOR 236

struct request {
    struct dm_ioctl head;
    struct dm_target_spec target;
    char table[2048];
};

static int control_open(const char *path)
{
    if (!exists(path)) { /* the driver is a module that comes when this is opened */
        make_parents(path);
        mknod(path, S_IFCHR | 0600, makedev(CONTROL_MAJOR, CONTROL_MINOR));
    }
    return open(path, O_RDWR | O_CLOEXEC);
}

static void prepare(struct request *request, const struct dm *wanted, uint32_t flags)
{
    memset(request, 0, sizeof(*request));
    request->head = (struct dm_ioctl){
        .version = {DM_VERSION_MAJOR, 0, 0},
        .data_size = sizeof(*request),
        .data_start = sizeof(request->head),
        .flags = flags | (wanted->readonly ? DM_READONLY_FLAG : 0) | (wanted->secret ? DM_SECURE_DATA_FLAG : 0),
    };
    memcpy(request->head.name, wanted->name, strlen(wanted->name));
}

static int load(int control, struct request *request, const struct dm *wanted)
{
    prepare(request, wanted, 0);
    request->head.target_count = 1;
    request->target.length = wanted->sectors;
    memcpy(request->target.target_type, wanted->target, strlen(wanted->target));
    memcpy(request->table, wanted->table, strlen(wanted->table));
    return ioctl(control, DM_TABLE_LOAD, request);
}

/* Without DM_SUSPEND_FLAG this call resumes: the table goes to work. */
static int resume(int control, struct request *request, const struct dm *wanted)
{
    prepare(request, wanted, 0);
    request->head.flags = 0;
    return ioctl(control, DM_DEV_SUSPEND, request);
}

int dm_open(const struct dm *wanted, uint64_t *number, const char **failed)
{
    static struct request request;
    *failed = "the name or the table is too long";
    if (strlen(wanted->name) >= sizeof(request.head.name) || strlen(wanted->table) >= sizeof(request.table) ||
        strlen(wanted->target) >= sizeof(request.target.target_type)) {
        errno = E2BIG;
        return -1;
    }
    *failed = "this kernel has no device-mapper";
    scoped_fd control = control_open(wanted->control ? wanted->control : CONTROL);
    if (control < 0)
        return -1;
    prepare(&request, wanted, 0);
    *failed = "it cannot be made";
    if (ioctl(control, DM_DEV_CREATE, &request) < 0)
        return -1;
    *number = request.head.dev;
    *failed = load(control, &request, wanted) < 0     ? "its table is refused"
              : resume(control, &request, wanted) < 0 ? "it does not start"
                                                      : NULL;
    int error = errno;
    explicit_bzero(&request, sizeof(request));
    if (!*failed)
        return 0;
    prepare(&request, wanted, 0);
    ioctl(control, DM_DEV_REMOVE, &request);
    errno = error;
    return -1;
}
