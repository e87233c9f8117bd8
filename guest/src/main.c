/* One static program, many names. */
#include "applets.h"
#include "util.h"

#include <string.h>
#include <sys/auxv.h>

static const struct applet {
    const char *name;
    int (*main)(int argc, char **argv);
} applets[] = {
    {"init", init_main},         {"rc.init", init_main},   {"rc.shutdown", power_main}, {"poweroff", power_main},
    {"reboot", power_main},      {"halt", power_main},     {"modprobe", modprobe_main}, {"service", service_main},
    {"000-issue", service_main},
};

int main(int argc, char **argv)
{
    const char *file = (const char *)getauxval(AT_EXECFN);
    if (file && strcmp(base_name(file), "usermode-helper") == 0)
        return helper_main(argc, argv);
    const char *name = argc > 0 ? base_name(argv[0]) : "init";
    for (size_t i = 0; i < COUNT(applets); i++)
        if (strcmp(name, applets[i].name) == 0)
            return applets[i].main(argc, argv);
    /* A link in init.d or shutdown.d: 010-onboot, 020-containerd, ... */
    return service_main(argc, argv);
}
