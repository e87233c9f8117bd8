/* The programs that the kernel starts by itself, as root of the machine: which ones, and no others.
 * docs/design/containment.md, "The kernel's helpers". */
#include "applets.h"
#include "setup.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

void set_helpers(void)
{
    write_file("/proc/sys/kernel/core_pattern", "core");
    write_file("/proc/sys/kernel/modprobe", "/sbin/modprobe");
    /* Where the kernel has them at all: for devices that appear. We listen to its messages instead. */
    write_file("/proc/sys/kernel/hotplug", "\n");
    write_file("/sys/kernel/uevent_helper", "\n");
}

bool helper_allowed(const char *program)
{
    static const char *const allowed[] = {"/sbin/modprobe", "/sbin/poweroff", "/sbin/reboot", "/sbin/request-key",
                                          "/sbin/bridge-stp"};
    for (size_t i = 0; i < COUNT(allowed); i++)
        if (strcmp(program, allowed[i]) == 0)
            return true;
    return false;
}

/* A kernel with CONFIG_STATIC_USERMODEHELPER runs this in place of every helper; the helper's own path is argv[0]. */
int helper_main(int argc, char **argv)
{
    if (argc > 0 && helper_allowed(argv[0])) {
        execv(argv[0], argv);
        return errno == ENOENT ? 127 : 126;
    }
    scoped_fd log = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
    char line[256];
    int length = snprintf(line, sizeof(line), "linuxkit: the kernel's helper %.100s is not allowed\n",
                          argc > 0 ? argv[0] : "");
    if (log >= 0 && length > 0 && write(log, line, (size_t)length) < 0)
        return 1;
    return 126;
}
