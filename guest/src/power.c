/* poweroff, reboot, halt, rc.shutdown: ask PID 1, or with -f the kernel. */
#include "applets.h"
#include "loop.h"
#include "util.h"

#include <errno.h>
#include <linux/reboot.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>

static const struct action {
    const char *name;
    int signal, command;
} actions[] = {
    {"poweroff", SIGUSR2, LINUX_REBOOT_CMD_POWER_OFF},
    {"reboot", SIGTERM, LINUX_REBOOT_CMD_RESTART},
    {"halt", SIGUSR1, LINUX_REBOOT_CMD_HALT},
};

int power_main(int argc, char **argv)
{
    const char *word = base_name(argv[0]);
    bool force = false;
    if (strcmp(word, "rc.shutdown") == 0)
        word = "poweroff";
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-f") == 0)
            force = true;
        else if (argv[i][0] != '-')
            word = argv[i];
    }
    if (strcmp(word, "noop") == 0)
        return 0; /* the init that called us halts by itself */
    for (size_t i = 0; i < COUNT(actions); i++) {
        if (strcmp(word, actions[i].name) != 0)
            continue;
        if (force)
            sync();
        if (force ? reboot(actions[i].command) == 0 : kill(1, actions[i].signal) == 0)
            return 0;
        fprintf(stderr, "%s: %s\n", word, strerror(errno));
        return 1;
    }
    fprintf(stderr, "usage: rc.shutdown [-f] [poweroff|reboot|halt|noop]\n");
    return 2;
}
