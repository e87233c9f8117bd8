/* /init of the boot initrd. What goes wrong is said, and ends as it would if the kernel itself had found no root:
 * PID 1 ends, which is a panic, and panic= says what comes of that. */
#include "applets.h"
#include "bootstage.h"
#include "event.h"
#include "modules.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#define TARGET "/sysroot"
#define PORT "org.linuxkit.report"
#define SAFE (MS_NODEV | MS_NOSUID | MS_NOEXEC)

static const struct places machine = {"/sys", "/dev"};
static int port = -1; /* to who runs this machine, when there is such a thing */

static void open_port(void)
{
    size_t count;
    char **ports = port < 0 ? list_names("/sys/class/virtio-ports", &count) : NULL;
    for (size_t i = 0; ports && i < count && port < 0; i++) {
        scoped_free char *file = format("/sys/class/virtio-ports/%s/name", ports[i]);
        scoped_free char *name = read_line(file);
        scoped_free char *path = format("/dev/%s", ports[i]);
        if (name && !strcmp(name, PORT))
            port = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    }
    if (ports)
        free_names(ports, count);
}

static void tell(struct event event)
{
    char line[EVENT_MAX];
    open_port();
    if (port >= 0)
        (void)!write(port, line, event_line(line, now(), &event));
}

static int give_up(const char *reason, char **lines, size_t count)
{
    say("no root: %s", reason);
    for (size_t i = 0; i < count; i++)
        say("    %s", lines[i]);
    tell((struct event){.event = "fail", .step = "root", .status = 1, .message = reason, .ms = now() * 1e3,
                        .log = (const char *const *)lines, .log_count = count});
    pause_ms(200); /* for those who listen: a panic ends everything at once */
    return 1;
}

static void mount_early(void)
{
    static const struct {
        const char *path, *type;
        unsigned long flags;
    } early[] = {{"/proc", "proc", SAFE}, {"/sys", "sysfs", SAFE}, {"/dev", "devtmpfs", MS_NOSUID | MS_NOEXEC}};
    for (size_t i = 0; i < COUNT(early); i++) {
        mkdir(early[i].path, 0755);
        if (mount(early[i].type, early[i].path, early[i].type, early[i].flags, NULL) < 0)
            say("mount %s: %s", early[i].path, strerror(errno));
    }
    mkdir(TARGET, 0755);
}

/* Waits for the device, with modules for all that appears meanwhile. 1, 0: it did not come, or -1 and why not. */
static int await(struct device *found, const struct root_options *options, struct coldplug *plug,
                 char reason[static REASON_MAX])
{
    double start = now(), next_word = start + 3;
    for (long ms = 10;; ms = ms < 160 ? 2 * ms : ms) {
        coldplug_pass(plug);
        int there = now() - start >= options->delay ? device_find(found, &machine, options->root, reason) : 0;
        if (there)
            return there;
        double t = now();
        if (options->wait >= 0 && t - start >= options->wait + options->delay)
            return 0;
        if (t >= next_word) {
            say("waiting for root=%s", options->root);
            next_word = t + 10;
        }
        pause_ms(ms);
    }
}

