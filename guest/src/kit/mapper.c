/* dm-crypt by device-mapper's own calls: linux/dm-ioctl.h, Documentation/admin-guide/device-mapper/dm-crypt.rst. */
#include "mapper.h"
#include "command.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define CIPHER "aes-cbc-essiv:sha256"
#define CONTROL_MAJOR 10
#define CONTROL_MINOR 236

struct request {
    struct dm_ioctl head;
    struct dm_target_spec target;
    char table[512];
};

static void prepare(struct request *request, const char *name, uint32_t flags)
{
    memset(request, 0, sizeof(*request));
    request->head = (struct dm_ioctl){
        .version = {DM_VERSION_MAJOR, 0, 0},
        .data_size = sizeof(*request),
        .data_start = sizeof(request->head),
        .flags = flags,
    };
    snprintf(request->head.name, sizeof(request->head.name), "%s", name);
}

static int control_open(void)
{
    scoped_free char *path = format("%s/mapper/control", where.dev);
    if (!exists(path)) { /* the driver is a module that comes when this is opened */
        make_parents(path);
        mknod(path, S_IFCHR | 0600, makedev(CONTROL_MAJOR, CONTROL_MINOR));
    }
    return open(path, O_RDWR | O_CLOEXEC);
}

static int load(int control, struct request *request, const char *name, const struct disk *below,
                const unsigned char key[static 32])
{
    char hex[65];
    for (int i = 0; i < 32; i++)
        sprintf(hex + 2 * i, "%02x", key[i]);
    prepare(request, name, DM_SECURE_DATA_FLAG);
    request->head.target_count = 1;
    request->target.length = below->size / 512;
    strcpy(request->target.target_type, "crypt");
    snprintf(request->table, sizeof(request->table), CIPHER " %s 0 %u:%u 0", hex, below->major, below->minor);
    explicit_bzero(hex, sizeof(hex));
    return ioctl(control, DM_TABLE_LOAD, request);
}

int crypt_open(char path[static 300], const char *name, const struct disk *below, const unsigned char key[static 32])
{
    static struct request request;
    const char *failed = NULL;
    scoped_fd control = control_open();
    if (control < 0) {
        tell("this kernel has no device-mapper: %s/mapper/control: %s", where.dev, strerror(errno));
        return -1;
    }
    prepare(&request, name, 0);
    if (ioctl(control, DM_DEV_CREATE, &request) < 0) {
        tell("/dev/mapper/%s: %s", name, errno == EBUSY ? "it is there already" : strerror(errno));
        return -1;
    }
    uint64_t number = request.head.dev;
    if (load(control, &request, name, below, key) < 0) {
        failed = "its table is refused";
    } else {
        prepare(&request, name, 0);
        if (ioctl(control, DM_DEV_SUSPEND, &request) < 0) /* without DM_SUSPEND_FLAG: it goes to work */
            failed = "it does not start";
    }
    int error = errno;
    explicit_bzero(&request, sizeof(request));
    if (failed) {
        tell("/dev/mapper/%s: %s: %s", name, failed, strerror(error));
        prepare(&request, name, 0);
        ioctl(control, DM_DEV_REMOVE, &request);
        return -1;
    }
    snprintf(path, 300, "%s/mapper/%s", where.dev, name);
    unlink(path);
    if (mknod(path, S_IFBLK | 0600, makedev(major(number), minor(number))) < 0) {
        tell("%s: %s", path, strerror(errno));
        return -1;
    }
    return 0;
}