/* Mounts as the first of the types that takes it: those given, else what the device says it is. */
static int mount_root(const struct device *device, const struct root_options *options, struct modules *index,
                      char reason[static REASON_MAX], const char **type)
{
    struct superblock super = {0};
    scoped_fd fd = open(device->path, O_RDONLY | O_CLOEXEC);
    static char types[256];
    snprintf(types, sizeof(types), "%s", options->types && *options->types ? options->types
             : fd >= 0 && superblock_read(&super, fd) ? super.type : "");
    if (!*types) {
        snprintf(reason, REASON_MAX, options->verified ? "%s is not what was built: its data or its hash tree was changed"
                 : "%s: none of squashfs, erofs, ext4, iso9660; rootfstype= names another", device->path);
        return -1;
    }
    unsigned long flags = options->writable && !options->verified ? 0 : MS_RDONLY;
    int error = ENODEV;
    char *save;
    for (char *name = strtok_r(types, ",", &save); name; name = strtok_r(NULL, ",", &save)) {
        if (modules_load(index, name, "") < 0 && errno != ENOENT)
            say("module %s: %s", name, strerror(errno));
        if (mount(device->path, TARGET, name, flags, options->flags) == 0) {
            *type = name;
            return 0;
        }
        error = errno;
        say("mount %s as %s: %s", device->path, name, strerror(error));
    }
    snprintf(reason, REASON_MAX, "%s cannot be mounted: %s%s", device->path, strerror(error),
             error == ENODEV ? ": this kernel has no driver for the filesystem"
             : options->verified && error == EIO ? ": its data or its hash tree was changed" : "");
    return -1;
}

/* Replaces this program. Only returns when there is no init to be started. */
static int start_init(const char *wanted, char **argv)
{
    static const char *const usual[] = {"/sbin/init", "/init", "/etc/init", "/bin/init"};
    const char *const *tries = wanted ? &wanted : usual;
    char reason[REASON_MAX];
    for (size_t i = 0; i < (wanted ? 1 : COUNT(usual)); i++) {
        argv[0] = (char *)tries[i];
        execv(tries[i], argv);
        if (errno != ENOENT || wanted) {
            snprintf(reason, sizeof(reason), "cannot start %s of the root: %s", tries[i], strerror(errno));
            return give_up(reason, NULL, 0);
        }
    }
    return give_up("the root has none of /sbin/init, /init, /etc/init, /bin/init", NULL, 0);
}

int bootstage_main(int argc, char **argv)
{
    (void)argc;
    char reason[REASON_MAX];
    struct root_options options;
    struct device device;
    static struct coldplug plug;
    if (getpid() != 1) {
        fprintf(stderr, "This starts a machine, as its first process.\n");
        return 2;
    }
    double start = now();
    mount_early();
    scoped_free char *cmdline = read_line("/proc/cmdline");
    coldplug_open(&plug);
    if (root_options_read(&options, cmdline ? cmdline : "", reason) < 0) {
        coldplug_pass(&plug); /* the port may need a module */
        return give_up(reason, NULL, 0);
    }
    int there = await(&device, &options, &plug, reason);
    if (there < 0)
        return give_up(reason, NULL, 0);
    if (!there) {
        size_t count;
        char **lines = devices_describe(&machine, &count);
        snprintf(reason, sizeof(reason), "root=%.200s did not appear in %.0f seconds; %s", options.root, now() - start,
                 count ? "there are" : "there is no block device at all: a driver is missing, or the disk");
        return give_up(reason, lines, count);
    }
    scoped_free char *found = must_dup(device.path);
    if (options.verified) {
        /* Asked for by dm-verity itself only when there is none at all: the quick ones would stay unused. */
        if (modules_load(&plug.index, "crypto-sha256", "") < 0 && errno != ENOENT && errno != ENODEV)
            say("sha256: %s", strerror(errno));
        if (modules_load(&plug.index, "dm_verity", "") < 0 && errno != ENOENT)
            say("module dm_verity: %s", strerror(errno));
        if (verity_open(&device, &options.verity, reason) < 0)
            return give_up(reason, NULL, 0);
    }
    const char *type;
    if (mount_root(&device, &options, &plug.index, reason, &type) < 0)
        return give_up(reason, NULL, 0);
    scoped_free char *message = format("%s, %s%s", found, type, options.verified ? ", verity" : "");
    say("root is %s", message);
    tell((struct event){.event = "done", .step = "root", .message = message, .ms = (now() - start) * 1e3});
    if (switch_root(TARGET) < 0) {
        snprintf(reason, sizeof(reason), "cannot move to the root: %s", strerror(errno));
        return give_up(reason, NULL, 0);
    }
    return start_init(options.init, argv);
}
